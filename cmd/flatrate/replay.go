package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/engine"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/replay"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage"
	"github.com/flatrate/flatrate/cost"
	"github.com/valkey-io/valkey-go"
)

type replayCmd struct {
	Log string `arg:"" optional:"" help:"An access log in common or combined format, plain or gzip; - is standard input."`

	Sample      bool   `help:"Replay a generated log in place of a file."`
	SampleLines int    `default:"20000" help:"How many lines to generate."`
	Seed        uint64 `default:"1" help:"Of the generated log and of the jitter."`

	Limit   int64         `default:"60" help:"Requests that one address may make in each window."`
	Window  time.Duration `default:"60s" help:"The length of a window."`
	Idle    time.Duration `default:"30m" help:"How long a session lives without a request."`
	TTL     time.Duration `default:"300s" help:"How long a cached response lives."`
	Jitter  float64       `default:"0.1" help:"The part of the TTL by which entries may end early; 0 turns it off."`
	BodyMax int           `default:"16384" placeholder:"BYTES" help:"Longer responses are cached cut to this."`

	Output  string `enum:"table,json" default:"table" help:"table or json."`
	Workers int    `default:"64" help:"With --valkey: requests under way at once."`
	Keep    bool   `help:"With --valkey: leave the keys on the server."`

	SessionBytes int64  `default:"2048" help:"The size of one session."`
	SessionReads string `enum:"strong,eventual" default:"strong" help:"How DynamoDB would read sessions: strong or eventual."`
	API          string `enum:"http,rest,none" default:"http" help:"The API Gateway in front: http, rest or none."`
	Node         string `default:"cache.t4g.small" help:"The type of node that replaces the metered services."`
	Nodes        int    `default:"2" help:"How many of them."`
}

// Run replays the log and prints the result.
func (c *replayCmd) Run(ctx context.Context, g globals, io stdio) error {
	if err := c.validate(); err != nil {
		return err
	}
	log, err := c.open(ctx, io)
	if err != nil {
		return err
	}
	defer log.close()
	var result replay.Result
	if g.Valkey == "" {
		result, err = c.embedded(ctx, log, io)
	} else {
		result, err = c.server(ctx, g.Valkey, log, io)
	}
	var broken replay.LogError
	if err != nil && (!errors.As(err, &broken) || result.Requests == 0) {
		return log.explain(err)
	}
	if c.Output == "json" {
		err = errors.Join(result.JSON(io.out), log.explain(err))
	} else {
		err = errors.Join(result.Table(io.out, report.Printable(log.name), c.config()), log.explain(err))
	}
	return err
}

// embedded replays in the log's own time, on an engine inside the process.
func (c *replayCmd) embedded(ctx context.Context, log *logSource, io stdio) (replay.Result, error) {
	io.warn("embedded engine: for trying things out, nothing is kept; --valkey URL uses a real server")
	local, err := engine.New()
	if err != nil {
		return replay.Result{}, err
	}
	defer local.Close()
	cfg := c.config()
	cfg.Advance = local.Advance
	start := time.Now()
	outcome, err := c.run(ctx, local.Client(), cfg, log, io)
	if err == nil {
		took := time.Since(start)
		io.warn("%s lines in %v, %s lines a second", report.Count(outcome.Requests), took.Round(time.Millisecond),
			report.Count(int64(float64(outcome.Requests)/took.Seconds())))
	}
	return c.result(outcome, nil, err)
}

// server replays on a real server, and removes its keys.
func (c *replayCmd) server(ctx context.Context, url string, log *logSource, io stdio) (result replay.Result, err error) {
	client, err := connect(ctx, url)
	if err != nil {
		return result, err
	}
	defer client.Close()
	cfg := c.config()
	cfg.Prefix = "replay-" + strings.ToLower(rand.Text()[:10]) // no run meets the keys of another
	if c.Keep {
		defer io.warn("the keys %s:* are left on the server", cfg.Prefix)
	} else {
		defer func() {
			left := removeKeys(ctx, client, cfg.Prefix)
			if left != nil && ctx.Err() != nil { // beside an interruption nobody reports errors
				io.warn("%v", left)
			}
			err = errors.Join(err, left)
		}()
	}
	before, err := replay.UsedMemory(ctx, client)
	if err != nil {
		return result, err
	}
	outcome, err := c.run(ctx, client, cfg, log, io)
	if ctx.Err() != nil {
		return result, err
	}
	after, memoryErr := replay.UsedMemory(ctx, client)
	return c.result(outcome, replay.Measure(outcome, after-before), errors.Join(err, memoryErr))
}

// removeKeys also runs after Ctrl-C, but does not wait long for a server that is gone.
func removeKeys(ctx context.Context, client valkey.Client, prefix string) error {
	ctx = context.WithoutCancel(ctx)
	ping, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err := client.Do(ping, client.B().Ping().Build()).Error()
	if err == nil {
		err = replay.RemoveKeys(ctx, client, prefix)
	}
	if err != nil {
		return fmt.Errorf("keys that begin with %s: may be left on the server: %w", prefix, err)
	}
	return nil
}

// run replays with a progress bar, and reports what was skipped.
func (c *replayCmd) run(ctx context.Context, client valkey.Client, cfg replay.Config, log *logSource, io stdio) (replay.Outcome, error) {
	in, done := report.Progress(io.err, log, log.size)
	outcome, err := replay.Run(ctx, client, cfg, usage.ReadLog(in))
	done()
	for _, skip := range outcome.Skips {
		io.warn("skipped %v", skip)
	}
	if more := outcome.Skipped - int64(len(outcome.Skips)); more > 0 {
		io.warn("skipped %s more lines", report.Count(more))
	}
	if a := outcome.Ahead; a.Hidden > 0 {
		io.warn("warning: line %s is dated %s; lines behind it that are older by an hour or more count at that time: %s",
			report.Count(a.Line), a.Time.UTC().Format(time.RFC3339), report.Count(a.Hidden))
	}
	return outcome, err
}

// result prices an outcome, also one before the error that ended the log.
func (c *replayCmd) result(outcome replay.Outcome, measured *replay.Measured, err error) (replay.Result, error) {
	bill, billErr := replay.Bill(outcome, c.assumptions())
	if billErr != nil {
		return replay.Result{}, errors.Join(err, billErr)
	}
	return replay.NewResult(outcome, err == nil, bill, measured), err
}

func (c *replayCmd) config() replay.Config {
	return replay.Config{
		Limit: c.Limit, Window: c.Window, Idle: c.Idle, TTL: c.TTL, Jitter: c.Jitter, Seed: c.Seed,
		BodyMax: c.BodyMax, SessionBytes: int(c.SessionBytes), Workers: c.Workers,
	}
}

func (c *replayCmd) assumptions() replay.Assumptions {
	return replay.Assumptions{
		SessionBytes: c.SessionBytes, SessionReads: cost.Consistency(c.SessionReads), API: c.API,
		Flat: cost.Flat{Node: c.Node, Count: c.Nodes},
	}
}

// validate names the flag that is wrong, before anything is read.
func (c *replayCmd) validate() error {
	const longest = 10 * 365 * 24 * time.Hour
	switch {
	case c.Log == "" && !c.Sample:
		return usagef("replay needs a LOG (a file, or - for standard input) or --sample")
	case c.Log != "" && c.Sample:
		return usagef("replay takes a LOG or --sample, not both")
	}
	for _, count := range []struct {
		flag             string
		value, low, high int64
	}{
		{"--sample-lines", int64(c.SampleLines), 1, 1e12},
		{"--limit", c.Limit, 1, 1 << 53},
		{"--body-max", int64(c.BodyMax), 0, 64 << 20},
		{"--workers", int64(c.Workers), 1, 10_000},
		{"--session-bytes", c.SessionBytes, 1, 400 << 10},
		{"--nodes", int64(c.Nodes), 1, 1000},
	} {
		if count.value < count.low || count.value > count.high {
			return usagef("%s must be from %d to %d, not %d", count.flag, count.low, count.high, count.value)
		}
	}
	for _, length := range []struct {
		flag  string
		value time.Duration
	}{{"--window", c.Window}, {"--idle", c.Idle}, {"--ttl", c.TTL}} {
		if length.value < time.Millisecond || length.value > longest || length.value%time.Millisecond != 0 {
			return usagef("%s must be whole milliseconds, from 1ms to 10 years, not %v", length.flag, length.value)
		}
	}
	if !(c.Jitter >= 0 && c.Jitter <= 1) { // NaN fails too
		return usagef("--jitter must be from 0 to 1, not %v", c.Jitter)
	}
	if _, err := replay.Bill(replay.Outcome{}, c.assumptions()); err != nil {
		return usagef("--node: %w", err)
	}
	return nil
}

// logSource is what is replayed.
type logSource struct {
	io.Reader
	name  string
	size  int64 // in bytes, -1 if unknown
	close func()
}

// explain names the source in an error about it.
func (s *logSource) explain(err error) error {
	var broken replay.LogError
	if !errors.As(err, &broken) {
		return err
	}
	return fmt.Errorf("%s: %w", s.name, err)
}

func (c *replayCmd) open(ctx context.Context, std stdio) (*logSource, error) {
	switch {
	case c.Sample:
		r, w := io.Pipe()
		go func() {
			out := bufio.NewWriterSize(w, 64<<10)
			w.CloseWithError(errors.Join(usage.Sample(out, c.Seed, c.SampleLines), out.Flush()))
		}()
		name := fmt.Sprintf("A generated log: %s lines, seed %d", report.Count(int64(c.SampleLines)), c.Seed)
		return &logSource{r, name, -1, func() { _ = r.Close() }}, nil
	case c.Log == "-":
		r, closeInput := interruptible(ctx, std.in)
		return &logSource{r, "standard input", -1, closeInput}, nil
	}
	file, err := os.Open(c.Log)
	if err != nil {
		return nil, err
	}
	size := int64(-1)
	if stat, err := file.Stat(); err == nil && stat.Mode().IsRegular() {
		size = stat.Size()
	}
	return &logSource{file, c.Log, size, func() { _ = file.Close() }}, nil
}

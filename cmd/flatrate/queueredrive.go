package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/queue"
	"github.com/schollz/progressbar/v3"
)

type queueRedriveCmd struct {
	Name string `arg:"" help:"The queue with the dead letters."`
	To   string `placeholder:"QUEUE" help:"Where they go. Default: each to the queue where it failed."`
	Rate int    `placeholder:"N" help:"How many are moved in a second at most. Default: as fast as it goes."`
	Max  int    `placeholder:"N" help:"Stop after so many. Default: all."`
}

// Run moves dead letters until there are no more, or Ctrl-C.
func (c *queueRedriveCmd) Run(ctx context.Context, g globals, all *queueCmd, io stdio) error {
	const most = 1_000_000_000
	switch {
	case c.Rate < 0 || c.Rate > most:
		return usagef("--rate must be from 0 (no limit) to %d, not %d", most, c.Rate)
	case c.Max < 0 || c.Max > most:
		return usagef("--max must be from 0 (all) to %d, not %d", most, c.Max)
	case c.To == c.Name:
		return usagef("--to is the queue itself")
	}
	s, q, err := all.one(ctx, g, c.Name)
	if err != nil {
		return err
	}
	defer s.client.Close()
	if c.To != "" {
		if _, err := s.open(c.To, queue.Config{}); err != nil {
			return fmt.Errorf("--to: %w", err)
		}
	}
	before, err := q.Stats(ctx)
	if err != nil {
		return err
	}
	total := held(before)
	if c.Max > 0 {
		total = min(total, int64(c.Max))
	}
	progress, done := c.progress(io.err, total)
	moved, err := q.Redrive(ctx, queue.RedriveOptions{To: c.To, PerSecond: c.Rate, Max: c.Max, Progress: progress})
	done()
	return errors.Join(c.print(ctx, q, moved, err, all.Output, io), c.explain(err))
}

func (c *queueRedriveCmd) explain(err error) error {
	if err != nil && strings.Contains(err.Error(), "it is not known where they failed") {
		return fmt.Errorf("%w (--to QUEUE)", err)
	}
	return err
}

// print says what was done, also if it was not all.
func (c *queueRedriveCmd) print(ctx context.Context, q *queue.Queue, moved int, failed error, output string, io stdio) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	after, err := q.Stats(ctx)
	left := held(after)
	if output == "json" {
		result := map[string]any{"queue": c.Name, "moved": moved, "complete": failed == nil}
		if err == nil {
			result["left"] = left
		}
		return errors.Join(report.JSON(io.out, result, "  "), err)
	}
	rest := ""
	if err == nil {
		rest = fmt.Sprintf(", %s left", report.Count(left))
	}
	if err == nil && after.Paused {
		io.warn("%s is paused: nothing can be taken from it", c.Name)
	}
	_, errOut := fmt.Fprintf(io.out, "moved %s from %s%s\n", messages(int64(moved)), report.Printable(c.Name), rest)
	return errors.Join(errOut, err)
}

// progressEvery is how often progress is told where there is no terminal.
const progressEvery = 10 * time.Second

// progress draws a bar on a terminal, and writes a line now and then elsewhere.
func (c *queueRedriveCmd) progress(w io.Writer, total int64) (moved func(int), done func()) {
	if !isTerminal(w) {
		next := time.Now().Add(progressEvery)
		return func(n int) {
			if now := time.Now(); now.After(next) {
				next = now.Add(progressEvery)
				stdio{err: w}.warn("%s of about %s moved", report.Count(int64(n)), report.Count(total))
			}
		}, func() {}
	}
	bar := progressbar.NewOptions64(max(1, total),
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetItsString("messages"),
		progressbar.OptionShowIts(),
		progressbar.OptionShowCount(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
	return func(n int) {
		if int64(n) > bar.GetMax64() {
			bar.ChangeMax64(int64(n))
		}
		_ = bar.Set(n)
	}, func() { _ = bar.Finish() }
}

// Package replay sends an access log through the rate limit, the sessions and the cache, as a web server would have, and counts
// what they answered. It decides nothing itself.
package replay

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage"
	"github.com/valkey-io/valkey-go"
)

// Config says what a replay does. Every field is needed, but for those that say otherwise.
type Config struct {
	Limit  int64         // requests of one address
	Window time.Duration // in each of these
	Idle   time.Duration // a session's life without a request
	TTL    time.Duration // a cached response's life
	Jitter float64       // the part of the TTL by which it may end early; zero turns it off
	Seed   uint64        // of the jitter

	BodyMax      int // longer responses are cached cut to this
	SessionBytes int // the size of a session

	Prefix string // of all keys
	// Advance moves the server's clock. Where it is set, the log runs in its own time, one request after the other: the same log
	// gives the same counts. Where it is nil, the log runs as fast as the server answers, Workers requests at once.
	Advance func(time.Time)
	Workers int
}

// Counts is what the blocks answered.
type Counts struct {
	Allowed, Denied       int64
	Created, Reads        int64
	Lookups, Hits, Misses int64
}

func (c *Counts) add(more Counts) {
	c.Allowed += more.Allowed
	c.Denied += more.Denied
	c.Created += more.Created
	c.Reads += more.Reads
	c.Lookups += more.Lookups
	c.Hits += more.Hits
	c.Misses += more.Misses
}

// Outcome is what a replay saw and did.
type Outcome struct {
	Counts
	Requests, Skipped int64
	Late              int64 // lines older than one before them
	Ahead             Ahead
	Span              time.Duration // from the first to the latest time
	Skips             []error       // the first few
	Commands          int64

	// Where the server's own clock ran:
	Elapsed time.Duration
	Latency Latency
}

// Ahead is the line whose date most lines behind it fall short of by farLate or more: a wrong date, or files in the wrong order.
type Ahead struct {
	Line   int64
	Time   time.Time
	Hidden int64 // those lines; zero if there is no such line
}

// farLate is more than requests take to end.
const farLate = time.Hour

// Latency is how long requests took, all their steps together.
type Latency struct{ P50, P95, P99 time.Duration }

// LogError is a log that ended in an error. What came before it is in the Outcome.
type LogError struct{ error }

// Unwrap returns the cause.
func (e LogError) Unwrap() error { return e.error }

// Run replays a log. The Outcome beside a [LogError] counts all that came before it.
func Run(ctx context.Context, client valkey.Client, cfg Config, log iter.Seq2[usage.Entry, error]) (Outcome, error) {
	counted := &counter{Client: client}
	var out Outcome
	var err error
	if cfg.Advance != nil {
		err = inLogTime(ctx, counted, cfg, log, &out)
	} else {
		err = compressed(ctx, counted, cfg, log, &out)
	}
	out.Commands = counted.commands.Load()
	return out, err
}

func inLogTime(ctx context.Context, client valkey.Client, cfg Config, log iter.Seq2[usage.Entry, error], out *Outcome) error {
	site, err := newSite(client, cfg)
	if err != nil {
		return err
	}
	visitors := newVisitors(site)
	err = out.read(ctx, log, func(entry usage.Entry, now time.Time) error {
		cfg.Advance(now)
		return visitors.request(ctx, entry, now)
	})
	out.Counts = visitors.counts
	return err
}

const mostSkips = 5

// read hands each entry to handle, with the clock: the latest time seen.
func (o *Outcome) read(ctx context.Context, log iter.Seq2[usage.Entry, error], handle func(usage.Entry, time.Time) error) error {
	var first, clock time.Time
	var ahead Ahead // the line that set the clock
	for entry, err := range log {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var skip *usage.LineError
		switch {
		case errors.As(err, &skip):
			o.Skipped++
			if len(o.Skips) < mostSkips {
				o.Skips = append(o.Skips, skip)
			}
			continue
		case err != nil:
			return LogError{err}
		}
		switch {
		case o.Requests == 0:
			first, clock = entry.Time, entry.Time
			ahead = Ahead{Line: entry.Line, Time: clock}
		case entry.Time.Before(clock):
			o.Late++
			if clock.Sub(entry.Time) >= farLate {
				ahead.Hidden++
			}
			if ahead.Hidden > o.Ahead.Hidden {
				o.Ahead = ahead
			}
		case entry.Time.After(clock):
			clock = entry.Time
			ahead = Ahead{Line: entry.Line, Time: clock}
		}
		o.Requests++
		o.Span = clock.Sub(first)
		if err := handle(entry, clock); err != nil {
			return err
		}
	}
	return nil
}

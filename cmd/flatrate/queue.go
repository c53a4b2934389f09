package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/queue"
	"github.com/valkey-io/valkey-go"
)

// queueCmd looks after work queues.
type queueCmd struct {
	Ls      queueLsCmd      `cmd:"" help:"List the queues and how many messages they have."`
	Stats   queueStatsCmd   `cmd:"" help:"Show all that is counted of a queue."`
	Peek    queuePeekCmd    `cmd:"" help:"Show messages that wait, and leave them where they are."`
	Send    queueSendCmd    `cmd:"" help:"Send a message."`
	Redrive queueRedriveCmd `cmd:"" help:"Move dead letters back to where they failed, or to another queue."`
	Purge   queuePurgeCmd   `cmd:"" help:"Delete all messages of a queue."`
	Pause   queuePauseCmd   `cmd:"" help:"Stop deliveries."`
	Resume  queueResumeCmd  `cmd:"" help:"Let deliveries go on."`
}

// queueFlags are those of all of them.
type queueFlags struct {
	Prefix string `default:"fr" help:"What stands before every key."`
	Output string `enum:"table,json" default:"table" help:"How results look: ${enum}."`
}

// connect returns a client of the server, which has to be named: an embedded engine has no queues.
func (f queueFlags) connect(ctx context.Context, g globals) (valkey.Client, error) {
	if g.Valkey == "" {
		return nil, usagef("queues are on a server: name it with --valkey URL or FLATRATE_VALKEY")
	}
	return connect(ctx, g.Valkey)
}

// with opens a queue that exists and calls do with it.
func (f queueFlags) with(ctx context.Context, g globals, name string, do func(*queue.Queue) error) error {
	client, err := f.connect(ctx, g)
	if err != nil {
		return err
	}
	defer client.Close()
	q, err := f.open(ctx, client, name)
	if err != nil {
		return err
	}
	return do(q)
}

func (f queueFlags) open(ctx context.Context, client valkey.Client, name string) (*queue.Queue, error) {
	names, err := queue.Names(ctx, client, f.Prefix)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, name) {
		return nil, fmt.Errorf("there is no queue %q", name)
	}
	return queue.New(client, queue.Config{Prefix: f.Prefix, Name: name, MaxBody: 64 << 20})
}

type queueLsCmd struct{ queueFlags }

// Run lists the queues.
func (c *queueLsCmd) Run(ctx context.Context, g globals, std stdio) error {
	client, err := c.connect(ctx, g)
	if err != nil {
		return err
	}
	defer client.Close()
	names, err := queue.Names(ctx, client, c.Prefix)
	if err != nil {
		return err
	}
	type line struct {
		Name string `json:"name"`
		queue.Stats
	}
	lines := []line{}
	for _, name := range names {
		q, err := c.open(ctx, client, name)
		if err != nil {
			return err
		}
		stats, err := q.Stats(ctx)
		if err != nil {
			return err
		}
		lines = append(lines, line{name, stats})
	}
	if c.Output == "json" {
		return json.NewEncoder(std.out).Encode(lines)
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "VISIBLE\tIN FLIGHT\tDELAYED\tDYING\tOLDEST\tKIND\t NAME")
	for _, l := range lines {
		_, _ = fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%s\t%s\t %s\n", l.Visible, l.InFlight, l.Delayed, l.Dying, l.OldestAge.Round(time.Second),
			kindOf(l.Stats), report.Printable(l.Name))
	}
	return w.Flush()
}

func kindOf(s queue.Stats) string {
	kind := "standard"
	if s.FIFO {
		kind = "FIFO"
	}
	if s.Partitions > 1 {
		kind += "/" + strconv.Itoa(s.Partitions)
	}
	if s.Paused {
		kind += " paused"
	}
	return kind
}

type queueStatsCmd struct {
	queueFlags
	Name string `arg:"" help:"The queue."`
}

// Run shows the counts of a queue.
func (c *queueStatsCmd) Run(ctx context.Context, g globals, std stdio) error {
	return c.with(ctx, g, c.Name, func(q *queue.Queue) error {
		s, err := q.Stats(ctx)
		if err != nil {
			return err
		}
		if c.Output == "json" {
			return json.NewEncoder(std.out).Encode(s)
		}
		var t report.Table
		t.Heading(report.Printable(c.Name) + " (" + kindOf(s) + ")")
		for _, row := range []struct {
			name   string
			n      int64
			remark string
		}{
			{"visible", s.Visible, ""}, {"in flight", s.InFlight, ""}, {"delayed", s.Delayed, ""},
			{"dying", s.Dying, "on their way to the dead letters"}, {"bytes", s.Bytes, ""}, {"groups", s.Groups, "that wait"},
			{"sent", s.Sent, "ever"}, {"acknowledged", s.Acked, "ever"}, {"expired", s.Expired, "ever"},
		} {
			t.Row(row.name, strconv.FormatInt(row.n, 10), row.remark)
		}
		t.Row("oldest", s.OldestAge.Round(time.Millisecond).String(), "")
		if s.DeadLetters != "" {
			t.Row("dead letters", report.Printable(s.DeadLetters), "")
		}
		return t.Write(std.out)
	})
}

type queuePeekCmd struct {
	queueFlags
	Name string `arg:"" help:"The queue."`
	Max  int    `short:"n" default:"10" help:"How many messages, up to 1000."`
}

// peeked is a message as it is shown. A body that is no UTF-8 is in base64.
type peeked struct {
	ID         string            `json:"id"`
	Sent       time.Time         `json:"sent"`
	Receives   int               `json:"receives"`
	Group      string            `json:"group,omitempty"`
	Sequence   uint64            `json:"sequence,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Failed     string            `json:"failed_in,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	Body       string            `json:"body,omitempty"`
	Bytes      []byte            `json:"body_base64,omitempty"`
}

// Run shows messages.
func (c *queuePeekCmd) Run(ctx context.Context, g globals, std stdio) error {
	return c.with(ctx, g, c.Name, func(q *queue.Queue) error {
		ds, err := q.Peek(ctx, c.Max)
		if err != nil {
			return err
		}
		all := make([]peeked, len(ds))
		for i, d := range ds {
			p := peeked{ID: d.ID, Sent: d.Sent.UTC(), Receives: d.Receives, Group: d.Group, Sequence: d.Sequence, Attributes: d.Attributes}
			if d.Dead != nil {
				p.Failed, p.Reason = d.Dead.Queue, d.Dead.Reason
			}
			if utf8.Valid(d.Body) {
				p.Body = string(d.Body)
			} else {
				p.Bytes = d.Body
			}
			all[i] = p
		}
		if c.Output == "json" {
			return json.NewEncoder(std.out).Encode(all)
		}
		for _, p := range all {
			text := report.Printable(p.Body)
			if p.Bytes != nil {
				text = fmt.Sprintf("%d bytes that are no text", len(p.Bytes))
			}
			line := fmt.Sprintf("%s  %s", p.ID, p.Sent.Format(time.RFC3339))
			for _, word := range [][2]string{{"group", p.Group}, {"failed in", p.Failed}, {"because", p.Reason}} {
				if word[1] != "" {
					line += "  " + word[0] + " " + report.Printable(word[1])
				}
			}
			if _, err := fmt.Fprintf(std.out, "%s\n    %s\n", line, cut(text)); err != nil {
				return err
			}
		}
		return nil
	})
}

// cut shortens what would fill a screen.
func cut(s string) string {
	const most = 400
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s ... (%d bytes)", strings.ToValidUTF8(s[:most], ""), len(s))
}

type queueSendCmd struct {
	queueFlags
	Name      string            `arg:"" help:"The queue."`
	Body      string            `arg:"" optional:"" default:"-" help:"The body; - reads standard input."`
	Group     string            `help:"The message's group."`
	Dedup     string            `help:"Its deduplication id."`
	Delay     time.Duration     `help:"How long it can't be received."`
	Attribute map[string]string `help:"NAME=VALUE; may be repeated."`
	Create    bool              `help:"Make the queue if it is not there."`
}

// Run sends a message.
func (c *queueSendCmd) Run(ctx context.Context, g globals, std stdio) error {
	send := func(q *queue.Queue) error {
		m := queue.Message{Body: []byte(c.Body), Group: c.Group, DedupID: c.Dedup, Delay: c.Delay, Attributes: c.Attribute}
		if c.Body == "-" {
			body, err := io.ReadAll(std.in)
			if err != nil {
				return err
			}
			m.Body = body
		}
		sent, err := q.Send(ctx, m)
		if err != nil {
			return err
		}
		if c.Output == "json" {
			return json.NewEncoder(std.out).Encode(struct {
				ID        string `json:"id"`
				Sequence  uint64 `json:"sequence,omitempty"`
				Duplicate bool   `json:"duplicate"`
			}{sent.ID, sent.Sequence, sent.Duplicate})
		}
		note := ""
		if sent.Duplicate {
			note = "  (was there already)"
		}
		_, err = fmt.Fprintln(std.out, sent.ID+note)
		return err
	}
	if !c.Create {
		return c.with(ctx, g, c.Name, send)
	}
	client, err := c.connect(ctx, g)
	if err != nil {
		return err
	}
	defer client.Close()
	q, err := queue.New(client, queue.Config{Prefix: c.Prefix, Name: c.Name, MaxBody: 64 << 20})
	if err != nil {
		return usageError{err}
	}
	return send(q)
}

type queueRedriveCmd struct {
	queueFlags
	Name string `arg:"" help:"The queue of dead letters."`
	To   string `help:"Where to; by default to where each message failed."`
	Rate int    `placeholder:"N" help:"Messages a second at most."`
	Max  int    `placeholder:"N" help:"How many messages; by default all."`
}

// Run moves dead letters.
func (c *queueRedriveCmd) Run(ctx context.Context, g globals, std stdio) error {
	return c.with(ctx, g, c.Name, func(q *queue.Queue) error {
		moved, err := q.Redrive(ctx, queue.RedriveOptions{To: c.To, PerSecond: c.Rate, Max: c.Max})
		return errors.Join(err, c.done(std, "moved", moved))
	})
}

// done says what was done.
func (f queueFlags) done(std stdio, what string, n int) error {
	if f.Output == "json" {
		return json.NewEncoder(std.out).Encode(map[string]int{what: n})
	}
	_, err := fmt.Fprintln(std.out, n, what)
	return err
}

type queuePurgeCmd struct {
	queueFlags
	Name string `arg:"" help:"The queue."`
	Yes  bool   `help:"Really: its messages are gone for good."`
}

// Run deletes all messages.
func (c *queuePurgeCmd) Run(ctx context.Context, g globals, std stdio) error {
	return c.with(ctx, g, c.Name, func(q *queue.Queue) error {
		s, err := q.Stats(ctx)
		if err != nil {
			return err
		}
		n := int(s.Visible + s.InFlight + s.Delayed + s.Dying)
		if !c.Yes {
			return usagef("%d messages of %q would be gone for good: say --yes", n, c.Name)
		}
		if err := q.Purge(ctx); err != nil {
			return err
		}
		return c.done(std, "deleted", n)
	})
}

type queuePauseCmd struct {
	queueFlags
	Name string `arg:"" help:"The queue."`
}

// Run stops deliveries.
func (c *queuePauseCmd) Run(ctx context.Context, g globals) error {
	return c.with(ctx, g, c.Name, func(q *queue.Queue) error { return q.Pause(ctx) })
}

type queueResumeCmd struct {
	queueFlags
	Name string `arg:"" help:"The queue."`
}

// Run lets deliveries go on.
func (c *queueResumeCmd) Run(ctx context.Context, g globals) error {
	return c.with(ctx, g, c.Name, func(q *queue.Queue) error { return q.Resume(ctx) })
}

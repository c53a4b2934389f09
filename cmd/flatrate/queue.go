package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/yamlfile"
	"github.com/flatrate/flatrate/queue"
	"github.com/valkey-io/valkey-go"
	"golang.org/x/term"
)

type queueCmd struct {
	Ls      queueLsCmd      `cmd:"" help:"List the queues and their counts."`
	Stats   queueStatsCmd   `cmd:"" help:"Print the counts of a queue."`
	Peek    queuePeekCmd    `cmd:"" help:"Print messages that wait, and leave them where they are."`
	Send    queueSendCmd    `cmd:"" help:"Send a message, or a batch of them as JSON lines."`
	Redrive queueRedriveCmd `cmd:"" help:"Move dead letters back to where they failed, or elsewhere."`
	Purge   queuePurgeCmd   `cmd:"" help:"Delete all messages of a queue, those in flight too."`
	Pause   queuePauseCmd   `cmd:"" help:"Stop deliveries; sends go on."`
	Resume  queueResumeCmd  `cmd:"" help:"Let deliveries go on."`
	Logs    queueLogsCmd    `cmd:"" help:"List the logs, their groups, and how far these are."`

	queueFlags
}

// queueFlags are those of every queue command.
type queueFlags struct {
	Prefix string `default:"fr" help:"What stands before every key."`
	Output string `enum:"table,json" default:"table" help:"table or json."`
}

// queueServer is a server and the names of its queues.
type queueServer struct {
	client valkey.Client
	prefix string
	names  []string
}

// connect also says which queues there are, for the name that an error suggests, and since send would make one.
func (c *queueCmd) connect(ctx context.Context, g globals) (*queueServer, error) {
	if g.Valkey == "" {
		return nil, usagef("queue needs --valkey URL")
	}
	client, err := connect(ctx, g.Valkey)
	if err != nil {
		return nil, err
	}
	s := &queueServer{client: client, prefix: c.Prefix}
	if _, err := queue.New(client, queue.Config{Prefix: c.Prefix, Name: "x"}); err != nil {
		client.Close()
		return nil, usagef("--prefix: %w", err)
	}
	if s.names, err = queue.Names(ctx, client, c.Prefix); err != nil {
		client.Close()
		return nil, err
	}
	return s, nil
}

// open returns a queue that is there.
func (s *queueServer) open(name string, cfg queue.Config) (*queue.Queue, error) {
	q, err := s.make(name, cfg)
	if err != nil || slices.Contains(s.names, name) {
		return q, err
	}
	if near := yamlfile.Nearest(name, s.names); near != "" {
		return nil, fmt.Errorf("there is no queue %q: %q?", name, near)
	}
	return nil, fmt.Errorf("there is no queue %q", name)
}

func (s *queueServer) make(name string, cfg queue.Config) (*queue.Queue, error) {
	cfg.Prefix, cfg.Name = s.prefix, name
	q, err := queue.New(s.client, cfg)
	if err != nil {
		return nil, usagef("%s", strings.TrimPrefix(err.Error(), "queue: Config."))
	}
	return q, nil
}

// one connects and opens one queue.
func (c *queueCmd) one(ctx context.Context, g globals, name string) (*queueServer, *queue.Queue, error) {
	s, err := c.connect(ctx, g)
	if err != nil {
		return nil, nil, err
	}
	q, err := s.open(name, queue.Config{})
	if err != nil {
		s.client.Close()
		return nil, nil, err
	}
	return s, q, nil
}

// counted is what JSON says of a queue.
type counted struct {
	Queue string `json:"queue"`
	queue.Stats
}

func held(s queue.Stats) int64 { return s.Visible + s.InFlight + s.Delayed + s.Dying }

func messages(n int64) string {
	if n == 1 {
		return "1 message"
	}
	return report.Count(n) + " messages"
}

func kind(s queue.Stats) string {
	k := "standard"
	if s.FIFO {
		k = "fifo"
	}
	if s.Partitions > 1 {
		k += fmt.Sprintf(" x%d", s.Partitions)
	}
	return k
}

type queueLsCmd struct{}

// lsAtOnce is how many queues are asked at a time.
const lsAtOnce = 16

// Run lists the queues.
func (queueLsCmd) Run(ctx context.Context, g globals, c *queueCmd, io stdio) error {
	s, err := c.connect(ctx, g)
	if err != nil {
		return err
	}
	defer s.client.Close()
	all, errs := make([]counted, len(s.names)), make([]error, len(s.names))
	var group sync.WaitGroup
	turn := make(chan struct{}, lsAtOnce)
	for i, name := range s.names {
		turn <- struct{}{}
		group.Go(func() {
			defer func() { <-turn }()
			q, err := s.open(name, queue.Config{})
			if err == nil {
				all[i].Queue = name
				all[i].Stats, err = q.Stats(ctx)
			}
			if errors.Is(err, queue.ErrDeleted) || errors.Is(err, queue.ErrNoQueue) {
				all[i].Queue = "" // deleted a moment ago, or the server has lost it
			} else if err != nil {
				errs[i] = fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	shown := []counted{}
	for i := range all {
		if all[i].Queue != "" && errs[i] == nil {
			shown = append(shown, all[i])
		}
	}
	if c.Output == "json" {
		return errors.Join(report.JSON(io.out, shown, "  "), errors.Join(errs...))
	}
	table := report.NewColumns("queue", "kind", ">visible", ">in flight", ">delayed", ">dying", ">oldest", ">bytes", "", "dead letters")
	for _, one := range shown {
		paused := ""
		if one.Paused {
			paused = "paused"
		}
		table.Row(one.Queue, kind(one.Stats), report.Count(one.Visible), report.Count(one.InFlight), report.Count(one.Delayed),
			report.Count(one.Dying), age(one.Stats), report.Bytes(one.Bytes), paused, one.DeadLetters)
	}
	if len(shown) == 0 {
		io.warn("no queues with the prefix %s", c.Prefix)
		return errors.Join(errs...)
	}
	return errors.Join(table.Write(io.out), errors.Join(errs...))
}

func age(s queue.Stats) string {
	if s.OldestAge == 0 {
		return "-"
	}
	return report.Span(s.OldestAge)
}

type queueStatsCmd struct {
	Name string `arg:"" help:"The queue."`
}

// Run prints the counts of a queue.
func (c *queueStatsCmd) Run(ctx context.Context, g globals, all *queueCmd, io stdio) error {
	s, q, err := all.one(ctx, g, c.Name)
	if err != nil {
		return err
	}
	defer s.client.Close()
	n, err := q.Stats(ctx)
	if err != nil {
		return err
	}
	if all.Output == "json" {
		return report.JSON(io.out, counted{c.Name, n}, "  ")
	}
	var table report.Table
	table.Heading(report.Printable(c.Name) + ": " + kind(n))
	table.Row("visible", report.Count(n.Visible), map[bool]string{true: "paused: nobody receives"}[n.Paused])
	table.Row("in flight", report.Count(n.InFlight), "")
	table.Row("delayed", report.Count(n.Delayed), "")
	table.Row("dying", report.Count(n.Dying), map[bool]string{true: "to " + report.Printable(n.DeadLetters)}[n.DeadLetters != ""])
	table.Row("bytes", report.Count(n.Bytes), "")
	table.Row("oldest", age(n), "")
	table.Row("groups", report.Count(n.Groups), "")
	table.Row("sent", report.Count(n.Sent), "")
	table.Row("acknowledged", report.Count(n.Acked), "")
	table.Row("expired", report.Count(n.Expired), "")
	return table.Write(io.out)
}

type queuePauseCmd struct {
	Name string `arg:"" help:"The queue."`
}

// Run pauses a queue.
func (c *queuePauseCmd) Run(ctx context.Context, g globals, all *queueCmd, io stdio) error {
	return all.switchTo(ctx, g, io, c.Name, true)
}

type queueResumeCmd struct {
	Name string `arg:"" help:"The queue."`
}

// Run resumes a queue.
func (c *queueResumeCmd) Run(ctx context.Context, g globals, all *queueCmd, io stdio) error {
	return all.switchTo(ctx, g, io, c.Name, false)
}

func (c *queueCmd) switchTo(ctx context.Context, g globals, io stdio, name string, paused bool) error {
	s, q, err := c.one(ctx, g, name)
	if err != nil {
		return err
	}
	defer s.client.Close()
	do, word := q.Resume, "resumed"
	if paused {
		do, word = q.Pause, "paused"
	}
	if err := do(ctx); err != nil {
		return err
	}
	n, err := q.Stats(ctx)
	if err != nil {
		return fmt.Errorf("it is %s, but: %w", word, err)
	}
	if c.Output == "json" {
		return report.JSON(io.out, counted{name, n}, "  ")
	}
	_, err = fmt.Fprintf(io.out, "%s is %s: %s visible, %s in flight\n", report.Printable(name), word, messages(n.Visible), report.Count(n.InFlight))
	return err
}

type queuePurgeCmd struct {
	Name string `arg:"" help:"The queue."`
	Yes  bool   `env:"-" help:"Do not ask. Without a terminal it is needed, and the environment can't say it."`
}

// Run deletes the messages of a queue.
func (c *queuePurgeCmd) Run(ctx context.Context, g globals, all *queueCmd, io stdio) error {
	asks := !c.Yes && isTerminal(io.in)
	if !c.Yes && !asks {
		return usagef("purge needs --yes where standard input is no terminal")
	}
	s, q, err := all.one(ctx, g, c.Name)
	if err != nil {
		return err
	}
	defer s.client.Close()
	before, err := q.Stats(ctx)
	if err != nil {
		return err
	}
	if asks {
		if err := c.ask(ctx, before, io); err != nil {
			return err
		}
	}
	if before, err = q.Stats(ctx); err != nil {
		return err
	}
	if err := q.Purge(ctx); err != nil {
		return fmt.Errorf("a part of the messages may be deleted: %w", err)
	}
	if all.Output == "json" {
		return report.JSON(io.out, map[string]any{"queue": c.Name, "purged": held(before), "bytes": before.Bytes}, "  ")
	}
	_, err = fmt.Fprintf(io.out, "purged %s: it had %s, %s of them in flight (%s)\n", report.Printable(c.Name), messages(held(before)),
		report.Count(before.InFlight), report.Bytes(before.Bytes))
	return err
}

// ask has the queue's name typed again.
func (c *queuePurgeCmd) ask(ctx context.Context, n queue.Stats, io stdio) error {
	_, _ = fmt.Fprintf(io.err, "This deletes %s, %s of them in flight. Type the name of the queue to go on: ", messages(held(n)), report.Count(n.InFlight))
	in, closeInput := interruptible(ctx, io.in)
	defer closeInput()
	answer, err := bufio.NewReader(in).ReadString('\n')
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && answer == "" {
		_, _ = fmt.Fprintln(io.err)
	}
	if strings.TrimRight(answer, "\r\n") != c.Name {
		return errors.New("that is not its name: nothing was deleted")
	}
	return nil
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

type queuePeekCmd struct {
	Name string `arg:"" help:"The queue."`
	Max  int    `default:"10" help:"How many messages: 1 to 1000."`
	Cut  int    `default:"80" placeholder:"BYTES" help:"Show so much of each body and attribute in a table; 0 shows all."`
}

// peeked is what JSON says of a message. What is no text is in base64.
type peeked struct {
	ID               string            `json:"id"`
	Group            string            `json:"group,omitempty"`
	Sequence         uint64            `json:"sequence,omitempty"`
	Sent             time.Time         `json:"sent"`
	FirstReceived    *time.Time        `json:"first_received,omitempty"`
	Receives         int               `json:"receives"`
	Attributes       map[string]string `json:"attributes,omitempty"`
	AttributesBase64 map[string][]byte `json:"attributes_base64,omitempty"`
	Body             *string           `json:"body,omitempty"`
	BodyBase64       []byte            `json:"body_base64,omitempty"`
	Dead             *deadLetter       `json:"dead,omitempty"`
}

type deadLetter struct {
	Queue    string    `json:"queue"`
	Reason   string    `json:"reason"`
	Receives int       `json:"receives"`
	Sent     time.Time `json:"sent"`
}

func peekedOf(d *queue.Delivery) peeked {
	p := peeked{ID: d.ID, Group: d.Group, Sequence: d.Sequence, Sent: d.Sent.UTC(), Receives: d.Receives}
	if !d.FirstReceived.IsZero() {
		first := d.FirstReceived.UTC()
		p.FirstReceived = &first
	}
	if body := string(d.Body); utf8.ValidString(body) {
		p.Body = &body
	} else {
		p.BodyBase64 = d.Body
	}
	for name, value := range d.Attributes {
		if utf8.ValidString(value) {
			if p.Attributes == nil {
				p.Attributes = map[string]string{}
			}
			p.Attributes[report.Printable(name)] = value
			continue
		}
		if p.AttributesBase64 == nil {
			p.AttributesBase64 = map[string][]byte{}
		}
		p.AttributesBase64[report.Printable(name)] = []byte(value)
	}
	if d.Dead != nil {
		p.Dead = &deadLetter{d.Dead.Queue, d.Dead.Reason, d.Dead.Receives, d.Dead.Sent.UTC()}
	}
	return p
}

// Run prints messages that wait.
func (c *queuePeekCmd) Run(ctx context.Context, g globals, all *queueCmd, io stdio) error {
	switch {
	case c.Max < 1 || c.Max > 1000:
		return usagef("--max must be from 1 to 1000, not %d", c.Max)
	case c.Cut < 0:
		return usagef("--cut must be at least 0, not %d", c.Cut)
	}
	s, q, err := all.one(ctx, g, c.Name)
	if err != nil {
		return err
	}
	defer s.client.Close()
	ds, err := q.Peek(ctx, c.Max)
	if err != nil {
		return err
	}
	if all.Output == "json" {
		list := make([]peeked, len(ds))
		for i, d := range ds {
			list[i] = peekedOf(d)
		}
		return report.JSON(io.out, list, "  ")
	}
	if len(ds) == 0 {
		io.warn("no message waits")
		return nil
	}
	table := report.NewColumns("id", "sent", ">receives", "group", "failed in", "because", "attributes", "body")
	for _, d := range ds {
		failed, because := "", ""
		if d.Dead != nil {
			failed, because = d.Dead.Queue, c.cut(d.Dead.Reason)
		}
		var attributes []string
		for _, name := range slices.Sorted(maps.Keys(d.Attributes)) {
			attributes = append(attributes, name+"="+d.Attributes[name])
		}
		table.Row(d.ID, d.Sent.UTC().Format("2006-01-02T15:04:05.000Z"), report.Count(int64(d.Receives)), d.Group, failed, because,
			c.cut(strings.Join(attributes, " ")), c.cut(string(d.Body)))
	}
	return table.Write(io.out)
}

// cut shortens text, at the end of a character if it can.
func (c *queuePeekCmd) cut(text string) string {
	if c.Cut == 0 || len(text) <= c.Cut {
		return text
	}
	end := c.Cut
	for back := end; back > end-utf8.UTFMax && back > 0; back-- {
		if utf8.RuneStart(text[back]) {
			end = back
			break
		}
	}
	return fmt.Sprintf("%s... (%s)", text[:end], report.Bytes(int64(len(text))))
}

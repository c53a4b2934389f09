package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/queuefile"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/queue"
)

type queueSendCmd struct {
	Name string  `arg:"" help:"The queue."`
	Body *string `arg:"" optional:"" help:"The body; - is standard input."`

	File  string `placeholder:"FILE" help:"Take the body from a file, whatever bytes it has; - is standard input."`
	Batch string `placeholder:"FILE" help:"Send a message for each line of JSON; - is standard input."`

	Group     string        `help:"The message's group; a FIFO queue requires one."`
	Attribute []string      `sep:"none" placeholder:"NAME=VALUE" help:"An attribute; may be given again."`
	DedupID   string        `name:"dedup-id" placeholder:"ID" help:"The same id within five minutes is not sent again."`
	Delay     time.Duration `help:"How long it can't be received."`
	Unique    string        `placeholder:"KEY" help:"Not sent while a message of the same key is in the queue."`
	UniqueFor time.Duration `help:"For how long at most; 0 is without end."`

	Create  bool `help:"Make the queue if there is none."`
	FIFO    bool `name:"fifo" help:"With --create: as a FIFO queue."`
	MaxBody int  `default:"262144" placeholder:"BYTES" help:"The most that body and attributes may have, up to 64 MiB."`
}

// Run sends.
func (c *queueSendCmd) Run(ctx context.Context, g globals, all *queueCmd, io stdio) error {
	if err := c.validate(); err != nil {
		return err
	}
	m, err := c.message()
	if err != nil {
		return err
	}
	s, err := all.connect(ctx, g)
	if err != nil {
		return err
	}
	defer s.client.Close()
	open := s.open
	if c.Create {
		open = s.make
	}
	q, err := open(c.Name, queue.Config{MaxBody: c.MaxBody, FIFO: c.FIFO})
	if err != nil {
		return err
	}
	if c.Batch != "" {
		return c.batch(ctx, q, all.Output, io)
	}
	if m.Body, err = c.body(ctx, io); err != nil {
		return err
	}
	sent, err := q.Send(ctx, m)
	if err != nil {
		return err
	}
	if all.Output == "json" {
		return report.JSON(io.out, sentOf(0, sent), "  ")
	}
	duplicate := ""
	if sent.Duplicate {
		duplicate = "  duplicate: it was sent before"
	}
	_, err = fmt.Fprintln(io.out, report.Printable(sent.ID)+duplicate)
	return err
}

func (c *queueSendCmd) validate() error {
	given := 0
	for _, is := range []bool{c.Body != nil, c.File != "", c.Batch != ""} {
		if is {
			given++
		}
	}
	single := c.Group != "" || len(c.Attribute) > 0 || c.DedupID != "" || c.Delay != 0 || c.Unique != "" || c.UniqueFor != 0
	switch {
	case given == 0:
		return usagef("send needs a BODY, --file or --batch")
	case given > 1:
		return usagef("send takes a BODY, --file or --batch, one of them")
	case c.Batch != "" && single:
		return usagef("with --batch each line has its own group, attributes, dedup_id, delay, unique and unique_for")
	case c.FIFO && !c.Create:
		return usagef("--fifo is for --create: a queue stays what it was made as")
	case c.MaxBody < 1 || c.MaxBody > 64<<20:
		return usagef("--max-body must be from 1 to %d, not %d", 64<<20, c.MaxBody)
	case c.Delay < 0:
		return usagef("--delay must be at least 0s, not %v", c.Delay)
	case c.UniqueFor < 0 || c.UniqueFor > 0 && c.Unique == "":
		return usagef("--unique-for must be at least 0s and beside --unique, not %v", c.UniqueFor)
	}
	return nil
}

// message is what the flags say, without the body.
func (c *queueSendCmd) message() (queue.Message, error) {
	m := queue.Message{Group: c.Group, DedupID: c.DedupID, Delay: c.Delay, Unique: c.Unique, UniqueFor: c.UniqueFor}
	for _, text := range c.Attribute {
		name, value, found := strings.Cut(text, "=")
		_, twice := m.Attributes[name]
		switch {
		case !found || name == "":
			return m, usagef("--attribute must be NAME=VALUE, not %q", text)
		case twice:
			return m, usagef("--attribute %s is given twice", name)
		case m.Attributes == nil:
			m.Attributes = map[string]string{}
		}
		m.Attributes[name] = value
	}
	return m, nil
}

// source opens a file, or standard input.
func source(ctx context.Context, path string, std stdio) (in io.Reader, name string, closeInput func(), err error) {
	if path == "-" {
		in, closeInput = interruptible(ctx, std.in)
		return in, "standard input", closeInput, nil
	}
	file, err := os.Open(path) //nolint:gosec // G304: the user names the file
	if err != nil {
		return nil, "", nil, err
	}
	in, stop := interruptible(ctx, file) // a named pipe may keep silent
	return in, path, func() { stop(); _ = file.Close() }, nil
}

// body reads no more than a message may have.
func (c *queueSendCmd) body(ctx context.Context, std stdio) ([]byte, error) {
	path := c.File
	if c.Body != nil {
		if *c.Body != "-" {
			return []byte(*c.Body), nil
		}
		path = "-"
	}
	in, name, closeInput, err := source(ctx, path, std)
	if err != nil {
		return nil, err
	}
	defer closeInput()
	body, err := io.ReadAll(io.LimitReader(in, int64(c.MaxBody)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	case len(body) > c.MaxBody:
		return nil, fmt.Errorf("%s has over %d bytes, which is --max-body", name, c.MaxBody)
	}
	return body, nil
}

// sentLine is what JSON says of a message that was sent, or was not.
type sentLine struct {
	Line      int    `json:"line,omitempty"`
	ID        string `json:"id,omitempty"`
	Sequence  uint64 `json:"sequence,omitempty"`
	Duplicate bool   `json:"duplicate"`
	Error     string `json:"error,omitempty"`
}

func sentOf(line int, s queue.Sent) sentLine {
	l := sentLine{Line: line, ID: s.ID, Sequence: s.Sequence, Duplicate: s.Duplicate}
	if s.Err != nil {
		l.ID, l.Error = "", s.Err.Error()
	}
	return l
}

const (
	batchMessages = 100      // in a call
	batchAhead    = 16 << 20 // bytes that are read ahead at most
)

// batch sends lines as they come, in order, until one is wrong or is not taken.
func (c *queueSendCmd) batch(ctx context.Context, q *queue.Queue, output string, std stdio) error {
	in, name, closeInput, err := source(ctx, c.Batch, std)
	if err != nil {
		return err
	}
	defer closeInput()
	ctx, stop := context.WithCancel(ctx) // ends who reads, too
	defer stop()
	lines, broken := make(chan queuefile.Line, max(1, min(batchMessages, batchAhead/c.MaxBody))), error(nil)
	go func() {
		defer close(lines)
		r := queuefile.NewReader(in, c.MaxBody)
		for {
			line, err := r.Next()
			if err != nil {
				broken = err
				return
			}
			select {
			case lines <- line:
			case <-ctx.Done():
				broken = ctx.Err()
				return
			}
		}
	}()
	sent, duplicates, last := 0, 0, 0
	var errs []error
	for len(errs) == 0 {
		batch := take(lines)
		if len(batch) == 0 {
			if !errors.Is(broken, io.EOF) {
				errs = append(errs, broken)
			}
			break
		}
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		var n, twice int
		n, twice, errs = sendLines(context.WithoutCancel(ctx), q, batch, output, std) // a call that has begun is waited for
		sent, duplicates, last = sent+n, duplicates+twice, batch[len(batch)-1].Number
	}
	for i, err := range errs {
		errs[i] = fmt.Errorf("%s: %w", name, err)
	}
	if len(errs) > 0 {
		errs = append(errs, fmt.Errorf("%s: nothing behind line %d was sent", name, last))
	}
	if output != "json" {
		twice := ""
		if duplicates > 0 {
			twice = fmt.Sprintf("; duplicates, not sent again: %s", report.Count(int64(duplicates)))
		}
		_, err = fmt.Fprintf(std.out, "sent %s to %s%s\n", messages(int64(sent)), report.Printable(c.Name), twice)
	}
	return errors.Join(append(errs, err)...)
}

// take waits for a line, and returns it with those that are there too.
func take(lines <-chan queuefile.Line) (batch []queuefile.Line) {
	line, ok := <-lines
	for ok {
		if batch = append(batch, line); len(batch) == batchMessages {
			break
		}
		select {
		case line, ok = <-lines:
		default:
			ok = false
		}
	}
	return batch
}

// sendLines sends a batch. Its errors name the lines.
func sendLines(ctx context.Context, q *queue.Queue, batch []queuefile.Line, output string, std stdio) (sent, duplicates int, errs []error) {
	all := make([]queue.Message, len(batch))
	for i, line := range batch {
		all[i] = line.Message
	}
	results, _ := q.SendBatch(ctx, all)
	for i := 0; i < len(results); i++ {
		line, result := batch[i].Number, results[i]
		if output == "json" {
			if err := report.JSON(std.out, sentOf(line, result), ""); err != nil {
				return sent, duplicates, append(errs, err)
			}
		}
		switch {
		case result.Err != nil && i > 0 && results[i-1].Err != nil && results[i-1].Err.Error() == result.Err.Error():
			// One error stands for all the lines that it has hit.
		case result.Err != nil:
			last := i
			for last+1 < len(results) && results[last+1].Err != nil && results[last+1].Err.Error() == result.Err.Error() {
				last++
			}
			if last > i {
				errs = append(errs, fmt.Errorf("lines %d to %d: %w", line, batch[last].Number, result.Err))
			} else {
				errs = append(errs, fmt.Errorf("line %d: %w", line, result.Err))
			}
		case result.Duplicate:
			duplicates++
		default:
			sent++
		}
	}
	return sent, duplicates, errs
}

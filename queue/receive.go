package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed receive.lua
	receiveLua string
	//go:embed fifo.lua
	fifoLua string

	receive     = script.New(receiveLua)
	receiveFIFO = script.New(fifoLua)
)

const (
	maxReceive = 1000 // messages that one Receive may ask for
	maxFetch   = 256  // messages in one call
	maxWait    = 24 * time.Hour
	// With it a receipt has more than 64 bytes: those in flight are then never kept in a listpack, where each look-up reads all of them.
	nonceLength = 20
	registered  = "3000" // ms for which who waits is woken without asking again; they ask once a second
)

// ReceiveOptions say what to receive. The zero value asks for one message and does not wait.
type ReceiveOptions struct {
	// Max is how many messages at most: 1 to 1,000. Default 1. It is never waited for more than one.
	Max int
	// Wait is how long to wait for the first message: up to 24 h. Zero does not wait.
	Wait time.Duration
	// Visibility is how long the messages are in flight: 10 ms to 12 h. Default Config.Visibility.
	Visibility time.Duration
	// Attempt names this attempt to receive from a FIFO queue of one partition: within five minutes the same attempt gets the
	// same messages and receipts again, if nothing has become of them, so that an answer which was lost does not lock
	// their groups. At most 128 bytes. Such a call is shared with nobody.
	Attempt string
}

// Receive returns messages, or none if none came within Wait. They are in flight then: each has to be acknowledged
// within its Visibility, or is delivered again. One round trip if there are messages; else the wait, in which one a second keeps
// this process known to the server. Calls of this process at the same time share theirs.
//
// A standard queue delivers what was given back first, then the groups in turn; a FIFO queue fills a call from one group before it
// takes of the next. If ctx ends, messages that were on their way are given back.
func (q *Queue) Receive(ctx context.Context, o ReceiveOptions) ([]*Delivery, error) {
	if o.Max == 0 {
		o.Max = 1
	}
	if o.Visibility == 0 {
		o.Visibility = q.cfg.Visibility
	}
	switch {
	case o.Max < 1 || o.Max > maxReceive:
		return nil, fmt.Errorf("queue: ReceiveOptions.Max is %d, not from 1 to %d", o.Max, maxReceive)
	case o.Wait < 0 || o.Wait > maxWait:
		return nil, fmt.Errorf("queue: ReceiveOptions.Wait is %v, not from 0 to %v", o.Wait, maxWait)
	case o.Visibility < minVisibility || o.Visibility > maxVisibility:
		return nil, fmt.Errorf("queue: ReceiveOptions.Visibility is %v, not from %v to %v", o.Visibility, minVisibility, maxVisibility)
	case len(o.Attempt) > maxLabel:
		return nil, fmt.Errorf("queue: ReceiveOptions.Attempt has %d bytes, over %d", len(o.Attempt), maxLabel)
	}
	s, err := q.opened(ctx)
	if err != nil {
		return nil, err
	}
	if o.Attempt != "" && (!s.fifo || len(s.parts) > 1) {
		return nil, errors.New("queue: ReceiveOptions.Attempt is for FIFO queues of one partition")
	}
	return q.receiving.receive(ctx, o)
}

// fetched is what one call has brought: the shares of its callers, in their order.
type fetched struct {
	shares [][]*Delivery
	any    bool
	next   time.Duration // until there may be more; negative is unknown
}

// ask is what a call asks for.
type ask struct {
	shares     []int // how many messages each caller gets at most; none asks whether there are any
	visibility time.Duration
	attempt    string
	who        string // by which channel and id to wake this process if there are none; empty for not
}

func (a ask) call(s *state) (*script.Script, []string) {
	sum, shares := 0, make([]string, len(a.shares))
	for i, n := range a.shares {
		sum += n
		shares[i] = strconv.Itoa(n)
	}
	args := []string{strconv.Itoa(sum), strconv.FormatInt(a.visibility.Milliseconds(), 10), rand.Text()[:nonceLength], a.who, registered + " " + strconv.Itoa(len(s.parts))}
	if s.fifo {
		if sum > 0 {
			args[0] = strings.Join(shares, " ")
		}
		return receiveFIFO, append(args, label(a.attempt))
	}
	return receive, args
}

// take asks one partition.
func (q *Queue) take(ctx context.Context, s *state, p *partition, a ask) (fetched, error) {
	script, args := a.call(s)
	now := time.Now()
	reply, err := q.onPartition(ctx, s, p, func() ([]valkey.ValkeyMessage, error) { return q.exec(ctx, script, p.keys, args) })
	if err != nil {
		return fetched{}, err
	}
	return q.taken(s, p, a, now, reply)
}

func (q *Queue) taken(s *state, p *partition, a ask, sent time.Time, reply []valkey.ValkeyMessage) (fetched, error) {
	f := fetched{shares: make([][]*Delivery, len(a.shares))}
	waiting, err1 := number(reply, 0)
	next, err2 := number(reply, 1)
	dying, err3 := number(reply, 2)
	if err := errors.Join(err1, err2, err3); err != nil {
		return f, err
	}
	f.next = time.Duration(next) * time.Millisecond
	if next == 0 {
		waiting = max(1, waiting) // what was received before comes again
	}
	p.waiting.Store(waiting)
	if dying > 0 {
		q.moving.start(s)
	}
	reply = reply[3:]
	sizes := slices.Clone(a.shares) // a standard queue fills one share after the other
	if s.fifo && len(reply) > 0 {
		text, err := reply[0].ToString()
		if err != nil {
			return f, err
		}
		sizes = nil
		for word := range strings.FieldsSeq(text) {
			n, _ := strconv.Atoi(word)
			sizes = append(sizes, n)
		}
		reply = reply[1:]
	}
	share := 0
	for at := 0; at+1 < len(reply); at += 2 {
		member, err1 := reply[at].ToString()
		blob, err2 := reply[at+1].ToString()
		for share < len(sizes) && sizes[share] == 0 {
			share++
		}
		if err := errors.Join(err1, err2); err != nil || share >= len(f.shares) || share >= len(sizes) {
			return f, fmt.Errorf("%w: %w", errBlob, err)
		}
		sizes[share]--
		d, err := parse(p.index, member, blob)
		if err != nil { // nobody can handle it: it comes again until it is a dead letter
			q.log.Error("a message can't be read", "queue", q.cfg.Name, "receipt", member, "error", err)
			continue
		}
		d.leased = sent
		f.shares[share], f.any = append(f.shares[share], d), true
	}
	return f, nil
}

// fetch asks the partitions: those first that are known to have some, else all of them.
func (q *Queue) fetch(ctx context.Context, s *state, a ask) (fetched, error) {
	if len(s.parts) == 1 {
		return q.take(ctx, s, s.parts[0], a)
	}
	got, err := q.fetchKnown(ctx, s, a)
	if err != nil || got.any {
		return got, err
	}
	next, err := q.look(ctx, s, a)
	if err != nil {
		return got, err
	}
	got, err = q.fetchKnown(ctx, s, a)
	got.next = sooner(got.next, next)
	return got, err
}

func sooner(a, b time.Duration) time.Duration {
	if a < 0 || b >= 0 && b < a {
		return b
	}
	return a
}

func (q *Queue) fetchKnown(ctx context.Context, s *state, a ask) (fetched, error) {
	all := fetched{shares: make([][]*Delivery, len(a.shares)), next: -1}
	first := int(s.next.Add(1))
	for i := range s.parts {
		p := s.parts[(first+i)%len(s.parts)]
		if p.waiting.Load() <= 0 {
			continue
		}
		left := ask{visibility: a.visibility}
		var whose []int
		for i, n := range a.shares {
			if len(all.shares[i]) == 0 {
				left.shares, whose = append(left.shares, n), append(whose, i)
			}
		}
		if len(whose) == 0 {
			break
		}
		f, err := q.take(ctx, s, p, left)
		if err != nil {
			if all.any { // what there is, is not to be lost
				return all, nil
			}
			return all, err
		}
		for i, ds := range f.shares {
			all.shares[whose[i]] = ds
		}
		all.any = all.any || f.any
		all.next = sooner(all.next, f.next)
	}
	return all, nil
}

// look asks all partitions, in one round trip to each node, how many messages wait.
func (q *Queue) look(ctx context.Context, s *state, a ask) (next time.Duration, err error) {
	a.shares = nil
	scr, args := a.call(s)
	next = -1
	err = q.each(ctx, s, scr, args, func(p *partition, reply []valkey.ValkeyMessage) error {
		f, err := q.taken(s, p, a, time.Time{}, reply)
		next = sooner(next, f.next)
		return err
	})
	return next, err
}

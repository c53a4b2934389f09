package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed send.lua
	sendLua string

	send = script.New(sendLua)
)

const (
	maxSend      = 128     // messages in one call, so that no script keeps a server for long
	maxSendBytes = 1 << 20 // and bytes, unless one message has more
)

// sending is a message on its way.
type sending struct {
	id, options, blob string
	bytes             int // of body and attributes
	sent              Sent
}

// Send sends a message. One round trip, which sends of this process at the same time share.
//
// The error is [ErrFull], [ErrDeleted], what is wrong with m, or the server's. If no answer came, or ctx ended, the message may
// have been sent; give it a DedupID to send it again safely.
func (q *Queue) Send(ctx context.Context, m Message) (Sent, error) {
	sent, err := q.SendBatch(ctx, []Message{m})
	if err != nil {
		if len(sent) == 1 && sent[0].Err != nil {
			err = sent[0].Err
		}
		return Sent{Err: err}, err
	}
	return sent[0], nil
}

// SendBatch sends messages; each stands for itself, and Sent.Err says which were not sent. The error is nil if all
// were. A round trip for each partition, and 128 messages or a megabyte of each; in each of these calls the server takes either
// nothing or all that is not refused.
func (q *Queue) SendBatch(ctx context.Context, messages []Message) ([]Sent, error) {
	sent, err := q.sendBatch(ctx, messages)
	var again []Message // what has another place now
	var which []int
	for i, m := range messages {
		if i < len(sent) && errors.Is(sent[i].Err, errAnew) {
			again, which = append(again, m), append(which, i)
		}
	}
	if len(again) == 0 {
		return sent, err
	}
	rest, _ := q.sendBatch(ctx, again)
	for i, one := range rest {
		sent[which[i]] = one
	}
	return sent, notSent(sent)
}

func (q *Queue) sendBatch(ctx context.Context, messages []Message) ([]Sent, error) {
	s, err := q.opened(ctx)
	if err != nil {
		return failed(len(messages), err), err
	}
	items := make([]*sending, len(messages))
	parts := make(map[*partition][]*sending, 1)
	for i := range messages {
		m := &messages[i]
		it := &sending{bytes: sizeOf(m.Body, m.Attributes)}
		items[i] = it
		if it.sent.Err = m.check(&q.cfg, s.fifo); it.sent.Err != nil {
			continue
		}
		it.id = newID()
		it.blob = m.blob(it.id, nil)
		var where string
		it.options, where = q.optionsOf(m, s)
		p := s.choose(where)
		parts[p] = append(parts[p], it)
	}
	return q.deliver(ctx, items, parts)
}

// deliver sends items to their partitions and collects what became of them.
func (q *Queue) deliver(ctx context.Context, items []*sending, parts map[*partition][]*sending) ([]Sent, error) {
	gone := beside(parts, func(p *partition, batch []*sending) error { return p.sends.do(ctx, batch) })
	if gone != nil { // the items are not ours any more
		err := fmt.Errorf("queue: send: messages may have been sent: %w", gone)
		return failed(len(items), err), err
	}
	sent := make([]Sent, len(items))
	for i, it := range items {
		sent[i] = it.sent
	}
	return sent, notSent(sent)
}

// notSent is nil if all were.
func notSent(sent []Sent) error {
	bad, first := 0, error(nil)
	for i := range sent {
		if sent[i].Err != nil {
			if bad++; first == nil {
				first = sent[i].Err
			}
		}
	}
	if bad > 0 {
		return fmt.Errorf("queue: send: %d of %d messages were not sent: %w", bad, len(sent), first)
	}
	return nil
}

func failed(n int, err error) []Sent {
	sent := make([]Sent, n)
	for i := range sent {
		sent[i].Err = err
	}
	return sent
}

// choose returns the partition for what has to be where: the same for equal ones, and for an empty one the partition of two with
// fewer messages, as far as this process knows.
func (s *state) choose(where string) *partition {
	if where != "" || len(s.parts) == 1 {
		return s.partOf(where)
	}
	a, b := s.parts[rand.IntN(len(s.parts))], s.parts[rand.IntN(len(s.parts))]
	if b.waiting.Load() < a.waiting.Load() {
		return b
	}
	return a
}

// sendAll sends a batch in one call.
func (q *Queue) sendAll(ctx context.Context, s *state, p *partition, batch []*sending) {
	args := make([]string, 1, 2+len(batch))
	args[0] = strconv.Itoa(len(batch)) + " " + s.kind()
	for _, it := range batch {
		args = append(args, it.options+it.blob)
	}
	var notDurable error
	reply, err := q.onPartition(ctx, s, p, func() ([]valkey.ValkeyMessage, error) {
		reply, err := q.execSend(ctx, p, args)
		if isNotDurable(err) {
			notDurable, err = err, nil
		}
		return reply, err
	})
	if err == nil {
		err = readSent(reply, batch)
	}
	switch {
	case errors.Is(err, ErrDeleted):
	case err != nil:
		err = fmt.Errorf("queue: send: %w", err)
	default:
		err = notDurable
		n, _ := number(reply, 0)
		p.waiting.Store(n)
	}
	if err != nil {
		for _, it := range batch {
			if it.sent.Err == nil {
				it.sent.Err = err
			}
		}
		return
	}
	q.tell(batch)
}

// tell lets Hooks.Sent know what the server has taken of a batch.
func (q *Queue) tell(batch []*sending) {
	hook := q.cfg.Hooks.Sent
	if hook == nil {
		return
	}
	n, bytes := 0, 0
	for _, it := range batch {
		if it.sent.Err == nil {
			n++
			bytes += it.bytes
		}
	}
	if n > 0 {
		hook(n, bytes)
	}
}

// readSent tells each message of a batch what the server answered.
func readSent(reply []valkey.ValkeyMessage, batch []*sending) error {
	last, err := number(reply, 1)
	if err != nil {
		return err
	}
	if len(reply) == 2 {
		for i, it := range batch {
			it.sent = Sent{ID: it.id}
			if last > 0 {
				it.sent.Sequence = uint64(last) - uint64(len(batch)-1-i)
			}
		}
		return nil
	}
	if len(reply) != 2+len(batch) {
		return fmt.Errorf("the server answered %d values for %d messages", len(reply), len(batch))
	}
	for i, it := range batch {
		status, err := reply[2+i].ToString()
		if err != nil || status == "" {
			return fmt.Errorf("the server answered %q: %w", status, err)
		}
		switch status[0] {
		case 's':
			it.sent = Sent{ID: it.id}
			it.sent.Sequence, err = strconv.ParseUint(status[1:], 10, 64)
			if err != nil {
				return err
			}
		case 'd':
			it.sent = Sent{ID: status[1:], Duplicate: true}
		case 'o':
			it.sent = Sent{ID: it.id, Duplicate: true}
		case 'k':
			it.sent = Sent{Err: fmt.Errorf("queue: send: Message.Delay is not shorter than the queue's Retention, %s ms", status[1:])}
		case 'e':
			it.sent = Sent{Err: fmt.Errorf("queue: send: %s", status[1:])}
		default:
			it.sent = Sent{Err: ErrFull}
		}
	}
	return nil
}

package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed dying.lua
	dyingLua string
	//go:embed buried.lua
	buriedLua string

	dying  = script.New(dyingLua)
	buried = script.New(buriedLua)
)

const (
	maxMove     = 64 // messages moved at a time
	movePause   = 100 * time.Millisecond
	mostMove    = 10 * time.Second // between two attempts
	moveRetries = 20
)

// mover takes what has died to the dead-letter queue, which may lie in another slot: it stands in this one, where nobody receives
// it any more, until the other one is known to have it. Any process that is told of it moves it; moving it twice does no
// harm, since the other queue remembers what was moved there.
type mover struct {
	queue   *Queue
	mu      sync.Mutex
	running bool
	more    bool // has died since the last round began
}

// start moves in the background what there is, unless that is under way.
func (m *mover) start(s *state) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.more = true
	if m.running || s.dlq == "" {
		return
	}
	m.running = true
	go m.run()
}

func (m *mover) run() {
	q, pause := m.queue, movePause
	for failures := 0; failures < moveRetries; {
		m.mu.Lock()
		m.more = false
		m.mu.Unlock()
		ctx, cancel := q.bounded(context.Background())
		n, err := m.round(ctx)
		cancel()
		switch {
		case errors.Is(err, ErrDeleted):
			failures = moveRetries
		case err != nil:
			failures++
			q.log.Warn("dead letters could not be moved", "queue", q.cfg.Name, "error", err)
			<-time.After(pause)
			pause = min(2*pause, mostMove)
		case n == 0:
			if m.end() {
				return
			}
		default:
			failures, pause = 0, movePause
		}
	}
	m.mu.Lock()
	m.running = false // the next call that sees some tries again
	m.mu.Unlock()
}

// end says that nothing is left; false if something has died meanwhile.
func (m *mover) end() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = m.more
	return !m.running
}

// round moves a batch of each partition, and says how many messages there were.
func (m *mover) round(ctx context.Context) (n int, err error) {
	q := m.queue
	s, err := q.opened(ctx)
	if err != nil {
		return 0, err
	}
	target, err := q.sibling(s.dlq)
	if err != nil {
		return 0, err
	}
	for _, p := range s.parts {
		moved, err := m.bury(ctx, s, p, target)
		n += moved
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (m *mover) bury(ctx context.Context, known *state, p *partition, target *Queue) (n int, err error) {
	q := m.queue
	call := func(s *script.Script, args []string) ([]valkey.ValkeyMessage, error) {
		return q.onPartition(ctx, known, p, func() ([]valkey.ValkeyMessage, error) { return q.exec(ctx, s, p.keys, args) })
	}
	// Those that can't be read stay, and hold up nobody.
	var ds []*Delivery
	var members, done []string // members of ds; what leaves the queue
	for skip, full := 0, true; full && len(ds)+len(done) == 0; {
		reply, err := call(dying, []string{strconv.Itoa(maxMove), strconv.Itoa(skip)})
		if err != nil {
			return 0, err
		}
		full = len(reply) == 1+3*maxMove
		skip += maxMove
		if ds, members, done, err = m.read(p, reply); err != nil {
			return 0, err
		}
	}
	// What the other queue has leaves this one, also if it had no room for the rest.
	sent, failed := target.put(ctx, q.cfg.Name, ds, true)
	for i, member := range members {
		if sent[i].Err == nil {
			done = append(done, member)
		}
	}
	if len(done) == 0 {
		return 0, failed
	}
	if _, err := call(buried, done); err != nil {
		return 0, errors.Join(failed, err)
	}
	if hook := q.cfg.Hooks.Buried; hook != nil {
		for i, d := range ds {
			if sent[i].Err == nil {
				hook(d.ID, d.Dead.Reason)
			}
		}
	}
	return len(done), failed
}

// read takes apart what dying.lua has answered: messages, their receipts, and receipts whose messages are gone.
func (m *mover) read(p *partition, reply []valkey.ValkeyMessage) (ds []*Delivery, members, done []string, err error) {
	q := m.queue
	for at := 1; at+2 < len(reply); at += 3 {
		member, err := reply[at].ToString()
		if err != nil {
			return nil, nil, nil, err
		}
		blob, err := reply[at+1].ToString()
		if err != nil { // somebody has deleted it by hand
			done = append(done, member)
			continue
		}
		d, err := parse(p.index, member, blob)
		if err != nil {
			q.log.Error("a dead message can't be read", "queue", q.cfg.Name, "receipt", member, "error", err)
			continue
		}
		reason, err := reply[at+2].ToString()
		if err != nil {
			reason = fmt.Sprintf("received %d times, and never acknowledged", d.Receives)
		}
		d.Dead = &Dead{Queue: q.cfg.Name, Reason: reason, Receives: d.Receives, Sent: d.Sent, mark: strings.Split(member, ":")[4]}
		ds, members = append(ds, d), append(members, member)
	}
	return ds, members, done, nil
}

// sibling returns another queue of the same server, as it is.
func (q *Queue) sibling(name string) (*Queue, error) {
	if other, ok := q.siblings.Load(name); ok {
		return other.(*Queue), nil //nolint:forcetypeassert // nothing else is stored
	}
	other, err := New(q.client, Config{
		Prefix: q.cfg.Prefix, Name: name, MaxBody: maxBody, Durability: q.cfg.Durability, Replicas: q.cfg.Replicas,
		DurabilityTimeout: q.cfg.DurabilityTimeout, Timeout: q.cfg.Timeout, Logger: q.cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	kept, _ := q.siblings.LoadOrStore(name, other)
	return kept.(*Queue), nil //nolint:forcetypeassert // as above
}

// put sends messages that were received from another queue, with their ids; as dead ones, or as new. What was put here before is not
// put again: a message's time in a queue is known by its id and the mark of its death, or when it was sent there. It returns what
// became of each, and an error unless all are there. Only for dead ones the queue is made if there is none.
func (q *Queue) put(ctx context.Context, from string, ds []*Delivery, dead bool) ([]Sent, error) {
	if len(ds) == 0 {
		return nil, nil
	}
	open, err := q.opened, error(nil)
	if !dead {
		open = q.found
	}
	if q.deleted.Load() { // it is wanted again, or somebody else has made it anew
		if !dead {
			err = q.exists(ctx)
		}
		if err == nil {
			err = q.Open(ctx)
		}
		if err != nil {
			return failed(len(ds), err), err
		}
	}
	s, err := open(ctx)
	if err != nil {
		return failed(len(ds), err), err
	}
	items := make([]*sending, len(ds))
	parts := make(map[*partition][]*sending, 1)
	for i, d := range ds {
		m := Message{Body: d.Body, Attributes: d.Attributes, Group: d.Group}
		if s.fifo && m.Group == "" {
			m.Group = d.ID
		}
		mark := label(from) + ":" + d.ID + ":" + strconv.FormatInt(d.Sent.UnixMilli(), 10)
		var extra map[string]string
		if d.Dead != nil {
			mark = label(from) + ":" + d.ID + ":" + d.Dead.mark
			if dead {
				extra = d.Dead.attributes()
			}
		}
		it := &sending{id: d.ID, bytes: sizeOf(d.Body, d.Attributes), blob: m.blob(d.ID, extra), options: options{moved: mark}.String()}
		if !s.fifo {
			it.options = options{delay: "0", moved: mark}.String()
		}
		items[i] = it
		where := m.Group
		if where == "" {
			where = d.ID // the same one when it is put again
		}
		p := s.partOf(where)
		parts[p] = append(parts[p], it)
	}
	return q.deliver(ctx, items, parts)
}

func isTryAgain(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), "TRYAGAIN")
}

package queuetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// keep is an argument of the script that makes a queue, which knows no time of tests.
const keep = "345600000"

// driven is a client whose scripts are told the time, by an argument that they have for tests.
type driven struct {
	valkey.Client
	ms atomic.Int64 // the mover of dead letters looks at it too
}

func (c *driven) add(cmd valkey.Completed) valkey.Completed {
	words := slices.Clone(cmd.Commands())
	if words[0] != "EVALSHA" && words[0] != "EVAL" {
		return cmd
	}
	n, err := strconv.Atoi(words[2])
	if err != nil || n < 2 || len(words) > 3+n && words[3+n] == "purge" || len(words) > 6+n && words[6+n] == keep {
		return cmd
	}
	args := append(words[3+n:], strconv.FormatInt(c.ms.Load(), 10))
	return c.B().Arbitrary(words[:3]...).Keys(words[3 : 3+n]...).Args(args...).Build()
}

// Do adds the time to every script.
func (c *driven) Do(ctx context.Context, cmd valkey.Completed) valkey.ValkeyResult {
	return c.Client.Do(ctx, c.add(cmd))
}

// DoMulti adds the time to every script.
func (c *driven) DoMulti(ctx context.Context, cmds ...valkey.Completed) []valkey.ValkeyResult {
	with := make([]valkey.Completed, len(cmds))
	for i, cmd := range cmds {
		with[i] = c.add(cmd)
	}
	return c.Client.DoMulti(ctx, with...)
}

// model drives the queue and a few lines of plain Go with the same random schedule.
func model(t *testing.T, env valkeytest.Env) { Oracle(t, env, 1500) }

// Oracle does so for so many steps, for a standard and a FIFO queue.
func Oracle(t *testing.T, env valkeytest.Env, steps int) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, fifo := range []bool{false, true} {
		t.Run(map[bool]string{false: "standard", true: "fifo"}[fifo], func(t *testing.T) {
			o := newOracle(t, env, fifo, rand.New(rand.NewPCG(seed, 0)))
			for i := range steps {
				if err := o.step(); err != nil {
					t.Fatalf("seed %d, step %d at %d ms: %v", seed, i, o.client.ms.Load(), err)
				}
			}
			if err := o.drain(); err != nil {
				t.Fatalf("seed %d, at the end: %v", seed, err)
			}
			t.Logf("%d steps, %d messages sent, %d delivered, %d acknowledged, %d dead, %d dropped: 0 mismatches",
				steps, o.sent, o.delivered, o.acked, o.dead, o.dropped)
		})
	}
}

const (
	modelKeep     = 2000 * time.Second
	modelReceives = 4
	modelQuota    = 60
	modelHold     = 30 * time.Second
)

// message is one of the model's.
type message struct {
	body, group string
	sent        int64
	visible     int64 // when it may be received
	receives    int
	receipt     string
	order       int
	ended       int // how many receives have had the time to find that its life is over
}

type oracle struct {
	t        *testing.T
	client   *driven
	q        *queue.Queue
	fifo     bool
	random   *rand.Rand
	messages map[string]*message // by id, those that are in the queue
	receipts []string            // given out at any time
	dedup    map[string]int64
	dedupID  map[string]string
	unique   map[string]string // key -> id
	keyOf    map[string]string
	dying    map[string]bool // ids whose key is free when they have moved to the dead letters

	sent, delivered, acked, dead, dropped int
}

func newOracle(t *testing.T, env valkeytest.Env, fifo bool, random *rand.Rand) *oracle {
	client := &driven{Client: env.Client}
	client.ms.Store(1_790_000_000_000)
	prefix := valkeytest.Prefix(t)
	o := &oracle{
		t: t, client: client, fifo: fifo, random: random, messages: map[string]*message{},
		dying: map[string]bool{}, dedup: map[string]int64{}, dedupID: map[string]string{}, unique: map[string]string{}, keyOf: map[string]string{},
	}
	o.q = New(t, valkeytest.Env{Client: client}, queue.Config{
		Prefix: prefix, FIFO: fifo, MaxReceives: modelReceives, DeadLetters: "dead", Retention: modelKeep, MaxMessages: modelQuota, Visibility: modelHold,
	})
	return o
}

func (o *oracle) step() error {
	o.client.ms.Add(o.random.Int64N(200))
	switch n := o.random.IntN(100); {
	case n < 35:
		return o.send()
	case n < 60:
		return o.receive()
	case n < 90:
		return o.settle()
	case n < 99:
		o.client.ms.Add(o.random.Int64N(modelHold.Milliseconds()))
		return nil
	default:
		o.client.ms.Add(o.random.Int64N(modelKeep.Milliseconds() / 4))
		return nil
	}
}

func (o *oracle) send() error {
	var batch []queue.Message
	for range 1 + o.random.IntN(4) {
		m := queue.Message{Body: []byte(strconv.Itoa(o.sent + len(batch)))}
		if o.fifo || o.random.IntN(2) == 0 {
			m.Group = string(rune('a' + o.random.IntN(5)))
		}
		if !o.fifo && o.random.IntN(4) == 0 {
			m.Delay = time.Duration(1+o.random.IntN(20_000)) * time.Millisecond
		}
		if o.random.IntN(5) == 0 {
			m.DedupID = strconv.Itoa(o.random.IntN(20))
		}
		if o.random.IntN(5) == 0 {
			m.Unique = strconv.Itoa(o.random.IntN(10))
		}
		batch = append(batch, m)
	}
	sent, err := o.q.SendBatch(o.t.Context(), batch)
	if err != nil && !errors.Is(err, queue.ErrFull) {
		return err
	}
	for i, s := range sent {
		m := batch[i]
		if id, ok := o.dedupID[m.DedupID]; ok && o.client.ms.Load()-o.dedup[m.DedupID] < 300_000 {
			if !s.Duplicate || s.ID != id {
				return fmt.Errorf("deduplication %s: %+v, want a duplicate of %s", m.DedupID, s, id)
			}
			continue
		}
		if id, ok := o.unique[m.Unique]; ok && m.Unique != "" {
			if s.Duplicate && s.ID == id {
				continue
			}
			if first := o.messages[id]; first != nil && o.client.ms.Load()-first.sent <= modelKeep.Milliseconds() &&
				(first.receives < modelReceives || first.visible > o.client.ms.Load()) {
				return fmt.Errorf("unique %s: %+v, want a duplicate of %s", m.Unique, s, id)
			}
		}
		if s.Duplicate && m.Unique != "" && o.dying[s.ID] {
			continue
		}
		if s.Duplicate {
			return fmt.Errorf("%+v is no duplicate: %+v", m, s)
		}
		if s.Err != nil {
			// The dead count until they have moved: the model does not know when.
			if len(o.messages)+o.dead+o.dropped < modelQuota {
				return fmt.Errorf("%w with %d messages", s.Err, len(o.messages))
			}
			continue
		}
		o.sent++
		o.messages[s.ID] = &message{
			body: string(m.Body), group: m.Group, sent: o.client.ms.Load(), visible: o.client.ms.Load() + m.Delay.Milliseconds(), order: o.sent,
		}
		if m.DedupID != "" {
			o.dedup[m.DedupID], o.dedupID[m.DedupID] = o.client.ms.Load(), s.ID
		}
		if m.Unique != "" {
			o.unique[m.Unique], o.keyOf[s.ID] = s.ID, m.Unique
		}
	}
	return nil
}

func (o *oracle) forget(id string) {
	delete(o.messages, id)
	if key, ok := o.keyOf[id]; ok {
		delete(o.keyOf, id)
		if o.unique[key] == id {
			delete(o.unique, key)
		}
	}
}

// locked says whether something of a group is in flight.
func (o *oracle) locked(group string) bool {
	for _, m := range o.messages {
		if m.group == group && m.receives > 0 && m.visible > o.client.ms.Load() {
			return true
		}
	}
	return false
}

// available returns what may be received now, and leaves out what has died or ended its life.
func (o *oracle) available() map[string]*message {
	now, free := o.client.ms.Load(), map[string]*message{}
	for id, m := range o.messages {
		if m.visible <= now && now-m.sent <= modelKeep.Milliseconds() && m.receives < modelReceives {
			free[id] = m
		}
	}
	return free
}

// bury forgets what many receives have found to be dead or too old; before that its receipt may still do something.
func (o *oracle) bury(free map[string]*message) {
	now := o.client.ms.Load()
	for id, m := range o.messages {
		old := now-m.sent > modelKeep.Milliseconds()
		if free[id] != nil || !old && (m.receives < modelReceives || m.visible > now) || m.visible > now {
			continue
		}
		if m.ended++; m.ended > 50 {
			o.dropped++
			o.dying[id] = true
			o.forget(id)
		}
	}
}

func (o *oracle) receive() error {
	want := 1 + o.random.IntN(6)
	hold := time.Duration(1+o.random.Int64N(modelHold.Milliseconds())) * time.Millisecond
	hold = max(hold, 10*time.Millisecond)
	free := o.available()
	if o.fifo {
		for id, m := range free {
			if o.locked(m.group) {
				delete(free, id)
			}
		}
	}
	ds, err := o.q.Receive(o.t.Context(), queue.ReceiveOptions{Max: want, Visibility: hold})
	if err != nil {
		return err
	}
	o.bury(free)
	if len(ds) != min(want, len(free)) {
		return fmt.Errorf("%d messages, want %d of %d", len(ds), want, len(free))
	}
	next := map[string][]*message{}
	for _, m := range free {
		next[m.group] = append(next[m.group], m)
	}
	for _, ms := range next {
		slices.SortFunc(ms, func(a, b *message) int { return cmp.Compare(a.order, b.order) })
	}
	for _, d := range ds {
		m := free[d.ID]
		if m == nil || m.body != string(d.Body) || d.Receives != m.receives+1 || d.Sent.UnixMilli() != m.sent || d.Group != m.group {
			return fmt.Errorf("received %+v, the model has %+v", d, m)
		}
		if o.fifo {
			if first := next[m.group][0]; first != m {
				return fmt.Errorf("group %s: %s before %s", m.group, d.Body, first.body)
			}
			next[m.group] = next[m.group][1:]
		}
		delete(free, d.ID)
		m.receives, m.receipt, m.visible = d.Receives, d.Receipt, o.client.ms.Load()+hold.Milliseconds()
		o.receipts = append(o.receipts, d.Receipt)
		o.delivered++
	}
	if len(o.receipts) > 200 {
		o.receipts = o.receipts[100:]
	}
	return nil
}

// settle settles a receipt, old ones among them.
func (o *oracle) settle() error {
	if len(o.receipts) == 0 {
		return nil
	}
	ctx := o.t.Context()
	receipt := o.receipts[max(0, len(o.receipts)-1-o.random.IntN(20))]
	id := receipt[2:24]
	m := o.messages[id]
	mine := m != nil && m.receipt == receipt
	// What has died or ended its life is gone when a receive finds out; until then its receipt may still do something.
	maybe := mine && m.visible <= o.client.ms.Load() && (m.receives >= modelReceives || o.client.ms.Load()-m.sent > modelKeep.Milliseconds())
	d := time.Duration(o.random.Int64N(20_000)) * time.Millisecond
	var err error
	op := o.random.IntN(10)
	switch {
	case op < 6:
		err = o.q.Ack(ctx, receipt)
	case op < 8:
		err = o.q.Nack(ctx, receipt, d, "why")
	case op < 9:
		d = max(d, 10*time.Millisecond)
		err = o.q.Extend(ctx, receipt, d)
	default:
		err = o.q.Reject(ctx, receipt, "why")
	}
	if err != nil && mine && (op == 6 || op == 7) && strings.Contains(err.Error(), "after the message's Retention") &&
		o.client.ms.Load()+d.Milliseconds()-m.sent >= modelKeep.Milliseconds() {
		return nil // a delay that it would not outlive is refused, and changes nothing
	}
	if err != nil && !errors.Is(err, queue.ErrNotHeld) || mine && err != nil && !maybe || !mine && err == nil {
		return fmt.Errorf("op %d on %s: %w; the model: held %v, %+v", op, receipt, err, mine, m)
	}
	switch {
	case err != nil:
		if mine {
			o.dropped++
			o.dying[id] = true
			o.forget(id)
		}
	case op < 6:
		o.acked++
		o.forget(id)
	case op == 9 || op < 8 && m.receives >= modelReceives:
		o.dead++
		o.dying[id] = true
		o.forget(id)
	default:
		m.visible = o.client.ms.Load() + d.Milliseconds()
	}
	return nil
}

// drain receives all that is left, and holds that nothing is left then.
func (o *oracle) drain() error {
	ctx := o.t.Context()
	o.client.ms.Add(modelHold.Milliseconds())
	free := o.available()
	for range 10_000 {
		ds, err := o.q.Receive(ctx, queue.ReceiveOptions{Max: 10, Visibility: time.Hour})
		if err != nil {
			return err
		}
		for _, d := range ds {
			if free[d.ID] == nil {
				return fmt.Errorf("received %s, which the model has not", d.ID)
			}
			delete(free, d.ID)
			if err := o.q.Ack(ctx, d.Receipt); err != nil {
				return err
			}
		}
		if len(ds) == 0 {
			break
		}
	}
	if len(free) > 0 {
		return fmt.Errorf("%d messages never came", len(free))
	}
	until(o.t, "the dead are buried", func() bool {
		s, err := o.q.Stats(ctx)
		return err == nil && s.Dying == 0 && s.Visible+s.InFlight+s.Delayed == 0 && s.Bytes == 0
	})
	return nil
}

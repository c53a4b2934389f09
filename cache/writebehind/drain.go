package writebehind

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

//go:embed claim.lua
var claimLua string

//go:embed adopt.lua
var adoptLua string

var (
	claimScript = script.New(claimLua)
	adoptScript = script.New(adoptLua)
)

var (
	errStuck = errors.New("writebehind: no call of Origin returns")
	errOther = errors.New("writebehind: another process drains the partition")
)

const (
	firstRetry = 20 * time.Millisecond // between two attempts to tell the server something, doubling ...
	lastRetry  = time.Second
	adopted    = 1000 // keys at a time
	leastPoll  = 20 * time.Millisecond
	mostPoll   = time.Second
)

// drainer brings one partition to the origin, while this process has its lease.
type drainer[V any] struct {
	*Store[V]
	p  int
	at *places

	fresh, suspect chan struct{} // full where calls are under way: of writes that have not failed, and of those that have
	room           chan struct{} // groups that are under way or wait
	stuck          atomic.Int64  // calls that have not returned in time
	ended          chan struct{} // pokes the loop when a group has ended
	local          atomic.Int64  // keys that this process has at the origin
	left           atomic.Int64  // keys that waited when it was closed
}

func newDrainer[V any](s *Store[V], p int) *drainer[V] {
	d := &drainer[V]{
		Store: s, p: p, at: &s.keys.places[p],
		fresh: make(chan struct{}, s.cfg.Calls-s.cfg.Calls/2),
		room:  make(chan struct{}, 4*s.cfg.Calls),
		ended: make(chan struct{}, 1),
	}
	if d.suspect = d.fresh; s.cfg.Calls > 1 {
		d.suspect = make(chan struct{}, s.cfg.Calls/2)
	}
	return d
}

// run takes the lease whenever it is free, until the store is closed or ctx ends.
func (d *drainer[V]) run(ctx context.Context) {
	for first := true; ctx.Err() == nil && (first || !d.isClosed()); first = false {
		if held, sent := d.take(ctx); held != nil {
			d.cfg.Hooks.Began(d.p)
			cause := d.hold(ctx, held, sent)
			d.cfg.Hooks.Ended(d.p, cause)
			if cause != nil {
				d.cfg.Logger.Warn("writebehind: the partition is drained no longer", "partition", d.p, "error", cause)
			}
		}
		if d.isClosed() {
			return
		}
		pause := time.NewTimer(time.Duration((0.8 + 0.4*rand.Float64()) * float64(d.cfg.Lease) / 3))
		select {
		case <-pause.C:
		case <-d.closed:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

// take takes the lease if nobody has it, and this process has a call left to make.
func (d *drainer[V]) take(ctx context.Context) (held *lease.Lease, sent time.Time) {
	if d.stuck.Load() >= int64(d.cfg.Calls) || d.way.Away(d.at.own) != nil {
		return nil, sent
	}
	ctx, cancel := context.WithTimeout(ctx, MaxWait)
	defer cancel()
	sent = time.Now()
	held, _, err := d.leases.Take(ctx, d.at.own, d.cfg.Lease)
	if err != nil {
		d.heard("own", err)
	}
	return held, sent
}

func (d *drainer[V]) heard(op string, err error) {
	d.cfg.Hooks.Error(op, err)
	d.cfg.Logger.Warn("writebehind: "+op, "partition", d.p, "error", err)
}

// hold drains until the lease is lost, ctx has ended or all is drained after Close; then cause is nil.
func (d *drainer[V]) hold(ctx context.Context, held *lease.Lease, sent time.Time) (cause error) {
	keeper := lease.Keep(ctx, lease.Keeping{TTL: d.cfg.Lease, Sent: sent, Extend: held.Extend, Renew: true})
	defer context.AfterFunc(ctx, func() { keeper.End(lease.ErrReleased) })()
	t := &turn[V]{drainer: d, ctx: keeper.Context(), end: keeper.End, token: held.Token(), orphans: true}
	t.loop()
	t.groups.Wait() // they end soon: their context has ended, or nothing is left
	if d.isClosed() {
		d.countLeft(context.WithoutCancel(ctx))
	}
	keeper.End(lease.ErrReleased)
	cause = context.Cause(keeper.Context())
	if errors.Is(cause, lease.ErrReleased) {
		cause = nil
	}
	if cause == nil && d.stuck.Load() == 0 { // else it ends by itself, when the call may have ended too
		drop := func(ctx context.Context) bool { _, err := held.Drop(ctx); return err == nil }
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), MaxWait)
		defer cancel()
		if !drop(bounded) {
			lease.GiveBack(ctx, drop)
		}
	}
	return cause
}

func (d *drainer[V]) countLeft(ctx context.Context) {
	ctx = d.way.Wait.Bounded(ctx)
	var sum Stats
	if err := sum.add(d.way.Client.DoMulti(ctx, d.counting(d.p)...), 0); err != nil {
		d.heard("claim", err)
	}
	d.left.Store(sum.Waiting)
}

// turn is the time from taking a lease to its end.
type turn[V any] struct {
	*drainer[V]
	ctx     context.Context // ends with the lease
	end     func(error)
	token   string
	groups  sync.WaitGroup
	orphans bool   // keys may be marked as being at the origin that are not
	until   string // after Close: what is due until then is taken now
}

// item is a key that was claimed.
type item[V any] struct {
	Write[V]
	claim string // its number
	done  int64  // how many writes were done before it
	tries int
}

func (t *turn[V]) loop() {
	for pause := time.Duration(0); t.ctx.Err() == nil; {
		if pause > 0 && !t.sleep(pause) {
			return
		}
		if t.stuck.Load() >= int64(t.cfg.Calls) {
			t.end(errStuck)
			return
		}
		if t.orphans && !t.adopt() {
			pause = leastPoll
			continue
		}
		closing := t.isClosed()
		select {
		case t.room <- struct{}{}:
		case <-t.ended:
			pause = 0
			continue
		case <-t.ctx.Done():
			return
		}
		last := closing && t.until != ""
		items, next, err := t.claim(closing)
		if err != nil || len(items) == 0 {
			<-t.room
		}
		switch {
		case err != nil:
			if t.ctx.Err() == nil {
				t.heard("claim", err)
			}
			pause, t.orphans = max(firstRetry, min(2*pause, lastRetry)), true // it may have been done
		case len(items) > 0:
			if pause = 0; len(items) < t.cfg.Batch && !closing {
				pause = t.gather()
			}
			t.launch(items)
		case last && t.local.Load() == 0 && !t.orphans:
			return
		case last:
			pause = leastPoll
		case closing:
			pause = 0 // once more, now that it is known what was written before
		default:
			pause = min(max(t.cfg.Window/2, leastPoll), mostPoll)
			if next >= 0 {
				pause = min(max(next, t.gather()), pause)
			}
		}
	}
}

// gather is between two claims that find few keys: what becomes due meanwhile goes in one call, not in one each.
func (t *turn[V]) gather() time.Duration { return max(t.cfg.Window/10, time.Millisecond) }

// sleep returns after d, or when the store is closed; false if the lease has ended.
func (t *turn[V]) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	closed := t.closed
	if t.isClosed() {
		closed = nil
	}
	select {
	case <-timer.C:
	case <-closed:
	case <-t.ctx.Done():
	}
	return t.ctx.Err() == nil
}

// adopt makes due again what is at no origin, once this process has nothing there itself; done says that it has.
func (t *turn[V]) adopt() (done bool) {
	for t.local.Load() == 0 {
		keys := []string{t.at.log, t.at.due, t.at.flight, t.at.own}
		left, err := t.way.Exec(t.ctx, adoptScript, keys, t.token, strconv.Itoa(adopted)).AsInt64()
		switch {
		case err != nil:
			if t.ctx.Err() == nil {
				t.heard("adopt", err)
			}
			return false
		case left < 0:
			t.end(errOther)
			return false
		case left == 0:
			t.orphans = false
			return true
		}
	}
	return false
}

// claim takes what is due; next is when something else is, or less than zero. Items are in flight from here on.
func (t *turn[V]) claim(closing bool) (items []item[V], next time.Duration, err error) {
	until := "0"
	if closing && t.until != "" {
		until = t.until
	}
	before := t.local.Load()
	reply, err := t.way.Exec(t.ctx, claimScript, []string{t.at.log, t.at.due, t.at.flight, t.at.own},
		t.token, strconv.Itoa(t.cfg.Batch), strconv.Itoa(t.cfg.BatchBytes), until).ToArray()
	if err != nil {
		return nil, 0, err
	}
	var head [5]int64
	for i := range min(len(head), len(reply)) {
		if head[i], err = reply[i].AsInt64(); err != nil {
			return nil, 0, err
		}
	}
	switch {
	case len(reply) == 1 && head[0] == 0:
		t.end(errOther)
		return nil, 0, errOther
	case len(reply) < len(head) || len(reply)%2 != 1:
		return nil, 0, fmt.Errorf("the server answered %d parts, not five and pairs", len(reply))
	}
	for i := len(head); i < len(reply); i += 2 {
		key, keyErr := reply[i].ToString()
		tries, triesErr := reply[i+1].AsInt64()
		if err := errors.Join(keyErr, triesErr); err != nil {
			return nil, 0, err
		}
		items = append(items, item[V]{Write: Write[V]{Key: key}, claim: strconv.FormatInt(head[3], 10), done: head[4], tries: int(tries)})
	}
	t.local.Add(int64(len(items)))
	if head[2] > before+int64(len(items)) {
		t.orphans = true
	}
	if closing && t.until == "" {
		t.until = strconv.FormatInt(head[0]+t.cfg.Window.Milliseconds(), 10)
	}
	return items, time.Duration(head[1]) * time.Millisecond, nil
}

// launch begins to write items, which have a place in the room: those that have not failed together, the others in
// groups that are the smaller the more often they have.
func (t *turn[V]) launch(items []item[V]) {
	for i, part := range split(items, t.cfg.Batch) {
		if i > 0 {
			t.room <- struct{}{} // those that are there end
		}
		t.groups.Go(func() {
			g := &group[V]{turn: t}
			g.run(part)
			t.local.Add(-int64(len(part)))
			<-t.room
			select {
			case t.ended <- struct{}{}:
			default:
			}
		})
	}
}

// split divides items into groups of those with the same number of tries, of half the size for each.
func split[V any](items []item[V], batch int) (groups [][]item[V]) {
	by := map[int][]item[V]{}
	most := 0
	for _, it := range items {
		n := min(it.tries, 10) // a batch is 1,000 at most
		by[n] = append(by[n], it)
		most = max(most, n)
	}
	for n := range most + 1 {
		size := max(1, batch>>n)
		for all := by[n]; len(all) > 0; {
			take := min(size, len(all))
			groups = append(groups, all[:take:take])
			all = all[take:]
		}
	}
	return groups
}

// settle repeats what the server has to be told, until it has answered or the lease has ended.
func (t *turn[V]) settle(op string, call func(context.Context) valkey.ValkeyResult) (valkey.ValkeyResult, bool) {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		result := call(t.ctx)
		if result.Error() == nil {
			return result, true
		}
		if t.ctx.Err() != nil {
			return result, false
		}
		t.heard(op, result.Error())
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-t.ctx.Done():
			timer.Stop()
			return result, false
		}
	}
}

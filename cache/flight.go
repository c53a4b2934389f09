package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/wake"
)

var (
	// ErrNotFound is what load returns, wrapped or not, if there is no such value; that is remembered, for
	// Config.NegativeTTL.
	ErrNotFound = errors.New("cache: not found")
	// ErrLoadTimeout is returned if load takes longer than Config.LoadTimeout.
	ErrLoadTimeout = errors.New("cache: load took longer than Config.LoadTimeout")
)

var (
	errAbandoned = errors.New("cache: nobody waits any longer")
	errGoexit    = errors.New("cache: load called runtime.Goexit")
)

// PanicError is returned to all who waited for a load that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("cache: load panicked: %v", e.Value) }

// coolFor is for how long nobody loads what is still served, after a load that failed.
const coolFor = time.Second

// maxRefreshes is how many background loads this process runs at once; others wait for the next hit.
const maxRefreshes = 32

// flight is one key on its way to an answer, in this process: one at a time.
type flight[V any] struct {
	done       chan struct{}
	background bool
	callers    int                // under Cache.mu
	left       context.CancelFunc // when nobody waits any longer
	outcome[V]
}

// outcome is what a flight ends with. It is an answer for those who asked before asOf: what was invalidated
// after that may still be in it.
type outcome[V any] struct {
	value  V
	err    error
	asOf   time.Time
	past   time.Duration // since the TTL ended, if it is served stale
	stale  bool
	waited bool // for another process
}

// answers says whether who arrived at a time may have the outcome.
func (o *outcome[V]) answers(arrived time.Time) bool {
	if o.err != nil && !errors.Is(o.err, ErrNotFound) {
		return !errors.Is(o.err, errAbandoned)
	}
	return !o.asOf.Before(arrived)
}

// fly joins the flight of a key, or begins it, and waits for its end.
func (c *Cache[V]) fly(ctx context.Context, key string, load func(context.Context) (V, error), seen *sight[V]) (f *flight[V], joined bool, err error) {
	c.mu.Lock()
	f, joined = c.flights[key]
	if !joined {
		var on context.Context
		f, on = c.newFlight(ctx, key, false)
		go c.run(on, f, key, load, seen)
	}
	f.callers++
	c.mu.Unlock()
	return f, joined, c.await(ctx, f)
}

// join returns the flight of a key that others wait for, if there is one. Who joins has to await.
func (c *Cache[V]) join(key string) *flight[V] {
	if c.waitedFor.Load() == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.flights[key]
	if f == nil || f.background {
		return nil
	}
	f.callers++
	return f
}

// await waits for the end of a flight, or of ctx.
func (c *Cache[V]) await(ctx context.Context, f *flight[V]) (err error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.callers--; f.callers == 0 {
		f.left()
	}
	return err
}

func (c *Cache[V]) newFlight(ctx context.Context, key string, background bool) (*flight[V], context.Context) {
	on, left := context.WithCancel(context.WithoutCancel(ctx)) //nolint:gosec // the last caller calls left
	f := &flight[V]{done: make(chan struct{}), background: background, left: left}
	c.flights[key] = f
	if !background {
		c.waitedFor.Add(1)
	}
	return f, on
}

// refresh loads an entry anew in the background, unless somebody does.
func (c *Cache[V]) refresh(ctx context.Context, key string, load func(context.Context) (V, error), seen *sight[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[key] != nil || c.refreshes >= maxRefreshes {
		return
	}
	c.refreshes++
	f, on := c.newFlight(ctx, key, true)
	go func() {
		c.run(on, f, key, load, seen)
		f.left()
		c.mu.Lock()
		c.refreshes--
		c.mu.Unlock()
	}()
}

func (c *Cache[V]) run(ctx context.Context, f *flight[V], key string, load func(context.Context) (V, error), seen *sight[V]) {
	t := &trip[V]{Cache: c, key: key, load: load, seen: seen, token: rand.Text(), background: f.background}
	o := t.obtain(ctx)
	c.mu.Lock()
	delete(c.flights, key)
	if !f.background {
		c.waitedFor.Add(-1)
	}
	f.outcome = o
	c.mu.Unlock()
	close(f.done)
}

// trip is a flight's way to the server and the origin.
type trip[V any] struct {
	*Cache[V]
	key, token string
	load       func(context.Context) (V, error)
	seen       *sight[V]
	background bool // nobody waits: it only loads if nobody else does

	waker  *wake.Waiter
	begin  time.Time
	waited bool
}

// obtain gets the lease and loads, or waits until somebody else has. Its ctx ends when nobody waits any
// longer, which does not end a load.
func (t *trip[V]) obtain(ctx context.Context) outcome[V] {
	t.begin = time.Now()
	defer func() {
		if t.waker != nil {
			t.waker.Leave()
		}
	}()
	for {
		o, again := t.attempt(ctx)
		if !again {
			return o
		}
		// This trip asks again, not each of those who wait for it: they may be thousands.
		t.seen = &sight[V]{state: none}
	}
}

func (t *trip[V]) attempt(ctx context.Context) (o outcome[V], again bool) {
	if t.seen.state == unanswered {
		return t.loadAlone(ctx)
	}
	least := t.cfg.kept().Milliseconds()
	switch t.seen.state {
	case foreign:
		least = always
	case fresh:
		least = t.seen.left
	}
	for {
		channel := ""
		if t.waker != nil {
			channel = t.waker.Channel() + " " + t.token
		}
		sent := time.Now()
		got, err := t.take(ctx, t.key, t.token, least, channel)
		switch {
		case ctx.Err() != nil && !t.background:
			if err != nil || got.taken {
				t.giveBack(ctx, t.key, t.token, err != nil)
			}
			return outcome[V]{err: errAbandoned}, false
		case err != nil:
			if cutOff(err) {
				t.giveBack(ctx, t.key, t.token, true)
			}
			t.cfg.Hooks.Error("set", err)
			if t.background {
				return outcome[V]{err: errAbandoned}, false
			}
			return t.loadAlone(ctx)
		case got.state == fresh && got.left > least:
			if got.taken {
				t.giveBack(ctx, t.key, t.token, false)
			}
			return outcome[V]{value: got.value, err: got.err, asOf: sent, waited: t.waited}, false
		case got.taken:
			return t.loadHeld(ctx, sent, got), false
		case got.owner == "": // it lives for long enough, but is of no use
			least = always
			continue
		case t.background:
			return outcome[V]{err: errAbandoned}, false
		case got.owner == cooling && got.servable():
			return t.serveStale(got), false
		}
		if o, done := t.whileOthersLoad(ctx, got); done {
			return o, false
		}
	}
}

// whileOthersLoad waits until it is worth while to ask again, or is late and does what Config.Late says.
func (t *trip[V]) whileOthersLoad(ctx context.Context, got ask[V]) (o outcome[V], done bool) {
	late := t.cfg.LateAfter - time.Since(t.begin)
	if late <= 0 {
		switch {
		case t.cfg.Late == ServeStale && got.servable():
			return t.serveStale(got), true
		case t.cfg.Late == Load && got.owner != cooling && !strings.HasPrefix(got.owner, writerMark):
			if permit := t.permit(ctx); permit != nil {
				defer permit()
				return t.loadBeside(ctx, got), true
			}
		}
	}
	if t.waker == nil {
		t.waited = true
		t.waker = wake.Join(ctx, t.client, t.cfg.Prefix, t.token)
		return o, false // asking again says where to wake
	}
	// The owner's lease may end, and a wake-up may be lost.
	sleep := min(t.waker.Fallback(), got.ends+time.Millisecond)
	if late > 0 {
		sleep = min(sleep, late)
	}
	timer := time.NewTimer(sleep)
	defer timer.Stop()
	select {
	case <-t.waker.Woken:
	case <-timer.C:
	case <-ctx.Done():
	}
	return o, false
}

func (t *trip[V]) serveStale(got ask[V]) outcome[V] {
	return outcome[V]{value: got.value, err: got.err, asOf: got.sent, past: got.past, stale: true, waited: t.waited}
}

// loadHeld loads and stores while this trip's token is the lease's.
func (t *trip[V]) loadHeld(ctx context.Context, sent time.Time, got ask[V]) outcome[V] {
	held := t.leases.At(t.keys.fills.Key(t.key), t.token)
	ctx = context.WithoutCancel(ctx)
	keeper := lease.Keep(ctx, lease.Keeping{TTL: t.cfg.Lease, Sent: sent, Extend: held.Extend, Renew: true})
	defer keeper.End(lease.ErrReleased)
	return t.loadAndFill(ctx, t.token, got)
}

// loadBeside loads although somebody else does. The owner's token is the fence: while it is there, nothing
// has been invalidated since it was seen.
func (t *trip[V]) loadBeside(ctx context.Context, got ask[V]) outcome[V] {
	return t.loadAndFill(context.WithoutCancel(ctx), got.owner, got)
}

func (t *trip[V]) loadAndFill(ctx context.Context, token string, got ask[V]) outcome[V] {
	began := time.Now()
	value, err := t.call(ctx)
	took := time.Since(began)
	store, o := t.settle(value, err, got, began, took)
	sent := time.Now()
	stored, err := t.fill(ctx, t.key, token, store.text, store.life, store.cool)
	switch {
	case err != nil:
		t.cfg.Hooks.Error("set", fmt.Errorf("cache: set: %w", err))
	case !stored:
		t.cfg.Hooks.Refused(t.key)
	case store.text != storeNo && len(got.gens) == 0: // a tag may have gone since, which the token does not tell
		o.asOf = sent
	}
	o.waited = t.waited
	return o
}

// storing is what to store of a load.
type storing struct {
	text       string
	life, cool time.Duration
}

// settle says what to store of a load, and what those get who waited for it.
func (c *Cache[V]) settle(value V, err error, got ask[V], began time.Time, took time.Duration) (s storing, o outcome[V]) {
	o = outcome[V]{value: value, err: err, asOf: began}
	switch {
	case err == nil:
		s.life = c.cfg.life() + c.cfg.kept()
		if s.text, err = c.encode(value, entry{took: took, kept: c.cfg.kept(), gens: got.gens}); err != nil {
			c.cfg.Hooks.Error("set", fmt.Errorf("cache: set: %w", err))
		}
	case errors.Is(err, ErrNotFound):
		if c.cfg.NegativeTTL > 0 {
			s.life = c.cfg.jittered(c.cfg.NegativeTTL)
			s.text = entry{absent: true, took: took, gens: got.gens}.text()
		}
	case got.servable():
		s.cool = max(coolFor, c.cfg.ErrorTTL)
		if got.past < c.cfg.StaleIfError {
			o = outcome[V]{value: got.value, err: got.err, asOf: got.sent, past: got.past, stale: true}
		}
	case c.cfg.ErrorTTL > 0:
		s.life = c.cfg.ErrorTTL
		s.text = entry{failed: true, took: took, gens: got.gens, body: []byte(err.Error())}.text()
	}
	return s, o
}

// loadAlone loads although nobody can say who else does, or whether it may be stored.
func (t *trip[V]) loadAlone(ctx context.Context) (o outcome[V], again bool) {
	ok, again := t.turn(ctx)
	if !ok {
		return outcome[V]{err: errAbandoned}, again
	}
	defer func() { <-t.alone }()
	began := time.Now()
	value, err := t.call(ctx)
	if err == nil {
		t.localPutBlind(t.key, value)
	}
	return outcome[V]{value: value, err: err, asOf: began, waited: t.waited}, false
}

// turn waits for one of Config.Loads places. Without one, again says that the server may answer by now: it is
// back, or was never away for long.
func (t *trip[V]) turn(ctx context.Context) (ok, again bool) {
	select {
	case t.alone <- struct{}{}:
		return true, false
	default:
	}
	timer := time.NewTimer(MaxWait)
	defer timer.Stop()
	for {
		back := t.isBack()
		if !t.away(t.keys.entries.Key(t.key)) {
			back = nil // it answers, if only with errors: not so soon
		}
		select {
		case t.alone <- struct{}{}:
			return true, false
		case <-ctx.Done():
			return false, false
		case <-back:
			return false, true
		case <-timer.C:
			if back == nil {
				return false, true
			}
			timer.Reset(MaxWait)
		}
	}
}

// call runs load for at most Config.LoadTimeout. A load that does not end with its context goes on, and
// what it returns is dropped.
func (t *trip[V]) call(ctx context.Context) (V, error) {
	return runLoad(ctx, &t.cfg, t.key, t.load)
}

func runLoad[T any](ctx context.Context, cfg *Config, key string, load func(context.Context) (T, error)) (T, error) {
	ctx, cancel := until(ctx, cfg.LoadTimeout)
	defer cancel()
	type result struct {
		value T
		err   error
	}
	loaded := make(chan result, 1)
	began := time.Now()
	go func() {
		r := result{err: errGoexit}
		defer func() {
			if p := recover(); p != nil {
				r = result{err: &PanicError{p, debug.Stack()}}
			}
			loaded <- r
		}()
		value, err := load(ctx)
		r = result{value, err}
	}()
	var r result
	select {
	case r = <-loaded:
	case <-ctx.Done():
		select {
		case r = <-loaded: // both at once
		default:
			r.err = ErrLoadTimeout
		}
	}
	if r.err != nil {
		var zero T
		r.value = zero
	}
	cfg.Hooks.Loaded(key, time.Since(began), r.err)
	return r.value, r.err
}

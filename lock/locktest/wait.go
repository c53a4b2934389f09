package locktest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// Tag is what docs/keys.md says of TAG, written down a second time.
func Tag(name string) string {
	sum := sha256.Sum256([]byte(name))
	return strconv.Itoa((int(sum[0])*256 + int(sum[1])) / 64)
}

// InQueue waits until the server knows of n waiters for name.
func InQueue(t *testing.T, c valkey.Client, prefix, name string, n int64) {
	t.Helper()
	inQueue(t, c, prefix, "wait", name, n)
}

func inQueue(t *testing.T, c valkey.Client, prefix, part, name string, n int64) {
	t.Helper()
	for {
		llen := c.B().Llen().Key(prefix + ":lock:{" + Tag(name) + "}:" + part + ":" + name).Build()
		switch got, err := c.Do(t.Context(), llen).AsInt64(); {
		case err != nil:
			t.Fatal(err)
		case got == n:
			return
		}
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("the queue never had %d", n)
		}
	}
}

func acquire(t *testing.T, l *lock.Locker, name string) *lock.Lock {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	held, err := l.Acquire(ctx, name)
	if err != nil {
		t.Fatalf("Acquire: %v", err)
	}
	return held
}

func release(t *testing.T, held *lock.Lock) {
	t.Helper()
	if err := held.Release(t.Context()); err != nil {
		t.Errorf("Release: %v", err)
	}
}

// fence holds that every acquisition has a higher number than all before it, whichever way the lock
// changed hands.
func fence(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	l := newLocker(t, env, lock.Config{Prefix: prefix, TTL: time.Hour})
	last := uint64(0)
	grown := func(held *lock.Lock) {
		t.Helper()
		if held.Fence() <= last {
			t.Fatalf("fence %d after %d", held.Fence(), last)
		}
		last = held.Fence()
	}
	held := try(t, l, "n", true)
	for range 20 {
		grown(held)
		release(t, held)
		held = try(t, l, "n", true)
	}
	grown(held)
	next := make(chan *lock.Lock, 1)
	go func() {
		got, err := l.Acquire(t.Context(), "n")
		if err != nil {
			t.Error(err)
		}
		next <- got
	}()
	InQueue(t, env.Client, prefix, "n", 1)
	release(t, held)
	if held = <-next; held != nil {
		grown(held)
		release(t, held)
	}
	short := newLocker(t, env, lock.Config{Prefix: prefix, TTL: 10 * time.Millisecond, NoRenewal: true})
	grown(try(t, short, "n", true))
	env.Advance(11 * time.Millisecond)
	grown(try(t, l, "n", true))
}

// order lets waiters come one after the other, and expects them served so.
func order(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	l := newLocker(t, env, lock.Config{Prefix: prefix, TTL: time.Hour})
	held := try(t, l, "n", true)
	const waiters = 8
	served := make(chan int, waiters)
	var all sync.WaitGroup
	defer all.Wait()
	for i := range waiters {
		all.Go(func() {
			got, err := l.Acquire(t.Context(), "n")
			if err != nil {
				t.Error(err)
				return
			}
			served <- i
			if err := got.Release(t.Context()); err != nil {
				t.Error(err)
			}
		})
		InQueue(t, env.Client, prefix, "n", int64(i+1))
	}
	try(t, l, "n", false)
	release(t, held)
	for want := range waiters {
		if got := <-served; got != want {
			t.Fatalf("waiter %d was served as number %d", got, want)
		}
	}
}

// handover lets a holder die while others wait: the first one gets the lock when its lease ends, and a
// newcomer does not get in before.
func handover(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	dying := newLocker(t, env, lock.Config{Prefix: prefix, TTL: 50 * time.Millisecond, NoRenewal: true})
	l := newLocker(t, env, lock.Config{Prefix: prefix, TTL: time.Hour})
	try(t, dying, "n", true)
	got := make(chan *lock.Lock)
	go func() { got <- acquire(t, l, "n") }()
	InQueue(t, env.Client, prefix, "n", 1)
	env.Advance(51 * time.Millisecond)
	try(t, l, "n", false) // it grants the lock to who waits
	release(t, <-got)
}

// cancelled holds that a wait ends with its context and leaves nothing behind.
func cancelled(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	l := newLocker(t, env, lock.Config{Prefix: prefix, TTL: time.Hour})
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := l.Acquire(ended, "n"); !errors.Is(err, context.Canceled) {
		t.Fatalf("an ended context: %v", err)
	}
	held := acquire(t, l, "n") // what the ended call may have taken was given back
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := l.Acquire(ctx, "n")
		gone <- err
	}()
	InQueue(t, env.Client, prefix, "n", 1)
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatalf("a wait whose context ends: %v", err)
	}
	InQueue(t, env.Client, prefix, "n", 0)
	if err := held.Extend(ended, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("extend with an ended context: %v", err)
	}
	release(t, held)
	release(t, try(t, l, "n", true))
}

// crowd lets many contend while some give up in the middle: the lock is never held twice, and everybody
// else is served.
func crowd(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	const callers, rounds = 12, 20
	var mu sync.Mutex
	inside, served, gaveUp := 0, 0, 0
	var all sync.WaitGroup
	for caller := range callers {
		l := newLocker(t, env, lock.Config{Prefix: prefix, TTL: time.Hour})
		all.Go(func() {
			for round := range rounds {
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				impatient := (caller+round)%4 == 0
				if impatient {
					ctx, cancel = context.WithTimeout(t.Context(), time.Duration(round%5)*time.Millisecond)
				}
				held, err := l.Acquire(ctx, "n")
				cancel()
				mu.Lock()
				if err != nil {
					gaveUp++
					if !impatient {
						t.Errorf("Acquire: %v", err)
					}
					mu.Unlock()
					continue
				}
				served++
				if inside++; inside != 1 {
					t.Errorf("%d holders", inside)
				}
				inside--
				mu.Unlock()
				release(t, held)
			}
		})
	}
	all.Wait()
	if served+gaveUp != callers*rounds || served < callers*rounds*3/4 {
		t.Errorf("%d served, %d gave up", served, gaveUp)
	}
	release(t, acquire(t, newLocker(t, env, lock.Config{Prefix: prefix}), "n"))
}

func do(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	l := newLocker(t, env, lock.Config{Prefix: prefix, TTL: time.Hour})
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "value")
	broken := errors.New("broken")
	for _, want := range []error{nil, broken} {
		ran := false
		err := l.Do(ctx, "n", func(ctx context.Context) error {
			ran = ctx.Err() == nil && ctx.Value(key{}) == "value"
			try(t, l, "n", false)
			return want
		})
		if !ran || !errors.Is(err, want) {
			t.Fatalf("ran %v, error %v, want %v", ran, err, want)
		}
		release(t, try(t, l, "n", true))
	}
	// The lock is taken away under it.
	err := l.Do(ctx, "n", func(ctx context.Context) error {
		own := env.Client.B().Del().Key(prefix + ":lock:{" + Tag("n") + "}:own:n").Build()
		return env.Client.Do(ctx, own).Error()
	})
	if err != nil {
		t.Errorf("lost without having been asked: %v", err)
	}
	short := newLocker(t, env, lock.Config{Prefix: prefix, TTL: 20 * time.Millisecond, NoRenewal: true})
	err = short.Do(ctx, "n", func(ctx context.Context) error { <-ctx.Done(); return nil })
	if !errors.Is(err, lock.ErrNotHeld) {
		t.Errorf("lost: %v", err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = l.Do(ctx, "p", func(context.Context) error { panic("boom") })
	}()
	release(t, try(t, l, "p", true))
}

// ends holds the reason of each end, and that Context ends with it.
func ends(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	var lost []error
	var mu sync.Mutex
	cfg := lock.Config{Prefix: prefix, TTL: 300 * time.Millisecond, Hooks: lock.Hooks{Lost: func(_ string, cause error) {
		mu.Lock()
		defer mu.Unlock()
		lost = append(lost, cause)
	}}}
	set := func(name, value string) {
		t.Helper()
		own := env.Client.B().Set().Key(prefix + ":lock:{" + Tag(name) + "}:own:" + name).Value(value).Build()
		if err := env.Client.Do(t.Context(), own).Error(); err != nil {
			t.Fatal(err)
		}
	}
	for i, test := range []struct {
		want lock.Reason
		edit func(*lock.Config)
		end  func(*lock.Lock)
	}{
		{lock.Released, nil, func(l *lock.Lock) { release(t, l) }},
		{lock.Expired, func(c *lock.Config) { c.NoRenewal, c.TTL = true, 20*time.Millisecond }, nil},
		{lock.HeldTooLong, func(c *lock.Config) { c.MaxHold = 20 * time.Millisecond }, nil},
		{lock.Taken, nil, func(l *lock.Lock) { set(l.Name(), "somebody") }},
		{lock.Lost, nil, func(l *lock.Lock) {
			del := env.Client.B().Del().Key(prefix + ":lock:{" + Tag(l.Name()) + "}:own:" + l.Name()).Build()
			if err := env.Client.Do(t.Context(), del).Error(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		c := cfg
		if test.edit != nil {
			test.edit(&c)
		}
		held := try(t, newLocker(t, env, c), fmt.Sprint("n", i), true)
		if test.end != nil {
			test.end(held)
		}
		<-held.Context().Done()
		var end *lock.EndedError
		if cause := context.Cause(held.Context()); !errors.As(cause, &end) || end.Reason != test.want || !errors.Is(cause, lock.ErrNotHeld) {
			t.Errorf("%s: cause %v", test.want, cause)
		}
		for what, err := range map[string]error{"extend": held.Extend(t.Context(), 0), "release": held.Release(t.Context())} {
			if !errors.As(err, &end) || end.Reason != test.want {
				t.Errorf("%s: %s: %v", test.want, what, err)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(lost) != 4 {
		t.Errorf("Hooks.Lost heard %v, want all but the release", lost)
	}
}

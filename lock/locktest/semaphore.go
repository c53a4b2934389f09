package locktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

func newSemaphore(t *testing.T, env valkeytest.Env, cfg lock.SemaphoreConfig) *lock.Semaphore {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	s, err := lock.NewSemaphore(env.Client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tryPermit fails the test unless try, a TryAcquire, answers as wanted.
func tryPermit(t *testing.T, try func(context.Context, string) (*lock.Permit, bool, error), want bool) *lock.Permit {
	t.Helper()
	p, ok, err := inTime(t, "n", try)
	if err != nil || ok != want || (p != nil) != want {
		t.Fatalf("%v, %v, %v; want %v", p, ok, err, want)
	}
	return p
}

type releaser interface{ Release(context.Context) error }

// give releases all of held.
func give[R releaser](t *testing.T, held ...R) {
	t.Helper()
	for _, h := range held {
		if err := h.Release(t.Context()); err != nil {
			t.Errorf("Release: %v", err)
		}
	}
}

// nothingLeft fails the test if a key of name n is there, but for the fencing counter.
func nothingLeft(t *testing.T, c valkey.Client, prefix string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		exists := c.B().Exists().Key(prefix + ":lock:{" + Tag("n") + "}:" + part + ":n").Build()
		if n, err := c.Do(t.Context(), exists).AsInt64(); err != nil || n != 0 {
			t.Errorf("%s was left behind: %d, %v", part, n, err)
		}
	}
}

func permits(t *testing.T, env valkeytest.Env) {
	ctx, prefix := t.Context(), valkeytest.Prefix(t)
	s := newSemaphore(t, env, lock.SemaphoreConfig{Limit: 2, Prefix: prefix, TTL: time.Hour})
	first, second := tryPermit(t, s.TryAcquire, true), tryPermit(t, s.TryAcquire, true)
	tryPermit(t, s.TryAcquire, false)
	if err := first.Extend(ctx, time.Minute); err != nil || first.Name() != "n" {
		t.Errorf("extend of %s: %v", first.Name(), err)
	}
	try(t, newLocker(t, env, lock.Config{Prefix: prefix}), "n", true) // a lock of that name is another matter
	give(t, first)
	third := tryPermit(t, s.TryAcquire, true)
	var end *lock.EndedError
	for what, err := range map[string]error{"extend": first.Extend(ctx, 0), "release": first.Release(ctx)} {
		if !errors.As(err, &end) || end.Reason != lock.Released {
			t.Errorf("%s of what was released: %v", what, err)
		}
	}
	tryPermit(t, s.TryAcquire, false) // the others were not harmed
	broken := errors.New("broken")
	give(t, second)
	if err := s.Do(ctx, "n", func(context.Context) error { tryPermit(t, s.TryAcquire, false); return broken }); !errors.Is(err, broken) {
		t.Errorf("Do: %v", err)
	}
	give(t, third)
	if _, _, err := s.TryAcquire(ctx, ""); err == nil {
		t.Error("TryAcquire of no name")
	}
	nothingLeft(t, env.Client, prefix, "sem", "semwait", "semplace")
}

// deadPermit lets one of two holders die: its permit comes back, to the first who waits; the other's
// stays. The server forgets a permit: its holder is told.
func deadPermit(t *testing.T, env valkeytest.Env) {
	ctx, prefix := t.Context(), valkeytest.Prefix(t)
	s := newSemaphore(t, env, lock.SemaphoreConfig{Limit: 2, Prefix: prefix, TTL: time.Hour})
	dying := newSemaphore(t, env, lock.SemaphoreConfig{Limit: 2, Prefix: prefix, TTL: 50 * time.Millisecond, NoRenewal: true})
	tryPermit(t, s.TryAcquire, true)
	dead := tryPermit(t, dying.TryAcquire, true)
	got := make(chan *lock.Permit)
	go func() {
		p, err := s.Acquire(t.Context(), "n")
		if err != nil {
			t.Error(err)
		}
		got <- p
	}()
	inQueue(t, env.Client, prefix, "semwait", "n", 1)
	env.Advance(51 * time.Millisecond)
	tryPermit(t, s.TryAcquire, false) // the permit goes to who waits
	next := <-got
	for what, err := range map[string]error{"extend": dead.Extend(ctx, 0), "release": dead.Release(ctx)} {
		if !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("%s after the end: %v", what, err)
		}
	}
	tryPermit(t, s.TryAcquire, false)
	del := env.Client.B().Del().Key(prefix + ":lock:{" + Tag("n") + "}:sem:n").Build()
	if err := env.Client.Do(ctx, del).Error(); err != nil {
		t.Fatal(err)
	}
	var end *lock.EndedError
	if err := next.Extend(ctx, 0); !errors.As(err, &end) || end.Reason != lock.Lost {
		t.Errorf("extend of what the server has lost: %v", err)
	}
	if cause := context.Cause(next.Context()); !errors.Is(cause, lock.ErrNotHeld) {
		t.Errorf("its context: %v", cause)
	}
	// The key ends with the last lease, whichever order they came in.
	tryPermit(t, dying.TryAcquire, true)
	env.Advance(51 * time.Millisecond)
	nothingLeft(t, env.Client, prefix, "sem", "semwait", "semplace")
}

// permitOrder lets waiters come one after the other, one of which gives up, and expects them served so.
func permitOrder(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	s := newSemaphore(t, env, lock.SemaphoreConfig{Limit: 2, Prefix: prefix, TTL: time.Hour})
	held := []*lock.Permit{tryPermit(t, s.TryAcquire, true), tryPermit(t, s.TryAcquire, true)}
	const waiters, quitter = 6, 2
	served := make(chan int, waiters)
	quit, giveUp := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range waiters {
		all.Go(func() {
			ctx := t.Context()
			if i == quitter {
				ctx = quit
			}
			got, err := s.Acquire(ctx, "n")
			if i == quitter {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("a wait whose context ends: %v", err)
				}
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			served <- i
			give(t, got)
		})
		inQueue(t, env.Client, prefix, "semwait", "n", int64(i+1))
	}
	giveUp()
	inQueue(t, env.Client, prefix, "semwait", "n", waiters-1)
	tryPermit(t, s.TryAcquire, false)
	give(t, held[0]) // one permit goes round: two would be served in order, and heard of in any
	for _, want := range []int{0, 1, 3, 4, 5} {
		if got := <-served; got != want {
			t.Fatalf("waiter %d was served, not %d", got, want)
		}
	}
	all.Wait()
	give(t, held[1])
	nothingLeft(t, env.Client, prefix, "sem", "semwait", "semplace")
}

// permitCrowd lets many contend while some give up in the middle.
func permitCrowd(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	const limit, callers, rounds = 3, 12, 20
	var mu sync.Mutex
	inside, most, served := 0, 0, 0
	var all sync.WaitGroup
	for caller := range callers {
		s := newSemaphore(t, env, lock.SemaphoreConfig{Limit: limit, Prefix: prefix, TTL: time.Hour})
		all.Go(func() {
			for round := range rounds {
				patience, hasty := 60*time.Second, (caller+round)%4 == 0
				if hasty {
					patience = time.Duration(round%5) * time.Millisecond
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				p, err := s.Acquire(ctx, "n")
				cancel()
				if err != nil {
					if !hasty {
						t.Errorf("Acquire: %v", err)
					}
					continue
				}
				mu.Lock()
				served++
				inside++
				most = max(most, inside)
				mu.Unlock()
				if err := p.Extend(t.Context(), 0); err != nil {
					t.Errorf("Extend: %v", err)
				}
				mu.Lock()
				inside--
				mu.Unlock()
				give(t, p)
			}
		})
	}
	all.Wait()
	if most > limit || served < callers*rounds*3/4 {
		t.Errorf("%d at once, %d served", most, served)
	}
	inQueue(t, env.Client, prefix, "semwait", "n", 0)
}

// permitModel drives a semaphore and a set with the same random schedule.
func permitModel(t *testing.T, env valkeytest.Env) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const limit = 3
	ctx, s := t.Context(), newSemaphore(t, env, lock.SemaphoreConfig{Limit: limit, TTL: time.Hour})
	var taken, living []*lock.Permit // every permit that was ever taken; the model
	for step := range 800 {
		op := random.IntN(5)
		if op < 2 || len(taken) == 0 {
			p, ok, err := s.TryAcquire(ctx, "n")
			if err != nil || ok != (len(living) < limit) {
				t.Fatalf("step %d: TryAcquire = %v, %v; model: %d held", step, ok, err, len(living))
			}
			if ok {
				taken, living = append(taken, p), append(living, p)
			}
			continue
		}
		p := taken[max(0, len(taken)-1-random.IntN(6))]
		at := slices.Index(living, p)
		var err error
		switch op {
		case 2:
			err = p.Extend(ctx, time.Hour)
		case 3:
			err = p.Release(ctx)
		case 4: // let it end: see model
			err = p.Extend(ctx, time.Millisecond)
			if end := new(lock.EndedError); at >= 0 && errors.As(err, &end) && end.Reason == lock.Expired {
				err = nil
			}
			if err == nil {
				env.Advance(2 * time.Millisecond)
			}
		}
		if (at >= 0) != (err == nil) || at < 0 && !errors.Is(err, lock.ErrNotHeld) {
			t.Fatalf("step %d: op %d: %v; model: held %v", step, op, err, at >= 0)
		}
		if op != 2 && at >= 0 {
			living = slices.Delete(living, at, at+1)
		}
	}
}

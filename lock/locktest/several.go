package locktest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
)

// several takes locks in opposite orders, which must not block each other, and rolls back.
func several(t *testing.T, env valkeytest.Env) {
	l := newLocker(t, env, lock.Config{TTL: time.Hour})
	var inside atomic.Int32
	var all sync.WaitGroup
	for i := range 6 {
		names := []string{"a", "b", "c", "a"}
		if i%2 == 0 {
			names = []string{"c", "b", "a"}
		}
		all.Go(func() {
			for range 5 {
				s, err := l.AcquireAll(t.Context(), names...)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 || len(s.Locks()) != 3 {
					t.Errorf("%d holders, %d locks", n, len(s.Locks()))
				}
				inside.Add(-1)
				if err := s.Release(t.Context()); err != nil {
					t.Error(err)
				}
				if !errors.Is(context.Cause(s.Context()), lock.ErrNotHeld) {
					t.Errorf("after the release: %v", context.Cause(s.Context()))
				}
			}
		})
	}
	all.Wait()

	held := try(t, l, "b", true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.AcquireAll(ctx, "c", "b", "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one of them is held: %v", err)
	}
	release(t, acquire(t, l, "a")) // was given back
	release(t, try(t, l, "c", true))
	release(t, held)
	if _, err := l.AcquireAll(t.Context()); err == nil {
		t.Error("no names")
	}
	s, err := l.AcquireAll(t.Context(), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	release(t, s.Locks()[0])
	<-s.Context().Done() // one of them is enough
	if err := s.Release(t.Context()); !errors.Is(err, lock.ErrNotHeld) {
		t.Errorf("release of what was partly lost: %v", err)
	}
	release(t, try(t, l, "b", true))
}

// lead lets candidates lead in turn; one loses its leadership and stands again.
func lead(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	l := newLocker(t, env, lock.Config{Prefix: prefix, TTL: 300 * time.Millisecond})
	own := prefix + ":lock:{" + Tag("n") + "}:own:n"
	var leaders, terms atomic.Int32
	var all sync.WaitGroup
	done := errors.New("done")
	for range 3 {
		all.Go(func() {
			err := l.Lead(t.Context(), "n", func(ctx context.Context) error {
				if n := leaders.Add(1); n != 1 {
					t.Errorf("%d leaders", n)
				}
				defer leaders.Add(-1)
				if terms.Add(1) == 1 {
					// The first term is taken away: another may lead before this one knows.
					leaders.Add(-1)
					defer leaders.Add(1)
					if err := env.Client.Do(ctx, env.Client.B().Del().Key(own).Build()).Error(); err != nil {
						t.Error(err)
					}
					<-ctx.Done()
					if cause := context.Cause(ctx); !errors.Is(cause, lock.ErrNotHeld) {
						t.Errorf("cause %v", cause)
					}
				}
				return done
			})
			if !errors.Is(err, done) {
				t.Errorf("Lead: %v", err)
			}
		})
	}
	all.Wait()
	if terms.Load() != 4 {
		t.Errorf("%d terms, want one for each candidate and one that was lost", terms.Load())
	}
	ended, end := context.WithCancel(t.Context())
	err := l.Lead(ended, "n", func(ctx context.Context) error { end(); <-ctx.Done(); return ctx.Err() })
	if !errors.Is(err, context.Canceled) || errors.Is(err, lock.ErrNotHeld) {
		t.Errorf("an ended context: %v", err)
	}
	release(t, acquire(t, l, "n"))
}

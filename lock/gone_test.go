package lock

import (
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

// TestOvertaken lets the call that gives back arrive before the one that takes: the lock stays free, and
// no place is left.
func TestOvertaken(t *testing.T) {
	valkeytest.Each(t, func(t *testing.T, env valkeytest.Env) {
		ctx, prefix := t.Context(), valkeytest.Prefix(t)
		l, err := New(env.Client, Config{Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSemaphore(env.Client, SemaphoreConfig{Limit: 1, Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		rw, err := NewRW(env.Client, Config{Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		for what, locker := range map[string]*Locker{"a lock": l, "a permit": s.locker, "a reader": rw.readers, "a writer": rw.writers} {
			a, err := locker.attempt("n")
			if err != nil {
				t.Fatal(err)
			}
			if held, err := a.lock.leave(ctx, goneMs); held || err != nil {
				t.Fatalf("%s: leave: %v, %v", what, held, err)
			}
			if lock, _, err := a.ask(ctx, placeMs, "channel"); lock != nil || err != nil {
				t.Errorf("%s: whose caller has gone was taken: %v, %v", what, lock, err)
			}
			next, ok, err := locker.TryAcquire(ctx, "n") // neither held nor waited for
			if !ok || err != nil {
				t.Fatalf("%s: %v, %v", what, ok, err)
			}
			if err := next.Release(ctx); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			ttl, err := env.Client.Do(ctx, env.Client.B().Pttl().Key(a.lock.keys[3]).Build()).AsInt64()
			if err != nil || ttl < 1 || ttl > (3*time.Second).Milliseconds() {
				t.Errorf("%s: the mark that it has gone lasts %d ms, %v", what, ttl, err)
			}
		}
	})
}

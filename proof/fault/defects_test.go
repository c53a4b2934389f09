package fault

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
)

// The defects that were reproduced in the anchors, each as a test that our lock does not have it. The
// third one, the client's clock, is TestClientClockDoesNotCount.

// TestCutOffHolderStops is the first: the answers of the server no longer reach a holder, whose renewals
// still arrive there. When another has the lock, the holder's context has ended.
func TestCutOffHolderStops(t *testing.T) {
	inGate(t)
	server := valkeytest.Start(t)
	p := newProxy(t, server.Socket)
	c, err := flatrate.Connect(t.Context(), "valkey://"+p.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cutOff, err := lock.New(c, lock.Config{TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	other, err := lock.New(server.Client(), lock.Config{TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for kind, way := range []string{"to the server", "to the client", "both ways"} {
		held, err := cutOff.Acquire(t.Context(), "one")
		if err != nil {
			t.Fatal(err)
		}
		p.drop(kind)
		next, err := other.Acquire(t.Context(), "one")
		if err != nil {
			t.Fatal(err)
		}
		if end := new(lock.EndedError); !errors.As(context.Cause(held.Context()), &end) || end.Reason != lock.Expired {
			t.Errorf("dropped %s: another has the lock, and the context's cause is %v", way, context.Cause(held.Context()))
		}
		p.heal()
		if err := held.Release(t.Context()); !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("dropped %s: release by the former holder: %v", way, err)
		}
		if err := next.Release(t.Context()); err != nil {
			t.Errorf("dropped %s: the next holder was harmed: %v", way, err)
		}
	}
}

// TestLateAnswerIsNoLock gives a lock to a caller whom the answer reaches after the lock has ended, when
// another has it: the caller must not be told that it holds it.
func TestLateAnswerIsNoLock(t *testing.T) {
	inGate(t)
	server := valkeytest.Start(t)
	p := newProxy(t, server.Socket)
	c, err := flatrate.Connect(t.Context(), "valkey://"+p.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	const ttl = 100 * time.Millisecond
	cutOff, err := lock.New(c, lock.Config{TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	other, err := lock.New(server.Client(), lock.Config{TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for range scale(10, 100) {
		held, err := cutOff.Acquire(t.Context(), "one") // loads the script
		if err != nil {
			t.Fatal(err)
		}
		if err := held.Release(t.Context()); err != nil && !errors.Is(err, lock.ErrNotHeld) {
			t.Fatal(err)
		}
		p.drop(1)
		late := make(chan *lock.Lock, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 3*ttl)
		go func() {
			held, err := cutOff.Acquire(ctx, "one")
			if err != nil || held.Context().Err() != nil {
				held = nil
			}
			late <- held
		}()
		for n := int64(0); n == 0; { // until the server has given it the lock
			if n, err = server.Client().Do(t.Context(), server.Client().B().Exists().Key("fr:lock:{474}:own:one").Build()).AsInt64(); err != nil {
				t.Fatal(err)
			}
		}
		next, err := other.Acquire(t.Context(), "one")
		if err != nil {
			t.Fatal(err)
		}
		p.heal()
		if held := <-late; held != nil {
			t.Errorf("a lock that another has: its context was live, and now %v", context.Cause(held.Context()))
		}
		cancel()
		if err := next.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLostWakeUp is the second: the lock is free, and nobody tells those who wait. One half of the time
// their subscriptions are cut, in the other the lock vanishes without a release.
func TestLostWakeUp(t *testing.T) {
	inGate(t)
	server := valkeytest.Start(t)
	admin := server.Client()
	l, err := lock.New(valkeytest.NewClient(t, server), lock.Config{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(scale(1, 10))*patience)
	defer cancel()
	for range scale(4, 100) {
		for what, free := range map[string]func(*lock.Lock) error{
			"released without subscribers": func(held *lock.Lock) error {
				kill := admin.Do(ctx, admin.B().Arbitrary("CLIENT", "KILL", "TYPE", "pubsub").Build()).Error()
				return errors.Join(kill, held.Release(ctx))
			},
			"deleted": func(*lock.Lock) error {
				return admin.Do(ctx, admin.B().Del().Key("fr:lock:{474}:own:one").Build()).Error()
			},
		} {
			held, err := l.Acquire(ctx, "one")
			if err != nil {
				t.Fatal(err)
			}
			waiting := make(chan error, 1)
			go func() {
				next, err := l.Acquire(ctx, "one")
				if err == nil {
					err = next.Release(ctx)
				}
				waiting <- err
			}()
			for n := int64(0); n == 0; { // until somebody waits
				if n, err = admin.Do(ctx, admin.B().Llen().Key("fr:lock:{474}:wait:one").Build()).AsInt64(); err != nil {
					t.Fatal(err)
				}
			}
			if err := free(held); err != nil {
				t.Fatal(err)
			}
			if err := <-waiting; err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
}

// TestExtendingMakesNoLock is the fourth: the lock was lost, another holder has come and gone, and the
// first one extends.
func TestExtendingMakesNoLock(t *testing.T) {
	server := valkeytest.Start(t)
	admin := server.Client()
	l, err := lock.New(admin, lock.Config{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	held, err := l.Acquire(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.Do(t.Context(), admin.B().Del().Key("fr:lock:{474}:own:one").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	between, ok, err := l.TryAcquire(t.Context(), "one")
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := between.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := held.Extend(t.Context(), 0); !errors.Is(err, lock.ErrNotHeld) {
		t.Errorf("extended a lock that was lost: %v", err)
	}
	if n, err := admin.Do(t.Context(), admin.B().Exists().Key("fr:lock:{474}:own:one").Build()).AsInt64(); n != 0 || err != nil {
		t.Errorf("extending made the lock anew: %d, %v", n, err)
	}
	if held.Context().Err() == nil {
		t.Error("the context of a lock that was lost is live")
	}
}

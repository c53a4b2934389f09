package lock

import (
	"context"
	"testing"
	"time"

	"github.com/flatrate/flatrate/internal/wake"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
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

// lateReply is a client whose answers to some callers are held back.
type lateReply struct {
	valkey.Client
	held, pass chan struct{}
}

type late struct{}

func (c *lateReply) Do(ctx context.Context, cmd valkey.Completed) valkey.ValkeyResult {
	result := c.Client.Do(ctx, cmd)
	if ctx.Value(late{}) != nil {
		c.held <- struct{}{}
		<-c.pass
	}
	return result
}

// TestGrantHeardTwice lets a waiter ask, and get what a release has granted it, before the answer of that
// release arrives: what the waiter has then is its own.
func TestGrantHeardTwice(t *testing.T) {
	s := valkeytest.Start(t)
	ctx := t.Context()
	client := &lateReply{s.Client(), make(chan struct{}), make(chan struct{})}
	l, err := New(client, Config{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	warm, err := l.Acquire(ctx, "warm")
	if err != nil {
		t.Fatal(err)
	}
	if err := warm.Release(ctx); err != nil { // the script is loaded: from now on it is one call
		t.Fatal(err)
	}
	held, err := l.Acquire(ctx, "n")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *Lock)
	go func() {
		next, err := l.Acquire(ctx, "n")
		if err != nil {
			t.Error(err)
		}
		got <- next
	}()
	for n := int64(0); n == 0; {
		if n, err = client.Client.Do(ctx, client.B().Llen().Key(held.keys[1]).Build()).AsInt64(); err != nil {
			t.Fatal(err)
		}
	}
	released := make(chan error)
	go func() { released <- held.Release(context.WithValue(ctx, late{}, true)) }()
	<-client.held
	wake.All(client, "fr")
	next := <-got
	close(client.pass)
	if err := <-released; err != nil {
		t.Error(err)
	}
	<-time.After(50 * time.Millisecond) // a give-back, if there were one, would be in the background
	if err := next.Extend(ctx, 0); err != nil {
		t.Errorf("the waiter's lock was given back by who released it: %v", err)
	}
	if err := next.Release(ctx); err != nil {
		t.Error(err)
	}
}

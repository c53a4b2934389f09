package lock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

func servers(t *testing.T, n int) (all []*valkeytest.Server, clients []valkey.Client) {
	t.Helper()
	for range n {
		s := valkeytest.Start(t)
		all, clients = append(all, s), append(clients, s.Client())
	}
	return all, clients
}

func newRedlock(t *testing.T, clients []valkey.Client, cfg lock.RedlockConfig) *lock.Redlock {
	t.Helper()
	r, err := lock.NewRedlock(clients, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryRedlock(t *testing.T, r *lock.Redlock, name string, want bool) *lock.QuorumLock {
	t.Helper()
	held, ok, err := r.TryAcquire(t.Context(), name)
	if err != nil || ok != want || (held != nil) != want {
		t.Fatalf("TryAcquire(%q) = %v, %v, %v; want %v", name, held, ok, err, want)
	}
	return held
}

// do sends a command to a server.
func do(t *testing.T, c valkey.Client, cmd ...string) valkey.ValkeyResult {
	t.Helper()
	r := c.Do(t.Context(), c.B().Arbitrary(cmd...).Build())
	if err := r.Error(); err != nil && !valkey.IsValkeyNil(err) {
		t.Fatalf("%v: %v", cmd, err)
	}
	return r
}

// waitKeys waits until a server has so many keys.
func waitKeys(t *testing.T, c valkey.Client, want int64) {
	t.Helper()
	for {
		if n, err := do(t, c, "DBSIZE").AsInt64(); err != nil || n == want {
			return
		}
	}
}

// key is that of the name "abc" (see TestKeyTable).
const key = "fr:lock:{745}:red:abc"

func TestNewRedlockNamesTheField(t *testing.T) {
	_, clients := servers(t, 3)
	for _, test := range []struct {
		cfg  lock.RedlockConfig
		want string
	}{
		{lock.RedlockConfig{TTL: -1}, "RedlockConfig.TTL"},
		{lock.RedlockConfig{TTL: 9 * time.Millisecond}, "RedlockConfig.TTL"},
		{lock.RedlockConfig{Retry: 1<<63 - 1}, "RedlockConfig.Retry"},
		{lock.RedlockConfig{TTL: 2 * 365 * 24 * time.Hour}, "RedlockConfig.TTL"},
		{lock.RedlockConfig{MaxHold: -1}, "RedlockConfig.MaxHold"},
		{lock.RedlockConfig{NodeTimeout: -1}, "RedlockConfig.NodeTimeout"},
		{lock.RedlockConfig{TTL: time.Second, NodeTimeout: time.Second}, "RedlockConfig.NodeTimeout"},
		{lock.RedlockConfig{Retry: -1}, "RedlockConfig.Retry"},
		{lock.RedlockConfig{Prefix: "a{b"}, "RedlockConfig.Prefix"},
	} {
		if _, err := lock.NewRedlock(clients, test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %s", test.cfg, err, test.want)
		}
	}
	a, b := clients[0], clients[1]
	for want, bad := range map[string][]valkey.Client{
		"clients: 0":                  nil,
		"clients: 2":                  {a, b},
		"clients[1] is nil":           {a, nil, b},
		"clients[2] is clients[0] ag": {a, b, a},
	} {
		if _, err := lock.NewRedlock(bad, lock.RedlockConfig{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %s", err, want)
		}
	}
	r := newRedlock(t, clients[:1], lock.RedlockConfig{})
	if _, ok, err := r.TryAcquire(t.Context(), ""); ok || err == nil {
		t.Errorf("TryAcquire of no name: %v, %v", ok, err)
	}
	if _, err := r.Acquire(t.Context(), ""); err == nil {
		t.Error("Acquire of no name")
	}
}

func TestRedlockOwner(t *testing.T) {
	_, clients := servers(t, 3)
	ctx, r := t.Context(), newRedlock(t, clients, lock.RedlockConfig{TTL: time.Hour})
	first := tryRedlock(t, r, "abc", true)
	tryRedlock(t, r, "abc", false)
	if v := first.Validity(); v <= 0 || v > time.Hour-36*time.Second {
		t.Errorf("validity %v of an hour less 1%%", v)
	}
	if err := first.Extend(ctx, 2*time.Hour); err != nil || first.Validity() <= time.Hour {
		t.Errorf("extend: %v, validity %v", err, first.Validity())
	}
	if err := first.Extend(ctx, time.Millisecond); err == nil || errors.Is(err, lock.ErrNotHeld) {
		t.Errorf("a ttl of 1ms: %v", err)
	}
	for _, c := range clients {
		if ms, err := do(t, c, "PTTL", key).AsInt64(); err != nil || ms > 2*3600_000 {
			t.Errorf("PTTL %d, %v", ms, err)
		}
	}
	if err := first.Release(ctx); err != nil || first.Validity() != 0 {
		t.Fatalf("release: %v, validity %v", err, first.Validity())
	}
	wantReason(t, context.Cause(first.Context()), lock.Released)
	for _, c := range clients {
		waitKeys(t, c, 0)
	}
	second := tryRedlock(t, r, "abc", true)
	wantReason(t, first.Extend(ctx, 0), lock.Released)
	wantReason(t, first.Release(ctx), lock.Released)
	if err := second.Release(ctx); err != nil {
		t.Errorf("the second owner was harmed: %v", err)
	}
}

func wantReason(t *testing.T, err error, want lock.Reason) {
	t.Helper()
	if end := new(lock.EndedError); !errors.As(err, &end) || end.Reason != want {
		t.Errorf("%v, want the reason %q", err, want)
	}
}

// TestRedlockMutualExclusion lets callers count under one lock, while a minority of the servers goes.
func TestRedlockMutualExclusion(t *testing.T) {
	for _, n := range []int{3, 5} {
		for how, lose := range map[string]func(*valkeytest.Server){
			"killed": (*valkeytest.Server).Kill, "paused": (*valkeytest.Server).Pause,
		} {
			t.Run(fmt.Sprint(n, how), func(t *testing.T) {
				t.Parallel()
				all, clients := servers(t, n)
				const workers, rounds = 4, 10
				var inside, total atomic.Int32
				var wait sync.WaitGroup
				for range workers {
					r := newRedlock(t, clients, lock.RedlockConfig{Retry: 4 * time.Millisecond})
					wait.Go(func() {
						for range rounds {
							err := r.Do(t.Context(), "n", func(context.Context) error {
								if n := inside.Add(1); n != 1 {
									t.Errorf("%d holders", n)
								}
								if total.Add(1) == workers*rounds/4 {
									for _, s := range all[:n/2] {
										lose(s)
									}
								}
								inside.Add(-1)
								return nil
							})
							if err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
				wait.Wait()
				if total.Load() != workers*rounds {
					t.Errorf("%d rounds, want %d", total.Load(), workers*rounds)
				}
			})
		}
	}
}

// TestRedlockBlackHole pauses a minority: no call waits for it, although each might for half an hour.
func TestRedlockBlackHole(t *testing.T) {
	for _, n := range []int{3, 5} {
		all, clients := servers(t, n)
		r := newRedlock(t, clients, lock.RedlockConfig{TTL: time.Hour, NodeTimeout: 30 * time.Minute})
		for _, s := range all[:n/2] {
			s.Pause()
		}
		held := tryRedlock(t, r, "abc", true)
		tryRedlock(t, r, "abc", false)
		if err := held.Extend(t.Context(), 0); err != nil {
			t.Error(err)
		}
		if err := held.Release(t.Context()); err != nil {
			t.Error(err)
		}
		for _, s := range all[:n/2] {
			s.Resume()
		}
	}
}

// TestRedlockNoQuorum leaves one free server of three: the lock is not acquired, and given back there.
func TestRedlockNoQuorum(t *testing.T) {
	_, clients := servers(t, 3)
	r := newRedlock(t, clients, lock.RedlockConfig{TTL: time.Hour})
	for _, c := range clients[:2] {
		do(t, c, "SET", key, "somebody")
	}
	tryRedlock(t, r, "abc", false)
	waitKeys(t, clients[2], 0)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.Acquire(ctx, "abc"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("acquire: %v", err)
	}
	waitKeys(t, clients[2], 0)
	for _, c := range clients[:2] {
		if v, err := do(t, c, "GET", key).ToString(); err != nil || v != "somebody" {
			t.Errorf("the other owner was harmed: %q, %v", v, err)
		}
	}
}

// TestRedlockMajorityDown kills two of three under a holder.
func TestRedlockMajorityDown(t *testing.T) {
	all, clients := servers(t, 3)
	r := newRedlock(t, clients, lock.RedlockConfig{TTL: 500 * time.Millisecond})
	held := tryRedlock(t, r, "abc", true)
	for _, s := range all[:2] {
		s.Kill()
	}
	if _, ok, err := r.TryAcquire(t.Context(), "other"); ok || err == nil {
		t.Errorf("TryAcquire without a majority: %v, %v", ok, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.Acquire(ctx, "other"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Acquire without a majority: %v", err)
	}
	<-held.Context().Done()
	wantReason(t, context.Cause(held.Context()), lock.Expired)
	waitKeys(t, clients[2], 0)
}

// TestRedlockLostAnswer pauses two of three: they take the lock when nobody wants it any more.
func TestRedlockLostAnswer(t *testing.T) {
	all, clients := servers(t, 3)
	r := newRedlock(t, clients, lock.RedlockConfig{TTL: time.Hour})
	for _, s := range all[:2] {
		s.Pause()
	}
	if _, ok, err := r.TryAcquire(t.Context(), "abc"); ok || err == nil {
		t.Fatalf("on paused servers: %v, %v", ok, err)
	}
	for _, s := range all[:2] {
		s.Resume()
	}
	for _, c := range clients {
		waitKeys(t, c, 0)
	}
	if _, err := r.Acquire(t.Context(), "abc"); err != nil { // within the test's time, not within an hour
		t.Fatal(err)
	}
}

// TestRedlockLost takes the keys away from a holder: on one server it goes on, on two it has lost.
func TestRedlockLost(t *testing.T) {
	for reason, harm := range map[lock.Reason][]string{
		lock.Lost: {"DEL", key}, lock.Taken: {"SET", key, "somebody"},
	} {
		_, clients := servers(t, 3)
		lost := make(chan error, 1)
		r := newRedlock(t, clients, lock.RedlockConfig{TTL: time.Hour, Hooks: lock.Hooks{
			Lost: func(_ string, cause error) { lost <- cause },
		}})
		held := tryRedlock(t, r, "abc", true)
		// The third answer may be later than the lock: extending waits its turn behind it.
		if err := held.Extend(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		waitKeys(t, clients[0], 1)
		do(t, clients[0], harm...)
		if err := held.Extend(t.Context(), 0); err != nil {
			t.Errorf("lost on one of three: %v", err)
		}
		waitKeys(t, clients[1], 1)
		do(t, clients[1], harm...)
		wantReason(t, held.Extend(t.Context(), 0), reason)
		wantReason(t, context.Cause(held.Context()), reason)
		wantReason(t, <-lost, reason)
		if v, _ := do(t, clients[0], "GET", key).ToString(); v != strings.Join(harm[2:], "") {
			t.Errorf("extending took it anew: %q", v)
		}
		wantReason(t, held.Release(t.Context()), reason)
	}
}

// TestRedlockRenews keeps a lock over several times to live with one of three servers gone.
func TestRedlockRenews(t *testing.T) {
	all, clients := servers(t, 3)
	renewed := make(chan string)
	r := newRedlock(t, clients, lock.RedlockConfig{TTL: time.Second, NodeTimeout: 300 * time.Millisecond, Hooks: lock.Hooks{
		Renewed: func(name string) { renewed <- name },
	}})
	all[0].Pause()
	err := r.Do(t.Context(), "abc", func(ctx context.Context) error {
		for range 4 {
			select {
			case <-renewed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	waitKeys(t, clients[1], 0)
	waitKeys(t, clients[2], 0)
}

package lock_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/lock/locktest"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestConformance(t *testing.T) { valkeytest.Each(t, locktest.Run) }

func TestNewNamesTheField(t *testing.T) {
	c := valkeytest.Start(t).Client()
	for _, test := range []struct {
		cfg  lock.Config
		want string
	}{
		{lock.Config{TTL: -1}, "Config.TTL"},
		{lock.Config{TTL: time.Microsecond}, "Config.TTL"},
		{lock.Config{TTL: 2 * 365 * 24 * time.Hour}, "Config.TTL"},
		{lock.Config{MaxHold: -1}, "Config.MaxHold"},
		{lock.Config{Replicas: -1}, "Config.Replicas"},
		{lock.Config{ReplicaTimeout: -1}, "Config.ReplicaTimeout"},
		{lock.Config{Prefix: "a{b"}, "Config.Prefix"},
	} {
		if _, err := lock.New(c, test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %s", test.cfg, err, test.want)
		}
	}
	if _, err := lock.New(nil, lock.Config{}); err == nil {
		t.Error("a nil client was accepted")
	}
}

// TestMutualExclusion lets many goroutines of many lockers count under one lock.
func TestMutualExclusion(t *testing.T) {
	c := valkeytest.Start(t).Client()
	const workers, rounds = 16, 20
	var inside, total atomic.Int32
	var all sync.WaitGroup
	for range workers {
		l, err := lock.New(c, lock.Config{})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for range rounds {
				held, err := l.Acquire(t.Context(), "n")
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d holders", n)
				}
				total.Add(1)
				inside.Add(-1)
				if err := held.Release(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if total.Load() != workers*rounds {
		t.Errorf("%d rounds, want %d", total.Load(), workers*rounds)
	}
}

// TestLostAnswerLeaksNoLock pauses the server under a TryAcquire: the command is on its way and will
// take the lock, the caller has gone.
func TestLostAnswerLeaksNoLock(t *testing.T) {
	s := valkeytest.Start(t)
	l, err := lock.New(s.Client(), lock.Config{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	// Load the script that releases: a paused server could not.
	held, err := l.Acquire(t.Context(), "n")
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, ok, err := l.TryAcquire(ctx, "n"); ok || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("on a paused server: %v, %v", ok, err)
	}
	s.Resume()
	if _, err := l.Acquire(t.Context(), "n"); err != nil { // within the test's time, not within an hour
		t.Fatal(err)
	}
}

// TestFullServerStillReleases fills the server: nothing can be taken, everything can be given back.
func TestFullServerStillReleases(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--maxmemory-policy", "noeviction"}})
	c := s.Client()
	l, err := lock.New(c, lock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	held, err := l.Acquire(t.Context(), "n")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Do(t.Context(), c.B().ConfigSet().ParameterValue().ParameterValue("maxmemory", "1").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.TryAcquire(t.Context(), "m"); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("a full server took a lock: %v", err)
	}
	if err := held.Extend(t.Context(), 0); err != nil {
		t.Errorf("extend: %v", err)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Errorf("release: %v", err)
	}
}

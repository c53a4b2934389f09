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
		{lock.Config{TTL: 9 * time.Millisecond}, "Config.TTL"},
		{lock.Config{TTL: time.Second + time.Microsecond}, "Config.TTL"},
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

// TestDeadWaiters kills the clients of waiters: those behind them are served all the same.
func TestDeadWaiters(t *testing.T) {
	s := valkeytest.Start(t)
	c := s.Client()
	alive, err := lock.New(c, lock.Config{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	held, err := alive.Acquire(t.Context(), "n")
	if err != nil {
		t.Fatal(err)
	}
	wait, place := "fr:lock:{"+locktest.Tag("n")+"}:wait:n", "fr:lock:{"+locktest.Tag("n")+"}:place:n"
	// What waiters leave that died: one whose place has run out, one that lost it, one that lives on for
	// the server but will never claim.
	now := time.Now().UnixMilli()
	for _, cmd := range [][]string{
		{"RPUSH", wait, "late", "lost", "silent"},
		{"HSET", place, "late", fmt.Sprint(now-1, " fr:wake:none"), "silent", fmt.Sprint(now+3_600_000, " fr:wake:none")},
	} {
		if err := c.Do(t.Context(), c.B().Arbitrary(cmd...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan error, 1)
	go func() {
		next, err := alive.Acquire(t.Context(), "n")
		if err == nil {
			err = next.Release(context.Background())
		}
		got <- err
	}()
	locktest.InQueue(t, c, "fr", "n", 4)
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(keys) != 1 || !strings.HasSuffix(keys[0], ":fence") {
		t.Errorf("left behind: %q, %v", keys, err)
	}
}

// TestCutOffHolderStopsFirst pauses the server under a holder: its context ends, and only later does the
// server give the lock to another.
func TestCutOffHolderStopsFirst(t *testing.T) {
	s := valkeytest.Start(t)
	first, err := lock.New(s.Client(), lock.Config{TTL: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	second, err := lock.New(valkeytest.NewClient(t, s), lock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		held, err := first.Acquire(t.Context(), "n")
		if err != nil {
			t.Fatal(err)
		}
		var other *lock.Lock
		next := make(chan error, 1)
		go func() {
			var err error
			other, err = second.Acquire(t.Context(), "n")
			next <- err
		}()
		locktest.InQueue(t, s.Client(), "fr", "n", 1)
		s.Pause()
		<-held.Context().Done()
		select {
		case <-next:
			t.Fatal("another has the lock, and its holder does not know")
		default:
		}
		s.Resume()
		if err := <-next; err != nil {
			t.Fatal(err)
		}
		if other.Fence() <= held.Fence() {
			t.Errorf("fence %d after %d", other.Fence(), held.Fence())
		}
		if err := other.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReplicas counts an acquisition only once the replicas have it.
func TestReplicas(t *testing.T) {
	primary := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	cfg := lock.Config{TTL: time.Hour, Replicas: 1, ReplicaTimeout: 20 * time.Millisecond}
	alone, err := lock.New(primary.Client(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := alone.TryAcquire(t.Context(), "n"); ok || err == nil || !strings.Contains(err.Error(), "0 of 1 replicas") {
		t.Fatalf("without a replica: %v, %v", ok, err)
	}
	host, port, _ := strings.Cut(primary.Addr, ":")
	replica := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--replicaof", host + " " + port}})
	cfg.ReplicaTimeout = 20 * time.Second
	both, err := lock.New(primary.Client(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	held, err := both.Acquire(t.Context(), "n") // what was not replicated was given back
	if err != nil {
		t.Fatal(err)
	}
	own := "fr:lock:{" + locktest.Tag("n") + "}:own:n"
	c := replica.Client()
	if n, err := c.Do(t.Context(), c.B().Exists().Key(own).Build()).AsInt64(); err != nil || n != 1 {
		t.Errorf("the replica has it: %d, %v", n, err)
	}
	if _, ok, err := both.TryAcquire(t.Context(), "n"); ok || err != nil {
		t.Errorf("held: %v, %v", ok, err)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestForeignQueue puts other types where the queue belongs: an error, nothing is touched.
func TestForeignQueue(t *testing.T) {
	c := valkeytest.Start(t).Client()
	l, err := lock.New(c, lock.Config{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"wait", "place"} {
		held, err := l.Acquire(t.Context(), part)
		if err != nil {
			t.Fatal(err)
		}
		key := "fr:lock:{" + locktest.Tag(part) + "}:" + part + ":" + part
		if err := c.Do(t.Context(), c.B().Set().Key(key).Value("x").Build()).Error(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Acquire(t.Context(), part); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
			t.Errorf("%s: %v", part, err)
		}
		if v, err := c.Do(t.Context(), c.B().Get().Key(key).Build()).ToString(); err != nil || v != "x" {
			t.Errorf("%s was touched: %q, %v", part, v, err)
		}
		if _, ok, err := l.TryAcquire(t.Context(), part); ok || err != nil {
			t.Errorf("%s: the holder was harmed: %v, %v", part, ok, err)
		}
		_ = held
	}
}

// TestHandOverInOneProcess counts what a release that has a waiter in its own process sends: nothing but
// itself. The waiter's lock is as good as any: renewed, fenced, and its own to release.
func TestHandOverInOneProcess(t *testing.T) {
	s := valkeytest.Start(t)
	c, ctx := s.Client(), t.Context()
	l, err := lock.New(c, lock.Config{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	held, err := l.Acquire(ctx, "n")
	if err != nil {
		t.Fatal(err)
	}
	other := valkeytest.NewClient(t, s) // counts what is sent by c
	// A waiter may ask once more at any time, as when its subscription stands: once is enough.
	for try := 1; ; try++ {
		got := make(chan *lock.Lock, 1)
		go func() {
			next, err := l.Acquire(ctx, "n")
			if err != nil {
				t.Error(err)
			}
			got <- next
		}()
		locktest.InQueue(t, c, "fr", "n", 1)
		if err := other.Do(ctx, other.B().ConfigResetstat().Build()).Error(); err != nil {
			t.Fatal(err)
		}
		if err := held.Release(ctx); err != nil {
			t.Fatal(err)
		}
		next := <-got
		if next == nil {
			t.Fatal("not handed over")
		}
		stats, err := other.Do(ctx, other.B().Info().Section("commandstats").Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		if next.Fence() <= held.Fence() {
			t.Errorf("fence %d after %d", next.Fence(), held.Fence())
		}
		if _, ok, err := l.TryAcquire(ctx, "n"); ok || err != nil {
			t.Errorf("it is not held: %v, %v", ok, err)
		}
		if err := next.Extend(ctx, 0); err != nil {
			t.Error(err)
		}
		held = next
		if strings.Contains(stats, "cmdstat_evalsha:calls=1,") && !strings.Contains(stats, "cmdstat_publish") {
			break
		}
		if try == 50 {
			t.Fatalf("more than one call in each of %d:\n%s", try, stats)
		}
	}
	if err := held.Release(ctx); err != nil {
		t.Error(err)
	}
}

// TestRefused holds what a server that may not write answers.
func TestRefused(t *testing.T) {
	for want, refuse := range map[string][2]string{"NOREPLICAS": {"min-replicas-to-write", "1"}, "READONLY": {"replicaof", "127.0.0.1 1"}} {
		s := valkeytest.Start(t)
		c, ctx := s.Client(), t.Context()
		l, err := lock.New(c, lock.Config{TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		held, err := l.Acquire(ctx, "n")
		if err != nil {
			t.Fatal(err)
		}
		other := valkeytest.NewClient(t, s)
		command := []string{"CONFIG", "SET", refuse[0], refuse[1]}
		if want == "READONLY" {
			command = append([]string{"REPLICAOF"}, strings.Fields(refuse[1])...)
		}
		if err := other.Do(ctx, other.B().Arbitrary(command...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		_, ok, err := l.TryAcquire(ctx, "other")
		for what, err := range map[string]error{"acquire": err, "extend": held.Extend(ctx, 0), "release": held.Release(ctx)} {
			if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, lock.ErrNotHeld) {
				t.Errorf("%s: %v, want %s", what, err, want)
			}
		}
		if ok {
			t.Errorf("%s: taken", want)
		}
	}
}

// TestLateAnswer stops the server between an acquisition and its answer: what has ended by then is never
// handed out. TryAcquire says so, Acquire asks again.
func TestLateAnswer(t *testing.T) {
	const ttl = 50 * time.Millisecond
	s := valkeytest.Start(t)
	ctx := t.Context()
	acquired := 0
	l, err := lock.New(s.Client(), lock.Config{TTL: ttl, Hooks: lock.Hooks{Acquired: func(string, time.Duration) { acquired++ }}})
	if err != nil {
		t.Fatal(err)
	}
	warm, err := l.Acquire(ctx, "warm")
	if err != nil {
		t.Fatal(err)
	}
	if err := warm.Release(ctx); err != nil && !errors.Is(err, lock.ErrNotHeld) {
		t.Fatal(err)
	}
	acquired = 0
	s.Pause()
	time.AfterFunc(2*ttl, s.Resume)
	if _, ok, err := l.TryAcquire(ctx, "n"); ok || !errors.Is(err, lock.ErrNotHeld) {
		t.Errorf("TryAcquire: %v, %v", ok, err)
	}
	if acquired != 0 {
		t.Error("Hooks.Acquired heard of a lock that nobody got")
	}
	s.Pause()
	time.AfterFunc(2*ttl, s.Resume)
	held, err := l.Acquire(ctx, "m")
	if err != nil {
		t.Fatal(err)
	}
	if acquired != 1 {
		t.Errorf("%d were acquired", acquired)
	}
	_ = held.Release(ctx) // on a busy machine it may have ended
}

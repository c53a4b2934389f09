package lock_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/lock/locktest"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func run(t *testing.T, c valkey.Client, args ...string) valkey.ValkeyResult {
	t.Helper()
	return c.Do(context.Background(), c.B().Arbitrary(args...).Build())
}

// TestLeadPanics holds that a leader whose f panics or ends its goroutine is followed by another.
func TestLeadPanics(t *testing.T) {
	s := valkeytest.Start(t)
	l := must(lock.New(s.Client(), lock.Config{TTL: 300 * time.Millisecond}))
	for name, f := range map[string]func(context.Context) error{
		"panic":  func(context.Context) error { panic("f") },
		"goexit": func(context.Context) error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { _ = recover() }()
				_ = l.Lead(context.Background(), name, f)
			}()
			<-done
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second) // seven times the TTL
			defer cancel()
			if _, err := l.Acquire(ctx, name); err != nil {
				t.Fatalf("the leader is gone, and nobody else is elected: %v", err)
			}
		})
	}
}

// TestExtendToLessWithoutAnswer extends to less than is left, without an answer: the server may have heard of it, so the lock
// ends as if it had.
func TestExtendToLessWithoutAnswer(t *testing.T) {
	s := valkeytest.Start(t)
	ctx := context.Background()
	mine := must(lock.New(s.Client(), lock.Config{TTL: 30 * time.Second}))
	others := must(lock.New(valkeytest.NewClient(t, s), lock.Config{TTL: 30 * time.Second}))
	k := must(mine.Acquire(ctx, "x"))
	if err := k.Extend(ctx, 20*time.Second); err != nil { // the script is loaded
		t.Fatal(err)
	}
	s.Pause()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	err := k.Extend(short, 200*time.Millisecond)
	cancel()
	s.Resume()
	if err == nil {
		t.Fatal("a paused server answered")
	}
	soon, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	other, err := others.Acquire(soon, "x")
	if err != nil {
		return // the call did not leave this process, or the library took care
	}
	if k.Context().Err() == nil && other.Context().Err() == nil {
		t.Fatal("two locks of one name are live: the one that was extended in vain, and its successor")
	}
}

// slow is a client whose calls wait for pass on their way to the server, if their context says so.
type slow struct {
	valkey.Client
	pass chan struct{}
}

type slowly struct{}

func (c *slow) Do(ctx context.Context, cmd valkey.Completed) valkey.ValkeyResult {
	if ctx.Value(slowly{}) != nil {
		<-c.pass
	}
	return c.Client.Do(ctx, cmd)
}

// TestExtendIsNotOvertaken lets a renewal come due while a shorter extension is under way.
func TestExtendIsNotOvertaken(t *testing.T) {
	s := valkeytest.Start(t)
	renewed := make(chan struct{}, 100)
	client := &slow{s.Client(), make(chan struct{})}
	mine := must(lock.New(client, lock.Config{TTL: 3 * time.Second, Hooks: lock.Hooks{Renewed: func(string) { renewed <- struct{}{} }}}))
	others := must(lock.New(valkeytest.NewClient(t, s), lock.Config{TTL: 30 * time.Second}))
	ctx := context.Background()
	k := must(mine.Acquire(ctx, "x"))
	extended := make(chan error, 1)
	go func() { extended <- k.Extend(context.WithValue(ctx, slowly{}, true), 50*time.Millisecond) }()
	select {
	case <-renewed: // the renewal has overtaken it
	case err := <-extended:
		t.Fatal(err)
	case <-time.After(10 * time.Second):
		// Where calls are made one at a time, the renewal waits for the Extend: nothing to see.
		close(client.pass)
		return
	}
	close(client.pass)
	if err := <-extended; err != nil {
		t.Log(err)
	}
	other := must(others.Acquire(ctx, "x"))
	if k.Context().Err() == nil && other.Context().Err() == nil {
		t.Fatal("two locks of one name are live: the one whose short extension was overtaken, and its successor")
	}
}

// TestManyWaitersEndTogether lets thousands of waiters give up at once, as at a shutdown: none keeps the lock from others.
func TestManyWaitersEndTogether(t *testing.T) {
	s := valkeytest.Start(t)
	l := must(lock.New(s.Client(), lock.Config{TTL: 20 * time.Second}))
	k := must(l.Acquire(context.Background(), "x"))
	ctx, cancel := context.WithCancel(context.Background())
	var waiting sync.WaitGroup
	const n = 4000
	for range n {
		waiting.Go(func() { _, _ = l.Acquire(ctx, "x") })
	}
	locktest.InQueue(t, s.Client(), "fr", "x", n)
	cancel()
	waiting.Wait()
	if err := k.Release(context.Background()); err != nil {
		t.Fatal(err)
	}
	soon, stop := context.WithTimeout(context.Background(), 8*time.Second) // places last for 3 s
	defer stop()
	if _, err := l.Acquire(soon, "x"); err != nil {
		own := "fr:lock:{" + locktest.Tag("x") + "}:own:x"
		left, _ := run(t, s.Client(), "PTTL", own).AsInt64()
		t.Fatalf("nobody holds or waits, and the lock can't be had: %v; it is kept for %d ms more", err, left)
	}
}

// TestLeadOutlivesAnOutage kills the server under a leader, who stands again when it is back.
func TestLeadOutlivesAnOutage(t *testing.T) {
	s := valkeytest.Start(t)
	l := must(lock.New(s.Client(), lock.Config{TTL: 500 * time.Millisecond}))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	terms := make(chan int)
	done := make(chan error, 1)
	go func() {
		n := 0
		done <- l.Lead(ctx, "x", func(ctx context.Context) error {
			n++
			if n == 2 {
				return nil
			}
			terms <- n
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-terms
	s.Kill()
	select {
	case err := <-done:
		t.Fatalf("Lead gave up, although ctx lives and f has not returned nil: %v", err)
	case <-time.After(2 * time.Second): // it stands by
	}
	s.Restart()
	if err := <-done; err != nil {
		t.Fatalf("Lead gave up, although ctx lives and f has not returned nil: %v", err)
	}
}

// TestForeignFence puts what is no counter in the counter's place: it is neither harmed nor counted on.
func TestForeignFence(t *testing.T) {
	s := valkeytest.Start(t)
	c := s.Client()
	l := must(lock.New(c, lock.Config{}))
	ctx := context.Background()
	counter := "fr:lock:{" + locktest.Tag("x") + "}:fence"
	t.Run("a hash", func(t *testing.T) {
		run(t, c, "HSET", counter, "field", "value")
		if k, err := l.Acquire(ctx, "x"); err == nil {
			_ = k.Release(ctx)
		}
		if kind, _ := run(t, c, "TYPE", counter).ToString(); kind != "hash" {
			t.Errorf("somebody's hash in the counter's place has become a %s", kind)
		}
	})
	t.Run("a large number", func(t *testing.T) {
		for _, last := range []string{"9007199254740992", "9223372036854775807"} {
			run(t, c, "SET", counter, last)
			var before uint64
			for range 3 {
				k, err := l.Acquire(ctx, "x")
				if err != nil {
					break // an error is right, too
				}
				if k.Fence() <= before {
					t.Errorf("after %s: fence %d, then %d", last, before, k.Fence())
				}
				before = k.Fence()
				_ = k.Release(ctx)
			}
		}
	})
}

// TestReleaseWithoutChannels runs as users whose access rules name their own keys and channels only.
func TestReleaseWithoutChannels(t *testing.T) {
	s := valkeytest.Start(t)
	ctx := context.Background()
	run(t, s.Client(), "ACL", "SETUSER", "app", "on", ">p", "~app:*", "&app:*", "+@all")
	client := func() valkey.Client {
		c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.Socket}, DialCtxFn: valkeytest.DialUnix, Username: "app", Password: "p"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	cfg := lock.Config{Prefix: "app", TTL: 10 * time.Second}
	a, b := must(lock.New(client(), cfg)), must(lock.New(client(), cfg))
	k := must(a.Acquire(ctx, "x"))
	got := make(chan error, 1)
	go func() { _, err := b.Acquire(ctx, "x"); got <- err }()
	locktest.InQueue(t, s.Client(), "app", "x", 1)
	err := k.Release(ctx)
	if next := <-got; err != nil && next == nil {
		t.Fatalf("the waiter has the lock, yet its release failed: %v", err)
	}
}

type tagged struct {
	valkey.Client
	tags []string // makes it a type that can't be compared
}

type wrapped struct{ valkey.Client }

// TestClientThatCannotBeCompared wraps a client in values that are no map keys.
func TestClientThatCannotBeCompared(t *testing.T) {
	s := valkeytest.Start(t)
	c := wrapped{tagged{s.Client(), []string{"a"}}}
	defer func() {
		if p := recover(); p != nil {
			t.Fatalf("panic: %v", p)
		}
	}()
	l := must(lock.New(c, lock.Config{}))
	k := must(l.Acquire(context.Background(), "x"))
	if err := k.Release(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestAcquireAllNoticesALoss loses the first lock while the second is waited for.
func TestAcquireAllNoticesALoss(t *testing.T) {
	s := valkeytest.Start(t)
	ctx := context.Background()
	holder := must(lock.New(valkeytest.NewClient(t, s), lock.Config{}))
	must(holder.Acquire(ctx, "b"))
	lost := make(chan struct{}, 2)
	l := must(lock.New(s.Client(), lock.Config{TTL: 300 * time.Millisecond, NoRenewal: true, Hooks: lock.Hooks{
		Lost: func(string, error) { lost <- struct{}{} },
	}}))
	cut, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := l.AcquireAll(cut, "a", "b")
	<-lost
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatal("it waited for the second lock for 5 s after the first was lost")
	}
}

// TestAcquireAllEndsWithItsContext holds many names on a server that answers nothing when the context ends.
func TestAcquireAllEndsWithItsContext(t *testing.T) {
	s := valkeytest.Start(t)
	ctx := context.Background()
	holder := must(lock.New(valkeytest.NewClient(t, s), lock.Config{}))
	must(holder.Acquire(ctx, "z"))
	l := must(lock.New(s.Client(), lock.Config{}))
	names := []string{"z"}
	for i := range 8 {
		names = append(names, fmt.Sprint("a", i))
	}
	cut, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _, _ = l.AcquireAll(cut, names...) }()
	locktest.InQueue(t, s.Client(), "fr", "z", 1)
	s.Pause()
	defer s.Resume()
	cancel()
	select {
	case <-done:
	case <-time.After(4 * time.Second):
		t.Fatal("AcquireAll goes on 4 s after its context has ended")
	}
}

// TestReplicasHeedTheContext uses up the client's connections, for which WAIT needs one.
func TestReplicasHeedTheContext(t *testing.T) {
	s := valkeytest.Start(t)
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.Socket}, DialCtxFn: valkeytest.DialUnix, BlockingPoolSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	l := must(lock.New(c, lock.Config{Replicas: 1, ReplicaTimeout: 50 * time.Millisecond}))
	conn, release := c.Dedicate()
	_ = conn.Do(context.Background(), conn.B().Ping().Build())
	t.Cleanup(release)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { _, _, err := l.TryAcquire(ctx, "x"); done <- err }()
	select {
	case err := <-done:
		t.Log(err)
	case <-time.After(5 * time.Second):
		t.Fatal("TryAcquire goes on 4.5 s after its context has ended")
	}
}

// TestAcquireWhileItsSlotMoves asks for a lock whose keys are on two nodes of a cluster for a while.
func TestAcquireWhileItsSlotMoves(t *testing.T) {
	nodes := valkeytest.Cluster(t, 3)
	c := nodes.Client()
	l := must(lock.New(c, lock.Config{TTL: 30 * time.Second}))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	k := must(l.Acquire(ctx, "x")) // the scripts are loaded, the counter is there
	if err := k.Release(ctx); err != nil {
		t.Fatal(err)
	}
	key := "{" + locktest.Tag("x") + "}"
	slot := fmt.Sprint(must(run(t, c, "CLUSTER", "KEYSLOT", key).ToInt64()))
	var ids []string
	var single []valkey.Client
	from := -1
	for i, s := range nodes.Servers {
		n := must(valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.Addr}, ForceSingleClient: true}))
		t.Cleanup(n.Close)
		single = append(single, n)
		ids = append(ids, must(run(t, n, "CLUSTER", "MYID").ToString()))
		if run(t, n, "EXISTS", key).Error() == nil {
			from = i
		}
	}
	to := (from + 1) % 3
	for _, err := range []error{
		run(t, single[to], "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[from]).Error(),
		run(t, single[from], "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to]).Error(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan error, 1)
	go func() { _, err := l.Acquire(ctx, "x"); got <- err }()
	select {
	case err := <-got:
		t.Fatalf("Acquire does not wait until the slot has moved: %v", err)
	case <-time.After(time.Second):
	}
	for i := range ids { // the move is called off
		_ = run(t, single[i], "CLUSTER", "SETSLOT", slot, "STABLE").Error()
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

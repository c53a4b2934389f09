// Package fault kills, stops and cuts off real servers under load, and counts what was lost with
// checkers that stand outside the library.
package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

const (
	callLimit = time.Second     // the deadline of every call
	lockTTL   = 3 * time.Second // longer than any holder holds, pauses included
)

// checker counts what the workers saw. Anything under "violations" breaks a promise of docs/.
type checker struct {
	ops, failed atomic.Int64

	holders                        atomic.Int32
	admitted                       sync.Map // window's end -> *atomic.Int64
	overlaps, resurrections, wrong atomic.Int64
}

const limitPerWindow = 50

func (c *checker) overAdmitted() (over int64) {
	c.admitted.Range(func(_, n any) bool {
		over += max(0, n.(*atomic.Int64).Load()-limitPerWindow)
		return true
	})
	return over
}

// TestServerFaults runs all blocks against one server that keeps what it acknowledged (appendfsync
// always) while it is killed and restarted, stopped, and its connections are cut.
func TestServerFaults(t *testing.T) {
	faults := 6 // enough to notice in the gate that something broke
	if os.Getenv("FLATRATE_FAULT") != "" {
		faults = 200
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	server := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})
	client := connect(t, server)

	var check checker
	ctx, stop := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	for _, work := range map[string]func(context.Context, *testing.T, valkey.Client, *checker){
		"lock": locks, "ratelimit": limits, "session": sessions, "cache": caches,
	} {
		for range 4 {
			workers.Go(func() {
				for ctx.Err() == nil {
					work(ctx, t, client, &check)
				}
			})
		}
	}
	kinds := map[string]int{}
	for range faults {
		progress(t, &check)
		switch kind := random.IntN(3); kind {
		case 0:
			kinds["killed and restarted"]++
			server.Restart()
		case 1:
			kinds["stopped"]++
			server.Pause()
			<-time.After(time.Duration(random.IntN(300)) * time.Millisecond) // how long the fault lasts
			server.Resume()
		case 2:
			kinds["connections cut"]++
			_ = client.Do(ctx, client.B().Arbitrary("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no").Build()).Error()
		}
	}
	progress(t, &check)
	stop()
	workers.Wait()

	t.Logf("faults: %v; operations: %d, of which failed: %d", kinds, check.ops.Load(), check.failed.Load())
	for what, n := range map[string]int64{
		"two holders of one lock":                 check.overlaps.Load(),
		"units admitted above the limit":          check.overAdmitted(),
		"sessions alive after an answered logout": check.resurrections.Load(),
		"values of another key":                   check.wrong.Load(),
	} {
		t.Logf("%s: %d", what, n)
		if n != 0 {
			t.Errorf("%s: %d", what, n)
		}
	}
}

func connect(t *testing.T, s *valkeytest.Server) valkey.Client {
	t.Helper()
	c, err := flatrate.Connect(t.Context(), "unix://"+s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// progress waits until the workers have done some more operations that succeeded: a fault that
// nobody recovers from ends here.
func progress(t *testing.T, c *checker) {
	t.Helper()
	const some = 200
	done := func() int64 { return c.ops.Load() - c.failed.Load() }
	goal, deadline := done()+some, time.Now().Add(30*time.Second)
	for done() < goal {
		if time.Now().After(deadline) {
			t.Fatalf("no progress for 30 s: %d operations, %d failed", c.ops.Load(), c.failed.Load())
		}
		<-time.After(time.Millisecond)
	}
}

// step counts one call; ok is false if it failed, as calls may while the server is away.
func (c *checker) step(err error) (ok bool) {
	c.ops.Add(1)
	if err != nil {
		c.failed.Add(1)
	}
	return err == nil
}

func locks(ctx context.Context, t *testing.T, client valkey.Client, c *checker) {
	l, err := lock.New(client, lock.Config{TTL: lockTTL})
	if err != nil {
		t.Error(err)
		return
	}
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	held, err := l.Acquire(call, "one")
	if errors.Is(err, context.DeadlineExceeded) {
		c.ops.Add(1) // waited for a holder whose release was lost
		return
	}
	if !c.step(err) {
		return
	}
	if c.holders.Add(1) > 1 {
		c.overlaps.Add(1)
	}
	<-time.After(rand.N(50 * time.Millisecond)) // the work that the lock guards
	c.holders.Add(-1)
	c.step(held.Release(call))
}

func limits(ctx context.Context, t *testing.T, client valkey.Client, c *checker) {
	l, err := ratelimit.New(client, ratelimit.Config{
		Limits: []ratelimit.Limit{{Limit: limitPerWindow, Window: 200 * time.Millisecond}},
	})
	if err != nil {
		t.Error(err)
		return
	}
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	r, err := l.Allow(call, "hot")
	if c.step(err) && r.Allowed {
		n, _ := c.admitted.LoadOrStore(r.Reset.UnixMilli(), new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	}
}

// sessions logs a visitor out while another request of the visitor is under way, and looks again.
func sessions(ctx context.Context, t *testing.T, client valkey.Client, c *checker) {
	m, err := session.New[map[string]int](client, session.Config{})
	if err != nil {
		t.Error(err)
		return
	}
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	s, err := m.Create(call, map[string]int{"n": 1})
	if !c.step(err) {
		return
	}
	var late sync.WaitGroup
	late.Go(func() {
		s.Value["n"] = 2
		_, err := m.Set(call, s)
		c.step(err)
	})
	ended := c.step(m.Delete(call, s.Token))
	late.Wait()
	if !ended {
		return
	}
	_, alive, err := m.Get(call, s.Token)
	if c.step(err) && alive {
		c.resurrections.Add(1)
	}
}

func caches(ctx context.Context, t *testing.T, client valkey.Client, c *checker) {
	values, err := cache.New[string](client, cache.Config{TTL: 50 * time.Millisecond})
	if err != nil {
		t.Error(err)
		return
	}
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	key := strconv.Itoa(rand.IntN(20))
	got, err := values.Get(call, key, func(context.Context) (string, error) { return fmt.Sprint("value of ", key), nil })
	if c.step(err) && got != "value of "+key {
		c.wrong.Add(1)
	}
}

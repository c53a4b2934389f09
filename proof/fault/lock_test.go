package fault

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
)

// scale is how often something is done: few in the gate, many in make fault.
func scale(few, many int) int {
	if os.Getenv("FLATRATE_FAULT") != "" {
		return many
	}
	return few
}

// site is a name as the checker sees it from outside the library: who works under its lock, and a
// resource that checks the fence.
type site struct {
	mu                          sync.Mutex
	holders                     int
	fence                       uint64
	overlaps, acquired, refused int
}

func (s *site) enter(fence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acquired++
	if s.holders++; s.holders > 1 {
		s.overlaps++
	}
	if fence <= s.fence {
		s.refused++
		return
	}
	s.fence = fence
}

func (s *site) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders--
}

// TestLockPartitions cuts holders off from the server, in either direction or both, and stops the
// server: a holder that heeds its context never works beside another.
func TestLockPartitions(t *testing.T) {
	const clients, names, ttl = 16, 6, time.Second
	faults := int64(scale(32, 1000))
	server := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})
	var sites [names]site
	var injected atomic.Int64
	var kinds [5]atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	for range clients {
		p := newProxy(t, server.Socket)
		c, err := flatrate.Connect(ctx, "valkey://"+p.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		l, err := lock.New(c, lock.Config{TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for ctx.Err() == nil && injected.Load() < faults {
				s := rand.IntN(names)
				holdAndBreak(ctx, l, fmt.Sprint("name-", s), &sites[s], p, func(kind int) { kinds[kind].Add(1); injected.Add(1) })
			}
		})
	}
	all.Go(func() { // the server itself, all clients at once
		for ctx.Err() == nil && injected.Load() < faults {
			select {
			case <-time.After(3 * time.Second):
			case <-ctx.Done():
			}
			if rand.IntN(2) == 0 {
				server.Pause()
				<-time.After(rand.N(ttl + ttl/2))
				server.Resume()
				kinds[3].Add(1)
			} else {
				server.Restart()
				kinds[4].Add(1)
			}
			injected.Add(1)
		}
	})
	all.Wait()
	overlaps, acquired, refused := 0, 0, 0
	for i := range sites {
		overlaps, acquired, refused = overlaps+sites[i].overlaps, acquired+sites[i].acquired, refused+sites[i].refused
	}
	t.Logf("faults: %d to the server dropped, %d to the client, %d both, %d server stopped, %d server killed",
		kinds[0].Load(), kinds[1].Load(), kinds[2].Load(), kinds[3].Load(), kinds[4].Load())
	t.Logf("acquisitions: %d, two holders: %d, fences that did not grow: %d", acquired, overlaps, refused)
	if overlaps != 0 || refused != 0 || acquired == 0 {
		t.Errorf("two holders: %d, fences that did not grow: %d, of %d", overlaps, refused, acquired)
	}
}

// holdAndBreak acquires a lock, breaks its holder's way to the server half of the time, and works until
// the lock is released or lost.
func holdAndBreak(ctx context.Context, l *lock.Locker, name string, s *site, p *proxy, count func(kind int)) {
	call, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	held, err := l.Acquire(call, name)
	if err != nil {
		return
	}
	s.enter(held.Fence())
	work := 20 * time.Millisecond
	if rand.IntN(2) == 0 {
		kind := rand.IntN(3)
		count(kind)
		p.dropToServer.Store(kind != 1)
		p.dropToClient.Store(kind != 0)
		work = time.Duration(rand.Int64N(int64(3 * time.Second)))
	}
	select {
	case <-time.After(work):
	case <-held.Context().Done():
	}
	s.leave()
	p.dropToServer.Store(false)
	p.dropToClient.Store(false)
	release, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = held.Release(release) // the time to live ends it where this fails
}

// TestNoWaiterIsStuck lets waiters die: processes that hold and wait for one name are killed again and
// again, and those that live have to be served.
func TestNoWaiterIsStuck(t *testing.T) {
	const ttl, workers, patience = 300 * time.Millisecond, 4, 20 * time.Second
	rounds := int64(scale(300, 10_000))
	server := valkeytest.Start(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var done, stuck, kills, turns atomic.Int64
	var all sync.WaitGroup
	for range 2 { // processes that die
		all.Go(func() {
			for ctx.Err() == nil {
				if err := victim(ctx, server.Socket, &turns); err != nil {
					t.Error(err)
					stop()
				}
				kills.Add(1)
			}
		})
	}
	for range workers { // waiters that live
		l, err := lock.New(connect(t, server), lock.Config{TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for ctx.Err() == nil && done.Load() < rounds {
				call, cancel := context.WithTimeout(ctx, patience)
				held, err := l.Acquire(call, "one")
				cancel()
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					stuck.Add(1)
					t.Errorf("a waiter was stuck for %v: %v", patience, err)
					stop()
					return
				}
				_ = held.Release(context.WithoutCancel(ctx))
				done.Add(1)
			}
			stop()
		})
	}
	all.Wait()
	t.Logf("rounds of the living: %d, turns of the dying: %d, processes killed: %d, stuck: %d",
		done.Load(), turns.Load(), kills.Load(), stuck.Load())
	if kills.Load() < 3 || done.Load() < rounds {
		t.Errorf("only %d kills in %d rounds", kills.Load(), done.Load())
	}
}

// victim runs this test program as a process that contends for the lock, and kills it after some turns.
func victim(ctx context.Context, socket string, turns *atomic.Int64) error {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestVictim$")
	cmd.Env = append(cmd.Environ(), "FLATRATE_VICTIM="+socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	for range 1 + rand.IntN(60) {
		if !lines.Scan() {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the victim ended by itself: %w", lines.Err())
		}
		turns.Add(1)
	}
	return nil
}

// TestVictim is the other process: it takes turns until it is killed, with several waiters at a time.
func TestVictim(t *testing.T) {
	socket := os.Getenv("FLATRATE_VICTIM")
	if socket == "" {
		t.Skip("a part of TestNoWaiterIsStuck")
	}
	c, err := flatrate.Connect(t.Context(), "unix://"+socket)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.New(c, lock.Config{TTL: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		go func() {
			for {
				held, err := l.Acquire(context.Background(), "one")
				if err != nil {
					os.Exit(1)
				}
				fmt.Println("turn")
				_ = held.Release(context.Background())
			}
		}()
	}
	select {} // until it is killed
}

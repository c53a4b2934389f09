package fault

import (
	"bufio"
	"context"
	"errors"
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

// inGate runs a test beside others in the gate, where most of its time is waiting; in make fault it runs
// alone.
func inGate(t *testing.T) {
	t.Helper()
	if os.Getenv("FLATRATE_FAULT") == "" {
		t.Parallel()
	}
}

// scale is how often something is done: few in the gate, many in make fault.
func scale(few, many int) int {
	if os.Getenv("FLATRATE_FAULT") != "" {
		return many
	}
	return few
}

// patience is how long a waiter waits before it counts as stuck: more than if all others were before it,
// and each was cut off for its time to live.
const patience = 30 * time.Second

// campaign is a run of one library on one server that keeps what it acknowledged.
type campaign struct {
	server *valkeytest.Server
	locker contender
	ttl    time.Duration
	faults int64
	// serverFaults also stops and kills the server.
	serverFaults bool
	// limit ends a run whose waiters get nowhere. Zero is none.
	limit time.Duration
}

// kinds of faults, as campaign counts them.
var faultKinds = [...]string{"to the server dropped", "to the client dropped", "both dropped", "server stopped", "server killed"}

// run lets holders who heed their context work while they are cut off from the server, in either
// direction or both, and while the server is stopped and killed.
func (c campaign) run(t *testing.T) (sites, counts) {
	t.Helper()
	const clients, names = 16, 6
	all := newSites(names)
	var injected atomic.Int64
	var vain waits
	var kinds [len(faultKinds)]atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	late.watch(ctx)
	if c.limit > 0 {
		defer time.AfterFunc(c.limit, stop).Stop()
	}
	var workers sync.WaitGroup
	goOn := func() bool { return ctx.Err() == nil && injected.Load() < c.faults }
	for range clients {
		p := newProxy(t, c.server.Socket)
		l := c.locker(t, p.addr(), c.ttl)
		wreck := func() (heal func()) {
			kind := rand.IntN(3)
			kinds[kind].Add(1)
			injected.Add(1)
			p.drop(kind)
			return p.heal
		}
		workers.Go(func() {
			for goOn() {
				s := rand.IntN(names)
				vain.count(holdOnce(ctx, l, fmt.Sprint("name-", s), all[s], wreck))
			}
		})
	}
	workers.Go(func() { // the server itself, all clients at once
		for c.serverFaults && goOn() {
			select {
			case <-time.After(3 * time.Second):
			case <-ctx.Done():
			}
			if rand.IntN(2) == 0 {
				c.server.Pause()
				<-time.After(rand.N(c.ttl + c.ttl/2))
				c.server.Resume()
				kinds[3].Add(1)
			} else {
				c.server.Restart()
				kinds[4].Add(1)
			}
			injected.Add(1)
		}
	})
	workers.Wait()
	seen := all.counts()
	seen.faults, seen.stuck, seen.passedOver = injected.Load(), vain.stuck.Load(), vain.passedOver.Load()
	text := ""
	for i, kind := range faultKinds {
		text += fmt.Sprintf(", %d %s", kinds[i].Load(), kind)
	}
	t.Logf("%d faults%s; %v", injected.Load(), text, seen)
	return all, seen
}

var (
	errStuck      = errors.New("waited in vain, and nobody else was served either")
	errPassedOver = errors.New("waited in vain, while others were served")
)

// waits counts those that were in vain.
type waits struct{ stuck, passedOver atomic.Int64 }

func (w *waits) count(err error) {
	switch {
	case errors.Is(err, errStuck):
		w.stuck.Add(1)
	case errors.Is(err, errPassedOver):
		w.passedOver.Add(1)
	}
}

// holdOnce acquires a lock, wrecks something half of the time, and works until the lock is released or lost.
func holdOnce(ctx context.Context, l acquire, name string, s *site, wreck func() (heal func())) error {
	call, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var held *grip
	var begin time.Time
	before := s.served()
	for held == nil {
		var err error
		begin = time.Now()
		held, err = l(call, name)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
		case call.Err() != nil && s.served() == before:
			return errStuck
		case call.Err() != nil:
			return errPassedOver
		default:
			<-time.After(10 * time.Millisecond) // the server is away: try again, as a service would
		}
	}
	v := s.enter(begin, held)
	work, heal := 20*time.Millisecond, func() {}
	if rand.IntN(2) == 0 {
		heal = wreck()
		work = rand.N(3 * time.Second)
	}
	select {
	case <-time.After(work):
	case <-held.held.Done():
	}
	v.leave()
	heal()
	release, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	held.release(release) // the time to live ends it where this fails
	return nil
}

// durable is a server that keeps what it acknowledged.
func durable(t *testing.T) *valkeytest.Server {
	t.Helper()
	return valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})
}

// TestLockPartitions cuts holders off from the server, in either direction or both, and stops the
// server: a holder that heeds its context never works beside another.
func TestLockPartitions(t *testing.T) {
	inGate(t)
	c := campaign{server: durable(t), locker: flatrateLock, ttl: time.Second, faults: int64(scale(32, 1000)), serverFaults: true}
	all, seen := c.run(t)
	all.mustExclude(t)
	if seen.stuck+seen.passedOver != 0 {
		t.Errorf("waits of more than %v: %d, of which others were served meanwhile: %d", patience, seen.stuck+seen.passedOver, seen.passedOver)
	}
}

// TestNoWaiterIsStuck lets waiters die: processes that hold and wait for one name are killed again and
// again, and those that live have to be served.
func TestNoWaiterIsStuck(t *testing.T) {
	const ttl, workers = 300 * time.Millisecond, 4
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

package fault

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
)

// What no lock on one server can promise: the runs below let two hold a name at once, count it, and show
// that a resource that checks the fence accepted no write of a former holder.

const fenceTTL = 500 * time.Millisecond

// fenced is a run of holders who write to a resource, again and again while they work.
type fenced struct {
	lockers  []acquire
	resource *resource
	harm     func() // what the server suffers, once
	faults   int
}

func (f *fenced) run(t *testing.T) {
	t.Helper()
	all := newSites(2)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	late.watch(ctx)
	var workers sync.WaitGroup
	var holders atomic.Int64
	for _, l := range f.lockers {
		workers.Go(func() {
			for ctx.Err() == nil {
				s := rand.IntN(len(all))
				f.hold(ctx, t, l, all[s], fmt.Sprint("name-", s), fmt.Sprint(holders.Add(1)))
			}
		})
	}
	for range f.faults {
		<-time.After(50*time.Millisecond + rand.N(200*time.Millisecond)) // between two faults
		f.harm()
	}
	stop()
	workers.Wait()
	f.report(t, all.counts())
}

func (f *fenced) report(t *testing.T, seen counts) {
	t.Helper()
	stale := f.resource.stale()
	t.Logf("%d faults; %d acquisitions, %d overlaps (longest %v); the resource accepted %d writes, %d of them of a former holder, and refused %d",
		f.faults, seen.acquired, seen.overlaps, seen.longest.Round(time.Millisecond), len(f.resource.accepted), stale, f.resource.refused)
	if stale != 0 || seen.acquired == 0 || len(f.resource.accepted) == 0 {
		t.Errorf("%d writes of a former holder among %d", stale, len(f.resource.accepted))
	}
}

// hold writes until its work is done or its context ends, and once more after that: the worst that a
// holder may do.
func (f *fenced) hold(ctx context.Context, t *testing.T, l acquire, s *site, name, holder string) {
	call, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin := time.Now()
	held, err := l(call, name)
	if err != nil {
		<-time.After(5 * time.Millisecond)
		return
	}
	v := s.enter(begin, held)
	write := func() {
		if err := f.resource.write(context.WithoutCancel(ctx), name, holder, held.fence); err != nil {
			t.Error(err) // its server suffers nothing
		}
	}
	done := time.After(rand.N(2 * fenceTTL))
	for working := true; working; {
		write()
		select {
		case <-done:
			working = false
		case <-held.held.Done():
			working = false
		case <-time.After(rand.N(20 * time.Millisecond)):
		}
	}
	v.leave()
	write()
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), 200*time.Millisecond)
	defer cancel()
	held.release(release)
}

func newFenced(t *testing.T, socket string) (f *fenced, proxies []*proxy) {
	t.Helper()
	f = &fenced{resource: newResource(t, valkeytest.Start(t).Client()), faults: scale(5, 100)}
	for range 6 {
		p := newProxy(t, socket)
		proxies = append(proxies, p)
		f.lockers = append(f.lockers, flatrateLock(t, p.addr(), fenceTTL))
	}
	return f, proxies
}

// TestFenceUnderEviction fills a server that evicts any key: locks, queues and counters vanish.
func TestFenceUnderEviction(t *testing.T) {
	inGate(t)
	server := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--maxmemory", "8mb", "--maxmemory-policy", "allkeys-random"}})
	f, _ := newFenced(t, server.Socket)
	admin, value, n := valkeytest.NewClient(t, server), strings.Repeat("x", 100_000), 0
	f.harm = func() {
		for range 300 {
			n++
			set := admin.B().Set().Key(fmt.Sprint("filler-", n)).Value(value).Build()
			if err := admin.Do(t.Context(), set).Error(); err != nil && !strings.HasPrefix(err.Error(), "OOM") {
				t.Error(err)
			}
		}
	}
	f.run(t)
}

// TestFenceUnderLostData kills a server that keeps nothing.
func TestFenceUnderLostData(t *testing.T) {
	inGate(t)
	server := valkeytest.Start(t)
	f, _ := newFenced(t, server.Socket)
	f.harm = server.Restart
	f.run(t)
}

// TestFenceUnderPromotion promotes a replica that lacks the last writes, and makes the former primary its
// replica, in turn.
func TestFenceUnderPromotion(t *testing.T) {
	inGate(t)
	atOnce := valkeytest.Config{Args: []string{"--repl-diskless-sync-delay", "0"}}
	primary, replica := valkeytest.StartWith(t, atOnce), valkeytest.StartWith(t, atOnce)
	// Replication goes through a proxy, which can hold back what the primary sends.
	toPrimary, toReplica := newProxy(t, primary.Socket), newProxy(t, replica.Socket)
	follow := func(s *valkeytest.Server, p *proxy) {
		c := s.Client()
		host, port, _ := strings.Cut(p.addr(), ":")
		if err := c.Do(t.Context(), c.B().Replicaof().Host(host).Port(atoi(t, port)).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		for { // until it has what the primary has
			info, err := c.Do(t.Context(), c.B().Info().Section("replication").Build()).ToString()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(info, "master_link_status:up") {
				return
			}
			<-time.After(time.Millisecond)
		}
	}
	follow(replica, toPrimary)
	f, proxies := newFenced(t, primary.Socket)
	f.harm = func() {
		toPrimary.drop(1)
		<-time.After(fenceTTL + rand.N(fenceTTL)) // by how much the replica lags
		primary.Kill()
		toPrimary.cut()
		toPrimary.heal()
		c := replica.Client()
		if err := c.Do(t.Context(), c.B().Arbitrary("REPLICAOF", "NO", "ONE").Build()).Error(); err != nil {
			t.Fatal(err)
		}
		for _, p := range proxies {
			p.redirect(replica.Socket)
		}
		primary.Restart()
		primary, replica, toPrimary, toReplica = replica, primary, toReplica, toPrimary
		follow(replica, toPrimary)
	}
	f.run(t)
}

// TestFenceUnderSteppedClock moves the server's clock ahead and back while it runs. The fence grows by
// the counter where the clock is behind.
func TestFenceUnderSteppedClock(t *testing.T) {
	inGate(t)
	server, step := shifted(t, valkeytest.Valkey, 0)
	f, _ := newFenced(t, server.Socket)
	// Back by no more than a lease: leases last longer by that much.
	jumps := []time.Duration{time.Minute, time.Minute - fenceTTL, 2 * time.Minute, 2*time.Minute - fenceTTL/2}
	n := 0
	f.harm = func() { step(jumps[n%len(jumps)] + time.Duration(n/len(jumps))*2*time.Minute); n++ }
	f.run(t)
}

// interval is a visit of a process that could be stopped at any time.
type interval struct {
	from, to int64
}

// TestFenceUnderStoppedClients stops processes that hold the lock (SIGSTOP) for longer than its time to
// live: they go on writing when they continue.
func TestFenceUnderStoppedClients(t *testing.T) {
	inGate(t)
	server, data := valkeytest.Start(t), valkeytest.Start(t)
	r := newResource(t, data.Client())
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	var visits []interval
	var readers sync.WaitGroup
	var clients []*exec.Cmd
	for i := range 4 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestFencedClient$")
		cmd.Env = append(cmd.Environ(), fmt.Sprintf("FLATRATE_CLIENT=%d %s %s", i, server.Socket, data.Socket))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, cmd)
		readers.Go(func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				var v interval
				var w write
				var ok bool
				if n, _ := fmt.Sscanf(lines.Text(), "visit %d %d", &v.from, &v.to); n == 2 {
					mu.Lock()
					visits = append(visits, v)
					mu.Unlock()
				}
				if n, _ := fmt.Sscanf(lines.Text(), "write %d %s %t", &w.number, &w.holder, &ok); n == 3 {
					w.holder = "one " + w.holder
					r.answered(w, ok)
				}
			}
			if err := cmd.Wait(); ctx.Err() == nil {
				t.Errorf("a client ended by itself: %v", err)
			}
		})
	}
	f := &fenced{resource: r, faults: scale(5, 100)}
	for range f.faults {
		cmd := clients[rand.IntN(len(clients))]
		<-time.After(rand.N(100 * time.Millisecond))
		_ = cmd.Process.Signal(syscall.SIGSTOP)
		<-time.After(fenceTTL + rand.N(fenceTTL)) // how long it is stopped
		_ = cmd.Process.Signal(syscall.SIGCONT)
	}
	<-time.After(fenceTTL) // they say what they did meanwhile
	stop()
	for _, cmd := range clients {
		_ = cmd.Process.Kill()
	}
	readers.Wait()
	f.report(t, overlapping(visits))
}

// overlapping counts the visits that began before another had ended.
func overlapping(visits []interval) (c counts) {
	slices.SortFunc(visits, func(a, b interval) int { return int(a.from - b.from) })
	c.acquired = len(visits)
	end := int64(0)
	for _, v := range visits {
		if v.from < end {
			c.overlaps++
			c.longest = max(c.longest, time.Duration(min(end, v.to)-v.from))
		}
		end = max(end, v.to)
	}
	return c
}

// TestFencedClient is one of those processes. It never looks at its context: it writes whatever happened.
func TestFencedClient(t *testing.T) {
	var id int
	var server, data string
	if n, _ := fmt.Sscan(os.Getenv("FLATRATE_CLIENT"), &id, &server, &data); n != 3 {
		t.Skip("a part of TestFenceUnderStoppedClients")
	}
	locks, err := flatrate.Connect(t.Context(), "unix://"+server)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := flatrate.Connect(t.Context(), "unix://"+data)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.New(locks, lock.Config{TTL: fenceTTL})
	if err != nil {
		t.Fatal(err)
	}
	r := newResource(t, stored)
	ctx := context.Background()
	for turn := 0; ; turn++ {
		held, err := l.Acquire(ctx, "one")
		if err != nil {
			continue // it was stopped while it waited
		}
		from := time.Now().UnixNano()
		for range 5 {
			number, ok, err := r.send(ctx, "one", fmt.Sprintf("%d-%d", id, turn), held.Fence())
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			if err == nil {
				fmt.Printf("write %d %d-%d %t\n", number, id, turn, ok)
			}
			<-time.After(rand.N(10 * time.Millisecond))
		}
		fmt.Printf("visit %d %d\n", from, time.Now().UnixNano())
		_ = held.Release(ctx)
	}
}

package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

func newLimiter(t *testing.T, c valkey.Client, cfg ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	l, err := ratelimit.New(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// eventually waits for what comes within a time that no machine needs.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

var (
	window = ratelimit.Limit{Limit: 12, Window: time.Hour}
	places = ratelimit.Limit{Algorithm: ratelimit.Concurrency, Limit: 6}
)

// outages are the ways in which a server goes away, and comes back.
var outages = map[string]struct{ begin, end func(*valkeytest.Server) }{
	"stopped": {(*valkeytest.Server).Pause, (*valkeytest.Server).Resume},
	"killed":  {(*valkeytest.Server).Kill, (*valkeytest.Server).Restart},
}

// TestOutageModes holds what each mode answers while the server is away, and that the server decides again
// when it is back.
func TestOutageModes(t *testing.T) {
	with := func(o ratelimit.Outage, limits ...ratelimit.Limit) ratelimit.Config {
		return ratelimit.Config{Limits: limits, Outage: o, Processes: 3}
	}
	mixed := []ratelimit.Limit{window, places}
	mixed[0].Outage, mixed[1].Outage = ratelimit.OutageOpen, ratelimit.OutageLocal
	for name, outage := range outages {
		for _, test := range []struct {
			name    string
			cfg     ratelimit.Config
			mode    ratelimit.Mode
			allowed int // of 20 requests; -1 are errors
		}{
			{"error", with(ratelimit.OutageError, window), ratelimit.ModeServer, -1},
			{"open", with(ratelimit.OutageOpen, window), ratelimit.ModeOpen, 20},
			{"closed", with(ratelimit.OutageClosed, window), ratelimit.ModeClosed, 0},
			{"local", with(ratelimit.OutageLocal, window), ratelimit.ModeLocal, 4},
			{"local places", with(ratelimit.OutageLocal, places), ratelimit.ModeLocal, 2},
			{"open and local", with(ratelimit.OutageClosed, mixed...), ratelimit.ModeLocal, 2},
		} {
			t.Run(name+", "+test.name, func(t *testing.T) {
				t.Parallel()
				s := valkeytest.Start(t)
				var down, up atomic.Int64
				test.cfg.Hooks = ratelimit.Hooks{Down: func(error) { down.Add(1) }, Up: func() { up.Add(1) }}
				l := newLimiter(t, s.Client(), test.cfg)
				eventually(t, "a first answer", func() bool {
					r, err := l.Allow(t.Context(), "before")
					return err == nil && r.Mode == ratelimit.ModeServer
				})
				outage.begin(s)
				allowed := 0
				for range 20 {
					r, err := l.Allow(t.Context(), "s")
					switch {
					case test.allowed < 0:
						if err == nil || r.Allowed || !strings.HasPrefix(err.Error(), "ratelimit: ") {
							t.Fatalf("%+v, %v", r, err)
						}
						continue
					case err != nil || r.Mode != test.mode || r.Allowed != (r.RetryAfter == 0):
						t.Fatalf("%+v, %v", r, err)
					case r.Allowed:
						allowed++
					}
				}
				if allowed != max(0, test.allowed) {
					t.Errorf("%d of 20 allowed, want %d", allowed, test.allowed)
				}
				outage.end(s)
				eventually(t, "the server decides again", func() bool {
					r, err := l.Allow(t.Context(), "after")
					return err == nil && r.Mode == ratelimit.ModeServer
				})
				if down.Load() == 0 || up.Load() == 0 {
					t.Errorf("hooks: down %d times, up %d times", down.Load(), up.Load())
				}
			})
		}
	}
}

// TestOutageLocalPlaces: a place that this process gave is given back to it.
func TestOutageLocalPlaces(t *testing.T) {
	s := valkeytest.Start(t)
	l := newLimiter(t, s.Client(), ratelimit.Config{Limits: []ratelimit.Limit{places}, Outage: ratelimit.OutageLocal, Processes: 6})
	s.Pause()
	for range 3 {
		r, err := l.Allow(t.Context(), "s")
		if err != nil || !r.Allowed || r.Mode != ratelimit.ModeLocal {
			t.Fatalf("%+v, %v", r, err)
		}
		if r, err := l.Allow(t.Context(), "s"); err != nil || r.Allowed {
			t.Fatalf("a second place of a share of one: %+v, %v", r, err)
		}
		if held, err := l.Release(t.Context(), "s", r); err != nil || !held {
			t.Fatalf("%v, %v", held, err)
		}
	}
	none := newLimiter(t, s.Client(), ratelimit.Config{Limits: []ratelimit.Limit{places}, Outage: ratelimit.OutageLocal, Processes: 7})
	if r, err := none.Allow(t.Context(), "s"); err != nil || r.Allowed || r.RetryAfter != time.Second {
		t.Errorf("a share of less than one: %+v, %v", r, err)
	}
}

// TestOutageLocalNever: what is above the share, but not above the limit, may be admitted by the server when it is back.
func TestOutageLocalNever(t *testing.T) {
	s := valkeytest.Start(t)
	l := newLimiter(t, s.Client(), ratelimit.Config{
		Outage: ratelimit.OutageLocal, Processes: 4, Limits: []ratelimit.Limit{{Limit: 100, Window: time.Hour}},
	})
	s.Kill()
	for n, want := range map[int64]time.Duration{50: time.Second, 100: time.Second, 101: ratelimit.Never} {
		if r, err := l.AllowN(t.Context(), "x", n); err != nil || r.Mode != ratelimit.ModeLocal || r.Allowed || r.RetryAfter != want {
			t.Errorf("%d of 100: %+v, %v, want RetryAfter %v", n, r, err, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.Wait(ctx, "x", 50); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait for 50 of 100: %v", err)
	}
	if _, err := l.Wait(t.Context(), "x", 101); !errors.Is(err, ratelimit.ErrNever) {
		t.Errorf("Wait for 101 of 100: %v", err)
	}
}

// TestOutageLocalLimits: a result has all limits in their order, those too that are open meanwhile.
func TestOutageLocalLimits(t *testing.T) {
	s := valkeytest.Start(t)
	l := newLimiter(t, s.Client(), ratelimit.Config{Processes: 1, Limits: []ratelimit.Limit{
		{Name: "open", Limit: 4, Window: time.Hour, Outage: ratelimit.OutageOpen},
		{Name: "local", Limit: 10, Window: time.Hour, Outage: ratelimit.OutageLocal},
		{Name: "open bucket", Algorithm: ratelimit.TokenBucket, Limit: 3, Window: time.Hour, Burst: 5, Outage: ratelimit.OutageOpen},
	}})
	s.Kill()
	for i, left := range []int64{4, 4} {
		r, err := l.AllowN(t.Context(), "x", 6)
		if err != nil || r.Mode != ratelimit.ModeLocal || r.Allowed != (i == 0) || r.Name != "local" || r.Remaining != left {
			t.Fatalf("%+v %v", r, err)
		}
		all := r.Limits()
		if len(all) != 3 || all[0].Name != "open" || all[1].Name != "local" || all[2].Name != "open bucket" {
			t.Fatalf("%+v", all)
		}
		if all[0].Remaining != 4 || all[1].Remaining != left || all[2].Remaining != 5 || all[0].RetryAfter != 0 || all[2].RetryAfter != 0 {
			t.Errorf("%+v", all)
		}
	}
}

// TestImpatientCallers: the end of a caller's context is no outage while the server answers, and finds
// one where it does not.
func TestImpatientCallers(t *testing.T) {
	s := valkeytest.Start(t)
	l := newLimiter(t, s.Client(), ratelimit.Config{Limits: []ratelimit.Limit{window}, Outage: ratelimit.OutageOpen, Timeout: 2 * time.Second})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := l.Allow(gone, "s"); r.Allowed || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", r, err)
	}
	s.Pause()
	eventually(t, "the silent server is noticed", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		r, err := l.Allow(ctx, "s")
		if err != nil && (r.Allowed || !errors.Is(err, context.DeadlineExceeded)) {
			t.Fatalf("%+v, %v", r, err)
		}
		return r.Mode == ratelimit.ModeOpen
	})
}

// late is a context whose deadline passes before its Err says so, as that of every context with a deadline
// does for a moment: Err waits for a timer and a goroutine.
type late struct {
	context.Context
	deadline time.Time
}

func (c late) Deadline() (time.Time, bool) { return c.deadline, true }

// TestShortDeadlines: neither what the client makes of a caller's deadline, nor the connection that it would close for
// that, is anything that others notice.
func TestShortDeadlines(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	client, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{slowProxy(t, s.Addr)}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	var down atomic.Int64
	l := newLimiter(t, client, ratelimit.Config{
		Timeout: 20 * time.Second, Limits: []ratelimit.Limit{{Limit: 1000, Window: time.Hour}}, Outage: ratelimit.OutageOpen,
		Hooks: ratelimit.Hooks{Down: func(error) { down.Add(1) }},
	})
	if _, err := l.Allow(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		var all sync.WaitGroup
		all.Go(func() { _, _ = l.Allow(late{t.Context(), time.Now().Add(5 * time.Millisecond)}, "x") })
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			defer cancel()
			if r, err := l.Peek(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%+v, %v", r, err)
			}
		})
		all.Go(func() {
			time.Sleep(time.Millisecond) // beside the call that is under way; without it the test could only pass
			if r, err := l.Peek(t.Context(), "y"); err != nil || r.Mode != ratelimit.ModeServer {
				t.Errorf("another caller: %+v, %v", r, err)
			}
		})
		all.Wait()
	}
	if n := down.Load(); n > 0 {
		t.Errorf("the server counted as away %d times", n)
	}
}

// slowProxy returns the address of a proxy that keeps what is sent to the server for 30 ms.
func slowProxy(t *testing.T, addr string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() { _, _ = io.Copy(client, server); _ = client.Close() }()
			go func() {
				defer func() { _ = server.Close() }()
				buffer := make([]byte, 64<<10)
				for {
					n, err := client.Read(buffer)
					if err != nil {
						return
					}
					time.Sleep(30 * time.Millisecond)
					if _, err := server.Write(buffer[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// TestTimeoutWhileConnecting: a client lets a call wait for the connection that another call is making, and looks at no
// context meanwhile. No call of a limiter waits for longer than its Timeout for that.
func TestTimeoutWhileConnecting(t *testing.T) {
	for name, call := range map[string]func(*ratelimit.Limiter, ratelimit.Result) error{
		"Allow":  func(l *ratelimit.Limiter, _ ratelimit.Result) error { _, err := l.Allow(t.Context(), "x"); return err },
		"Peek":   func(l *ratelimit.Limiter, _ ratelimit.Result) error { _, err := l.Peek(t.Context(), "x"); return err },
		"Refund": func(l *ratelimit.Limiter, r ratelimit.Result) error { return l.Refund(t.Context(), "x", r, 1) },
		"Reset":  func(l *ratelimit.Limiter, _ ratelimit.Result) error { return l.Reset(t.Context(), "x") },
		"Release": func(l *ratelimit.Limiter, r ratelimit.Result) error {
			_, err := l.Release(t.Context(), "x", r)
			return err
		},
		"several": func(l *ratelimit.Limiter, _ ratelimit.Result) error {
			var all sync.WaitGroup
			var failed atomic.Int64
			for range 50 {
				all.Go(func() {
					if _, err := l.Allow(t.Context(), "x"); err != nil {
						failed.Add(1)
					}
				})
			}
			all.Wait()
			if failed.Load() != 50 {
				return nil
			}
			return errors.New("all")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
			client, err := flatrate.Connect(t.Context(), "valkey://"+s.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			down := make(chan error, 1)
			limits := []ratelimit.Limit{{Limit: 100, Window: time.Hour}}
			if name == "Release" {
				limits = append(limits, places)
			}
			l := newLimiter(t, client, ratelimit.Config{Limits: limits, Hooks: ratelimit.Hooks{Down: func(err error) { down <- err }}})
			var first ratelimit.Result
			eventually(t, "an answer", func() bool { first, err = l.Allow(t.Context(), "x"); return err == nil })
			select {
			case <-down: // a slow machine
				eventually(t, "an answer again", func() bool { _, err := l.Peek(t.Context(), "x"); return err == nil })
			default:
			}
			s.Pause()
			defer s.Resume()
			for i := range 8 { // all connections break
				short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				client.Do(short, client.B().Get().Key(fmt.Sprint(i)).Build())
				cancel()
			}
			for i := range 8 { // a cache asks, without a deadline
				go client.Do(t.Context(), client.B().Get().Key(fmt.Sprint(i)).Build())
			}
			time.Sleep(50 * time.Millisecond) // they are connecting; without it the test could only pass
			done := make(chan error, 1)
			go func() { done <- call(l, first) }()
			select {
			case err := <-done:
				if err == nil {
					t.Error("a server that hangs has answered")
				}
			case <-time.After(2 * time.Second):
				t.Fatal("a call with a Timeout of 40 ms goes on for over 2 s")
			}
			select {
			case <-down:
			case <-time.After(10 * time.Second):
				t.Error("the server does not count as away")
			}
		})
	}
}

// TestErrorsAreReported: while the server answers with errors, limits hold as Outage says; Hooks.Down says that it is
// so, Hooks.Up when the server has decided again, and calls go on to it all the time.
func TestErrorsAreReported(t *testing.T) {
	s := valkeytest.Start(t)
	var down, up atomic.Int64
	l := newLimiter(t, s.Client(), ratelimit.Config{
		Outage: ratelimit.OutageOpen, Limits: []ratelimit.Limit{{Limit: 1, Window: time.Hour}}, Timeout: 20 * time.Second,
		Hooks: ratelimit.Hooks{Down: func(error) { down.Add(1) }, Up: func() { up.Add(1) }},
	})
	set := func(rights ...string) {
		t.Helper()
		c := s.Client()
		if err := c.Do(t.Context(), c.B().Arbitrary("ACL", "SETUSER", "default").Args(rights...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	for i := int64(1); i < 4; i++ {
		set("-evalsha", "-eval")
		for range 10 {
			if r, err := l.Allow(t.Context(), "x"); err != nil || r.Mode != ratelimit.ModeOpen {
				t.Fatalf("%+v %v", r, err)
			}
		}
		if down.Load() != i || up.Load() != i-1 {
			t.Errorf("round %d: down %d times, up %d times", i, down.Load(), up.Load())
		}
		set("+@all")
		for range 10 {
			if r, err := l.Allow(t.Context(), "x"); err != nil || r.Mode != ratelimit.ModeServer {
				t.Fatalf("%+v %v", r, err)
			}
		}
		if down.Load() != i || up.Load() != i {
			t.Errorf("round %d: down %d times, up %d times", i, down.Load(), up.Load())
		}
	}
}

// cutting is a proxy that cuts the connection as soon as a script is called, before or after the server
// has got it, and counts.
type cutting struct {
	net.Listener
	armed, scripts atomic.Int64
}

func cuttingProxy(t *testing.T, socket string) *cutting {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &cutting{Listener: listener}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", socket)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() { _, _ = io.Copy(client, server); _ = client.Close() }()
			go p.forward(server, client)
		}
	}()
	return p
}

func (p *cutting) forward(server, client net.Conn) {
	defer func() { _ = server.Close(); _ = client.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		called := strings.Count(string(buffer[:n]), "EVALSHA")
		if p.armed.Load() == 1 && called > 0 {
			p.scripts.Add(int64(called))
			_ = client.Close()
			_, _ = server.Write(buffer[:n]) // the server counts, and nobody hears of it
			return
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// TestNothingIsReplayed cuts the connection after each call: whether the server has counted nobody
// knows, so none may be sent again.
func TestNothingIsReplayed(t *testing.T) {
	s := valkeytest.Start(t)
	p := cuttingProxy(t, s.Socket)
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{p.Addr().String()}, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	l := newLimiter(t, c, ratelimit.Config{Limits: []ratelimit.Limit{{Limit: 1000, Window: 400 * 24 * time.Hour}}, Timeout: 20 * time.Second})
	const calls = 10
	for i := range calls {
		// Once without a fault, so that the script is there and the breaker is closed.
		eventually(t, "an answer", func() bool {
			r, err := l.Peek(t.Context(), "s")
			return err == nil && r.Mode == ratelimit.ModeServer
		})
		eventually(t, "another answer", func() bool { _, err := l.Allow(t.Context(), "other"); return err == nil })
		p.armed.Store(1)
		if r, err := l.Allow(t.Context(), "s"); err == nil || r.Allowed {
			t.Fatalf("call %d: %+v, %v", i, r, err)
		}
		p.armed.Store(0)
	}
	if n := p.scripts.Load(); n != calls {
		t.Errorf("%d calls were sent %d times", calls, n)
	}
	eventually(t, "an answer", func() bool {
		r, err := l.Peek(t.Context(), "s")
		return err == nil && r.Remaining == 1000-calls
	})
}

// TestFullServer: a server without memory for writes still denies, and its error is none of an outage.
func TestFullServer(t *testing.T) {
	s := valkeytest.Start(t)
	var down, up atomic.Int64
	hooks := ratelimit.Hooks{Down: func(error) { down.Add(1) }, Up: func() { up.Add(1) }}
	l := newLimiter(t, s.Client(), ratelimit.Config{Limits: []ratelimit.Limit{window}, Timeout: 20 * time.Second, Hooks: hooks})
	p := newLimiter(t, s.Client(), ratelimit.Config{Limits: []ratelimit.Limit{window, places}, Timeout: 20 * time.Second, Hooks: hooks})
	for _, l := range []*ratelimit.Limiter{l, p} {
		if r, err := l.AllowN(t.Context(), "s", 12); err != nil || !r.Allowed {
			t.Fatal(r, err)
		}
	}
	set := s.Client().B().Arbitrary("CONFIG", "SET", "maxmemory", "1", "maxmemory-policy", "noeviction").Build()
	if err := s.Client().Do(t.Context(), set).Error(); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*ratelimit.Limiter{l, p} {
		if r, err := l.Allow(t.Context(), "s"); err != nil || r.Allowed || r.RetryAfter <= 0 || r.Remaining != 0 {
			t.Errorf("a denial: %+v, %v", r, err)
		}
		if r, err := l.Allow(t.Context(), "new"); err == nil || r.Allowed || !strings.Contains(err.Error(), "OOM") {
			t.Errorf("an admission: %+v, %v", r, err)
		}
		if r, err := l.Peek(t.Context(), "new"); err != nil || !r.Allowed {
			t.Errorf("a peek: %+v, %v", r, err)
		}
	}
	// Callers that share a call get each its own answer.
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			subject := []string{"s", fmt.Sprint("new", i)}[i%2]
			if r, err := l.Allow(t.Context(), subject); r.Allowed || (err == nil) != (subject == "s") {
				t.Errorf("%s: %+v, %v", subject, r, err)
			}
		})
	}
	all.Wait()
	// Denials and looks don't say that it is over: each of the two limiters is down once.
	for range 2 {
		for _, l := range []*ratelimit.Limiter{l, p} {
			_, _ = l.Allow(t.Context(), "s")
			_, _ = l.Peek(t.Context(), "s")
		}
		if down.Load() != 2 || up.Load() != 0 {
			t.Fatalf("down %d times, up %d times", down.Load(), up.Load())
		}
	}
	set = s.Client().B().Arbitrary("CONFIG", "SET", "maxmemory", "0").Build()
	if err := s.Client().Do(t.Context(), set).Error(); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*ratelimit.Limiter{l, p} {
		if r, err := l.Allow(t.Context(), "s"); err != nil || r.Allowed {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if down.Load() != 2 || up.Load() != 2 {
		t.Errorf("down %d times, up %d times", down.Load(), up.Load())
	}
}

// TestCrossSlot uses a client that does not know that its server is a cluster's: callers of different
// slots can't share a call then, and none of them may be admitted for that.
func TestCrossSlot(t *testing.T) {
	nodes := valkeytest.Cluster(t, 1)
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: nodes.Addrs()[:1], ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	l := newLimiter(t, c, ratelimit.Config{Limits: []ratelimit.Limit{{Limit: 3, Window: 400 * 24 * time.Hour}}, Timeout: 20 * time.Second})
	var allowed atomic.Int64
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			for range 5 {
				r, err := l.Allow(t.Context(), fmt.Sprint(i))
				if err != nil {
					t.Error(err)
				}
				if r.Allowed {
					allowed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if allowed.Load() != 64*3 {
		t.Errorf("%d allowed, want %d", allowed.Load(), 64*3)
	}
}

// TestNoClockIsSent: what is sent does not depend on when, so no client's clock decides anything.
func TestNoClockIsSent(t *testing.T) {
	s := valkeytest.Start(t)
	recorder := &recording{Client: s.Client()}
	for _, limits := range [][]ratelimit.Limit{{window}, {{Algorithm: ratelimit.TokenBucket, Limit: 5, Window: time.Second}}, {window, {Algorithm: ratelimit.SlidingLog, Limit: 5, Window: time.Second}}} {
		l := newLimiter(t, recorder, ratelimit.Config{Limits: limits, Timeout: 20 * time.Second})
		if _, err := l.Allow(t.Context(), "s"); err != nil { // loads the script
			t.Fatal(err)
		}
		var sent []string
		for range 2 {
			recorder.last = ""
			if _, err := l.Allow(t.Context(), "s"); err != nil {
				t.Fatal(err)
			}
			sent = append(sent, recorder.last)
			time.Sleep(2 * time.Millisecond)
		}
		if sent[0] != sent[1] || !strings.HasPrefix(sent[0], "EVALSHA ") {
			t.Errorf("%q, then %q", sent[0], sent[1])
		}
	}
}

type recording struct {
	valkey.Client
	last string
}

func (r *recording) Do(ctx context.Context, cmd valkey.Completed) valkey.ValkeyResult {
	r.last = strings.Join(cmd.Commands(), " ")
	return r.Client.Do(ctx, cmd)
}

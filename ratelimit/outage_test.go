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
	if r, err := none.Allow(t.Context(), "s"); err != nil || r.Allowed || r.RetryAfter != ratelimit.Never {
		t.Errorf("a share of less than one: %+v, %v", r, err)
	}
}

// TestImpatientCallers: the end of a caller's context is no outage while the server answers, and finds
// one where it does not.
func TestImpatientCallers(t *testing.T) {
	s := valkeytest.Start(t)
	l := newLimiter(t, s.Client(), ratelimit.Config{Limits: []ratelimit.Limit{window}, Outage: ratelimit.OutageOpen, Timeout: time.Minute})
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
	l := newLimiter(t, s.Client(), ratelimit.Config{Limits: []ratelimit.Limit{window}, Timeout: 20 * time.Second})
	p := newLimiter(t, s.Client(), ratelimit.Config{Limits: []ratelimit.Limit{window, places}, Timeout: 20 * time.Second})
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

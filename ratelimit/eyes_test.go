package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

func eyesLimiter(t *testing.T, client valkey.Client, cfg ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	l, err := ratelimit.New(client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestEyesTimeoutBesideConnecting: docs/ratelimit.md says "A call ends after Timeout (40 ms) at the latest, whatever the
// caller's deadline". valkey-go lets a call that finds another one connecting wait for that one's result and does not
// look at its context meanwhile (docs/connect.md says so). So where a cache or a session shares the client, as the README
// has it, and its call without a deadline is connecting to a server that hangs, every call of a limiter hangs for
// 5 s and more; beside another limiter's probe it is 250 ms. The breaker is closed until then, so all callers
// wait. Fix: exec (and refund, Reset, Release) must not rely on client.Do to heed its context: run it in a goroutine and
// wait for it or for the context, as gather does for the caller's context, and open the breaker then.
func TestEyesTimeoutBesideConnecting(t *testing.T) {
	ctx := t.Context()
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	client, err := flatrate.Connect(ctx, "valkey://"+s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	l := eyesLimiter(t, client, ratelimit.Config{Limits: []ratelimit.Limit{{Limit: 100, Window: time.Hour}}})
	if _, err := l.Allow(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	for i := range 8 { // both connections break
		short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		client.Do(short, client.B().Get().Key(fmt.Sprint(i)).Build())
		cancel()
	}
	for i := range 8 { // a cache asks, without a deadline
		go client.Do(ctx, client.B().Get().Key(fmt.Sprint(i)).Build())
	}
	time.Sleep(50 * time.Millisecond) // they are connecting; without it the test could only pass
	done := make(chan error, 1)
	go func() {
		_, err := l.Allow(ctx, "x")
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a server that hangs has answered")
		}
	case <-time.After(time.Second):
		t.Error("Allow has a Timeout of 40ms and goes on for over a second")
	}
	s.Resume()
}

// late is a context whose deadline has passed a moment before its Err says so, as that of every context with a deadline
// does: Err waits for a timer and a goroutine.
type late struct {
	context.Context
	deadline time.Time
}

func (c late) Deadline() (time.Time, bool) { return c.deadline, true }

// TestEyesShortDeadline: a caller with a short deadline makes a healthy server count as away, for all. A lone caller's context
// goes to client.Do, which returns DeadlineExceeded by the clock; ask (ask.go:41) then asks ctx.Err(), which is still nil
// until the runtime has run the timer, takes the error for a timeout of its own ("no answer within 2s" after 20 us)
// and opens the breaker: other callers get errors, or under OutageOpen are admitted, until a probe is back. With contexts of
// context.WithTimeout of 0 to 120 us against a server that answers in 50 us some 1 to 3 % of the calls do it. A gRPC client
// sets the deadline of its calls, so anybody can (grpc-timeout: 50u). Fix: a caller is gone too if its deadline has passed
// (ctx.Err() != nil || !time.Now().Before(deadline)); only Timeout's own expiry says that the server is away.
func TestEyesShortDeadline(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	client, err := flatrate.Connect(t.Context(), "valkey://"+slowly(t, s.Addr, 30*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var down atomic.Int64
	l := eyesLimiter(t, client, ratelimit.Config{
		Timeout: 10 * time.Second, Limits: []ratelimit.Limit{{Limit: 1000, Window: time.Hour}}, Outage: ratelimit.OutageOpen,
		Hooks: ratelimit.Hooks{Down: func(error) { down.Add(1) }},
	})
	if _, err := l.Allow(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	r, err := l.Allow(late{t.Context(), time.Now().Add(5 * time.Millisecond)}, "x")
	if err == nil {
		t.Errorf("%+v instead of the error of a context that has ended", r)
	}
	if other, err := l.Allow(t.Context(), "y"); err != nil || other.Mode != ratelimit.ModeServer || down.Load() > 0 {
		t.Errorf("another caller after it: mode %v, %v; the server counted as away %d times", other.Mode, err, down.Load())
	}
}

// slowly returns the address of a proxy that keeps for a while what is sent to the server.
func slowly(t *testing.T, addr string, d time.Duration) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			down, err := listener.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", addr)
			if err != nil {
				down.Close()
				continue
			}
			go func() {
				defer up.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := down.Read(buf)
					if err != nil {
						return
					}
					time.Sleep(d)
					if _, err := up.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
			go func() {
				defer down.Close()
				_, _ = io.Copy(down, up)
			}()
		}
	}()
	return listener.Addr().String()
}

// TestEyesBucketsOfOneName: docs/ratelimit.md says of two processes with different limits under one name that each enforces
// its own on the common count, and of a changed Limit or Burst that it takes the old count along. A bucket keeps no
// count but the time until it is full. Another rate reads that time as another number of units (50 units used at 100 a second
// are half a unit at 1 a second), and what is above its own burst it cuts, and writes (bucket.lua:45, decide.lua:142). So
// while a changed plan is rolled out, each call of the new version, denied ones too, gives the old version nearly its whole
// burst again, without end. Fix: put the reduced rate and the burst into the bucket's SHAPE, so that a change begins anew as a
// changed window does; or keep the units used beside the time, and cut only what the clock explains. Else both sentences have
// to say that buckets are an exception.
func TestEyesBucketsOfOneName(t *testing.T) {
	s := valkeytest.Start(t)
	for name, limits := range map[string][2]ratelimit.Limit{
		"rate":  {{Limit: 1, Window: time.Minute, Burst: 50}, {Limit: 1000, Window: time.Minute, Burst: 50}},
		"burst": {{Limit: 1, Window: time.Minute, Burst: 50}, {Limit: 1, Window: time.Minute, Burst: 5}},
	} {
		t.Run(name, func(t *testing.T) {
			prefix := valkeytest.Prefix(t)
			var of [2]*ratelimit.Limiter
			for i, l := range limits {
				l.Algorithm = ratelimit.TokenBucket
				of[i] = eyesLimiter(t, s.Client(), ratelimit.Config{Prefix: prefix, Name: "plan", Timeout: 5 * time.Second, Limits: []ratelimit.Limit{l}})
			}
			var granted int64
			for range 20 {
				r, err := of[0].AllowAtMost(t.Context(), "x", 50)
				if err != nil {
					t.Fatal(err)
				}
				granted += r.Granted
				if _, err := of[1].AllowAtMost(t.Context(), "x", 50); err != nil { // another version
					t.Fatal(err)
				}
			}
			if granted > 52 {
				t.Errorf("a bucket of 50 that gets one a minute gave %d at once", granted)
			}
		})
	}
}

// TestEyesNothingAsked: AllowAtMost "is allowed if that is one or more", and a cost is from 1 on. AllowAtMost of 0 is allowed,
// charges nothing, and follows no outage mode of a full server or a replica: ask (ask.go:16) cannot tell it from Peek, whose
// count is 0 too. A caller that computes n and gets it wrong is admitted for ever. Fix: AllowAtMost refuses n < 1 before ask. And the
// error about a cost below 1 names 1, the count, as what is out of range "from 1 to ..": it should name the cost.
func TestEyesNothingAsked(t *testing.T) {
	s := valkeytest.Start(t)
	l := eyesLimiter(t, s.Client(), ratelimit.Config{Timeout: 5 * time.Second, Limits: []ratelimit.Limit{{Limit: 2, Window: time.Hour}}})
	if r, err := l.AllowAtMost(t.Context(), "x", 0); err == nil || r.Allowed {
		t.Errorf("AllowAtMost(0): allowed %v with %d units, %v", r.Allowed, r.Granted, err)
	}
	if _, err := l.AllowN(t.Context(), "x", -7); err == nil || !strings.Contains(err.Error(), "-7") {
		t.Errorf("AllowN(-7): %v", err)
	}
}

// TestEyesNegativeAsk: AllowAll charges a unit for an ask whose Cost is negative, forgets the result, and so never gives it back
// (several.go:36 asks for max(1, Cost) before it looks at the sign). In a middleware such requests, which are refused, use up
// the subject's limit. Fix: look at all costs before anything is asked, beside the check for a nil Limiter.
func TestEyesNegativeAsk(t *testing.T) {
	s := valkeytest.Start(t)
	l := eyesLimiter(t, s.Client(), ratelimit.Config{Timeout: 5 * time.Second, Limits: []ratelimit.Limit{{Limit: 3, Window: 24 * 365 * time.Hour}}})
	if _, allowed, err := ratelimit.AllowAll(t.Context(), ratelimit.Ask{Limiter: l, Subject: "x", Cost: -1}); allowed || err == nil {
		t.Errorf("allowed %v, %v", allowed, err)
	}
	if r, err := l.Peek(t.Context(), "x"); err != nil || r.Remaining != 3 {
		t.Errorf("%d of 3 left after a call that was an error (%v)", r.Remaining, err)
	}
}

// TestEyesRememberedCost: a denial of one unit is remembered, and answers every cost with the time of one unit (denied.go:36): above
// the limit RetryAfter is not Never and Wait not ErrNever, and for several units of a bucket, a log or a ring it is too
// early, by up to a whole window. Retry-After "never too early" is untrue then. Fix: find answers costs above one only
// with a time that holds for them (for buckets computable), or leaves them to the server; a cost above Result.Limit is Never at once.
func TestEyesRememberedCost(t *testing.T) {
	s := valkeytest.Start(t)
	l := eyesLimiter(t, s.Client(), ratelimit.Config{
		RememberDenied: time.Hour, Timeout: 5 * time.Second,
		Limits: []ratelimit.Limit{{Algorithm: ratelimit.TokenBucket, Limit: 10, Window: time.Hour}},
	})
	for _, n := range []int64{10, 1} { // the second is denied, and remembered
		if _, err := l.AllowN(t.Context(), "x", n); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := l.AllowN(t.Context(), "x", 5); err != nil || r.Allowed || r.RetryAfter < 25*time.Minute {
		t.Errorf("5 units come back after 30 minutes, RetryAfter is %v (mode %v, %v)", r.RetryAfter, r.Mode, err)
	}
	if r, err := l.AllowN(t.Context(), "x", 11); err != nil || r.RetryAfter != ratelimit.Never {
		t.Errorf("11 units of a bucket of 10: RetryAfter is %v (mode %v, %v)", r.RetryAfter, r.Mode, err)
	}
}

// TestEyesLocalNever: while the server is away a cost above this process's share is answered with Never, and Wait returns ErrNever,
// "a request that no waiting will admit", although the limit has room for it and the server will admit it when it is
// back (local.go:118). So is everything if Limit < Processes. In HTTP that is a 429 without Retry-After, whose body says that
// repeating it is of no use. Fix: Never only above the limit itself; above the share closedRetry, as OutageClosed says.
func TestEyesLocalNever(t *testing.T) {
	s := valkeytest.Start(t)
	l := eyesLimiter(t, s.Client(), ratelimit.Config{
		Outage: ratelimit.OutageLocal, Processes: 4, Limits: []ratelimit.Limit{{Limit: 100, Window: time.Hour}},
	})
	s.Kill()
	r, err := l.AllowN(t.Context(), "x", 50)
	if err != nil || r.Mode != ratelimit.ModeLocal || r.RetryAfter == ratelimit.Never {
		t.Errorf("50 of 100: mode %v, RetryAfter %v, %v", r.Mode, r.RetryAfter, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.Wait(ctx, "x", 50); errors.Is(err, ratelimit.ErrNever) {
		t.Errorf("Wait for 50 of 100: %v", err)
	}
}

// TestEyesLocalLimits: Result.Limits has "the results of all limits, in the order of Config.Limits". In mode local it has only those
// that have OutageLocal (local.go:47 leaves the others out), so what ratehttp finds at an index is another limit's: its
// headers, problems and gRPC violations name the wrong one. Fix: keep a localRule for each limit, with one that always has
// room for those that are open (as many units as Limit); or have ratehttp match by name.
func TestEyesLocalLimits(t *testing.T) {
	s := valkeytest.Start(t)
	l := eyesLimiter(t, s.Client(), ratelimit.Config{Processes: 1, Limits: []ratelimit.Limit{
		{Name: "open", Limit: 1000, Window: time.Hour, Outage: ratelimit.OutageOpen},
		{Name: "local", Limit: 10, Window: time.Hour, Outage: ratelimit.OutageLocal},
	}})
	s.Kill()
	r, err := l.Allow(t.Context(), "x")
	if err != nil || r.Mode != ratelimit.ModeLocal {
		t.Fatalf("%+v %v", r, err)
	}
	for i, want := range l.Limits() {
		if got := r.Limits(); i >= len(got) || got[i].Name != want.Name {
			t.Errorf("Limits()[%d] is not %q: %+v", i, want.Name, got)
		}
	}
}

// TestEyesSilentlyOpen: an error that the server answers with (NOPERM, READONLY, BUSY, LOADING, CLUSTERDOWN, MISCONF) follows the
// outage mode, but Hooks.Down is never called for it, although "until Up, decisions are made without" the server. With
// OutageOpen one forgotten right in an ACL means that there are no limits, and nothing says so but the Mode of each Result. The page
// mentions the full server only. Fix: report it (Down once, Up with the next answer that decides), without keeping calls from the
// server; and a row in docs/ratelimit.md, "the server answers with an error".
func TestEyesSilentlyOpen(t *testing.T) {
	s := valkeytest.Start(t)
	var down atomic.Int64
	l := eyesLimiter(t, s.Client(), ratelimit.Config{
		Outage: ratelimit.OutageOpen, Limits: []ratelimit.Limit{{Limit: 1, Window: time.Hour}}, Timeout: 5 * time.Second,
		Hooks: ratelimit.Hooks{Down: func(error) { down.Add(1) }},
	})
	c := s.Client()
	if err := c.Do(t.Context(), c.B().Arbitrary("ACL", "SETUSER", "default", "-evalsha", "-eval").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if r, err := l.Allow(t.Context(), "x"); err != nil || r.Mode != ratelimit.ModeOpen {
			t.Fatalf("%+v %v", r, err)
		}
	}
	if down.Load() == 0 {
		t.Error("ten requests went on without the limit, and Hooks.Down has not been called")
	}
}

// TestEyesHeldExpiry: "a key that lost its expiry gets one with the next decision that counts or denies". The places of a Concurrency
// limit get one only when a place is given (decide.lua:263): while all are held by what has no expiry, or another limit of the
// plan denies, the set stays for ever once its subject is silent. Fix: where left <= 0 and not quiet, PEXPIRE the set if
// its PTTL is -1.
func TestEyesHeldExpiry(t *testing.T) {
	s := valkeytest.Start(t)
	c := s.Client()
	l := eyesLimiter(t, c, ratelimit.Config{Prefix: "p", Timeout: 5 * time.Second, Limits: []ratelimit.Limit{{Algorithm: ratelimit.Concurrency, Limit: 1}}})
	if r, err := l.Allow(t.Context(), "x"); err != nil || !r.Allowed {
		t.Fatalf("%+v %v", r, err)
	}
	if n, err := c.Do(t.Context(), c.B().Persist().Key("p:rate:c:{x}:held").Build()).AsInt64(); n != 1 {
		t.Fatal(n, err)
	}
	if r, err := l.Allow(t.Context(), "x"); err != nil || r.Allowed {
		t.Fatalf("%+v %v", r, err)
	}
	if ms, err := c.Do(t.Context(), c.B().Pttl().Key("p:rate:c:{x}:held").Build()).AsInt64(); err != nil || ms < 0 {
		t.Errorf("after a denial the places have an expiry of %d, %v", ms, err)
	}
}

// TestEyesLeaseOfAnother: a process that has a shorter Lease under the same name cuts the leases of places that another one has given
// (decide.lua:218, on a denial): the requests that hold them go on, and their places are given away early, so more than Limit
// run by anybody's settings. It happens while a plan with a shorter lease is rolled out. "Each enforces its own on the
// common count" does not say so, nor does "a lease ends while its request still runs". Fix: say it in the table of failures
// ("shorten a Lease only under a new Name"), or cut only what lies beyond a lease that the member itself names.
func TestEyesLeaseOfAnother(t *testing.T) {
	s := valkeytest.Start(t)
	var of [2]*ratelimit.Limiter
	for i, lease := range []time.Duration{time.Hour, time.Millisecond} {
		of[i] = eyesLimiter(t, s.Client(), ratelimit.Config{Prefix: "p", Timeout: 5 * time.Second, Limits: []ratelimit.Limit{{Algorithm: ratelimit.Concurrency, Limit: 1, Lease: lease}}})
	}
	r, err := of[0].Allow(t.Context(), "x")
	if err != nil || !r.Allowed {
		t.Fatalf("%+v %v", r, err)
	}
	if _, err := of[1].Allow(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if r, err := of[1].Wait(ctx, "x", 1); err == nil {
		t.Errorf("a place that is held for an hour was given to another: %+v", r)
	}
}

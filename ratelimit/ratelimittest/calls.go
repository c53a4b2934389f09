package ratelimittest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
)

// lasting are a limit of each algorithm that gives nothing back while a test runs.
func lasting(limit int64) map[string]ratelimit.Limit {
	return map[string]ratelimit.Limit{
		"fixed":   {Limit: limit, Window: longWindow},
		"sliding": {Algorithm: ratelimit.SlidingWindow, Limit: limit, Window: longWindow},
		"log":     {Algorithm: ratelimit.SlidingLog, Limit: limit, Window: longWindow},
		"bucket":  {Algorithm: ratelimit.TokenBucket, Limit: 1, Window: 30 * 24 * time.Hour, Burst: limit},
		"quota":   {Algorithm: ratelimit.Quota, Limit: limit, Period: ratelimit.Month, Offset: 27 * 24 * time.Hour},
	}
}

// calls holds each call for each algorithm to its documentation.
func calls(t *testing.T, env valkeytest.Env) {
	for name, limit := range lasting(10) {
		t.Run(name, func(t *testing.T) {
			l := newLimiter(t, env, ratelimit.Config{Limits: []ratelimit.Limit{limit}})
			peek := func(left int64) {
				t.Helper()
				for range 2 {
					if r, err := l.Peek(t.Context(), "s"); err != nil || r.Remaining != left || r.Allowed != (left > 0) || r.Granted != 0 {
						t.Fatalf("peek: %+v, %v; want %d left", r, err, left)
					}
				}
			}
			peek(10)
			first := ask(t, l, "s", 4)
			peek(6)
			// Denials are not counted, and don't move the time at which something comes back.
			for range 20 {
				if r := ask(t, l, "s", 7); r.Allowed || r.Remaining != 6 || r.RetryAfter <= 0 || r.RetryAfter == ratelimit.Never || len(r.Violated) != 1 {
					t.Fatalf("%+v", r)
				}
			}
			r, err := l.AllowAtMost(t.Context(), "s", 9)
			if err != nil || !r.Allowed || r.Granted != 6 || r.Remaining != 0 {
				t.Fatalf("at most 9: %+v, %v", r, err)
			}
			if r, err := l.AllowAtMost(t.Context(), "s", 9); err != nil || r.Allowed || r.Granted != 0 || r.RetryAfter <= 0 {
				t.Fatalf("at most 9 of nothing: %+v, %v", r, err)
			}
			peek(0)
			for _, n := range []int64{3, 1} {
				if err := l.Refund(t.Context(), "s", first, n); err != nil {
					t.Fatal(err)
				}
			}
			peek(4)
			if err := l.Refund(t.Context(), "s", first, 5); err == nil {
				t.Error("more was given back than granted")
			}
			if r := ask(t, l, "s", 11); r.Allowed || r.RetryAfter != ratelimit.Never {
				t.Errorf("above the limit: %+v", r)
			}
			if err := l.Reset(t.Context(), "s"); err != nil {
				t.Fatal(err)
			}
			peek(10)
		})
	}
}

// changes holds what happens to counts when a plan changes under its name.
func changes(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	plan := func(limits ...ratelimit.Limit) *ratelimit.Limiter {
		return newLimiter(t, env, ratelimit.Config{Prefix: prefix, Name: "n", Limits: limits})
	}
	for name, limit := range lasting(10) {
		l := plan(limit)
		if r := ask(t, l, name, 8); !r.Allowed {
			t.Fatalf("%s: another plan's units were counted: %+v", name, r)
		}
		// Another window, or algorithm, or one more limit, is another count.
		other := limit
		if other.Window != 0 {
			other.Window -= time.Hour
		} else {
			other.Offset -= time.Hour
		}
		for i, l := range []*ratelimit.Limiter{plan(other), plan(limit, ratelimit.Limit{Limit: 10, Window: time.Hour})} {
			if r := ask(t, l, name, 8); !r.Allowed {
				t.Errorf("%s, change %d: %+v", name, i, r)
			}
		}
		// Another limit takes the count along: a raised one admits the difference, a lowered one nothing. A bucket keeps
		// no count that another could take, and begins anew.
		raised, lowered := limit, limit
		if limit.Burst != 0 {
			raised.Burst, lowered.Burst = 15, 5
		} else {
			raised.Limit, lowered.Limit = 15, 5
		}
		left, want := int64(0), int64(7)
		if limit.Burst != 0 {
			left, want = 4, 15
		}
		if r := ask(t, plan(lowered), name, 1); r.Allowed != (left > 0) || r.Remaining != left {
			t.Errorf("%s lowered: %+v", name, r)
		}
		if r, err := plan(raised).AllowAtMost(t.Context(), name, 100); err != nil || r.Granted != want {
			t.Errorf("%s raised: %d granted, want %d (%v)", name, r.Granted, want, err)
		}
	}
}

// places holds Concurrency to its documentation.
func places(t *testing.T, env valkeytest.Env) {
	const lease = 300 * time.Millisecond
	l := newLimiter(t, env, ratelimit.Config{Limits: []ratelimit.Limit{{Algorithm: ratelimit.Concurrency, Limit: 2, Lease: lease}}})
	a, b := ask(t, l, "s", 1), ask(t, l, "s", 100) // one place, whatever the cost
	if !a.Allowed || !b.Allowed || b.Remaining != 0 {
		t.Fatalf("%+v, %+v", a, b)
	}
	if d := ask(t, l, "s", 1); d.Allowed {
		// Both leases may have ended on a slow machine; then this is no third one.
		if r, err := l.Peek(t.Context(), "s"); err != nil || r.Remaining != 1 {
			t.Fatalf("a third place: %+v, %v", r, err)
		}
	} else if d.RetryAfter <= 0 || d.RetryAfter > lease {
		t.Fatalf("%+v", d)
	}
	held, err := l.Release(t.Context(), "s", a)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := l.Release(t.Context(), "s", a); err != nil || again {
		t.Fatalf("released again: %v, %v", again, err)
	}
	if held {
		if c := ask(t, l, "s", 1); !c.Allowed {
			t.Fatalf("a place was released: %+v", c)
		}
	}
	env.Advance(lease + time.Millisecond)
	for range 2 {
		if r := ask(t, l, "s", 1); !r.Allowed {
			t.Fatalf("the leases have ended: %+v", r)
		}
	}
	if held, err := l.Release(t.Context(), "s", b); err != nil || held {
		t.Errorf("a lease that has ended: %v, %v", held, err)
	}
}

// several holds that of several limits all or none are charged, in one state.
func several(t *testing.T, env valkeytest.Env) {
	l := newLimiter(t, env, ratelimit.Config{Limits: []ratelimit.Limit{
		{Name: "many", Limit: 100, Window: longWindow},
		{Name: "few", Algorithm: ratelimit.TokenBucket, Limit: 1, Window: longWindow, Burst: 3},
		{Name: "log", Algorithm: ratelimit.SlidingLog, Limit: 50, Window: longWindow},
		{Name: "places", Algorithm: ratelimit.Concurrency, Limit: 20, Lease: longWindow},
	}})
	left := func(r ratelimit.Result, want ...int64) {
		t.Helper()
		for i, one := range r.Limits() {
			if one.Remaining != want[i] {
				t.Fatalf("%s: %d left, want %d", one.Name, one.Remaining, want[i])
			}
		}
	}
	r := ask(t, l, "s", 2)
	left(r, 98, 1, 48, 19)
	if !r.Allowed || r.Name != "few" || r.Remaining != 1 || r.Limit != 3 {
		t.Fatalf("the most restrictive: %+v", r)
	}
	r = ask(t, l, "s", 2)
	left(r, 98, 1, 48, 19)
	if r.Allowed || len(r.Violated) != 1 || r.Violated[0] != "few" {
		t.Fatalf("%+v", r)
	}
	r = ask(t, l, "s", 51)
	left(r, 98, 1, 48, 19)
	if r.Allowed || len(r.Violated) != 2 || r.RetryAfter != ratelimit.Never {
		t.Fatalf("%+v", r)
	}
}

// subjectsTogether holds that of several subjects all or none are charged.
func subjectsTogether(t *testing.T, env valkeytest.Env) {
	user := newLimiter(t, env, fixed(5, longWindow))
	org := newLimiter(t, env, ratelimit.Config{Limits: []ratelimit.Limit{
		{Limit: 7, Window: longWindow}, {Algorithm: ratelimit.Concurrency, Limit: 9, Lease: longWindow},
	}})
	both := func(name string, cost int64) bool {
		t.Helper()
		results, ok, err := ratelimit.AllowAll(t.Context(), ratelimit.Ask{Limiter: user, Subject: name, Cost: cost}, ratelimit.Ask{Limiter: org, Subject: "org", Cost: cost})
		if err != nil || len(results) != 2 {
			t.Fatal(results, err)
		}
		return ok
	}
	if !both("a", 4) || both("b", 4) || !both("b", 3) || both("b", 0) {
		t.Error("not all or nothing")
	}
	for name, want := range map[string]int64{"a": 1, "b": 2} {
		if r, err := user.Peek(t.Context(), name); err != nil || r.Remaining != want {
			t.Errorf("%s has %d left, want %d (%v)", name, r.Remaining, want, err)
		}
	}
	if r, err := org.Peek(t.Context(), "org"); err != nil || r.Limits()[1].Remaining != 7 {
		t.Errorf("places: %+v, %v", r, err)
	}
	if _, ok, err := ratelimit.AllowAll(t.Context(), ratelimit.Ask{Limiter: user, Subject: "c"}, ratelimit.Ask{Limiter: org, Subject: "org2", Cost: -1}); ok || err == nil {
		t.Error("a negative cost")
	}
	if r, err := user.Peek(t.Context(), "c"); err != nil || r.Remaining != 5 {
		t.Errorf("what was granted beside an error was not given back: %+v, %v", r, err)
	}
	if _, _, err := ratelimit.AllowAll(t.Context(), ratelimit.Ask{}); err == nil {
		t.Error("no limiter")
	}
}

// gathered lets many callers ask for few subjects at the same time, and counts what they were granted.
func gathered(t *testing.T, env valkeytest.Env) {
	const limit, callers, each = 400, 32, 40
	all := lasting(limit)
	for name, limits := range map[string][]ratelimit.Limit{
		"fixed": {all["fixed"]}, "bucket": {all["bucket"]}, "sliding": {all["sliding"]}, "log": {all["log"]},
		"several": {all["fixed"], all["bucket"], all["quota"]},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLimiter(t, env, ratelimit.Config{Limits: limits})
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			var granted [3]atomic.Int64
			lowest := [3]sync.Map{} // what is left after each grant of one unit
			var wg sync.WaitGroup
			for caller := range callers {
				wg.Go(func() {
					random := rand.New(rand.NewPCG(seed, uint64(caller)))
					for range each {
						i, n := random.IntN(3), 1+max(0, random.Int64N(8)-4)
						var r ratelimit.Result
						var err error
						if random.IntN(8) == 0 {
							r, err = l.AllowAtMost(t.Context(), string(rune('a'+i)), n)
						} else {
							r, err = l.AllowN(t.Context(), string(rune('a'+i)), n)
						}
						if err != nil {
							t.Error(err)
							return
						}
						granted[i].Add(r.Granted)
						if r.Allowed {
							if _, again := lowest[i].LoadOrStore(r.Limits()[0].Remaining, true); again {
								t.Errorf("two were told that %d are left", r.Limits()[0].Remaining)
							}
						} else if r.Limits()[0].Remaining >= n {
							t.Errorf("%d of %d denied: %+v", n, r.Limits()[0].Remaining, r)
						}
					}
				})
			}
			wg.Wait()
			for i := range granted {
				r, err := l.Peek(t.Context(), string(rune('a'+i)))
				if err != nil || r.Limits()[0].Remaining != limit-granted[i].Load() {
					t.Errorf("%d granted, and %d left of %d (%v)", granted[i].Load(), r.Limits()[0].Remaining, limit, err)
				}
			}
		})
	}
}

// batchesAdd holds that processes which take units in advance never admit more than the limit, nor
// waste what they leave over.
func batchesAdd(t *testing.T, env valkeytest.Env) {
	const processes, limit, batch = 3, 500, 20
	prefix := valkeytest.Prefix(t)
	var granted, local atomic.Int64
	var all sync.WaitGroup
	limiters := make([]*ratelimit.Limiter, processes)
	for p := range processes {
		l := newLimiter(t, env, ratelimit.Config{Prefix: prefix, Limits: []ratelimit.Limit{{Limit: limit, Window: longWindow}}, Batch: batch, BatchFor: time.Minute})
		limiters[p] = l
		for range 4 {
			all.Go(func() {
				for n := int64(0); n < 150; n++ {
					r, err := l.AllowN(t.Context(), "s", 1+n%3)
					if err != nil {
						t.Error(err)
						return
					}
					granted.Add(r.Granted)
					if r.Mode == ratelimit.ModeBatch {
						local.Add(1)
					}
					if r.Remaining < 0 || r.Remaining > limit {
						t.Errorf("%+v", r)
					}
				}
			})
		}
	}
	all.Wait()
	if n := granted.Load(); n > limit || n < limit-processes*batch {
		t.Errorf("%d granted of %d", n, limit)
	}
	if local.Load() == 0 {
		t.Error("no batch was used")
	}
}

// remembered holds what is answered without the server, and for how long.
func remembered(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	cfg := ratelimit.Config{Prefix: prefix, Limits: []ratelimit.Limit{{Limit: 2, Window: longWindow}}}
	other := newLimiter(t, env, cfg)
	cfg.RememberDenied = time.Minute
	l := newLimiter(t, env, cfg)
	first := ask(t, l, "s", 2)
	d := ask(t, l, "s", 1)
	if d.Allowed || d.Mode != ratelimit.ModeServer {
		t.Fatalf("%+v", d)
	}
	again := ask(t, l, "s", 1)
	if again.Allowed || again.Mode != ratelimit.ModeDenied || again.RetryAfter > d.RetryAfter || again.RetryAfter <= 0 || len(again.Violated) != 1 {
		t.Fatalf("%+v", again)
	}
	if r, err := l.Peek(t.Context(), "s"); err != nil || r.Mode != ratelimit.ModeServer {
		t.Errorf("a peek asks the server: %+v, %v", r, err)
	}
	// What this process gives back it knows at once; a denial of more than one unit says little.
	if err := l.Refund(t.Context(), "s", first, 1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := ask(t, l, "s", 2); r.Allowed || r.Mode != ratelimit.ModeServer {
			t.Fatalf("%+v", r)
		}
	}
	if r := ask(t, l, "s", 1); !r.Allowed {
		t.Fatalf("a wrong denial: %+v", r)
	}
	ask(t, l, "s", 1)
	if err := l.Reset(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	if r := ask(t, l, "s", 2); !r.Allowed {
		t.Fatalf("a wrong denial after a reset: %+v", r)
	}
	// What others give back is seen after RememberDenied.
	cfg.RememberDenied = time.Nanosecond
	soon := newLimiter(t, env, cfg)
	if r := ask(t, soon, "s", 1); r.Allowed {
		t.Fatalf("%+v", r)
	}
	if err := other.Reset(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	if r := ask(t, soon, "s", 1); !r.Allowed {
		t.Fatalf("a wrong denial after another's reset: %+v", r)
	}
}

func waits(t *testing.T, env valkeytest.Env) {
	if env.Embedded {
		t.Skip("the clock of the embedded engine does not move by itself")
	}
	l := newLimiter(t, env, ratelimit.Config{Limits: []ratelimit.Limit{{Algorithm: ratelimit.TokenBucket, Limit: 100, Window: time.Second, Burst: 2}}})
	for range 10 {
		if r, err := l.Wait(t.Context(), "s", 2); err != nil || !r.Allowed {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if _, err := l.Wait(t.Context(), "s", 3); !errors.Is(err, ratelimit.ErrNever) {
		t.Errorf("more than the burst: %v", err)
	}
	slow := newLimiter(t, env, fixed(1, longWindow))
	ask(t, slow, "s", 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if _, err := slow.Wait(ctx, "s", 1); !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		t.Errorf("a wait that can't succeed: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := slow.Wait(ctx, "s", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was cancelled: %v", err)
	}
	// A place is waited for until it is released.
	p := newLimiter(t, env, ratelimit.Config{Limits: []ratelimit.Limit{{Algorithm: ratelimit.Concurrency, Limit: 1, Lease: longWindow}}})
	held := ask(t, p, "s", 1)
	released := make(chan struct{})
	time.AfterFunc(20*time.Millisecond, func() {
		defer close(released)
		if ok, err := p.Release(t.Context(), "s", held); err != nil || !ok {
			t.Errorf("release: %v, %v", ok, err)
		}
	})
	if r, err := p.Wait(t.Context(), "s", 1); err != nil || !r.Allowed {
		t.Errorf("%+v, %v", r, err)
	}
	<-released
}

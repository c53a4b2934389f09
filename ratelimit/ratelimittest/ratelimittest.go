// Package ratelimittest is the conformance suite of package ratelimit: what holds on every kind of
// server.
package ratelimittest

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
)

// Run runs the suite against env.
func Run(t *testing.T, env valkeytest.Env) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, valkeytest.Env)
	}{
		{"Window", oneWindow},
		{"Costs", costs},
		{"LargeNumbers", largeNumbers},
		{"Subjects", subjects},
		{"Healing", healing},
		{"Concurrent", concurrent},
		{"Calls", calls},
		{"Changes", changes},
		{"Places", places},
		{"Several", several},
		{"SubjectsTogether", subjectsTogether},
		{"Gathered", gathered},
		{"Batches", batchesAdd},
		{"RememberDenied", remembered},
		{"Wait", waits},
		{"Accuracy", accuracy},
		{"RealClock", realClock},
		{"Oracle", shortOracle},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, env) })
	}
}

func newLimiter(t *testing.T, env valkeytest.Env, cfg ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 20 * time.Second // a busy machine is not an outage
	}
	l, err := ratelimit.New(env.Client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func fixed(limit int64, window time.Duration) ratelimit.Config {
	return ratelimit.Config{Limits: []ratelimit.Limit{{Limit: limit, Window: window}}}
}

func ask(t *testing.T, l *ratelimit.Limiter, subject string, n int64) ratelimit.Result {
	t.Helper()
	r, err := l.AllowN(t.Context(), subject, n)
	if err != nil {
		t.Fatalf("AllowN(%.40q, %d): %v", subject, n, err)
	}
	return r
}

// longWindow doesn't end while a test runs, unless that is started just when one does.
const longWindow = 400 * 24 * time.Hour

func oneWindow(t *testing.T, env valkeytest.Env) {
	const window = 200 * time.Millisecond
	l := newLimiter(t, env, fixed(3, window))
	r := ask(t, l, "s", 3)
	if !r.Allowed || r.Limit != 3 || r.Remaining != 0 || r.RetryAfter != 0 {
		t.Fatalf("%+v", r)
	}
	if r.ResetAfter <= 0 || r.ResetAfter > window || r.Reset.UnixMilli()%window.Milliseconds() != 0 {
		t.Fatalf("a window that is not aligned: %+v", r)
	}
	if d := ask(t, l, "s", 1); d.Reset.Equal(r.Reset) && (d.Allowed || d.RetryAfter != d.ResetAfter || d.Remaining != 0) {
		t.Fatalf("over the limit: %+v", d)
	}
	env.Advance(r.ResetAfter)
	if n := ask(t, l, "s", 2); !n.Allowed || !n.Reset.After(r.Reset) {
		t.Fatalf("in the next window: %+v, after %+v", n, r)
	}
}

func costs(t *testing.T, env valkeytest.Env) {
	l := newLimiter(t, env, fixed(10, longWindow))
	for _, step := range []struct {
		n       int64
		allowed bool
		left    int64
	}{{4, true, 6}, {7, false, 6}, {6, true, 0}, {1, false, 0}, {11, false, 0}} {
		r := ask(t, l, "s", step.n)
		if r.Allowed != step.allowed || r.Remaining != step.left {
			t.Fatalf("%d units: %+v, want %+v", step.n, r, step)
		}
		if never := r.RetryAfter == ratelimit.Never; never != (step.n > 10) {
			t.Errorf("%d units of 10: retry after %v", step.n, r.RetryAfter)
		}
	}
	for _, n := range []int64{0, -1, ratelimit.MaxLimit + 1} {
		if r, err := l.AllowN(t.Context(), "s", n); err == nil || r.Allowed {
			t.Errorf("a cost of %d: %+v, %v", n, r, err)
		}
	}
}

func largeNumbers(t *testing.T, env valkeytest.Env) {
	l := newLimiter(t, env, fixed(ratelimit.MaxLimit, longWindow))
	for _, step := range []struct {
		n       int64
		allowed bool
		left    int64
	}{{ratelimit.MaxLimit - 1, true, 1}, {2, false, 1}, {1, true, 0}, {1, false, 0}} {
		if r := ask(t, l, "s", step.n); r.Allowed != step.allowed || r.Remaining != step.left {
			t.Fatalf("%d units: %+v, want %+v", step.n, r, step)
		}
	}
}

// subjects holds that no subject, and no name of a limit, meets another's counter.
func subjects(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	for _, name := range []string{"", "a", "a:b", "a{b}", "w400d", "w400d:"} {
		l := newLimiter(t, env, ratelimit.Config{Prefix: prefix, Name: name, Limits: []ratelimit.Limit{{Limit: 1, Window: longWindow}}})
		for _, subject := range []string{
			"", "%", "{", "}", "{}", "a", "a ", "b:{a}", "%7Ba%7D", "a\x00", "a\n", "*", "ü", "\xff",
			strings.Repeat("x", 512), strings.Repeat("x", 513), strings.Repeat("x", 1<<20),
		} {
			if r := ask(t, l, subject, 1); !r.Allowed {
				t.Errorf("%q, %.40q: somebody else's unit was counted", name, subject)
			}
			if r := ask(t, l, subject, 1); r.Allowed {
				t.Errorf("%q, %.40q: the unit was not counted", name, subject)
			}
		}
	}
}

// healing puts foreign values in the state's place: they never fail a call and never admit more than
// the limit, and every key ends.
func healing(t *testing.T, env valkeytest.Env) {
	c, prefix := env.Client, valkeytest.Prefix(t)
	index := strconv.FormatInt(serverMs(t, env)/longWindow.Milliseconds(), 10)
	l := newLimiter(t, env, ratelimit.Config{Prefix: prefix, Name: "n", Limits: []ratelimit.Limit{{Limit: 2, Window: longWindow}}})
	for _, test := range []struct {
		name string
		cmd  []string
		left int64 // after one unit was asked for
		ok   bool
	}{
		{"a counter without expiry", []string{"SET", index + " 1"}, 0, true},
		{"a full counter without expiry", []string{"SET", index + " 2"}, 0, false},
		{"a counter beyond all limits", []string{"SET", index + " 99999999999999999999999999"}, 0, false},
		{"a counter of the future", []string{"SET", "99999999999999999999999999 2"}, 0, false},
		{"a counter of the past", []string{"SET", "1 2"}, 1, true},
		{"the plain integer of an old layout", []string{"SET", "2"}, 1, true},
		{"not a number", []string{"SET", "nan"}, 1, true},
		{"not a number in its place", []string{"SET", index + " nan"}, 1, true},
		{"a hexadecimal number", []string{"SET", index + " 0x10"}, 1, true},
		{"a negative number", []string{"SET", index + " -5"}, 1, true},
		{"text", []string{"SET", "x"}, 1, true},
		{"an empty string", []string{"SET", ""}, 1, true},
		{"a list", []string{"RPUSH", "x"}, 1, true},
		{"a hash", []string{"HSET", "f", "v"}, 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			key := prefix + ":rate:n:w400d:{" + strings.ReplaceAll(test.name, " ", "%20") + "}"
			set := c.B().Arbitrary(test.cmd[0]).Keys(key).Args(test.cmd[1:]...).Build()
			if err := c.Do(t.Context(), set).Error(); err != nil {
				t.Fatal(err)
			}
			if r := ask(t, l, test.name, 1); r.Allowed != test.ok || r.Remaining != test.left {
				t.Errorf("%+v, want allowed %v and %d left", r, test.ok, test.left)
			}
			if ms, err := c.Do(t.Context(), c.B().Pttl().Key(key).Build()).AsInt64(); err != nil || ms <= 0 {
				t.Errorf("it never ends: PTTL %d, %v", ms, err)
			}
		})
	}
}

func serverMs(t *testing.T, env valkeytest.Env) int64 {
	t.Helper()
	parts, err := env.Client.Do(t.Context(), env.Client.B().Time().Build()).AsIntSlice()
	if err != nil || len(parts) != 2 {
		t.Fatal(parts, err)
	}
	return parts[0]*1000 + parts[1]/1000
}

func concurrent(t *testing.T, env valkeytest.Env) {
	l := newLimiter(t, env, fixed(100, longWindow))
	var allowed atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 40 {
				if r, err := l.Allow(t.Context(), "hot"); err != nil {
					t.Error(err)
				} else if r.Allowed {
					allowed.Add(1)
				}
			}
		})
	}
	callers.Wait()
	if allowed.Load() != 100 {
		t.Errorf("%d of 320 allowed, the limit is 100", allowed.Load())
	}
}

// realClock drives the script, on the server's own clock, and an integer oracle with the same random schedule. Each answer names its
// window, so the oracle needs no clock.
func realClock(t *testing.T, env valkeytest.Env) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const limit = 7
	l := newLimiter(t, env, fixed(limit, 25*time.Millisecond))
	type window struct {
		subject string
		ends    int64
	}
	used, last := map[window]int64{}, map[string]int64{}
	for step := range 3000 {
		subject, n := string(rune('a'+random.IntN(3))), 1+random.Int64N(4)
		r := ask(t, l, subject, n)
		w := window{subject, r.Reset.UnixMilli()}
		if w.ends < last[subject] {
			t.Fatalf("step %d: the window went back from %d to %d", step, last[subject], w.ends)
		}
		last[subject] = w.ends
		want := used[w]+n <= limit
		if want {
			used[w] += n
		}
		if r.Allowed != want || r.Remaining != limit-used[w] {
			t.Fatalf("step %d: %d units for %s: %+v; model: allowed %v, %d used", step, n, subject, r, want, used[w])
		}
		if random.IntN(100) == 0 {
			env.Advance(time.Duration(random.IntN(40)) * time.Millisecond)
		}
	}
	if len(used) < 10 {
		t.Errorf("only %d windows were seen", len(used))
	}
}

// shortOracle is a glance; the long run is TestOracle.
func shortOracle(t *testing.T, env valkeytest.Env) {
	ops := 3000
	if env.Embedded {
		ops = 400
	}
	Oracle(t, env, ops, 4)
}

package ratelimit_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratelimittest"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestConformance(t *testing.T) { valkeytest.Each(t, ratelimittest.Run) }

// TestOracle holds the scripts against the model for FLATRATE_ORACLE operations of each plan, on one
// server and on a cluster: make oracle.
func TestOracle(t *testing.T) {
	ops, err := strconv.Atoi(os.Getenv("FLATRATE_ORACLE"))
	if err != nil {
		t.Skip("FLATRATE_ORACLE is not a number of operations: the conformance suite has a short run")
	}
	t.Run("server", func(t *testing.T) {
		ratelimittest.Oracle(t, valkeytest.Env{Client: valkeytest.Start(t).Client()}, ops, 32)
	})
	t.Run("cluster", func(t *testing.T) {
		ratelimittest.Oracle(t, valkeytest.Env{Client: valkeytest.Cluster(t, 3).Client()}, ops/10, 32)
	})
}

func TestNewNamesTheField(t *testing.T) {
	c := valkeytest.Start(t).Client()
	type limit = ratelimit.Limit
	limits := func(all ...limit) ratelimit.Config { return ratelimit.Config{Limits: all} }
	one := limit{Limit: 1, Window: time.Second}
	with := func(edit func(*ratelimit.Config)) ratelimit.Config {
		cfg := limits(one)
		edit(&cfg)
		return cfg
	}
	places := limit{Algorithm: ratelimit.Concurrency, Limit: 1}
	quota := limit{Algorithm: ratelimit.Quota, Limit: 1, Period: ratelimit.Day}
	bucket := limit{Algorithm: ratelimit.TokenBucket, Limit: 1, Window: time.Second}
	for want, cfgs := range map[string][]ratelimit.Config{
		"Config.Limits has":             {{}, limits(make([]limit, 17)...)},
		"Config.Limits[0].Limit is":     {limits(limit{Window: 1}), limits(limit{Limit: -1, Window: 1}), limits(limit{Limit: ratelimit.MaxLimit + 1, Window: 1}), limits(limit{Algorithm: ratelimit.SlidingLog, Limit: ratelimit.MaxLog + 1, Window: 1}), limits(limit{Algorithm: ratelimit.TokenBucket, Limit: ratelimit.MaxLimit - 1, Window: time.Second})},
		"Config.Limits[1].Window is":    {limits(one, limit{Limit: 1}), limits(one, limit{Limit: 1, Window: time.Nanosecond}), limits(one, limit{Limit: 1, Window: -time.Second}), limits(one, limit{Limit: 1, Window: time.Second + time.Microsecond}), limits(one, limit{Limit: 1, Window: 101 * 365 * 24 * time.Hour})},
		"Config.Limits[0].Window is se": {limits(limit{Algorithm: ratelimit.Quota, Limit: 1, Period: ratelimit.Day, Window: 1}), limits(limit{Algorithm: ratelimit.Concurrency, Limit: 1, Window: 1})},
		"Config.Limits[0].Algorithm":    {limits(limit{Algorithm: 99, Limit: 1})},
		"Config.Limits[1].Algorithm":    {limits(places, places)},
		"Config.Limits[1].Name":         {limits(limit{Name: "a", Limit: 1, Window: time.Second}, limit{Name: "a", Limit: 1, Window: time.Minute})},
		"Config.Limits[0].Burst":        {limits(limit{Limit: 1, Window: time.Second, Burst: 1}), limits(limit{Algorithm: ratelimit.TokenBucket, Limit: 1, Window: time.Second, Burst: -1}), limits(limit{Algorithm: ratelimit.TokenBucket, Limit: 1, Window: time.Second, Burst: ratelimit.MaxLimit})},
		"Config.Limits[0].Period":       {limits(limit{Algorithm: ratelimit.Quota, Limit: 1}), limits(limit{Algorithm: ratelimit.Quota, Limit: 1, Period: 4}), limits(limit{Limit: 1, Window: time.Second, Period: ratelimit.Day})},
		"Config.Limits[0].Offset":       {limits(limit{Algorithm: ratelimit.Quota, Limit: 1, Period: ratelimit.Day, Offset: 24 * time.Hour}), limits(limit{Algorithm: ratelimit.Quota, Limit: 1, Period: ratelimit.Day, Offset: -1}), limits(limit{Limit: 1, Window: time.Second, Offset: 1})},
		"Config.Limits[0].Lease":        {limits(limit{Algorithm: ratelimit.Concurrency, Limit: 1, Lease: -1}), limits(limit{Limit: 1, Window: time.Second, Lease: 1})},
		"Config.Limits[0].Outage":       {limits(limit{Limit: 1, Window: time.Second, Outage: 9})},
		"Config.Outage":                 {with(func(c *ratelimit.Config) { c.Outage = 9 })},
		"Config.Processes":              {with(func(c *ratelimit.Config) { c.Outage = ratelimit.OutageLocal }), with(func(c *ratelimit.Config) { c.Processes = -1 })},
		"Config.Timeout":                {with(func(c *ratelimit.Config) { c.Timeout = 1 }), with(func(c *ratelimit.Config) { c.Timeout = -1 })},
		"Config.BatchFor":               {with(func(c *ratelimit.Config) { c.BatchFor = 1 })},
		"Config.Batch is":               {with(func(c *ratelimit.Config) { c.Batch = -1 }), {Limits: []limit{places}, Batch: 1}},
		"Config.RememberDenied":         {with(func(c *ratelimit.Config) { c.RememberDenied = -1 }), {Limits: []limit{places}, RememberDenied: 1}},
		"Config.Prefix":                 {with(func(c *ratelimit.Config) { c.Prefix = "a b" })},
	} {
		for _, cfg := range cfgs {
			if _, err := ratelimit.New(c, cfg); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: error %v, want one with %s", cfg, err, want)
			} else if valid := cfg.Validate(); valid == nil || valid.Error() != err.Error() {
				t.Errorf("%+v: Validate says %v, New %v", cfg, valid, err)
			}
		}
	}
	for _, limit := range []limit{one, places, quota, bucket} {
		if err := limits(limit).Validate(); err != nil {
			t.Error(err)
		}
		if _, err := ratelimit.New(c, limits(limit)); err != nil {
			t.Error(err)
		}
	}
	if _, err := ratelimit.New(nil, limits(one)); err == nil {
		t.Error("a nil client was accepted")
	}
}

// TestAnErrorIsNeverAllowed asks a server that does not answer.
func TestAnErrorIsNeverAllowed(t *testing.T) {
	s := valkeytest.Start(t)
	l, err := ratelimit.New(s.Client(), ratelimit.Config{Limits: []ratelimit.Limit{{Limit: 1000, Window: time.Hour}}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a first answer", func() bool { r, err := l.Allow(t.Context(), "s"); return err == nil && r.Allowed })
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if r, err := l.Allow(ctx, "s"); r.Allowed || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused server: %+v, %v", r, err)
	}
	s.Resume()
	s.Kill()
	ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if r, err := l.Allow(ctx, "s"); r.Allowed || err == nil {
		t.Errorf("a dead server: %+v, %v", r, err)
	}
}

// TestCosts: what is no cost is an error that names it, and nothing is charged beside it.
func TestCosts(t *testing.T) {
	s := valkeytest.Start(t)
	l := newLimiter(t, s.Client(), ratelimit.Config{Timeout: 20 * time.Second, Limits: []ratelimit.Limit{{Limit: 3, Window: 400 * 24 * time.Hour}}})
	for n, want := range map[int64]string{0: " 0,", -7: " -7,", ratelimit.MaxLimit + 1: " 9007199254740993,"} {
		if r, err := l.AllowN(t.Context(), "x", n); r.Allowed || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("AllowN of %d: %+v, %v", n, r, err)
		}
		if r, err := l.AllowAtMost(t.Context(), "x", n); r.Allowed || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("AllowAtMost of %d: %+v, %v", n, r, err)
		}
		if n == 0 {
			continue // an Ask of 0 is one of 1
		}
		good, bad := ratelimit.Ask{Limiter: l, Subject: "x"}, ratelimit.Ask{Limiter: l, Subject: "x", Cost: n}
		if _, allowed, err := ratelimit.AllowAll(t.Context(), good, bad); allowed || err == nil || !strings.Contains(err.Error(), "Ask 1 costs"+want) {
			t.Errorf("AllowAll of %d: %v, %v", n, allowed, err)
		}
	}
	if n, err := s.Client().Do(t.Context(), s.Client().B().Dbsize().Build()).AsInt64(); n != 0 || err != nil {
		t.Errorf("%d keys after calls that were errors (%v)", n, err)
	}
}

// TestRememberedCosts: a denial of one unit answers for one: several may have to wait for longer, or for ever.
func TestRememberedCosts(t *testing.T) {
	s := valkeytest.Start(t)
	l := newLimiter(t, s.Client(), ratelimit.Config{
		RememberDenied: time.Hour, Timeout: 20 * time.Second,
		Limits: []ratelimit.Limit{{Algorithm: ratelimit.TokenBucket, Limit: 10, Window: 10 * time.Hour}},
	})
	ask := func(n int64) ratelimit.Result {
		t.Helper()
		r, err := l.AllowN(t.Context(), "x", n)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	ask(10)
	ask(1)
	if r := ask(1); r.Allowed || r.Mode != ratelimit.ModeDenied {
		t.Errorf("one unit: %+v", r)
	}
	if r := ask(5); r.Allowed || r.RetryAfter < 4*time.Hour {
		t.Errorf("5 units come back after 5 hours: %+v", r)
	}
	if r := ask(11); r.Allowed || r.RetryAfter != ratelimit.Never {
		t.Errorf("11 units of a bucket of 10: %+v", r)
	}
}

// TestBucketsOfOneName: a plan that is changed while another version of it is in use gives none of them more than its
// own bucket.
func TestBucketsOfOneName(t *testing.T) {
	s := valkeytest.Start(t)
	for name, other := range map[string]ratelimit.Limit{
		"rate":   {Limit: 1000, Window: 400 * 24 * time.Hour, Burst: 50},
		"window": {Limit: 1, Window: 24 * time.Hour, Burst: 50},
		"burst":  {Limit: 1, Window: 400 * 24 * time.Hour, Burst: 5},
	} {
		t.Run(name, func(t *testing.T) {
			prefix := valkeytest.Prefix(t)
			var versions []*ratelimit.Limiter
			for _, limit := range []ratelimit.Limit{{Limit: 1, Window: 400 * 24 * time.Hour, Burst: 50}, other} {
				limit.Algorithm = ratelimit.TokenBucket
				versions = append(versions, newLimiter(t, s.Client(), ratelimit.Config{Prefix: prefix, Name: "plan", Timeout: 20 * time.Second, Limits: []ratelimit.Limit{limit}}))
			}
			var granted [2]int64
			for range 20 {
				for i, l := range versions {
					r, err := l.AllowAtMost(t.Context(), "x", 50)
					if err != nil {
						t.Fatal(err)
					}
					granted[i] += r.Granted
				}
			}
			if granted != [2]int64{50, other.Burst} {
				t.Errorf("buckets of 50 and %d gave %d", other.Burst, granted)
			}
		})
	}
}

// TestPlacesKeepAnExpiry: places that lost their expiry get one with the next denial, by whichever limit.
func TestPlacesKeepAnExpiry(t *testing.T) {
	s := valkeytest.Start(t)
	c := s.Client()
	for subject, limits := range map[string][]ratelimit.Limit{
		"places": {{Algorithm: ratelimit.Concurrency, Limit: 1}},
		"other":  {{Limit: 1, Window: 400 * 24 * time.Hour}, {Algorithm: ratelimit.Concurrency, Limit: 2}},
	} {
		l := newLimiter(t, c, ratelimit.Config{Prefix: "p", Timeout: 20 * time.Second, Limits: limits})
		if r, err := l.Allow(t.Context(), subject); err != nil || !r.Allowed {
			t.Fatalf("%+v %v", r, err)
		}
		key := "p:rate:" + map[string]string{"places": "c", "other": "w400dc"}[subject] + ":{" + subject + "}:held"
		if n, err := c.Do(t.Context(), c.B().Persist().Key(key).Build()).AsInt64(); n != 1 {
			t.Fatal(n, err)
		}
		if r, err := l.Peek(t.Context(), subject); err != nil || r.Allowed {
			t.Fatalf("%+v %v", r, err)
		}
		if r, err := l.Allow(t.Context(), subject); err != nil || r.Allowed {
			t.Fatalf("%+v %v", r, err)
		}
		if ms, err := c.Do(t.Context(), c.B().Pttl().Key(key).Build()).AsInt64(); err != nil || ms < 1 || ms > 30_000 {
			t.Errorf("%s: after a denial the places have an expiry of %d ms, %v", subject, ms, err)
		}
	}
}

// TestLeasesOfOneName: a process that denies cuts leases to its own, so a shorter one of another process ends those of places
// that are in use; a longer one leaves them.
func TestLeasesOfOneName(t *testing.T) {
	s := valkeytest.Start(t)
	lease := func(d time.Duration) *ratelimit.Limiter {
		return newLimiter(t, s.Client(), ratelimit.Config{Prefix: "p", Timeout: 20 * time.Second, Limits: []ratelimit.Limit{{Algorithm: ratelimit.Concurrency, Limit: 1, Lease: d}}})
	}
	hour, day, short := lease(time.Hour), lease(24*time.Hour), lease(time.Millisecond)
	place, err := hour.Allow(t.Context(), "x")
	if err != nil || !place.Allowed {
		t.Fatalf("%+v %v", place, err)
	}
	for _, l := range []*ratelimit.Limiter{hour, day} {
		if r, err := l.Allow(t.Context(), "x"); err != nil || r.Allowed || r.RetryAfter > time.Hour {
			t.Fatalf("%+v %v", r, err)
		}
	}
	eventually(t, "the place is given to another", func() bool {
		r, err := short.Allow(t.Context(), "x")
		return err == nil && r.Allowed
	})
	if held, err := hour.Release(t.Context(), "x", place); err != nil || held {
		t.Errorf("the place is still held: %v, %v", held, err)
	}
}

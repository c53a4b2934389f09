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

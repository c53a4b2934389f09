package ratelimit_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratelimittest"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestConformance(t *testing.T) { valkeytest.Each(t, ratelimittest.Run) }

func TestNewNamesTheField(t *testing.T) {
	c := valkeytest.Start(t).Client()
	ok := ratelimit.Config{Limit: 1, Window: time.Second}
	for _, test := range []struct {
		edit func(*ratelimit.Config)
		want string
	}{
		{func(c *ratelimit.Config) { c.Limit = 0 }, "Config.Limit"},
		{func(c *ratelimit.Config) { c.Limit = -1 }, "Config.Limit"},
		{func(c *ratelimit.Config) { c.Limit = ratelimit.MaxLimit + 1 }, "Config.Limit"},
		{func(c *ratelimit.Config) { c.Window = 0 }, "Config.Window"},
		{func(c *ratelimit.Config) { c.Window = time.Nanosecond }, "Config.Window"},
		{func(c *ratelimit.Config) { c.Window = -time.Second }, "Config.Window"},
		{func(c *ratelimit.Config) { c.Window = time.Second + time.Microsecond }, "Config.Window"},
		{func(c *ratelimit.Config) { c.Prefix = "a b" }, "Config.Prefix"},
	} {
		cfg := ok
		test.edit(&cfg)
		if _, err := ratelimit.New(c, cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %s", cfg, err, test.want)
		}
	}
	if _, err := ratelimit.New(nil, ok); err == nil {
		t.Error("a nil client was accepted")
	}
}

// TestAnErrorIsNeverAllowed asks a server that does not answer.
func TestAnErrorIsNeverAllowed(t *testing.T) {
	s := valkeytest.Start(t)
	l, err := ratelimit.New(s.Client(), ratelimit.Config{Limit: 1000, Window: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := l.Allow(t.Context(), "s"); err != nil || !r.Allowed {
		t.Fatalf("%+v, %v", r, err)
	}
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

package cache_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/cache/cachetest"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestConformance(t *testing.T) { valkeytest.Each(t, cachetest.Run) }

func TestNewNamesTheField(t *testing.T) {
	c := valkeytest.Start(t).Client()
	for _, test := range []struct {
		cfg  cache.Config
		want string
	}{
		{cache.Config{TTL: -1}, "Config.TTL"},
		{cache.Config{TTL: time.Microsecond}, "Config.TTL"},
		{cache.Config{Jitter: 1.5}, "Config.Jitter"},
		{cache.Config{Jitter: -0.5}, "Config.Jitter"},
		{cache.Config{Jitter: math.NaN()}, "Config.Jitter"},
		{cache.Config{Prefix: "a\n"}, "Config.Prefix"},
	} {
		if _, err := cache.New[int](c, test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %s", test.cfg, err, test.want)
		}
	}
	if _, err := cache.New[int](nil, cache.Config{}); err == nil {
		t.Error("a nil client was accepted")
	}
}

// TestServerAway holds that answers go on without the server, and that somebody hears of it.
func TestServerAway(t *testing.T) {
	s := valkeytest.Start(t)
	var heard []string
	c, err := cache.New[int](s.Client(), cache.Config{
		Hooks: cache.Hooks{Error: func(op string, _ error) { heard = append(heard, op) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, ok, err := c.Get(ctx, "k"); err == nil || ok {
		t.Errorf("Get: %v, %v", ok, err)
	}
	if got, err := c.GetOrLoad(ctx, "k", func(context.Context) (int, error) { return 7, nil }); err != nil || got != 7 {
		t.Errorf("GetOrLoad: %d, %v", got, err)
	}
	if strings.Join(heard, " ") != "get set" {
		t.Errorf("heard %q", heard)
	}
	if err := c.Set(ctx, "k", 1); err == nil {
		t.Error("Set said nothing")
	}
	if err := c.Delete(ctx, "k"); err == nil {
		t.Error("Delete said nothing")
	}
}

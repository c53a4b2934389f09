package cache_test

import (
	"context"
	"fmt"
	"math"
	"net"
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
		{cache.Config{TTL: time.Second + time.Microsecond}, "Config.TTL"},
		{cache.Config{Jitter: 1.5}, "Config.Jitter"},
		{cache.Config{Jitter: -0.5}, "Config.Jitter"},
		{cache.Config{Jitter: math.NaN()}, "Config.Jitter"},
		{cache.Config{Prefix: "a\n"}, "Config.Prefix"},
		{cache.Config{TTL: 101 * 365 * 24 * time.Hour}, "Config.TTL"},
		{cache.Config{NegativeTTL: -2}, "Config.NegativeTTL"},
		{cache.Config{ErrorTTL: -1}, "Config.ErrorTTL"},
		{cache.Config{StaleWhileRevalidate: -1}, "Config.StaleWhileRevalidate"},
		{cache.Config{StaleIfError: time.Microsecond}, "Config.StaleIfError"},
		{cache.Config{Early: -1}, "Config.Early"},
		{cache.Config{Early: math.NaN()}, "Config.Early"},
		{cache.Config{Lease: time.Millisecond}, "Config.Lease"},
		{cache.Config{LoadTimeout: -1}, "Config.LoadTimeout"},
		{cache.Config{Late: 3}, "Config.Late"},
		{cache.Config{LateAfter: -1}, "Config.LateAfter"},
		{cache.Config{LateLoads: -1}, "Config.LateLoads"},
		{cache.Config{Loads: -1}, "Config.Loads"},
		{cache.Config{MinCompress: -1}, "Config.MinCompress"},
	} {
		if _, err := cache.New[int](c, test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %s", test.cfg, err, test.want)
		}
	}
	if _, err := cache.New[int](nil, cache.Config{}); err == nil {
		t.Error("a nil client was accepted")
	}
}

// TestServerAway makes each call without a deadline, and with one, through a client that repeats reads
// for ever: answers go on without the server, and somebody hears of it.
func TestServerAway(t *testing.T) {
	for outage, begin := range map[string]func(*valkeytest.Server){
		"killed": (*valkeytest.Server).Kill,
		"paused": (*valkeytest.Server).Pause,
	} {
		for _, deadline := range []time.Duration{0, 400 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s, deadline %v", outage, deadline), func(t *testing.T) {
				t.Parallel()
				s := valkeytest.Start(t)
				var heard []string
				c, err := cache.New[int](s.Client(), cache.Config{
					Hooks: cache.Hooks{Error: func(op string, _ error) { heard = append(heard, op) }},
				})
				if err != nil {
					t.Fatal(err)
				}
				begin(s)
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					withoutServer(t, c, deadline)
				}()
				select {
				case <-ended:
					if strings.Join(heard, " ") != "get" {
						t.Errorf("heard %q", heard)
					}
				case <-time.After(30 * time.Second):
					t.Error("a call did not end")
				}
			})
		}
	}
}

func withoutServer(t *testing.T, c *cache.Cache[int], deadline time.Duration) {
	request := func() (context.Context, context.CancelFunc) {
		if deadline == 0 {
			return context.WithCancel(context.Background())
		}
		return context.WithTimeout(context.Background(), deadline)
	}
	ctx, cancel := request()
	defer cancel()
	got, err := c.Get(ctx, "k", func(given context.Context) (int, error) {
		if ctx.Err() != nil {
			t.Error("the deadline has passed before load began")
		}
		return 7, given.Err()
	})
	if err != nil || got != 7 {
		t.Errorf("Get: %d, %v", got, err)
	}
	for name, call := range map[string]func(context.Context) error{
		"Peek":   func(ctx context.Context) error { _, _, err := c.Peek(ctx, "k"); return err },
		"Set":    func(ctx context.Context) error { return c.Set(ctx, "k", 1) },
		"Delete": func(ctx context.Context) error { return c.Delete(ctx, "k") },
	} {
		ctx, cancel := request()
		if err := call(ctx); err == nil {
			t.Errorf("%s said nothing", name)
		}
		cancel()
	}
}

// TestErrorsAreNamedOnce holds that no error says twice where it comes from.
func TestErrorsAreNamedOnce(t *testing.T) {
	s := valkeytest.Start(t)
	c, err := cache.New[func()](s.Client(), cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Set(t.Context(), "k", func() {}); err == nil || strings.Count(err.Error(), "cache:") != 1 {
		t.Errorf("%v", err)
	}
}

// TestServersThatRefuseWrites are what a client meets after a failover, or without enough replicas.
func TestServersThatRefuseWrites(t *testing.T) {
	primary := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--replicaof", host + " " + port}})
	lonely := valkeytest.Start(t)
	on := func(s *valkeytest.Server, heard *string) *cache.Cache[int] {
		c, err := cache.New[int](s.Client(), cache.Config{
			Prefix: "p", Hooks: cache.Hooks{Error: func(op string, _ error) { *heard += op }},
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	do := func(s *valkeytest.Server, words ...string) {
		t.Helper()
		if err := s.Client().Do(t.Context(), s.Client().B().Arbitrary(words...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	var unheard string
	if err := on(lonely, &unheard).Set(t.Context(), "there", 5); err != nil {
		t.Fatal(err)
	}
	do(lonely, "CONFIG", "SET", "min-replicas-to-write", "1")
	do(primary, "WAIT", "1", "0") // until the replica is there
	if err := on(primary, &unheard).Set(t.Context(), "there", 5); err != nil {
		t.Fatal(err)
	}
	do(primary, "WAIT", "1", "0")
	for want, server := range map[string]*valkeytest.Server{"READONLY": replica, "NOREPLICAS": lonely} {
		t.Run(want, func(t *testing.T) {
			var heard string
			c, loads := on(server, &heard), 0
			for key, value := range map[string]int{"there": 5, "missing": 7} {
				got, err := c.Get(t.Context(), key, func(context.Context) (int, error) { loads++; return 7, nil })
				if err != nil || got != value {
					t.Errorf("%s: %d, %v", key, got, err)
				}
			}
			if loads != 1 || heard != "set" {
				t.Errorf("%d loads, heard %q", loads, heard)
			}
			for _, err := range []error{c.Set(t.Context(), "k", 1), c.Delete(t.Context(), "there")} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v", err)
				}
			}
		})
	}
}

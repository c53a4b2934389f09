package writebehind_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/flatrate/flatrate/cache/writebehind/writebehindtest"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

func TestConformance(t *testing.T) { valkeytest.Each(t, writebehindtest.Run) }

func TestNewNamesTheField(t *testing.T) {
	c := valkeytest.Start(t).Client()
	for _, test := range []struct {
		cfg  writebehind.Config[int]
		want string
	}{
		{writebehind.Config[int]{Prefix: "a\n"}, "Config.Prefix"},
		{writebehind.Config[int]{Name: strings.Repeat("x", 257)}, "Config.Name"},
		{writebehind.Config[int]{Partitions: -1}, "Config.Partitions"},
		{writebehind.Config[int]{Partitions: 1025}, "Config.Partitions"},
		{writebehind.Config[int]{Window: -1}, "Config.Window"},
		{writebehind.Config[int]{Window: time.Microsecond}, "Config.Window"},
		{writebehind.Config[int]{TTL: -2}, "Config.TTL"},
		{writebehind.Config[int]{LoadTimeout: -1}, "Config.LoadTimeout"},
		{writebehind.Config[int]{Limit: 15}, "Config.Limit"},
		{writebehind.Config[int]{DeadLimit: -1}, "Config.DeadLimit"},
		{writebehind.Config[int]{Full: 2}, "Config.Full"},
		{writebehind.Config[int]{Batch: 1001}, "Config.Batch"},
		{writebehind.Config[int]{BatchBytes: -1}, "Config.BatchBytes"},
		{writebehind.Config[int]{Calls: -1}, "Config.Calls"},
		{writebehind.Config[int]{CallTimeout: -1}, "Config.CallTimeout"},
		{writebehind.Config[int]{Attempts: -1}, "Config.Attempts"},
		{writebehind.Config[int]{Backoff: -1}, "Config.Backoff"},
		{writebehind.Config[int]{Backoff: time.Second, MaxBackoff: time.Millisecond}, "Config.MaxBackoff"},
		{writebehind.Config[int]{GiveUp: -2}, "Config.GiveUp"},
		{writebehind.Config[int]{Lease: time.Millisecond}, "Config.Lease"},
	} {
		if _, err := writebehind.New(c, test.cfg); err == nil || !strings.Contains(err.Error(), test.want+" ") && !strings.Contains(err.Error(), test.want+":") {
			t.Errorf("%+v: error %v, want one with %s", test.cfg, err, test.want)
		}
	}
	for _, cfg := range []writebehind.Config[int]{{}, {MaxBackoff: 50 * time.Millisecond}, {Backoff: time.Minute}, {GiveUp: writebehind.Never, TTL: writebehind.Forget}} {
		if _, err := writebehind.New(c, cfg); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if _, err := writebehind.New(nil, writebehind.Config[int]{}); err == nil {
		t.Error("a nil client was accepted")
	}
}

// TestEviction holds that nobody writes where the server may drop what it has acknowledged.
func TestEviction(t *testing.T) {
	for policy, want := range map[string]error{
		"allkeys-lru": writebehind.ErrEviction, "allkeys-lfu": writebehind.ErrEviction, "allkeys-random": writebehind.ErrEviction,
		"volatile-lru": nil, "noeviction": nil,
	} {
		s := newStore(t, valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--maxmemory-policy", policy}}).Client(), writebehind.Config[int]{Origin: nothing})
		err := s.Start(t.Context())
		if !errors.Is(err, want) || want != nil && !strings.Contains(err.Error(), policy) {
			t.Errorf("%s: Start: %v", policy, err)
		}
		if err := s.Put(t.Context(), "k", 1); !errors.Is(err, want) {
			t.Errorf("%s: Put: %v", policy, err)
		}
	}
}

// TestFullMemory holds that a write is refused where memory is full, and that draining goes on and makes room.
func TestFullMemory(t *testing.T) {
	server := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--maxmemory", "12mb"}})
	release := make(chan struct{})
	s := newStore(t, server.Client(), writebehind.Config[string]{
		Window: 10 * time.Millisecond, Partitions: 1, TTL: writebehind.Forget, Lease: time.Minute,
		Origin: func(ctx context.Context, _ []writebehind.Write[string]) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	value := strings.Repeat("x", 1<<20)
	var err error
	written := 0
	for ; err == nil && written < 100; written++ {
		err = s.Put(t.Context(), strconv.Itoa(written), value)
	}
	if err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Fatalf("after %d MB: %v", written, err)
	}
	close(release)
	until(t, func() bool { return count(t, s).Waiting == 0 })
	if err := s.Put(t.Context(), "k", value); err != nil {
		t.Error(err)
	}
}

func newStore[V any](t *testing.T, client valkey.Client, cfg writebehind.Config[V]) *writebehind.Store[V] {
	t.Helper()
	s, err := writebehind.New(client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
		defer cancel()
		_ = s.Close(ctx)
	})
	return s
}

// put writes on a machine that others use too.
func put[V any](t *testing.T, s *writebehind.Store[V], key string, value V) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	until(t, func() bool {
		err := s.Put(ctx, key, value)
		if err != nil && !strings.Contains(err.Error(), "the server is away") {
			t.Fatal(err)
		}
		return err == nil
	})
}

func nothing(context.Context, []writebehind.Write[int]) error { return nil }

func count[V any](t *testing.T, s *writebehind.Store[V]) writebehind.Stats {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // on a machine that others use too
	defer cancel()
	all, err := s.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// until waits for what has to come.
func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come within 30 s")
		}
	}
}

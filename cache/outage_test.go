package cache_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

const patience = 20 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		<-time.After(time.Millisecond)
	}
}

func do(t *testing.T, client valkey.Client, words ...string) {
	t.Helper()
	if err := client.Do(t.Context(), client.B().Arbitrary(words...).Build()).Error(); err != nil {
		t.Fatalf("%q: %v", words, err)
	}
}

// version is an origin with one number.
type version struct{ n, loads atomic.Int64 }

func (v *version) load(context.Context) (int64, error) {
	v.loads.Add(1)
	return v.n.Load(), nil
}

// tiered is a cache with a local tier, that counts local hits.
func tiered(t *testing.T, s *valkeytest.Server, cfg cache.Config) (c *cache.Cache[int64], local *atomic.Int64) {
	t.Helper()
	local = new(atomic.Int64)
	cfg.Local = cache.LocalTier{Entries: 1000}
	cfg.Hooks.Hit = func(_ string, tier cache.Tier) {
		if tier == cache.Local {
			local.Add(1)
		}
	}
	c, err := cache.New[int64](valkeytest.NewClient(t, s), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, local
}

func get(t *testing.T, c *cache.Cache[int64], key string, o *version) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	n, err := c.Get(ctx, key, o.load)
	if err != nil {
		t.Errorf("Get: %v", err)
	}
	return n
}

func becomesLocal(t *testing.T, c *cache.Cache[int64], local *atomic.Int64, o *version) {
	t.Helper()
	before := local.Load()
	eventually(t, "a local hit", func() bool { get(t, c, "k", o); return local.Load() > before })
}

// TestCoherentAgain takes the messages away in every way, changes the origin meanwhile, and holds that the local
// tier is right and whole again.
func TestCoherentAgain(t *testing.T) {
	for name, disturb := range map[string]func(t *testing.T, s *valkeytest.Server, admin valkey.Client){
		"FLUSHALL": func(t *testing.T, _ *valkeytest.Server, admin valkey.Client) { do(t, admin, "FLUSHALL") },
		"lost connections": func(t *testing.T, _ *valkeytest.Server, admin valkey.Client) {
			do(t, admin, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		},
		"restart": func(_ *testing.T, s *valkeytest.Server, _ valkey.Client) { s.Restart() },
		"hangs": func(_ *testing.T, s *valkeytest.Server, _ valkey.Client) {
			s.Pause()
			<-time.After(1500 * time.Millisecond) // so that its silence is noticed
			s.Resume()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := valkeytest.Start(t)
			var o version
			a, localA := tiered(t, s, cache.Config{})
			b, localB := tiered(t, s, cache.Config{})
			for range 3 {
				becomesLocal(t, a, localA, &o)
				becomesLocal(t, b, localB, &o)
				disturb(t, s, s.Client())
				o.n.Add(1)
				eventually(t, "the invalidation", func() bool { return a.Delete(t.Context(), "k") == nil })
				if got := get(t, a, "k", &o); got != o.n.Load() {
					t.Errorf("the invalidating process got %d, want %d", got, o.n.Load())
				}
				begin := time.Now()
				eventually(t, "the change", func() bool { return get(t, b, "k", &o) == o.n.Load() })
				t.Logf("the other process got it after %v", time.Since(begin))
			}
			becomesLocal(t, b, localB, &o)
		})
	}
}

// TestTrackingRefused is a managed service, or an access rule, that forbids CLIENT TRACKING: entries are asked for
// again after a second.
func TestTrackingRefused(t *testing.T) {
	s := valkeytest.Start(t)
	do(t, s.Client(), "ACL", "SETUSER", "default", "-client|tracking")
	var o version
	client, err := valkey.NewClient(valkey.ClientOption{
		InitAddress: []string{s.Socket}, DialCtxFn: valkeytest.DialUnix, ForceSingleClient: true, DisableCache: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	var local atomic.Int64
	c, err := cache.New[int64](client, cache.Config{
		Local: cache.LocalTier{Entries: 10}, Hooks: cache.Hooks{Hit: func(_ string, tier cache.Tier) {
			if tier == cache.Local {
				local.Add(1)
			}
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	other, err := cache.New[int64](client, cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	becomesLocal(t, c, &local, &o)
	o.n.Add(1)
	if err := other.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the change", func() bool { return get(t, c, "k", &o) == 1 })
	becomesLocal(t, c, &local, &o)
}

// TestLocalTierServes kills or stops the server: what is local goes on to be served, without a load; what is not
// is loaded, once for all who want it at the same time, so many at a time as Loads says.
func TestLocalTierServes(t *testing.T) {
	for name, begin := range map[string]func(*valkeytest.Server){
		"killed": (*valkeytest.Server).Kill, "paused": (*valkeytest.Server).Pause,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := valkeytest.Start(t)
			var o version
			c, local := tiered(t, s, cache.Config{Loads: 2})
			becomesLocal(t, c, local, &o)
			loads := o.loads.Load()
			begin(s)
			for begun := time.Now(); time.Since(begun) < 1500*time.Millisecond; { // through all that may be noticed
				get(t, c, "k", &o)
			}
			if n := o.loads.Load(); n != loads {
				t.Errorf("%d loads of what was local", n-loads)
			}
			var now, most atomic.Int64
			end := make(chan struct{})
			slow := func(context.Context) (int64, error) {
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				defer now.Add(-1)
				o.loads.Add(1)
				<-end
				return 7, nil
			}
			var all sync.WaitGroup
			for i := range 40 {
				all.Go(func() {
					if n, err := c.Get(t.Context(), fmt.Sprint("missing ", i%10), slow); err != nil || n != 7 {
						t.Errorf("%d, %v", n, err)
					}
				})
			}
			eventually(t, "two loads", func() bool { return now.Load() == 2 })
			close(end)
			all.Wait()
			if most.Load() > 2 {
				t.Errorf("%d loads at a time", most.Load())
			}
			for i := range 10 { // what was loaded is local now
				if n := get(t, c, fmt.Sprint("missing ", i), &o); n != 7 {
					t.Errorf("key %d: %d", i, n)
				}
			}
			values, err := c.GetMany(t.Context(), []string{"k", "missing 1", "other"}, func(_ context.Context, keys []string) (map[string]int64, error) {
				return map[string]int64{keys[0]: 8}, nil
			})
			if err != nil || len(values) != 3 || values["other"] != 8 {
				t.Errorf("GetMany: %v, %v", values, err)
			}
			// Once the server is back, so is everything else: what was loaded alone is forgotten.
			if name == "killed" {
				s.Restart()
			} else {
				s.Resume()
			}
			o.n.Store(9)
			eventually(t, "the server's answer", func() bool { return get(t, c, "missing 1", &o) == 9 })
		})
	}
}

// TestWriteWithoutServer takes the server away before or during store.
func TestWriteWithoutServer(t *testing.T) {
	s := valkeytest.Start(t)
	c, err := cache.New[int64](s.Client(), cache.Config{Lease: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var o version
	if err := c.Set(t.Context(), "k", 0); err != nil {
		t.Fatal(err)
	}
	// Away after store: the old entry is gone, and so it is no error.
	err = c.Write(t.Context(), "k", 1, func(_ context.Context, n int64) error {
		o.n.Store(n)
		s.Kill()
		return nil
	})
	if o.n.Load() != 1 {
		t.Error("it was not stored")
	}
	if err != nil && !errors.Is(err, cache.ErrUnfenced) { // the lease may have ended while the server was waited for
		t.Errorf("away after store: %v", err)
	}
	// Away before and after: stored, and the caller is told.
	err = c.Write(t.Context(), "k", 2, func(_ context.Context, n int64) error { o.n.Store(n); return nil })
	if !errors.Is(err, cache.ErrUnfenced) || o.n.Load() != 2 {
		t.Errorf("away: %v, stored %d", err, o.n.Load())
	}
	// Away before, and back after: removed.
	err = c.Write(t.Context(), "k", 3, func(_ context.Context, n int64) error {
		o.n.Store(n)
		s.Restart()
		do(t, valkeytest.NewClient(t, s), "SET", "fr:cache:default:{k}", "old")
		eventually(t, "the breaker", func() bool { _, _, err := c.Peek(t.Context(), "other"); return err == nil })
		return nil
	})
	if err != nil {
		t.Errorf("back after store: %v", err)
	}
	if got := get(t, c, "k", &o); got != 3 {
		t.Errorf("got %d", got)
	}
}

// TestMemoryIsFull holds that nothing more is stored, that invalidations go on, and that nobody waits for long.
func TestMemoryIsFull(t *testing.T) {
	s := valkeytest.Start(t)
	var heard atomic.Int64
	c, err := cache.New[int64](s.Client(), cache.Config{Hooks: cache.Hooks{Error: func(string, error) { heard.Add(1) }}})
	if err != nil {
		t.Fatal(err)
	}
	var o version
	get(t, c, "there", &o)
	get(t, c, "deleted", &o)
	do(t, s.Client(), "CONFIG", "SET", "maxmemory", "1")
	if got := get(t, c, "there", &o); got != 0 || o.loads.Load() != 2 {
		t.Errorf("a hit: %d, %d loads", got, o.loads.Load())
	}
	get(t, c, "missing", &o)
	if heard.Load() == 0 {
		t.Error("nobody heard of it")
	}
	o.n.Store(1)
	if err := c.Delete(t.Context(), "deleted"); err != nil {
		t.Error(err)
	}
	if got := get(t, c, "deleted", &o); got != 1 {
		t.Errorf("after Delete: %d", got)
	}
	if err := c.Write(t.Context(), "there", 2, func(_ context.Context, n int64) error { o.n.Store(n); return nil }); err != nil {
		t.Errorf("Write: %v", err)
	}
	if got := get(t, c, "there", &o); got != 2 {
		t.Errorf("after Write: %d", got)
	}
	if err := c.Set(t.Context(), "k", 1); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("Set: %v", err)
	}
}

// gzipped is a Compressor.
type gzipped struct{ limit int64 }

func (gzipped) Compress(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	err = errors.Join(err, w.Close())
	return b.Bytes(), err
}

func (g gzipped) Decompress(data []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, g.limit))
}

// reversed is a Codec of strings.
type reversed struct{}

func (reversed) Marshal(value any) ([]byte, error) {
	b := []byte(value.(string))
	for i := range len(b) / 2 {
		b[i], b[len(b)-1-i] = b[len(b)-1-i], b[i]
	}
	return b, nil
}

func (r reversed) Unmarshal(data []byte, value any) error {
	if string(data) == "bad" {
		panic("bad")
	}
	b, err := r.Marshal(string(data))
	*value.(*string) = string(b)
	return err
}

// TestSizesAndCodecs stores values of no and of many bytes, for no time and for a century.
func TestSizesAndCodecs(t *testing.T) {
	s := valkeytest.Start(t)
	large := 64 << 20
	if testing.Short() { // under the race detector each byte of the codec takes ten times as long
		large = 4 << 20
	}
	for name, cfg := range map[string]cache.Config{
		"plain":                 {TTL: 100 * 365 * 24 * time.Hour},
		"compressed":            {Compressor: gzipped{1 << 30}, MinCompress: 1},
		"codec, and compressed": {Codec: reversed{}, Compressor: gzipped{1 << 30}, StaleIfError: time.Hour},
	} {
		cfg.Prefix = valkeytest.Prefix(t)
		c, err := cache.New[string](s.Client(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 1, 100, 5000, large} {
			value := strings.Repeat("0123456789", size/10+1)[:size]
			eventually(t, fmt.Sprintf("%s, %d bytes: a hit", name, size), func() bool { // a busy machine may take longer than MaxWait
				loads := 0
				got, err := c.Get(t.Context(), fmt.Sprint(size), func(context.Context) (string, error) { loads++; return value, nil })
				if err != nil || got != value {
					t.Errorf("%s, %d bytes: %d bytes, %v", name, size, len(got), err)
				}
				return loads == 0
			})
		}
		if cfg.Compressor != nil {
			stored, err := s.Client().Do(t.Context(), s.Client().B().Strlen().Key(cfg.Prefix+":cache:default:{5000}").Build()).AsInt64()
			if err != nil || stored > 1000 {
				t.Errorf("%s: 5,000 bytes are stored in %d, %v", name, stored, err)
			}
			cfg.Compressor = nil // another configuration finds what it can't read, and heals it
			cfg.Codec = nil
			other, err := cache.New[string](s.Client(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := other.Get(t.Context(), "5000", func(context.Context) (string, error) { return "healed", nil }); err != nil || got != "healed" {
				t.Errorf("%s: %.20q, %v", name, got, err)
			}
		}
	}
	bad, err := cache.New[string](s.Client(), cache.Config{Codec: reversed{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Set(t.Context(), "k", "dab"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := bad.Peek(t.Context(), "k"); err == nil {
		t.Error("a codec that panics is no error")
	}
}

// TestLocalHitsLeaveNoGarbage counts the allocations of a local hit.
func TestLocalHitsLeaveNoGarbage(t *testing.T) {
	s := valkeytest.Start(t)
	var o version
	c, local := tiered(t, s, cache.Config{TTL: time.Hour})
	becomesLocal(t, c, local, &o)
	load := o.load
	before := local.Load()
	if n := testing.AllocsPerRun(1000, func() { _, _ = c.Get(t.Context(), "k", load) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := local.Load() - before; n < 1000 {
		t.Errorf("%d of 1,000 hits were local", n)
	}
}

package cache_test

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// adversary drives several processes' caches over the same few keys, so that invalidations, loads, refreshes,
// batches, tags and writes meet in as many orders as the scheduler gives, and counts what was stale.
//
// The origin is a number per key that only grows. Who changes it waits for the invalidation, and only then raises
// the floor of the key: whoever asks after that must not get less. The processes with a local tier answer for
// their own changes at once, and for those of others within a while.
type adversary struct {
	t      *testing.T
	origin [adversaryKeys]atomic.Int64
	floor  [adversaryKeys]atomic.Int64 // of all processes

	procs                      []*proc
	ops, stale, stored, failed atomic.Int64
}

const adversaryKeys = 6

type proc struct {
	*adversary
	cache *cache.Cache[int64]
	local bool
	own   [adversaryKeys]atomic.Int64 // the floor of what this process has changed itself
}

func nameOf(k int) string { return "k" + strconv.Itoa(k) }

func numberOf(name string) int { return int(name[1] - '0') }

// jostle lets others go first, sometimes.
func jostle(r *rand.Rand) {
	switch r.IntN(6) {
	case 0:
		runtime.Gosched()
	case 1:
		<-time.After(time.Duration(r.IntN(300)) * time.Microsecond)
	}
}

func (a *adversary) load(k int) func(context.Context) (int64, error) {
	return func(context.Context) (int64, error) {
		r := rand.New(rand.NewPCG(rand.Uint64(), 0))
		jostle(r)
		n := a.origin[k].Load()
		jostle(r)
		return n, nil
	}
}

func (a *adversary) loadMany(_ context.Context, names []string) (map[string]int64, error) {
	values := map[string]int64{}
	for _, name := range names {
		values[name], _ = a.load(numberOf(name))(context.Background())
	}
	return values, nil
}

func raise(floor *atomic.Int64, to int64) {
	for {
		was := floor.Load()
		if was >= to || floor.CompareAndSwap(was, to) {
			return
		}
	}
}

// bound is what the process must not go below.
func (p *proc) bound(k int) int64 {
	if p.local {
		return p.own[k].Load()
	}
	return p.floor[k].Load()
}

func (p *proc) check(k int, bound, got int64, how string) {
	if got < bound {
		if p.stale.Add(1) <= 5 {
			p.t.Errorf("%s of %s, local tier %v: %d, after %d was acknowledged", how, nameOf(k), p.local, got, bound)
		}
	}
}

// change changes the origin of a key, tells the cache, and raises the floors.
func (p *proc) change(ctx context.Context, r *rand.Rand, k int) {
	name := nameOf(k)
	var n int64
	var err error
	switch r.IntN(4) {
	case 0:
		n = p.origin[k].Add(1)
		jostle(r)
		err = p.cache.Delete(ctx, name, nameOf(r.IntN(adversaryKeys)))
	case 1:
		n = p.origin[k].Add(1)
		jostle(r)
		err = p.cache.DeleteTags(ctx, "parity:"+strconv.Itoa(k%2))
	case 2:
		n = p.origin[k].Add(1)
		err = p.cache.DeleteTags(ctx, "all")
	case 3:
		// The value is known before it is stored, and the origin keeps the greater one, as with a version column.
		n = p.origin[k].Load() + 1
		err = p.cache.Write(ctx, name, n, func(context.Context, int64) error {
			jostle(r)
			if !p.origin[k].CompareAndSwap(n-1, n) {
				return errConflict
			}
			jostle(r)
			return nil
		})
		if err == errConflict { //nolint:errorlint // as it is
			return
		}
	}
	if err != nil {
		p.failed.Add(1)
		return
	}
	raise(&p.own[k], n)
	raise(&p.floor[k], n)
}

type conflict struct{}

func (conflict) Error() string { return "somebody else was first" }

var errConflict error = conflict{}

func (p *proc) step(ctx context.Context, r *rand.Rand) {
	p.ops.Add(1)
	k := r.IntN(adversaryKeys)
	switch c := r.IntN(10); {
	case c < 2:
		p.change(ctx, r, k)
	case c < 3:
		names := []string{nameOf(k), nameOf((k + 1) % adversaryKeys), nameOf((k + 2) % adversaryKeys), nameOf(k)}
		var bounds [adversaryKeys]int64
		for i := range bounds {
			bounds[i] = p.bound(i)
		}
		values, err := p.cache.GetMany(ctx, names, p.loadMany)
		if err != nil {
			p.failed.Add(1)
		}
		for name, got := range values {
			p.check(numberOf(name), bounds[numberOf(name)], got, "GetMany")
		}
	case c < 4:
		bound := p.bound(k)
		if got, ok, err := p.cache.Peek(ctx, nameOf(k)); err == nil && ok {
			p.check(k, bound, got, "Peek")
		}
	default:
		bound := p.bound(k)
		got, err := p.cache.Get(ctx, nameOf(k), p.load(k))
		if err != nil {
			p.failed.Add(1)
			return
		}
		p.check(k, bound, got, "Get")
	}
}

// TestAdversary runs ten thousand interleavings; FLATRATE_CACHE_RUNS says how many else.
func TestAdversary(t *testing.T) {
	runs := int64(10_000)
	if text := os.Getenv("FLATRATE_CACHE_RUNS"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		runs = n
	}
	for name, start := range map[string]func(*testing.T) func() valkey.Client{
		"valkey": func(t *testing.T) func() valkey.Client {
			s := valkeytest.Start(t)
			return func() valkey.Client { return valkeytest.NewClient(t, s) }
		},
		"cluster": func(t *testing.T) func() valkey.Client {
			c := valkeytest.Cluster(t, 3)
			return func() valkey.Client {
				client, err := valkey.NewClient(valkey.ClientOption{InitAddress: c.Addrs()})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(client.Close)
				return client
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			adversaryRuns(t, start(t), seed, runs/2)
		})
	}
}

func adversaryRuns(t *testing.T, client func() valkey.Client, seed uint64, runs int64) {
	a := &adversary{t: t}
	cfg := cache.Config{
		// So short that entries are missing, stale and early all the time.
		TTL: 15 * time.Millisecond, StaleWhileRevalidate: 20 * time.Millisecond, Early: 20,
		Late: cache.Load, LateAfter: 2 * time.Millisecond, LateLoads: 2, Lease: 100 * time.Millisecond,
		Tags: func(key string) []string { return []string{"all", "parity:" + strconv.Itoa(numberOf(key)%2)} },
	}
	for i := range 4 {
		p := &proc{adversary: a, local: i%2 == 1}
		cfg := cfg
		if p.local {
			cfg.Local = cache.LocalTier{Entries: 100}
			cfg.TTL = 200 * time.Millisecond
		}
		c, err := cache.New[int64](client(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		p.cache = c
		a.procs = append(a.procs, p)
	}
	var all sync.WaitGroup
	for i, p := range a.procs {
		for j := range 4 {
			r := rand.New(rand.NewPCG(seed, uint64(4*i+j)))
			all.Go(func() {
				for a.ops.Load() < runs && a.stale.Load() == 0 {
					p.step(t.Context(), r)
				}
			})
		}
	}
	all.Wait()
	a.settled(t)
	t.Logf("%d operations, %d stale reads, %d stale entries left, %d failed", a.ops.Load(), a.stale.Load(), a.stored.Load(), a.failed.Load())
	if a.failed.Load() > 0 {
		t.Errorf("%d operations failed", a.failed.Load())
	}
}

// settled holds, once nobody changes anything, that nothing stale is stored, and that the local tiers have heard
// of everything.
func (a *adversary) settled(t *testing.T) {
	for k := range adversaryKeys {
		for _, p := range a.procs {
			want := a.origin[k].Load()
			if !p.local {
				if got, ok, err := p.cache.Peek(t.Context(), nameOf(k)); err != nil || ok && got < a.floor[k].Load() {
					a.stored.Add(1)
					t.Errorf("%s is stored as %d, the origin has %d; %v", nameOf(k), got, want, err)
				}
				continue
			}
			eventually(t, "the local tier is right", func() bool {
				got, err := p.cache.Get(t.Context(), nameOf(k), a.load(k))
				return err == nil && got >= a.floor[k].Load()
			})
		}
	}
}

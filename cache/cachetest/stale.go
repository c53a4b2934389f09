package cachetest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// revalidate holds that a stale entry is served at once, that one process loads it anew, and that the fence
// holds for that too.
func revalidate(t *testing.T, env valkeytest.Env) {
	var past, refused atomic.Int64
	a, b := two[string](t, env, cache.Config{
		TTL: 20 * time.Millisecond, Jitter: cache.NoJitter, StaleWhileRevalidate: time.Hour,
		Hooks: cache.Hooks{Stale: func(_ string, d time.Duration) { past.Store(int64(d)) }, Refused: func(string) { refused.Add(1) }},
	})
	put(t, a, "k", "old")
	env.Advance(25 * time.Millisecond)
	g := newGate()
	for range 3 {
		mustGet(t, a, "k", "old", g.load("new"))
		mustGet(t, b, "k", "old", g.load("new"))
	}
	await(t, "the refresh", g.begun)
	if d := time.Duration(past.Load()); d < 5*time.Millisecond || d > time.Minute {
		t.Errorf("stale for %v", d)
	}
	close(g.end)
	eventually(t, "the new value", func() bool {
		value, ok, err := b.Peek(t.Context(), "k")
		return err == nil && ok && value == "new"
	})
	if n := g.loads.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
	env.Advance(25 * time.Millisecond)
	g = newGate()
	// The refresh before this one may not have ended yet: it has stored its value, and begins no other one meanwhile.
	eventually(t, "the refresh", func() bool {
		mustGet(t, a, "k", "new", g.load("of before the invalidation"))
		return len(g.begun) > 0
	})
	if err := b.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	mustGet(t, b, "k", "newest", constant("newest"))
	close(g.end)
	eventually(t, "the refusal", func() bool { return refused.Load() == 1 })
	mustGet(t, a, "k", "newest", constant("newest"))
}

// interrupted lets something happen between the commands of one round trip, as other clients may.
type interrupted struct {
	valkey.Client
	between func()
}

func (c interrupted) DoMulti(ctx context.Context, cmds ...valkey.Completed) []valkey.ValkeyResult {
	results := make([]valkey.ValkeyResult, 0, len(cmds))
	for i, cmd := range cmds {
		if i > 0 {
			c.between()
		}
		results = append(results, c.Do(ctx, cmd))
	}
	return results
}

// writeBetween holds that an entry which is past its TTL is not served with the TTL of the one that takes its place while both are
// being read.
func writeBetween(t *testing.T, env valkeytest.Env) {
	cfg := cache.Config{
		Prefix: valkeytest.Prefix(t), TTL: time.Minute, Jitter: cache.NoJitter, StaleIfError: time.Hour,
	}
	writer := newCache[string](t, env, cfg)
	short := cfg
	short.TTL = 20 * time.Millisecond
	put(t, newCache[string](t, env, short), "k", "old")
	env.Advance(21 * time.Millisecond)
	written := 0
	c, err := cache.New[string](interrupted{env.Client, func() {
		if written++; written == 1 {
			put(t, writer, "k", "new")
		}
	}}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	mustGet(t, c, "k", "new", constant("loaded"))
	if written == 0 {
		t.Error("nothing was written between")
	}
}

// failedRefresh holds that a refresh that fails is not tried again at once, by nobody.
func failedRefresh(t *testing.T, env valkeytest.Env) {
	a, b := two[string](t, env, cache.Config{
		TTL: 20 * time.Millisecond, Jitter: cache.NoJitter, StaleWhileRevalidate: time.Hour, ErrorTTL: time.Hour,
	})
	put(t, a, "k", "old")
	env.Advance(21 * time.Millisecond)
	failed := make(chan struct{})
	fail := func(context.Context) (string, error) { defer close(failed); return "", errors.New("origin") }
	mustGet(t, a, "k", "old", fail)
	await(t, "the refresh", failed)
	for range 5 {
		mustGet(t, a, "k", "old", noLoad(t)) // joins the flight, if that has not ended yet
		mustGet(t, b, "k", "old", noLoad(t))
	}
}

func staleIfError(t *testing.T, env valkeytest.Env) {
	a, b := two[string](t, env, cache.Config{
		TTL: 20 * time.Millisecond, Jitter: cache.NoJitter, StaleIfError: time.Hour, ErrorTTL: time.Hour,
	})
	broken := errors.New("origin")
	fail := func(context.Context) (string, error) { return "", broken }
	put(t, a, "k", "old")
	env.Advance(21 * time.Millisecond)
	wantNone(t, a, "k")
	mustGet(t, a, "k", "old", fail)
	mustGet(t, b, "k", "old", noLoad(t)) // the failure is remembered
	if err := a.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), "k", fail); !errors.Is(err, broken) {
		t.Errorf("after the invalidation: %v", err)
	}
	put(t, a, "healed", "old")
	env.Advance(21 * time.Millisecond)
	mustGet(t, a, "healed", "new", constant("new"))
}

// early holds the formula of XFetch at its ends: the refresh comes if -beta*delta*ln(1-random) is at least what is
// left of the TTL.
func early(t *testing.T, env valkeytest.Env) {
	var random atomic.Value
	random.Store(0.0)
	c := newCache[string](t, env, cache.Config{
		TTL: 100 * time.Second, Jitter: cache.NoJitter, Early: 1000,
		Random: func() float64 { return random.Load().(float64) },
	})
	slow := func(context.Context) (string, error) {
		<-time.After(10 * time.Millisecond) // delta
		return "first", nil
	}
	mustGet(t, c, "k", "first", slow)
	for range 5 {
		mustGet(t, c, "k", "first", noLoad(t)) // ln 1 is 0
	}
	random.Store(1 - 1e-6) // 13.8 x 10 ms x 1000 is more than 100 s
	begun := make(chan struct{}, 1)
	mustGet(t, c, "k", "first", func(context.Context) (string, error) { begun <- struct{}{}; return "second", nil })
	await(t, "the early load", begun)
	random.Store(0.0)
	eventually(t, "the new value", func() bool {
		value, ok, err := c.Peek(t.Context(), "k")
		return err == nil && ok && value == "second"
	})
}

func tags(t *testing.T, env valkeytest.Env) {
	cfg := cache.Config{Tags: func(key string) []string { return []string{"all", "first:" + key[:1]} }, StaleIfError: time.Hour}
	a, b := two[string](t, env, cfg)
	for _, key := range []string{"a1", "a2", "b1"} {
		mustGet(t, a, key, "old", constant("old"))
		mustGet(t, b, key, "old", noLoad(t))
	}
	put(t, a, "a3", "old")
	if err := b.DeleteTags(t.Context(), "first:a", "of nothing"); err != nil {
		t.Fatal(err)
	}
	wantNone(t, a, "a3")
	wantNone(t, b, "a1")
	mustGet(t, b, "b1", "old", noLoad(t))
	if _, err := a.Get(t.Context(), "a1", func(context.Context) (string, error) { return "", errors.New("origin") }); err == nil {
		t.Error("what a tag has removed was served when load failed")
	}
	var asked [][]string
	values, err := a.GetMany(t.Context(), []string{"a1", "a2", "b1"}, echo(&asked))
	if err != nil || values["a1"] != "of a1" || values["b1"] != "old" || len(asked) != 1 || len(asked[0]) != 2 {
		t.Errorf("%q, %v, asked for %q", values, err, asked)
	}
	mustGet(t, b, "a2", "of a2", noLoad(t))
	if err := a.DeleteTags(t.Context(), "all"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a1", "a2", "a3", "b1"} {
		wantNone(t, b, key)
	}
	if err := a.DeleteTags(t.Context()); err != nil {
		t.Errorf("DeleteTags of nothing: %v", err)
	}
	over := newCache[string](t, env, cache.Config{Tags: func(string) []string { return numbered(17) }})
	if err := over.Set(t.Context(), "k", "v"); err == nil {
		t.Error("17 tags are no error")
	}
}

// audit holds that an entry that nobody invalidated is found stale, and one that somebody did is not.
func audit(t *testing.T, env valkeytest.Env) {
	audited := make(chan bool, 10)
	cfg := cache.Config{
		Jitter: cache.NoJitter, Audit: 1, Random: func() float64 { return 0 },
		Hooks: cache.Hooks{Audited: func(_ string, stale bool) { audited <- stale }},
	}
	c := newCache[string](t, env, cfg)
	mustGet(t, c, "k", "v", constant("v"))
	mustGet(t, c, "k", "v", constant("v"))
	if await(t, "an audit", audited) {
		t.Error("the same value is stale")
	}
	begun := make(chan struct{})
	eventually(t, "an audit begins", func() bool {
		mustGet(t, c, "k", "v", func(context.Context) (string, error) { close(begun); return "changed", nil })
		select {
		case <-begun:
			return true
		case <-time.After(time.Millisecond):
			return false
		}
	})
	if !await(t, "an audit", audited) {
		t.Error("a change that nobody told of was not found")
	}
}

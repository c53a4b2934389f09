package cachetest

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/valkeytest"
)

// tiers counts hits.
type tiers struct{ local, server atomic.Int64 }

func (h *tiers) hit(_ string, tier cache.Tier) {
	if tier == cache.Local {
		h.local.Add(1)
	} else {
		h.server.Add(1)
	}
}

// withLocal returns two caches with local tiers, that stand for two processes.
func withLocal(t *testing.T, env valkeytest.Env, cfg cache.Config) (a, b *cache.Cache[string], hits *tiers) {
	t.Helper()
	hits = &tiers{}
	cfg.Local, cfg.Hooks.Hit = cache.LocalTier{Entries: 1000}, hits.hit
	a, b = two[string](t, env, cfg)
	t.Cleanup(a.Close)
	t.Cleanup(b.Close)
	return a, b, hits
}

// becomesLocal reads a key until this process has it.
func becomesLocal(t *testing.T, c *cache.Cache[string], hits *tiers, key, want string) {
	t.Helper()
	before := hits.local.Load()
	eventually(t, "a local hit", func() bool {
		mustGet(t, c, key, want, noLoad(t))
		return hits.local.Load() > before
	})
}

// localTier holds that hits become local, and that changes of this process count at once, those of others soon, in
// every way that there is.
func localTier(t *testing.T, env valkeytest.Env) {
	a, b, hits := withLocal(t, env, cache.Config{Tags: func(string) []string { return []string{"all"} }})
	keys := []string{"plain", "with {braces} and ü", "", string(make([]byte, 600))}
	if env.Embedded { // which tells nothing: each change takes a second
		keys = keys[:1]
	}
	for _, key := range keys {
		var o origin
		_ = o.store(t.Context(), "0")
		mustGet(t, a, key, "0", o.load)
		for version, change := range map[string]func() error{
			"delete": func() error { return a.Delete(t.Context(), key) },
			"tags":   func() error { return a.DeleteTags(t.Context(), "all") },
			"set":    func() error { return a.Set(t.Context(), key, *o.value.Load()) },
			"write":  func() error { return a.Write(t.Context(), key, *o.value.Load(), o.store) },
		} {
			mustGet(t, a, key, *o.value.Load(), o.load)
			becomesLocal(t, a, hits, key, *o.value.Load())
			becomesLocal(t, b, hits, key, *o.value.Load())
			_ = o.store(t.Context(), version)
			if err := change(); err != nil {
				t.Fatal(err)
			}
			mustGet(t, a, key, version, o.load) // at once
			eventually(t, "the change of the other process", func() bool {
				value, err := b.Get(t.Context(), key, o.load)
				return err == nil && value == version
			})
		}
	}
}

// localEnds holds that no entry outlives, in the process, its own TTL in the server, or the local one.
func localEnds(t *testing.T, env valkeytest.Env) {
	hits := &tiers{}
	for _, cfg := range []cache.Config{
		{TTL: 300 * time.Millisecond, Local: cache.LocalTier{Entries: 10}},
		{TTL: time.Hour, Local: cache.LocalTier{Entries: 10, TTL: 300 * time.Millisecond}},
	} {
		cfg.Jitter, cfg.Hooks.Hit = cache.NoJitter, hits.hit
		c := newCache[string](t, env, cfg)
		t.Cleanup(c.Close)
		var o origin
		_ = o.store(t.Context(), "v")
		before := hits.local.Load()
		eventually(t, "a local hit", func() bool {
			mustGet(t, c, "k", "v", o.load)
			return hits.local.Load() > before
		})
		eventually(t, "the end of the local entry", func() bool {
			local, server := hits.local.Load(), hits.server.Load()
			mustGet(t, c, "k", "v", o.load)
			return hits.local.Load() == local || hits.server.Load() > server
		})
	}
}

// localClosed holds that a cache works on after Close.
func localClosed(t *testing.T, env valkeytest.Env) {
	a, b, hits := withLocal(t, env, cache.Config{})
	mustGet(t, a, "k", "v", constant("v"))
	becomesLocal(t, a, hits, "k", "v")
	a.Close()
	a.Close()
	before := hits.local.Load()
	mustGet(t, a, "k", "v", noLoad(t))
	if hits.local.Load() != before {
		t.Error("a local hit after Close")
	}
	if err := b.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	mustGet(t, a, "k", "new", constant("new"))
	newCache[string](t, env, cache.Config{}).Close() // nothing to close
}

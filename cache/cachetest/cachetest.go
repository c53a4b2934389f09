// Package cachetest is the conformance suite of package cache: what holds on every kind of server.
package cachetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/valkeytest"
)

// Run runs the suite against env.
func Run(t *testing.T, env valkeytest.Env) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, valkeytest.Env)
	}{
		{"GetSetDelete", getSetDelete},
		{"Load", load},
		{"Expiry", expiry},
		{"Jitter", jitter},
		{"Keys", keys},
		{"Types", types},
		{"Interfaces", interfaces},
		{"ForeignValues", foreignValues},
		{"OneLoad", oneLoad},
		{"Fence", fence},
		{"Negative", negative},
		{"RememberedErrors", rememberedErrors},
		{"BadLoads", badLoads},
		{"CallersGo", callersGo},
		{"Takeover", takeover},
		{"Joined", joined},
		{"LongLoad", longLoad},
		{"LongBatchAndWrite", longBatchAndWrite},
		{"Late", late},
		{"LateLoads", lateLoads},
		{"Many", many},
		{"ManyThousands", manyThousands},
		{"ManyFail", manyFail},
		{"ManyFence", manyFence},
		{"ManyMeet", manyMeet},
		{"ManyStale", manyStale},
		{"Revalidate", revalidate},
		{"FailedRefresh", failedRefresh},
		{"StaleIfError", staleIfError},
		{"Early", early},
		{"WriteBetween", writeBetween},
		{"Tags", tags},
		{"LocalTier", localTier},
		{"LocalEnds", localEnds},
		{"LocalClosed", localClosed},
		{"Write", write},
		{"WriteAndLoad", writeAndLoad},
		{"WritersOverlap", writersOverlap},
		{"Audit", audit},
		{"Model", model},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, env) })
	}
}

type user struct {
	Name string
	Tags []string `json:",omitempty"`
}

func newCache[V any](t *testing.T, env valkeytest.Env, cfg cache.Config) *cache.Cache[V] {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	c, err := cache.New[V](env.Client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func put[V any](t *testing.T, c *cache.Cache[V], key string, value V) {
	t.Helper()
	if err := c.Set(t.Context(), key, value); err != nil {
		t.Fatalf("Set(%.40q): %v", key, err)
	}
}

// want fails the test unless the entry of key is value.
func want[V any](t *testing.T, c *cache.Cache[V], key string, value V) {
	t.Helper()
	if got, ok, err := c.Peek(t.Context(), key); err != nil || !ok || !reflect.DeepEqual(got, value) {
		t.Fatalf("Peek(%.40q) = %+v, %v, %v; want %+v", key, got, ok, err, value)
	}
}

func wantNone[V any](t *testing.T, c *cache.Cache[V], key string) {
	t.Helper()
	if got, ok, err := c.Peek(t.Context(), key); err != nil || ok {
		t.Fatalf("Peek(%.40q) = %+v, %v, %v; want none", key, got, ok, err)
	}
}

func getSetDelete(t *testing.T, env valkeytest.Env) {
	c := newCache[user](t, env, cache.Config{})
	wantNone(t, c, "a")
	put(t, c, "a", user{Name: "ann", Tags: []string{"x"}})
	put(t, c, "b", user{Name: "bob"})
	put(t, c, "c", user{})
	want(t, c, "a", user{Name: "ann", Tags: []string{"x"}})
	put(t, c, "a", user{Name: "anna"})
	want(t, c, "a", user{Name: "anna"})
	want(t, c, "c", user{})
	for range 2 { // of different slots, and then of none
		if err := c.Delete(t.Context(), "a", "b", "none"); err != nil {
			t.Fatal(err)
		}
	}
	wantNone(t, c, "a")
	wantNone(t, c, "b")
	want(t, c, "c", user{})
	if err := c.Delete(t.Context()); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
}

func load(t *testing.T, env valkeytest.Env) {
	c := newCache[user](t, env, cache.Config{})
	broken, loads := errors.New("origin"), 0
	get := func(value user, err error) (user, error) {
		return c.Get(t.Context(), "k", func(context.Context) (user, error) { loads++; return value, err })
	}
	if _, err := get(user{}, broken); err != broken { //nolint:errorlint // as it is, not wrapped
		t.Fatalf("load's error: %v", err)
	}
	wantNone(t, c, "k")
	for range 3 {
		if got, err := get(user{Name: "ann"}, nil); err != nil || got.Name != "ann" {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if loads != 2 {
		t.Errorf("%d loads, want one that failed and one that was stored", loads)
	}
}

func expiry(t *testing.T, env valkeytest.Env) {
	c := newCache[string](t, env, cache.Config{TTL: 30 * time.Millisecond, Jitter: cache.NoJitter})
	put(t, c, "k", "v")
	env.Advance(31 * time.Millisecond)
	wantNone(t, c, "k")
	if !env.Embedded {
		return
	}
	c = newCache[string](t, env, cache.Config{TTL: 5 * time.Minute, Jitter: cache.NoJitter})
	put(t, c, "k", "v")
	env.Advance(5*time.Minute - time.Second)
	want(t, c, "k", "v")
	env.Advance(time.Second)
	wantNone(t, c, "k")
}

// jitter holds that entries live from TTL less the jitter up to TTL, as the random number says.
func jitter(t *testing.T, env valkeytest.Env) {
	const ttl = 1000 * time.Second
	for _, test := range []struct {
		jitter, random float64
		want           time.Duration
	}{
		{cache.NoJitter, 0.5, 1000 * time.Second},
		{0, 0, 1000 * time.Second},
		{0, 0.5, 950 * time.Second},
		{0.4, 0.5, 800 * time.Second},
		{1, 0.75, 250 * time.Second},
	} {
		prefix := valkeytest.Prefix(t)
		c := newCache[string](t, env, cache.Config{
			Prefix: prefix, Name: "n", TTL: ttl, Jitter: test.jitter, Random: func() float64 { return test.random },
		})
		put(t, c, "k", "v")
		pttl := env.Client.B().Pttl().Key(prefix + ":cache:n:{k}").Build()
		ms, err := env.Client.Do(t.Context(), pttl).AsInt64()
		if got := time.Duration(ms) * time.Millisecond; err != nil || got > test.want || got < test.want-30*time.Second {
			t.Errorf("jitter %v, random %v: lives for %v, want %v; %v", test.jitter, test.random, got, test.want, err)
		}
	}
}

// keys holds that no key, and no name of a cache, meets another's entry.
func keys(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	for _, name := range []string{"", "a", "a:b", "a{b}"} {
		c := newCache[string](t, env, cache.Config{Prefix: prefix, Name: name})
		for _, key := range []string{
			"", "%", "{", "}", "{}", "a", "a ", "b:{a}", "%7Ba%7D", "a\x00", "a\n", "*", "ü", "\xff",
			strings.Repeat("x", 512), strings.Repeat("x", 513), strings.Repeat("x", 1<<20),
		} {
			wantNone(t, c, key)
			put(t, c, key, name+key)
			want(t, c, key, name+key)
		}
	}
}

func types(t *testing.T, env valkeytest.Env) {
	binary := "\x00\xff{}\r\n"
	text := newCache[string](t, env, cache.Config{})
	put(t, text, "k", binary)
	want(t, text, "k", binary)
	put(t, text, "k", "")
	want(t, text, "k", "")
	raw := newCache[[]byte](t, env, cache.Config{})
	put(t, raw, "k", []byte(binary))
	want(t, raw, "k", []byte(binary))
	pointer := newCache[*user](t, env, cache.Config{})
	put(t, pointer, "k", &user{Name: "ann"})
	want(t, pointer, "k", &user{Name: "ann"})
	put(t, pointer, "none", nil)
	want(t, pointer, "none", nil)
	funcs := newCache[func()](t, env, cache.Config{})
	if err := funcs.Set(t.Context(), "k", func() {}); err == nil {
		t.Error("a func was stored")
	}
}

// interfaces holds that the type of the cache, not that of the value, says how a value is stored.
func interfaces(t *testing.T, env valkeytest.Env) {
	c := newCache[any](t, env, cache.Config{})
	for _, value := range []any{"text", "", `"quoted"`, "7", 7.5, true, nil, []any{"x", nil}, map[string]any{"a": "b"}} {
		put(t, c, "k", value)
		want(t, c, "k", value)
	}
	put[any](t, c, "bytes", []byte("\x00\xff")) // JSON has none
	want[any](t, c, "bytes", "AP8=")
	for _, key := range []string{"loaded", "loaded"} {
		got, err := c.Get(t.Context(), key, func(context.Context) (any, error) { return nil, nil })
		if err != nil || got != nil {
			t.Errorf("Get of nil: %v, %v", got, err)
		}
	}
	if _, err := c.Get(t.Context(), "none", nil); err == nil {
		t.Error("a nil load is no error")
	}
}

// foreignValues puts what is no entry in an entry's place: Get tells, Get heals.
func foreignValues(t *testing.T, env valkeytest.Env) {
	for _, cmd := range [][]string{{"SET", "{"}, {"RPUSH", "x"}, {"SET", `["a list"]`}} {
		prefix := valkeytest.Prefix(t)
		var heard []string
		c := newCache[user](t, env, cache.Config{
			Prefix: prefix, Name: "n",
			Hooks: cache.Hooks{Error: func(op string, _ error) { heard = append(heard, op) }},
		})
		put := env.Client.B().Arbitrary(cmd[0]).Keys(prefix + ":cache:n:{k}").Args(cmd[1:]...).Build()
		if err := env.Client.Do(t.Context(), put).Error(); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := c.Peek(t.Context(), "k"); err == nil || ok || got.Name != "" {
			t.Errorf("%q: Peek = %+v, %v, %v; want an error", cmd, got, ok, err)
		}
		got, err := c.Get(t.Context(), "k", func(context.Context) (user, error) { return user{Name: "ann"}, nil })
		if err != nil || got.Name != "ann" || !reflect.DeepEqual(heard, []string{"get"}) {
			t.Errorf("%q: Get = %+v, %v; heard %q", cmd, got, err, heard)
		}
		want(t, c, "k", user{Name: "ann"})
	}
}

// model drives the cache and a map with the same random schedule.
func model(t *testing.T, env valkeytest.Env) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c := newCache[int](t, env, cache.Config{TTL: time.Hour})
	stored := map[string]int{}
	for step := range 2000 {
		key := string(rune('a' + random.IntN(8)))
		had, ok := stored[key]
		switch random.IntN(4) {
		case 0:
			put(t, c, key, step)
			stored[key] = step
		case 1:
			if err := c.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			delete(stored, key)
		case 2:
			got, found, err := c.Peek(t.Context(), key)
			if err != nil || found != ok || got != had {
				t.Fatalf("step %d: Peek(%s) = %d, %v, %v; model: %d, %v", step, key, got, found, err, had, ok)
			}
		default:
			got, err := c.Get(t.Context(), key, func(context.Context) (int, error) { return step, nil })
			if !ok {
				stored[key] = step
			}
			if err != nil || got != stored[key] {
				t.Fatalf("step %d: Get(%s) = %d, %v; model: %d", step, key, got, err, stored[key])
			}
		}
	}
}

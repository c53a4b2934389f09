package cachetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// counting counts round trips: each call of a client is one to each node.
type counting struct {
	valkey.Client
	trips atomic.Int64
}

func (c *counting) Do(ctx context.Context, cmd valkey.Completed) valkey.ValkeyResult {
	c.trips.Add(1)
	return c.Client.Do(ctx, cmd)
}

func (c *counting) DoMulti(ctx context.Context, multi ...valkey.Completed) []valkey.ValkeyResult {
	c.trips.Add(1)
	return c.Client.DoMulti(ctx, multi...)
}

// numbered returns n keys of different slots.
func numbered(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprint("key ", i)
	}
	return keys
}

// echo loads "of KEY", and tells what it was asked for.
func echo(asked *[][]string) cache.LoadMany[string] {
	return func(_ context.Context, keys []string) (map[string]string, error) {
		*asked = append(*asked, slices.Clone(keys))
		values := map[string]string{"not asked for": "x"}
		for _, key := range keys {
			values[key] = "of " + key
		}
		return values, nil
	}
}

func many(t *testing.T, env valkeytest.Env) {
	client := &counting{Client: env.Client}
	env.Client = client
	c := newCache[string](t, env, cache.Config{})
	keys := numbered(100)
	var asked [][]string
	get := func(keys []string) map[string]string {
		t.Helper()
		values, err := c.GetMany(t.Context(), keys, echo(&asked))
		if err != nil {
			t.Fatal(err)
		}
		return values
	}
	get(keys[:1]) // loads the scripts
	get(keys[:70])
	asked = nil
	before := client.trips.Load()
	values := get(keys)
	if trips := client.trips.Load() - before; trips != 2 {
		t.Errorf("%d round trips for 100 keys of which 30 are missing", trips)
	}
	if len(asked) != 1 || !slices.Equal(asked[0], keys[70:]) {
		t.Errorf("load was asked for %q", asked)
	}
	if len(values) != len(keys) {
		t.Errorf("%d values", len(values))
	}
	for _, key := range keys {
		if values[key] != "of "+key {
			t.Errorf("%s: %q", key, values[key])
		}
	}
	before = client.trips.Load()
	asked = nil
	if again := get(append(keys, keys...)); !reflect.DeepEqual(again, values) || asked != nil {
		t.Errorf("again, twice each: %d values, load was asked for %q", len(again), asked)
	}
	if trips := client.trips.Load() - before; trips != 1 {
		t.Errorf("%d round trips for hits", trips)
	}
	if none := get(nil); len(none) != 0 {
		t.Errorf("of no keys: %q", none)
	}
	for _, key := range keys[:3] {
		mustGet(t, c, key, "of "+key, noLoad(t))
	}
}

// manyThousands asks for ten thousand keys, half of them twice. The embedded engine may take longer than MaxWait for the scripts of
// a thousand.
func manyThousands(t *testing.T, env valkeytest.Env) {
	c := newCache[string](t, env, cache.Config{})
	keys := numbered(10_000)
	if env.Embedded {
		keys = keys[:200]
	}
	var asked [][]string
	for range 2 {
		values, err := c.GetMany(t.Context(), append(slices.Clone(keys[:len(keys)/2]), keys...), echo(&asked))
		if err != nil || len(values) != len(keys) {
			t.Fatalf("%d values, %v", len(values), err)
		}
	}
	if len(asked) != 1 || len(asked[0]) != len(keys) {
		t.Errorf("%d loads", len(asked))
	}
}

// manyFail holds what a batch gives whose load fails, finds nothing, or panics.
func manyFail(t *testing.T, env valkeytest.Env) {
	c := newCache[string](t, env, cache.Config{})
	put(t, c, "there", "v")
	broken := errors.New("origin")
	values, err := c.GetMany(t.Context(), []string{"there", "gone"}, func(context.Context, []string) (map[string]string, error) {
		return map[string]string{"gone": "half an answer"}, broken
	})
	if !errors.Is(err, broken) || !reflect.DeepEqual(values, map[string]string{"there": "v"}) {
		t.Errorf("a load that fails: %q, %v", values, err)
	}
	panicked := new(cache.PanicError)
	_, err = c.GetMany(t.Context(), []string{"gone"}, func(context.Context, []string) (map[string]string, error) { panic("boom") })
	if !errors.As(err, &panicked) {
		t.Errorf("a load that panics: %v", err)
	}
	loads := 0
	for range 2 {
		values, err = c.GetMany(t.Context(), []string{"there", "gone"}, func(context.Context, []string) (map[string]string, error) {
			loads++
			return nil, nil
		})
		if err != nil || !reflect.DeepEqual(values, map[string]string{"there": "v"}) {
			t.Errorf("a load that finds nothing: %q, %v", values, err)
		}
	}
	if loads != 1 {
		t.Errorf("%d loads: that nothing is there was not remembered", loads)
	}
	if _, err := c.GetMany(t.Context(), []string{"gone"}, nil); err == nil {
		t.Error("a nil load is no error")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.GetMany(ended, []string{"other"}, echo(new([][]string))); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
}

// manyFence invalidates a key of a batch while the batch is being loaded.
func manyFence(t *testing.T, env valkeytest.Env) {
	var refused atomic.Int64
	a, b := two[string](t, env, cache.Config{Hooks: cache.Hooks{Refused: func(string) { refused.Add(1) }}})
	begun, end := make(chan struct{}), make(chan struct{})
	done := make(chan map[string]string, 1)
	go func() {
		values, _ := a.GetMany(t.Context(), []string{"x", "y"}, func(context.Context, []string) (map[string]string, error) {
			close(begun)
			<-end
			return map[string]string{"x": "old", "y": "old"}, nil
		})
		done <- values
	}()
	await(t, "the load", begun)
	if err := b.Delete(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	mustGet(t, b, "x", "new", constant("new"))
	close(end)
	await(t, "the batch", done)
	mustGet(t, b, "x", "new", noLoad(t))
	mustGet(t, b, "y", "old", noLoad(t))
	if refused.Load() != 1 {
		t.Errorf("%d refused", refused.Load())
	}
}

// manyMeet lets two batches load what the other one waits for: neither loads a key twice, and both end.
func manyMeet(t *testing.T, env valkeytest.Env) {
	a, b := two[string](t, env, cache.Config{})
	var loaded atomic.Int64
	begun, end := make(chan struct{}, 2), make(chan struct{})
	load := func(_ context.Context, keys []string) (map[string]string, error) {
		loaded.Add(int64(len(keys)))
		begun <- struct{}{}
		<-end
		values := map[string]string{}
		for _, key := range keys {
			values[key] = "of " + key
		}
		return values, nil
	}
	keys := numbered(30)
	done := make(chan map[string]string, 2)
	get := func(c *cache.Cache[string], keys []string) {
		values, err := c.GetMany(t.Context(), keys, load)
		if err != nil {
			t.Error(err)
		}
		done <- values
	}
	go get(a, keys[:20])
	await(t, "the first load", begun)
	go get(b, keys[10:])
	await(t, "the second load", begun)
	close(end)
	for range 2 {
		if values := await(t, "a batch", done); len(values) != 20 {
			t.Errorf("%d values", len(values))
		}
	}
	if n := loaded.Load(); n != 30 {
		t.Errorf("%d keys were loaded, of 30", n)
	}
}

// manyStale holds that a batch serves stale entries, and loads them anew in one call.
func manyStale(t *testing.T, env valkeytest.Env) {
	c := newCache[string](t, env, cache.Config{TTL: 20 * time.Millisecond, Jitter: cache.NoJitter, StaleWhileRevalidate: time.Hour})
	keys := numbered(5)
	for _, key := range keys {
		put(t, c, key, "old")
	}
	env.Advance(21 * time.Millisecond)
	asked := make(chan []string, 10)
	load := func(_ context.Context, keys []string) (map[string]string, error) {
		asked <- keys
		values := map[string]string{}
		for _, key := range keys {
			values[key] = "new"
		}
		return values, nil
	}
	values, err := c.GetMany(t.Context(), keys, load)
	if err != nil || len(values) != 5 || values[keys[0]] != "old" {
		t.Errorf("%q, %v", values, err)
	}
	if got := await(t, "the refresh", asked); !slices.Equal(got, keys) {
		t.Errorf("loaded %q", got)
	}
	eventually(t, "the new values", func() bool {
		value, ok, err := c.Peek(t.Context(), keys[4])
		return err == nil && ok && value == "new"
	})
}

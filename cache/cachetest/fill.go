package cachetest

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/valkeytest"
)

// patience bounds waits for what has to happen.
const patience = 20 * time.Second

// await fails the test unless c is closed, or receives, soon.
func await[T any](t *testing.T, what string, c <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-c:
	case <-time.After(patience):
		t.Fatalf("%s: not within %v", what, patience)
	}
	return value
}

// eventually fails the test unless ok becomes true soon.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		<-time.After(time.Millisecond)
	}
}

// two returns two caches that stand for two processes: nothing but the server is between them.
func two[V any](t *testing.T, env valkeytest.Env, cfg cache.Config) (a, b *cache.Cache[V]) {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	return newCache[V](t, env, cfg), newCache[V](t, env, cfg)
}

// gate is a load that waits to be let go, and counts.
type gate struct {
	begun chan struct{} // receives for each load that begins
	end   chan struct{} // closed, or sent to, lets loads end
	loads atomic.Int64
}

func newGate() *gate { return &gate{begun: make(chan struct{}, 100), end: make(chan struct{})} }

func (g *gate) load(value string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		g.loads.Add(1)
		g.begun <- struct{}{}
		select {
		case <-g.end:
		case <-ctx.Done():
			return "", ctx.Err()
		}
		return value, nil
	}
}

// got is what a Get ended with.
type got struct {
	value string
	err   error
}

func background(t *testing.T, c *cache.Cache[string], key string, load func(context.Context) (string, error)) <-chan got {
	done := make(chan got, 1)
	go func() {
		value, err := c.Get(t.Context(), key, load)
		done <- got{value, err}
	}()
	return done
}

func constant(value string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return value, nil }
}

func mustGet(t *testing.T, c *cache.Cache[string], key, want string, load func(context.Context) (string, error)) {
	t.Helper()
	if value, err := c.Get(t.Context(), key, load); err != nil || value != want {
		t.Fatalf("Get(%q) = %q, %v; want %q", key, value, err, want)
	}
}

func noLoad(t *testing.T) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		t.Error("loaded")
		return "", errors.New("loaded")
	}
}

// oneLoad lets many callers of two processes miss at once.
func oneLoad(t *testing.T, env valkeytest.Env) {
	var waited atomic.Int64
	a, b := two[string](t, env, cache.Config{Hooks: cache.Hooks{Waited: func(string, time.Duration) { waited.Add(1) }}})
	g := newGate()
	var all sync.WaitGroup
	const callers = 64
	for i := range callers {
		c := a
		if i%2 == 1 {
			c = b
		}
		all.Go(func() {
			if value, err := c.Get(t.Context(), "k", g.load("v")); err != nil || value != "v" {
				t.Errorf("%q, %v", value, err)
			}
		})
	}
	await(t, "the load", g.begun)
	close(g.end)
	all.Wait()
	if n := g.loads.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
	if n := waited.Load(); n > callers-1 {
		t.Errorf("%d waited", n)
	}
	mustGet(t, b, "k", "v", noLoad(t))
}

// fence invalidates, in every way and in another process, while the old value is being loaded: who called before may
// get it, and who calls after may not, and it is not stored.
func fence(t *testing.T, env valkeytest.Env) {
	for name, test := range map[string]struct {
		invalidate func(c *cache.Cache[string]) error
		want       string
	}{
		"Delete":     {func(c *cache.Cache[string]) error { return c.Delete(t.Context(), "k") }, "new"},
		"DeleteTags": {func(c *cache.Cache[string]) error { return c.DeleteTags(t.Context(), "all") }, "new"},
		"Set":        {func(c *cache.Cache[string]) error { return c.Set(t.Context(), "k", "set") }, "set"},
	} {
		for _, same := range []bool{false, true} {
			var refused, missed atomic.Int64
			cfg := cache.Config{Hooks: cache.Hooks{Refused: func(string) { refused.Add(1) }, Miss: func(string) { missed.Add(1) }}}
			if name == "DeleteTags" {
				cfg.Tags = func(string) []string { return []string{"all"} }
			}
			a, b := two[string](t, env, cfg)
			if same {
				b = a
			}
			old := newGate()
			before := background(t, a, "k", old.load("old"))
			await(t, "the old load", old.begun)
			if err := test.invalidate(b); err != nil {
				t.Fatal(err)
			}
			after := background(t, b, "k", constant("new")) // joins the flight if it is the same process
			if !same && name != "DeleteTags" {              // which knows no key, so that who comes after it waits for the old load
				if r := await(t, "the new load", after); r.err != nil || r.value != test.want {
					t.Errorf("%s: after the invalidation: %+v", name, r)
				}
			}
			if name != "Set" {
				eventually(t, "the second miss", func() bool { return missed.Load() == 2 }) // so that it joins the first
			}
			close(old.end)
			if r := await(t, "the old load", before); r.err != nil || r.value != "old" && r.value != test.want {
				t.Errorf("%s: before the invalidation: %+v", name, r)
			}
			if same || name == "DeleteTags" {
				if r := await(t, "the new load", after); r.err != nil || r.value != test.want {
					t.Errorf("%s, same process %v: after the invalidation: %+v", name, same, r)
				}
			}
			mustGet(t, a, "k", test.want, noLoad(t))
			if n := refused.Load(); n != 1 && name != "DeleteTags" { // whose old value is stored under an old generation
				t.Errorf("%s: %d refused", name, n)
			}
		}
	}
}

// negative holds that what is not there is remembered for its own time, and forgotten with Delete.
func negative(t *testing.T, env valkeytest.Env) {
	a, b := two[string](t, env, cache.Config{NegativeTTL: 30 * time.Millisecond, Jitter: cache.NoJitter})
	missing := errors.Join(errors.New("no such user"), cache.ErrNotFound)
	loads := 0
	get := func(c *cache.Cache[string]) error {
		_, err := c.Get(t.Context(), "k", func(context.Context) (string, error) { loads++; return "", missing })
		return err
	}
	for _, c := range []*cache.Cache[string]{a, b, b} {
		if err := get(c); !errors.Is(err, cache.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if loads != 1 {
		t.Errorf("%d loads of what is not there", loads)
	}
	wantNone(t, a, "k")
	env.Advance(31 * time.Millisecond)
	if err := get(a); !errors.Is(err, cache.ErrNotFound) || loads != 2 {
		t.Errorf("%v, %d loads after the negative TTL", err, loads)
	}
	if err := a.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	mustGet(t, b, "k", "there now", constant("there now"))

	none := newCache[string](t, env, cache.Config{NegativeTTL: cache.NoNegative})
	loads = 0
	for range 2 {
		if err := get(none); !errors.Is(err, cache.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if loads != 2 {
		t.Errorf("%d loads with NoNegative", loads)
	}
}

// rememberedErrors holds that an error keeps others from loading for ErrorTTL, in all processes.
func rememberedErrors(t *testing.T, env valkeytest.Env) {
	a, b := two[string](t, env, cache.Config{ErrorTTL: 40 * time.Millisecond})
	broken := errors.New("origin is down")
	fail := func(context.Context) (string, error) { return "", broken }
	if _, err := a.Get(t.Context(), "k", fail); err != broken { //nolint:errorlint // as it is, not wrapped
		t.Fatalf("load's error: %v", err)
	}
	remembered := new(cache.LoadError)
	if _, err := b.Get(t.Context(), "k", noLoad(t)); !errors.As(err, &remembered) || remembered.Text != broken.Error() {
		t.Errorf("remembered: %v", err)
	}
	env.Advance(41 * time.Millisecond)
	mustGet(t, b, "k", "v", constant("v"))
}

// badLoads holds what those get who wait for a load that panics, ends its goroutine, blocks or comes late.
func badLoads(t *testing.T, env valkeytest.Env) {
	c := newCache[string](t, env, cache.Config{LoadTimeout: 50 * time.Millisecond})
	panicked := new(cache.PanicError)
	_, err := c.Get(t.Context(), "k", func(context.Context) (string, error) { panic("boom") })
	if !errors.As(err, &panicked) || panicked.Value != "boom" || !strings.Contains(string(panicked.Stack), "badLoads") {
		t.Errorf("a panic: %v", err)
	}
	if _, err = c.Get(t.Context(), "k", func(context.Context) (string, error) { runtime.Goexit(); return "", nil }); err == nil {
		t.Error("Goexit was no error")
	}
	late := make(chan struct{})
	_, err = c.Get(t.Context(), "k", func(context.Context) (string, error) { <-late; return "late", nil })
	if !errors.Is(err, cache.ErrLoadTimeout) {
		t.Errorf("a load that blocks: %v", err)
	}
	close(late)
	_, err = c.Get(t.Context(), "k", func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() })
	if !errors.Is(err, cache.ErrLoadTimeout) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a load that heeds its context: %v", err)
	}
	mustGet(t, c, "k", "v", constant("v")) // at once: no lease was left behind
	mustGet(t, c, "k", "v", noLoad(t))
}

// callersGo holds that a caller who goes ends neither the load nor the others' wait.
func callersGo(t *testing.T, env valkeytest.Env) {
	a, b := two[string](t, env, cache.Config{})
	g := newGate()
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := a.Get(ctx, "k", g.load("v"))
		first <- err
	}()
	await(t, "the load", g.begun)
	here, there := background(t, a, "k", noLoad(t)), background(t, b, "k", noLoad(t))
	cancel()
	if err := await(t, "the first caller", first); !errors.Is(err, context.Canceled) {
		t.Errorf("the first caller: %v", err)
	}
	close(g.end)
	for _, other := range []<-chan got{here, there} {
		if r := await(t, "another caller", other); r.err != nil || r.value != "v" {
			t.Errorf("another caller: %+v", r)
		}
	}
	// Somebody who waits for another process, and goes, leaves nothing behind either.
	g = newGate()
	first2 := background(t, a, "other", g.load("v"))
	await(t, "the load", g.begun)
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		_, err := b.Get(ctx, "other", noLoad(t))
		first <- err
	}()
	cancel()
	if err := await(t, "who waits", first); !errors.Is(err, context.Canceled) {
		t.Errorf("who waits: %v", err)
	}
	close(g.end)
	await(t, "the first caller", first2)
	mustGet(t, b, "other", "v", noLoad(t))
}

// takeover lets the holder of a lease die: nobody renews it.
func takeover(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	c := newCache[string](t, env, cache.Config{Prefix: prefix, Name: "n"})
	set := env.Client.B().Set().Key(prefix + ":cache:fill:n:{k}").Value("of a dead process").Px(300 * time.Millisecond).Build()
	if err := env.Client.Do(t.Context(), set).Error(); err != nil {
		t.Fatal(err)
	}
	waiting := background(t, c, "k", constant("v"))
	env.Advance(301 * time.Millisecond)
	if r := await(t, "the takeover", waiting); r.err != nil || r.value != "v" {
		t.Errorf("%+v", r)
	}
}

// joined holds that who comes while others of the process wait for a key asks the server nothing.
func joined(t *testing.T, env valkeytest.Env) {
	client := &counting{Client: env.Client}
	env.Client = client
	misses := make(chan string, 20)
	c := newCache[string](t, env, cache.Config{
		Lease: time.Minute, Hooks: cache.Hooks{Miss: func(key string) { misses <- key }},
	})
	mustGet(t, c, "k", "old", constant("old")) // loads the scripts
	await(t, "a miss", misses)
	if err := c.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	g := newGate()
	callers := []<-chan got{background(t, c, "k", g.load("v"))}
	await(t, "the load", g.begun)
	before := client.trips.Load()
	for range 10 {
		callers = append(callers, background(t, c, "k", noLoad(t)))
	}
	for range callers {
		await(t, "a miss", misses)
	}
	close(g.end)
	for _, caller := range callers {
		if r := await(t, "a caller", caller); r.err != nil || r.value != "v" {
			t.Errorf("%+v", r)
		}
	}
	if trips := client.trips.Load() - before; trips != 1 {
		t.Errorf("%d round trips, want the one that stores", trips)
	}
}

// longLoad loads for longer than the lease and the TTL: one load, and its value for all.
func longLoad(t *testing.T, env valkeytest.Env) {
	if env.Embedded {
		t.Skip("the lease ends by the engine's clock, which stands still")
	}
	a, b := two[string](t, env, cache.Config{TTL: 500 * time.Millisecond, Jitter: cache.NoJitter, Lease: 60 * time.Millisecond})
	g := newGate()
	first := background(t, a, "k", g.load("v"))
	await(t, "the load", g.begun)
	second := background(t, b, "k", g.load("v"))
	env.Advance(600 * time.Millisecond)
	close(g.end)
	for _, caller := range []<-chan got{first, second} {
		if r := await(t, "a caller", caller); r.err != nil || r.value != "v" {
			t.Errorf("%+v", r)
		}
	}
	if n := g.loads.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
}

// longBatchAndWrite holds that the leases of batches and of writers are renewed too: nobody loads meanwhile.
func longBatchAndWrite(t *testing.T, env valkeytest.Env) {
	if env.Embedded {
		t.Skip("the lease ends by the engine's clock, which stands still")
	}
	a, b := two[string](t, env, cache.Config{Lease: 60 * time.Millisecond})
	for name, work := range map[string]func(begun chan<- struct{}, end <-chan struct{}) error{
		"batch": func(begun chan<- struct{}, end <-chan struct{}) error {
			_, err := a.GetMany(t.Context(), []string{"batch", "x"}, func(_ context.Context, keys []string) (map[string]string, error) {
				close(begun)
				<-end
				return map[string]string{"batch": "v", "x": "v"}, nil
			})
			return err
		},
		"write": func(begun chan<- struct{}, end <-chan struct{}) error {
			return a.Write(t.Context(), "write", "v", func(context.Context, string) error {
				close(begun)
				<-end
				return nil
			})
		},
	} {
		begun, end := make(chan struct{}), make(chan struct{})
		done := make(chan error, 1)
		go func() { done <- work(begun, end) }()
		await(t, name, begun)
		other := background(t, b, name, noLoad(t))
		env.Advance(200 * time.Millisecond)
		close(end)
		if err := await(t, name, done); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if r := await(t, "who waits for the "+name, other); r.err != nil || r.value != "v" {
			t.Errorf("who waits for the %s: %+v", name, r)
		}
	}
}

// late holds what those get who wait for too long.
func late(t *testing.T, env valkeytest.Env) {
	const kept = time.Hour
	for _, choice := range []cache.Late{cache.Wait, cache.ServeStale, cache.Load} {
		cfg := cache.Config{
			TTL: 20 * time.Millisecond, Jitter: cache.NoJitter, Late: choice, LateAfter: 10 * time.Millisecond, LateLoads: 1,
			StaleIfError: kept,
		}
		a, b := two[string](t, env, cfg)
		put(t, a, "k", "old")
		env.Advance(21 * time.Millisecond)
		g := newGate()
		first := background(t, a, "k", g.load("slow"))
		await(t, "the load", g.begun)
		second := background(t, b, "k", constant("beside"))
		want := map[cache.Late]string{cache.Wait: "slow", cache.ServeStale: "old", cache.Load: "beside"}[choice]
		if choice == cache.Wait {
			close(g.end)
		}
		if r := await(t, "who waits", second); r.err != nil || r.value != want {
			t.Errorf("choice %d: %+v, want %q", choice, r, want)
		}
		if choice != cache.Wait {
			close(g.end)
		}
		if r := await(t, "the first", first); r.err != nil || r.value != "slow" {
			t.Errorf("choice %d: the first: %+v", choice, r)
		}
	}
}

// lateLoads holds that no more than so many load beside others, and that they don't store what was loaded before an
// invalidation.
func lateLoads(t *testing.T, env valkeytest.Env) {
	cfg := cache.Config{Prefix: valkeytest.Prefix(t), Late: cache.Load, LateAfter: time.Millisecond, LateLoads: 1}
	a, b := two[string](t, env, cfg)
	holder, beside := newGate(), newGate()
	first := background(t, a, "k", holder.load("holder"))
	await(t, "the load", holder.begun)
	firstOther := background(t, a, "other", holder.load("holder"))
	await(t, "the other load", holder.begun)
	second := background(t, b, "k", beside.load("old"))
	await(t, "the load beside", beside.begun)
	third := background(t, b, "other", noLoad(t)) // there is no second permit
	if err := a.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	mustGet(t, newCache[string](t, env, cfg), "k", "new", constant("new"))
	close(holder.end)
	await(t, "the holder", first)
	if r := await(t, "the other", firstOther); r.value != "holder" {
		t.Errorf("%+v", r)
	}
	if r := await(t, "who had no permit", third); r.err != nil || r.value != "holder" {
		t.Errorf("%+v", r)
	}
	close(beside.end)
	if r := await(t, "beside", second); r.err != nil || r.value != "old" && r.value != "new" {
		t.Errorf("%+v", r)
	}
	mustGet(t, b, "k", "new", noLoad(t))
}

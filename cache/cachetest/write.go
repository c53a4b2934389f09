package cachetest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/valkeytest"
)

// origin is what is written to and loaded from.
type origin struct{ value atomic.Pointer[string] }

func (o *origin) store(_ context.Context, value string) error {
	o.value.Store(&value)
	return nil
}

func (o *origin) load(context.Context) (string, error) {
	if p := o.value.Load(); p != nil {
		return *p, nil
	}
	return "", cache.ErrNotFound
}

func write(t *testing.T, env valkeytest.Env) {
	for _, cfg := range []cache.Config{{}, {Tags: func(string) []string { return []string{"t"} }}} {
		a, b := two[string](t, env, cfg)
		var o origin
		if _, err := a.Get(t.Context(), "k", o.load); !errors.Is(err, cache.ErrNotFound) {
			t.Fatal(err)
		}
		if err := a.Write(t.Context(), "k", "1", o.store); err != nil {
			t.Fatal(err)
		}
		mustGet(t, b, "k", "1", noLoad(t))
		if got, _ := o.load(t.Context()); got != "1" {
			t.Errorf("the origin has %q", got)
		}
		broken := errors.New("origin")
		if err := a.Write(t.Context(), "k", "2", func(context.Context, string) error { return broken }); err != broken { //nolint:errorlint // as it is
			t.Errorf("store's error: %v", err)
		}
		wantNone(t, b, "k")
		mustGet(t, b, "k", "1", o.load)
		panicked := new(cache.PanicError)
		if err := a.Write(t.Context(), "k", "2", func(context.Context, string) error { panic("boom") }); !errors.As(err, &panicked) {
			t.Errorf("store's panic: %v", err)
		}
		wantNone(t, b, "k")
		if err := a.Write(t.Context(), "k", "2", nil); err == nil {
			t.Error("a nil store is no error")
		}
	}
}

// writeAndLoad holds that nobody loads while somebody writes, that what was being loaded before is not stored, and
// that of two who write at once neither is cached.
func writeAndLoad(t *testing.T, env valkeytest.Env) {
	var refused atomic.Int64
	a, b := two[string](t, env, cache.Config{Hooks: cache.Hooks{Refused: func(string) { refused.Add(1) }}})
	var o origin
	_ = o.store(t.Context(), "old")
	g := newGate()
	early := background(t, b, "k", g.load("old"))
	await(t, "the load", g.begun)
	storing, stored := make(chan struct{}), make(chan struct{})
	written := make(chan error, 1)
	go func() {
		written <- a.Write(t.Context(), "k", "new", func(ctx context.Context, value string) error {
			close(storing)
			<-stored
			return o.store(ctx, value)
		})
	}()
	await(t, "the store", storing)
	close(g.end)
	if r := await(t, "the old load", early); r.err != nil || r.value != "old" {
		t.Errorf("%+v", r)
	}
	during := background(t, b, "k", o.load)
	select {
	case r := <-during:
		if r.value != "old" { // it began before the write has ended
			t.Errorf("during the write: %+v", r)
		}
	default:
	}
	close(stored)
	if err := await(t, "the write", written); err != nil {
		t.Fatal(err)
	}
	mustGet(t, b, "k", "new", noLoad(t))
	if refused.Load() != 1 {
		t.Errorf("%d refused", refused.Load())
	}
	// Two at once, one within the other.
	err := a.Write(t.Context(), "k", "outer", func(ctx context.Context, value string) error {
		if err := b.Write(ctx, "k", "inner", o.store); err != nil {
			return err
		}
		return o.store(ctx, value)
	})
	if err != nil {
		t.Fatal(err)
	}
	wantNone(t, b, "k")
	mustGet(t, b, "k", "outer", o.load)
	// Who waits for a writer does not load beside it, however late: the old value would outlive a writer that dies.
	a, b = two[string](t, env, cache.Config{Late: cache.Load, LateAfter: time.Millisecond})
	storing, stored = make(chan struct{}), make(chan struct{})
	go func() {
		written <- a.Write(t.Context(), "k", "new", func(context.Context, string) error {
			close(storing)
			<-stored
			return nil
		})
	}()
	await(t, "the store", storing)
	during = background(t, b, "k", noLoad(t))
	env.Advance(20 * time.Millisecond)
	close(stored)
	if err := await(t, "the write", written); err != nil {
		t.Fatal(err)
	}
	if r := await(t, "who waited", during); r.err != nil || r.value != "new" {
		t.Errorf("who waited: %+v", r)
	}
}

// writersOverlap holds that nobody loads while one of several writes still runs, whichever has ended before: if it dies before it
// can tell, what was loaded meanwhile would outlive it. None of them is cached.
func writersOverlap(t *testing.T, env valkeytest.Env) {
	if env.Embedded {
		t.Skip("the lease ends by the engine's clock, which stands still")
	}
	prefix := valkeytest.Prefix(t)
	c := newCache[string](t, env, cache.Config{Prefix: prefix, Name: "n", Lease: 60 * time.Millisecond})
	var o origin
	begin := func(value string) (end func()) {
		storing, stored, written := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			written <- c.Write(t.Context(), "k", value, func(ctx context.Context, value string) error {
				close(storing)
				<-stored
				return o.store(ctx, value)
			})
		}()
		await(t, "the store of "+value, storing)
		return func() {
			t.Helper()
			close(stored)
			if err := await(t, "the write of "+value, written); err != nil {
				t.Error(err)
			}
		}
	}
	fenced := func() {
		t.Helper()
		env.Advance(150 * time.Millisecond) // every lease has been renewed, or has ended
		fill := env.Client.B().Get().Key(prefix + ":cache:fill:n:{k}").Build()
		if owner, err := env.Client.Do(t.Context(), fill).ToString(); err != nil || owner[0] != 'w' {
			t.Errorf("who loads is not kept out: %q, %v", owner, err)
		}
		wantNone(t, c, "k")
	}
	first, second, third := begin("first"), begin("second"), begin("third")
	fenced()
	second()
	fenced()
	reader := background(t, c, "k", o.load)
	third()
	fenced()
	first()
	if r := await(t, "who waited", reader); r.err != nil || r.value != "first" {
		t.Errorf("who waited: %+v", r)
	}
	// One that joined and left takes the right to be cached with it.
	outer, inner := begin("outer"), begin("inner")
	inner()
	outer()
	wantNone(t, c, "k")
	begin("alone")()
	mustGet(t, c, "k", "alone", noLoad(t))
}

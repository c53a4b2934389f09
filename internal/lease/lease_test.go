package lease_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// TestLease holds on servers that have SET with IFEQ and DELIFEQ, and on those that do not: each call is
// made twice, since the first one finds out.
func TestLease(t *testing.T) {
	valkeytest.Each(t, func(t *testing.T, env valkeytest.Env) {
		ctx, c := t.Context(), env.Client
		s, key := lease.On(c), valkeytest.Prefix(t)+":l"
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			mine, ok, err := s.Take(ctx, key, time.Hour)
			if !ok || err != nil {
				t.Fatalf("take: %v, %v", ok, err)
			}
			if _, ok, err := s.Take(ctx, key, time.Hour); ok || err != nil {
				t.Errorf("taken twice: %v, %v", ok, err)
			}
			other := s.At(key, "other")
			must(mine.Extend(ctx, time.Minute))
			if ttl, err := c.Do(ctx, c.B().Pttl().Key(key).Build()).AsInt64(); err != nil || ttl > 60_000 || ttl < 30_000 {
				t.Errorf("extended to %d ms, %v", ttl, err)
			}
			if err := other.Extend(ctx, time.Hour); !errors.Is(err, lease.ErrTaken) {
				t.Errorf("extend by another: %v", err)
			}
			if ok, err := other.Drop(ctx); ok || err != nil {
				t.Errorf("drop by another: %v, %v", ok, err)
			}
			if ok, err := mine.Drop(ctx); !ok || err != nil {
				t.Errorf("drop: %v, %v", ok, err)
			}
			if ok, err := mine.Drop(ctx); ok || err != nil {
				t.Errorf("drop again: %v, %v", ok, err)
			}
			if err := mine.Extend(ctx, time.Hour); !errors.Is(err, lease.ErrGone) {
				t.Errorf("extend of what is gone: %v", err)
			}
			if n, err := c.Do(ctx, c.B().Exists().Key(key).Build()).AsInt64(); n != 0 || err != nil {
				t.Errorf("it was made again: %d, %v", n, err)
			}
			// A key of another type is neither taken nor harmed.
			must(c.Do(ctx, c.B().Rpush().Key(key).Element("x").Build()).Error())
			if err := mine.Extend(ctx, time.Hour); !errors.Is(err, lease.ErrTaken) {
				t.Errorf("extend of a list: %v", err)
			}
			if ok, err := mine.Drop(ctx); ok || err != nil {
				t.Errorf("drop of a list: %v, %v", ok, err)
			}
			must(c.Do(ctx, c.B().Del().Key(key).Build()).Error())
		}
	})
}

// TestFull extends and drops a lease on a server without memory to spare.
func TestFull(t *testing.T) {
	s := valkeytest.Start(t)
	ctx, c := t.Context(), s.Client()
	mine, ok, err := lease.On(c).Take(ctx, "l", time.Minute)
	if !ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	if err := c.Do(ctx, c.B().ConfigSet().ParameterValue().ParameterValue("maxmemory", "1").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := lease.On(c).Take(ctx, "other", time.Minute); err == nil {
		t.Fatal("the server is not full")
	}
	if err := mine.Extend(ctx, time.Hour); err != nil {
		t.Errorf("extend: %v", err)
	}
	if ok, err := mine.Drop(ctx); !ok || err != nil {
		t.Errorf("drop: %v, %v", ok, err)
	}
}

// TestLostAnswer holds that a lease that may have been taken for nobody is dropped.
func TestLostAnswer(t *testing.T) {
	s := valkeytest.Start(t)
	c := s.Client()
	other := valkeytest.NewClient(t, s)
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, ok, err := lease.On(c).Take(ctx, "l", time.Hour); ok || err == nil {
		t.Fatalf("%v, %v", ok, err)
	}
	s.Resume()
	wait, end := context.WithTimeout(t.Context(), 10*time.Second)
	defer end()
	for {
		err := other.Do(wait, other.B().Get().Key("l").Build()).Error()
		if valkey.IsValkeyNil(err) {
			break
		}
		if wait.Err() != nil {
			t.Fatal("the lease lasts")
		}
	}
}

package object_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/object"
	"github.com/flatrate/flatrate/cache/object/objecttest"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

func TestConformance(t *testing.T) { valkeytest.Each(t, objecttest.Run) }

// wrong returns the error of New for a type.
func wrong[T any](c valkey.Client) error {
	_, err := object.New[T](c, object.Config{})
	return err
}

func TestNewNamesTheField(t *testing.T) {
	c := valkeytest.Start(t).Client()
	type loop struct{ Next *loop }
	if err := wrong[loop](c); err != nil {
		t.Errorf("a struct of itself: %v", err)
	}
	type deep struct {
		Inner struct{ List []map[string]chan int }
	}
	type pair struct {
		A string `cache:"x"`
		B string `cache:"x"`
	}
	type hidden struct {
		a int `cache:"a"`
	}
	_ = hidden{a: 1}
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"a channel":    {wrong[struct{ Events chan int }](c), "Events"},
		"deep inside":  {wrong[deep](c), "deep.Inner: List"},
		"a func":       {wrong[struct{ F func() }](c), "F"},
		"complex":      {wrong[struct{ C []complex128 }](c), "C"},
		"a lock":       {wrong[struct{ M struct{ n int } }](c), "no exported field"},
		"no struct":    {wrong[int](c), "no struct"},
		"a pointer":    {wrong[*deep](c), "no struct"},
		"no field":     {wrong[struct{}](c), "no exported field"},
		"twice":        {wrong[pair](c), "pair.B"},
		"not exported": {wrong[hidden](c), "hidden.a"},
		"unknown option": {wrong[struct {
			A int `cache:"a,omitzero"`
		}](c), "omitzero"},
		"no duration": {wrong[struct {
			A int `cache:"a,ttl=soon"`
		}](c), "ttl=soon"},
		"too short": {wrong[struct {
			A int `cache:"a,ttl=1us"`
		}](c), "ttl=1us"},
		"the marker": {wrong[struct {
			A int `cache:"@"`
		}](c), "@"},
	} {
		if test.err == nil || !strings.Contains(test.err.Error(), test.want) {
			t.Errorf("%s: error %v, want one with %q", name, test.err, test.want)
		}
	}
	for _, cfg := range []object.Config{{TTL: -2}, {TTL: time.Microsecond}, {Prefix: "a\n"}} {
		if _, err := object.New[struct{ A int }](c, cfg); err == nil || !strings.Contains(err.Error(), "Config.") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if _, err := object.New[struct{ A int }](nil, object.Config{}); err == nil {
		t.Error("a nil client was accepted")
	}
}

// TestServerAway makes each call without a deadline while the server is gone, or hangs: all come back.
func TestServerAway(t *testing.T) {
	type row struct {
		N int
		C string `cache:"c,ttl=1s"`
	}
	for outage, begin := range map[string]func(*valkeytest.Server){"killed": (*valkeytest.Server).Kill, "paused": (*valkeytest.Server).Pause} {
		t.Run(outage, func(t *testing.T) {
			t.Parallel()
			server := valkeytest.Start(t)
			s, err := object.New[row](server.Client(), object.Config{})
			if err != nil {
				t.Fatal(err)
			}
			n, err := object.NumberOf[int](s, "N")
			if err != nil {
				t.Fatal(err)
			}
			begin(server)
			ctx := context.Background()
			calls := []func() error{
				func() error { return s.Set(ctx, "k", row{}) },
				func() error { _, _, err := s.Get(ctx, "k"); return err },
				func() error { _, err := s.Delete(ctx, "k"); return err },
				func() error { _, err := s.Touch(ctx, "k"); return err },
				func() error { _, _, err := n.Get(ctx, "k"); return err },
				func() error { _, err := n.Set(ctx, "k", 1); return err },
				func() error { _, err := n.CompareAndSet(ctx, "k", 1, 2); return err },
				func() error { _, _, err := n.Add(ctx, "k", 1); return err },
				func() error { _, err := n.Expire(ctx, "k", time.Second); return err },
			}
			ended := make(chan error)
			for _, call := range calls {
				go func() { ended <- call() }()
			}
			for range calls {
				select {
				case err := <-ended:
					if err == nil {
						t.Error("a call without a server is no error")
					}
				case <-time.After(30 * time.Second):
					t.Fatal("a call did not come back")
				}
			}
		})
	}
}

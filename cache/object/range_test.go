package object_test

import (
	"errors"
	"math"
	"testing"

	"github.com/flatrate/flatrate/cache/object"
	"github.com/flatrate/flatrate/valkeytest"
)

// TestAddBeyondTheServer holds that a sum is refused, and the field stays as it was, where the server counts on beyond
// the type or not as far.
func TestAddBeyondTheServer(t *testing.T) {
	valkeytest.Each(t, func(t *testing.T, env valkeytest.Env) {
		type both struct {
			F float64
			U uint64
		}
		s, err := object.New[both](env.Client, object.Config{Prefix: valkeytest.Prefix(t)})
		if err != nil {
			t.Fatal(err)
		}
		f, err := object.NumberOf[float64](s, "F")
		if err != nil {
			t.Fatal(err)
		}
		u, err := object.NumberOf[uint64](s, "U")
		if err != nil {
			t.Fatal(err)
		}
		for _, was := range []both{{math.MaxFloat64, math.MaxUint64}, {-math.MaxFloat64, math.MaxInt64 + 1}, {math.MaxFloat64, math.MaxInt64}} {
			if err := s.Set(t.Context(), "k", was); err != nil {
				t.Fatal(err)
			}
			if sum, _, err := f.Add(t.Context(), "k", was.F); !errors.Is(err, object.ErrRange) {
				t.Errorf("%v twice: %v, %v", was.F, sum, err)
			}
			if sum, _, err := u.Add(t.Context(), "k", 1); !errors.Is(err, object.ErrRange) {
				t.Errorf("%d and 1: %v, %v", was.U, sum, err)
			}
			if now, ok, err := s.Get(t.Context(), "k"); err != nil || !ok || now != was {
				t.Errorf("%v became %v, %v, %v", was, now, ok, err)
			}
			if sum, ok, err := f.Add(t.Context(), "k", -was.F); err != nil || !ok || sum != 0 {
				t.Errorf("back to zero: %v, %v, %v", sum, ok, err)
			}
		}
		if sum, ok, err := u.Add(t.Context(), "k", 0); err != nil || !ok || sum != math.MaxInt64 {
			t.Errorf("nothing to the most: %v, %v, %v", sum, ok, err)
		}
	})
}

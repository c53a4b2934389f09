package patience

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

type name struct{}

// TestContext holds that a call has at least seven eighths of its time, and no more than all of it, whoever shares its end; and that
// the caller's own end does not reach it.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Patience{Most: 800 * time.Millisecond}
		begun := time.Now()
		caller, cancel := context.WithCancel(context.WithValue(t.Context(), name{}, "caller"))
		first := p.Context(caller, begun)
		time.Sleep(100 * time.Millisecond)
		second := p.Context(context.Background(), time.Now())
		time.Sleep(time.Millisecond)
		third := p.Context(caller, time.Now())
		cancel()
		if first.Err() != nil || first.Value(name{}) != "caller" || second.Value(name{}) != nil {
			t.Errorf("%v, %v, %v", first.Err(), first.Value(name{}), second.Value(name{}))
		}
		if p.Context(caller, time.Now()) != caller {
			t.Error("a caller who has gone got another context than its own")
		}
		<-first.Done()
		if took := time.Since(begun); took != p.Most {
			t.Errorf("the first ended after %v", took)
		}
		synctest.Wait()
		if second.Err() == nil || third.Err() != nil {
			t.Errorf("of the same eighth: %v; of the next one: %v", second.Err(), third.Err())
		}
		<-third.Done()
		if took := time.Since(begun); took != p.Most+101*time.Millisecond {
			t.Errorf("the third ended after %v", took)
		}
	})
}

// TestBounded holds that a caller's own deadline counts, later ones too, and that the zero value has one.
func TestBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Patience
		own, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if p.Bounded(own) != own {
			t.Error("a caller's deadline was taken away")
		}
		ctx := p.Bounded(t.Context())
		if end, ok := ctx.Deadline(); !ok || time.Until(end) != Default {
			t.Errorf("ends at %v, %v", end, ok)
		}
		<-ctx.Done()
	})
}

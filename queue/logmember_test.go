package queue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it does not come", what)
		}
	}
}

// TestLogCloseWhileGivingUp closes a group that gives its partitions up already, since nobody has received for long.
func TestLogCloseWhileGivingUp(t *testing.T) {
	s := valkeytest.Start(t)
	l, err := NewLog(s.Client(), LogConfig{Name: "l"})
	if err != nil {
		t.Fatal(err)
	}
	g, err := l.Group(GroupConfig{Name: "g", Lease: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Receive(t.Context(), ReceiveOptions{}); err != nil || OwnedBy(g) != 1 {
		t.Fatal(OwnedBy(g), err)
	}
	s.Pause()
	g.mu.Lock()
	g.called = time.Now().Add(-2 * lingering)
	g.mu.Unlock()
	g.prod()
	await(t, "it is given up", func() bool { return OwnedBy(g) == 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- g.Close(ctx) }()
	await(t, "Close waits", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.closing != nil
	})
	s.Resume()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestLogSurplusGoesOn has a handler keep a partition that is too many for hours: the others of that partition are not stopped for it.
func TestLogSurplusGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Group{cfg: GroupConfig{Lease: 4 * time.Second}}
		s := &share{group: g, poke: make(chan struct{}, 1), outs: 1}
		g.shares = []*share{s}
		stopped, began := 0, time.Now()
		for range 1000 {
			if released := g.surplus(0); released != nil {
				t.Fatal("it is given up with an entry out")
			}
			if !s.draining.IsZero() {
				stopped++
				if time.Since(began) > time.Minute && stopped > 200 {
					t.Fatalf("it delivers nothing in %d of so many seconds", stopped)
				}
			}
			time.Sleep(time.Second)
		}
		if stopped < 8 {
			t.Errorf("it is not tried: %d", stopped)
		}
		s.outs = 0
		if released := g.surplus(0); len(released) != 1 {
			t.Error("it is not given up")
		}
	})
}

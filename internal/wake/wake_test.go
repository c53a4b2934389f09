package wake_test

import (
	"context"
	"testing"
	"time"

	"github.com/flatrate/flatrate/internal/wake"
	"github.com/flatrate/flatrate/valkeytest"
)

// await fails the test if the waiter is not woken in a time that only a hang exceeds.
func await(t *testing.T, w *wake.Waiter) {
	t.Helper()
	select {
	case <-w.Woken:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody woke the waiter")
	}
}

// drain takes the wake-up that follows a subscription which has come to stand.
func drain(w *wake.Waiter) {
	select {
	case <-w.Woken:
	default:
	}
}

func TestWake(t *testing.T) {
	valkeytest.Each(t, func(t *testing.T, env valkeytest.Env) {
		ctx, c := t.Context(), env.Client
		publish := func(w *wake.Waiter, id string) {
			t.Helper()
			if err := c.Do(ctx, c.B().Publish().Channel(w.Channel()).Message(id).Build()).Error(); err != nil {
				t.Fatal(err)
			}
		}
		one, two := wake.Join(ctx, c, "fr", "one"), wake.Join(ctx, c, "fr", "two")
		defer two.Leave()
		if one.Channel() != two.Channel() {
			t.Error("one client has two subscriptions")
		}
		if one.Fallback() != time.Second {
			t.Errorf("a subscription that stands: fallback %v", one.Fallback())
		}
		drain(one)
		drain(two)
		publish(one, "nobody")
		publish(one, "two")
		await(t, two)
		select {
		case <-one.Woken:
			t.Error("another one's message woke it")
		default:
		}
		one.Leave()
		publish(two, "one")
		publish(two, "two")
		await(t, two)
	})
}

// TestBreak cuts the connection and kills the server: waiters are told to ask again, soon, and the
// subscription comes back.
func TestBreak(t *testing.T) {
	s := valkeytest.Start(t)
	ctx, c := t.Context(), s.Client()
	w := wake.Join(ctx, c, "fr", "w")
	defer w.Leave()
	drain(w)
	for what, fault := range map[string]func(){
		"a cut connection": func() {
			other := valkeytest.NewClient(t, s)
			if err := other.Do(ctx, other.B().Arbitrary("CLIENT", "KILL", "TYPE", "pubsub").Build()).Error(); err != nil {
				t.Fatal(err)
			}
		},
		"a restart": s.Restart,
	} {
		fault()
		await(t, w)
		for w.Fallback() != time.Second { // until the subscription stands again
			await(t, w)
		}
		drain(w)
		// The first write after a break may be the one that finds it out.
		publish := func() error { return c.Do(ctx, c.B().Publish().Channel(w.Channel()).Message("w").Build()).Error() }
		if err := publish(); err != nil {
			if err = publish(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		await(t, w)
	}
}

// TestServerAway joins while nothing answers: the caller is not held past its context, and polls.
func TestServerAway(t *testing.T) {
	s := valkeytest.Start(t)
	c := s.Client()
	s.Pause()
	defer s.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	w := wake.Join(ctx, c, "fr", "w")
	defer w.Leave()
	if w.Fallback() >= time.Second/10 {
		t.Errorf("a subscription that does not stand: fallback %v", w.Fallback())
	}
}

// TestTell holds that a waiter hears what its own process knows, even if it was woken before, and that
// nobody else does.
func TestTell(t *testing.T) {
	s := valkeytest.Start(t)
	ctx, c := t.Context(), s.Client()
	if wake.Channel(c, "fr") != "" {
		t.Error("a channel without a waiter")
	}
	one, two := wake.Join(ctx, c, "fr", "one"), wake.Join(ctx, c, "fr", "two")
	defer two.Leave()
	if wake.Channel(c, "fr") != one.Channel() {
		t.Errorf("%q, %q", wake.Channel(c, "fr"), one.Channel())
	}
	wake.All(c, "fr") // both have a wake-up that they did not hear
	wake.Tell(c, "fr", "one", wake.Grant{Fence: 7})
	wake.Tell(c, "fr", "nobody", wake.Grant{Fence: 8})
	wake.Tell(c, "other", "one", wake.Grant{Fence: 8})
	if got := <-one.Woken; got.Fence != 7 {
		t.Errorf("one was told %d", got.Fence)
	}
	if got := <-two.Woken; got.Fence != 0 {
		t.Errorf("two was told %d", got.Fence)
	}
	one.Leave()
	wake.Tell(c, "fr", "one", wake.Grant{Fence: 9}) // too late: it must not block
}

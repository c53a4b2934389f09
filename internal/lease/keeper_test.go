package lease_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
)

const ttl = 30 * time.Second

// keep starts a keeper whose call was sent just now, and reports its end.
func keep(cfg lease.Keeping) (k *lease.Keeper, causes *[]error) {
	causes = new([]error)
	cfg.TTL, cfg.Sent, cfg.Renew = ttl, time.Now(), cfg.Extend != nil
	cfg.Ended = func(cause error) { *causes = append(*causes, cause) }
	return lease.Keep(context.Background(), cfg), causes
}

func wantCause(t *testing.T, k *lease.Keeper, causes *[]error, want error) {
	t.Helper()
	if got := context.Cause(k.Context()); !errors.Is(got, want) {
		t.Errorf("cause %v, want %v", got, want)
	}
	if want != nil && (len(*causes) != 1 || !errors.Is((*causes)[0], want)) {
		t.Errorf("Ended was called with %v, want %v once", *causes, want)
	}
}

func TestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, causes := keep(lease.Keeping{})
		time.Sleep(ttl - lease.Drift(ttl) - time.Nanosecond)
		synctest.Wait()
		wantCause(t, k, causes, nil)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		wantCause(t, k, causes, lease.ErrExpired)
	})
}

// TestAnswerTakesLong counts from when the call was sent, not from when its answer came.
func TestAnswerTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := time.Now()
		time.Sleep(20 * time.Second)
		k := lease.Keep(context.Background(), lease.Keeping{TTL: ttl, Sent: sent})
		<-k.Context().Done()
		if held := time.Since(sent); held != ttl-lease.Drift(ttl) {
			t.Errorf("held for %v from when it was sent", held)
		}
	})
}

func TestRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls, renewed int
		k, causes := keep(lease.Keeping{
			Extend:  func(context.Context, time.Duration) error { calls++; return nil },
			Renewed: func() { renewed++ },
		})
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		wantCause(t, k, causes, nil)
		if calls != 360 || renewed != 360 { // one every third of 30 s
			t.Errorf("%d calls, %d renewed in an hour", calls, renewed)
		}
		k.End(lease.ErrReleased)
		k.End(lease.ErrTaken)
		time.Sleep(time.Hour)
		wantCause(t, k, causes, lease.ErrReleased)
		if calls != 360 {
			t.Errorf("%d calls after the end", calls)
		}
	})
}

// TestServerAway fails every renewal from some time on: the lease ends a TTL after the last good one.
func TestServerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var last time.Time
		calls := 0
		k, causes := keep(lease.Keeping{Extend: func(ctx context.Context, _ time.Duration) error {
			if calls++; calls > 5 {
				<-ctx.Done() // a server that hangs
				return ctx.Err()
			}
			if calls > 3 {
				return errors.New("connection refused")
			}
			last = time.Now()
			return nil
		}})
		<-k.Context().Done()
		synctest.Wait()
		wantCause(t, k, causes, lease.ErrExpired)
		if held := time.Since(last); held != ttl-lease.Drift(ttl) {
			t.Errorf("held for %v after the last confirmed call", held)
		}
	})
}

func TestLost(t *testing.T) {
	for _, lost := range []error{lease.ErrTaken, lease.ErrGone} {
		synctest.Test(t, func(t *testing.T) {
			k, causes := keep(lease.Keeping{Extend: func(context.Context, time.Duration) error { return lost }})
			time.Sleep(ttl / 3)
			synctest.Wait()
			wantCause(t, k, causes, lost)
		})
	}
}

func TestMaxHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, causes := keep(lease.Keeping{
			Extend:  func(context.Context, time.Duration) error { return nil },
			MaxHold: 5 * time.Minute,
		})
		begin := time.Now()
		<-k.Context().Done()
		synctest.Wait()
		wantCause(t, k, causes, lease.ErrMaxHold)
		if held := time.Since(begin); held != 5*time.Minute {
			t.Errorf("held for %v", held)
		}
	})
}

// byHand keeps a lease that is extended by its caller only, with calls that do what call does.
func byHand(call func(context.Context, time.Duration) error) *lease.Keeper {
	return lease.Keep(context.Background(), lease.Keeping{TTL: ttl, Sent: time.Now(), Extend: call})
}

// wantEnd waits for the end of k, in so long from now on.
func wantEnd(t *testing.T, k *lease.Keeper, in time.Duration) {
	t.Helper()
	begin := time.Now()
	<-k.Context().Done()
	if got := time.Since(begin); got != in-lease.Drift(in) {
		t.Errorf("ended after %v, want %v less the drift", got, in)
	}
}

// TestExtendedByHand keeps what the caller extended, longer or shorter.
func TestExtendedByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := byHand(func(context.Context, time.Duration) error { return nil })
		for _, d := range []time.Duration{time.Hour, 0, time.Second} { // zero: the hour again
			if err := k.Extend(t.Context(), d); err != nil {
				t.Error(err)
			}
		}
		wantEnd(t, k, time.Second)
	})
}

// TestExtendedWithoutAnswer holds that a shorter time counts although nobody confirmed it, and a longer one
// does not.
func TestExtendedWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := byHand(func(context.Context, time.Duration) error { return errors.New("connection reset") })
		_ = k.Extend(t.Context(), time.Hour)
		_ = k.Extend(t.Context(), 10*time.Second)
		wantEnd(t, k, 10*time.Second)
	})
}

// TestOneAtATime lets a renewal come due while a shorter extension is under way: it waits, and extends to the
// shorter time.
func TestOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []time.Duration
		k, causes := keep(lease.Keeping{Extend: func(_ context.Context, d time.Duration) error {
			order = append(order, d)
			if len(order) == 1 {
				time.Sleep(15 * time.Second) // a renewal is due after 6
			}
			return nil
		}})
		if err := k.Extend(t.Context(), 20*time.Second); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if len(order) != 2 || order[1] != 20*time.Second {
			t.Errorf("calls with %v", order)
		}
		k.End(lease.ErrReleased)
		wantCause(t, k, causes, lease.ErrReleased)
	})
}

// TestExtendWaitsForNoOne holds that who waits for a call that hangs gives up with its context, and with the lease.
func TestExtendWaitsForNoOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := byHand(func(ctx context.Context, _ time.Duration) error { <-ctx.Done(); return ctx.Err() })
		hangs, end := context.WithCancel(context.Background())
		go func() { _ = k.Extend(hangs, 0) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := k.Extend(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("its context: %v", err)
		}
		if err := k.Extend(t.Context(), 0); !errors.Is(err, lease.ErrExpired) {
			t.Errorf("the lease: %v", err)
		}
		end()
	})
}

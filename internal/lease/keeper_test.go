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
	cfg.TTL, cfg.Sent = ttl, time.Now()
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

// TestExtendedByHand keeps what the caller extended, longer or shorter.
func TestExtendedByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, causes := keep(lease.Keeping{})
		k.Extended(time.Now(), time.Hour)
		time.Sleep(59 * time.Minute)
		wantCause(t, k, causes, nil)
		k.Extended(time.Now(), time.Second)
		time.Sleep(time.Second)
		synctest.Wait()
		wantCause(t, k, causes, lease.ErrExpired)
	})
}

// TestOvertaken hears of an earlier call after a later one that shortened the lease: it changes nothing.
func TestOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, causes := keep(lease.Keeping{})
		earlier := time.Now().Add(time.Second)
		time.Sleep(2 * time.Second)
		k.Extended(time.Now(), time.Second)
		k.Extended(earlier, time.Hour)
		time.Sleep(time.Second)
		synctest.Wait()
		wantCause(t, k, causes, lease.ErrExpired)
	})
}

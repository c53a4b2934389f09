package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/wake"
)

// EndedError says why a lock is no longer held. errors.Is(err, ErrNotHeld) is true of it.
type EndedError struct {
	// Reason is one of those below.
	Reason Reason
}

// Reason is why a lock ended.
type Reason string

// The reasons.
const (
	Released Reason = "released"
	// Expired: no renewal was confirmed in time, or renewal is off. The server may have ended it.
	Expired Reason = "expired"
	// Lost: the server has it no longer: evicted, deleted, or its data is gone.
	Lost Reason = "lost by the server"
	// Taken: somebody else holds it by now.
	Taken Reason = "taken by another"
	// HeldTooLong: Config.MaxHold has passed.
	HeldTooLong Reason = "held for longer than Config.MaxHold"
)

func (e *EndedError) Error() string { return "lock: not held: " + string(e.Reason) }

// Is makes errors.Is(err, ErrNotHeld) true.
func (e *EndedError) Is(target error) bool { return target == ErrNotHeld }

// ended turns the reason of a lease's end into that of a lock's.
func ended(cause error) *EndedError {
	for _, r := range []struct {
		cause  error
		reason Reason
	}{
		{lease.ErrReleased, Released}, {lease.ErrGone, Lost}, {lease.ErrTaken, Taken}, {lease.ErrMaxHold, HeldTooLong},
	} {
		if errors.Is(cause, r.cause) {
			return &EndedError{r.reason}
		}
	}
	return &EndedError{Expired}
}

// Lock is a lock that was acquired. It is safe for concurrent use.
type Lock struct {
	locker *Locker
	name   string
	token  string
	keys   []string // of acquire
	fence  uint64
	keeper *lease.Keeper
}

// begin starts to keep the lock that a call sent at sent has taken.
func (l *Lock) begin(ctx context.Context, fence uint64, sent time.Time) {
	cfg := l.locker.cfg
	l.fence = fence
	keeping := cfg.Hooks.keeping(l.name)
	keeping.TTL, keeping.Sent, keeping.MaxHold = cfg.TTL, sent, cfg.MaxHold
	keeping.Extend, keeping.Renew = l.extend, !cfg.NoRenewal
	l.keeper = lease.Keep(ctx, keeping)
}

// keeping is the part of a lock's keeping that tells what happens to it.
func (h Hooks) keeping(name string) lease.Keeping {
	keeping := lease.Keeping{Cause: func(err error) error { return ended(err) }}
	if h.Renewed != nil {
		keeping.Renewed = func() { h.Renewed(name) }
	}
	if h.Lost != nil {
		keeping.Ended = func(cause error) {
			if end := new(EndedError); errors.As(cause, &end) && end.Reason != Released {
				h.Lost(name, cause)
			}
		}
	}
	return keeping
}

// Name is the name that was locked.
func (l *Lock) Name() string { return l.name }

// Fence is a number above that of every earlier holder of the name, by this server's count. A resource
// that remembers the highest one it has seen, and rejects lower ones, is safe from a holder that has
// lost the lock without knowing it. It is at least the time of the acquisition in Unix microseconds, so
// it also grows across a server that has lost its data, if its clock is right.
func (l *Lock) Fence() uint64 { return l.fence }

// Context ends when the lock is released or lost; context.Cause is an [EndedError]. It ends before the
// server can give the lock to somebody else, counted on this process's monotonic clock: the time to
// live after the last call that the server confirmed was sent, less 1% and 2 ms. It has the values of
// the context that acquired the lock.
func (l *Lock) Context() context.Context { return l.keeper.Context() }

// Extend lets the lock last for ttl from now on, from a millisecond to a year; zero means Config.TTL.
// Automatic renewals use it from then on. A lock that was lost is never taken anew: the error is an
// [EndedError]. Another error says that the server did not answer: then a ttl less than what was left
// counts, a longer one does not. One round trip.
func (l *Lock) Extend(ctx context.Context, ttl time.Duration) error {
	if ttl == 0 {
		ttl = l.locker.cfg.TTL
	}
	if err := checkTTL(ttl); err != nil {
		return fmt.Errorf("lock: extend: ttl: %w", err)
	}
	if cause := context.Cause(l.Context()); cause != nil {
		return cause
	}
	return extended(l.keeper, l.keeper.Extend(ctx, ttl))
}

// extended is what Extend returns after its call returned err.
func extended(k *lease.Keeper, err error) error {
	switch {
	case errors.Is(err, lease.ErrTaken), errors.Is(err, lease.ErrGone):
		return ended(err)
	case err != nil && context.Cause(k.Context()) == nil:
		return fmt.Errorf("lock: extend: %w", err)
	}
	return context.Cause(k.Context())
}

func (l *Lock) extend(ctx context.Context, ttl time.Duration) error {
	script := l.locker.kind.extend
	if script == nil {
		return l.locker.leases.At(l.keys[0], l.token).Extend(ctx, ttl)
	}
	n, err := script.Exec(ctx, l.locker.client, l.keys[:1], l.token, milliseconds(ttl)).AsInt64()
	switch {
	case err != nil:
		return err
	case n == 0:
		return lease.ErrTaken
	case n < 0:
		return lease.ErrGone
	}
	return nil
}

// Release gives the lock back, to the first who waits if somebody does, and ends Context at once. The
// error is an [EndedError] if it was no longer held; another holder is never harmed. One round trip; if
// it fails, the error says so and it is repeated in the background, for some seconds. Where that fails too,
// the lock ends with its time to live.
func (l *Lock) Release(ctx context.Context) error {
	before := context.Cause(l.Context())
	l.keeper.End(lease.ErrReleased)
	held, err := l.leave(ctx, answered)
	switch {
	case err != nil:
		l.leaveLater(ctx, answered)
		return fmt.Errorf("lock: release: %w", err)
	case before != nil:
		return before
	case !held:
		return &EndedError{Lost}
	}
	return nil
}

// leave gives up the lock or a place; held is false if the lock was not this one's.
func (l *Lock) leave(ctx context.Context, gone string) (held bool, err error) {
	return l.locker.leave(ctx, l.keys, l.token, gone)
}

// leave gives up what a token has. A waiter of this process that the lock has gone to is told so, which
// saves it the round trip of a claim.
func (l *Locker) leave(ctx context.Context, keys []string, token, gone string) (held bool, err error) {
	sent := time.Now()
	reply, err := l.kind.release.Exec(ctx, l.client, keys, token, claimMs, gone, wake.Channel(l.client, l.prefix)).ToArray()
	if err != nil {
		wake.All(l.client, l.prefix) // one of them may have got it
		return false, err
	}
	if len(reply) != 3 {
		return false, fmt.Errorf("the server answered %d values, not 3", len(reply))
	}
	n, err := reply[0].AsInt64()
	if err != nil {
		return false, err
	}
	next, err := reply[1].ToString()
	if err != nil {
		return false, err
	}
	if next != "" {
		fence, err := reply[2].AsInt64()
		if err != nil {
			return false, err
		}
		// Who waits no longer has asked meanwhile, and knows; or has given up, and gives it back itself.
		wake.Tell(l.client, l.prefix, next, wake.Grant{Fence: uint64(fence), Sent: sent})
	}
	return n == 1, nil
}

// leaveLater leaves in the background, although the caller has gone.
func (l *Lock) leaveLater(ctx context.Context, gone string) {
	lease.GiveBack(ctx, func(ctx context.Context) bool {
		_, err := l.leave(ctx, gone)
		return err == nil
	})
}

// run calls f with a context that ends with ctx and with the lock.
func (l *Lock) run(ctx context.Context, f func(context.Context) error) error {
	return runUnder(ctx, l.Context(), f)
}

func runUnder(ctx, held context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(held, func() { cancel(context.Cause(held)) })
	defer stop()
	return f(ctx)
}

// giveBack releases the lock for a caller who has nothing to do with the outcome, also after ctx ended.
func (l *Lock) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lease.CleanUp)
	defer cancel()
	_ = l.Release(ctx) // which goes on in the background where this fails
}

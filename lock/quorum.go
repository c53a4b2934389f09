package lock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
)

// QuorumLock is a lock that a [Redlock] acquired. It is safe for concurrent use.
type QuorumLock struct {
	redlock *Redlock
	name    string
	nodes   []*node
	keeper  *lease.Keeper
	calls   atomic.Int64
}

func (l *QuorumLock) begin(ctx context.Context, sent time.Time) {
	cfg := l.redlock.cfg
	keeping := cfg.Hooks.keeping(l.name)
	keeping.TTL, keeping.Sent, keeping.MaxHold = cfg.TTL, sent, cfg.MaxHold
	keeping.Extend, keeping.Renew = l.extend, !cfg.NoRenewal
	l.keeper = lease.Keep(ctx, keeping)
}

func (l *QuorumLock) acquired(begin time.Time) {
	if l == nil {
		return
	}
	if hook := l.redlock.cfg.Hooks.Acquired; hook != nil {
		hook(l.name, time.Since(begin))
	}
}

// Name is the name that was locked.
func (l *QuorumLock) Name() string { return l.name }

// Context ends when the lock is released or lost; context.Cause is an [EndedError]. It ends, at the
// latest, the time to live after the last call that a quorum confirmed was sent, less 1% and 2 ms,
// counted on this process's monotonic clock. It has the values of the context that acquired the lock.
func (l *QuorumLock) Context() context.Context { return l.keeper.Context() }

// Validity is for how long the lock lasts unless it is extended; zero once it has ended.
func (l *QuorumLock) Validity() time.Duration {
	if l.Context().Err() != nil {
		return 0
	}
	return max(0, time.Until(l.keeper.Deadline()))
}

// Extend lets the lock last for ttl from now on, from 10 ms to a year; zero means RedlockConfig.TTL.
// Automatic renewals use it from then on. The error is an [EndedError] if a quorum has the lock no
// longer; it is never taken anew, on no server. An extension to less than is left counts even if it
// returns an error, since some servers may have heard of it.
func (l *QuorumLock) Extend(ctx context.Context, ttl time.Duration) error {
	if ttl == 0 {
		ttl = l.redlock.cfg.TTL
	}
	if err := checkConfigTTL(ttl); err != nil {
		return fmt.Errorf("lock: extend: ttl: %w", err)
	}
	if cause := context.Cause(l.Context()); cause != nil {
		return cause
	}
	return extended(l.keeper, l.keeper.Extend(ctx, ttl))
}

// extend extends on a quorum.
func (l *QuorumLock) extend(ctx context.Context, ttl time.Duration) error {
	number := l.calls.Add(1)
	t := l.poll(ctx, l.redlock.cfg.NodeTimeout, func(ctx context.Context, n *node) error {
		return n.extend(ctx, number, ttl)
	})
	return t.err()
}

// Release gives the lock back on every server and ends Context at once. The error is nil as soon as a
// quorum confirmed it, and an [EndedError] if the lock was no longer held; another holder is never
// harmed. Where a server doesn't answer within a second, the lock ends there with its time to live.
func (l *QuorumLock) Release(ctx context.Context) error {
	before := context.Cause(l.Context())
	l.keeper.End(lease.ErrReleased)
	t := l.drop(ctx)
	err := t.err()
	switch {
	case before != nil && (err == nil || errors.Is(err, lease.ErrGone)):
		return before
	case errors.Is(err, lease.ErrGone):
		return &EndedError{Lost}
	case err != nil:
		return fmt.Errorf("lock: release: %w", err)
	}
	return nil
}

// drop gives back what each server has given, or may have; it goes on after ctx has ended.
func (l *QuorumLock) drop(ctx context.Context) tally {
	return l.poll(ctx, lease.CleanUp, func(ctx context.Context, n *node) error { return n.drop(ctx) })
}

// giveBack releases the lock for a caller who has nothing to do with the outcome, also after ctx ended.
func (l *QuorumLock) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lease.CleanUp)
	defer cancel()
	_ = l.Release(ctx) // the time to live ends it where this fails
}

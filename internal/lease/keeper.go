package lease

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Why a lease ended, as the cause of its context.
var (
	ErrReleased = errors.New("released")
	ErrExpired  = errors.New("expired: the server did not confirm it in time")
	ErrTaken    = errors.New("lost: somebody else has it")
	ErrGone     = errors.New("lost: the server has it no longer (evicted, deleted or expired)")
	ErrMaxHold  = errors.New("held for the longest time allowed")
)

// Drift is by how much two clocks may differ in their speed over d: 1% and 2 ms, Redlock's allowance.
func Drift(d time.Duration) time.Duration { return d/100 + 2*time.Millisecond }

// Keeping says how a lease is kept.
type Keeping struct {
	// TTL is the lease's time to live, as the call had it that was sent at Sent.
	TTL  time.Duration
	Sent time.Time
	// Extend extends the lease; it returns ErrTaken or ErrGone if it can't, or any error if nobody
	// knows. It is called by one goroutine at a time.
	Extend func(ctx context.Context, ttl time.Duration) error
	// Renew says to extend the lease every third of its time to live.
	Renew bool
	// MaxHold ends the lease so long after Sent, whatever was extended. Zero means never.
	MaxHold time.Duration
	// Cause may translate one of the errors above for the context's cause. Nil takes it as it is.
	Cause func(error) error
	// Renewed is called after each renewal, and Ended once at the end, with the context's cause. Both
	// may be nil.
	Renewed func()
	Ended   func(cause error)
}

// Keeper renews a lease while it can and tells when it can't: its context ends, at the latest, when
// the server may have ended the lease. That moment is counted on this process's monotonic clock from
// when the last call that the server confirmed was sent, less the drift; so it is never after the
// server's, whatever the wall clocks say and however long the answer took.
type Keeper struct {
	cfg    Keeping
	ctx    context.Context
	cancel context.CancelCauseFunc

	turn chan struct{} // full while a call of Extend is under way

	mu       sync.Mutex
	deadline time.Time
	ended    bool
	expire   *time.Timer
	renew    *time.Timer
}

// Keep begins to keep a lease. The values of parent are those of the keeper's context; parent's end is
// not its end. Where the time has passed already, the context has ended when Keep returns.
func Keep(parent context.Context, cfg Keeping) *Keeper {
	k := &Keeper{cfg: cfg, turn: make(chan struct{}, 1)}
	k.ctx, k.cancel = context.WithCancelCause(context.WithoutCancel(parent))
	k.mu.Lock()
	k.deadline = k.until(cfg.Sent, cfg.TTL)
	left := time.Until(k.deadline)
	k.expire = time.AfterFunc(left, k.expired)
	if cfg.Renew {
		k.renew = time.AfterFunc(cfg.TTL/3, k.renewNow)
	}
	k.mu.Unlock()
	if left <= 0 { // the answer came too late: another may have it, and no timer is soon enough
		k.expired()
	}
	return k
}

// Context ends with the lease; context.Cause says why.
func (k *Keeper) Context() context.Context { return k.ctx }

// Deadline is when the lease ends unless it is extended.
func (k *Keeper) Deadline() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.deadline
}

// Extend gives the lease a new time to live, which later renewals use; zero means the present one. Calls
// are made one after the other: their answers could not tell in which order the server took them.
//
// An extension to less than is left counts when it is sent: without an answer nobody knows whether the
// server has heard of it.
func (k *Keeper) Extend(ctx context.Context, ttl time.Duration) error {
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-k.ctx.Done():
		return context.Cause(k.ctx)
	}
	defer func() { <-k.turn }()
	sent := time.Now()
	if ttl == 0 {
		ttl = k.ttl()
	}
	k.ends(sent, ttl, false)
	err := k.cfg.Extend(ctx, ttl)
	switch {
	case err == nil:
		k.ends(sent, ttl, true)
	case errors.Is(err, ErrTaken), errors.Is(err, ErrGone):
		k.End(err)
	}
	return err
}

func (k *Keeper) ttl() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cfg.TTL
}

// ends counts a call that was sent at sent; if it was not confirmed, only where it shortens the lease.
func (k *Keeper) ends(sent time.Time, ttl time.Duration, confirmed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	end := k.until(sent, ttl)
	if k.ended || !confirmed && !end.Before(k.deadline) {
		return
	}
	k.deadline = end
	k.expire.Reset(time.Until(end))
	if confirmed {
		k.cfg.TTL = ttl
	}
	if k.renew != nil {
		k.renew.Reset(ttl / 3)
	}
}

// End ends the lease for a cause; the first one counts.
func (k *Keeper) End(cause error) {
	k.mu.Lock()
	first := !k.ended
	k.ended = true
	k.expire.Stop()
	if k.renew != nil {
		k.renew.Stop()
	}
	k.mu.Unlock()
	if !first {
		return
	}
	if k.cfg.Cause != nil {
		cause = k.cfg.Cause(cause)
	}
	k.cancel(cause)
	if k.cfg.Ended != nil {
		k.cfg.Ended(cause)
	}
}

func (k *Keeper) until(sent time.Time, ttl time.Duration) time.Time {
	end := sent.Add(ttl - Drift(ttl))
	if last := k.cfg.Sent.Add(k.cfg.MaxHold); k.cfg.MaxHold > 0 && last.Before(end) {
		end = last
	}
	return end
}

func (k *Keeper) expired() {
	if left := time.Until(k.Deadline()); left > 0 {
		k.expire.Reset(left) // it was extended while this was on its way
		return
	}
	if k.cfg.MaxHold > 0 && time.Since(k.cfg.Sent) >= k.cfg.MaxHold {
		k.End(ErrMaxHold)
		return
	}
	k.End(ErrExpired)
}

// renewNow extends the lease, and tries again soon where nobody knows whether it was.
func (k *Keeper) renewNow() {
	ctx, cancel := context.WithDeadline(k.ctx, k.Deadline())
	defer cancel()
	switch err := k.Extend(ctx, 0); {
	case err == nil:
		if k.cfg.Renewed != nil {
			k.cfg.Renewed()
		}
	case ctx.Err() == nil:
		k.mu.Lock()
		if !k.ended {
			k.renew.Reset(max(k.cfg.TTL/20, time.Millisecond))
		}
		k.mu.Unlock()
	}
}

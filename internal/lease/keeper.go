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
	// knows. Nil keeps the lease for its TTL only.
	Extend func(ctx context.Context, ttl time.Duration) error
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

	mu       sync.Mutex
	sent     time.Time // when the call was sent that deadline counts from
	deadline time.Time
	ended    bool
	expire   *time.Timer
	renew    *time.Timer
}

// Keep begins to keep a lease. The values of parent are those of the keeper's context; parent's end is
// not its end. Where the time has passed already, the context has ended when Keep returns.
func Keep(parent context.Context, cfg Keeping) *Keeper {
	k := &Keeper{cfg: cfg}
	k.ctx, k.cancel = context.WithCancelCause(context.WithoutCancel(parent))
	k.mu.Lock()
	k.sent, k.deadline = cfg.Sent, k.until(cfg.Sent, cfg.TTL)
	left := time.Until(k.deadline)
	k.expire = time.AfterFunc(left, k.expired)
	if cfg.Extend != nil {
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

// Extended tells that the server confirmed a call, sent at sent, that set the time to live to ttl. Of
// calls that overlap the one sent last counts, whichever answer comes first.
func (k *Keeper) Extended(sent time.Time, ttl time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended || sent.Before(k.sent) {
		return
	}
	k.cfg.TTL = ttl
	k.sent, k.deadline = sent, k.until(sent, ttl)
	k.expire.Reset(time.Until(k.deadline))
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
	k.mu.Lock()
	ttl, deadline := k.cfg.TTL, k.deadline
	k.mu.Unlock()
	ctx, cancel := context.WithDeadline(k.ctx, deadline)
	defer cancel()
	sent := time.Now()
	err := k.cfg.Extend(ctx, ttl)
	switch {
	case err == nil:
		k.Extended(sent, ttl)
		if k.cfg.Renewed != nil {
			k.cfg.Renewed()
		}
	case errors.Is(err, ErrTaken), errors.Is(err, ErrGone):
		k.End(err)
	case ctx.Err() == nil:
		k.mu.Lock()
		if !k.ended {
			k.renew.Reset(max(ttl/20, time.Millisecond))
		}
		k.mu.Unlock()
	}
}

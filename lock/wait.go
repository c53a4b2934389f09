package lock

import (
	"context"
	"time"

	"github.com/flatrate/flatrate/internal/wake"
)

// wait stands in the queue until the lock is granted and claimed, or ctx ends.
//
// A wake-up may be lost, so every waiter asks again: when the owner's lease ends, when the
// subscription breaks, and in time to keep its place. Asking again is what claims a grant, but for one
// by a holder in this process: that needs no proof that the waiter still lives.
func (a *attempt) wait(ctx context.Context) (*Lock, error) {
	l := a.lock.locker
	if hook := l.cfg.Hooks.Waiting; hook != nil {
		hook(a.lock.name)
	}
	w := wake.Join(ctx, l.client, l.prefix, a.lock.token)
	defer w.Leave()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		lock, left, err := a.insist(ctx, placeMs, w.Channel())
		if err != nil || lock != nil {
			return lock, err
		}
		sleep := w.Fallback()
		if left > 0 {
			// A server removes a key up to a millisecond after its time.
			sleep = min(sleep, left+time.Millisecond)
		}
		timer.Reset(sleep)
		select {
		case granted := <-w.Woken:
			// With replicas to wait for, asking again is what waits for them.
			if granted.Fence != 0 && l.cfg.Replicas == 0 {
				return a.taken(ctx, granted.Fence, granted.Sent)
			}
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

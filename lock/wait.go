package lock

import (
	"context"
	"time"

	"github.com/flatrate/flatrate/internal/wake"
)

// wait stands in the queue until the lock is granted and claimed, or ctx ends.
//
// A wake-up may be lost, so every waiter asks again: when the owner's lease ends, when the
// subscription breaks, and in time to keep its place. Asking again is what claims a grant.
func (a *attempt) wait(ctx context.Context) (*Lock, error) {
	if hook := a.locker.cfg.Hooks.Waiting; hook != nil {
		hook(a.lock.name)
	}
	w := wake.Join(ctx, a.locker.client, a.lock.token)
	defer w.Leave()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		lock, left, err := a.ask(ctx, placeMs, w.Channel())
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
		case <-w.Woken:
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

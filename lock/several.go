package lock

import (
	"context"
	"errors"
	"slices"

	"github.com/flatrate/flatrate/internal/lease"
)

// Set is several locks that were acquired together. It is safe for concurrent use.
type Set struct {
	locks  []*Lock
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// AcquireAll waits until it holds the locks of all names, or ctx ends. It takes them one after the
// other, in the order of their bytes, so that two callers can't wait for each other; a name that is
// there twice is taken once. On an error, or if one is lost while another is waited for, those already
// taken are given back in the background. It is not atomic: others
// see some of the names locked while the rest is waited for.
func (l *Locker) AcquireAll(ctx context.Context, names ...string) (*Set, error) {
	if len(names) == 0 {
		return nil, errors.New("lock: no names")
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	s := &Set{}
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	waiting, cancel := context.WithCancel(ctx) // it ends when one of those already taken is lost
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	for _, name := range names {
		lock, err := l.Acquire(waiting, name)
		if cause := context.Cause(s.ctx); err != nil && cause != nil && ctx.Err() == nil {
			err = cause
		}
		if err != nil {
			s.giveBack(ctx)
			return nil, err
		}
		s.locks = append(s.locks, lock)
		context.AfterFunc(lock.Context(), func() { s.endedWith(lock) })
	}
	if cause := context.Cause(s.ctx); cause != nil { // one was lost while another was waited for
		s.giveBack(ctx)
		return nil, cause
	}
	return s, nil
}

// Context ends when any of the locks does, and has ended when Release returns; context.Cause is its
// [EndedError].
func (s *Set) Context() context.Context { return s.ctx }

// Locks are the locks, in the order of their names.
func (s *Set) Locks() []*Lock { return slices.Clone(s.locks) }

// Release gives all of them back, the last one first. The error joins those of each.
func (s *Set) Release(ctx context.Context) error {
	var errs []error
	for _, lock := range slices.Backward(s.locks) {
		errs = append(errs, lock.Release(ctx))
		s.endedWith(lock) // now: the context has ended when Release returns, as that of one lock has
	}
	return errors.Join(errs...)
}

// endedWith ends the set's context with the cause of the lock's, if that has one; only the first counts.
func (s *Set) endedWith(lock *Lock) {
	if cause := context.Cause(lock.Context()); cause != nil {
		s.cancel(cause)
	}
}

func (s *Set) giveBack(ctx context.Context) {
	for _, lock := range slices.Backward(s.locks) {
		lock.keeper.End(lease.ErrReleased)
		lock.leaveLater(ctx, answered)
	}
}

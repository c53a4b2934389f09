package lock

import (
	"context"
	"errors"
)

// Lead elects a leader: among all callers with the same name, at most one runs f at a time. It waits to
// be elected, runs f, and returns what f returned. If leadership is lost while f runs, the context of f
// ends with an [EndedError] as its cause; once f has returned, Lead stands for election again. It
// returns ctx's error when ctx ends.
//
// f has to return when its context ends: until it does, another leader may run beside it.
func (l *Locker) Lead(ctx context.Context, name string, f func(context.Context) error) error {
	for {
		lock, err := l.Acquire(ctx, name)
		if err != nil {
			return err
		}
		err = lock.run(ctx, f)
		lost := context.Cause(lock.Context()) != nil
		lock.giveBack(ctx)
		switch {
		case ctx.Err() != nil:
			return errors.Join(ctx.Err(), ignoreEnd(err))
		case !lost:
			return err
		}
	}
}

// ignoreEnd drops an error that says only that the context ended.
func ignoreEnd(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNotHeld) {
		return nil
	}
	return err
}

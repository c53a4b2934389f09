package lock

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"
)

// standAgain is the mean pause of a candidate whose server is away.
const standAgain = 500 * time.Millisecond

// Lead elects a leader: among all callers with the same name, at most one runs f at a time. It waits to
// be elected, runs f, and returns what f returned. If leadership is lost while f runs, the context of f
// ends with an [EndedError] as its cause; once f has returned, Lead stands for election again. It
// returns ctx's error when ctx ends.
//
// While the server is away or changes its role, Lead waits and stands again; an error that will not pass,
// as of a wrong password or a closed client, is returned.
//
// f has to return when its context ends: until it does, another leader may run beside it.
func (l *Locker) Lead(ctx context.Context, name string, f func(context.Context) error) error {
	if name == "" {
		return errNoName
	}
	for {
		if done, err := l.term(ctx, name, f); done {
			return err
		}
	}
}

// term waits to be elected and runs f once; done is false if Lead should stand again.
func (l *Locker) term(ctx context.Context, name string, f func(context.Context) error) (done bool, err error) {
	lock, err := l.Acquire(ctx, name)
	if err != nil {
		if !passes(err) || pause(ctx, standAgain) != nil {
			return true, err
		}
		return false, nil
	}
	defer lock.giveBack(ctx) // also if f panics
	err = lock.run(ctx, f)
	if ctx.Err() != nil {
		return true, errors.Join(ctx.Err(), ignoreEnd(err))
	}
	return context.Cause(lock.Context()) == nil, err
}

// passes tells whether an error may go away by itself: no answer, or one of a server that is not ready.
func passes(err error) bool {
	refused, ok := valkey.IsValkeyErr(err)
	if !ok {
		return !errors.Is(err, valkey.ErrClosing) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
	}
	word, _, _ := strings.Cut(refused.Error(), " ")
	switch word {
	case "LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "NOREPLICAS", "UNBLOCKED":
		return true
	}
	return false
}

// ignoreEnd drops an error that says only that the context ended.
func ignoreEnd(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNotHeld) {
		return nil
	}
	return err
}

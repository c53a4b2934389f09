package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/valkey-io/valkey-go"
)

// Refund gives back n of the units that r was granted, as when a request turned out to be cheaper. Units
// that no longer count, as those of a window that is over, are not given back, and never more than
// are in use. One round trip. A result of an outage mode has nothing to give back.
func (l *Limiter) Refund(ctx context.Context, subject string, r Result, n int64) error {
	if n < 0 || n > r.Granted {
		return fmt.Errorf("ratelimit: a refund of %d units of %d", n, r.Granted)
	}
	if n == 0 || r.at == 0 {
		return nil
	}
	err := l.refund(ctx, subject, n, r.at)
	l.denials.forget(subject)
	if err != nil {
		return fmt.Errorf("ratelimit: refund: %w", err)
	}
	return nil
}

func (l *Limiter) refund(ctx context.Context, subject string, n, at int64) error {
	keys := []string{l.keys.Key(subject)}
	if l.places >= 0 {
		keys = append(keys, keys[0]+heldPart)
	}
	if err := l.breaker(keys[0]).Err(); err != nil {
		return err
	}
	_, _, err := l.exec(ctx, l.until(), keys, "", []run{{n, -at}})
	if err != nil && !isAnswer(err) {
		return l.noAnswer(ctx, keys[0], err)
	}
	return err
}

// Reset forgets what a subject has used, and the places that it holds. One round trip. Units that other
// processes have taken in batches stay theirs.
func (l *Limiter) Reset(ctx context.Context, subject string) error {
	defer l.denials.forget(subject)
	defer l.batches.forget(subject)
	k := l.keys.Key(subject)
	del := l.client.B().Del().Key(k)
	if l.places >= 0 {
		del = del.Key(k + heldPart)
	}
	if _, err := l.remove(ctx, k, del.Build()); err != nil {
		return fmt.Errorf("ratelimit: reset: %w", err)
	}
	return nil
}

// remove sends a command that removes something of a key, and returns how much.
func (l *Limiter) remove(ctx context.Context, key string, cmd valkey.Completed) (int64, error) {
	if err := l.breaker(key).Err(); err != nil {
		return 0, err
	}
	n, err := within(ctx, l.until(), func(ctx context.Context) (int64, error) { return l.client.Do(ctx, cmd).AsInt64() })
	if err != nil && !isAnswer(err) {
		return 0, l.noAnswer(ctx, key, err)
	}
	return n, err
}

// Release gives up the place that r got from a Concurrency limit; held is false if it had none, or has
// lost it to the end of its lease. One round trip. The units of other limits stay used.
func (l *Limiter) Release(ctx context.Context, subject string, r Result) (held bool, err error) {
	if r.token == "" {
		return false, nil
	}
	if isLocal(r.token) {
		return l.local.release(subject, r.token), nil
	}
	key := l.keys.Key(subject) + heldPart
	n, err := l.remove(ctx, key, l.client.B().Zrem().Key(key).Member(r.token).Build())
	if err != nil {
		return false, fmt.Errorf("ratelimit: release: %w", err)
	}
	return n > 0, nil
}

// ErrNever is returned by [Limiter.Wait] for a request that no waiting will admit.
var ErrNever = errors.New("ratelimit: the cost is above the limit")

const (
	firstWait = time.Millisecond
	placeWait = 50 * time.Millisecond // a place may be released at any time
)

// Wait waits until n units are granted. If they can't be before ctx ends, it does not wait for that: the
// error wraps context.DeadlineExceeded at once. Who waits has no place in a queue: others may come first.
func (l *Limiter) Wait(ctx context.Context, subject string, n int64) (Result, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		r, err := l.AllowN(ctx, subject, n)
		if err != nil || r.Allowed {
			return r, err
		}
		if r.RetryAfter == Never {
			return r, ErrNever
		}
		wait := max(firstWait, r.RetryAfter)
		if l.places >= 0 {
			wait = min(wait, placeWait)
		} else if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			return r, fmt.Errorf("ratelimit: the wait would be %v: %w", wait, context.DeadlineExceeded)
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return r, fmt.Errorf("ratelimit: wait: %w", ctx.Err())
		}
	}
}

package ratelimit

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"
)

// costError is nil if n units can be asked for.
func costError(n int64) error {
	if n < 1 || n > MaxLimit {
		return fmt.Errorf("ratelimit: a cost of %d, not from 1 to %d", n, int64(MaxLimit))
	}
	return nil
}

// ask decides on count times cost units, one of which is 1; a count of 0 only looks.
func (l *Limiter) ask(ctx context.Context, subject string, cost, count int64) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("ratelimit: %w", err)
	}
	if count > 0 {
		if cost == 1 { // more may have to wait for longer
			if r, ok := l.denials.find(subject); ok {
				return r, nil
			}
		}
		if count == 1 {
			if r, ok := l.batches.take(subject, cost); ok {
				return r, nil
			}
		}
	}
	key := l.keys.Key(subject)
	away := l.breaker(key)
	if err := away.Err(); err != nil {
		return l.without(subject, cost, count, err)
	}
	r, full, err := l.askServer(ctx, subject, key, cost, count)
	if err == nil {
		if count > 0 && !full { // looks and denials are answered where nothing can be counted
			away.Answered()
		}
		return r, nil
	}
	if isAnswer(err) {
		away.Refuse(err)
	} else if err = l.noAnswer(ctx, key, err); ctx.Err() != nil {
		return Result{}, fmt.Errorf("ratelimit: %w", ctx.Err())
	}
	return l.without(subject, cost, count, err)
}

// askServer says beside its result whether the server was full, which then could only look.
func (l *Limiter) askServer(ctx context.Context, subject, key string, cost, count int64) (r Result, full bool, err error) {
	if l.places >= 0 || count == 0 {
		return l.askAlone(ctx, key, cost, count)
	}
	it := newItem(key, run{cost, count})
	sent := l.now()
	epoch := l.denials.epoch(subject)
	var batch *taken
	if count == 1 {
		batch = l.batches.want(subject, cost, it)
	}
	if err := l.gather(ctx, it); err != nil { // the item may still be in somebody's hands
		if batch != nil {
			l.batches.failed(subject, batch)
		}
		return Result{}, false, err
	}
	r, full = l.result(it.now, cost, it.answer, it.behind), it.full
	if batch != nil {
		l.batches.put(subject, batch, sent, it.taken, r)
	}
	items.Put(it)
	if !r.Allowed && cost == 1 {
		l.denials.put(subject, epoch, sent, r)
	}
	return r, full, nil
}

// now is the time, where something is kept for which it matters.
func (l *Limiter) now() (now time.Time) {
	if l.denials.most > 0 || l.batches.most > 0 {
		now = time.Now()
	}
	return now
}

// askAlone is for what is not gathered: a look, and a place, whose token is one caller's.
func (l *Limiter) askAlone(ctx context.Context, key string, cost, count int64) (r Result, full bool, err error) {
	until := l.until()
	keys, token, runs := []string{key}, "", []run{{cost, count}}
	if l.places >= 0 {
		keys, token = append(keys, key+heldPart), rand.Text()
	}
	now, answers, err := l.exec(ctx, until, keys, token, runs)
	if full = isFull(err); full {
		oom := err
		if now, answers, err = l.exec(ctx, until, keys, token, []run{{cost, 0}}); err == nil && l.result(now, cost, answers[0], 0).RetryAfter == 0 {
			err = oom
		}
	}
	if err != nil {
		return Result{}, full, err
	}
	r = l.result(now, cost, answers[0], 0)
	if count == 0 {
		r.Allowed = r.RetryAfter == 0
	} else if r.Allowed && l.places >= 0 {
		r.token = token
	}
	return r, full, nil
}

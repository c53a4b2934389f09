package cache

import (
	"context"
	"sync/atomic"
	"time"
)

// MaxWait is how long a call waits for one answer of the server at most: Peek, Set and Delete where ctx has no
// deadline, Get and GetMany always, since what ctx leaves is for load. A ctx that is cancelled during such a
// wait does not shorten it.
const MaxWait = time.Second

// patience makes the contexts of calls that would else wait for as long as the client does, which may be
// for ever. Calls that begin within an eighth of MaxWait share one: a timer for each of them, and a place
// among the children of the caller's context, cost half as much as the call.
type patience struct{ current atomic.Pointer[period] }

type period struct {
	context.Context
	until time.Time
}

// waiting has the values of the caller's context, and the end of the period's.
type waiting struct {
	context.Context
	values context.Context
}

func (w waiting) Value(key any) any { return w.values.Value(key) }

// context returns one that ends after MaxWait, or up to an eighth earlier.
func (p *patience) context(ctx context.Context, now time.Time) context.Context {
	if ctx.Err() != nil {
		return ctx
	}
	current := p.current.Load()
	if current == nil || now.After(current.until) {
		shared, cancel := context.WithTimeout(context.Background(), MaxWait)
		context.AfterFunc(shared, cancel)
		current = &period{shared, now.Add(MaxWait / 8)}
		p.current.Store(current)
	}
	if ctx == context.Background() {
		return current // it has no values
	}
	return waiting{current, ctx}
}

// bounded gives an end to a context that has none.
func (p *patience) bounded(ctx context.Context) context.Context {
	if _, limited := ctx.Deadline(); limited {
		return ctx
	}
	return p.context(ctx, time.Now())
}

// looking is for the first trip of Get: at least half of the time that ctx leaves is for load.
func (p *patience) looking(ctx context.Context, now time.Time) (context.Context, context.CancelFunc) {
	if deadline, limited := ctx.Deadline(); limited {
		if half := deadline.Sub(now) / 2; half < MaxWait {
			return context.WithTimeout(ctx, half)
		}
	}
	return p.context(ctx, now), func() {}
}

// storing is for its second trip.
func (p *patience) storing(ctx context.Context) context.Context {
	if deadline, limited := ctx.Deadline(); limited && time.Until(deadline) < MaxWait {
		return ctx
	}
	return p.context(ctx, time.Now())
}

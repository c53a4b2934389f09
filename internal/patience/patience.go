// Package patience gives an end to calls that would else wait for as long as the client does, which may be for
// ever.
package patience

import (
	"context"
	"sync/atomic"
	"time"
)

// Default is how long a call waits where Patience names no time.
const Default = time.Second

// Patience makes the contexts of calls. Those that begin within an eighth of Most share one: a timer for each of
// them, and a place among the children of the caller's context, cost half as much as the call.
type Patience struct {
	Most time.Duration // zero means [Default]

	current atomic.Pointer[period]
}

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

// Context returns one that ends after Most, or up to an eighth earlier, and with nothing else: a ctx that is
// cancelled meanwhile does not end it.
func (p *Patience) Context(ctx context.Context, now time.Time) context.Context {
	if ctx.Err() != nil {
		return ctx
	}
	current := p.current.Load()
	if current == nil || now.After(current.until) {
		most := p.Most
		if most == 0 {
			most = Default
		}
		shared, cancel := context.WithTimeout(context.Background(), most)
		context.AfterFunc(shared, cancel)
		current = &period{shared, now.Add(most / 8)}
		p.current.Store(current)
	}
	if ctx == context.Background() {
		return current // it has no values
	}
	return waiting{current, ctx}
}

// Bounded gives an end to a context that has none.
func (p *Patience) Bounded(ctx context.Context) context.Context {
	if _, limited := ctx.Deadline(); limited {
		return ctx
	}
	return p.Context(ctx, time.Now())
}

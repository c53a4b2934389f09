package cache

import (
	"context"
	"time"

	patient "github.com/flatrate/flatrate/internal/patience"
)

// MaxWait is how long a call waits for one answer of the server at most: Peek, Set and Delete where ctx has no
// deadline, Get and GetMany always, since what ctx leaves is for load. A ctx that is cancelled during such a
// wait does not shorten it.
const MaxWait = patient.Default

// patience bounds each call.
type patience struct{ patient.Patience }

// bounded gives an end to a context that has none.
func (p *patience) bounded(ctx context.Context) context.Context { return p.Bounded(ctx) }

// looking is for the first trip of Get: at least half of the time that ctx leaves is for load.
func (p *patience) looking(ctx context.Context, now time.Time) (context.Context, context.CancelFunc) {
	if deadline, limited := ctx.Deadline(); limited {
		if half := deadline.Sub(now) / 2; half < MaxWait {
			return context.WithTimeout(ctx, half)
		}
	}
	return p.Context(ctx, now), func() {}
}

// storing is for its second trip.
func (p *patience) storing(ctx context.Context) context.Context {
	if deadline, limited := ctx.Deadline(); limited && time.Until(deadline) < MaxWait {
		return ctx
	}
	return p.Context(ctx, time.Now())
}

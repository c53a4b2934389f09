package cache

import (
	"context"
	"sync"
	"time"

	"github.com/flatrate/flatrate/internal/breaker"
	way "github.com/flatrate/flatrate/internal/link"
	"github.com/flatrate/flatrate/internal/patience"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

// MaxWait is how long a call waits for one answer of the server at most: Peek, Set and Delete where ctx has no
// deadline, Get and GetMany always, since what ctx leaves is for load. A ctx that is cancelled during such a
// wait does not shorten it.
const MaxWait = patience.Default

// link is the way to the server, with a word for those who wait until it is back.
type link struct {
	client valkey.Client
	way    way.Link

	mu   sync.Mutex
	back chan struct{} // closed when a part of the server is back
}

// watch begins to tell those who wait for the server.
func (l *link) watch() {
	l.back = make(chan struct{})
	l.way.Client = l.client
	l.way.Each(func(b *breaker.Breaker) { b.Closed = l.returned })
}

func (l *link) returned() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.back)
	l.back = make(chan struct{})
}

// isBack is closed once a part of the server is back after this call.
func (l *link) isBack() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.back
}

// away says whether the node of a key is known to be away.
func (l *link) away(key string) bool { return l.way.Breaker(key).Err() != nil }

// looking gives an end to the first trip of Get: at least half of the time that ctx leaves is for load.
func (l *link) looking(ctx context.Context, now time.Time) (context.Context, context.CancelFunc) {
	if deadline, limited := ctx.Deadline(); limited {
		if half := deadline.Sub(now) / 2; half < MaxWait {
			return context.WithTimeout(ctx, half)
		}
	}
	return l.way.Wait.Context(ctx, now), func() {}
}

// storing is for its second trip.
func (l *link) storing(ctx context.Context) context.Context {
	if deadline, limited := ctx.Deadline(); limited && time.Until(deadline) < MaxWait {
		return ctx
	}
	return l.way.Wait.Context(ctx, time.Now())
}

// exec runs a script within [MaxWait].
func (l *link) exec(ctx context.Context, s *script.Script, keys []string, args ...string) valkey.ValkeyResult {
	if err := l.way.Away(keys[0]); err != nil {
		return valkey.NewErrorResult(err)
	}
	result := s.Exec(l.storing(ctx), l.client, keys, args...)
	l.way.Heard(ctx, keys[0], result.Error())
	return result
}

// execs runs scripts in one round trip to each node, within [MaxWait].
func (l *link) execs(ctx context.Context, calls []script.Call) []valkey.ValkeyResult {
	results := make([]valkey.ValkeyResult, len(calls))
	var at []int
	var send []script.Call
	for i, call := range calls {
		if err := l.way.Away(call.Keys[0]); err != nil {
			results[i] = valkey.NewErrorResult(err)
			continue
		}
		at, send = append(at, i), append(send, call)
	}
	for n, result := range script.Multi(l.storing(ctx), l.client, send...) {
		results[at[n]] = result
		l.way.Heard(ctx, send[n].Keys[0], result.Error())
	}
	return results
}

// cutOff says whether a call may still have an effect: its answer was lost.
func cutOff(err error) bool { return err != nil && !way.Answered(err) }

// until is the context of what goes on without its caller, with an end of its own.
func until(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

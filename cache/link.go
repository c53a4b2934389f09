package cache

import (
	"context"
	"sync"
	"time"

	"github.com/flatrate/flatrate/internal/breaker"
	way "github.com/flatrate/flatrate/internal/link"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

// link is the way to the server: no call waits for ever, and none is made while the server is known to be
// away.
type link struct {
	client valkey.Client
	wait   patience
	way    way.Link

	mu   sync.Mutex
	back chan struct{} // closed when a part of the server is back
}

// watch begins to tell those who wait for the server.
func (l *link) watch() {
	l.back = make(chan struct{})
	l.way.Client = l.client
	parts := l.way.Parts()
	for i := range parts {
		parts[i].Closed = l.returned
	}
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

// breakerOf returns that of the node which a command goes to.
func (l *link) breakerOf(cmd valkey.Completed) *breaker.Breaker { return l.way.BreakerOf(cmd) }

// away says whether the node of a key is known to be away.
func (l *link) away(key string) bool { return l.way.Breaker(key).Err() != nil }

func (l *link) probe(key string) breaker.Probe { return l.way.Probe(key) }

// answered tells a server that said something, if only no, from one that said nothing.
func answered(err error) bool { return way.Answered(err) }

// heard tells the breaker how a call ended that was made with bounded for a caller's ctx.
func (l *link) heard(ctx context.Context, key string, err error) { l.way.Heard(ctx, key, err) }

// exec runs a script within [MaxWait].
func (l *link) exec(ctx context.Context, s *script.Script, keys []string, args ...string) valkey.ValkeyResult {
	return l.way.Run(ctx, l.wait.storing(ctx), s, keys, args...)
}

// execs runs scripts in one round trip to each node, within [MaxWait].
func (l *link) execs(ctx context.Context, calls []script.Call) []valkey.ValkeyResult {
	return l.way.Runs(ctx, l.wait.storing(ctx), calls)
}

// cutOff says whether a call may still have an effect: its answer was lost.
func cutOff(err error) bool { return err != nil && !answered(err) }

// until is the context of what goes on without its caller, with an end of its own.
func until(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

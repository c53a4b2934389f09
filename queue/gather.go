package queue

import (
	"context"
	"sync"
	"sync/atomic"
)

// gather sends in one call what callers ask for while earlier calls are under way. Who comes when none is does not wait for
// others to come: so callers of a busy process share calls, and a lone caller loses no time.
type gather[T any] struct {
	most    int         // in one call
	size    func(T) int // of what counts towards most bytes; nil counts nothing
	bytes   int         // in one call, unless the first one alone has more
	calls   int         // at a time
	timeout func(context.Context) (context.Context, context.CancelFunc)
	send    func(ctx context.Context, batch []T)

	mu      sync.Mutex
	waiting []queued[T]
	running int
}

type queued[T any] struct {
	item   T
	ticket *ticket
}

// ticket is what a caller waits with for its items.
type ticket struct {
	left atomic.Int64
	done chan struct{}
}

func (t *ticket) one() {
	if t.left.Add(-1) == 0 {
		close(t.done)
	}
}

// do has items sent, beside those of others, and waits for them. If ctx ends first the items are not the caller's any more: they may
// still be sent.
func (g *gather[T]) do(ctx context.Context, items []T) error {
	g.mu.Lock()
	alone := g.running == 0 && len(g.waiting) == 0 && len(items) <= g.most && g.fits(items)
	if alone {
		g.running++
		g.mu.Unlock()
		g.call(ctx, items)
		g.goOn()
		return nil
	}
	t := &ticket{done: make(chan struct{})}
	t.left.Store(int64(len(items)))
	for _, item := range items {
		g.waiting = append(g.waiting, queued[T]{item, t})
	}
	if g.running < g.calls {
		g.running++
		go g.run()
	}
	g.mu.Unlock()
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gather[T]) fits(items []T) bool {
	if g.size == nil || len(items) < 2 {
		return true
	}
	sum := 0
	for _, item := range items {
		sum += g.size(item)
	}
	return sum <= g.bytes
}

func (g *gather[T]) call(ctx context.Context, items []T) {
	ctx, cancel := g.timeout(ctx)
	defer cancel()
	g.send(ctx, items)
}

// goOn ends a call of a lone caller: what has come meanwhile is not its to send.
func (g *gather[T]) goOn() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) > 0 {
		go g.run()
		return
	}
	g.running--
}

func (g *gather[T]) run() {
	for {
		batch := g.take()
		if len(batch) == 0 {
			return
		}
		items := make([]T, len(batch))
		for i, q := range batch {
			items[i] = q.item
		}
		g.call(context.Background(), items)
		for _, q := range batch {
			q.ticket.one()
		}
	}
}

// take returns the next batch; with none left, a call less is running.
func (g *gather[T]) take() []queued[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, sum := 0, 0
	for n < len(g.waiting) && n < g.most {
		if g.size != nil {
			if sum += g.size(g.waiting[n].item); n > 0 && sum > g.bytes {
				break
			}
		}
		n++
	}
	if n == 0 {
		g.running--
		g.waiting = nil
		return nil
	}
	batch := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	return batch
}

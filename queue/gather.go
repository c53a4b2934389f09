package queue

import (
	"context"
	"errors"
	"runtime"
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
	t := &ticket{done: make(chan struct{})}
	t.left.Store(int64(len(items)))
	g.mu.Lock()
	for _, item := range items {
		g.waiting = append(g.waiting, queued[T]{item, t})
	}
	lead := g.running == 0
	if lead {
		g.running++
	} else if g.running < g.calls && len(g.waiting) >= g.most/2 {
		g.running++
		go g.run(nil)
	}
	g.mu.Unlock()
	if lead {
		g.lead(ctx, t)
	}
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lead sends the first call after none was under way: alone, with the caller's own context, or together with what others add that are
// ready to run.
func (g *gather[T]) lead(ctx context.Context, t *ticket) {
	for before, now := 0, 1; now > before && now < g.most; {
		runtime.Gosched()
		g.mu.Lock()
		before, now = now, len(g.waiting)
		g.mu.Unlock()
	}
	batch := g.take()
	if len(batch) == 0 { // another call has taken all, and counts no more
		return
	}
	for _, q := range batch {
		if q.ticket != t {
			go g.run(batch)
			return
		}
	}
	g.finish(ctx, batch)
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) > 0 { // what has come meanwhile is not the caller's to send
		go g.run(nil)
		return
	}
	g.running--
}

func (g *gather[T]) finish(ctx context.Context, batch []queued[T]) {
	items := make([]T, len(batch))
	for i, q := range batch {
		items[i] = q.item
	}
	ctx, cancel := g.timeout(ctx)
	g.send(ctx, items)
	cancel()
	for _, q := range batch {
		q.ticket.one()
	}
}

// run sends batches until nothing waits.
func (g *gather[T]) run(batch []queued[T]) {
	for {
		if batch == nil {
			batch = g.take()
		}
		if len(batch) == 0 {
			return
		}
		g.finish(context.Background(), batch)
		batch = nil
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

// beside has the parts of a call done at the same time and waits for all of them; a single one needs no goroutine.
func beside[P comparable, T any](parts map[P][]T, do func(P, []T) error) error {
	left := make(chan error, len(parts))
	for part, batch := range parts {
		if len(parts) == 1 {
			return do(part, batch)
		}
		go func() { left <- do(part, batch) }()
	}
	var failed error
	for range parts {
		failed = errors.Join(failed, <-left)
	}
	return failed
}

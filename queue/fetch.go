package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/wake"
)

// receiving is what the callers of Receive wait in. One goroutine asks for all of them, while there are any: for as many messages as
// they want, so that nothing ages in a buffer, and in one call where their times in flight are the same.
type receiving struct {
	queue *Queue
	id    string        // by which the server wakes this process
	come  chan struct{} // somebody has come

	mu      sync.Mutex
	waiting []*request
	running bool
}

// request is a caller of Receive.
type request struct {
	max        int
	visibility time.Duration
	until      time.Time // zero does not wait
	asked      bool
	done       chan answer
}

type answer struct {
	deliveries []*Delivery
	err        error
}

const (
	leastPause = 2 * time.Millisecond  // between two calls that brought nothing
	mostPause  = 24 * time.Hour        // a timer that something else will be before
	giveUp     = 50 * time.Millisecond // after an error that everybody was told
)

func (r *receiving) begin(q *Queue) {
	r.queue, r.id, r.come = q, rand.Text()[:16], make(chan struct{}, 1)
}

func (r *receiving) receive(ctx context.Context, o ReceiveOptions) ([]*Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("queue: receive: %w", err)
	}
	if o.Attempt != "" {
		return r.attempt(ctx, o)
	}
	req := &request{max: o.Max, visibility: o.Visibility, done: make(chan answer, 1)}
	if o.Wait > 0 {
		req.until = time.Now().Add(o.Wait)
	}
	r.mu.Lock()
	r.waiting = append(r.waiting, req)
	if !r.running {
		r.running = true
		go r.run() //nolint:gosec // it asks for all callers, not for this one
	}
	r.mu.Unlock()
	select {
	case r.come <- struct{}{}:
	default:
	}
	select {
	case a := <-req.done:
		return a.deliveries, a.err
	case <-ctx.Done():
	}
	r.mu.Lock()
	r.waiting = slices.DeleteFunc(r.waiting, func(other *request) bool { return other == req })
	r.mu.Unlock()
	select {
	case a := <-req.done: // it was answered at the last moment
		r.giveBack(a.deliveries)
	default:
	}
	return nil, fmt.Errorf("queue: receive: %w", ctx.Err())
}

// attempt asks for one caller alone, again and again while it waits.
func (r *receiving) attempt(ctx context.Context, o ReceiveOptions) ([]*Delivery, error) {
	q, until := r.queue, time.Now().Add(o.Wait)
	for {
		s, err := q.opened(ctx)
		if err != nil {
			return nil, err
		}
		call, cancel := q.bounded(ctx)
		f, err := q.fetchAny(call, s, ask{shares: []int{o.Max}, visibility: o.Visibility, attempt: o.Attempt})
		cancel()
		if err != nil {
			return nil, wrap(err)
		}
		left := time.Until(until)
		if f.any || left <= 0 {
			r.received(f)
			return f.shares[0], nil
		}
		timer := time.NewTimer(min(left, 100*time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("queue: receive: %w", ctx.Err())
		}
	}
}

func wrap(err error) error {
	if errors.Is(err, ErrDeleted) {
		return err
	}
	return fmt.Errorf("queue: receive: %w", err)
}

func (r *receiving) received(f fetched) {
	hook := r.queue.cfg.Hooks.Received
	if hook == nil || !f.any {
		return
	}
	n, bytes := 0, 0
	for _, ds := range f.shares {
		n += len(ds)
		for _, d := range ds {
			bytes += sizeOf(d.Body, d.Attributes)
		}
	}
	hook(n, bytes)
}

// run asks for messages while somebody waits for some.
func (r *receiving) run() {
	var w *wake.Waiter
	defer func() {
		if w != nil {
			w.Leave()
		}
	}()
	q := r.queue
	for {
		r.grow()
		batch := r.collect()
		if len(batch) == 0 {
			return
		}
		who := ""
		if w != nil {
			who = w.Channel() + " " + r.id
		}
		f, err := r.ask(batch, who)
		left := r.hand(batch, f, err)
		switch {
		case !left:
		case err != nil:
			<-time.After(giveUp) // who waits with another visibility is not asked for at once
		case f.any:
		case w == nil: // the next call makes us known to the server
			ctx, cancel := q.bounded(context.Background())
			w = wake.Join(ctx, q.client, q.prefix, r.id)
			cancel()
		default:
			r.pause(w, f.next)
		}
	}
}

// ask is one call for a batch of callers.
func (r *receiving) ask(batch []*request, who string) (fetched, error) {
	q := r.queue
	ctx, cancel := q.bounded(context.Background())
	defer cancel()
	s, err := q.opened(ctx)
	if err != nil {
		return fetched{}, err
	}
	a := ask{shares: make([]int, len(batch)), visibility: batch[0].visibility, who: who}
	for i, req := range batch {
		a.shares[i] = req.max
	}
	f, err := q.fetchAny(ctx, s, a)
	if err != nil {
		return f, wrap(err)
	}
	r.received(f)
	return f, nil
}

// fetchAny is fetch, of whatever the queue is now.
func (q *Queue) fetchAny(ctx context.Context, s *state, a ask) (fetched, error) {
	f, err := q.fetch(ctx, s, a)
	if !errors.Is(err, errAnew) {
		return f, err
	}
	if s, err = q.opened(ctx); err != nil {
		return f, err
	}
	return q.fetch(ctx, s, a)
}

// grow lets others come who are ready to, for as long as some do.
func (r *receiving) grow() {
	for before, now := 0, 1; now > before && now < maxFetch; {
		runtime.Gosched()
		r.mu.Lock()
		before, now = now, len(r.waiting)
		r.mu.Unlock()
	}
}

// collect returns callers that can share a call. With none left, nobody runs any more.
func (r *receiving) collect() (batch []*request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.come: // who has come is among those
	default:
	}
	if len(r.waiting) == 0 {
		r.running = false
		r.waiting = nil
		return nil
	}
	// Callers with another time in flight have their turn when these have been asked for.
	first := r.waiting[0]
	for _, req := range r.waiting {
		if !req.asked {
			first = req
			break
		}
	}
	if first.asked { // all were: another round
		for _, req := range r.waiting {
			req.asked = false
		}
		first = r.waiting[0]
	}
	n := 0
	for _, req := range r.waiting {
		if req.visibility == first.visibility && n+req.max <= max(maxFetch, first.max) {
			req.asked = true
			batch = append(batch, req)
			n += req.max
		}
	}
	return batch
}

// hand gives callers their shares, and an empty one to those that wait no longer. left says that somebody still waits.
func (r *receiving) hand(batch []*request, f fetched, err error) (left bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	here := make(map[*request]bool, len(r.waiting))
	for _, req := range r.waiting {
		here[req] = true
	}
	for i, req := range batch {
		var share []*Delivery
		if err == nil {
			share = f.shares[i]
		}
		if !here[req] { // it has left
			r.giveBack(share)
			continue
		}
		if len(share) > 0 || err != nil || !req.until.After(now) {
			req.done <- answer{share, err}
			delete(here, req)
		}
	}
	r.waiting = slices.DeleteFunc(r.waiting, func(req *request) bool { return !here[req] })
	return len(r.waiting) > 0
}

// pause waits until there may be messages, somebody comes, or somebody's time is over.
func (r *receiving) pause(w *wake.Waiter, next time.Duration) {
	pause := w.Fallback()
	if next >= 0 {
		pause = min(pause, next+time.Millisecond) // the server counts in whole milliseconds
	}
	pause = max(pause, leastPause)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	ends := time.NewTimer(r.ends())
	defer ends.Stop()
	select {
	case <-w.Woken:
	case <-timer.C:
	case <-r.come:
	case <-ends.C:
	}
}

// ends is how long until the first caller waits no longer.
func (r *receiving) ends() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	least := mostPause
	for _, req := range r.waiting {
		least = min(least, time.Until(req.until))
	}
	return least
}

// giveBack makes visible again what nobody waits for any more. Where that fails, its time in flight ends.
func (r *receiving) giveBack(ds []*Delivery) {
	if len(ds) == 0 {
		return
	}
	receipts := make([]string, len(ds))
	for i, d := range ds {
		receipts[i] = d.Receipt
	}
	lease.GiveBack(context.Background(), func(ctx context.Context) bool {
		for _, err := range r.queue.ExtendBatch(ctx, receipts, 0) {
			if err != nil && !errors.Is(err, ErrNotHeld) && !errors.Is(err, ErrDeleted) {
				return false
			}
		}
		return true
	})
}

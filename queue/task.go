package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
)

// task is what one handler works on.
type task struct {
	consumer   *Consumer
	deliveries []*Delivery
	ctx        context.Context
	stop       context.CancelCauseFunc
	begin      time.Time
	over       atomic.Bool // it is finished, or was given up
	replaced   atomic.Bool // and another worker is in its place
	unhook     []func() bool

	mu    sync.Mutex
	until time.Time // by which the server must have confirmed that the messages are still ours
	renew time.Time // when to ask for more time
	ended time.Time // when its context has ended; zero while it has not
}

// begin registers a task. Its context is not ended by that of Run: a shutdown lets handlers finish.
func (c *Consumer) begin(ctx context.Context, ds []*Delivery) *task {
	t := &task{consumer: c, deliveries: ds, begin: time.Now()}
	t.ctx, t.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	t.confirmed(ds[0].leased)
	var last context.Context
	for _, d := range ds {
		if d.owned != nil && d.owned != last {
			last = d.owned
			t.unhook = append(t.unhook, context.AfterFunc(last, func() { t.cancel(ErrNotHeld) }))
		}
	}
	c.mu.Lock()
	c.work[t] = struct{}{}
	c.mu.Unlock()
	return t
}

// confirmed counts a call that was sent at a time.
func (t *task) confirmed(sent time.Time) {
	v := t.consumer.cfg.Visibility
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until, t.renew = sent.Add(v-lease.Drift(v)), sent.Add(v/3)
}

func (t *task) cancel(cause error) {
	t.stop(cause)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended.IsZero() {
		t.ended = time.Now()
	}
}

// finish says that the handler has returned; false if the task was given up before.
func (t *task) finish() bool { return t.leave() }

// abandon gives the task up; false if its handler has returned.
func (t *task) abandon() bool { return t.leave() }

func (t *task) leave() bool {
	if !t.over.CompareAndSwap(false, true) {
		return false
	}
	t.consumer.mu.Lock()
	delete(t.consumer.work, t)
	t.consumer.mu.Unlock()
	for _, unhook := range t.unhook {
		unhook()
	}
	return true
}

// handle calls the handler, and turns its panic into an error.
func (c *Consumer) handle(t *task) (errs []error) {
	defer func() {
		if v := recover(); v != nil {
			stack := debug.Stack()
			if hook := c.cfg.Hooks.Panicked; hook != nil {
				hook(t.deliveries[0], v, stack)
			}
			c.about.log.Error("a handler panicked", "queue", c.about.name, "id", t.deliveries[0].ID, "panic", fmt.Sprint(v), "stack", string(stack))
			errs = all(len(t.deliveries), fmt.Errorf("panic: %v", v))
		}
	}()
	ctx := t.ctx
	if c.cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
	}
	if c.cfg.Batch == nil {
		if err := c.handler(ctx, t.deliveries[0]); err != nil {
			return []error{err}
		}
		return nil
	}
	errs = c.cfg.Batch(ctx, t.deliveries)
	if errs != nil && len(errs) != len(t.deliveries) {
		return all(len(t.deliveries), fmt.Errorf("the handler returned %d errors for %d messages", len(errs), len(t.deliveries)))
	}
	return errs
}

// settle tells the server what became of a task's messages.
func (c *Consumer) settle(t *task, errs []error) {
	cause := context.Cause(t.ctx)
	t.stop(nil)
	took := time.Since(t.begin)
	var done []string
	for i, d := range t.deliveries {
		var err error
		if errs != nil {
			err = errs[i]
		}
		if hook := c.cfg.Hooks.Handled; hook != nil {
			hook(d, took, err)
		}
		if err == nil {
			done = append(done, d.Receipt)
			continue
		}
		c.insist(func(ctx context.Context) error { return c.refuse(ctx, d, err, errors.Is(cause, errShutdown)) })
	}
	if len(done) > 0 {
		c.insist(func(ctx context.Context) error {
			var failed error
			var again []string
			for i, err := range c.from.AckBatch(ctx, done) {
				if err != nil {
					failed = err
				}
				if err != nil && !errors.Is(err, ErrNotHeld) {
					again = append(again, done[i])
				}
			}
			if len(again) > 0 {
				done = again
			}
			return failed
		})
	}
}

// refuse gives a message back that failed.
func (c *Consumer) refuse(ctx context.Context, d *Delivery, err error, shutdown bool) error {
	var r retry
	switch {
	case shutdown: // it did not fail, it was interrupted
		return one(c.from.ExtendBatch(ctx, []string{d.Receipt}, 0))
	case errors.As(err, new(rejection)):
		refused := c.from.Reject(ctx, d.Receipt, err.Error())
		if !errors.Is(refused, ErrNoDeadLetters) {
			return refused
		}
	case errors.As(err, &r):
		return c.from.Nack(ctx, d.Receipt, r.after, err.Error())
	}
	after := min(max(c.cfg.Backoff(d.Receives), 0), maxVisibility)
	return c.from.Nack(ctx, d.Receipt, after, err.Error())
}

const (
	settleTries = 4
	settlePause = 50 * time.Millisecond
)

// insist settles in spite of a server that is away for a moment. Where that fails too, the message comes again.
func (c *Consumer) insist(settle func(context.Context) error) {
	var err error
	for try := range settleTries {
		if err = settle(context.Background()); err == nil || errors.Is(err, ErrNotHeld) || hasGone(err) || errors.Is(err, errTooLate) {
			break
		}
		<-time.After(settlePause << try)
	}
	if err != nil {
		c.failed(fmt.Errorf("queue: settle: %w", err))
	}
}

// giveBack makes the messages of a task that was given up visible again.
func (c *Consumer) giveBack(t *task) {
	c.from.giveBack(t.deliveries)
}

// beat extends what handlers work on, ends the context of those that have lost their messages, and replaces those that do
// not return.
func (c *Consumer) beat(ctx, receiving context.Context, stop context.CancelCauseFunc) {
	every := min(max(c.cfg.Visibility/10, 2*time.Millisecond), time.Second)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		c.look(ctx, receiving, stop)
	}
}

func (c *Consumer) look(ctx, receiving context.Context, stop context.CancelCauseFunc) {
	now := time.Now()
	var due []*task
	for _, t := range c.tasks() {
		t.mu.Lock()
		late, renew, ended := now.After(t.until), now.After(t.renew), t.ended
		t.mu.Unlock()
		if d := c.cfg.Timeout; ended.IsZero() && d > 0 && now.Sub(t.begin) > d {
			ended = t.begin.Add(d)
		}
		switch {
		case !ended.IsZero() && now.Sub(ended) > c.cfg.Grace:
			c.replace(receiving, stop, t)
		case late && ended.IsZero():
			t.cancel(ErrNotHeld)
		case renew && !late:
			due = append(due, t)
		}
	}
	c.extend(ctx, now, due)
}

// extend asks for more time for tasks, all in one call.
func (c *Consumer) extend(ctx context.Context, now time.Time, due []*task) {
	if len(due) == 0 {
		return
	}
	var receipts []string
	var whose []*task
	for _, t := range due {
		for _, d := range t.deliveries {
			receipts, whose = append(receipts, d.Receipt), append(whose, t)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Visibility/3)
	defer cancel()
	errs := c.from.ExtendBatch(ctx, receipts, c.cfg.Visibility)
	unsure := map[*task]bool{}
	lost := map[*task]int{}
	for i, err := range errs {
		switch {
		case errors.Is(err, ErrNotHeld), hasGone(err):
			lost[whose[i]]++
		case err != nil:
			unsure[whose[i]] = true
		}
	}
	for _, t := range due {
		switch {
		case lost[t] == len(t.deliveries) || lost[t] > 0 && !t.over.Load():
			if !t.over.Load() {
				t.cancel(ErrNotHeld)
			}
		case !unsure[t]:
			t.confirmed(now)
		}
	}
}

// replace gives up a handler that ignores the end of its context: its message comes again, and another worker takes its
// place, for as many as Concurrency.
func (c *Consumer) replace(ctx context.Context, stop context.CancelCauseFunc, t *task) {
	c.mu.Lock()
	full := c.stuck >= c.cfg.Concurrency
	c.mu.Unlock()
	if full || ctx.Err() != nil {
		return
	}
	t.replaced.Store(true) // seen by the worker if it is given up
	if !t.abandon() {
		return
	}
	c.mu.Lock()
	c.stuck++
	c.mu.Unlock()
	t.cancel(context.DeadlineExceeded)
	c.giveBack(t)
	if hook := c.cfg.Hooks.Stuck; hook != nil {
		hook(t.deliveries[0])
	}
	c.about.log.Error("a handler does not return", "queue", c.about.name, "id", t.deliveries[0].ID)
	go c.worker(ctx, stop) // it has the place of the other one, which the shutdown does not wait for
}

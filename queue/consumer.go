package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Handler handles a message. Nil acknowledges it; an error gives it back, after the Backoff, or as [Reject] and [RetryAfter] say.
// The context ends at the consumer's Timeout, when the message is no longer this process's, and at the end of a shutdown.
type Handler func(ctx context.Context, d *Delivery) error

// BatchHandler handles several messages at once. Nil acknowledges all; else there is an error, or nil, for each of them.
type BatchHandler func(ctx context.Context, ds []*Delivery) []error

// Middleware goes around a Handler.
type Middleware func(Handler) Handler

// Defaults of [ConsumerConfig].
const (
	DefaultConcurrency = 10
	DefaultBatch       = 10
	DefaultGrace       = 10 * time.Second
)

// ConsumerConfig says how messages are handled. Handler or Batch is required.
type ConsumerConfig struct {
	// Handler handles messages one by one; Batch, up to BatchSize at once. One of the two is set.
	Handler Handler
	Batch   BatchHandler
	// BatchSize is how many messages Batch gets at most: 1 to 1,000. Default 10. It does not wait for more than one.
	BatchSize int
	// Middleware goes around Handler; the first one is the outermost.
	Middleware []Middleware
	// Concurrency is how many handlers run at a time: 1 to 100,000. Default 10. No more messages are fetched than
	// handlers are free.
	Concurrency int
	// Visibility is how long a message is in flight without a sign of life: it is extended every third of that while its handler
	// runs. 10 ms to 12 h. Default that of the queue.
	Visibility time.Duration
	// Timeout ends the context of a handler. Zero means never.
	Timeout time.Duration
	// Backoff is after how long a message comes again that failed for the n-th time: from 0 to 12 h. By default a second, doubled each time
	// up to ten minutes, and up to a quarter more or less.
	Backoff func(receives int) time.Duration
	// Grace is how long handlers may go on after the end of Run's context; then their contexts end, and after as much again
	// their messages are given back. It is also how long a handler may ignore the end of its context before it counts as stuck: its
	// message is given back, and another handler takes its place. Default 10 s.
	Grace time.Duration
	// Hooks hear what happens to messages.
	Hooks ConsumerHooks
}

// ConsumerHooks are optional funcs, called from any goroutine. They should return soon.
type ConsumerHooks struct {
	// Handled is called after each message, with its handler's error and how long that ran.
	Handled func(d *Delivery, took time.Duration, err error)
	// Panicked is called when a handler panics, with its value and stack. The message is given back.
	Panicked func(d *Delivery, value any, stack []byte)
	// Stuck is called when a handler ignores the end of its context.
	Stuck func(d *Delivery)
	// Failed is called when messages could not be received, or one not be settled.
	Failed func(err error)
}

type rejection struct{ error }

func (r rejection) Unwrap() error { return r.error }

// Reject wraps the error of a handler whose message will never succeed: it goes to the dead letters at once, or, without them, comes
// again as after any error. A nil error stays nil.
func Reject(err error) error {
	if err == nil {
		return nil
	}
	return rejection{err}
}

type retry struct {
	error
	after time.Duration
}

func (r retry) Unwrap() error { return r.error }

// RetryAfter wraps the error of a handler whose message is to come again after d, from 0 to 12 h. A nil error stays nil. If the message's
// retention ends before that, the delay is refused, which is logged, and it comes again when its time in flight has passed.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return retry{err, min(max(d, 0), maxVisibility)}
}

// Source is what a [Consumer] takes messages from: a [*Queue] or a [*Group] of a log. It has unexported methods.
type Source interface {
	Receive(ctx context.Context, o ReceiveOptions) ([]*Delivery, error)
	AckBatch(ctx context.Context, receipts []string) []error
	Nack(ctx context.Context, receipt string, delay time.Duration, reason string) error
	Reject(ctx context.Context, receipt, reason string) error
	ExtendBatch(ctx context.Context, receipts []string, visibility time.Duration) []error

	about() about
	giveBack(ds []*Delivery) // makes deliveries visible again that nobody handles
	enter()                  // a consumer begins
	leave()                  // it has ended
}

// about is what a consumer knows of its source.
type about struct {
	name       string
	visibility time.Duration
	log        *slog.Logger
}

func (q *Queue) about() about { return about{q.cfg.Name, q.cfg.Visibility, q.log} }

func (q *Queue) giveBack(ds []*Delivery) { q.receiving.giveBack(ds) }

func (*Queue) enter() {}

func (*Queue) leave() {}

func (g *Group) about() about {
	return about{g.log.cfg.Name + "/" + g.cfg.Name, g.cfg.Visibility, g.log.log}
}

func (g *Group) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.users++
}

// leave gives the partitions up when the last consumer has ended.
func (g *Group) leave() {
	g.mu.Lock()
	g.users--
	left := g.users
	g.mu.Unlock()
	if left > 0 {
		return
	}
	ctx, cancel := g.log.bounded(context.Background())
	defer cancel()
	_ = g.Close(ctx) // else its leases end by themselves
}

// hasGone says that a source has no messages any more.
func hasGone(err error) bool { return errors.Is(err, ErrDeleted) || errors.Is(err, ErrNoGroup) }

// Consumer handles the messages of a queue, or of a group of a log. It is safe for concurrent use; Run may run once at a time.
type Consumer struct {
	from    Source
	about   about
	cfg     ConsumerConfig
	handler Handler

	mu      sync.Mutex
	running bool
	work    map[*task]struct{}
	stuck   int // handlers that were given up and still run
	workers sync.WaitGroup
}

// NewConsumer returns a Consumer of a [*Queue] or a [*Group]. The error names the field of cfg that is wrong.
func NewConsumer(from Source, cfg ConsumerConfig) (*Consumer, error) {
	switch is := from.(type) {
	case nil:
		return nil, errors.New("queue: the consumer's source is nil")
	case *Queue:
		if is == nil {
			return nil, errors.New("queue: the consumer's queue is nil")
		}
	case *Group:
		if is == nil {
			return nil, errors.New("queue: the consumer's group is nil")
		}
	}
	about := from.about()
	if cfg.Concurrency == 0 {
		cfg.Concurrency = DefaultConcurrency
	}
	if cfg.BatchSize == 0 {
		cfg.BatchSize = DefaultBatch
	}
	if cfg.Visibility == 0 {
		cfg.Visibility = about.visibility
	}
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.Backoff == nil {
		cfg.Backoff = backoff
	}
	switch {
	case (cfg.Handler == nil) == (cfg.Batch == nil):
		return nil, errors.New("queue: ConsumerConfig.Handler or Batch is required, and not both")
	case cfg.Batch != nil && len(cfg.Middleware) > 0:
		return nil, errors.New("queue: ConsumerConfig.Middleware goes around Handler, not Batch")
	case cfg.BatchSize < 1 || cfg.BatchSize > maxReceive:
		return nil, fmt.Errorf("queue: ConsumerConfig.BatchSize is %d, not from 1 to %d", cfg.BatchSize, maxReceive)
	case cfg.Concurrency < 1 || cfg.Concurrency > 100_000:
		return nil, fmt.Errorf("queue: ConsumerConfig.Concurrency is %d, not from 1 to 100,000", cfg.Concurrency)
	case cfg.Visibility < minVisibility || cfg.Visibility > maxVisibility:
		return nil, fmt.Errorf("queue: ConsumerConfig.Visibility is %v, not from %v to %v", cfg.Visibility, minVisibility, maxVisibility)
	case cfg.Timeout < 0:
		return nil, fmt.Errorf("queue: ConsumerConfig.Timeout is %v, less than zero", cfg.Timeout)
	case cfg.Grace < 0:
		return nil, fmt.Errorf("queue: ConsumerConfig.Grace is %v, less than zero", cfg.Grace)
	}
	c := &Consumer{from: from, about: about, cfg: cfg, handler: cfg.Handler, work: map[*task]struct{}{}}
	for i := len(cfg.Middleware) - 1; i >= 0; i-- {
		if cfg.Middleware[i] == nil {
			return nil, fmt.Errorf("queue: ConsumerConfig.Middleware[%d] is nil", i)
		}
		c.handler = cfg.Middleware[i](c.handler)
	}
	if cfg.Batch == nil {
		c.cfg.BatchSize = 1
	}
	return c, nil
}

func backoff(receives int) time.Duration {
	d := min(time.Second<<min(max(receives-1, 0), 20), 10*time.Minute)
	return d*3/4 + rand.N(d/2)
}

const (
	pollWait   = 20 * time.Second
	firstPause = 50 * time.Millisecond // after a failed receive, doubling ...
	lastPause  = 5 * time.Second       // ... up to this
)

// Run handles messages until ctx ends, and returns when all handlers have: nil, or which ones did not within twice Config.Grace. It
// also returns if the queue or the group was deleted: [ErrDeleted], [ErrNoGroup]. While the server is away it goes on trying.
func (c *Consumer) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.running {
		c.mu.Unlock()
		return errors.New("queue: the consumer runs already")
	}
	c.running = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.running = false
		c.mu.Unlock()
	}()
	receiving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	beating, still := context.WithCancel(context.WithoutCancel(ctx))
	defer still()
	c.from.enter()
	go c.beat(beating, receiving, stop)
	for range c.cfg.Concurrency {
		c.workers.Add(1)
		go c.worker(receiving, stop)
	}
	<-receiving.Done()
	left := c.shutdown()
	c.from.leave()
	if cause := context.Cause(receiving); hasGone(cause) {
		return cause
	}
	if left > 0 {
		return fmt.Errorf("queue: %d handlers did not return within %v; their messages were given back", left, 2*c.cfg.Grace)
	}
	return nil
}

// shutdown waits for the handlers, ends their contexts, waits again, and gives back what is left.
func (c *Consumer) shutdown() (left int) {
	done := make(chan struct{})
	go func() { c.workers.Wait(); close(done) }()
	for _, end := range []func(){c.cancelAll, func() {}} {
		timer := time.NewTimer(c.cfg.Grace)
		select {
		case <-done:
			timer.Stop()
			return 0
		case <-timer.C:
			end()
		}
	}
	for _, t := range c.tasks() {
		if t.abandon() {
			left++
			c.giveBack(t)
		}
	}
	return left
}

var errShutdown = errors.New("queue: the consumer shuts down")

func (c *Consumer) cancelAll() {
	for _, t := range c.tasks() {
		t.cancel(errShutdown)
	}
}

func (c *Consumer) tasks() []*task {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*task, 0, len(c.work))
	for t := range c.work {
		all = append(all, t)
	}
	return all
}

// worker receives and handles, one batch after the other.
func (c *Consumer) worker(ctx context.Context, stop context.CancelCauseFunc) {
	var t *task
	defer func() {
		switch {
		case t != nil && !t.finish(): // it was given up
			if t.replaced.Load() {
				c.mu.Lock()
				c.stuck--
				c.mu.Unlock()
				return
			}
		case t != nil: // its handler has ended the goroutine
			c.settle(t, all(len(t.deliveries), errors.New("the handler ended its goroutine")))
			if ctx.Err() == nil {
				c.workers.Add(1)
				go c.worker(ctx, stop)
			}
		}
		c.workers.Done()
	}()
	pause := firstPause
	for ctx.Err() == nil {
		ds, err := c.from.Receive(ctx, ReceiveOptions{Max: c.cfg.BatchSize, Wait: pollWait, Visibility: c.cfg.Visibility})
		switch {
		case hasGone(err):
			stop(err)
			return
		case err != nil && ctx.Err() == nil:
			c.failed(err)
			timer := time.NewTimer(pause/2 + rand.N(pause))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
			pause = min(2*pause, lastPause)
		case err == nil:
			pause = firstPause
		}
		if len(ds) == 0 {
			continue
		}
		t = c.begin(ctx, ds)
		errs := c.handle(t)
		if !t.finish() {
			return
		}
		c.settle(t, errs)
		t = nil
	}
}

func (c *Consumer) failed(err error) {
	if hook := c.cfg.Hooks.Failed; hook != nil {
		hook(err)
	}
	c.about.log.Warn("consumer", "queue", c.about.name, "error", err)
}

package queue_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

const patience = 20 * time.Second // a guard against hanging

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// eventually waits until f says so.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// consume runs a consumer until stop is called, which returns what Run did.
func consume(t *testing.T, q *queue.Queue, cfg queue.ConsumerConfig) (stop func() error) {
	t.Helper()
	c := must(queue.NewConsumer(q, cfg))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return errors.New("Run does not return")
		}
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

func newQueue(t *testing.T, s *valkeytest.Server, cfg queue.Config) *queue.Queue {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "q"
	}
	cfg.Prefix = valkeytest.Prefix(t)
	return must(queue.New(s.Client(), cfg))
}

func put(t *testing.T, q *queue.Queue, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		if _, err := q.Send(t.Context(), queue.Message{Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
}

func isEmpty(t *testing.T, q *queue.Queue) func() bool {
	return func() bool {
		s, err := q.Stats(t.Context())
		return err == nil && s.Visible+s.InFlight+s.Delayed+s.Dying == 0
	}
}

func TestConsumer(t *testing.T) {
	s := valkeytest.Start(t)
	for _, cfg := range []queue.Config{{}, {FIFO: true, Partitions: 2}} {
		q := newQueue(t, s, cfg)
		const n, most = 500, 7
		var now, peak, handled atomic.Int64
		seen := sync.Map{}
		stop := consume(t, q, queue.ConsumerConfig{Concurrency: most, Handler: func(_ context.Context, d *queue.Delivery) error {
			peak.Store(max(peak.Load(), now.Add(1)))
			defer now.Add(-1)
			if _, twice := seen.LoadOrStore(d.ID, true); twice {
				t.Errorf("%s was handled twice", d.ID)
			}
			handled.Add(1)
			return nil
		}})
		var batch []queue.Message
		for i := range n {
			batch = append(batch, queue.Message{Group: fmt.Sprint(i % 20)})
		}
		must(q.SendBatch(t.Context(), batch))
		eventually(t, "all are handled", func() bool { return handled.Load() == n })
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if !isEmpty(t, q)() || peak.Load() > most {
			t.Errorf("left behind, or %d handlers at a time", peak.Load())
		}
	}
}

// TestConsumerFailures lets handlers fail in every way they can.
func TestConsumerFailures(t *testing.T) {
	s := valkeytest.Start(t)
	q := newQueue(t, s, queue.Config{MaxReceives: 3, DeadLetters: "dead"})
	dead := must(queue.New(s.Client(), queue.Config{Prefix: queue.PrefixOf(q), Name: "dead"}))
	var mu sync.Mutex
	tries := map[string]int{}
	var panicked atomic.Int64
	stop := consume(t, q, queue.ConsumerConfig{
		Concurrency: 4,
		Timeout:     200 * time.Millisecond,
		Backoff:     func(int) time.Duration { return 0 },
		Hooks: queue.ConsumerHooks{Panicked: func(_ *queue.Delivery, v any, stack []byte) {
			if v != "oh" || !strings.Contains(string(stack), "consumer_test.go") {
				t.Errorf("panicked with %v at %s", v, stack)
			}
			panicked.Add(1)
		}},
		Handler: func(ctx context.Context, d *queue.Delivery) error {
			mu.Lock()
			tries[string(d.Body)]++
			first := tries[string(d.Body)] == 1
			mu.Unlock()
			switch string(d.Body) {
			case "fails":
				return errors.New("no luck")
			case "recovers":
				if first {
					return errors.New("once")
				}
			case "panics":
				panic("oh")
			case "exits":
				runtime.Goexit()
			case "is poison":
				return fmt.Errorf("wrapped: %w", queue.Reject(errors.New("poison")))
			case "waits":
				<-ctx.Done()
				return ctx.Err()
			case "later":
				return queue.RetryAfter(errors.New("later"), time.Hour)
			}
			return nil
		},
	})
	put(t, q, "fails", "recovers", "panics", "exits", "is poison", "waits", "later", "works")
	want := map[string]string{
		"fails": "no luck", "panics": "panic: oh", "exits": "the handler ended its goroutine", "is poison": "wrapped: poison",
		"waits": context.DeadlineExceeded.Error(),
	}
	for range want {
		ds := must(dead.Receive(t.Context(), queue.ReceiveOptions{Wait: patience, Visibility: time.Hour}))
		if len(ds) != 1 || ds[0].Dead == nil || ds[0].Dead.Reason != want[string(ds[0].Body)] {
			t.Fatalf("%v", ds)
		}
		delete(want, string(ds[0].Body))
	}
	eventually(t, "one is in flight", func() bool {
		s, err := q.Stats(t.Context())
		return err == nil && s.InFlight == 1 && s.Visible+s.Dying == 0
	})
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	for body, n := range map[string]int{
		"fails": 3, "recovers": 2, "panics": 3, "exits": 3, "is poison": 1, "waits": 3, "later": 1, "works": 1,
	} {
		if tries[body] != n {
			t.Errorf("what %s was tried %d times, not %d", body, tries[body], n)
		}
	}
	if panicked.Load() != 3 {
		t.Errorf("%d panics", panicked.Load())
	}
}

// TestHeartbeat lets a handler go on until its message was extended twice: nobody else gets it meanwhile.
func TestHeartbeat(t *testing.T) {
	s := valkeytest.Start(t)
	var handled, extended atomic.Int64
	twice := make(chan struct{})
	q := newQueue(t, s, queue.Config{Hooks: queue.Hooks{Settled: func(int) {
		if extended.Add(1) == 2 {
			close(twice)
		}
	}}})
	other := must(queue.New(s.Client(), queue.Config{Prefix: queue.PrefixOf(q), Name: "q"}))
	stop := consume(t, q, queue.ConsumerConfig{Visibility: 3 * time.Second, Handler: func(ctx context.Context, _ *queue.Delivery) error {
		handled.Add(1)
		select {
		case <-ctx.Done():
			t.Errorf("the context ended: %v", context.Cause(ctx))
		case <-twice:
		}
		return nil
	}})
	put(t, q, "long")
	select {
	case <-twice:
	case <-time.After(patience):
		t.Fatal("it was not extended")
	}
	eventually(t, "it is acknowledged", isEmpty(t, other))
	if err := stop(); err != nil || handled.Load() != 1 {
		t.Errorf("handled %d times, %v", handled.Load(), err)
	}
}

// TestLostMessage takes a message from its handler.
func TestLostMessage(t *testing.T) {
	s := valkeytest.Start(t)
	q := newQueue(t, s, queue.Config{})
	causes := make(chan error, 1)
	begun := make(chan struct{})
	stop := consume(t, q, queue.ConsumerConfig{Visibility: 3 * time.Second, Handler: func(ctx context.Context, _ *queue.Delivery) error {
		close(begun)
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil
	}})
	put(t, q, "a")
	<-begun
	if err := q.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case cause := <-causes:
		if !errors.Is(cause, queue.ErrNotHeld) {
			t.Errorf("the cause is %v", cause)
		}
	case <-time.After(patience):
		t.Fatal("its handler goes on")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestStuckHandler has handlers that never return: their messages come again, and others go on.
func TestStuckHandler(t *testing.T) {
	s := valkeytest.Start(t)
	q := newQueue(t, s, queue.Config{MaxReceives: 2, DeadLetters: "dead"})
	free := make(chan struct{})
	defer close(free)
	var handled, stuck atomic.Int64
	stop := consume(t, q, queue.ConsumerConfig{
		Concurrency: 2, Timeout: 50 * time.Millisecond, Grace: 100 * time.Millisecond,
		Hooks: queue.ConsumerHooks{Stuck: func(*queue.Delivery) { stuck.Add(1) }},
		Handler: func(_ context.Context, d *queue.Delivery) error {
			if string(d.Body) == "hangs" {
				<-free
			}
			handled.Add(1)
			return nil
		},
	})
	put(t, q, "hangs")
	eventually(t, "it has hung twice", func() bool { return stuck.Load() == 2 })
	put(t, q, "works", "works", "works")
	eventually(t, "others are handled", func() bool { return handled.Load() == 3 })
	eventually(t, "it has died", isEmpty(t, q))
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestShutdown lets handlers finish, interrupts those that heed their context, and gives back what the others had.
func TestShutdown(t *testing.T) {
	s := valkeytest.Start(t)
	q := newQueue(t, s, queue.Config{})
	free, begun := make(chan struct{}), make(chan struct{}, 3)
	var finished atomic.Int64
	stop := consume(t, q, queue.ConsumerConfig{Concurrency: 3, Grace: 300 * time.Millisecond, Handler: func(ctx context.Context, d *queue.Delivery) error {
		begun <- struct{}{}
		switch string(d.Body) {
		case "heeds":
			<-ctx.Done()
			return ctx.Err()
		case "hangs":
			<-free
			return nil
		}
		<-time.After(50 * time.Millisecond) // work that goes on when the shutdown begins
		if ctx.Err() != nil {
			t.Error("it was interrupted at once")
		}
		finished.Add(1)
		return nil
	}})
	put(t, q, "heeds", "hangs", "finishes")
	for range 3 {
		<-begun
	}
	put(t, q, "late")
	if err := stop(); err == nil || !strings.Contains(err.Error(), "1 handlers did not return") {
		t.Errorf("Run: %v", err)
	}
	close(free)
	if finished.Load() != 1 {
		t.Errorf("%d have finished", finished.Load())
	}
	var left []string
	eventually(t, "the others are back", func() bool {
		for _, d := range must(q.Receive(t.Context(), queue.ReceiveOptions{Max: 10, Visibility: time.Hour})) {
			left = append(left, string(d.Body))
		}
		return len(left) >= 3
	})
	slices.Sort(left)
	if strings.Join(left, " ") != "hangs heeds late" {
		t.Errorf("left: %v", left)
	}
}

func TestConsumerOfDeletedQueue(t *testing.T) {
	s := valkeytest.Start(t)
	q := newQueue(t, s, queue.Config{})
	c := must(queue.NewConsumer(q, queue.ConsumerConfig{Handler: func(context.Context, *queue.Delivery) error { return nil }}))
	done := make(chan error)
	go func() { done <- c.Run(t.Context()) }()
	put(t, q, "a")
	eventually(t, "it is handled", isEmpty(t, q))
	if err := c.Run(t.Context()); err == nil {
		t.Error("it runs twice")
	}
	if err := q.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, queue.ErrDeleted) {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		t.Error("Run goes on")
	}
}

// TestConsumerOutlivesServer restarts the server without its data, and with.
func TestConsumerOutlivesServer(t *testing.T) {
	for _, args := range [][]string{nil, {"--appendonly", "yes", "--appendfsync", "always"}} {
		s := valkeytest.StartWith(t, valkeytest.Config{Args: args})
		q := newQueue(t, s, queue.Config{Timeout: time.Second})
		var handled atomic.Int64
		stop := consume(t, q, queue.ConsumerConfig{Handler: func(context.Context, *queue.Delivery) error {
			handled.Add(1)
			return nil
		}})
		put(t, q, "before")
		eventually(t, "one is handled", func() bool { return handled.Load() == 1 })
		s.Restart()
		eventually(t, "the server takes messages", func() bool {
			_, err := q.Send(t.Context(), queue.Message{})
			return err == nil
		})
		eventually(t, "another one is handled", func() bool { return handled.Load() >= 2 })
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestMiddlewareAndTypes(t *testing.T) {
	s := valkeytest.Start(t)
	q := newQueue(t, s, queue.Config{MaxReceives: 2, DeadLetters: "dead"})
	dead := must(queue.New(s.Client(), queue.Config{Prefix: queue.PrefixOf(q), Name: "dead"}))
	type job struct{ N int }
	var mu sync.Mutex
	var order []string
	around := func(name string) queue.Middleware {
		return func(next queue.Handler) queue.Handler {
			return func(ctx context.Context, d *queue.Delivery) error {
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				return next(ctx, d)
			}
		}
	}
	got := make(chan int, 1)
	consume(t, q, queue.ConsumerConfig{
		Middleware: []queue.Middleware{around("a"), around("b")},
		Handler: queue.Handle(func(_ context.Context, v job, d *queue.Delivery) error {
			if d.Attributes["k"] != "v" {
				t.Errorf("%+v", d)
			}
			got <- v.N
			return nil
		}),
	})
	must(queue.SendJSON(t.Context(), q, job{42}, queue.Message{Attributes: map[string]string{"k": "v"}}))
	if n := <-got; n != 42 {
		t.Errorf("N is %d", n)
	}
	mu.Lock()
	if strings.Join(order, " ") != "a b" {
		t.Errorf("order: %v", order)
	}
	mu.Unlock()
	put(t, q, "no JSON")
	ds := must(dead.Receive(t.Context(), queue.ReceiveOptions{Wait: patience}))
	if len(ds) != 1 || ds[0].Dead.Receives != 1 || !strings.Contains(ds[0].Dead.Reason, "the body is no queue_test.job") {
		t.Errorf("%+v", ds[0].Dead)
	}
	if _, err := queue.SendJSON(t.Context(), q, make(chan int), queue.Message{}); err == nil {
		t.Error("a channel was sent")
	}
}

func TestBatchHandler(t *testing.T) {
	s := valkeytest.Start(t)
	q := newQueue(t, s, queue.Config{MaxReceives: 2, DeadLetters: "dead"})
	var batch []queue.Message
	for i := range 50 {
		batch = append(batch, queue.Message{Body: []byte{byte(i)}})
	}
	must(q.SendBatch(t.Context(), batch))
	var largest, wrong atomic.Int64
	stop := consume(t, q, queue.ConsumerConfig{
		BatchSize: 20, Concurrency: 2, Backoff: func(int) time.Duration { return 0 },
		Batch: func(_ context.Context, ds []*queue.Delivery) []error {
			largest.Store(max(largest.Load(), int64(len(ds))))
			errs := make([]error, len(ds))
			for i, d := range ds {
				switch {
				case d.Body[0] == 7:
					errs[i] = errors.New("seven")
				case d.Body[0] == 8 && d.Receives == 1:
					wrong.Add(1)
					return make([]error, len(ds)+1) // counts as an error of each
				}
			}
			return errs
		},
	})
	eventually(t, "all but one are done", isEmpty(t, q))
	dead := must(queue.New(s.Client(), queue.Config{Prefix: queue.PrefixOf(q), Name: "dead"}))
	if st := must(dead.Stats(t.Context())); st.Visible != 1 || largest.Load() < 2 || largest.Load() > 20 || wrong.Load() != 1 {
		t.Errorf("%+v; batches of up to %d", st, largest.Load())
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestConsumerConfig(t *testing.T) {
	s := valkeytest.Start(t)
	q := newQueue(t, s, queue.Config{})
	h := func(context.Context, *queue.Delivery) error { return nil }
	b := func(context.Context, []*queue.Delivery) []error { return nil }
	for field, cfg := range map[string]queue.ConsumerConfig{
		"Handler or Batch": {},
		"not both":         {Handler: h, Batch: b},
		"Middleware goes":  {Batch: b, Middleware: []queue.Middleware{func(h queue.Handler) queue.Handler { return h }}},
		"Middleware[0]":    {Handler: h, Middleware: []queue.Middleware{nil}},
		"BatchSize":        {Batch: b, BatchSize: 1001},
		"Concurrency":      {Handler: h, Concurrency: -1},
		"Visibility":       {Handler: h, Visibility: time.Millisecond},
		"Timeout":          {Handler: h, Timeout: -1},
		"Grace":            {Handler: h, Grace: -1},
	} {
		if _, err := queue.NewConsumer(q, cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := queue.NewConsumer(nil, queue.ConsumerConfig{Handler: h}); err == nil {
		t.Error("a consumer of no queue")
	}
	if queue.Reject(nil) != nil || queue.RetryAfter(nil, time.Second) != nil {
		t.Error("no error became one")
	}
}

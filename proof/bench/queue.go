package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/hibiken/asynq"
	"github.com/valkey-io/valkey-go"
)

// queueArea is what a message costs from its send to its acknowledgement, and how soon who waits has it.
func queueArea() Area { return Area{Name: "queue", Rows: queueRows} }

const (
	queueBody    = 256
	queueCallers = 64
	queueBatch   = 10
	queueGroups  = 1000
)

func queueRows(ctx context.Context, b *B) []Row {
	server := valkeytest.StartWith(b, valkeytest.Config{TCP: true})
	client := connectTo(ctx, b, server.Addr)
	n, backlog := 50_000, 1_000_000
	if b.Quick {
		n, backlog = 2_000, 100_000
	}
	w := &queueWork{client: client, admin: server.Client(), addr: server.Addr, n: n, must: b.Must}
	trip := func(cpu bool, work func(context.Context) (int, error)) Round {
		return func(ctx context.Context, _ time.Duration) (float64, error) { return w.measure(ctx, cpu, work) }
	}
	fifo, standard := w.open("fifo", true), w.open("standard", false)
	return append([]Row{
		{
			Name: "roundtrip", Unit: "messages/s", Better: "higher",
			Ours: trip(false, w.consumed("roundtrip", false)), Peers: []Peer{{"asynq", trip(false, w.asynq)}},
		},
		{
			Name: "server-cpu", Unit: "us", Better: "lower",
			Ours: trip(true, w.consumed("cpu", false)), Peers: []Peer{{"asynq", trip(true, w.asynq)}},
		},
		{
			Name: "batch-10", Unit: "messages/s", Better: "higher",
			Ours:  perBatch(Throughput(8, w.cycle(w.open("batch", false), queueBatch))),
			Peers: []Peer{{"raw streams", perBatch(Throughput(8, w.streams(ctx)))}},
		},
		{
			Name: "fifo-1000-groups", Unit: "messages/s", Better: "higher",
			Ours:  trip(false, w.through(fifo, true)),
			Peers: []Peer{{"standard queue", trip(false, w.through(standard, false))}},
		},
		{
			Name: "backlog", Unit: "messages/s", Better: "higher",
			Ours:  perBatch(Throughput(8, w.cycle(w.filled("large", backlog), queueBatch))),
			Peers: []Peer{{"small backlog", perBatch(Throughput(8, w.cycle(w.filled("small", 1000), queueBatch)))}},
		},
		{Name: "bytes-beyond-body", Unit: "bytes", Better: "lower", Ours: w.bytes(false)},
		{Name: "bytes-in-flight", Unit: "bytes", Better: "lower", Ours: w.bytes(true)},
		{Name: "wake-p50", Unit: "us", Better: "lower", Ours: w.wake(), Peers: []Peer{{"raw BLPOP", w.blpop()}}},
	}, logRows(w)...)
}

type queueWork struct {
	client, admin valkey.Client
	addr          string
	n             int
	logEntry      float64 // bytes of an entry of a log
	must          func(error)
}

func (w *queueWork) open(name string, fifo bool) *queue.Queue {
	q, err := queue.New(w.client, queue.Config{Name: name, FIFO: fifo})
	w.must(err)
	w.must(q.Open(context.Background()))
	return q
}

func (w *queueWork) filled(name string, n int) *queue.Queue {
	q := w.open(name, false)
	batch := make([]queue.Message, 1000)
	for i := range batch {
		batch[i].Body = make([]byte, queueBody)
	}
	for range n / len(batch) {
		_, err := q.SendBatch(context.Background(), batch)
		w.must(err)
	}
	return q
}

// measure returns messages a second, or the server's CPU time for each in microseconds.
func (w *queueWork) measure(ctx context.Context, cpu bool, work func(context.Context) (int, error)) (float64, error) {
	before, err := cpuSeconds(ctx, w.admin)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	n, err := work(ctx)
	took := time.Since(begin)
	if err != nil {
		return 0, err
	}
	after, err := cpuSeconds(ctx, w.admin)
	if cpu {
		return (after - before) / float64(n) * 1e6, err
	}
	return float64(n) / took.Seconds(), err
}

// callers lets 64 callers do n things together.
func (w *queueWork) callers(do func(i int) error) error {
	var all sync.WaitGroup
	var next atomic.Int64
	failed := make(chan error, queueCallers)
	for range queueCallers {
		all.Go(func() {
			for i := int(next.Add(1)); i <= w.n; i = int(next.Add(1)) {
				if err := do(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// consumed sends n messages with 64 callers and handles them with 64 handlers.
func (w *queueWork) consumed(name string, fifo bool) func(context.Context) (int, error) {
	q := w.open(name, fifo)
	return func(ctx context.Context) (int, error) {
		body := make([]byte, queueBody)
		if err := w.callers(func(int) error { _, err := q.Send(ctx, queue.Message{Body: body}); return err }); err != nil {
			return 0, err
		}
		return w.n, w.consume(ctx, q)
	}
}

func (w *queueWork) consume(ctx context.Context, q queue.Source) error {
	ctx, done := context.WithCancel(ctx)
	defer done()
	var handled atomic.Int64
	c, err := queue.NewConsumer(q, queue.ConsumerConfig{Concurrency: queueCallers, Handler: func(context.Context, *queue.Delivery) error {
		if handled.Add(1) == int64(w.n) {
			done()
		}
		return nil
	}})
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// asynq does the same with asynq, whose server is not waited for when it shuts down.
func (w *queueWork) asynq(ctx context.Context) (int, error) {
	at := asynq.RedisClientOpt{Addr: w.addr, PoolSize: queueCallers}
	client := asynq.NewClient(at)
	defer client.Close()
	body := make([]byte, queueBody)
	if err := w.callers(func(int) error { _, err := client.EnqueueContext(ctx, asynq.NewTask("t", body)); return err }); err != nil {
		return 0, err
	}
	done := make(chan struct{})
	var handled atomic.Int64
	server := asynq.NewServer(at, asynq.Config{Concurrency: queueCallers, LogLevel: asynq.FatalLevel})
	err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		if handled.Add(1) == int64(w.n) {
			close(done)
		}
		return nil
	}))
	if err != nil {
		return 0, err
	}
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	go server.Shutdown()
	return w.n, err
}

// through sends n messages in batches of 100, over 1,000 groups if so, and handles them.
func (w *queueWork) through(q *queue.Queue, grouped bool) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		batch := make([]queue.Message, 100)
		for sent := 0; sent < w.n; sent += len(batch) {
			for i := range batch {
				batch[i].Body = make([]byte, queueBody)
				if grouped {
					batch[i].Group = strconv.Itoa((sent + i) % queueGroups)
				}
			}
			if _, err := q.SendBatch(ctx, batch); err != nil {
				return 0, err
			}
		}
		return w.n, w.consume(ctx, q)
	}
}

// cycle sends, receives and acknowledges a batch.
func (w *queueWork) cycle(q *queue.Queue, n int) func(context.Context, int) error {
	batch := make([]queue.Message, n)
	for i := range batch {
		batch[i].Body = make([]byte, queueBody)
	}
	return func(ctx context.Context, _ int) error {
		if _, err := q.SendBatch(ctx, batch); err != nil {
			return err
		}
		ds, err := q.Receive(ctx, queue.ReceiveOptions{Max: n})
		if err != nil {
			return err
		}
		receipts := make([]string, len(ds))
		for i, d := range ds {
			receipts[i] = d.Receipt
		}
		return errors.Join(q.AckBatch(ctx, receipts)...)
	}
}

func perBatch(r Round) Round {
	return func(ctx context.Context, d time.Duration) (float64, error) {
		v, err := r(ctx, d)
		return v * queueBatch, err
	}
}

// streams does what cycle does with a stream and a consumer group.
func (w *queueWork) streams(ctx context.Context) func(context.Context, int) error {
	c := w.client
	w.must(c.Do(ctx, c.B().XgroupCreate().Key("stream").Group("g").Id("$").Mkstream().Build()).Error())
	body := string(make([]byte, queueBody))
	return func(ctx context.Context, caller int) error {
		adds := make(valkey.Commands, queueBatch)
		for i := range adds {
			adds[i] = c.B().Xadd().Key("stream").Id("*").FieldValue().FieldValue("b", body).Build()
		}
		for _, r := range c.DoMulti(ctx, adds...) {
			if err := r.Error(); err != nil {
				return err
			}
		}
		got, err := c.Do(ctx, c.B().Xreadgroup().Group("g", strconv.Itoa(caller)).Count(queueBatch).Streams().Key("stream").Id(">").Build()).AsXRead()
		if err != nil {
			return err
		}
		ids := make([]string, 0, queueBatch)
		for _, e := range got["stream"] {
			ids = append(ids, e.ID)
		}
		for _, r := range c.DoMulti(ctx, c.B().Xack().Key("stream").Group("g").Id(ids...).Build(), c.B().Xdel().Key("stream").Id(ids...).Build()) {
			if err := r.Error(); err != nil {
				return err
			}
		}
		return nil
	}
}

// bytes is a round that returns what a message costs the server beside its body.
func (w *queueWork) bytes(inFlight bool) Round {
	name := fmt.Sprint("bytes", inFlight)
	return func(ctx context.Context, _ time.Duration) (float64, error) {
		const n = 20_000
		before, err := w.usedMemory(ctx)
		if err != nil {
			return 0, err
		}
		q := w.filled(name, n)
		for got := 0; inFlight && got < n; {
			ds, err := q.Receive(ctx, queue.ReceiveOptions{Max: 250, Visibility: time.Hour})
			if err != nil {
				return 0, err
			}
			got += len(ds)
		}
		after, err := w.usedMemory(ctx)
		if err != nil {
			return 0, err
		}
		return float64(after-before)/n - queueBody, q.Purge(ctx)
	}
}

// usedMemory waits until the server has freed what was deleted.
func (w *queueWork) usedMemory(ctx context.Context) (int64, error) {
	for {
		text, err := w.admin.Do(ctx, w.admin.B().Info().Section("memory").Build()).ToString()
		if err != nil {
			return 0, err
		}
		if pending, err := infoNumber(text, "lazyfree_pending_objects"); err != nil || pending == 0 {
			return infoNumber(text, "used_memory")
		}
		<-time.After(time.Millisecond)
	}
}

const idle = 5 * time.Millisecond // by then who waits does

// wake is a round that returns the median time from a send to its receipt by one who waits, in microseconds.
func (w *queueWork) wake() Round {
	q := w.open("wake", false)
	return delivered(func(ctx context.Context) error {
		ds, err := q.Receive(ctx, queue.ReceiveOptions{Wait: time.Minute})
		if err != nil || len(ds) != 1 {
			return fmt.Errorf("%d messages: %w", len(ds), err)
		}
		go func() { _ = q.Ack(ctx, ds[0].Receipt) }()
		return nil
	}, func(ctx context.Context) error {
		_, err := q.Send(ctx, queue.Message{Body: make([]byte, queueBody)})
		return err
	})
}

func (w *queueWork) blpop() Round {
	c, body := w.client, string(make([]byte, queueBody))
	return delivered(func(ctx context.Context) error {
		return c.Do(ctx, c.B().Blpop().Key("blpop").Timeout(60).Build()).Error()
	}, func(ctx context.Context) error {
		return c.Do(ctx, c.B().Rpush().Key("blpop").Element(body).Build()).Error()
	})
}

func delivered(receive, send func(context.Context) error) Round {
	return func(ctx context.Context, d time.Duration) (float64, error) {
		var took []time.Duration
		for begin := time.Now(); time.Since(begin) < d || len(took) < 5; {
			got := make(chan error, 1)
			go func() { got <- receive(ctx) }()
			<-time.After(idle)
			sent := time.Now()
			if err := send(ctx); err != nil {
				return 0, err
			}
			if err := <-got; err != nil {
				return 0, err
			}
			took = append(took, time.Since(sent))
		}
		slices.Sort(took)
		return float64(took[len(took)/2].Nanoseconds()) / 1e3, nil
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/valkey-io/valkey-go"
)

const (
	logBatch   = 100
	logCallers = 8
)

// logRows are those of the log queue, beside the same commands as they are, and of the simple list.
func logRows(w *queueWork) []Row {
	trip := func(cpu bool, work func(context.Context) (int, error)) Round {
		return func(ctx context.Context, _ time.Duration) (float64, error) { return w.measure(ctx, cpu, work) }
	}
	return []Row{
		{
			Name: "log-roundtrip", Unit: "entries/s", Better: "higher",
			Ours: trip(false, w.logTrip("log")), Peers: []Peer{{"raw streams batched", trip(false, w.rawLogTrip("raw"))}},
		},
		{
			Name: "log-server-cpu", Unit: "us", Better: "lower",
			Ours: trip(true, w.logTrip("log cpu")), Peers: []Peer{{"raw streams batched", trip(true, w.rawLogTrip("raw cpu"))}},
		},
		{Name: "log-consumer, 64 appenders and 64 handlers", Unit: "entries/s", Better: "higher", Ours: trip(false, w.logConsumed())},
		{Name: "log-bytes-beyond-body", Unit: "bytes", Better: "lower", Ours: w.logBytes(false)},
		{Name: "log-bytes-pending", Unit: "bytes", Better: "lower", Ours: w.logBytes(true)},
		{Name: "log-wake-p50", Unit: "us", Better: "lower", Ours: w.logWake(), Peers: []Peer{{"raw BLPOP", w.blpop()}}},
		{Name: "list-roundtrip, batches of 100", Unit: "items/s", Better: "higher", Ours: trip(false, w.listTrip())},
		{Name: "list-bytes-beyond-body", Unit: "bytes", Better: "lower", Ours: w.listBytes()},
		{Name: "list-wake-p50", Unit: "us", Better: "lower", Ours: w.listWake(), Peers: []Peer{{"raw BLPOP", w.blpop()}}},
	}
}

func (w *queueWork) openLog(name string) (*queue.Log, *queue.Group) {
	// A retention of a second: what all groups have is not kept.
	l, err := queue.NewLog(w.client, queue.LogConfig{Name: name, Retention: time.Second})
	w.must(err)
	g, err := l.Group(queue.GroupConfig{Name: "g"})
	w.must(err)
	w.must(g.Open(context.Background()))
	return l, g
}

func (w *queueWork) batches(do func() error) error {
	var all sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(w.n / logBatch))
	failed := make(chan error, logCallers)
	for range logCallers {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(); err != nil {
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

// logTrip appends n entries in batches of 100, then receives and acknowledges them in such batches, with 8 callers each.
func (w *queueWork) logTrip(name string) func(context.Context) (int, error) {
	l, g := w.openLog(name)
	batch := make([]queue.Message, logBatch)
	for i := range batch {
		batch[i].Body = make([]byte, queueBody)
	}
	return func(ctx context.Context) (int, error) {
		if err := w.batches(func() error { _, err := l.AppendBatch(ctx, batch); return err }); err != nil {
			return 0, err
		}
		waiting, all := context.WithCancel(ctx)
		defer all()
		return w.n, w.eachUntil(func(got *atomic.Int64) error {
			ds, err := g.Receive(waiting, queue.ReceiveOptions{Max: logBatch, Wait: time.Minute})
			if waiting.Err() != nil { // the others have them all
				return ctx.Err()
			}
			if err != nil {
				return err
			}
			receipts := make([]string, len(ds))
			for i, d := range ds {
				receipts[i] = d.Receipt
			}
			err = errors.Join(g.AckBatch(ctx, receipts)...)
			if got.Add(int64(len(ds))) == int64(w.n) {
				all()
			}
			return err
		})
	}
}

// eachUntil lets 8 callers work until all n are there.
func (w *queueWork) eachUntil(do func(got *atomic.Int64) error) error {
	var all sync.WaitGroup
	var got atomic.Int64
	failed := make(chan error, logCallers)
	for range logCallers {
		all.Go(func() {
			for got.Load() < int64(w.n) {
				if err := do(&got); err != nil {
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

// rawLogTrip does the same with XADD in a pipeline, XREADGROUP COUNT 100 and one XACK, and trims what was acknowledged.
func (w *queueWork) rawLogTrip(name string) func(context.Context) (int, error) {
	c, body := w.client, string(make([]byte, queueBody))
	w.must(c.Do(context.Background(), c.B().XgroupCreate().Key(name).Group("g").Id("0").Mkstream().Build()).Error())
	var caller atomic.Int64
	return func(ctx context.Context) (int, error) {
		err := w.batches(func() error {
			adds := make(valkey.Commands, logBatch)
			for i := range adds {
				adds[i] = c.B().Xadd().Key(name).Id("*").FieldValue().FieldValue("b", body).Build()
			}
			for _, r := range c.DoMulti(ctx, adds...) {
				if err := r.Error(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		err = w.eachUntil(func(got *atomic.Int64) error {
			who := strconv.FormatInt(caller.Add(1)%logCallers, 10)
			read, err := c.Do(ctx, c.B().Xreadgroup().Group("g", who).Count(logBatch).Streams().Key(name).Id(">").Build()).AsXRead()
			if valkey.IsValkeyNil(err) {
				return nil
			}
			if err != nil {
				return err
			}
			ids := make([]string, 0, logBatch)
			for _, e := range read[name] {
				ids = append(ids, e.ID)
			}
			got.Add(int64(len(ids)))
			return c.Do(ctx, c.B().Xack().Key(name).Group("g").Id(ids...).Build()).Error()
		})
		if err != nil {
			return 0, err
		}
		return w.n, c.Do(ctx, c.B().Xtrim().Key(name).Maxlen().Threshold("0").Build()).Error()
	}
}

// logConsumed appends n entries one by one with 64 callers, and handles them one by one with 64 handlers.
func (w *queueWork) logConsumed() func(context.Context) (int, error) {
	l, g := w.openLog("log consumer")
	return func(ctx context.Context) (int, error) {
		body := make([]byte, queueBody)
		if err := w.callers(func(int) error { _, err := l.Append(ctx, queue.Message{Body: body}); return err }); err != nil {
			return 0, err
		}
		return w.n, w.consume(ctx, g)
	}
}

// logBytes is a round that returns what an entry costs the server beside its body.
func (w *queueWork) logBytes(pending bool) Round {
	return func(ctx context.Context, _ time.Duration) (float64, error) {
		const n = 20_000
		before, err := w.usedMemory(ctx)
		if err != nil {
			return 0, err
		}
		l, g := w.openLog(fmt.Sprint("log bytes ", pending))
		batch := make([]queue.Message, logBatch)
		for i := range batch {
			batch[i].Body = make([]byte, queueBody)
		}
		for range n / logBatch {
			if _, err := l.AppendBatch(ctx, batch); err != nil {
				return 0, err
			}
		}
		got := 0
		for pending && got < n/4 { // a process holds up to 10,000
			ds, err := g.Receive(ctx, queue.ReceiveOptions{Max: 250, Visibility: time.Hour, Wait: time.Second})
			if err != nil {
				return 0, err
			}
			got += len(ds)
		}
		after, err := w.usedMemory(ctx)
		if err != nil {
			return 0, err
		}
		of, extra := float64(after-before)/n-queueBody, 0.0
		if pending { // what is beyond that of an entry, for those that are pending
			alone, err := g.Stats(ctx)
			if err != nil {
				return 0, err
			}
			extra = (float64(after-before) - w.logEntry*n) / float64(alone.Pending)
			of = w.logEntry - queueBody + extra
		} else {
			w.logEntry = float64(after-before) / n
		}
		return of, errors.Join(g.Close(ctx), l.Delete(ctx))
	}
}

// logWake is wake for a log.
func (w *queueWork) logWake() Round {
	l, g := w.openLog("log wake")
	return delivered(func(ctx context.Context) error {
		ds, err := g.Receive(ctx, queue.ReceiveOptions{Wait: time.Minute})
		if err != nil || len(ds) != 1 {
			return fmt.Errorf("%d entries: %w", len(ds), err)
		}
		go func() { _ = g.Ack(ctx, ds[0].Receipt) }()
		return nil
	}, func(ctx context.Context) error {
		_, err := l.Append(ctx, queue.Message{Body: make([]byte, queueBody)})
		return err
	})
}

func (w *queueWork) openList(name string) *queue.List {
	l, err := queue.NewList(w.client, queue.ListConfig{Name: name})
	w.must(err)
	return l
}

func (w *queueWork) listTrip() func(context.Context) (int, error) {
	l := w.openList("trip")
	batch := make([][]byte, logBatch)
	for i := range batch {
		batch[i] = make([]byte, queueBody)
	}
	return func(ctx context.Context) (int, error) {
		if err := w.batches(func() error { _, err := l.Push(ctx, batch...); return err }); err != nil {
			return 0, err
		}
		return w.n, w.eachUntil(func(got *atomic.Int64) error {
			items, err := l.PopBatch(ctx, logBatch)
			got.Add(int64(len(items)))
			return err
		})
	}
}

func (w *queueWork) listBytes() Round {
	l := w.openList("bytes")
	return func(ctx context.Context, _ time.Duration) (float64, error) {
		const n = 20_000
		before, err := w.usedMemory(ctx)
		if err != nil {
			return 0, err
		}
		batch := make([][]byte, logBatch)
		for i := range batch {
			batch[i] = make([]byte, queueBody)
		}
		for range n / logBatch {
			if _, err := l.Push(ctx, batch...); err != nil {
				return 0, err
			}
		}
		after, err := w.usedMemory(ctx)
		for got := 0; err == nil && got < n; {
			var items [][]byte
			items, err = l.PopBatch(ctx, 1000)
			got += len(items)
		}
		return float64(after-before)/n - queueBody, err
	}
}

func (w *queueWork) listWake() Round {
	l := w.openList("wake")
	return delivered(func(ctx context.Context) error {
		_, ok, err := l.Pop(ctx, time.Minute)
		if err == nil && !ok {
			err = errors.New("nothing came")
		}
		return err
	}, func(ctx context.Context) error {
		_, err := l.Push(ctx, make([]byte, queueBody))
		return err
	})
}

package queuetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// long is a wait that something else ends, or the test has failed.
const long = 20 * time.Second

func prefixOf(q *queue.Queue) string { return queue.PrefixOf(q) }

func pauseResume(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	for _, cfg := range []queue.Config{{Partitions: 2}, {FIFO: true}} {
		q := New(t, env, cfg)
		send(t, q, grouped("a", "a0"))
		send(t, q, grouped("b", "b0"))
		d, err := q.Receive(ctx, hour)
		if err != nil || len(d) != 1 {
			t.Fatal(err)
		}
		if err := q.Pause(ctx); err != nil {
			t.Fatal(err)
		}
		receive(t, q, ten)
		if s, err := q.Stats(ctx); err != nil || !s.Paused || s.Visible != 1 || s.InFlight != 1 {
			t.Errorf("%+v, %v", s, err)
		}
		ack(t, q, d...)
		got := make(chan int)
		go func() {
			ds, _ := q.Receive(ctx, queue.ReceiveOptions{Wait: long, Visibility: time.Hour})
			got <- len(ds)
		}()
		if err := q.Resume(ctx); err != nil {
			t.Fatal(err)
		}
		if n := <-got; n != 1 {
			t.Errorf("%d messages after the pause", n)
		}
	}
}

func purge(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	for _, fifo := range []bool{false, true} {
		q := New(t, env, queue.Config{FIFO: fifo, Partitions: 2})
		var batch []queue.Message
		for i := range 2500 {
			batch = append(batch, grouped(fmt.Sprint(i), "x"))
		}
		if !fifo {
			batch = append(batch, text("ready"), queue.Message{Delay: time.Hour})
		}
		if _, err := q.SendBatch(ctx, batch); err != nil {
			t.Fatal(err)
		}
		ds, err := q.Receive(ctx, ten)
		if err != nil || len(ds) != 10 {
			t.Fatal(len(ds), err)
		}
		if err := q.Purge(ctx); err != nil {
			t.Fatal(err)
		}
		empty(t, q)
		if err := q.Ack(ctx, ds[0].Receipt); !errors.Is(err, queue.ErrNotHeld) {
			t.Errorf("ack of what was purged: %v", err)
		}
		send(t, q, grouped("1", "new"))
		ack(t, q, receive(t, q, ten, "new")...)
	}
}

// deleted deletes a queue while somebody waits.
func deleted(t *testing.T, env valkeytest.Env) {
	ctx, prefix := t.Context(), valkeytest.Prefix(t)
	q := New(t, env, queue.Config{Prefix: prefix, Partitions: 2})
	other := New(t, env, queue.Config{Prefix: prefix})
	send(t, q, text("a"))
	d := receive(t, other, hour, "a")[0]
	done := make(chan error)
	go func() {
		_, err := other.Receive(ctx, queue.ReceiveOptions{Wait: long})
		done <- err
	}()
	if err := q.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, queue.ErrDeleted) {
		t.Errorf("who waited: %v", err)
	}
	if _, err := other.Send(ctx, text("b")); !errors.Is(err, queue.ErrDeleted) {
		t.Errorf("send: %v", err)
	}
	if err := other.Ack(ctx, d.Receipt); !errors.Is(err, queue.ErrDeleted) {
		t.Errorf("ack: %v", err)
	}
	if _, err := q.Stats(ctx); !errors.Is(err, queue.ErrDeleted) {
		t.Errorf("stats: %v", err)
	}
	if names, err := queue.Names(ctx, env.Client, prefix); err != nil || len(names) != 0 {
		t.Errorf("names: %v, %v", names, err)
	}
	if err := q.Delete(ctx); err != nil && !errors.Is(err, queue.ErrDeleted) {
		t.Errorf("a second time: %v", err)
	}
	if err := q.Open(ctx); err != nil {
		t.Fatal(err)
	}
	if err := other.Open(ctx); err != nil {
		t.Fatal(err)
	}
	send(t, other, text("new"))
	ack(t, q, receive(t, q, ten, "new")...)
}

func stats(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	for _, cfg := range []queue.Config{{}, {FIFO: true}, {Partitions: 3}} {
		q := New(t, env, cfg)
		for i := range 6 {
			send(t, q, grouped(fmt.Sprint(i%2), fmt.Sprint(i)))
		}
		env.Advance(short)
		ds, err := q.Receive(ctx, queue.ReceiveOptions{Max: 3, Visibility: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		n := int64(len(ds))
		ack(t, q, ds[0])
		s, err := q.Stats(ctx)
		if err != nil || s.Visible != 6-n || s.InFlight != n-1 || s.Sent != 6 || s.Acked != 1 || s.Bytes == 0 || s.FIFO != cfg.FIFO ||
			s.Partitions != max(1, cfg.Partitions) || s.Groups == 0 || s.OldestAge < short {
			t.Errorf("%+v: %+v, %v", cfg, s, err)
		}
		peeked, err := q.Peek(ctx, 100)
		if err != nil || int64(len(peeked)) != 6-n || peeked[0].Receipt != "" {
			t.Errorf("peeked: %v, %v", bodiesOf(peeked), err)
		}
		for _, d := range ds[1:] {
			if err := q.Extend(ctx, d.Receipt, 0); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := q.Stats(ctx); err != nil || s.Visible != 5 || s.InFlight != 0 {
			t.Errorf("%+v: %+v, %v", cfg, s, err)
		}
		if peeked, err := q.Peek(ctx, 1); err != nil || len(peeked) != 1 {
			t.Errorf("peeked: %v, %v", bodiesOf(peeked), err)
		}
	}
}

// longPoll holds that who waits gets what comes, however it comes.
func longPoll(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	for _, cfg := range []queue.Config{{}, {FIFO: true}, {Partitions: 3}} {
		q := New(t, env, cfg)
		wait := func(o queue.ReceiveOptions) chan []*queue.Delivery {
			got := make(chan []*queue.Delivery, 1)
			o.Wait = long
			go func() {
				ds, err := q.Receive(ctx, o)
				if err != nil {
					t.Error(err)
				}
				got <- ds
			}()
			return got
		}
		first := wait(ten)
		send(t, q, grouped("g", "sent"))
		ds := <-first
		if len(ds) != 1 {
			t.Fatalf("%d messages", len(ds))
		}
		second := wait(ten)
		if err := q.Nack(ctx, ds[0].Receipt, 0, ""); err != nil {
			t.Fatal(err)
		}
		if ds = <-second; len(ds) != 1 {
			t.Fatalf("%d messages", len(ds))
		}
		if env.Embedded { // its time does not pass while somebody waits
			continue
		}
		third := wait(queue.ReceiveOptions{Visibility: short})
		if err := q.Extend(ctx, ds[0].Receipt, short); err != nil {
			t.Fatal(err)
		}
		if ds = <-third; len(ds) != 1 || ds[0].Receives != 3 {
			t.Fatalf("%d messages", len(ds))
		}
		if ds = <-wait(ten); len(ds) != 1 || ds[0].Receives != 4 {
			t.Fatalf("%d messages", len(ds))
		}
		ack(t, q, ds...)
		if !cfg.FIFO {
			if _, err := q.Send(ctx, queue.Message{Delay: short}); err != nil {
				t.Fatal(err)
			}
			if ds = <-wait(ten); len(ds) != 1 {
				t.Fatalf("%d messages", len(ds))
			}
		}
	}
}

// cancelled holds that what was on its way to somebody who left comes to another.
func cancelled(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{})
	if ds, err := q.Receive(t.Context(), queue.ReceiveOptions{Wait: time.Millisecond}); err != nil || len(ds) != 0 {
		t.Fatalf("%v, %v", ds, err)
	}
	for i := range 30 {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var got []*queue.Delivery
		all.Go(func() {
			ds, err := q.Receive(ctx, queue.ReceiveOptions{Wait: long, Visibility: time.Hour})
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			got = ds
		})
		all.Go(func() { send(t, q, text(fmt.Sprint(i))) })
		all.Go(cancel)
		all.Wait()
		if len(got) == 0 {
			var err error
			got, err = q.Receive(t.Context(), queue.ReceiveOptions{Wait: long, Visibility: time.Hour})
			if err != nil || len(got) != 1 {
				t.Fatalf("round %d: %d messages, %v", i, len(got), err)
			}
		}
		ack(t, q, got...)
	}
	empty(t, q)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.Receive(ctx, ten); !errors.Is(err, context.Canceled) {
		t.Errorf("receive: %v", err)
	}
	if _, err := q.Send(ctx, text("x")); err == nil {
		t.Error("sent with a context that had ended")
	}
}

// foreignTypes puts a key of another type into each place: calls fail, and lose nothing.
func foreignTypes(t *testing.T, env valkeytest.Env) {
	ctx, c := t.Context(), env.Client
	for _, part := range []string{"meta", "ready", "msg", "flight"} {
		prefix := valkeytest.Prefix(t)
		q := New(t, env, queue.Config{Prefix: prefix, Name: part})
		if err := q.Open(ctx); err != nil {
			t.Fatal(err)
		}
		if part != "ready" {
			send(t, q, text("kept"))
		}
		key := prefix + ":queue:{" + part + ":0}:" + part
		aside := prefix + ":aside:{" + part + ":0}"
		if part == "meta" {
			if err := c.Do(ctx, c.B().Rename().Key(key).Newkey(aside).Build()).Error(); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Do(ctx, c.B().Set().Key(key).Value("foreign").Build()).Error(); err != nil {
			t.Fatal(err)
		}
		if part == "ready" || part == "meta" {
			if _, err := q.Send(ctx, text("x")); err == nil || errors.Is(err, queue.ErrFull) {
				t.Errorf("%s: sent: %v", part, err)
			}
		}
		if ds, err := q.Receive(ctx, hour); part != "ready" && (err == nil || len(ds) != 0) {
			t.Errorf("%s: received: %v, %v", part, bodiesOf(ds), err)
		}
		if v, err := c.Do(ctx, c.B().Get().Key(key).Build()).ToString(); err != nil || v != "foreign" {
			t.Errorf("%s: the key was touched: %q, %v", part, v, err)
		}
		if err := c.Do(ctx, c.B().Del().Key(key).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		if part == "meta" {
			if err := c.Do(ctx, c.B().Rename().Key(aside).Newkey(key).Build()).Error(); err != nil {
				t.Fatal(err)
			}
		}
		if part == "ready" {
			send(t, q, text("kept"))
		}
		ack(t, q, receive(t, q, ten, "kept")...)
		empty(t, q)
	}
}

// partitions holds that several of them are one queue.
func partitions(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	for _, fifo := range []bool{false, true} {
		q := New(t, env, queue.Config{FIFO: fifo, Partitions: 5})
		const n, groups = 300, 12
		var batch []queue.Message
		for i := range n {
			m := text(fmt.Sprint(i))
			if fifo {
				m.Group = fmt.Sprint("g", i%groups)
			}
			batch = append(batch, m)
		}
		if _, err := q.SendBatch(ctx, batch); err != nil {
			t.Fatal(err)
		}
		seen, last := map[string]bool{}, map[string]int{}
		until(t, "all are received", func() bool {
			ds, err := q.Receive(ctx, queue.ReceiveOptions{Max: 7, Visibility: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range ds {
				var i int
				if _, err := fmt.Sscan(string(d.Body), &i); err != nil || seen[d.ID] || fifo && i < last[d.Group] {
					t.Fatalf("group %q: %s after %d, %v", d.Group, d.Body, last[d.Group], err)
				}
				seen[d.ID], last[d.Group] = true, i
			}
			ack(t, q, ds...)
			return len(seen) == n
		})
		receive(t, q, ten)
		empty(t, q)
		// A deduplication id is found again wherever it is.
		for range 3 {
			m := queue.Message{Body: []byte("d"), DedupID: "d"}
			if fifo {
				m.Group = "g"
			}
			send(t, q, m)
		}
		ack(t, q, receive(t, q, ten, "d")...)
		receive(t, q, ten)
	}
}

// crowd lets many send, receive and acknowledge at the same time, through two queues of the same name: every message
// comes once.
func crowd(t *testing.T, env valkeytest.Env) {
	for _, cfg := range []queue.Config{{}, {FIFO: true, Partitions: 2}} {
		cfg.Prefix = valkeytest.Prefix(t)
		queues := []*queue.Queue{New(t, env, cfg), New(t, env, cfg)}
		const senders, each = 16, 40
		ctx, done := context.WithCancel(t.Context())
		var all, work sync.WaitGroup
		var mu sync.Mutex
		seen, last := map[string]int{}, map[string]int{}
		for i := range 12 {
			q := queues[i%2]
			all.Go(func() {
				for {
					ds, err := q.Receive(ctx, queue.ReceiveOptions{Max: 1 + i%3, Wait: long, Visibility: time.Hour})
					if err != nil {
						if ctx.Err() == nil {
							t.Error(err)
						}
						return
					}
					for _, d := range ds {
						var sender, n int
						_, _ = fmt.Sscan(string(d.Body), &sender, &n)
						mu.Lock()
						seen[d.ID]++
						if cfg.FIFO && n != last[d.Group]+1 {
							t.Errorf("group %s: %d after %d", d.Group, n, last[d.Group])
						}
						last[d.Group] = n
						complete := len(seen) == senders*each
						mu.Unlock()
						if err := q.Ack(context.WithoutCancel(ctx), d.Receipt); err != nil {
							t.Error(err)
						}
						if complete {
							done()
						}
					}
				}
			})
		}
		for i := range senders {
			work.Go(func() {
				for n := range each {
					if _, err := queues[i%2].Send(ctx, grouped(fmt.Sprint("s", i), fmt.Sprint(i, n+1))); err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				}
			})
		}
		work.Wait()
		hang := time.AfterFunc(long, done)
		all.Wait()
		hang.Stop()
		if len(seen) != senders*each {
			t.Errorf("%d of %d messages came", len(seen), senders*each)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s came %d times", id, n)
			}
		}
		until(t, "all are acknowledged", func() bool {
			s, err := queues[0].Stats(t.Context())
			return err == nil && s.InFlight == 0
		})
		empty(t, queues[1])
	}
}

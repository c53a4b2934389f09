package queuetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

func order(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{FIFO: true})
	var last uint64
	for i := range 30 {
		sent := send(t, q, grouped(fmt.Sprintf("g %d", i%3), fmt.Sprint(i)))
		if sent.Sequence <= last {
			t.Fatalf("sequence %d after %d", sent.Sequence, last)
		}
		last = sent.Sequence
	}
	next := map[string]int{}
	for range 30 {
		ds, err := q.Receive(t.Context(), hour)
		if err != nil || len(ds) != 1 {
			t.Fatal(len(ds), err)
		}
		d := ds[0]
		if want := fmt.Sprint(3*next[d.Group] + int(d.Group[2]-'0')); string(d.Body) != want || d.Sequence == 0 {
			t.Fatalf("group %s: %s, want %s", d.Group, d.Body, want)
		}
		next[d.Group]++
		ack(t, q, d)
	}
	empty(t, q)
}

// orderOfBatches lets many send batches at the same time: each of them stays in order.
func orderOfBatches(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{FIFO: true})
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			var last uint64
			for range 10 {
				batch := make([]queue.Message, 10)
				for j := range batch {
					batch[j] = grouped(fmt.Sprint(i), "x")
				}
				sent, err := q.SendBatch(t.Context(), batch)
				if err != nil {
					t.Error(err)
					return
				}
				for _, s := range sent {
					if s.Sequence <= last {
						t.Errorf("group %d: sequence %d after %d", i, s.Sequence, last)
					}
					last = s.Sequence
				}
			}
		})
	}
	all.Wait()
}

func groupBlocks(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{FIFO: true})
	for _, body := range []string{"a1", "b1", "a2", "a3", "b2"} {
		send(t, q, grouped(body[:1], body))
	}
	// One receive prefers one group.
	a := receive(t, q, queue.ReceiveOptions{Max: 2, Visibility: time.Hour}, "a1", "a2")
	b := receive(t, q, queue.ReceiveOptions{Max: 10, Visibility: time.Hour}, "b1", "b2")
	send(t, q, grouped("a", "a4"))
	receive(t, q, ten)
	ack(t, q, a[0])
	receive(t, q, ten)
	ack(t, q, a[1])
	a = receive(t, q, ten, "a3", "a4")
	send(t, q, grouped("c", "c1"))
	ack(t, q, receive(t, q, ten, "c1")...)
	ack(t, q, b...)
	ack(t, q, a...)
	empty(t, q)
}

// groupAgain lets messages come again: in order, and before those that were never received.
func groupAgain(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	q := New(t, env, queue.Config{FIFO: true})
	for i := range 6 {
		send(t, q, grouped("g", fmt.Sprint(i)))
	}
	ds := receive(t, q, queue.ReceiveOptions{Max: 4, Visibility: short}, "0", "1", "2", "3")
	ack(t, q, ds[1])
	env.Advance(short + time.Millisecond)
	ds = receive(t, q, queue.ReceiveOptions{Max: 2, Visibility: time.Hour}, "0", "2")
	receive(t, q, ten)
	if err := q.Nack(ctx, ds[0].Receipt, 0, ""); err != nil {
		t.Fatal(err)
	}
	receive(t, q, ten) // the other one is in flight
	ack(t, q, ds[1])
	ds = receive(t, q, ten, "0", "3", "4", "5")
	if ds[0].Receives != 3 || ds[1].Receives != 2 || ds[2].Receives != 1 {
		t.Errorf("receives: %d %d %d", ds[0].Receives, ds[1].Receives, ds[2].Receives)
	}
	// What was received again, but not yet by anybody else, can still be acknowledged.
	for i, d := range ds {
		if i == 3 {
			if err := q.Extend(ctx, d.Receipt, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	ack(t, q, ds[3], ds[0], ds[2])
	receive(t, q, ten)
	send(t, q, grouped("g", "6"))
	ack(t, q, ds[1])
	ack(t, q, receive(t, q, ten, "6")...)
	empty(t, q)
}

func attempt(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{FIFO: true})
	for _, body := range []string{"a1", "a2", "b1"} {
		send(t, q, grouped(body[:1], body))
	}
	try := func(id string) queue.ReceiveOptions {
		return queue.ReceiveOptions{Max: 2, Visibility: time.Hour, Attempt: id}
	}
	first := receive(t, q, try("x y"), "a1", "a2")
	again := receive(t, q, try("x y"), "a1", "a2")
	for i := range first {
		if first[i].Receipt != again[i].Receipt || again[i].Receives != 1 {
			t.Errorf("the same attempt: %+v, then %+v", first[i], again[i])
		}
	}
	receive(t, q, try("other"), "b1")
	ack(t, q, first[0])
	receive(t, q, try("x y")) // something has become of one of them: it is a new attempt
	ack(t, q, first[1])
	empty2 := receive(t, q, try("x y"))
	if len(empty2) != 0 {
		t.Error("an empty queue")
	}
}

func fifoDead(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	q, dead := dying(t, env, queue.Config{FIFO: true, MaxReceives: 2, Visibility: short})
	for i := range 3 {
		send(t, q, grouped("g", fmt.Sprint(i)))
	}
	for range 2 {
		receive(t, q, queue.ReceiveOptions{}, "0")
		env.Advance(short + time.Millisecond)
	}
	d := receive(t, q, hour, "1")[0] // the first one has died, and the group goes on
	if got := arrive(t, dead, 1)[0]; string(got.Body) != "0" || got.Group != "g" {
		t.Errorf("the dead letter: %+v", got)
	}
	if err := q.Reject(ctx, d.Receipt, "no"); err != nil {
		t.Fatal(err)
	}
	if got := arrive(t, dead, 1)[0]; string(got.Body) != "1" || got.Dead.Reason != "no" {
		t.Errorf("the dead letter: %+v", got)
	}
	ack(t, q, receive(t, q, hour, "2")...)
	until(t, "the queue is empty", func() bool {
		s, err := q.Stats(ctx)
		return err == nil && s.Dying == 0
	})
	empty(t, q)
}

func fifoDelay(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{FIFO: true, Delay: 3 * short})
	send(t, q, grouped("g", "0"))
	send(t, q, grouped("g", "1"))
	receive(t, q, ten)
	env.Advance(3*short + time.Millisecond)
	ds := receive(t, q, ten, "0", "1")
	send(t, q, grouped("g", "2"))
	ack(t, q, ds...)
	receive(t, q, ten)
	env.Advance(3*short + time.Millisecond)
	ack(t, q, receive(t, q, ten, "2")...)
	empty(t, q)
}

func dedup(t *testing.T, env valkeytest.Env) {
	for _, fifo := range []bool{false, true} {
		q := New(t, env, queue.Config{FIFO: fifo})
		message := func(id, body string) queue.Message {
			return queue.Message{Body: []byte(body), DedupID: id, Group: map[bool]string{true: "g"}[fifo]}
		}
		first := send(t, q, message("x y", "a"))
		again := send(t, q, message("x y", "b"))
		if !again.Duplicate || again.ID != first.ID || first.Duplicate {
			t.Errorf("fifo %v: %+v after %+v", fifo, again, first)
		}
		sent, err := q.SendBatch(t.Context(), []queue.Message{message("z", "c"), message("z", "d"), message("x%20y", "e")})
		if err != nil || sent[0].Duplicate || !sent[1].Duplicate || sent[1].ID != sent[0].ID || sent[2].Duplicate {
			t.Errorf("fifo %v: a batch: %+v, %v", fifo, sent, err)
		}
		ack(t, q, receive(t, q, ten, "a", "c", "e")...)
		if again := send(t, q, message("z", "f")); !again.Duplicate {
			t.Error("what is acknowledged is forgotten")
		}
		receive(t, q, ten)

		content := New(t, env, queue.Config{FIFO: fifo, DedupByContent: true})
		for _, body := range []string{"a", "b", "a"} {
			send(t, content, message("", body))
		}
		send(t, content, message("own", "a"))
		ack(t, content, receive(t, content, ten, "a", "b", "a")...)
	}
}

func unique(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	for _, fifo := range []bool{false, true} {
		q, dead := dying(t, env, queue.Config{FIFO: fifo})
		message := func(key, body string, d time.Duration) queue.Message {
			return queue.Message{Body: []byte(body), Unique: key, UniqueFor: d, Group: map[bool]string{true: "g"}[fifo]}
		}
		first := send(t, q, message("job 1", "a", 0))
		if again := send(t, q, message("job 1", "b", 0)); !again.Duplicate || again.ID != first.ID {
			t.Errorf("a second one: %+v", again)
		}
		d := receive(t, q, ten, "a")[0]
		if again := send(t, q, message("job 1", "b", 0)); !again.Duplicate {
			t.Error("one in flight is forgotten")
		}
		ack(t, q, d)
		if again := send(t, q, message("job 1", "c", 0)); again.Duplicate {
			t.Error("one that is done is remembered")
		}
		if err := q.Reject(ctx, receive(t, q, ten, "c")[0].Receipt, "x"); err != nil {
			t.Fatal(err)
		}
		arrive(t, dead, 1)
		until(t, "a dead one is forgotten", func() bool {
			sent, err := q.Send(ctx, message("job 1", "d", 0))
			return err == nil && !sent.Duplicate
		})
		ack(t, q, receive(t, q, ten, "d")...)
		send(t, q, message("job 2", "e", short))
		env.Advance(short + time.Millisecond)
		if again := send(t, q, message("job 2", "f", 0)); again.Duplicate {
			t.Error("one is unique for longer than UniqueFor")
		}
		ds := receive(t, q, ten, "e", "f")
		ack(t, q, ds[0]) // which is not the job's any more
		if again := send(t, q, message("job 2", "g", 0)); !again.Duplicate {
			t.Error("the end of an older one was taken for its end")
		}
		ack(t, q, ds[1])
		empty(t, q)
		if err := q.Ack(ctx, ds[1].Receipt); !errors.Is(err, queue.ErrNotHeld) {
			t.Error(err)
		}
	}
}

package queuetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// dying is a queue and its dead letters, on a cluster most likely in another slot.
func dying(t *testing.T, env valkeytest.Env, cfg queue.Config) (q, dead *queue.Queue) {
	t.Helper()
	cfg.Prefix, cfg.DeadLetters = valkeytest.Prefix(t), "q dead"
	return New(t, env, cfg), New(t, env, queue.Config{Prefix: cfg.Prefix, Name: "q dead"})
}

// arrive waits for so many dead letters and receives them.
func arrive(t *testing.T, dead *queue.Queue, n int) []*queue.Delivery {
	t.Helper()
	var all []*queue.Delivery
	until(t, "dead letters", func() bool {
		ds, err := dead.Receive(t.Context(), queue.ReceiveOptions{Max: 100, Visibility: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ds...)
		return len(all) >= n
	})
	if len(all) != n {
		t.Fatalf("%d dead letters, want %d", len(all), n)
	}
	return all
}

func deadLetters(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	q, dead := dying(t, env, queue.Config{MaxReceives: 2, Visibility: short})
	send(t, q, queue.Message{Body: []byte("silent"), Attributes: map[string]string{"k": "v"}})
	for range 2 {
		receive(t, q, queue.ReceiveOptions{}, "silent")
		env.Advance(short + time.Millisecond)
	}
	receive(t, q, queue.ReceiveOptions{})
	d := arrive(t, dead, 1)[0]
	if d.Dead == nil || d.Dead.Queue != "q" || d.Dead.Receives != 2 || d.Dead.Reason != "received 2 times, and never acknowledged" ||
		d.Attributes["k"] != "v" || len(d.Attributes) != 1 || d.Receives != 1 || d.Dead.Sent.After(d.Sent) {
		t.Errorf("the dead letter: %+v of %+v", d.Dead, d)
	}
	sent := send(t, q, text("failing"))
	for i := range 2 {
		d := receive(t, q, hour, "failing")[0]
		if err := q.Nack(ctx, d.Receipt, 0, fmt.Sprintf("attempt %d", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	d = arrive(t, dead, 1)[0]
	if d.ID != sent.ID || d.Dead == nil || d.Dead.Reason != "attempt 2" {
		t.Errorf("the dead letter: %+v of %+v", d.Dead, d)
	}
	until(t, "the queue is empty", func() bool {
		s, err := q.Stats(ctx)
		return err == nil && s.Dying == 0 && s.Bytes == 0
	})
	empty(t, q)
}

func reject(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	q, dead := dying(t, env, queue.Config{})
	const n = 150 // more than are moved at a time
	for i := range n {
		send(t, q, text(fmt.Sprint(i)))
	}
	ds, err := q.Receive(ctx, queue.ReceiveOptions{Max: n, Visibility: time.Hour})
	if err != nil || len(ds) != n {
		t.Fatal(len(ds), err)
	}
	for i, d := range ds {
		if err := q.Reject(ctx, d.Receipt, strings.Repeat("é", 300*i)); err != nil { // cut to 1,024 bytes
			t.Fatal(err)
		}
		if err := q.Ack(ctx, d.Receipt); !errors.Is(err, queue.ErrNotHeld) {
			t.Fatalf("ack of what was rejected: %v", err)
		}
	}
	seen := map[string]bool{}
	for _, d := range arrive(t, dead, n) {
		if seen[d.ID] || d.Dead == nil || len(d.Dead.Reason) > 1024 {
			t.Errorf("dead letter %s: %+v", d.Body, d.Dead)
		}
		seen[d.ID] = true
	}
	until(t, "the queue is empty", func() bool {
		s, err := q.Stats(ctx)
		return err == nil && s.Dying == 0
	})
	empty(t, q)

	alone := New(t, env, queue.Config{})
	send(t, alone, text("a"))
	d := receive(t, alone, hour, "a")[0]
	if err := alone.Reject(ctx, d.Receipt, "x"); !errors.Is(err, queue.ErrNoDeadLetters) {
		t.Errorf("reject without dead letters: %v", err)
	}
	ack(t, alone, d)
}

func redrive(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	q, dead := dying(t, env, queue.Config{})
	const n = 100
	ids := map[string]bool{}
	kill := func(want int) {
		t.Helper()
		ds, err := q.Receive(ctx, queue.ReceiveOptions{Max: n, Visibility: time.Hour})
		if err != nil || len(ds) != want {
			t.Fatal(len(ds), err)
		}
		for _, d := range ds {
			ids[d.ID] = true
			if err := q.Reject(ctx, d.Receipt, "x"); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "all are dead", func() bool {
			s, err := dead.Stats(ctx)
			return err == nil && s.Visible == int64(want)
		})
	}
	for i := range n {
		send(t, q, text(fmt.Sprint(i)))
	}
	for range 3 { // the same messages die again and again
		kill(n)
		if moved, err := dead.Redrive(ctx, queue.RedriveOptions{Max: 30}); err != nil || moved != 30 {
			t.Fatalf("moved %d, %v", moved, err)
		}
		progress := 0
		if moved, err := dead.Redrive(ctx, queue.RedriveOptions{Progress: func(n int) { progress = n }}); err != nil || moved != n-30 || progress != moved {
			t.Fatalf("moved %d, progress %d, %v", moved, progress, err)
		}
		empty(t, dead)
	}
	kill(n)
	if len(ids) != n {
		t.Errorf("%d ids", len(ids))
	}
	// Cancelled after the first batch of a slow one: the rest stays.
	slow, cancel := context.WithCancel(ctx)
	moved, err := dead.Redrive(slow, queue.RedriveOptions{PerSecond: 20, Progress: func(int) { cancel() }})
	cancel()
	if !errors.Is(err, context.Canceled) || moved != 2 {
		t.Fatalf("moved %d, %v", moved, err)
	}
	other := New(t, env, queue.Config{Prefix: prefixOf(q), Name: "other"})
	if err := other.Open(ctx); err != nil {
		t.Fatal(err)
	}
	if moved, err := dead.Redrive(ctx, queue.RedriveOptions{To: "other"}); err != nil || moved != n-2 {
		t.Fatalf("moved %d, %v", moved, err)
	}
	for queue, want := range map[*queue.Queue]int64{q: 2, dead: 0, other: n - 2} {
		if s, err := queue.Stats(ctx); err != nil || s.Visible != want || s.InFlight != 0 {
			t.Errorf("%s: %+v, %v, want %d", queue.Name(), s, err, want)
		}
	}
	if _, err := dead.Redrive(ctx, queue.RedriveOptions{To: dead.Name()}); err == nil {
		t.Error("a queue was moved to itself")
	}
	// What never died does not know where to go.
	send(t, dead, text("a stranger"))
	if moved, err := dead.Redrive(ctx, queue.RedriveOptions{}); err == nil || moved != 0 {
		t.Errorf("moved %d, %v", moved, err)
	}
}

// unreadable holds that dead messages which nobody can read, more of them than are moved at a time, hold up none of the others, and
// stay.
func unreadable(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	prefix := valkeytest.Prefix(t)
	q := New(t, env, queue.Config{Prefix: prefix, DeadLetters: "q dead"})
	send(t, q, text("readable"))
	base := prefix + ":queue:{q:0}:"
	const many = 130
	for i := range many {
		id := fmt.Sprintf("%022d", i)
		for _, args := range [][]string{
			{"HSET", base + "msg", id, "what is this?"},
			{"ZADD", base + "dead", "1", id + ":1:1790000000000:13:-abcdefghijklmnopqrst:"},
			{"HINCRBY", base + "meta", "n", "1"},
		} {
			if err := do(t, env, args...).Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := receive(t, q, hour, "readable")[0]
	if err := q.Reject(ctx, d.Receipt, "no"); err != nil {
		t.Fatal(err)
	}
	arrive(t, New(t, env, queue.Config{Prefix: prefix, Name: "q dead"}), 1)
	until(t, "the rest", func() bool {
		s, err := q.Stats(ctx)
		return err == nil && s.Dying == many
	})
}

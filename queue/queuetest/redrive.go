package queuetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// redrivePartly moves messages to a queue that has room for some: those are moved, and the others are not.
func redrivePartly(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	for _, cfg := range []queue.Config{{}, {Partitions: 3}, {FIFO: true}} {
		cfg.Prefix = valkeytest.Prefix(t)
		source := New(t, env, cfg)
		target := func(name string, most int64) *queue.Queue {
			q := New(t, env, queue.Config{Prefix: cfg.Prefix, Name: name, MaxMessages: most})
			if err := q.Open(ctx); err != nil {
				t.Fatal(err)
			}
			return q
		}
		full, free := target("full", 3), target("free", 0)
		const n = 10
		for i := range n {
			send(t, source, grouped(fmt.Sprint("g", i%2), fmt.Sprint(i)))
		}
		for _, step := range []struct {
			to   *queue.Queue
			want int
			err  error
			left int64
		}{{full, 3, queue.ErrFull, 7}, {full, 0, queue.ErrFull, 7}, {free, 7, nil, 0}} {
			told := 0
			moved, err := source.Redrive(ctx, queue.RedriveOptions{To: step.to.Name(), Progress: func(n int) { told = n }})
			if !errors.Is(err, step.err) || moved != step.want || told != moved {
				t.Errorf("%+v to %s: moved %d, want %d; told %d; %v", cfg, step.to.Name(), moved, step.want, told, err)
			}
			if s, err := source.Stats(ctx); err != nil || s.Visible != step.left || s.InFlight != 0 || s.Acked != n-step.left {
				t.Errorf("%+v after %s: %+v, %v, want %d", cfg, step.to.Name(), s, err, step.left)
			}
		}
		empty(t, source)
		seen := map[string]int{}
		for _, q := range []*queue.Queue{full, free} {
			ds, err := q.Receive(ctx, queue.ReceiveOptions{Max: 100, Visibility: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range ds {
				seen[string(d.Body)]++
			}
		}
		for i := range n {
			if seen[fmt.Sprint(i)] != 1 {
				t.Errorf("%+v: %d is there %d times", cfg, i, seen[fmt.Sprint(i)])
			}
		}
	}
}

// deadPartly lets more die than the dead-letter queue has room for: those that it has have left the queue.
func deadPartly(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	q, dead := dying(t, env, queue.Config{})
	small := New(t, env, queue.Config{Prefix: prefixOf(q), Name: dead.Name(), MaxMessages: 2})
	if err := small.Open(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		send(t, q, text(fmt.Sprint(i)))
	}
	ds, err := q.Receive(ctx, ten)
	if err != nil || len(ds) != 5 {
		t.Fatal(len(ds), err)
	}
	for _, d := range ds {
		if err := q.Reject(ctx, d.Receipt, "x"); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "two have moved", func() bool {
		s, err := q.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s.Dying == 3
	})
	if s, err := dead.Stats(ctx); err != nil || s.Visible != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	roomy := New(t, env, queue.Config{Prefix: prefixOf(q), Name: dead.Name(), MaxMessages: queue.NoLimit})
	if err := roomy.Open(ctx); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, d := range arrive(t, dead, 5) {
		seen[string(d.Body)] = true
	}
	if len(seen) != 5 {
		t.Errorf("dead letters: %v", seen)
	}
}

package queuetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// fair holds that a group with many messages does not hold up the others.
func fair(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{})
	for i := range 30 {
		send(t, q, grouped("big", fmt.Sprint("big", i)))
	}
	send(t, q, text("none0"))
	send(t, q, text("none1"))
	for _, group := range []string{"x", "y"} {
		for i := range 2 {
			send(t, q, grouped(group, fmt.Sprint(group, i)))
		}
	}
	var got []string
	for range 8 {
		ds, err := q.Receive(t.Context(), hour)
		if err != nil || len(ds) != 1 {
			t.Fatal(len(ds), err)
		}
		got = append(got, string(ds[0].Body))
		ack(t, q, ds...)
	}
	slices.Sort(got)
	if strings.Join(got, " ") != "big0 big1 none0 none1 x0 x1 y0 y1" {
		t.Errorf("the first eight: %v", got)
	}
	ds, err := q.Receive(t.Context(), queue.ReceiveOptions{Max: 100, Visibility: time.Hour})
	if err != nil || len(ds) != 28 || string(ds[0].Body) != "big2" || string(ds[27].Body) != "big29" {
		t.Errorf("the rest: %v, %v", bodiesOf(ds), err)
	}
	ack(t, q, ds...)
	empty(t, q)
}

func inFlightLimits(t *testing.T, env valkeytest.Env) {
	for _, fifo := range []bool{false, true} {
		q := New(t, env, queue.Config{FIFO: fifo, MaxInFlight: 2})
		for i := range 4 {
			send(t, q, grouped(fmt.Sprint(i), fmt.Sprint(i)))
		}
		ds := receive(t, q, queue.ReceiveOptions{Max: 10, Visibility: short}, "0", "1")
		receive(t, q, ten)
		ack(t, q, ds[0])
		one := receive(t, q, ten, "2")
		env.Advance(short + time.Millisecond)
		again := receive(t, q, ten, "1") // it has a place already
		ack(t, q, again[0], one[0])
		ack(t, q, receive(t, q, ten, "3")...)
		empty(t, q)
	}
	cfg := queue.Config{Prefix: valkeytest.Prefix(t), MaxInFlightPerGroup: 2}
	q := New(t, env, cfg)
	for _, body := range []string{"a0", "a1", "a2", "a3", "b0"} {
		send(t, q, grouped(body[:1], body))
	}
	send(t, q, text("c0"))
	ds, err := q.Receive(t.Context(), ten)
	got := bodiesOf(ds)
	slices.Sort(got)
	if err != nil || strings.Join(got, " ") != "a0 a1 b0 c0" {
		t.Fatalf("%v, %v", got, err)
	}
	receive(t, q, ten)
	for _, d := range ds {
		if string(d.Body) == "a1" {
			ack(t, q, d)
		}
	}
	receive(t, q, ten, "a2")
	// Without the limit, what it stopped goes on.
	cfg.MaxInFlightPerGroup = queue.NoLimit
	if err := New(t, env, cfg).Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	receive(t, q, ten, "a3")
}

func rates(t *testing.T, env valkeytest.Env) {
	for _, fifo := range []bool{false, true} {
		cfg := queue.Config{Prefix: valkeytest.Prefix(t), FIFO: fifo, Rate: queue.Rate{Limit: 3, Per: time.Hour}}
		q := New(t, env, cfg)
		for i := range 5 {
			send(t, q, grouped(fmt.Sprint(i), fmt.Sprint(i)))
		}
		receive(t, q, queue.ReceiveOptions{Max: 2, Visibility: time.Hour}, "0", "1")
		receive(t, q, ten, "2")
		receive(t, q, ten)
		cfg.Rate = queue.Rate{Limit: queue.NoLimit}
		if err := New(t, env, cfg).Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		receive(t, q, ten, "3", "4")
	}
	q := New(t, env, queue.Config{GroupRate: queue.Rate{Limit: 2, Per: 10 * short}})
	for _, body := range []string{"a0", "a1", "a2", "b0"} {
		send(t, q, grouped(body[:1], body))
	}
	ds, err := q.Receive(t.Context(), ten)
	got := bodiesOf(ds)
	slices.Sort(got)
	if err != nil || strings.Join(got, " ") != "a0 a1 b0" {
		t.Fatalf("%v, %v", got, err)
	}
	env.Advance(5*short + 5*time.Millisecond)
	receive(t, q, ten, "a2")
	fifo := New(t, env, queue.Config{FIFO: true, GroupRate: queue.Rate{Limit: 2, Per: 10 * short}})
	for _, body := range []string{"a0", "a1", "a2"} {
		send(t, fifo, grouped("a", body))
	}
	ack(t, fifo, receive(t, fifo, ten, "a0", "a1")...)
	env.Advance(5*short + 5*time.Millisecond)
	ack(t, fifo, receive(t, fifo, ten, "a2")...)
	empty(t, fifo)
}

func quotas(t *testing.T, env valkeytest.Env) {
	for _, fifo := range []bool{false, true} {
		q := New(t, env, queue.Config{FIFO: fifo, MaxMessages: 3})
		var batch []queue.Message
		for i := range 5 {
			batch = append(batch, grouped("g", fmt.Sprint(i)))
		}
		sent, err := q.SendBatch(t.Context(), batch)
		if !errors.Is(err, queue.ErrFull) {
			t.Fatal(err)
		}
		for i, s := range sent {
			if full := errors.Is(s.Err, queue.ErrFull); full != (i >= 3) || full != (s.ID == "") {
				t.Errorf("message %d: %+v", i, s)
			}
		}
		if _, err := q.Send(t.Context(), grouped("h", "x")); !errors.Is(err, queue.ErrFull) {
			t.Errorf("a full queue: %v", err)
		}
		ds := receive(t, q, ten, "0", "1", "2")
		if _, err := q.Send(t.Context(), grouped("h", "x")); !errors.Is(err, queue.ErrFull) {
			t.Errorf("a queue full of messages in flight: %v", err)
		}
		ack(t, q, ds[0])
		send(t, q, grouped("h", "x"))
	}
	q := New(t, env, queue.Config{MaxBytes: 1000})
	send(t, q, queue.Message{Body: make([]byte, 500)})
	if _, err := q.Send(t.Context(), queue.Message{Body: make([]byte, 500)}); !errors.Is(err, queue.ErrFull) {
		t.Errorf("a queue full of bytes: %v", err)
	}
	send(t, q, queue.Message{Body: make([]byte, 300)})
}

func retention(t *testing.T, env valkeytest.Env) {
	const keep = time.Second
	for _, fifo := range []bool{false, true} {
		q := New(t, env, queue.Config{FIFO: fifo, Retention: keep})
		for i := range 3 {
			send(t, q, grouped("g", fmt.Sprint(i)))
		}
		if !fifo {
			send(t, q, text("3"))
		}
		ds, err := q.Receive(t.Context(), queue.ReceiveOptions{Max: 1, Visibility: short})
		if err != nil || len(ds) != 1 {
			t.Fatal(err)
		}
		env.Advance(keep + 10*time.Millisecond)
		send(t, q, grouped("g", "new"))
		ack(t, q, receive(t, q, ten, "new")...)
		receive(t, q, ten)
		empty(t, q)
		if s, err := q.Stats(t.Context()); err != nil || s.Expired != map[bool]int64{false: 4, true: 3}[fifo] {
			t.Errorf("fifo %v: %+v, %v", fifo, s, err)
		}
	}
}

func settings(t *testing.T, env valkeytest.Env) {
	ctx, prefix := t.Context(), valkeytest.Prefix(t)
	open := func(cfg queue.Config) error {
		cfg.Prefix = prefix
		return New(t, env, cfg).Open(ctx)
	}
	for what, test := range map[string]struct {
		made, then queue.Config
		refused    string
	}{
		"the same":            {queue.Config{Partitions: 3, FIFO: true}, queue.Config{Partitions: 3, FIFO: true}, ""},
		"as it is":            {queue.Config{Partitions: 3, FIFO: true}, queue.Config{}, ""},
		"another number":      {queue.Config{Partitions: 3}, queue.Config{Partitions: 4}, "Partitions"},
		"FIFO":                {queue.Config{}, queue.Config{FIFO: true}, "FIFO"},
		"receives, no letter": {queue.Config{}, queue.Config{MaxReceives: 3}, "MaxReceives"},
		"delay, retention":    {queue.Config{}, queue.Config{Delay: time.Minute, Retention: time.Minute}, "Config.Delay"},
		"delay of a week":     {queue.Config{}, queue.Config{Delay: 7 * 24 * time.Hour}, "Config.Delay"},
		"a short retention":   {queue.Config{Delay: time.Hour}, queue.Config{Retention: time.Minute}, "Config.Retention"},
		"a long retention":    {queue.Config{}, queue.Config{Delay: 7 * 24 * time.Hour, Retention: 8 * 24 * time.Hour}, ""},
		"receives":            {queue.Config{DeadLetters: "d"}, queue.Config{MaxReceives: 3}, ""},
	} {
		test.made.Name, test.then.Name = what, what
		if err := open(test.made); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		err := open(test.then)
		if (err == nil) != (test.refused == "") || err != nil && !strings.Contains(err.Error(), test.refused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A setting outlives who does not mention it.
	if err := open(queue.Config{Name: "s", MaxMessages: 1}); err != nil {
		t.Fatal(err)
	}
	q := New(t, env, queue.Config{Prefix: prefix, Name: "s"})
	send(t, q, text("a"))
	if _, err := q.Send(ctx, text("b")); !errors.Is(err, queue.ErrFull) {
		t.Errorf("the quota is gone: %v", err)
	}
	if err := open(queue.Config{Name: "s", MaxMessages: queue.NoLimit}); err != nil {
		t.Fatal(err)
	}
	send(t, q, text("b"))
}

// tooLate delays messages for longer than they live: that is refused, and they are not dropped.
func tooLate(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	q := New(t, env, queue.Config{Retention: time.Hour})
	all, err := q.SendBatch(ctx, []queue.Message{text("a"), {Delay: time.Hour}, {Delay: 2 * time.Hour}, {Delay: time.Hour - time.Millisecond}})
	if err == nil || !strings.Contains(err.Error(), "Message.Delay") {
		t.Errorf("%v", err)
	}
	for i, one := range all {
		if (one.Err != nil) != (i == 1 || i == 2) {
			t.Errorf("message %d: %v", i, one.Err)
		}
	}
	d := receive(t, q, hour, "a")[0]
	if err := q.Nack(ctx, d.Receipt, time.Hour, "x"); err == nil || !strings.Contains(err.Error(), "Retention") {
		t.Errorf("nack: %v", err)
	}
	if err := q.Nack(ctx, d.Receipt, time.Minute, "x"); err != nil {
		t.Error(err)
	}
	receive(t, q, ten)
	if s, err := q.Stats(ctx); err != nil || s.InFlight != 1 || s.Delayed != 1 || s.Expired != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

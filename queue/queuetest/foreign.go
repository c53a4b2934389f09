package queuetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// do runs a command, and fails the test if the server refuses it.
func do(t *testing.T, env valkeytest.Env, args ...string) valkey.ValkeyResult {
	t.Helper()
	r := env.Client.Do(t.Context(), env.Client.B().Arbitrary(args[0]).Keys(args[1]).Args(args[2:]...).Build())
	if err := r.Error(); err != nil && !valkey.IsValkeyNil(err) {
		t.Fatalf("%v: %v", args, err)
	}
	return r
}

// drift puts counts wrong: no call takes them for a queue that is gone, and they are right again when the queue is empty.
func drift(t *testing.T, env valkeytest.Env) {
	for _, fifo := range []bool{false, true} {
		for _, count := range []string{"-3", "-2", "-1", "0", "2", "9"} {
			prefix := valkeytest.Prefix(t)
			q := New(t, env, queue.Config{Prefix: prefix, FIFO: fifo})
			for _, body := range []string{"a", "b", "c"} {
				send(t, q, grouped("g", body))
			}
			meta := prefix + ":queue:{q:0}:meta"
			do(t, env, "HSET", meta, "n", count, "size", count)
			if _, err := q.Stats(t.Context()); err != nil {
				t.Errorf("fifo %v, %s: stats: %v", fifo, count, err)
			}
			ds := receive(t, q, hour, "a")
			send(t, q, grouped("g", "d"))
			if fifo {
				ack(t, q, ds...)
				ds = nil
			}
			ds = append(ds, receive(t, q, ten, "b", "c", "d")...)
			do(t, env, "HSET", meta, "n", count, "size", count)
			receive(t, q, ten)
			ack(t, q, ds...)
			receive(t, q, ten)
			empty(t, q)
			if n, err := do(t, env, "HGET", meta, "n").AsInt64(); err != nil || n != 0 {
				t.Errorf("fifo %v, %s: %d messages of none, %v", fifo, count, n, err)
			}
		}
	}
}

const soon = 10 * time.Millisecond

// parts are all keys of a partition that its scripts change.
var parts = []string{
	"meta", "ready", "g:g", "groups", "heads", "locked", "held", "msg", "flight", "delay", "dead", "why", "moved", "dedup", "dedupq", "unique", "cron",
	"tries", "triesq", "rates", "wait",
}

// displace puts a key of another type in the place of one; the func puts back what was there.
func displace(t *testing.T, env valkeytest.Env, prefix, part string) (repair func()) {
	t.Helper()
	key, aside := prefix+":queue:{q:0}:"+part, prefix+":aside:{q:0}"
	there, err := do(t, env, "EXISTS", key).AsInt64()
	if err != nil {
		t.Fatal(err)
	}
	if there == 1 {
		do(t, env, "RENAME", key, aside)
	}
	do(t, env, "SET", key, "foreign")
	return func() {
		t.Helper()
		if v, err := do(t, env, "GET", key).ToString(); err != nil || v != "foreign" {
			t.Errorf("%s: the key was touched: %q, %v", part, v, err)
		}
		do(t, env, "DEL", key)
		if there == 1 {
			do(t, env, "RENAME", aside, key)
		}
	}
}

// drain acknowledges all that a queue has, each message of which was sent, and no other; and nothing is left.
func drain(t *testing.T, env valkeytest.Env, q *queue.Queue, prefix string, sent map[string]bool) {
	t.Helper()
	env.Advance(soon + time.Millisecond)
	waits := 0
	for range 100 {
		ds, err := q.Receive(t.Context(), ten)
		if err != nil {
			t.Fatalf("drain: %v", err)
		}
		if len(ds) == 0 {
			if waits++; len(sent) == 0 || waits > 2 {
				break
			}
			env.Advance(short + time.Millisecond) // what has no place yet is tried again
			continue
		}
		for _, d := range ds {
			if !sent[string(d.Body)] {
				t.Errorf("%s came, and was not sent, or came before", d.Body)
			}
			delete(sent, string(d.Body))
		}
		ack(t, q, ds...)
	}
	if len(sent) > 0 {
		t.Errorf("did not come: %v", sent)
	}
	empty(t, q)
	if n, err := do(t, env, "HGET", prefix+":queue:{q:0}:meta", "n").AsInt64(); err != nil && !valkey.IsValkeyNil(err) || n != 0 {
		t.Errorf("%d messages of none, %v", n, err)
	}
}

// foreignSend sends to a queue in which a key of another type lies in each place: of a batch, what is reported as sent is there when
// that is repaired, and nothing else.
func foreignSend(t *testing.T, env valkeytest.Env) {
	for _, fifo := range []bool{false, true} {
		for _, part := range parts {
			t.Run(fmt.Sprintf("%s fifo %v", part, fifo), func(t *testing.T) {
				t.Parallel()
				prefix := valkeytest.Prefix(t)
				q := New(t, env, queue.Config{Prefix: prefix, FIFO: fifo})
				sent := map[string]bool{}
				for i, group := range []string{"g", "h"} {
					body := fmt.Sprint("before ", i)
					send(t, q, queue.Message{Group: group, Body: []byte(body), DedupID: body, Unique: body})
					sent[body] = true
				}
				batch := []queue.Message{
					{Group: "new"}, {Group: "g"}, {Group: "h", DedupID: "d"}, {Group: "i", Unique: "u"}, {Group: "g"},
				}
				if !fifo {
					batch = append(batch, queue.Message{}, queue.Message{Delay: soon}, queue.Message{Delay: soon, Group: "g"}, queue.Message{Unique: "v", UniqueFor: time.Hour}, queue.Message{})
				}
				for i := range batch {
					batch[i].Body = fmt.Append(nil, i)
				}
				repair := displace(t, env, prefix, part)
				for i := range 3 {
					results, err := q.SendBatch(t.Context(), batch)
					for j, one := range results {
						if one.Err == nil && !one.Duplicate {
							sent[string(batch[j].Body)] = true
						}
						if one.Err != nil && err == nil {
							t.Errorf("an error that nobody is told: %v", one.Err)
						}
						batch[j].Body = fmt.Appendf(nil, "%d %d", i, j)
						batch[j].DedupID, batch[j].Unique, batch[j].UniqueFor = "", "", 0
					}
				}
				repair()
				drain(t, env, q, prefix, sent)
			})
		}
	}
}

// foreignReceive receives from a queue in which a key of another type lies in each place, and settles: when that is repaired, all that
// was not acknowledged comes, and nothing else.
func foreignReceive(t *testing.T, env valkeytest.Env) {
	many := queue.Rate{Limit: 1e9, Per: time.Second}
	for name, cfg := range map[string]queue.Config{
		"standard": {}, "FIFO": {FIFO: true},
		"standard with limits": {MaxInFlightPerGroup: 3, MaxInFlight: 100, GroupRate: many, Rate: many},
		"FIFO with limits":     {FIFO: true, MaxInFlight: 100, GroupRate: many, Rate: many},
	} {
		for _, part := range parts {
			if cfg.MaxInFlight > 0 && !slices.Contains([]string{"g:g", "groups", "heads", "locked", "held", "rates"}, part) {
				continue
			}
			t.Run(part+" "+name, func(t *testing.T) {
				t.Parallel()
				foreignOne(t, env, cfg, part)
			})
		}
	}
}

// varied fills a queue with messages that wait, are delayed, come again, and are held by two receipts.
func varied(t *testing.T, env valkeytest.Env, q *queue.Queue, fifo bool) (sent map[string]bool, held []*queue.Delivery) {
	sent = map[string]bool{}
	put := func(m queue.Message) {
		m.Body = fmt.Append(nil, len(sent))
		send(t, q, m)
		sent[string(m.Body)] = true
	}
	put(queue.Message{Group: "a"})
	put(queue.Message{Group: "b"})
	held = receive(t, q, queue.ReceiveOptions{Max: 2, Visibility: time.Hour}, "0", "1")
	put(queue.Message{Group: "c"})
	put(queue.Message{Group: "g"})
	receive(t, q, queue.ReceiveOptions{Max: 2, Visibility: soon}, "2", "3") // they come again
	for range 3 {
		put(queue.Message{Group: "g", Unique: fmt.Sprint(len(sent))})
	}
	put(queue.Message{Group: "h"})
	put(queue.Message{Group: "b"})
	if !fifo {
		put(queue.Message{})
		put(queue.Message{Delay: soon})
		put(queue.Message{Delay: soon, Group: "g"})
	}
	env.Advance(soon + time.Millisecond)
	return sent, held
}

func foreignOne(t *testing.T, env valkeytest.Env, cfg queue.Config, part string) {
	ctx := t.Context()
	cfg.Prefix, cfg.DeadLetters, cfg.MaxReceives = valkeytest.Prefix(t), "dead", 1000
	q := New(t, env, cfg)
	sent, held := varied(t, env, q, cfg.FIFO)
	brief := queue.ReceiveOptions{Max: 3, Visibility: soon}
	repair := displace(t, env, cfg.Prefix, part)
	acked := func(ds ...*queue.Delivery) {
		for _, d := range ds {
			if q.Ack(ctx, d.Receipt) == nil {
				delete(sent, string(d.Body))
			}
		}
	}
	for i := range 3 {
		o := brief
		if cfg.FIFO && i%2 == 1 {
			o.Attempt = fmt.Sprint("try ", i)
		}
		ds, err := q.Receive(ctx, o)
		if err != nil && len(ds) > 0 {
			t.Errorf("%d messages, and %v", len(ds), err)
		}
		for j, d := range ds {
			if !sent[string(d.Body)] {
				t.Errorf("%s came, and was acknowledged", d.Body)
			}
			if j == 1 {
				_ = q.Nack(ctx, d.Receipt, soon, "why")
			} else {
				acked(d)
			}
		}
		if i == 1 {
			acked(held[0])
		}
		env.Advance(soon + time.Millisecond)
	}
	if err := q.Reject(ctx, held[1].Receipt, "no"); err == nil {
		delete(sent, string(held[1].Body)) // it goes elsewhere
	} else {
		_ = q.Extend(ctx, held[1].Receipt, soon)
	}
	_, _ = q.Stats(ctx)
	repair()
	for _, d := range held {
		_ = q.Extend(ctx, d.Receipt, soon)
	}
	until(t, "dead letters leave", func() bool {
		s, err := q.Stats(ctx)
		if s.Dying > 0 {
			_, _ = q.Receive(ctx, queue.ReceiveOptions{Max: 1, Visibility: soon}) // which has them moved
		}
		return err == nil && s.Dying == 0
	})
	drain(t, env, q, cfg.Prefix, sent)
}

// madeAnew deletes a queue that a process has open, and makes it as another one: the process notices at once.
func madeAnew(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	kinds := []queue.Config{{}, {FIFO: true}, {Partitions: 3}, {Partitions: 2, FIFO: true}, {Partitions: 5, FIFO: true}}
	for _, old := range kinds {
		for _, now := range kinds {
			prefix := valkeytest.Prefix(t)
			old.Prefix, now.Prefix = prefix, prefix
			sender, receiver, other := New(t, env, queue.Config{Prefix: prefix}), New(t, env, queue.Config{Prefix: prefix}), New(t, env, old)
			for _, q := range []*queue.Queue{other, sender, receiver} {
				if err := q.Open(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if err := other.Delete(ctx); err != nil {
				t.Fatal(err)
			}
			maker := New(t, env, now)
			if err := maker.Open(ctx); err != nil {
				t.Fatal(err)
			}
			sent := map[string]bool{}
			var batch []queue.Message
			for i := range 12 {
				body := fmt.Sprint(i)
				batch, sent[body] = append(batch, grouped(fmt.Sprint("g", i%3), body)), true
			}
			all, err := sender.SendBatch(ctx, batch)
			if errors.Is(err, queue.ErrDeleted) && now.Partitions < old.Partitions { // so says a partition that is no more
				var again []queue.Message
				for i, one := range all {
					if errors.Is(one.Err, queue.ErrDeleted) {
						again = append(again, batch[i])
					}
				}
				if err = sender.Open(ctx); err == nil {
					_, err = sender.SendBatch(ctx, again)
				}
			}
			if err != nil {
				t.Fatalf("%+v after %+v: %v", now, old, err)
			}
			if _, err := sender.Send(ctx, text("without a group")); (err != nil) != now.FIFO {
				t.Errorf("%+v after %+v: without a group: %v", now, old, err)
			} else if err == nil {
				sent["without a group"] = true
			}
			first, err := receiver.Receive(ctx, hour)
			if err != nil || len(first) != 1 {
				t.Fatalf("%+v after %+v: %d messages, %v", now, old, len(first), err)
			}
			ds, err := maker.Receive(ctx, queue.ReceiveOptions{Max: 100, Visibility: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range append(ds, first...) {
				if now.FIFO && d.Receipt != first[0].Receipt && d.Group == first[0].Group {
					t.Errorf("%+v after %+v: %s came while another one of its group was in flight", now, old, d.Body)
				}
				delete(sent, string(d.Body))
			}
			ack(t, receiver, ds...)
			ack(t, receiver, first...)
			drain(t, env, maker, prefix, sent)
		}
	}
}

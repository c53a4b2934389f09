package queuetest

import (
	"fmt"
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
	for range 100 {
		ds, err := q.Receive(t.Context(), ten)
		if err != nil {
			t.Fatalf("drain: %v", err)
		}
		if len(ds) == 0 {
			break
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
	if n, err := do(t, env, "HGET", prefix+":queue:{q:0}:meta", "n").AsInt64(); err != nil || n != 0 {
		t.Errorf("%d messages of none, %v", n, err)
	}
}

// foreignSend sends to a queue in which a key of another type lies in each place: of a batch, what is reported as sent is there when
// that is repaired, and nothing else.
func foreignSend(t *testing.T, env valkeytest.Env) {
	for _, fifo := range []bool{false, true} {
		for _, part := range parts {
			t.Run(fmt.Sprintf("%s fifo %v", part, fifo), func(t *testing.T) {
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

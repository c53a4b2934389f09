package queuetest

import (
	"testing"

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

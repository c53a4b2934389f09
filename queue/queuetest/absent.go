package queuetest

import (
	"errors"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// noQueue calls for a name that there is not: whatever only looks at a queue, empties or stops it makes none.
func noQueue(t *testing.T, env valkeytest.Env) {
	ctx, prefix := t.Context(), valkeytest.Prefix(t)
	absent := New(t, env, queue.Config{Prefix: prefix, Name: "absent", Partitions: 2})
	none := func(q *queue.Queue, want error) {
		t.Helper()
		_, errStats := q.Stats(ctx)
		_, errPeek := q.Peek(ctx, 1)
		_, errRedrive := q.Redrive(ctx, queue.RedriveOptions{})
		for what, err := range map[string]error{
			"stats": errStats, "peek": errPeek, "purge": q.Purge(ctx), "pause": q.Pause(ctx), "resume": q.Resume(ctx), "redrive": errRedrive,
		} {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
	}
	names := func(want int) {
		t.Helper()
		if got, err := queue.Names(ctx, env.Client, prefix); err != nil || len(got) != want {
			t.Errorf("%q, %v, want %d", got, err, want)
		}
	}
	forget := func(keys ...string) { // as a server does that loses its data
		t.Helper()
		for _, key := range keys {
			if err := env.Client.Do(ctx, env.Client.B().Del().Key(prefix+":queue:"+key).Build()).Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	none(absent, queue.ErrNoQueue)
	if err := absent.Delete(ctx); !errors.Is(err, queue.ErrNoQueue) {
		t.Errorf("delete: %v", err)
	}
	names(0)

	// It is there as soon as somebody sends, also for a process that has looked in vain.
	send(t, New(t, env, queue.Config{Prefix: prefix, Name: "absent", Partitions: 2}), text("a"))
	if s, err := absent.Stats(ctx); err != nil || s.Visible != 1 || s.Partitions != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	names(1)

	// A partition that is lost is made anew, a queue that is lost is not.
	forget("{absent:1}:meta")
	if _, err := absent.Stats(ctx); err != nil {
		t.Error(err)
	}
	forget("{absent:0}:meta", "{absent:1}:meta", "{absent:0}:ready", "{absent:1}:ready")
	none(absent, queue.ErrNoQueue)
	send(t, absent, text("b"))
	if _, err := absent.Stats(ctx); err != nil {
		t.Error(err)
	}

	// Messages are not moved to a queue that there is not, and stay.
	if moved, err := absent.Redrive(ctx, queue.RedriveOptions{To: "misspelt"}); !errors.Is(err, queue.ErrNoQueue) || moved != 0 {
		t.Errorf("moved %d, %v", moved, err)
	}
	if s, err := absent.Stats(ctx); err != nil || s.Visible == 0 || s.InFlight != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	names(1)

	// Deleted a moment ago: who looks makes none, whether it had the queue open or not.
	if err := New(t, env, queue.Config{Prefix: prefix, Name: "absent"}).Delete(ctx); err != nil {
		t.Fatal(err)
	}
	none(New(t, env, queue.Config{Prefix: prefix, Name: "absent"}), queue.ErrDeleted)
	none(absent, queue.ErrDeleted)
	names(0)
}

// peekLarge looks at more than fits in an answer: it ends early, wherever the messages are, and the first one always comes.
func peekLarge(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	const size = 1 << 20
	for what, cfg := range map[string]queue.Config{"ready": {}, "groups": {}, "fifo": {FIFO: true}, "delayed": {}, "in flight": {}, "partitions": {Partitions: 2}} {
		cfg.MaxBody = 5 * size
		q := New(t, env, cfg)
		for i := range 7 {
			m := queue.Message{Body: make([]byte, size)}
			switch what {
			case "groups", "partitions":
				m.Group = string(rune('a' + i))
			case "fifo":
				m.Group = "g"
			case "delayed":
				m.Delay = short
			}
			send(t, q, m)
		}
		switch what {
		case "delayed":
			env.Advance(short + time.Millisecond)
		case "in flight":
			if ds, err := q.Receive(ctx, queue.ReceiveOptions{Max: 10, Visibility: short}); err != nil || len(ds) != 7 {
				t.Fatal(len(ds), err)
			}
			env.Advance(short + time.Millisecond)
		}
		for most, want := range map[int]int{1: 1, 3: 3, 1000: 4} {
			if ds, err := q.Peek(ctx, most); err != nil || len(ds) != want {
				t.Errorf("%s: %d messages of %d, want %d: %v", what, len(ds), most, want, err)
			}
		}
	}
	q := New(t, env, queue.Config{MaxBody: 5 * size})
	send(t, q, queue.Message{Body: make([]byte, 5*size)})
	if ds, err := q.Peek(ctx, 10); err != nil || len(ds) != 1 || len(ds[0].Body) != 5*size {
		t.Errorf("one of 5 MiB: %d, %v", len(ds), err)
	}
}

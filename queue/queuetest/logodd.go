package queuetest

import (
	"errors"
	"testing"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// logSeekDead seeks to before a dead letter: the entry is delivered again, and stands aside or dies again without a trace of before.
func logSeekDead(t *testing.T, env valkeytest.Env) { //nolint:funlen // one story
	l := NewLog(t, env, queue.LogConfig{})
	g := group(t, l, queue.GroupConfig{})
	appendText(t, l, "", "a", "b")
	back := func() (a, b *queue.Delivery) {
		t.Helper()
		if err := g.Seek(t.Context(), queue.Position{}); err != nil {
			t.Fatal(err)
		}
		ds := read(t, g, "a", "b")
		return ds[0], ds[1]
	}
	counts := func(pending, aside, dead int64) {
		t.Helper()
		if s := groupStats(t, g); s.Pending != pending || s.Aside != aside || s.Dead != dead {
			t.Fatalf("%+v, want %d pending, %d aside, %d dead", s, pending, aside, dead)
		}
		if some, err := g.Dead(t.Context(), 10); err != nil || int64(len(some)) != dead || dead > 0 && string(some[0].Body) != "a" {
			t.Fatalf("%d dead letters, %v", len(some), err)
		}
	}
	a, _ := back()
	reject := func() {
		t.Helper()
		if err := g.Reject(t.Context(), a.Receipt, "bad"); err != nil {
			t.Fatal(err)
		}
	}
	nack := func(d *queue.Delivery) {
		t.Helper()
		if err := g.Nack(t.Context(), d.Receipt, 0, "again"); err != nil {
			t.Fatal(err)
		}
	}
	reject()
	counts(1, 0, 1)
	a, b := back() // done this time, beside one that stands aside: the dead letter stays
	nack(b)
	b = read(t, g, "b")[0]
	done(t, g, a, b)
	counts(0, 0, 1)
	a, _ = back() // failed: it is no dead letter any more
	nack(a)
	counts(1, 1, 0)
	a = read(t, g, "a")[0]
	reject()
	counts(1, 0, 1)
	a, _ = back() // dead again
	reject()
	counts(1, 0, 1)
	a, b = back() // replayed while it is out, and done
	if n, err := g.Replay(t.Context(), a.ID); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	nothing(t, g)
	done(t, g, a, b)
	counts(0, 0, 0)
	closeGroup(t, g)
	nothing(t, group(t, l, queue.GroupConfig{}))
}

// logTooBig appends more at once than the log may have, and what it can never have.
func logTooBig(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{MaxEntries: 3})
	appendText(t, l, "", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
	if s := logStats(t, l); s.Entries < 1 || s.Entries > 3 || s.Appended != 10 {
		t.Errorf("%+v", s)
	}
	l = NewLog(t, env, queue.LogConfig{MaxBytes: 100, Lossy: queue.Lossy})
	appendText(t, l, "", "a", "b")
	if _, err := l.Append(t.Context(), queue.Message{Body: make([]byte, 200)}); !errors.Is(err, queue.ErrFull) {
		t.Error(err)
	}
	if s := logStats(t, l); s.Entries != 2 {
		t.Errorf("what has no room at all has taken that of others: %+v", s)
	}
}

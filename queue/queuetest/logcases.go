package queuetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

func logBodies(t *testing.T, env valkeytest.Env) {
	const limit = 100_000
	l := NewLog(t, env, queue.LogConfig{MaxBody: limit})
	g := group(t, l, queue.GroupConfig{Name: "g {1} %7B\n\xff"})
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	many := map[string]string{}
	for i := range 100 {
		many[fmt.Sprintf("name %d:\n%c", i, rune(i))] = string(binary[:i])
	}
	for what, m := range map[string]queue.Message{
		"empty": {}, "binary": {Body: binary}, "newlines": {Body: []byte("\n\n1 2 3\n")}, "limit": {Body: bytes.Repeat([]byte{0xff}, limit)},
		"attributes": {Body: binary, Attributes: many}, "key": {Body: []byte("x"), Group: "g {1} %7B\n\xff"},
	} {
		sent, err := l.Append(t.Context(), m)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		ds, err := g.Receive(t.Context(), wait)
		if err != nil || len(ds) != 1 {
			t.Fatalf("%s: %d entries, %v", what, len(ds), err)
		}
		d := ds[0]
		if d.ID != sent.ID || !bytes.Equal(d.Body, m.Body) || d.Group != m.Group || len(d.Attributes) != len(m.Attributes) {
			t.Errorf("%s: came as %+v", what, d)
		}
		for name, value := range m.Attributes {
			if d.Attributes[name] != value {
				t.Errorf("%s: attribute %q is %q", what, name, d.Attributes[name])
			}
		}
		done(t, g, d)
	}
	if s := logStats(t, l); len(s.Groups) != 1 || s.Groups[0].Name != g.Name() {
		t.Errorf("%+v", s.Groups)
	}
}

func logRefused(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{MaxBody: 10})
	for field, m := range map[string]queue.Message{
		"DedupID": {DedupID: "x"}, "Delay": {Delay: time.Second}, "Unique": {Unique: "x"}, "MaxBody": {Body: make([]byte, 11)},
		"Group": {Group: strings.Repeat("x", 129)},
	} {
		if _, err := l.Append(t.Context(), m); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	sent, err := l.AppendBatch(t.Context(), []queue.Message{text("a"), {Delay: 1}, text("b")})
	if err == nil || sent[0].Err != nil || sent[1].Err == nil || sent[2].Err != nil {
		t.Errorf("%+v, %v", sent, err)
	}
	g := group(t, l, queue.GroupConfig{})
	for _, o := range []queue.ReceiveOptions{{Max: -1}, {Max: 1001}, {Wait: -1}, {Visibility: time.Millisecond}, {Attempt: "x"}} {
		if _, err := g.Receive(t.Context(), o); err == nil {
			t.Errorf("%+v was asked for", o)
		}
	}
	// An id of the future, a time to come, and what is no id.
	ahead := time.Now().Add(24 * time.Hour)
	for what, to := range map[string]queue.Position{"an id": {ID: "0:99999999999999-0"}, "a time": {Time: time.UnixMilli(99999999999999)}} {
		if err := g.Seek(t.Context(), to); !errors.Is(err, queue.ErrFuture) || !strings.Contains(err.Error(), "the last entry") {
			t.Errorf("%s of the future: %v", what, err)
		}
	}
	for _, to := range []queue.Position{{ID: "x"}, {ID: "1:1-0"}, {ID: "0:01-0"}, {ID: "0:1"}, {End: true, ID: "0:1-0"}, {Time: ahead, End: true}} {
		if err := g.Seek(t.Context(), to); err == nil {
			t.Errorf("%+v was sought", to)
		}
	}
	done(t, g, read(t, g, "a", "b")...)
	if _, err := queue.NewLog(env.Client, queue.LogConfig{}); err == nil {
		t.Error("a log without a name")
	}
	if _, err := NewLog(t, env, queue.LogConfig{Prefix: queue.LogPrefixOf(l), Partitions: 2}).Append(t.Context(), text("x")); err == nil || !strings.Contains(err.Error(), "Partitions is 2, and the log has 1") {
		t.Errorf("other partitions: %v", err)
	}
	if _, err := NewLog(t, env, queue.LogConfig{Name: "none"}).Stats(t.Context()); !errors.Is(err, queue.ErrNoQueue) {
		t.Errorf("no log: %v", err)
	}
}

func logFanOut(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{Partitions: 3})
	early := group(t, l, queue.GroupConfig{Name: "early"})
	for i := range 30 {
		appendText(t, l, fmt.Sprint("k", i), fmt.Sprint(i))
	}
	late := group(t, l, queue.GroupConfig{Name: "late", Start: queue.Position{End: true}})
	all := group(t, l, queue.GroupConfig{Name: "all"})
	appendText(t, l, "k", "last")
	for g, n := range map[*queue.Group]int{early: 31, late: 1, all: 31} {
		seen := map[string]bool{}
		for len(seen) < n {
			ds, err := g.Receive(t.Context(), wait)
			if err != nil || len(ds) == 0 {
				t.Fatalf("%s has %d of %d, %v", g.Name(), len(seen), n, err)
			}
			for _, d := range ds {
				if seen[string(d.Body)] {
					t.Errorf("%s got %s twice", g.Name(), d.Body)
				}
				seen[string(d.Body)] = true
			}
			done(t, g, ds...)
		}
		if s := groupStats(t, g); s.Lag+s.Pending+s.Aside != 0 || len(s.Positions) != 3 {
			t.Errorf("%+v", s)
		}
	}
}

// logKeyOrder holds that entries of a key come one after the other, and those of others pass.
func logKeyOrder(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{})
	g := group(t, l, queue.GroupConfig{})
	appendText(t, l, "a", "a1", "a2", "a3")
	appendText(t, l, "b", "b1")
	ds := read(t, g, "a1", "b1")
	nothing(t, g)
	done(t, g, ds[0])
	d := read(t, g, "a2")[0]
	if err := g.Nack(t.Context(), d.Receipt, 0, "again"); err != nil {
		t.Fatal(err)
	}
	d = read(t, g, "a2")[0]
	if d.Receives != 2 {
		t.Errorf("%d receives", d.Receives)
	}
	nothing(t, g)
	if err := g.Reject(t.Context(), d.Receipt, "bad"); err != nil {
		t.Fatal(err)
	}
	done(t, g, read(t, g, "a3")...)
}

func logRetry(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{})
	g := group(t, l, queue.GroupConfig{MaxReceives: queue.NoLimit})
	appendText(t, l, "k", "a", "b")
	// Without an acknowledgement it comes again when its time is over.
	d := readFor(t, g, short, "a")
	again := read(t, g, "a")[0]
	if again.Receives != 2 || again.ID != d.ID || !again.FirstReceived.Equal(d.FirstReceived) {
		t.Errorf("%+v after %+v", again, d)
	}
	if err := g.Extend(t.Context(), d.Receipt, time.Hour); !errors.Is(err, queue.ErrNotHeld) {
		t.Errorf("an old receipt: %v", err)
	}
	if err := g.Nack(t.Context(), again.Receipt, short, "later"); err != nil {
		t.Fatal(err)
	}
	pending, err := g.Pending(t.Context(), 10)
	if err != nil || len(pending) < 1 || !pending[len(pending)-1].Aside || pending[len(pending)-1].Reason != "later" || pending[len(pending)-1].Receives != 2 {
		t.Errorf("%+v, %v", pending, err)
	}
	third := read(t, g, "a")[0]
	if third.Receives != 3 {
		t.Errorf("%d receives", third.Receives)
	}
	done(t, g, third)
	done(t, g, read(t, g, "b")...)
	if s := groupStats(t, g); s.Pending+s.Aside != 0 {
		t.Errorf("%+v", s)
	}
}

func readFor(t *testing.T, g *queue.Group, visibility time.Duration, want string) *queue.Delivery {
	t.Helper()
	ds, err := g.Receive(t.Context(), queue.ReceiveOptions{Wait: 20 * time.Second, Visibility: visibility})
	if err != nil || len(ds) != 1 || string(ds[0].Body) != want {
		t.Fatalf("%q, %v", bodiesOf(ds), err)
	}
	return ds[0]
}

func logDeadLetters(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{Partitions: 2})
	g, other := group(t, l, queue.GroupConfig{MaxReceives: 2}), group(t, l, queue.GroupConfig{Name: "other"})
	appendText(t, l, "k", "a")
	appendText(t, l, "k", "b")
	d := read(t, g, "a")[0]
	if err := g.Nack(t.Context(), d.Receipt, 0, "one"); err != nil {
		t.Fatal(err)
	}
	d = read(t, g, "a")[0]
	if err := g.Nack(t.Context(), d.Receipt, 0, "two"); err != nil {
		t.Fatal(err)
	}
	d = read(t, g, "b")[0]
	if err := g.Reject(t.Context(), d.Receipt, "poison"); err != nil {
		t.Fatal(err)
	}
	dead, err := g.Dead(t.Context(), 10)
	if err != nil || len(dead) != 2 || dead[0].Dead.Reason != "two" || dead[0].Dead.Receives != 2 || dead[0].Dead.Queue != "l" || dead[1].Dead.Reason != "poison" ||
		string(dead[1].Body) != "b" || dead[1].Receipt != "" {
		t.Fatalf("%+v, %v", dead, err)
	}
	if s := groupStats(t, g); s.Dead != 2 || s.Pending+s.Aside != 0 {
		t.Errorf("%+v", s)
	}
	// A replay is for this group alone, and counts from the beginning.
	if n, err := g.Replay(t.Context(), dead[0].ID, "0:1-0"); err != nil || n != 1 {
		t.Fatalf("replayed %d, %v", n, err)
	}
	d = read(t, g, "a")[0]
	if d.Receives != 1 || d.ID != dead[0].ID {
		t.Errorf("%+v", d)
	}
	done(t, g, d)
	if n, err := g.Replay(t.Context(), "nonsense"); err == nil || n != 0 {
		t.Errorf("replayed %d, %v", n, err)
	}
	if n, err := g.Discard(t.Context()); err != nil || n != 1 {
		t.Errorf("discarded %d, %v", n, err)
	}
	if n, err := g.Replay(t.Context()); err != nil || n != 0 {
		t.Errorf("replayed %d, %v", n, err)
	}
	done(t, other, read(t, other, "a")...)
	done(t, other, read(t, other, "b")...)
	nothing(t, other)
}

func logReceipts(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{})
	g := group(t, l, queue.GroupConfig{})
	appendText(t, l, "", "a")
	d := read(t, g, "a")[0]
	for _, forged := range []string{"", ":", "0:", d.ID, d.ID + ":", d.ID + ":0", d.Receipt + "0", " " + d.Receipt, "1" + d.Receipt, "0" + d.Receipt, strings.ToUpper(d.Receipt) + "Z",
		strings.Repeat(d.Receipt, 100), "\x00", "99999999999999999999:1-0:1"} {
		for what, err := range map[string]error{
			"ack": g.Ack(t.Context(), forged), "nack": g.Nack(t.Context(), forged, 0, "x"), "extend": g.Extend(t.Context(), forged, time.Hour), "reject": g.Reject(t.Context(), forged, "x"),
		} {
			if !errors.Is(err, queue.ErrNotHeld) {
				t.Errorf("%s of %.60q: %v", what, forged, err)
			}
		}
	}
	done(t, g, d)
	if err := g.Ack(t.Context(), d.Receipt); !errors.Is(err, queue.ErrNotHeld) {
		t.Errorf("a second ack: %v", err)
	}
	if errs := g.AckBatch(t.Context(), nil); errs != nil {
		t.Errorf("no receipts: %v", errs)
	}
}

// logHandover gives a partition up with entries delivered and retried: the next process has them in order, and no old receipt counts.
func logHandover(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{})
	first, second := group(t, l, queue.GroupConfig{Consumer: "same"}), group(t, l, queue.GroupConfig{Consumer: "same"})
	third := group(t, l, queue.GroupConfig{Consumer: "third"})
	appendText(t, l, "k", "1", "2", "3")
	appendText(t, l, "o", "o1", "o2")
	ds := read(t, first, "1", "o1")
	if err := first.Nack(t.Context(), ds[1].Receipt, 0, "again"); err != nil {
		t.Fatal(err)
	}
	closeGroup(t, first)
	if err := first.Ack(t.Context(), ds[0].Receipt); !errors.Is(err, queue.ErrNotHeld) {
		t.Errorf("ack after the handover: %v", err)
	}
	var got map[string]*queue.Delivery
	for i, g := range []*queue.Group{second, third} {
		got = readAny(t, g, "1", "o1")
		if got := got["1"].Receives; got != 2+i {
			t.Errorf("%d receives in round %d", got, i)
		}
		if i == 0 {
			closeGroup(t, g)
		}
	}
	for _, next := range [][2]string{{"1", "2"}, {"o1", "o2"}, {"2", "3"}} {
		done(t, third, got[next[0]])
		got[next[1]] = read(t, third, next[1])[0]
	}
	done(t, third, got["3"], got["o2"])
	if s := groupStats(t, third); s.Consumers != 1 || s.Pending+s.Aside+s.Lag != 0 {
		t.Errorf("%+v", s)
	}
}

// readAny receives until these have come, in any order.
func readAny(t *testing.T, g *queue.Group, want ...string) map[string]*queue.Delivery {
	t.Helper()
	got := map[string]*queue.Delivery{}
	for len(got) < len(want) {
		ds, err := g.Receive(t.Context(), wait)
		if err != nil || len(ds) == 0 {
			t.Fatalf("%v, %v", got, err)
		}
		for _, d := range ds {
			got[string(d.Body)] = d
		}
	}
	for _, w := range want {
		if got[w] == nil {
			t.Fatalf("%q did not come: %v", w, got)
		}
	}
	return got
}

// logRebalance has processes come and go: each has its part, and what the one that left had is the others'.
func logRebalance(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{Partitions: 4})
	cfg := queue.GroupConfig{Lease: time.Second}
	a, b := group(t, l, cfg), group(t, l, cfg)
	nothing(t, a)
	if s := groupStats(t, a); s.Owned != 4 {
		t.Fatalf("%+v", s)
	}
	until(t, "both have two", func() bool {
		nothing(t, a)
		nothing(t, b)
		return queue.OwnedBy(a) == 2 && queue.OwnedBy(b) == 2
	})
	closeGroup(t, a)
	until(t, "one has four", func() bool {
		nothing(t, b)
		return queue.OwnedBy(b) == 4
	})
}

func logSeek(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{})
	g := group(t, l, queue.GroupConfig{})
	sent := appendText(t, l, "", "a", "b", "c")
	ds := read(t, g, "a", "b", "c")
	done(t, g, ds[0])
	if err := g.Nack(t.Context(), ds[1].Receipt, time.Hour, "x"); err != nil {
		t.Fatal(err)
	}
	if err := g.Seek(t.Context(), queue.Position{}); err != nil {
		t.Fatal(err)
	}
	ds2 := read(t, g, "a", "b", "c")
	if err := g.Ack(t.Context(), ds[2].Receipt); !errors.Is(err, queue.ErrNotHeld) {
		t.Errorf("a receipt of before: %v", err)
	}
	done(t, g, ds2...)
	if err := g.Seek(t.Context(), queue.Position{ID: sent[1].ID}); err != nil {
		t.Fatal(err)
	}
	done(t, g, read(t, g, "c")...)
	env.Advance(2 * time.Millisecond)
	d := appendText(t, l, "", "d")[0]
	done(t, g, read(t, g, "d")...)
	at := ds[0].Sent.Add(time.Millisecond)
	if err := g.Seek(t.Context(), queue.Position{Time: at}); err != nil {
		t.Fatal(err)
	}
	ds, err := g.Receive(t.Context(), wait)
	if err != nil || ds[len(ds)-1].ID != d.ID {
		t.Fatalf("%q, %v", bodiesOf(ds), err)
	}
	for _, d := range ds {
		if d.Sent.Before(at) {
			t.Errorf("%s was appended at %v, before %v", d.Body, d.Sent, at)
		}
	}
	if err := g.Seek(t.Context(), queue.Position{End: true}); err != nil {
		t.Fatal(err)
	}
	nothing(t, g)
	if s := groupStats(t, g); s.Lag+s.Pending != 0 {
		t.Errorf("%+v", s)
	}
}

// logTrim holds that what a group has not acknowledged stays, and that the rest goes.
func logTrim(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{Retention: time.Second, KeepDead: time.Second})
	g, slow := group(t, l, queue.GroupConfig{}), group(t, l, queue.GroupConfig{Name: "slow", Aside: time.Hour})
	appendText(t, l, "", "a", "b", "c", "d")
	all := read(t, g, "a", "b", "c", "d")
	done(t, g, all[1:]...)
	if err := g.Reject(t.Context(), all[0].Receipt, "dead"); err != nil {
		t.Fatal(err)
	}
	ds := read(t, slow, "a", "b")
	done(t, slow, ds[0])
	env.Advance(1100 * time.Millisecond)
	trimmed := func(want int64) {
		t.Helper()
		until(t, fmt.Sprint(want, " are left"), func() bool {
			if _, err := l.Trim(t.Context()); err != nil {
				t.Fatal(err)
			}
			n := logStats(t, l).Entries
			if n < want {
				t.Fatalf("%d are left, want %d", n, want)
			}
			return n == want
		})
	}
	trimmed(3)
	if s := groupStats(t, g); s.Dead != 0 {
		t.Errorf("a dead letter is kept for longer than KeepDead: %+v", s)
	}
	done(t, slow, ds[1])
	trimmed(2)
	done(t, slow, read(t, slow, "c", "d")...)
	trimmed(0)
	if s := logStats(t, l); s.Bytes != 0 || s.Dropped != 0 || s.Appended != 4 {
		t.Errorf("%+v", s)
	}
	appendText(t, l, "", "e")
	done(t, slow, read(t, slow, "e")...)
}

func logFull(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{MaxEntries: 4})
	g := group(t, l, queue.GroupConfig{})
	appendText(t, l, "", "a", "b", "c")
	sent, err := l.AppendBatch(t.Context(), []queue.Message{text("d"), text("e")})
	if !errors.Is(err, queue.ErrFull) || sent[0].Err != nil || !errors.Is(sent[1].Err, queue.ErrFull) {
		t.Fatalf("%+v, %v", sent, err)
	}
	ds := read(t, g, "a", "b", "c", "d")
	if _, err := l.Append(t.Context(), text("e")); !errors.Is(err, queue.ErrFull) {
		t.Fatalf("it was appended: %v", err)
	}
	done(t, g, ds[0])
	appendText(t, l, "", "e")
	if _, err := l.Append(t.Context(), text("f")); !errors.Is(err, queue.ErrFull) {
		t.Fatalf("it was appended: %v", err)
	}
	done(t, g, ds[1:]...)
	done(t, g, read(t, g, "e")...)
	appendText(t, l, "", "f", "g", "h", "i")
	if s := logStats(t, l); s.Entries != 4 || s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
	done(t, g, read(t, g, "f", "g", "h", "i")...)
	// By bytes: of a key, so that an entry has more than its body.
	l = NewLog(t, env, queue.LogConfig{MaxBytes: 300})
	g = group(t, l, queue.GroupConfig{})
	for _, body := range []string{strings.Repeat("x", 100), strings.Repeat("y", 100)} {
		appendText(t, l, "k", body)
	}
	if _, err := l.Append(t.Context(), queue.Message{Body: make([]byte, 100)}); !errors.Is(err, queue.ErrFull) {
		t.Fatalf("it was appended: %v", err)
	}
	appendText(t, l, "", strings.Repeat("z", 50))
	ds, err = g.Receive(t.Context(), wait)
	if err != nil {
		t.Fatal(err)
	}
	done(t, g, ds[0])
	appendText(t, l, "", strings.Repeat("z", 50))
	if s := logStats(t, l); s.Entries != 3 || s.Bytes > 300 {
		t.Errorf("%+v", s)
	}
	if _, err := l.Append(t.Context(), queue.Message{Body: make([]byte, 400)}); !errors.Is(err, queue.ErrFull) {
		t.Errorf("more than it holds: %v", err)
	}
}

func logLossy(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{MaxEntries: 4, Lossy: queue.Lossy})
	g := group(t, l, queue.GroupConfig{})
	appendText(t, l, "", "a")
	a := read(t, g, "a")[0]
	for i := range 10 {
		appendText(t, l, "", fmt.Sprint(i))
	}
	s := logStats(t, l)
	if s.Entries != 4 || s.Dropped != 7 {
		t.Errorf("%+v", s)
	}
	done(t, g, a) // it was out, so it is not lost
	for last := ""; last != "9"; {
		ds, err := g.Receive(t.Context(), wait)
		if err != nil || len(ds) == 0 {
			t.Fatal(err)
		}
		done(t, g, ds...)
		last = string(ds[len(ds)-1].Body)
	}
	if _, err := g.Stats(t.Context()); err != nil {
		t.Error(err)
	}
}

// logAside has an entry out for long: it leaves the stream, which can be trimmed, and stays the group's, also for the next process.
func logAside(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{Retention: time.Second})
	g := group(t, l, queue.GroupConfig{Aside: 10 * time.Millisecond})
	appendText(t, l, "k", "stuck", "behind")
	appendText(t, l, "", "other")
	ds := readAny(t, g, "stuck", "other")
	done(t, g, ds["other"])
	until(t, "they stand aside", func() bool {
		s := groupStats(t, g)
		return s.Aside == 2 && s.Pending == 0
	})
	env.Advance(1100 * time.Millisecond)
	until(t, "the stream is empty", func() bool {
		if _, err := l.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		return logStats(t, l).Entries == 0
	})
	nothing(t, g)
	closeGroup(t, g)
	next := group(t, l, queue.GroupConfig{})
	d := read(t, next, "stuck")[0]
	if d.ID != ds["stuck"].ID || d.Receives != 2 {
		t.Errorf("%+v", d)
	}
	done(t, next, d)
	done(t, next, read(t, next, "behind")...)
	if s := groupStats(t, next); s.Aside+s.Pending+s.Dead != 0 {
		t.Errorf("%+v", s)
	}
}

func logGroupDeleted(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{Partitions: 2})
	g, other := group(t, l, queue.GroupConfig{}), group(t, l, queue.GroupConfig{})
	appendText(t, l, "k", "a", "b")
	d := read(t, g, "a")[0]
	if err := other.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Ack(t.Context(), d.Receipt); !errors.Is(err, queue.ErrNoGroup) && !errors.Is(err, queue.ErrNotHeld) {
		t.Errorf("ack: %v", err)
	}
	if _, err := g.Receive(t.Context(), wait); !errors.Is(err, queue.ErrNoGroup) {
		t.Errorf("receive: %v", err)
	}
	for what, err := range map[string]error{"delete": other.Delete(t.Context()), "seek": other.Seek(t.Context(), queue.Position{})} {
		if !errors.Is(err, queue.ErrNoGroup) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := other.Stats(t.Context()); !errors.Is(err, queue.ErrNoGroup) {
		t.Errorf("stats: %v", err)
	}
	if err := g.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ds := read(t, g, "a")
	done(t, g, ds...)
	done(t, g, read(t, g, "b")...)
}

func logDeleted(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{Partitions: 2})
	g := group(t, l, queue.GroupConfig{})
	appendText(t, l, "k", "a", "b")
	d := read(t, g, "a")[0]
	other := NewLog(t, env, queue.LogConfig{Prefix: queue.LogPrefixOf(l)})
	if err := other.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Ack(t.Context(), d.Receipt); !errors.Is(err, queue.ErrDeleted) && !errors.Is(err, queue.ErrNotHeld) {
		t.Errorf("ack: %v", err)
	}
	if _, err := l.Append(t.Context(), text("x")); !errors.Is(err, queue.ErrDeleted) {
		t.Errorf("append: %v", err)
	}
	if _, err := g.Receive(t.Context(), wait); !errors.Is(err, queue.ErrDeleted) {
		t.Errorf("receive: %v", err)
	}
	if err := g.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	appendText(t, l, "k", "c")
	done(t, g, read(t, g, "c")...)
}

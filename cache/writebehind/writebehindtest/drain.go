package writebehindtest

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/flatrate/flatrate/valkeytest"
)

// coalesce holds that a key goes to the origin once in a window, with its newest value.
func coalesce(t *testing.T, env valkeytest.Env) {
	var o origin[int]
	s := newStore(t, env, writebehind.Config[int]{Origin: o.write, Window: 400 * time.Millisecond})
	const keys, writes = 10, 20
	for n := range writes {
		for k := range keys {
			put(t, s, strconv.Itoa(k), n)
		}
	}
	drained(t, env, s)
	for k := range keys {
		if w, _ := o.row(strconv.Itoa(k)); w.Value != writes-1 {
			t.Errorf("key %d: %+v", k, w)
		}
	}
	spent := slices.MaxFunc(o.log, func(a, b writebehind.Write[int]) int { return int(a.Version - b.Version) }).Version -
		slices.MinFunc(o.log, func(a, b writebehind.Write[int]) int { return int(a.Version - b.Version) }).Version
	windows := 1 + int(spent/(400*time.Millisecond).Microseconds())
	if len(o.log) < keys || len(o.log) > keys*(1+windows) {
		t.Errorf("%d writes reached the origin, of %d keys in %d windows", len(o.log), keys, windows)
	}
}

// whileAtOrigin writes a key while the origin has it: the new value follows, after the old one, in a window of its own.
func whileAtOrigin(t *testing.T, env valkeytest.Env) {
	var o origin[string]
	entered, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	o.failing(func([]writebehind.Write[string]) error {
		once.Do(func() { close(entered); <-leave })
		return nil
	})
	s := newStore(t, env, writebehind.Config[string]{Origin: o.write, Calls: 8})
	put(t, s, "k", "1")
	until(t, env, "at the origin", func() bool {
		select {
		case <-entered:
			return true
		default:
			return false
		}
	})
	put(t, s, "k", "2")
	put(t, s, "k", "3")
	want(t, s, "k", "3")
	env.Advance(2 * window)
	if all := stats(t, s); all.Waiting != 1 || all.AtOrigin != 1 || o.taken() != 0 {
		t.Errorf("%+v, %d taken: the key is at the origin twice", all, o.taken())
	}
	close(leave)
	drained(t, env, s)
	if len(o.log) != 2 || o.log[0].Value != "1" || o.log[1].Value != "3" || o.stale != 0 {
		t.Errorf("%+v, %d stale", o.log, o.stale)
	}
}

// deleteIsAWrite holds that a put and then a delete leave nothing, and the reverse something.
func deleteIsAWrite(t *testing.T, env valkeytest.Env) {
	var o origin[string]
	s := newStore(t, env, writebehind.Config[string]{Origin: o.write, TTL: writebehind.Forget})
	for round := range 3 {
		put(t, s, "gone", strconv.Itoa(round))
		if err := errors.Join(s.Delete(patient(t), "gone"), s.Delete(patient(t), "back")); err != nil {
			t.Fatal(err)
		}
		put(t, s, "back", strconv.Itoa(round))
		drained(t, env, s)
		gone, _ := o.row("gone")
		back, _ := o.row("back")
		if !gone.Deleted || gone.Value != "" || back.Deleted || back.Value != strconv.Itoa(round) {
			t.Errorf("the origin has %+v, %+v", gone, back)
		}
		wantNone(t, s, "gone")
		wantNone(t, s, "back") // nothing is kept
	}
}

// poison has one key that always fails a whole batch: the others pass, and it dies.
func poison(t *testing.T, env valkeytest.Env) {
	var o origin[int]
	o.failing(func(batch []writebehind.Write[int]) error {
		if slices.ContainsFunc(batch, func(w writebehind.Write[int]) bool { return w.Key == "poison" }) {
			return errors.New("constraint \"n\" violated")
		}
		return nil
	})
	var dead, failed atomic.Int64
	s := newStore(t, env, writebehind.Config[int]{Origin: o.write, Partitions: 1, Attempts: 3, Hooks: writebehind.Hooks{
		Dead: func(string, error) { dead.Add(1) }, Failed: func(key string, _ int, _ error) {
			if key != "poison" {
				failed.Add(1)
			}
		},
	}})
	put(t, s, "poison", 7)
	for n := 0; dead.Load() == 0; n++ {
		put(t, s, "k"+strconv.Itoa(n), n)
		env.Advance(5 * time.Millisecond)
	}
	drained(t, env, s)
	all := letters(t, s)
	if len(all) != 1 || all[0].Key != "poison" || all[0].Value != 7 || !strings.Contains(all[0].Reason, "violated") || all[0].Tries < 3 || all[0].Err != nil {
		t.Errorf("dead letters %+v", all)
	}
	if failed.Load() != 0 {
		t.Errorf("%d failures of others", failed.Load())
	}
	wantNone(t, s, "poison") // the origin decides
	if all := stats(t, s); all.Dead != 1 || all.Died != 1 {
		t.Errorf("%+v", all)
	}
}

// rejected holds that what the origin rejects by itself counts, although nothing else is written.
func rejected(t *testing.T, env valkeytest.Env) {
	var o origin[int]
	o.failing(func(batch []writebehind.Write[int]) error {
		r := writebehind.Rejected{}
		for i, w := range batch {
			if w.Value < 0 {
				r[i] = errors.New("less than zero")
			}
		}
		if len(r) == 0 {
			return nil
		}
		return r
	})
	s := newStore(t, env, writebehind.Config[int]{Origin: o.write, Attempts: 2})
	for k := range 10 {
		put(t, s, strconv.Itoa(k), k%3-1)
	}
	drained(t, env, s)
	all := letters(t, s)
	if len(all) != 4 || o.taken() != 6 {
		t.Errorf("%d dead letters, %d taken", len(all), o.taken())
	}
	for _, l := range all {
		if l.Tries != 2 || l.Value != -1 || l.Reason != "less than zero" {
			t.Errorf("%+v", l)
		}
	}
}

func permanent(t *testing.T, env valkeytest.Env) {
	var o origin[string]
	o.failing(func(batch []writebehind.Write[string]) error {
		if slices.ContainsFunc(batch, func(w writebehind.Write[string]) bool { return w.Value == "bad" }) {
			return writebehind.Permanent(errors.New("no such column"))
		}
		return nil
	})
	s := newStore(t, env, writebehind.Config[string]{Origin: o.write})
	put(t, s, "bad", "bad")
	for k := range 20 {
		put(t, s, strconv.Itoa(k), "good")
	}
	drained(t, env, s)
	if all := letters(t, s); len(all) != 1 || all[0].Tries != 1 || o.taken() != 20 {
		t.Errorf("%+v, %d taken", all, o.taken())
	}
}

// outage lets everything fail for far longer than the attempts that a write has: nothing dies.
func outage(t *testing.T, env valkeytest.Env) {
	var o origin[int]
	s := newStore(t, env, writebehind.Config[int]{Origin: o.write, Attempts: 2, Partitions: 1})
	put(t, s, "before", 0)
	drained(t, env, s)
	var calls atomic.Int64
	o.failing(func([]writebehind.Write[int]) error { calls.Add(1); return errors.New("connection refused") })
	for k := range 30 {
		put(t, s, strconv.Itoa(k), k)
	}
	until(t, env, "tried often", func() bool { return calls.Load() > 60 })
	put(t, s, "3", 333)
	o.failing(nil)
	drained(t, env, s)
	// A call that was under way may have taken the old value of 3 before the new one.
	if w, _ := o.row("3"); w.Value != 333 || o.taken() < 31 || o.taken() > 32 || len(letters(t, s)) != 0 {
		t.Errorf("%d taken, dead letters %+v", o.taken(), letters(t, s))
	}
}

// replay writes dead letters again once the origin takes them, and throws others away.
func replay(t *testing.T, env valkeytest.Env) {
	var o origin[string]
	o.failing(func([]writebehind.Write[string]) error { return writebehind.Permanent(errors.New("no\nspace")) })
	s := newStore(t, env, writebehind.Config[string]{Origin: o.write})
	value := strings.Repeat("1 2 \x00", 1000)
	put(t, s, "a", value)
	put(t, s, "b", "b")
	if err := s.Delete(patient(t), "c"); err != nil {
		t.Fatal(err)
	}
	drained(t, env, s)
	o.failing(nil)
	for _, l := range letters(t, s) {
		if l.Reason != "no\nspace" || l.Err != nil || l.Deleted != (l.Key == "c") {
			t.Errorf("%q of %s", l.Reason, l.Key)
		}
		if done, err := s.Replay(patient(t), l.Key, l.Version+1); done || err != nil {
			t.Errorf("another version: %v, %v", done, err)
		}
		act := s.Replay
		if l.Key == "b" {
			act = s.Discard
		}
		if done, err := act(patient(t), l.Key, l.Version); !done || err != nil {
			t.Errorf("%v, %v", done, err)
		}
		if done, err := act(patient(t), l.Key, 0); done || err != nil {
			t.Errorf("again: %v, %v", done, err)
		}
	}
	want(t, s, "a", value)
	drained(t, env, s)
	a, _ := o.row("a")
	c, hasC := o.row("c")
	_, hasB := o.row("b")
	if a.Value != value || hasB || !hasC || !c.Deleted || len(letters(t, s)) != 0 {
		t.Errorf("the origin has %.40q, b %v, %+v", a.Value, hasB, c)
	}
}

// superseded holds that a newer write takes a dead letter away, and that a replay does not overtake one.
func superseded(t *testing.T, env valkeytest.Env) {
	var o origin[string]
	bad := func(batch []writebehind.Write[string]) error {
		if batch[0].Value == "bad" {
			return writebehind.Permanent(errors.New("bad"))
		}
		return nil
	}
	o.failing(bad)
	cfg := writebehind.Config[string]{Prefix: valkeytest.Prefix(t), Origin: o.write, Batch: 1}
	s := newStore(t, env, cfg)
	for _, key := range []string{"a", "b"} {
		put(t, s, key, "bad")
	}
	drained(t, env, s)
	put(t, s, "a", "good")
	drained(t, env, s)
	if err := s.Close(patient(t)); err != nil {
		t.Fatal(err)
	}
	cfg.Origin = nil
	s = newStore(t, env, cfg)
	if all := letters(t, s); len(all) != 1 || all[0].Key != "b" {
		t.Errorf("%+v", all)
	}
	o.failing(nil)
	put(t, s, "b", "good")
	if done, err := s.Replay(patient(t), "b", 0); !done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	want(t, s, "b", "good")
	cfg.Origin = o.write
	drained(t, env, newStore(t, env, cfg))
	if w, _ := o.row("b"); w.Value != "good" || o.taken() != 2 {
		t.Errorf("%+v, %d taken", w, o.taken())
	}
}

// deadLimit holds that what has no place among the dead letters is tried on, and not lost.
func deadLimit(t *testing.T, env valkeytest.Env) {
	var o origin[int]
	o.failing(func([]writebehind.Write[int]) error { return writebehind.Permanent(errors.New("no")) })
	s := newStore(t, env, writebehind.Config[int]{Origin: o.write, Partitions: 1, DeadLimit: 3})
	for k := range 5 {
		put(t, s, strconv.Itoa(k), k)
	}
	until(t, env, "three letters", func() bool { return stats(t, s).Dead == 3 })
	env.Advance(window)
	if all := stats(t, s); all.Waiting != 2 || all.Dead != 3 {
		t.Errorf("%+v", all)
	}
	o.failing(nil)
	drained(t, env, s)
	if o.taken() != 2 {
		t.Errorf("%d taken", o.taken())
	}
}

// badOrigins panic, end their goroutine, or say what makes no sense: nothing is lost.
func badOrigins(t *testing.T, env valkeytest.Env) {
	var o origin[int]
	var n atomic.Int64
	o.failing(func(batch []writebehind.Write[int]) error {
		switch n.Add(1) {
		case 1:
			panic("origin")
		case 2:
			return writebehind.Rejected{len(batch): errors.New("beyond the batch")}
		case 3:
			return errors.New("and once")
		}
		return nil
	})
	s := newStore(t, env, writebehind.Config[int]{Origin: o.write})
	for k := range 10 {
		put(t, s, strconv.Itoa(k), k)
	}
	drained(t, env, s)
	if o.taken() != 10 || len(letters(t, s)) != 0 {
		t.Errorf("%d taken", o.taken())
	}
}

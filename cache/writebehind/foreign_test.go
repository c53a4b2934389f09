package writebehind_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/flatrate/flatrate/valkeytest"
)

// TestForeignDue holds that a key of another type in the place of what is due leaves no entry in the log that nobody
// drains: the write is refused, and the next one reaches the origin.
func TestForeignDue(t *testing.T) {
	t.Parallel()
	c := valkeytest.Start(t).Client()
	var o tally
	s := newStore(t, c, writebehind.Config[int]{Partitions: 1, Window: time.Millisecond, Origin: o.write})
	due := "fr:behind:{default:0}:due"
	if err := c.Do(t.Context(), c.B().Set().Key(due).Value("foreign").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "k", 1); err == nil {
		t.Error("a write without a place was acknowledged")
	}
	if n := entriesOf(t, s); n != 0 {
		t.Errorf("%d entries of refused writes", n)
	}
	if err := c.Do(t.Context(), c.B().Del().Key(due).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	put(t, s, "k", 2)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return o.has() == 1 })
}

// entriesOf counts what Waiting yields.
func entriesOf(t *testing.T, s *writebehind.Store[int]) (n int) {
	t.Helper()
	for _, err := range s.Waiting(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// TestForeignDueWhileItFails has the place of what is due taken by another type while a call is under way: the settlement,
// of a write that was made, made again meanwhile or refused, is tried until the place is free, and nothing is forgotten.
func TestForeignDueWhileItFails(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string]error{"done": nil, "failed": errors.New("no")} {
		for _, again := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := valkeytest.Start(t).Client()
				var calls, failed atomic.Int64
				var last atomic.Int64
				begun, proceed := make(chan struct{}), make(chan struct{})
				cfg := writebehind.Config[int]{
					Partitions: 1, Window: time.Millisecond, Backoff: time.Millisecond, CallTimeout: time.Minute,
					Origin: func(_ context.Context, batch []writebehind.Write[int]) error {
						if calls.Add(1) == 1 {
							close(begun)
							<-proceed
							return answers
						}
						last.Store(int64(batch[0].Value))
						return nil
					},
					Hooks: writebehind.Hooks{Error: func(op string, _ error) {
						if op == "ack" || op == "fail" {
							failed.Add(1)
						}
					}},
				}
				s := newStore(t, c, cfg)
				put(t, s, "k", 1)
				if err := s.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				<-begun
				if again {
					put(t, s, "k", 2)
				}
				due := "fr:behind:{default:0}:due"
				if err := c.Do(t.Context(), c.B().Set().Key(due).Value("foreign").Build()).Error(); err != nil {
					t.Fatal(err)
				}
				close(proceed)
				if again || answers != nil {
					until(t, func() bool { return failed.Load() > 1 })
				}
				if err := c.Do(t.Context(), c.B().Del().Key(due).Build()).Error(); err != nil {
					t.Fatal(err)
				}
				until(t, func() bool { return entriesOf(t, s) == 0 })
				want := int64(0)
				if again {
					want = 2
				} else if answers != nil {
					want = 1
				}
				if last.Load() != want {
					t.Errorf("the origin got %d last, not %d", last.Load(), want)
				}
			})
		}
	}
}

// TestForeignEntry holds that a write replaces what lies in its key's entry and is none.
func TestForeignEntry(t *testing.T) {
	t.Parallel()
	c := valkeytest.Start(t).Client()
	var o tally
	s := newStore(t, c, writebehind.Config[int]{Partitions: 1, Window: time.Millisecond, Origin: o.write})
	entries := c.B().Hset().Key("fr:behind:{default:0}:log").FieldValue()
	for k, junk := range map[string]string{"empty": "", "text": "junk", "half": "0 0", "bytes": "\xff"} {
		entries = entries.FieldValue("."+k, junk)
	}
	if err := c.Do(t.Context(), entries.Build()).Error(); err != nil {
		t.Fatal(err)
	}
	for i, k := range []string{"empty", "text", "half", "bytes"} {
		if err := s.Put(t.Context(), k, i); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return o.has() == 4 })
}

// TestReplayThatFails holds that a dead letter stays if it can't be written again.
func TestReplayThatFails(t *testing.T) {
	t.Parallel()
	c := valkeytest.Start(t).Client()
	o := tally{fail: writebehind.Permanent(errors.New("no"))}
	s := newStore(t, c, writebehind.Config[int]{Partitions: 1, Window: time.Millisecond, Origin: o.write})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, s, "k", 1)
	until(t, func() bool { return count(t, s).Dead == 1 })
	o.mu.Lock()
	o.fail = nil
	o.mu.Unlock()
	for _, place := range []string{"due", "log"} {
		at, kept := "fr:behind:{default:0}:"+place, "fr:behind:{default:0}:kept"
		_ = c.Do(t.Context(), c.B().Rename().Key(at).Newkey(kept).Build()).Error() // due may not be there
		if err := c.Do(t.Context(), c.B().Set().Key(at).Value("foreign").Build()).Error(); err != nil {
			t.Fatal(err)
		}
		if done, err := s.Replay(t.Context(), "k", 0); err == nil {
			t.Errorf("%s of another type: %v", place, done)
		}
		if err := c.Do(t.Context(), c.B().Del().Key(at).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		_ = c.Do(t.Context(), c.B().Rename().Key(kept).Newkey(at).Build()).Error()
		if n := count(t, s).Dead; n != 1 {
			t.Fatalf("%s of another type: %d letters are left", place, n)
		}
	}
	if done, err := s.Replay(t.Context(), "k", 0); err != nil || !done {
		t.Errorf("%v, %v", done, err)
	}
	until(t, func() bool { return o.has() == 1 })
}

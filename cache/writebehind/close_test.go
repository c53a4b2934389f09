package writebehind_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/flatrate/flatrate/valkeytest"
)

// tally is an origin that counts the writes of each key.
type tally struct {
	mu   sync.Mutex
	rows map[string]int
	fail error
}

func (o *tally) write(_ context.Context, batch []writebehind.Write[int]) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		return o.fail
	}
	if o.rows == nil {
		o.rows = map[string]int{}
	}
	for _, w := range batch {
		o.rows[w.Key]++
	}
	return nil
}

func (o *tally) has() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.rows)
}

// TestClose holds that what waits for an hour goes to the origin at once, and that others may go on at once.
func TestClose(t *testing.T) {
	t.Parallel()
	client := valkeytest.Start(t).Client()
	var o tally
	cfg := writebehind.Config[int]{Window: time.Hour, Lease: time.Hour, Batch: 10, Origin: o.write}
	s := newStore(t, client, cfg)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for k := range 500 {
		put(t, s, strconv.Itoa(k), k)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o.has() != 500 || count(t, s).Waiting != 0 {
		t.Errorf("%d reached the origin, %+v", o.has(), count(t, s))
	}
	for _, err := range []error{s.Put(t.Context(), "k", 1), s.Delete(t.Context(), "k"), s.Start(t.Context())} {
		if !errors.Is(err, writebehind.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
	heir := newStore(t, client, cfg)
	if err := heir.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return count(t, heir).Drained == 16 })
	unused := newStore(t, client, cfg)
	if err := unused.Close(t.Context()); err != nil {
		t.Errorf("of a store that did not start: %v", err)
	}
}

// TestCloseWithoutOrigin holds that Close comes back while the origin takes nothing, says so, and loses nothing.
func TestCloseWithoutOrigin(t *testing.T) {
	t.Parallel()
	client := valkeytest.Start(t).Client()
	o := tally{fail: errors.New("connection refused")}
	cfg := writebehind.Config[int]{Window: 100 * time.Millisecond, Origin: o.write, Attempts: 2}
	s := newStore(t, client, cfg)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for k := range 50 {
		put(t, s, strconv.Itoa(k), k)
	}
	if err := s.Close(t.Context()); err == nil || err.Error() != "writebehind: close: 50 keys still wait in the log" {
		t.Errorf("%v", err)
	}
	o.fail = nil
	heir := newStore(t, client, cfg)
	if err := heir.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return o.has() == 50 })
}

// TestHangingOrigin has an origin that heeds no context for one key: the others pass, and Close comes back.
func TestHangingOrigin(t *testing.T) {
	t.Parallel()
	client := valkeytest.Start(t).Client()
	var o tally
	release := make(chan struct{})
	var stuck atomic.Int64
	s := newStore(t, client, writebehind.Config[int]{
		Window: 10 * time.Millisecond, Partitions: 1, CallTimeout: 50 * time.Millisecond, Backoff: 10 * time.Millisecond, MaxBackoff: 20 * time.Millisecond,
		Hooks: writebehind.Hooks{Stuck: func(int) { stuck.Add(1) }},
		Origin: func(ctx context.Context, batch []writebehind.Write[int]) error {
			for _, w := range batch {
				if w.Key == "hangs" {
					<-release
				}
			}
			return o.write(ctx, batch)
		},
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, s, "hangs", 1)
	until(t, func() bool { return stuck.Load() > 0 })
	for k := range 100 {
		put(t, s, strconv.Itoa(k), k)
	}
	until(t, func() bool { return o.has() == 100 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err == nil {
		t.Error("Close hears of no key that waits")
	}
	close(release)
}

// TestStuckForGood has an origin of which no call returns: this process gives the partition up, another one goes on.
func TestStuckForGood(t *testing.T) {
	t.Parallel()
	client := valkeytest.Start(t).Client()
	release := make(chan struct{})
	defer close(release)
	ended := make(chan error, 100)
	cfg := writebehind.Config[int]{
		Window: 10 * time.Millisecond, Partitions: 1, Calls: 2, CallTimeout: 20 * time.Millisecond, Lease: 200 * time.Millisecond, Batch: 1,
		Backoff: 10 * time.Millisecond, MaxBackoff: 20 * time.Millisecond,
		Hooks:  writebehind.Hooks{Ended: func(_ int, err error) { ended <- err }},
		Origin: func(context.Context, []writebehind.Write[int]) error { <-release; return nil },
	}
	s := newStore(t, client, cfg)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for k := range 5 {
		put(t, s, strconv.Itoa(k), k)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it ended without a cause")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it holds the partition for ever")
	}
	var o tally
	cfg.Origin = o.write
	heir := newStore(t, client, cfg)
	if err := heir.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return o.has() == 5 })
}

// TestSlowSuccess has an origin that does its work, but says so after its time: nothing is lost or dead.
func TestSlowSuccess(t *testing.T) {
	t.Parallel()
	client := valkeytest.Start(t).Client()
	var o tally
	s := newStore(t, client, writebehind.Config[int]{
		Window: 10 * time.Millisecond, CallTimeout: 20 * time.Millisecond, Attempts: 1,
		Origin: func(ctx context.Context, batch []writebehind.Write[int]) error {
			<-ctx.Done()
			return o.write(ctx, batch)
		},
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for k := range 20 {
		put(t, s, strconv.Itoa(k), k)
	}
	until(t, func() bool { return count(t, s).Waiting == 0 })
	if all := count(t, s); o.has() != 20 || all.Dead != 0 {
		t.Errorf("%d reached the origin, %+v", o.has(), all)
	}
}

// TestServerAway kills, or stops, the server with writes in its log, and starts it again: calls come back, and all that
// was acknowledged reaches the origin.
func TestServerAway(t *testing.T) {
	for outage, f := range map[string][2]func(*valkeytest.Server){
		"killed": {(*valkeytest.Server).Kill, (*valkeytest.Server).Restart},
		"paused": {(*valkeytest.Server).Pause, (*valkeytest.Server).Resume},
	} {
		t.Run(outage, func(t *testing.T) {
			t.Parallel()
			server := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})
			var o tally
			s := newStore(t, server.Client(), writebehind.Config[int]{Window: 200 * time.Millisecond, Origin: o.write, Lease: 300 * time.Millisecond})
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			for k := range 200 {
				put(t, s, strconv.Itoa(k), k)
			}
			f[0](server)
			failed := make(chan error, 3)
			go func() { failed <- s.Put(context.Background(), "during", 1) }()
			go func() { _, err := s.Get(context.Background(), "0", nil); failed <- err }()
			go func() { _, err := s.Stats(context.Background()); failed <- err }()
			for range 3 {
				select {
				case err := <-failed:
					if err == nil || errors.Is(err, writebehind.ErrNotFound) {
						t.Errorf("a call without a server: %v", err)
					}
				case <-time.After(30 * time.Second):
					t.Fatal("a call did not come back")
				}
			}
			f[1](server)
			until(t, func() bool { return o.has() >= 200 })
			until(t, func() bool { return s.Put(t.Context(), "after", 1) == nil })
		})
	}
}

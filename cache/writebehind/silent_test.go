package writebehind_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/flatrate/flatrate/valkeytest"
)

type mute struct{ text string }

func (m *mute) Error() string { return m.text }

// TestErrorsThatSayNothing has an origin whose errors panic when they are asked what they are: the write fails as by a
// panic, and the process lives.
func TestErrorsThatSayNothing(t *testing.T) {
	t.Parallel()
	if err := writebehind.Permanent(nil); err != nil {
		t.Errorf("Permanent(nil) is %T", err)
	}
	for name, err := range map[string]error{
		"nil pointer": (*mute)(nil), "permanent": writebehind.Permanent((*mute)(nil)),
		"rejected": writebehind.Rejected{0: (*mute)(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			s := newStore(t, valkeytest.Start(t).Client(), writebehind.Config[int]{
				Partitions: 1, Window: time.Millisecond, Backoff: time.Millisecond,
				Origin: func(context.Context, []writebehind.Write[int]) error {
					if calls.Add(1) == 1 {
						return err
					}
					return nil
				},
			})
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			put(t, s, "k", 1)
			until(t, func() bool { all := count(t, s); return all.Done == 1 && all.Waiting == 0 })
			if calls.Load() != 2 {
				t.Errorf("%d calls", calls.Load())
			}
		})
	}
}

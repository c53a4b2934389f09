package lease_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
)

// TestGiveBack holds that what is done is not tried again, that what fails is given up, and that the
// end of the caller's context is not the end of the attempt.
func TestGiveBack(t *testing.T) {
	for _, test := range []struct{ doneAt, want int }{{1, 1}, {3, 3}, {100, 5}} {
		synctest.Test(t, func(t *testing.T) {
			ended, end := context.WithCancel(t.Context())
			end()
			tries := 0
			lease.GiveBack(ended, func(ctx context.Context) bool {
				tries++
				if tries == test.doneAt {
					return ctx.Err() == nil
				}
				<-ctx.Done() // the server is away
				return false
			})
			time.Sleep(time.Minute)
			synctest.Wait()
			if tries != test.want {
				t.Errorf("%d tries, want %d", tries, test.want)
			}
		})
	}
}

// TestGiveBackIsBounded lets very many calls fail at once: few are tried at a time, the others wait, and
// what is too much is dropped.
func TestGiveBackIsBounded(t *testing.T) {
	var running, most, tried atomic.Int64
	release := make(chan struct{})
	for range 20_000 {
		lease.GiveBack(context.Background(), func(context.Context) bool {
			most.Store(max(most.Load(), running.Add(1)))
			tried.Add(1)
			<-release
			running.Add(-1)
			return true
		})
	}
	close(release)
	for deadline := time.Now().Add(20 * time.Second); tried.Load() < 16_000 || running.Load() > 0; { // some of other tests may be under way
		if time.Now().After(deadline) {
			t.Fatalf("%d were tried", tried.Load())
		}
		runtime.Gosched()
	}
	if most.Load() > 256 || tried.Load() > 256+16_384 {
		t.Errorf("%d at a time, %d were tried", most.Load(), tried.Load())
	}
}

package lease_test

import (
	"context"
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

// TestGiveBackIsBounded lets thousands of calls fail at once.
func TestGiveBackIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running := make(chan struct{}, 5000)
		for range 5000 {
			lease.GiveBack(t.Context(), func(ctx context.Context) bool {
				running <- struct{}{}
				<-ctx.Done()
				return true
			})
		}
		synctest.Wait()
		if n := len(running); n > 1024 || n < 1000 { // one of another test may still be under way
			t.Errorf("%d at a time", n)
		}
		time.Sleep(time.Minute)
	})
}

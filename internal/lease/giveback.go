package lease

import (
	"context"
	"sync/atomic"
	"time"
)

// CleanUp bounds each attempt to give back what a caller who has gone may have taken.
const CleanUp = time.Second

const (
	attempts   = 5
	firstPause = 50 * time.Millisecond // between two attempts, doubling
)

const (
	together = 256    // how many give back at a time
	waiting  = 16_384 // and how many more wait for their turn
)

var (
	giving  = make(chan struct{}, together)
	backlog atomic.Int64
)

// GiveBack calls try in the background until it is done: at most five times in six seconds, each with a
// context of [CleanUp] that has the values of ctx but not its end. Where more than 16,384 wait for their
// turn, or one has waited for 30 s, the server is away: what they may have taken ends with its time to live.
func GiveBack(ctx context.Context, try func(context.Context) (done bool)) {
	if backlog.Add(1) > together+waiting {
		backlog.Add(-1)
		return
	}
	go func() {
		defer backlog.Add(-1)
		turn := time.NewTimer(30 * time.Second)
		defer turn.Stop()
		select {
		case giving <- struct{}{}:
		case <-turn.C:
			return
		}
		defer func() { <-giving }()
		pause := firstPause
		for attempt := 1; ; attempt++ {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), CleanUp)
			done := try(ctx)
			cancel()
			if done || attempt == attempts {
				return
			}
			time.Sleep(pause)
			pause *= 2
		}
	}()
}

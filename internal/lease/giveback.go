package lease

import (
	"context"
	"time"
)

// CleanUp bounds each attempt to give back what a caller who has gone may have taken.
const CleanUp = time.Second

const (
	attempts   = 5
	firstPause = 50 * time.Millisecond // between two attempts, doubling
)

// giving bounds how many give back at a time: where thousands of calls fail, the server is away, and
// what they may have taken ends with its time to live.
var giving = make(chan struct{}, 1024)

// GiveBack calls try in the background until it is done: at most five times in six seconds, each with a
// context of [CleanUp] that has the values of ctx but not its end.
func GiveBack(ctx context.Context, try func(context.Context) (done bool)) {
	select {
	case giving <- struct{}{}:
	default:
		return
	}
	go func() {
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

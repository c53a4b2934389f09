package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// areas are all there are, in the order in which they are listed. A new area is one file with one
// function that returns its Area, and one line here.
var areas = []Area{
	connectArea(),
	lockArea(),
	redlockArea(),
	cacheArea(),
	ratelimitArea(),
	sessionArea(),
	serveArea(),
	queueArea(),
}

// Area is a part of flatrate that is measured beside its peers.
type Area struct {
	// Name is the word on the command line, and the area in targets.csv.
	Name string
	// Rows starts what the rows need (valkeytest.StartWith(b, ...)) and returns them. None of it is timed.
	Rows func(ctx context.Context, b *B) []Row
}

// Row is one quantity, measured for flatrate and for its peers in alternating rounds.
type Row struct {
	// Name is the row in targets.csv; a row without a target there is for information.
	Name string
	// Unit is what a round returns, as in "ops/s" or "us".
	Unit string
	// Better is "higher" or "lower".
	Better string
	// Ours is flatrate.
	Ours Round
	// Peers are compared with ours one by one: a figure each, the ratio is ours to theirs. Without
	// peers there is one figure, versus "-", whose value stands for itself.
	Peers []Peer
}

// Peer is what flatrate is compared with.
type Peer struct {
	// Name is versus in targets.csv.
	Name  string
	Round Round
}

// Round measures once, for about d, and returns the quantity. The first round of each is a warm-up and
// is thrown away. A round whose work has a fixed size may take longer or shorter than d.
type Round func(ctx context.Context, d time.Duration) (float64, error)

// Throughput is a round in which so many callers repeat op, and that returns operations a second. Op is
// told which caller it is, from 0; the first error ends the round.
func Throughput(callers int, op func(ctx context.Context, caller int) error) Round {
	return func(ctx context.Context, d time.Duration) (float64, error) {
		n, took, err := drive(ctx, callers, d, op)
		return float64(n) / took.Seconds(), err
	}
}

// drive lets callers repeat op until d has passed and says how often it was done, and in what time.
func drive(ctx context.Context, callers int, d time.Duration, op func(context.Context, int) error) (int64, time.Duration, error) {
	var (
		done   atomic.Int64
		stop   atomic.Bool
		failed = make(chan error, callers)
		start  = make(chan struct{})
		wg     sync.WaitGroup
	)
	for caller := range callers {
		wg.Go(func() {
			<-start
			n := int64(0)
			defer func() { done.Add(n) }()
			for ; !stop.Load(); n++ {
				if err := op(ctx, caller); err != nil {
					failed <- err
					stop.Store(true)
					return
				}
			}
		})
	}
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	defer timer.Stop()
	begin := time.Now()
	close(start)
	wg.Wait()
	took := time.Since(begin)
	select {
	case err := <-failed:
		return 0, took, err
	default:
		return done.Load(), took, nil
	}
}

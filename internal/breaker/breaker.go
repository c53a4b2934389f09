// Package breaker remembers that a server is away, so that only the first call pays for finding out.
//
// A call that got no answer opens it. Then a probe asks again and again, at once and then with pauses of up to a
// quarter of a second, until the server answers; no other call is made meanwhile. A server that answers with errors
// counts as down too, but calls go on to it: they are what finds out that it decides again.
package breaker

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	leastTimeout = 250 * time.Millisecond // of a probe
	firstPause   = 10 * time.Millisecond  // between two probes, doubling ...
	lastPause    = 250 * time.Millisecond
	idle         = time.Minute // without calls, after which nobody is asked for any more
)

// Probe asks the server for anything: nil says that it has answered. It has to end some time after its context at
// the latest: one may be under way for so long.
type Probe func(ctx context.Context) error

// Breaker is closed while the server answers; the zero value is.
type Breaker struct {
	// Opened and Closed are optional, and called in turn, when the server counts as down and when no more.
	Opened func(err error)
	Closed func()
	// Timeout is for how long a call waits. A probe waits no less, and for a quarter of a second at least.
	Timeout time.Duration

	down    atomic.Pointer[outage]
	asked   atomic.Int64 // when Err was last called while open, ns since began
	probing atomic.Bool  // a suspicion is being looked into
}

type outage struct {
	err     error
	begin   time.Time
	refused bool // the server answers with errors: it is not open
}

// Err is nil if a call may be made, else why the server counts as away.
func (b *Breaker) Err() error {
	o := b.down.Load()
	if o == nil || o.refused {
		return nil
	}
	b.asked.Store(int64(time.Since(o.begin)))
	return o.err
}

// Open says that a call got no answer. Probing begins, and goes on in the background, until the server has answered
// or nobody has asked for a minute.
func (b *Breaker) Open(err error, probe Probe) {
	o := &outage{err: err, begin: time.Now()}
	b.asked.Store(0)
	for {
		before := b.down.Load()
		if before != nil && !before.refused {
			return
		}
		if b.down.CompareAndSwap(before, o) {
			if before == nil && b.Opened != nil {
				b.Opened(err)
			}
			go b.recover(o, probe)
			return
		}
	}
}

// Refuse says that a call was answered with an error.
func (b *Breaker) Refuse(err error) {
	if b.down.Load() == nil && b.down.CompareAndSwap(nil, &outage{err: err, refused: true}) && b.Opened != nil {
		b.Opened(err)
	}
}

// Answered says that a call was answered as it should be.
func (b *Breaker) Answered() {
	if o := b.down.Load(); o != nil && o.refused && b.down.CompareAndSwap(o, nil) && b.Closed != nil {
		b.Closed()
	}
}

// Suspect says that a call ended before the server had answered, for a reason that does not say whether
// it would have. One probe finds out.
func (b *Breaker) Suspect(probe Probe) {
	if b.Err() != nil || !b.probing.CompareAndSwap(false, true) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), b.patience())
		defer cancel()
		// The probe may go on for longer than its context: until it ends no other suspicion is looked into.
		stop := context.AfterFunc(ctx, func() { b.Open(ctx.Err(), probe) })
		err := probe(ctx)
		b.probing.Store(false)
		if stop() && err != nil {
			b.Open(err, probe)
		}
	}()
}

func (b *Breaker) recover(o *outage, probe Probe) {
	pause := firstPause
	for b.ask(probe) != nil {
		if time.Since(o.begin)-time.Duration(b.asked.Load()) > idle {
			break // the next call finds out by itself
		}
		time.Sleep(pause)
		pause = min(2*pause, lastPause)
	}
	b.down.Store(nil)
	if b.Closed != nil {
		b.Closed()
	}
}

func (b *Breaker) ask(probe Probe) error {
	ctx, cancel := context.WithTimeout(context.Background(), b.patience())
	defer cancel()
	return probe(ctx)
}

func (b *Breaker) patience() time.Duration { return max(leastTimeout, b.Timeout) }

// Package breaker remembers that a server is away, so that only the first call pays for finding out.
//
// A call that got no answer opens it. Then a probe asks again and again, at once and at most every
// quarter of a second, until the server answers; no other call is made meanwhile.
package breaker

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	probeTimeout = 250 * time.Millisecond
	firstPause   = 10 * time.Millisecond // between two probes, doubling ...
	lastPause    = 250 * time.Millisecond
	idle         = time.Minute // without calls, after which nobody is asked for any more
)

// Probe asks the server for anything: nil says that it has answered. It has to end with its context.
type Probe func(ctx context.Context) error

// Breaker is closed while the server answers; the zero value is.
type Breaker struct {
	// Opened and Closed are optional, and called when it is.
	Opened func(err error)
	Closed func()

	open    atomic.Pointer[outage]
	asked   atomic.Int64 // when Err was last called while open, ns since began
	probing atomic.Bool  // a suspicion is being looked into
}

type outage struct {
	err   error
	begin time.Time
}

// Err is nil if a call may be made, else why the server counts as away.
func (b *Breaker) Err() error {
	o := b.open.Load()
	if o == nil {
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
	if !b.open.CompareAndSwap(nil, o) {
		return
	}
	if b.Opened != nil {
		b.Opened(err)
	}
	go b.recover(o, probe)
}

// Suspect says that a call ended before the server had answered, for a reason that does not say whether
// it would have. One probe finds out.
func (b *Breaker) Suspect(probe Probe) {
	if b.open.Load() != nil || !b.probing.CompareAndSwap(false, true) {
		return
	}
	go func() {
		err := probe.once()
		b.probing.Store(false)
		if err != nil {
			b.Open(err, probe)
		}
	}()
}

func (b *Breaker) recover(o *outage, probe Probe) {
	pause := firstPause
	for probe.once() != nil {
		if time.Since(o.begin)-time.Duration(b.asked.Load()) > idle {
			break // the next call finds out by itself
		}
		time.Sleep(pause)
		pause = min(2*pause, lastPause)
	}
	b.open.Store(nil)
	if b.Closed != nil {
		b.Closed()
	}
}

func (p Probe) once() error {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	return p(ctx)
}

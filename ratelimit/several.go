package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Ask is one of the things that [AllowAll] asks for: Cost units for a subject. A Cost of zero means one.
type Ask struct {
	Limiter *Limiter
	Subject string
	Cost    int64
}

const cleanUp = time.Second // bounds what is given back after its caller may have gone

// AllowAll asks for several subjects at once, as for a user and for the user's organisation: all or
// none. The calls are made at the same time; if one is denied or fails, what the others were granted is
// given back, which others may have found missing for that moment. One round trip if all are granted, else
// two. The results are in the order of asks; allowed says whether all were granted.
//
// If giving back fails too, as when the server goes away in between, those units stay used.
func AllowAll(ctx context.Context, asks ...Ask) (results []Result, allowed bool, err error) {
	for i, a := range asks {
		if a.Limiter == nil {
			return nil, false, fmt.Errorf("ratelimit: Ask %d has no Limiter", i)
		}
		if a.Cost < 0 || a.Cost > MaxLimit {
			return nil, false, fmt.Errorf("ratelimit: Ask %d costs %d, not 0 to %d", i, a.Cost, int64(MaxLimit))
		}
	}
	results = make([]Result, len(asks))
	errs := make([]error, len(asks))
	each(asks, func(i int, a Ask) {
		results[i], errs[i] = a.Limiter.AllowN(ctx, a.Subject, max(1, a.Cost))
	})
	allowed = true
	for i := range results {
		allowed = allowed && results[i].Allowed && errs[i] == nil
	}
	if allowed {
		return results, true, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	each(asks, func(i int, a Ask) {
		if results[i].Allowed {
			_ = a.Limiter.giveBack(undo, a.Subject, results[i])
			results[i].Granted, results[i].token = 0, ""
		}
	})
	return results, false, errors.Join(errs...)
}

// each calls f for all asks at the same time.
func each(asks []Ask, f func(int, Ask)) {
	var all sync.WaitGroup
	for i, a := range asks[min(1, len(asks)):] {
		all.Go(func() { f(i+1, a) })
	}
	if len(asks) > 0 {
		f(0, asks[0])
	}
	all.Wait()
}

// giveBack undoes an admission: its units and its place.
func (l *Limiter) giveBack(ctx context.Context, subject string, r Result) error {
	_, err := l.Release(ctx, subject, r)
	return errors.Join(err, l.Refund(ctx, subject, r, r.Granted))
}

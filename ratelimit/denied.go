package ratelimit

import (
	"slices"
	"sync"
	"time"
)

const shardSubjects = 1024 // remembered in each shard, so 65,536 in all

// denials are the subjects that the server has denied one unit until a time that is not over: none can be admitted
// before, but for a refund or a reset. When several can be, that time does not say.
type denials struct {
	most   time.Duration // zero remembers nothing
	shards [shards]struct {
		sync.Mutex
		epoch    int64 // of what this process gave back
		subjects map[string]denial
	}
}

type denial struct {
	Result
	since, until time.Time
}

// find answers for the server, if it is known what that would say.
func (d *denials) find(subject string) (Result, bool) {
	if d.most == 0 {
		return Result{}, false
	}
	now := time.Now()
	s := &d.shards[shardOf(subject)]
	s.Lock()
	known, ok := s.subjects[subject]
	if ok && !now.Before(known.until) {
		delete(s.subjects, subject)
		ok = false
	}
	s.Unlock()
	if !ok {
		return Result{}, false
	}
	return known.later(now.Sub(known.since)), true
}

// later is what a result says some time after it was given, if nothing else happened.
func (r Result) later(by time.Duration) Result {
	less := func(d time.Duration) time.Duration {
		if d == Never {
			return d
		}
		return max(0, d-by)
	}
	r.ResetAfter, r.RetryAfter = less(r.ResetAfter), less(r.RetryAfter)
	if r.limits != nil {
		r.limits = slices.Clone(r.limits)
		for i := range r.limits {
			r.limits[i].ResetAfter, r.limits[i].RetryAfter = less(r.limits[i].ResetAfter), less(r.limits[i].RetryAfter)
		}
	}
	return r
}

// epoch has to be taken before the server is asked.
func (d *denials) epoch(subject string) int64 {
	if d.most == 0 {
		return 0
	}
	s := &d.shards[shardOf(subject)]
	s.Lock()
	defer s.Unlock()
	return s.epoch
}

// put remembers that one unit was denied, by an answer to a call that was sent at a time. It is not
// remembered if something was given back since the epoch was taken.
func (d *denials) put(subject string, epoch int64, sent time.Time, r Result) {
	if d.most == 0 || r.RetryAfter == Never {
		return
	}
	// By this clock the server's time passes from the sending on at the earliest; the two may differ a
	// little in speed.
	until := sent.Add(min(d.most, r.RetryAfter-r.RetryAfter/128))
	r.Mode = ModeDenied
	s := &d.shards[shardOf(subject)]
	s.Lock()
	defer s.Unlock()
	if s.epoch != epoch {
		return
	}
	if s.subjects == nil {
		s.subjects = map[string]denial{}
	}
	if len(s.subjects) >= shardSubjects {
		makeRoom(s.subjects, func(d denial) bool { return sent.After(d.until) })
		if len(s.subjects) >= shardSubjects {
			return // the server remembers
		}
	}
	s.subjects[subject] = denial{r, sent, until}
}

// makeRoom removes what is over among a few entries, which a map returns in any order.
func makeRoom[V any](m map[string]V, over func(V) bool) {
	looked := 0
	for subject, v := range m {
		if over(v) {
			delete(m, subject)
		}
		if looked++; looked == 16 {
			return
		}
	}
}

// forget is called after this process has given something back.
func (d *denials) forget(subject string) {
	if d.most == 0 {
		return
	}
	s := &d.shards[shardOf(subject)]
	s.Lock()
	defer s.Unlock()
	s.epoch++
	delete(s.subjects, subject)
}

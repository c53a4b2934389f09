package ratelimit

import (
	"sync"
	"time"
)

// batches are units that were taken from the server in advance, for subjects that are busy: a subject
// begins with none, and each time that it has used up what it had before it was over, it gets twice as
// much, up to most. What it leaves over is given back with its next call.
type batches struct {
	most   int64
	keep   time.Duration
	rules  []rule
	shards [shards]struct {
		sync.Mutex
		subjects map[string]*taken
	}
}

// taken is what a subject has.
type taken struct {
	left     int64
	size     int64 // of the last batch
	until    time.Time
	fetching bool // a caller is asking for the next one
	result   Result
	since    time.Time // of result
}

func (b *batches) begin(most int64, keep time.Duration, rules []rule) {
	b.most, b.keep, b.rules = most, keep, rules
}

// take answers from a batch.
func (b *batches) take(subject string, cost int64) (Result, bool) {
	if b.most == 0 {
		return Result{}, false
	}
	now := time.Now()
	s := &b.shards[shardOf(subject)]
	s.Lock()
	t := s.subjects[subject]
	if t == nil || t.left < cost || !now.Before(t.until) {
		s.Unlock()
		return Result{}, false
	}
	t.left -= cost
	r, left, since := t.result, t.left, t.since
	s.Unlock()
	r.Granted = cost
	r.Remaining += left
	r = r.later(now.Sub(since))
	for i := range r.limits {
		r.limits[i].Remaining += left
	}
	return r, true
}

// want returns where a batch goes that this caller takes along, and puts it on its item; nil if it takes
// none. Then put or failed has to be called.
func (b *batches) want(subject string, cost int64, it *item) *taken {
	if b.most == 0 || cost > b.most {
		return nil
	}
	now := time.Now()
	s := &b.shards[shardOf(subject)]
	s.Lock()
	defer s.Unlock()
	t := s.subjects[subject]
	if t == nil {
		if s.subjects == nil {
			s.subjects = map[string]*taken{}
		}
		if len(s.subjects) >= shardSubjects {
			makeRoom(s.subjects, func(t *taken) bool { return !t.fetching && now.After(t.until) })
			if len(s.subjects) >= shardSubjects {
				return nil
			}
		}
		t = &taken{}
		s.subjects[subject] = t
	}
	if t.fetching {
		return nil
	}
	t.fetching = true
	switch {
	case t.size == 0:
		t.size = 1
	case now.Before(t.until):
		t.size = min(b.most, 2*t.size)
	default:
		t.size = max(1, t.size/4)
	}
	if t.left > 0 {
		it.before = run{t.left, -t.result.at}
		t.left = 0
	}
	it.extra = t.size - 1
	return t
}

// failed says that a batch did not come.
func (b *batches) failed(subject string, t *taken) {
	s := &b.shards[shardOf(subject)]
	s.Lock()
	defer s.Unlock()
	t.fetching = false
}

// put keeps units that came with a result, of a call that was sent at a time. After a reset nobody finds
// them any more.
func (b *batches) put(subject string, t *taken, sent time.Time, units int64, r Result) {
	keep := b.keep
	for i := range b.rules {
		if a := b.rules[i].Algorithm; a == FixedWindow || a == Quota { // such units end with their window
			keep = min(keep, r.limitReset(i))
		}
	}
	r.Mode = ModeBatch
	r.Remaining = max(0, r.Remaining-units)
	for i := range r.limits {
		r.limits[i].Remaining = max(0, r.limits[i].Remaining-units)
	}
	s := &b.shards[shardOf(subject)]
	s.Lock()
	defer s.Unlock()
	t.fetching = false
	t.left, t.until, t.result, t.since = units, sent.Add(keep), r, sent
}

func (r *Result) limitReset(i int) time.Duration {
	if r.limits != nil {
		return r.limits[i].ResetAfter
	}
	return r.ResetAfter
}

// forget drops what a subject has, without giving it back.
func (b *batches) forget(subject string) {
	if b.most == 0 {
		return
	}
	s := &b.shards[shardOf(subject)]
	s.Lock()
	defer s.Unlock()
	delete(s.subjects, subject)
}

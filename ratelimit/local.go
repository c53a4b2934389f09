package ratelimit

import (
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	localSubjects = 65_536
	localToken    = "local:"
)

// localShares are what this process may admit by itself while the server is away: of each limit that has
// OutageLocal its share, in windows that begin with the first request in them; the others are open. Above so many subjects
// those that are new share one count, so that memory stays bounded and no limit is lifted.
type localShares struct {
	rules  []localRule
	mu     sync.Mutex
	counts map[string][]localCount
	swept  time.Time
}

type localRule struct {
	name   string
	share  int64
	most   int64         // the largest cost that the limit ever admits
	window time.Duration // or the lease of a place
	places bool
	open   bool // counts nothing
}

type localCount struct {
	used   int64
	until  time.Time
	places []localPlace
}

type localPlace struct {
	token string
	until time.Time
}

func (s *localShares) begin(processes int, rules []rule) {
	s.counts = map[string][]localCount{}
	for _, r := range rules {
		one := localRule{name: r.Name, share: r.Limit.Limit / int64(max(1, processes)), most: r.most, window: r.Window}
		if r.Outage != OutageLocal {
			one.share, one.open = r.full(), true
		}
		switch r.Algorithm {
		case Concurrency:
			one.window, one.places = r.Lease, true
		case Quota:
			one.window = map[Period]time.Duration{Day: 24 * time.Hour, Week: 7 * 24 * time.Hour, Month: 31 * 24 * time.Hour}[r.Period]
		}
		s.rules = append(s.rules, one)
	}
}

// decide is Limiter.ask for one process.
func (s *localShares) decide(subject string, cost, count int64) Result {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := s.find(subject, now)
	n := count
	for i, rule := range s.rules {
		if rule.open {
			continue
		}
		counts[i].refresh(now, rule.window)
		if left := counts[i].left(rule); rule.places {
			n = min(n, left*count) // a place, whatever the cost
		} else {
			n = min(n, left/cost)
		}
	}
	r := Result{Mode: ModeLocal, Allowed: n > 0, Granted: n * cost}
	if n > 0 {
		r.token = s.charge(counts, now, n*cost)
	}
	s.say(&r, counts, now, cost, count)
	if count == 0 {
		r.Allowed = r.RetryAfter == 0
	}
	return r
}

func (s *localShares) charge(counts []localCount, now time.Time, units int64) (token string) {
	for i, rule := range s.rules {
		if rule.open {
			continue
		}
		if rule.places {
			token = localToken + rand.Text()
			counts[i].places = append(counts[i].places, localPlace{token, now.Add(rule.window)})
		} else {
			counts[i].used += units
		}
	}
	return token
}

// say fills in what a result says of the limits.
func (s *localShares) say(r *Result, counts []localCount, now time.Time, cost, count int64) {
	if len(s.rules) > 1 {
		r.limits = make([]LimitResult, 0, len(s.rules))
	}
	for i, rule := range s.rules {
		left := counts[i].left(rule)
		one := LimitResult{Name: rule.name, Limit: rule.share, Remaining: left, ResetAfter: counts[i].ends(now)}
		need := cost
		if rule.places {
			need = 1
		}
		if !rule.open && (!r.Allowed || count == 0) {
			switch {
			case need > rule.most:
				one.RetryAfter = Never
			case need > rule.share: // the server may admit it
				one.RetryAfter = closedRetry
			case need > left:
				one.RetryAfter = counts[i].next(now)
			}
		}
		if one.RetryAfter > 0 {
			r.Violated = append(r.Violated, rule.name)
		}
		if i == 0 || one.RetryAfter > r.RetryAfter || one.RetryAfter == r.RetryAfter && tighter(one, *r) {
			r.Name, r.Limit, r.Remaining, r.ResetAfter, r.RetryAfter = one.Name, one.Limit, one.Remaining, one.ResetAfter, one.RetryAfter
		}
		if len(s.rules) > 1 {
			r.limits = append(r.limits, one)
		}
	}
}

func (c *localCount) refresh(now time.Time, window time.Duration) {
	if !now.Before(c.until) {
		c.used, c.until = 0, now.Add(window)
	}
	c.places = slices.DeleteFunc(c.places, func(p localPlace) bool { return !now.Before(p.until) })
}

func (c *localCount) left(r localRule) int64 {
	if r.places {
		return max(0, min(1, r.share-int64(len(c.places))))
	}
	return max(0, r.share-c.used)
}

// ends is how long until nothing is used any more.
func (c *localCount) ends(now time.Time) time.Duration {
	if n := len(c.places); n > 0 {
		return c.places[n-1].until.Sub(now)
	}
	return max(0, c.until.Sub(now))
}

// next is how long until something comes back.
func (c *localCount) next(now time.Time) time.Duration {
	if len(c.places) > 0 {
		return c.places[0].until.Sub(now)
	}
	return c.ends(now)
}

// find returns the counts of a subject, or those that all share for whom there is no room.
func (s *localShares) find(subject string, now time.Time) []localCount {
	if counts := s.counts[subject]; counts != nil {
		return counts
	}
	if len(s.counts) >= localSubjects && now.Sub(s.swept) > time.Second {
		s.swept = now
		for subject, counts := range s.counts {
			if !slices.ContainsFunc(counts, func(c localCount) bool {
				return now.Before(c.until) || len(c.places) > 0 && now.Before(c.places[len(c.places)-1].until)
			}) {
				delete(s.counts, subject)
			}
		}
	}
	if len(s.counts) >= localSubjects {
		if counts := s.counts[shared]; counts != nil {
			return counts
		}
		subject = shared
	}
	counts := make([]localCount, len(s.rules))
	s.counts[subject] = counts
	return counts
}

// shared is a subject that no caller can name by accident.
const shared = "\x00 all for whom there was no room"

// release gives up a place that was given here.
func (s *localShares) release(subject, token string) (held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, subject := range []string{subject, shared} {
		counts := s.counts[subject]
		for i := range counts {
			before := len(counts[i].places)
			counts[i].places = slices.DeleteFunc(counts[i].places, func(p localPlace) bool { return p.token == token })
			held = held || len(counts[i].places) < before
		}
	}
	return held
}

func isLocal(token string) bool { return strings.HasPrefix(token, localToken) }

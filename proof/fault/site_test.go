package fault

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// site is a name as the checker sees it from outside the library: who works under its lock, and the
// history of it.
type site struct {
	mu       sync.Mutex
	epoch    time.Time
	inside   map[int]*visit
	acquired int
	fence    uint64
	overlaps int           // times that somebody came in while the lock of another was live
	longest  time.Duration // that two locks were live
	refused  int           // fences that did not grow
	history  []porcupine.Operation
}

// visit is one holder at a site.
type visit struct {
	site   *site
	id     int
	held   context.Context
	beside time.Time // since when another is there too
}

// enter tells that a call of acquire, begun at begin, has returned a lock with a fence (0 if the
// library has none) and a context that says whether it is live.
func (s *site) enter(begin time.Time, held context.Context, fence uint64) *visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inside == nil {
		s.inside, s.epoch = map[int]*visit{}, begin
	}
	now := time.Now()
	s.acquired++
	v := &visit{site: s, id: s.acquired, held: held}
	for _, other := range s.inside {
		if other.held.Err() == nil {
			s.overlaps++
			if other.beside.IsZero() {
				other.beside = now
			}
		}
	}
	s.inside[v.id] = v
	if fence != 0 && fence <= s.fence {
		s.refused++
	}
	s.fence = max(s.fence, fence)
	s.history = append(s.history, porcupine.Operation{
		Input: lockInput{}, Call: s.at(begin), Output: lockOutput{ok: true, token: v.id, fence: fence}, Return: s.at(now),
	})
	return v
}

// leave tells that the holder has stopped working. The history takes its lock as given back from now on,
// at whatever time the server heard of it.
func (v *visit) leave() {
	s := v.site
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inside, v.id)
	now := time.Now()
	if !v.beside.IsZero() {
		s.longest = max(s.longest, now.Sub(v.beside))
	}
	s.history = append(s.history, porcupine.Operation{
		Input: lockInput{release: true, token: v.id}, Call: s.at(now), Output: lockOutput{ok: true}, Return: math.MaxInt64,
	})
}

// served is how often the name was acquired so far.
func (s *site) served() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acquired
}

func (s *site) at(t time.Time) int64 { return t.Sub(s.epoch).Nanoseconds() }

// linearizable asks the checker of histories for an order in which a mutex, with a fence that grows,
// would have answered the same.
func (s *site) linearizable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return porcupine.CheckOperationsTimeout(mutexModel, s.history, time.Minute) == porcupine.Ok
}

// sites are the names of one run.
type sites []*site

func newSites(n int) sites {
	all := make(sites, n)
	for i := range all {
		all[i] = &site{}
	}
	return all
}

// counts is what a run has seen.
type counts struct {
	faults                      int64
	acquired, overlaps, refused int
	longest                     time.Duration
	stuck, passedOver           int64 // waits of more than patience; while others were served
}

func (all sites) counts() (c counts) {
	for _, s := range all {
		s.mu.Lock()
		c.acquired, c.overlaps, c.refused = c.acquired+s.acquired, c.overlaps+s.overlaps, c.refused+s.refused
		c.longest = max(c.longest, s.longest)
		s.mu.Unlock()
	}
	return c
}

func (c counts) String() string {
	return fmt.Sprintf("%d acquisitions, %d overlaps (longest %v), %d fences that did not grow, waits of more than %v: %d with nobody served, %d passed over",
		c.acquired, c.overlaps, c.longest.Round(time.Millisecond), c.refused, patience, c.stuck, c.passedOver)
}

// mustExclude fails the test if two held a name at once, by the count or by the history.
func (all sites) mustExclude(t *testing.T) {
	t.Helper()
	c := all.counts()
	if c.overlaps != 0 || c.refused != 0 || c.acquired == 0 {
		t.Errorf("%d overlaps, %d fences that did not grow, in %d acquisitions", c.overlaps, c.refused, c.acquired)
	}
	for i, s := range all {
		if !s.linearizable() {
			t.Errorf("the history of name %d (%d operations) is not that of a mutex", i, len(s.history))
		}
	}
}

// TestSiteCanFail shows the checker two live holders, and one that stopped in time.
func TestSiteCanFail(t *testing.T) {
	live, ended := t.Context(), endedContext()
	for name, test := range map[string]struct {
		first context.Context
		want  int
	}{"the first is live": {live, 1}, "the first has ended": {ended, 0}} {
		s := &site{}
		a := s.enter(time.Now(), test.first, 1)
		if test.first == ended {
			a.leave()
		}
		b := s.enter(time.Now(), live, 2)
		if test.first == live {
			a.leave()
		}
		b.leave()
		if s.overlaps != test.want || s.linearizable() != (test.want == 0) {
			t.Errorf("%s: %d overlaps, linearizable %v", name, s.overlaps, s.linearizable())
		}
	}
	s := &site{}
	s.enter(time.Now(), live, 7).leave()
	s.enter(time.Now(), live, 7).leave()
	if s.refused != 1 || s.linearizable() {
		t.Errorf("the same fence twice: %d refused, linearizable %v", s.refused, s.linearizable())
	}
}

func endedContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

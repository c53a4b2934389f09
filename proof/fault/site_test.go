package fault

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
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
	overlaps int           // locks that were live when somebody else came in
	stalled  int           // the same, while this process was stalled: nobody promises anything to those
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

// enter tells that a call of acquire, begun at begin, has returned a lock.
func (s *site) enter(begin time.Time, g *grip) *visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inside == nil {
		s.inside, s.epoch = map[int]*visit{}, begin
	}
	now := time.Now()
	s.acquired++
	v := &visit{site: s, id: s.acquired, held: g.held}
	for _, other := range s.inside {
		if other.held.Err() == nil {
			if other.beside.IsZero() {
				other.beside = now
			}
		}
	}
	s.inside[v.id] = v
	if g.fence != 0 && g.fence <= s.fence {
		s.refused++
	}
	s.fence = max(s.fence, g.fence)
	s.history = append(s.history, porcupine.Operation{
		Input: lockInput{}, Call: s.at(begin), Output: lockOutput{ok: true, token: v.id, fence: g.fence}, Return: s.at(now),
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
	stopped := now
	switch {
	case v.beside.IsZero():
	case late.during(v.beside.Add(-100*time.Millisecond), now, now.Sub(v.beside)):
		s.stalled++
		stopped = v.beside.Add(-1) // when its context would have ended
	default:
		s.overlaps++
		s.longest = max(s.longest, now.Sub(v.beside))
	}
	s.history = append(s.history, porcupine.Operation{
		Input: lockInput{release: true, token: v.id}, Call: s.at(stopped), Output: lockOutput{ok: true}, Return: math.MaxInt64,
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
	stalled                     int
	longest                     time.Duration
	stuck, passedOver           int64 // waits of more than patience; while others were served
}

func (all sites) counts() (c counts) {
	for _, s := range all {
		s.mu.Lock()
		c.acquired, c.overlaps, c.refused = c.acquired+s.acquired, c.overlaps+s.overlaps, c.refused+s.refused
		c.longest, c.stalled = max(c.longest, s.longest), c.stalled+s.stalled
		s.mu.Unlock()
	}
	return c
}

func (c counts) String() string {
	return fmt.Sprintf("%d acquisitions, %d overlaps (longest %v) and %d while the test itself was stalled, %d fences that did not grow, waits of more than %v: %d with nobody served, %d passed over",
		c.acquired, c.overlaps, c.longest.Round(time.Millisecond), c.stalled, c.refused, patience, c.stuck, c.passedOver)
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

// lateness keeps when timers of this process fired late, and by how much: on a machine that is full, the
// holder's context ends late too, as that of a process which is paused does. It also keeps by how much the
// machine's wall clock, which is the servers', has stepped: a virtual machine's does so after a pause.
type lateness struct {
	mu     sync.Mutex
	events []lateEvent
}

type lateEvent struct {
	at   time.Time // when it fired
	by   time.Duration
	step bool // of the clock; leases that were granted before end early
}

var late lateness

// watch sets timers until ctx ends.
func (l *lateness) watch(ctx context.Context) {
	for range 2 * runtime.GOMAXPROCS(0) { // the runtime keeps timers for each processor apart
		go func() {
			for ctx.Err() == nil {
				const each = time.Millisecond
				begin := time.Now()
				<-time.After(each)
				now := time.Now()
				took := now.Sub(begin) // by the monotonic clock
				l.add(lateEvent{at: now, by: took - each})
				l.add(lateEvent{at: now, by: (now.Round(0).Sub(begin.Round(0)) - took).Abs(), step: true})
			}
		}()
	}
}

func (l *lateness) add(e lateEvent) {
	if e.by > 2*time.Millisecond {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.events = append(l.events, e)
	}
}

// during tells whether a timer that fired between two moments was late by as much as d, or the clock had
// stepped by as much while the leases of then were granted.
func (l *lateness) during(from, to time.Time, d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.events, func(e lateEvent) bool {
		since := from
		if e.step {
			since = from.Add(-2 * time.Second) // longer than the leases of these runs
		}
		return e.at.After(since) && e.at.Add(-e.by).Before(to) && e.by >= d
	})
}

// TestSiteCanFail shows the checker two live holders, and one that stopped in time.
func TestSiteCanFail(t *testing.T) {
	live, ended := t.Context(), endedContext()
	for name, test := range map[string]struct {
		first context.Context
		want  int
	}{"the first is live": {live, 1}, "the first has ended": {ended, 0}} {
		s := &site{}
		a := s.enter(time.Now(), &grip{held: test.first, fence: 1})
		if test.first == ended {
			a.leave()
		}
		b := s.enter(time.Now(), &grip{held: live, fence: 2})
		if test.first == live {
			a.leave()
		}
		b.leave()
		if s.overlaps != test.want || s.linearizable() != (test.want == 0) {
			t.Errorf("%s: %d overlaps, linearizable %v", name, s.overlaps, s.linearizable())
		}
	}
	stall := &site{}
	a := stall.enter(time.Now(), &grip{held: live, fence: 1})
	stall.enter(time.Now(), &grip{held: live, fence: 2}).leave()
	late.events = []lateEvent{{at: time.Now(), by: time.Minute}}
	a.leave()
	late.events = nil
	if stall.overlaps != 0 || stall.stalled != 1 || !stall.linearizable() {
		t.Errorf("stalled: %d overlaps, %d stalled", stall.overlaps, stall.stalled)
	}
	s := &site{}
	s.enter(time.Now(), &grip{held: live, fence: 7}).leave()
	s.enter(time.Now(), &grip{held: live, fence: 7}).leave()
	if s.refused != 1 || s.linearizable() {
		t.Errorf("the same fence twice: %d refused, linearizable %v", s.refused, s.linearizable())
	}
}

func endedContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

package ratelimittest

import (
	"math/big"
	"slices"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
)

// model is a limit as its documentation describes it, in the plainest way: it keeps every unit with its
// time. Times are Unix microseconds of the server's clock.
type model struct {
	limit ratelimit.Limit
	used  []use
	level *big.Int // of a bucket: what is missing in it, at the tick of its time; see bucket
	tick  *big.Int
}

// use is n units, or one place, and where they count: their time in ms, the index of a part, a window
// or a period, or the end of a lease.
type use struct {
	n, at int64
	token any
}

// said is what a limit says after a decision.
type said struct {
	left       int64
	all, retry time.Duration
}

const ms = time.Millisecond

func (m *model) window() int64 { return m.limit.Window.Milliseconds() }

// part is the length of a part of a sliding window.
func (m *model) part() int64 { return (m.window() + 59) / 60 }

// index is where units that are used at a time in ms count.
func (m *model) index(now int64) int64 {
	switch m.limit.Algorithm {
	case ratelimit.FixedWindow:
		return now / m.window()
	case ratelimit.SlidingWindow:
		return now / m.part()
	case ratelimit.Quota:
		begin, _ := period(m.limit, now)
		return begin
	case ratelimit.Concurrency:
		return now + m.limit.Lease.Milliseconds()
	}
	return now
}

// ends is when units that count there leave, in ms.
func (m *model) ends(at int64) int64 {
	switch m.limit.Algorithm {
	case ratelimit.FixedWindow:
		return (at + 1) * m.window()
	case ratelimit.SlidingWindow:
		return (at+1)*m.part() + m.window()
	case ratelimit.Quota:
		_, end := period(m.limit, at)
		return end
	case ratelimit.Concurrency:
		return at
	}
	return at + m.window()
}

// period is the calendar's, by package time: its begin and its end, in ms.
func period(l ratelimit.Limit, now int64) (begin, end int64) {
	t := time.UnixMilli(now).UTC().Add(-l.Offset)
	from := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	to := from.AddDate(0, 0, 1)
	switch l.Period {
	case ratelimit.Week:
		from = from.AddDate(0, 0, -int(t.Weekday()+6)%7)
		to = from.AddDate(0, 0, 7)
	case ratelimit.Month:
		from = from.AddDate(0, 0, 1-t.Day())
		to = from.AddDate(0, 1, 0)
	}
	return from.Add(l.Offset).UnixMilli(), to.Add(l.Offset).UnixMilli()
}

// stepBack returns the uses as they count at now: if the clock is behind the newest, all move with it.
func (m *model) stepBack(now int64) []use {
	if len(m.used) == 0 {
		return nil
	}
	moved := slices.Clone(m.used)
	back := m.newest(m.used) - m.index(now)
	if back <= 0 {
		return moved
	}
	for i := range moved {
		switch m.limit.Algorithm {
		case ratelimit.FixedWindow, ratelimit.Quota, ratelimit.Concurrency:
			moved[i].at = min(moved[i].at, m.index(now))
		default:
			moved[i].at -= back
		}
	}
	return moved
}

func (m *model) newest(used []use) int64 {
	newest := used[0].at
	for _, u := range used {
		newest = max(newest, u.at)
	}
	return newest
}

// live are those that still count at now.
func (m *model) live(used []use, now int64) []use {
	return slices.DeleteFunc(slices.Clone(used), func(u use) bool { return m.ends(u.at) <= now })
}

func sum(used []use) (n int64) {
	for _, u := range used {
		n += u.n
	}
	return n
}

// look says what there is at now, and what a cost would find. It changes nothing.
func (m *model) look(us, cost int64) said {
	if m.limit.Algorithm == ratelimit.TokenBucket {
		return m.lookBucket(us, cost)
	}
	now := us / 1000
	live := m.live(m.stepBack(now), now)
	s := said{left: max(0, m.limit.Limit-sum(live))}
	if m.limit.Algorithm == ratelimit.FixedWindow || m.limit.Algorithm == ratelimit.Quota {
		s.all = time.Duration(m.ends(m.index(now))-now) * ms
	} else if len(live) > 0 {
		s.all = time.Duration(m.ends(m.newest(live))-now) * ms
	}
	if m.limit.Algorithm == ratelimit.Concurrency {
		cost = 1
		if len(live) > 0 {
			s.all = m.limit.Lease // when the last one that is to come ends is not known
		}
	}
	switch {
	case cost > m.limit.Limit:
		s.retry = ratelimit.Never
	case cost > s.left:
		// The first time at which enough have left.
		slices.SortStableFunc(live, func(a, b use) int { return int(a.at - b.at) })
		for need, i := cost+sum(live)-m.limit.Limit, 0; need > 0; i++ {
			need -= live[i].n
			s.retry = time.Duration(m.ends(live[i].at)-now) * ms
		}
	}
	return s
}

// fits is how often a cost fits.
func (m *model) fits(us, cost int64) int64 {
	if m.limit.Algorithm == ratelimit.Concurrency {
		cost = 1
	}
	return m.look(us, cost).left / cost
}

// decided keeps what a decision leaves behind, a denial too: that the clock has stepped back.
func (m *model) decided(us int64) {
	if m.limit.Algorithm == ratelimit.TokenBucket {
		if level, tick := m.bucket(us); level.Cmp(m.cap()) == 0 {
			m.level, m.tick = level, tick
		}
		return
	}
	if m.limit.Algorithm == ratelimit.Concurrency && m.fits(us, 1) > 0 {
		return
	}
	if moved := m.stepBack(us / 1000); !slices.Equal(moved, m.used) {
		m.used = m.live(moved, us/1000)
	}
}

// charge adds n units, and forgets what no longer counts.
func (m *model) charge(us, n int64, token any) {
	now := us / 1000
	switch m.limit.Algorithm {
	case ratelimit.TokenBucket:
		m.level, m.tick = m.bucket(us)
		m.level.Add(m.level, new(big.Int).Mul(big.NewInt(n), big.NewInt(m.window())))
		return
	case ratelimit.Concurrency:
		m.used = append(m.live(m.used, now), use{1, m.index(now), token})
		return
	}
	m.used = append(m.live(m.stepBack(now), now), use{n, m.index(now), token})
}

// refund takes n units away that were charged at a time in ms, if they still count: the oldest ones.
func (m *model) refund(us, n, at int64) {
	now := us / 1000
	switch m.limit.Algorithm {
	case ratelimit.TokenBucket:
		m.level, m.tick = m.bucket(us)
		full := big.NewInt((now - at) * m.limit.Limit)
		if full.Cmp(m.cap()) < 0 {
			m.level.Sub(m.level, new(big.Int).Mul(big.NewInt(n), big.NewInt(m.window())))
			if m.level.Sign() < 0 {
				m.level.SetInt64(0)
			}
		}
		return
	case ratelimit.Concurrency:
		m.decided(us)
		return
	case ratelimit.FixedWindow, ratelimit.Quota:
		m.used = m.live(m.stepBack(now), now)
		if m.index(at) != m.index(now) {
			return
		}
	default:
		m.used = m.live(m.stepBack(now), now)
		if m.ends(m.index(at)) <= now {
			return
		}
	}
	slices.SortStableFunc(m.used, func(a, b use) int { return int(a.at - b.at) })
	for i := range m.used {
		less := min(n, m.used[i].n)
		m.used[i].n -= less
		n -= less
	}
	m.used = slices.DeleteFunc(m.used, func(u use) bool { return u.n == 0 })
}

func (m *model) release(token any) (held bool) {
	before := len(m.used)
	m.used = slices.DeleteFunc(m.used, func(u use) bool { return u.token == token })
	return len(m.used) < before
}

// A bucket counts in ticks of 1/Limit ms, of which a unit takes as many as its window has ms; that is
// finer than the scripts do it, who divide both by what they have in common. Time is rounded down to
// their ticks.

func (m *model) cap() *big.Int {
	return new(big.Int).Mul(big.NewInt(m.burst()), big.NewInt(m.window()))
}

func (m *model) burst() int64 {
	if m.limit.Burst != 0 {
		return m.limit.Burst
	}
	return m.limit.Limit
}

// common is how many of these ticks make one of the scripts'.
func (m *model) common() *big.Int {
	return new(big.Int).GCD(nil, nil, big.NewInt(m.limit.Limit), big.NewInt(m.window()))
}

// bucket is what is missing at a time, and that time's tick.
func (m *model) bucket(us int64) (level, tick *big.Int) {
	theirs := new(big.Int).Div(big.NewInt(m.limit.Limit), m.common())
	tick = new(big.Int).Mul(big.NewInt(us), theirs)
	tick.Div(tick, big.NewInt(1000)).Mul(tick, m.common())
	level = new(big.Int)
	if m.level == nil {
		return level, tick
	}
	level.Add(m.level, m.tick)
	level.Sub(level, tick)
	if level.Sign() < 0 {
		level.SetInt64(0)
	}
	if level.Cmp(m.cap()) > 0 {
		level.Set(m.cap())
	}
	return level, tick
}

func (m *model) lookBucket(us, cost int64) said {
	level, _ := m.bucket(us)
	window := big.NewInt(m.window())
	left := new(big.Int).Sub(m.cap(), level)
	s := said{left: left.Div(left, window).Int64(), all: m.ticks(level)}
	if cost > m.burst() {
		s.retry = ratelimit.Never
		return s
	}
	need := new(big.Int).Mul(big.NewInt(cost), window)
	need.Add(need, level).Sub(need, m.cap())
	if need.Sign() > 0 {
		s.retry = m.ticks(need)
	}
	return s
}

// ticks is a duration, rounded up to microseconds.
func (m *model) ticks(n *big.Int) time.Duration {
	us := new(big.Int).Mul(n, big.NewInt(1000))
	limit := big.NewInt(m.limit.Limit)
	us.Add(us, limit).Sub(us, big.NewInt(1)).Div(us, limit)
	return time.Duration(us.Int64()) * time.Microsecond
}

package ratelimit

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxLimit is the largest limit, burst and cost: what a script's numbers hold exactly.
const MaxLimit = 1 << 53

// MaxLog is the largest limit of a [SlidingLog], which keeps up to six bytes for each unit.
const MaxLog = 10_000

const (
	minWindow    = time.Millisecond
	maxWindow    = 100 * 365 * 24 * time.Hour
	defaultLease = 30 * time.Second
)

// Algorithm is how a limit counts. docs/ratelimit.md says which one is for what.
type Algorithm uint8

// The algorithms.
const (
	// FixedWindow counts in windows that are aligned to the Unix epoch: at most Limit in each, so up to
	// twice as much in a moment across the border of two. The cheapest.
	FixedWindow Algorithm = iota
	// SlidingWindow never admits more than Limit in any trailing window. It counts in 60 parts of the
	// window, so a unit is given back up to a 60th of the window late.
	SlidingWindow
	// SlidingLog is exact to the millisecond: a unit is given back one window after it was used. It
	// keeps the time of each unit of the last window; Limit is at most [MaxLog].
	SlidingLog
	// TokenBucket refills at Limit a Window and holds at most Burst units: GCRA, in integers.
	TokenBucket
	// Concurrency bounds what goes on at the same time: each request that was admitted holds a place until
	// [Limiter.Release], or until its Lease ends. A request holds one place, whatever its cost.
	Concurrency
	// Quota counts in calendar periods (UTC): at most Limit in each Period.
	Quota
)

// Period is the calendar period of a [Quota].
type Period uint8

// The periods. They begin at midnight UTC, on Mondays, on the first of the month; later by Limit.Offset.
const (
	Day Period = iota + 1
	Week
	Month
)

// Limit is one rule: at most so much, counted in such a way. It is plain data.
type Limit struct {
	// Name is what the limit is called in results; within a Config it is unique. By default it is made of
	// the algorithm and the window, as in "1m" or "bucket-1s".
	Name string
	// Algorithm is how it counts. Default [FixedWindow].
	Algorithm Algorithm
	// Limit is how many units a subject has in a window or a period, or how many requests may go on at
	// once: 1 to [MaxLimit], or to [MaxLog] in a SlidingLog.
	Limit int64
	// Window is the window's length: whole milliseconds, up to 100 years. Quota and Concurrency have none.
	Window time.Duration
	// Burst is how many units a TokenBucket holds. Default Limit. Others have none.
	Burst int64
	// Period and Offset are a Quota's: it begins Offset after the calendar's period does. Whole
	// milliseconds, less than a day, a week or 28 days.
	Period Period
	Offset time.Duration
	// Lease is for how long a request of a Concurrency limit keeps its place if it does not release it:
	// whole milliseconds, up to 100 years. Default 30 s.
	Lease time.Duration
	// Outage is what holds while the server does not answer. Default: Config.Outage.
	Outage Outage
}

var algorithmNames = [...]string{"fixed", "sliding", "log", "bucket", "concurrency", "quota"}

// String returns a word, as it stands in default names.
func (a Algorithm) String() string {
	if int(a) < len(algorithmNames) {
		return algorithmNames[a]
	}
	return "Algorithm(" + strconv.Itoa(int(a)) + ")"
}

var periodNames = [...]string{"none", "day", "week", "month"}

// String returns "day", "week" or "month".
func (p Period) String() string {
	if int(p) < len(periodNames) {
		return periodNames[p]
	}
	return "Period(" + strconv.Itoa(int(p)) + ")"
}

// rule is a Limit that was checked, with what scripts and results need of it.
type rule struct {
	Limit
	kind  byte     // its letter in the scripts
	args  []string // of the scripts: kind, limit, and two numbers of the algorithm's own
	most  int64    // the largest cost that is ever admitted
	ticks int64    // of a TokenBucket: ticks in a millisecond
	token int64    // and ticks that one unit takes to come back
}

var kinds = [...]byte{'w', 's', 'l', 'b', 'c', 'q'}

// compile checks a limit. Its error begins with the field's name.
func compile(l Limit) (rule, error) {
	if int(l.Algorithm) >= len(kinds) {
		return rule{}, fmt.Errorf("Algorithm is %d, which is none", l.Algorithm)
	}
	if l.Outage > OutageLocal {
		return rule{}, fmt.Errorf("Outage is %d, which is none", l.Outage)
	}
	most := int64(MaxLimit)
	if l.Algorithm == SlidingLog {
		most = MaxLog
	}
	if l.Limit < 1 || l.Limit > most {
		return rule{}, fmt.Errorf("Limit is %d, not from 1 to %d", l.Limit, most)
	}
	if err := l.onlyItsFields(); err != nil {
		return rule{}, err
	}
	r := rule{Limit: l, kind: kinds[l.Algorithm], most: l.Limit}
	var x, y int64
	switch l.Algorithm {
	case FixedWindow:
		x = l.Window.Milliseconds()
	case SlidingWindow:
		x, y = l.Window.Milliseconds(), part(l.Window)
	case SlidingLog:
		x, y = l.Window.Milliseconds(), recordBytes(l.Window)
	case TokenBucket:
		if err := r.bucket(); err != nil {
			return rule{}, err
		}
		x, y = r.ticks, r.token
	case Concurrency:
		if r.Lease == 0 {
			r.Lease = defaultLease
		}
		r.most = MaxLimit
		x = r.Lease.Milliseconds()
	case Quota:
		x, y = int64(l.Period), l.Offset.Milliseconds()
	}
	r.args = []string{string(r.kind), strconv.FormatInt(r.full(), 10), strconv.FormatInt(x, 10), strconv.FormatInt(y, 10)}
	if r.Name == "" {
		r.Name = l.defaultName()
	}
	return r, nil
}

// full is how much there is if nothing is used.
func (r *rule) full() int64 {
	if r.Algorithm == TokenBucket {
		return r.Burst
	}
	return r.Limit.Limit
}

// onlyItsFields says which field is out of its range, or belongs to another algorithm.
func (l Limit) onlyItsFields() error {
	whole := func(name string, d, least, most time.Duration) error {
		if d < least || d > most || d%time.Millisecond != 0 {
			return fmt.Errorf("%s is %v, not whole milliseconds from %v to %v", name, d, least, most)
		}
		return nil
	}
	none := func(name string, isZero bool) error {
		if !isZero {
			return fmt.Errorf("%s is set, which %v limits don't have", name, l.Algorithm)
		}
		return nil
	}
	var errs []error
	if l.Algorithm == Quota || l.Algorithm == Concurrency {
		errs = append(errs, none("Window", l.Window == 0))
	} else {
		errs = append(errs, whole("Window", l.Window, minWindow, maxWindow))
	}
	if l.Algorithm == TokenBucket {
		if l.Burst < 0 || l.Burst > MaxLimit {
			errs = append(errs, fmt.Errorf("%s is %d, not from 1 to %d", "Burst", l.Burst, int64(MaxLimit)))
		}
	} else {
		errs = append(errs, none("Burst", l.Burst == 0))
	}
	if l.Algorithm == Quota {
		longest := map[Period]time.Duration{Day: 24 * time.Hour, Week: 7 * 24 * time.Hour, Month: 28 * 24 * time.Hour}[l.Period]
		if longest == 0 {
			return fmt.Errorf("Period is %d, not Day, Week or Month", l.Period)
		}
		errs = append(errs, whole("Offset", l.Offset, 0, longest-time.Millisecond))
	} else {
		errs = append(errs, none("Period", l.Period == 0), none("Offset", l.Offset == 0))
	}
	if l.Algorithm == Concurrency {
		errs = append(errs, whole("Lease", l.Lease, 0, maxWindow))
	} else {
		errs = append(errs, none("Lease", l.Lease == 0))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// parts is how many a SlidingWindow counts in.
const parts = 60

// part is the length of one, in milliseconds, rounded up.
func part(window time.Duration) int64 { return (window.Milliseconds() + parts - 1) / parts }

// recordBytes is how many a SlidingLog needs for a time: four windows fit in, so that a log is moved
// to a new base at most once in two windows.
func recordBytes(window time.Duration) int64 {
	n := int64(2)
	for limit := int64(1) << 16; limit < 4*window.Milliseconds(); limit <<= 8 {
		n++
	}
	return n
}

const (
	maxTicks = 1_000_000_000
	maxFill  = 100 * 365 * 24 * 60 * 60 * 1000 // ms; the scripts count on 13 digits for a time
)

// bucket finds whole numbers for the refill: a unit comes back after token ticks, of which a
// millisecond has so many that nothing is rounded.
func (r *rule) bucket() error {
	if r.Burst == 0 {
		r.Burst = r.Limit.Limit
	}
	r.most = r.Burst
	window := r.Window.Milliseconds()
	common := gcd(r.Limit.Limit, window)
	r.ticks, r.token = r.Limit.Limit/common, window/common
	if r.ticks > maxTicks {
		return fmt.Errorf("Limit is %d in %v: as a fraction its rate has a numerator above %d a millisecond", r.Limit.Limit, r.Window, maxTicks)
	}
	if r.Burst > MaxLimit/r.token || r.Burst*r.token/r.ticks > maxFill {
		return fmt.Errorf("%s is %d: too much beside a rate of %d in %v", "Burst", r.Burst, r.Limit.Limit, r.Window)
	}
	return nil
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// shape is what identifies a counter beside the subject: how it counts, not how much. A limit of
// another shape has another key, so that two windows never share a counter. A bucket keeps no count but the time until
// it is full, which says nothing to another rate or burst: so both belong to it.
func (l Limit) shape() string {
	switch l.Algorithm {
	case Concurrency:
		return "c"
	case Quota:
		s := "q" + l.Period.String()[:1]
		if l.Offset != 0 {
			s += "-" + short(l.Offset)
		}
		return s
	case TokenBucket:
		return fmt.Sprintf("b%d-%s-%d", l.Limit, short(l.Window), cmp.Or(l.Burst, l.Limit))
	}
	return string(kinds[l.Algorithm]) + short(l.Window)
}

func (l Limit) defaultName() string {
	switch l.Algorithm {
	case FixedWindow:
		return short(l.Window)
	case Quota:
		return l.Period.String()
	case Concurrency:
		return "concurrency"
	}
	return l.Algorithm.String() + "-" + short(l.Window)
}

// short is a duration in the largest unit in which it is whole: "1m", "90s", "250ms", "1d".
func short(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d%unit.length == 0 {
			return strconv.FormatInt(int64(d/unit.length), 10) + unit.name
		}
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
}

func shapes(limits []Limit) string {
	all := make([]string, len(limits))
	for i, l := range limits {
		all[i] = l.shape()
	}
	return strings.Join(all, "")
}

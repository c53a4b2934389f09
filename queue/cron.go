package queue

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// schedule is when a periodic job is due.
type schedule struct {
	every time.Duration // else the fields below
	loc   *time.Location

	minute, hour, day, month, weekday uint64 // a bit for each value
	anyDay, anyWeekday                bool   // the field is *
}

var cronNames = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0", "@daily": "0 0 * * *",
	"@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// parseSchedule reads five fields of cron, or one of the words that begin with @.
func parseSchedule(spec string, loc *time.Location) (*schedule, error) {
	if loc == nil {
		loc = time.UTC
	}
	if text, ok := strings.CutPrefix(spec, "@every "); ok {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Second || d%time.Second != 0 || d > maxDuration {
			return nil, fmt.Errorf("%q is not whole seconds, from one to 366 days", text)
		}
		return &schedule{every: d, loc: loc}, nil
	}
	if full, ok := cronNames[spec]; ok {
		spec = full
	}
	fields := strings.Fields(spec)
	if len(fields) != 5 {
		return nil, fmt.Errorf("%q has %d fields, not 5: minute, hour, day of the month, month, day of the week", spec, len(fields))
	}
	s := &schedule{loc: loc, anyDay: fields[2] == "*", anyWeekday: fields[4] == "*"}
	var err error
	for i, f := range []struct {
		bits     *uint64
		from, to int
		names    string
	}{
		{&s.minute, 0, 59, ""},
		{&s.hour, 0, 23, ""},
		{&s.day, 1, 31, ""},
		{&s.month, 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"},
		{&s.weekday, 0, 7, "sun mon tue wed thu fri sat"},
	} {
		if *f.bits, err = parseField(fields[i], f.from, f.to, strings.Fields(f.names)); err != nil {
			return nil, err
		}
	}
	if s.weekday>>7&1 == 1 { // Sunday is 0 and 7
		s.weekday |= 1
	}
	if s.next(time.Unix(0, 0)).IsZero() {
		return nil, fmt.Errorf("%q is never", spec)
	}
	return s, nil
}

// parseField reads a list of "*", "N", "N-M", each with or without a "/STEP".
func parseField(text string, from, to int, names []string) (bits uint64, err error) {
	value := func(word string) (int, error) {
		for i, name := range names {
			if strings.EqualFold(word, name) {
				return i + from, nil
			}
		}
		n, err := strconv.Atoi(word)
		if err != nil || n < from || n > to {
			return 0, fmt.Errorf("%q is not from %d to %d", word, from, to)
		}
		return n, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		low, high, step := from, to, 1
		if first, last, isRange := strings.Cut(span, "-"); span != "*" {
			var err1, err2 error
			low, err1 = value(first)
			high = low
			if isRange {
				high, err2 = value(last)
			} else if stepped {
				high = to
			}
			if err := errors.Join(err1, err2); err != nil {
				return 0, err
			}
			if low > high {
				return 0, fmt.Errorf("%q ends before it begins", span)
			}
		}
		if stepped {
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > to {
				return 0, fmt.Errorf("the step %q is not from 1 to %d", stepText, to)
			}
		}
		for v := low; v <= high; v += step {
			bits |= 1 << v
		}
	}
	return bits, nil
}

const cronYears = 30 // a 29 February on a Monday is at most 28 years away, or 40 around 2100

// next is the first time after t at which the job is due, in whole seconds; zero if there is none.
func (s *schedule) next(t time.Time) time.Time {
	if s.every > 0 {
		return t.Truncate(s.every).Add(s.every)
	}
	t = t.In(s.loc).Truncate(time.Minute).Add(time.Minute)
	for last := t.Year() + cronYears; t.Year() <= last; {
		switch {
		case s.month>>int(t.Month())&1 == 0:
			t = later(t, time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, s.loc))
		case !s.onDay(t):
			t = later(t, time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, s.loc))
		case s.hour>>t.Hour()&1 == 0:
			t = t.Add(time.Duration(60-t.Minute()) * time.Minute)
		case s.minute>>t.Minute()&1 == 0:
			t = t.Add(time.Minute)
		default:
			return t
		}
	}
	return time.Time{}
}

// later is to, unless a change of the clocks has put it before t.
func later(t, to time.Time) time.Time {
	if to.After(t) {
		return to
	}
	return t.Add(time.Hour)
}

// onDay says whether a day fits: where both fields are given, one of them is enough.
func (s *schedule) onDay(t time.Time) bool {
	day, weekday := s.day>>t.Day()&1 == 1, s.weekday>>int(t.Weekday())&1 == 1
	if s.anyDay || s.anyWeekday {
		return day && weekday
	}
	return day || weekday
}

// latest is the last time in (t, now] at which the job is due; zero if there is none. Of what was missed for long it looks at the
// last days only.
func (s *schedule) latest(t, now time.Time) (last time.Time) {
	if s.every > 0 {
		if at := now.Truncate(s.every); at.After(t) {
			return at
		}
		return last
	}
	for range 100_000 {
		at := s.next(t)
		if at.IsZero() || at.After(now) {
			return last
		}
		t, last = at, at
	}
	return s.latest(now.Add(-24*time.Hour), now)
}

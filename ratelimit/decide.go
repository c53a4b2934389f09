package ratelimit

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/script"
)

var (
	//go:embed decide.lua
	decideLua string
	//go:embed window.lua
	windowLua string
	//go:embed bucket.lua
	bucketLua string

	decide = script.New(decideLua)
	// look is decide for calls that change nothing, which a full server and a replica admit too.
	look = script.New(strings.Replace(decideLua, "#!lua\n", "#!lua flags=no-writes\n", 1))
	// window and bucket are decide for plans of one such limit, and faster.
	window = script.New(windowLua)
	bucket = script.New(bucketLua)
)

// run is count times cost units, each whole or not at all. A count of 0 only looks; one of -t gives
// back cost units that were charged at t, in Unix ms.
type run struct{ cost, count int64 }

// state is what the server says of one limit after a run: units left; until all are available, and
// until the run's cost is (0 now, -1 never), in ms or in ticks of a bucket.
type state struct{ left, all, this int64 }

// answer is what the server says of one run: how often it was granted.
type answer struct {
	granted int64
	states  []state
	err     error // what could not be decided on a full server
}

// exec sends runs to the server, one for each key, in one call that ends with ctx, and not later than until.
func (l *Limiter) exec(ctx context.Context, until time.Time, keys []string, token string, runs []run) (now int64, answers []answer, err error) {
	looks, asks := true, true
	for _, r := range runs {
		looks, asks = looks && r.count == 0, asks && r.count > 0
	}
	fast := l.fast
	if !asks {
		fast = nil
	}
	args := make([]string, 0, 2+4*len(l.rules)+2*len(runs))
	if fast != nil {
		args = append(args, l.fastArgs...)
	} else {
		args = append(args, l.count, strconv.Itoa(len(runs)))
		for i := range l.rules {
			args = append(args, l.rules[i].args...)
		}
		if l.places >= 0 {
			args[2+4*l.places+3] = token
		}
	}
	for _, r := range runs {
		args = append(args, number(r.cost), number(r.count))
	}
	s := decide
	switch {
	case looks:
		s = look
	case fast != nil:
		s = fast
	}
	reply, err := within(ctx, until, func(ctx context.Context) ([]int64, error) {
		return s.Exec(ctx, l.client, keys, args...).AsIntSlice()
	})
	if err != nil {
		return 0, nil, err
	}
	if fast != nil {
		return l.decodeFast(reply, runs)
	}
	return l.decode(reply, runs)
}

// number saves the memory of the most frequent one.
func number(n int64) string {
	if n == 1 {
		return "1"
	}
	return strconv.FormatInt(n, 10)
}

var errReply = errors.New("the server's answer is not one of the script")

// decode reads a reply: now, and for each run how often it was granted and three numbers of each limit.
func (l *Limiter) decode(reply []int64, runs []run) (now int64, answers []answer, err error) {
	limits := len(l.rules)
	if len(reply) != 1+len(runs)*(1+3*limits) {
		return 0, nil, fmt.Errorf("%w: %d numbers", errReply, len(reply))
	}
	states := make([]state, len(runs)*limits)
	answers = make([]answer, len(runs))
	now, reply = reply[0], reply[1:]
	for i, asked := range runs {
		a := &answers[i]
		a.granted, reply = reply[0], reply[1:]
		a.states, states = states[:limits:limits], states[limits:]
		for j := range a.states {
			s := state{reply[0], reply[1], reply[2]}
			if now < 0 || !l.rules[j].can(s) || a.granted < 0 || a.granted > max(0, asked.count) {
				return 0, nil, fmt.Errorf("%w: %d, %v", errReply, a.granted, s)
			}
			a.states[j], reply = s, reply[3:]
		}
	}
	return now, answers, nil
}

// fullest is the largest number that a fast script answers with.
func (r *rule) fullest() int64 {
	if r.Algorithm == TokenBucket {
		return r.Burst * r.token
	}
	return r.Limit.Limit
}

// can says whether a limit can be in a state.
func (r *rule) can(s state) bool {
	most := r.most
	if r.Algorithm == Concurrency {
		most = r.Limit.Limit
	}
	return s.left >= 0 && s.left <= most && s.all >= 0 && s.this >= -1 &&
		(r.Algorithm != TokenBucket || s.all <= r.Burst*r.token)
}

// decodeFast reads a reply of the scripts for one limit: now, and for each run how often it was granted,
// and what is left or, of a bucket, how many ticks are missing.
func (l *Limiter) decodeFast(reply []int64, runs []run) (now int64, answers []answer, err error) {
	if len(reply) != 1+2*len(runs) {
		return 0, nil, fmt.Errorf("%w: %d numbers", errReply, len(reply))
	}
	r := &l.rules[0]
	states := make([]state, len(runs))
	answers = make([]answer, len(runs))
	now, reply = reply[0], reply[1:]
	for i, asked := range runs {
		s, granted, is, cost := &states[i], reply[2*i], reply[2*i+1], asked.cost
		if now < 0 || granted < 0 || granted > asked.count || is < 0 || is > r.fullest() {
			return 0, nil, fmt.Errorf("%w: %d, %d", errReply, granted, is)
		}
		if r.Algorithm == TokenBucket {
			missing := r.Burst*r.token - is
			s.left, s.all = missing/r.token, is
			if cost <= r.Burst {
				s.this = max(0, cost*r.token-missing)
			}
		} else {
			ms := r.Window.Milliseconds()
			s.left, s.all = is, ms-now%ms
			if cost > is {
				s.this = s.all
			}
		}
		if cost > r.most {
			s.this = -1
		}
		answers[i] = answer{granted: granted, states: states[i : i+1 : i+1]}
	}
	return now, answers, nil
}

// result is what one caller is told. Behind it in its run so many others were granted the same cost, which
// had not happened yet when its turn was.
func (l *Limiter) result(now, cost int64, a answer, behind int64) Result {
	r := Result{Allowed: a.granted > 0, Granted: a.granted * cost, at: now}
	if len(l.rules) > 1 {
		r.limits = make([]LimitResult, len(l.rules))
	}
	worst, retry := -1, time.Duration(0)
	for i := range l.rules {
		one := l.rules[i].result(now, a.states[i], behind*cost)
		if r.Allowed {
			one.RetryAfter = 0
		}
		if r.limits != nil {
			r.limits[i] = one
		}
		if one.RetryAfter > 0 {
			r.Violated = l.violated(r.Violated, i)
		}
		if worst < 0 || one.RetryAfter > retry || one.RetryAfter == retry && tighter(one, r) {
			worst, retry = i, one.RetryAfter
			r.Name, r.Limit, r.Remaining, r.ResetAfter, r.Reset = one.Name, one.Limit, one.Remaining, one.ResetAfter, one.Reset
		}
	}
	r.RetryAfter = retry
	return r
}

// violated appends the i-th name, without memory of its own for the first.
func (l *Limiter) violated(names []string, i int) []string {
	if names == nil {
		return l.names[i : i+1 : i+1]
	}
	return append(names, l.names[i])
}

// tighter says whether a smaller part of one is left than of what r says.
func tighter(one LimitResult, r Result) bool {
	return float64(one.Remaining)*float64(r.Limit) < float64(r.Remaining)*float64(one.Limit)
}

func (r *rule) result(now int64, s state, behind int64) LimitResult {
	if s.left += behind; r.Algorithm == TokenBucket {
		s.all -= behind * r.token
	}
	one := LimitResult{Name: r.Name, Limit: r.full(), Remaining: s.left, ResetAfter: r.duration(s.all), RetryAfter: Never}
	one.Reset = time.UnixMilli(now).Add(one.ResetAfter)
	if s.this >= 0 {
		one.RetryAfter = r.duration(s.this)
	}
	return one
}

// duration turns milliseconds, or the ticks of a bucket, into time: rounded up, so that who waits for so
// long is not early.
func (r *rule) duration(n int64) time.Duration {
	if r.Algorithm != TokenBucket {
		return time.Duration(min(n, int64(Never/time.Millisecond))) * time.Millisecond
	}
	ms, rest := n/r.ticks, n%r.ticks
	if ms >= int64(Never/time.Millisecond) {
		return Never
	}
	// The server's clock has microseconds: ticks between two of them pass with the next.
	us := (rest*1000 + r.ticks - 1) / r.ticks
	return time.Duration(ms)*time.Millisecond + time.Duration(us)*time.Microsecond
}

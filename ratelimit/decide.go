package ratelimit

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/script"
)

var (
	//go:embed decide.lua
	decideLua string

	decide = script.New(decideLua)
	// look is decide for calls that change nothing, which a full server and a replica admit too.
	look = script.New(strings.Replace(decideLua, "#!lua\n", "#!lua flags=no-writes\n", 1))
)

// run is count times cost units, each whole or not at all. A count of 0 only looks; one of -t gives
// back cost units that were charged at t, in Unix ms.
type run struct{ cost, count int64 }

// state is what the server says of one limit after a run.
type state struct{ left, all, this int64 }

// answer is what the server says of one run: how often it was granted.
type answer struct {
	granted int64
	states  []state
}

// ask decides on count times cost units.
func (l *Limiter) ask(ctx context.Context, subject string, cost, count int64) (Result, error) {
	if most := max(cost, count); cost < 1 || count < 0 || most > MaxLimit {
		return Result{}, fmt.Errorf("ratelimit: a cost of %d, not from 1 to %d", most, int64(MaxLimit))
	}
	token := ""
	if l.places >= 0 && count > 0 {
		token = rand.Text()
	}
	now, answers, err := l.send(ctx, subject, token, run{cost, count})
	if err != nil {
		return Result{}, fmt.Errorf("ratelimit: %w", err)
	}
	r := l.result(now, cost, answers[0])
	if count == 0 {
		r.Allowed = r.RetryAfter == 0
	} else if r.Allowed {
		r.token = token
	}
	return r, nil
}

// send sends runs to the server, in one call.
func (l *Limiter) send(ctx context.Context, subject, token string, runs ...run) (now int64, answers []answer, err error) {
	args := make([]string, 2, 2+4*len(l.rules))
	args[0] = strconv.Itoa(len(l.rules))
	args[1] = encodeRuns(runs)
	for i := range l.rules {
		args = append(args, l.rules[i].args...)
	}
	k := l.keys.Key(subject)
	keys := []string{k}
	if l.places >= 0 {
		keys = append(keys, k+heldPart)
		args[2+4*l.places+3] = token
	}
	s := decide
	if !slices.ContainsFunc(runs, func(r run) bool { return r.count != 0 }) {
		s = look
	}
	reply, err := s.Exec(ctx, l.client, keys, args...).AsIntSlice()
	if err != nil {
		return 0, nil, err
	}
	return decode(reply, len(runs), len(l.rules))
}

func encodeRuns(runs []run) string {
	b := make([]byte, 0, 24*len(runs))
	for i, r := range runs {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendInt(b, r.cost, 10)
		b = append(b, ' ')
		b = strconv.AppendInt(b, r.count, 10)
	}
	return string(b)
}

var errReply = errors.New("the server's answer is not one of the script")

// decode reads a reply: now, and for each run how often it was granted and three numbers of each limit.
func decode(reply []int64, runs, limits int) (now int64, answers []answer, err error) {
	if len(reply) != 1+runs*(1+3*limits) {
		return 0, nil, fmt.Errorf("%w: %d numbers", errReply, len(reply))
	}
	states := make([]state, 0, runs*limits)
	answers = make([]answer, runs)
	now, reply = reply[0], reply[1:]
	for i := range answers {
		answers[i].granted, reply = reply[0], reply[1:]
		from := len(states)
		for range limits {
			s := state{reply[0], reply[1], reply[2]}
			if s.left < 0 || s.all < 0 || s.this < -1 {
				return 0, nil, fmt.Errorf("%w: %v", errReply, s)
			}
			states, reply = append(states, s), reply[3:]
		}
		answers[i].states = states[from:]
		if answers[i].granted < 0 {
			return 0, nil, fmt.Errorf("%w: granted %d", errReply, answers[i].granted)
		}
	}
	return now, answers, nil
}

// result is what one caller is told: the last one of a run.
func (l *Limiter) result(now, cost int64, a answer) Result {
	r := Result{Allowed: a.granted > 0, Granted: a.granted * cost, at: now}
	if len(l.rules) > 1 {
		r.limits = make([]LimitResult, len(l.rules))
	}
	worst, retry := -1, time.Duration(0)
	for i := range l.rules {
		one := l.rules[i].result(now, a.states[i])
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

func (r *rule) result(now int64, s state) LimitResult {
	limit := r.Limit.Limit
	if r.Algorithm == TokenBucket {
		limit = r.Burst
	}
	one := LimitResult{Name: r.Name, Limit: limit, Remaining: s.left, ResetAfter: r.duration(s.all), RetryAfter: Never}
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

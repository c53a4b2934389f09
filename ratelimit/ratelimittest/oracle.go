package ratelimittest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// driven is a client whose scripts are told the time, by an argument that they have for tests.
type driven struct {
	valkey.Client
	us int64
}

// Do adds the time to every script.
func (c *driven) Do(ctx context.Context, cmd valkey.Completed) valkey.ValkeyResult {
	words := slices.Clone(cmd.Commands())
	if words[0] != "EVALSHA" && words[0] != "EVAL" {
		return c.Client.Do(ctx, cmd)
	}
	n, err := strconv.Atoi(words[2])
	if err != nil {
		return c.Client.Do(ctx, cmd)
	}
	args := append(words[3+n:], strconv.FormatInt(c.us, 10))
	return c.Client.Do(ctx, c.B().Arbitrary(words[:3]...).Keys(words[3:3+n]...).Args(args...).Build())
}

// plans are what the oracle is asked about; each algorithm alone, and several together.
var plans = map[string][]ratelimit.Limit{
	"fixed":   {{Limit: 20, Window: time.Second}},
	"sliding": {{Algorithm: ratelimit.SlidingWindow, Limit: 20, Window: time.Second}},
	"log":     {{Algorithm: ratelimit.SlidingLog, Limit: 20, Window: 2 * time.Second}},
	// A rate that no millisecond divides, and a burst that is not the limit.
	"bucket":      {{Algorithm: ratelimit.TokenBucket, Limit: 7, Window: time.Second, Burst: 11}},
	"fast bucket": {{Algorithm: ratelimit.TokenBucket, Limit: 12345, Window: time.Second, Burst: 7000}},
	"concurrency": {{Algorithm: ratelimit.Concurrency, Limit: 2, Lease: time.Second}},
	"quota":       {{Algorithm: ratelimit.Quota, Limit: 30, Period: ratelimit.Day, Offset: 5*time.Hour + 7*time.Millisecond}},
	"week":        {{Algorithm: ratelimit.Quota, Limit: 30, Period: ratelimit.Week}},
	"month":       {{Algorithm: ratelimit.Quota, Limit: 30, Period: ratelimit.Month, Offset: time.Hour}},
	"several": {
		{Limit: 20, Window: time.Second},
		{Algorithm: ratelimit.TokenBucket, Limit: 10, Window: time.Second, Burst: 15},
		{Algorithm: ratelimit.SlidingLog, Limit: 30, Window: 2 * time.Second},
		{Algorithm: ratelimit.Concurrency, Limit: 12, Lease: 3 * time.Second},
		{Algorithm: ratelimit.SlidingWindow, Limit: 40, Window: 3 * time.Second},
		{Algorithm: ratelimit.Quota, Limit: 500, Period: ratelimit.Day},
	},
}

// Oracle holds the scripts against an exact model: ops random and adversarial operations for each plan,
// with clock steps, shared by so many workers with a clock of their own.
func Oracle(t *testing.T, env valkeytest.Env, ops, workers int) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for name, limits := range plans {
		t.Run(name, func(t *testing.T) {
			prefix := valkeytest.Prefix(t)
			var all sync.WaitGroup
			for w := range workers {
				all.Go(func() {
					o := newOracle(t, env, prefix, limits, rand.New(rand.NewPCG(seed, uint64(w))), w)
					for step := range ops / workers {
						if err := o.step(); err != nil {
							t.Errorf("worker %d, step %d at %d us: %v", w, step, o.client.us, err)
							return
						}
					}
					o.check(t)
				})
			}
			all.Wait()
			t.Logf("%d operations, %v", ops/workers*workers, map[bool]string{false: "0 mismatches", true: "mismatches"}[t.Failed()])
		})
	}
}

type oracle struct {
	client   *driven
	limiter  *ratelimit.Limiter
	limits   []ratelimit.Limit
	random   *rand.Rand
	ctx      context.Context
	subjects []*subject
	allowed  int
	denied   int
}

type subject struct {
	name    string
	models  []*model
	results []granted
}

type granted struct {
	ratelimit.Result
	ms    int64
	token int
}

func newOracle(t *testing.T, env valkeytest.Env, prefix string, limits []ratelimit.Limit, random *rand.Rand, worker int) *oracle {
	o := &oracle{client: &driven{env.Client, 1_790_000_000_000_000 + random.Int64N(1e15)}, limits: limits, random: random, ctx: t.Context()}
	o.limiter = newLimiter(t, valkeytest.Env{Client: o.client}, ratelimit.Config{Prefix: prefix, Limits: limits})
	for i := range 3 {
		o.subjects = append(o.subjects, &subject{name: fmt.Sprintf("%d-%d", worker, i)})
		o.forget(o.subjects[i])
	}
	return o
}

func (o *oracle) forget(s *subject) {
	s.models, s.results = nil, nil
	for _, limit := range o.limits {
		if limit.Algorithm == ratelimit.Concurrency && limit.Lease == 0 {
			limit.Lease = 30 * time.Second
		}
		s.models = append(s.models, &model{limit: limit})
	}
}

// tick moves the clock: mostly a little, sometimes to the very edge of a window, at times far, or back.
func (o *oracle) tick() {
	us, r := &o.client.us, o.random
	limit := o.limits[r.IntN(len(o.limits))]
	window := max(limit.Window, limit.Lease)
	if limit.Algorithm == ratelimit.Quota {
		window = 3 * time.Hour
	}
	w := window.Microseconds()
	switch r.IntN(12) {
	case 0, 1, 2: // a burst
	case 3, 4, 5:
		*us += r.Int64N(w / 5)
	case 6:
		*us += r.Int64N(3000)
	case 7: // to an edge, or one microsecond beside it
		*us += w - *us%w + r.Int64N(3) - 1
	case 8: // a window later, but for a millisecond
		*us += w + (r.Int64N(3)-1)*1000
	case 9:
		*us += r.Int64N(2 * w)
	case 10: // the edge of a part
		part := max(1, (window.Milliseconds()+59)/60*1000)
		*us += part - *us%part + r.Int64N(3) - 1
	case 11:
		switch r.IntN(8) {
		case 0:
			*us -= r.Int64N(w)
		case 1:
			*us -= r.Int64N(20 * w)
		case 2:
			*us += r.Int64N(50 * w)
		}
	}
}

// step does one operation on the server and on the model.
func (o *oracle) step() error {
	o.tick()
	s := o.subjects[o.random.IntN(len(o.subjects))]
	switch o.random.IntN(24) {
	case 0:
		return o.peek(s)
	case 1:
		return o.refund(s)
	case 2, 3:
		return o.release(s)
	case 4:
		if o.random.IntN(20) > 0 {
			return nil
		}
		o.forget(s)
		return o.limiter.Reset(o.ctx, s.name)
	case 5, 6, 7:
		return o.decide(s, 1, o.cost())
	}
	return o.decide(s, o.cost(), 1)
}

// cost is mostly one, sometimes about the limit, seldom absurd.
func (o *oracle) cost() int64 {
	r, limit := o.random, o.limits[o.random.IntN(len(o.limits))]
	most := max(limit.Limit, limit.Burst)
	switch r.IntN(20) {
	case 0:
		return max(1, most+r.Int64N(3)-1)
	case 1:
		return []int64{ratelimit.MaxLimit, ratelimit.MaxLimit - 1, most * 1000, 1 << 40}[r.IntN(4)]
	case 2, 3, 4:
		return 1 + r.Int64N(most)
	case 5, 6:
		return 1 + r.Int64N(max(1, most/4))
	}
	return 1
}

// decide asks for count times cost units; one of them is 1.
func (o *oracle) decide(s *subject, cost, count int64) error {
	ask := o.limiter.AllowN
	if count > 1 {
		ask = o.limiter.AllowAtMost
	}
	r, err := ask(o.ctx, s.name, max(cost, count))
	if err != nil {
		return err
	}
	n := count
	for _, m := range s.models {
		fits := m.fits(o.client.us, cost)
		if m.limit.Algorithm == ratelimit.Concurrency && fits > 0 {
			continue
		}
		n = min(n, fits)
	}
	token := o.random.Int()
	for _, m := range s.models {
		if n > 0 {
			m.charge(o.client.us, n*cost, token)
		} else {
			m.decided(o.client.us)
		}
	}
	if r.Allowed != (n > 0) || r.Granted != n*cost {
		return fmt.Errorf("%d times %d: granted %d, the model %d", count, cost, r.Granted, n*cost)
	}
	if n > 0 {
		o.allowed++
		s.results = append(s.results, granted{r, o.client.us / 1000, token})
		s.results = s.results[max(0, len(s.results)-8):]
	} else {
		o.denied++
	}
	return o.compare(s, r, cost, n == 0)
}

func (o *oracle) peek(s *subject) error {
	r, err := o.limiter.Peek(o.ctx, s.name)
	if err != nil {
		return err
	}
	fits := true
	for _, m := range s.models {
		fits = fits && m.fits(o.client.us, 1) > 0
	}
	if r.Allowed != fits || r.Granted != 0 {
		return fmt.Errorf("peek: %+v, the model %v", r, fits)
	}
	return o.compare(s, r, 1, !fits)
}

// compare holds what a result says of each limit against the model.
func (o *oracle) compare(s *subject, r ratelimit.Result, cost int64, denied bool) error {
	var retry time.Duration
	for i, got := range r.Limits() {
		want := s.models[i].look(o.client.us, cost)
		if !denied {
			want.retry = 0
		}
		retry = max(retry, want.retry)
		if got.Remaining != want.left || got.ResetAfter != want.all || got.RetryAfter != want.retry {
			return fmt.Errorf("limit %s, cost %d: %+v, the model %+v", got.Name, cost, got, want)
		}
	}
	if r.RetryAfter != retry {
		return fmt.Errorf("retry after %v, the model %v", r.RetryAfter, retry)
	}
	return nil
}

func (o *oracle) refund(s *subject) error {
	if len(s.results) == 0 {
		return nil
	}
	i := o.random.IntN(len(s.results))
	r := &s.results[i]
	n := min(r.Granted, o.cost())
	if n == 0 {
		return nil
	}
	if err := o.limiter.Refund(o.ctx, s.name, r.Result, n); err != nil {
		return err
	}
	r.Granted -= n
	for _, m := range s.models {
		m.refund(o.client.us, n, r.ms)
	}
	return nil
}

func (o *oracle) release(s *subject) error {
	if len(s.results) == 0 {
		return nil
	}
	r := s.results[o.random.IntN(len(s.results))]
	// The server forgets an ended place at any time, so only those that last are compared.
	held, err := o.limiter.Release(o.ctx, s.name, r.Result)
	for _, m := range s.models {
		lasts := slices.ContainsFunc(m.used, func(u use) bool { return u.token == r.token && m.ends(u.at) > o.client.us/1000 })
		if m.limit.Algorithm != ratelimit.Concurrency {
			continue
		}
		m.release(r.token)
		if lasts && !held {
			return fmt.Errorf("a place was lost")
		}
	}
	return err
}

// check says when a run was too tame to prove anything.
func (o *oracle) check(t *testing.T) {
	if n := o.allowed + o.denied; n > 100 && (o.allowed < n/20 || o.denied < n/20) {
		t.Errorf("%d allowed, %d denied: too tame", o.allowed, o.denied)
	}
}

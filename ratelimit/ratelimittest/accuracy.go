package ratelimittest

import (
	"testing"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
)

// accuracy attacks each algorithm and holds the most that it admitted in any trailing window, in
// hundredths of the limit, against what docs/ratelimit.md says.
func accuracy(t *testing.T, env valkeytest.Env) {
	const limit, window = 100, time.Second
	for _, test := range []struct {
		algorithm   ratelimit.Algorithm
		least, most int64
	}{
		{ratelimit.FixedWindow, 200, 200},
		{ratelimit.TokenBucket, 199, 199},
		{ratelimit.SlidingWindow, 100, 100},
		{ratelimit.SlidingLog, 100, 100},
	} {
		t.Run(test.algorithm.String(), func(t *testing.T) {
			c := &driven{env.Client, 1_790_000_000_999_000} // a millisecond before a window begins
			l := newLimiter(t, valkeytest.Env{Client: c}, ratelimit.Config{Limits: []ratelimit.Limit{{Algorithm: test.algorithm, Limit: limit, Window: window}}})
			type grant struct{ us, n int64 }
			var all []grant
			most := int64(0)
			for _, step := range attack(window) {
				c.us += step.Microseconds()
				r, err := l.AllowAtMost(t.Context(), "s", limit)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, grant{c.us, r.Granted})
				trailing := int64(0)
				for _, g := range all {
					if g.us > c.us-window.Microseconds() {
						trailing += g.n
					}
				}
				most = max(most, trailing)
			}
			t.Logf("at most %d.%02d times the limit in a window's length", most/limit, most%limit)
			if most < test.least || most > test.most {
				t.Errorf("%d hundredths of the limit, want %d to %d", most, test.least, test.most)
			}
		})
	}
}

// attack takes all there is just before a border, just after it, and then as soon as anything comes back.
func attack(window time.Duration) []time.Duration {
	steps := []time.Duration{0, time.Millisecond}
	for range 2 {
		for range 97 {
			steps = append(steps, window/100)
		}
		for range 31 {
			steps = append(steps, time.Millisecond)
		}
	}
	return steps
}

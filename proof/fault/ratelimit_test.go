package fault

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
)

// decision is one call as the checker saw it.
type decision struct {
	begin, end time.Time
	mode       ratelimit.Mode
	allowed    bool
	failed     bool
}

const (
	rateCallers   = 64
	rateSubjects  = 16
	rateLimit     = 100
	rateProcesses = 4
)

// TestRatelimitOutages stops or kills the server under 64 callers, once for each outage mode, and says how
// long calls took and what they answered.
func TestRatelimitOutages(t *testing.T) {
	rounds, away := scale(1, 5), time.Duration(scale(300, 3000))*time.Millisecond
	t.Logf("%-8s %-7s %9s %9s %9s %9s   %s", "server", "mode", "first ms", "p99 ms", "max ms", "back ms", "answers while it was away")
	for _, fault := range []struct {
		name       string
		begin, end func(*valkeytest.Server)
	}{
		{"stopped", (*valkeytest.Server).Pause, (*valkeytest.Server).Resume},
		{"killed", (*valkeytest.Server).Kill, (*valkeytest.Server).Restart},
	} {
		for _, mode := range []ratelimit.Outage{ratelimit.OutageError, ratelimit.OutageOpen, ratelimit.OutageClosed, ratelimit.OutageLocal} {
			for range rounds {
				server := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})
				l, err := ratelimit.New(connect(t, server), ratelimit.Config{
					Limits: []ratelimit.Limit{{Limit: rateLimit, Window: 365 * 24 * time.Hour}}, Outage: mode, Processes: rateProcesses,
				})
				if err != nil {
					t.Fatal(err)
				}
				o := &outage{limiter: l}
				o.run(t, func() { fault.begin(server) }, func() { fault.end(server) }, away)
				server.Kill()
				o.report(t, fault.name, mode)
			}
		}
	}
}

// outage is one run: the server goes away at one time and comes back at another.
type outage struct {
	limiter   *ratelimit.Limiter
	decisions [rateCallers][]decision
	granted   [rateSubjects]atomic.Int64 // by the server

	gone, back, again time.Time // again: the first answer of the server after it was back
}

func (o *outage) run(t *testing.T, begin, end func(), away time.Duration) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var again atomic.Int64
	var returned atomic.Bool
	var callers sync.WaitGroup
	for c := range rateCallers {
		callers.Go(func() {
			for i := c; ctx.Err() == nil; i++ {
				d := decision{begin: time.Now()}
				subject := i % rateSubjects
				r, err := o.limiter.Allow(ctx, "user:"+strconv.Itoa(subject))
				d.end, d.mode, d.allowed, d.failed = time.Now(), r.Mode, r.Allowed, err != nil
				o.decisions[c] = append(o.decisions[c], d)
				if err == nil && r.Mode == ratelimit.ModeServer {
					o.granted[subject].Add(r.Granted)
					if returned.Load() {
						again.CompareAndSwap(0, d.end.UnixNano())
					}
				}
				<-time.After(time.Millisecond)
			}
		})
	}
	<-time.After(200 * time.Millisecond) // the load before the fault
	o.gone = time.Now()
	begin()
	<-time.After(away)
	end()
	o.back = time.Now()
	returned.Store(true)
	for again.Load() == 0 {
		if time.Since(o.back) > 30*time.Second {
			t.Fatal("the server is back, and decides nothing for 30 s")
		}
		<-time.After(time.Millisecond)
	}
	stop()
	callers.Wait()
	o.again = time.Unix(0, again.Load())
}

func (o *outage) report(t *testing.T, fault string, mode ratelimit.Outage) {
	var first, later []float64
	answers := map[string]int{}
	allowed := 0
	for _, d := range slices.Concat(o.decisions[:]...) {
		took := float64(d.end.Sub(d.begin).Microseconds()) / 1000
		switch {
		case d.end.Before(o.gone) || d.begin.After(o.back):
			continue
		case d.begin.Before(o.gone.Add(60 * time.Millisecond)):
			first = append(first, took) // those that find out
		default:
			later = append(later, took)
		}
		word := map[bool]string{true: "allowed", false: "denied"}[d.allowed]
		switch {
		case d.failed && d.allowed:
			t.Error("allowed beside an error")
		case d.failed:
			word = "errors"
		case d.mode != ratelimit.ModeServer:
			word += " " + d.mode.String()
			if d.allowed {
				allowed++
			}
		}
		answers[word]++
	}
	slices.Sort(first)
	slices.Sort(later)
	if len(first) == 0 || len(later) == 0 {
		t.Fatalf("%s, %v: %d and %d calls in the outage", fault, mode, len(first), len(later))
	}
	t.Logf("%-8s %-7v %9.1f %9.3f %9.1f %9.0f   %v", fault, mode, first[len(first)-1], later[len(later)*99/100], later[len(later)-1],
		float64(o.again.Sub(o.back).Milliseconds()), fmt.Sprint(answers))
	for i := range o.granted {
		if n := o.granted[i].Load(); n > rateLimit {
			t.Errorf("%s, %v: the server admitted %d of %d", fault, mode, n, rateLimit)
		}
	}
	most := map[ratelimit.Outage]int{ratelimit.OutageLocal: rateSubjects * rateLimit / rateProcesses, ratelimit.OutageOpen: 1 << 30}[mode]
	if allowed > most {
		t.Errorf("%s, %v: %d admitted without the server, at most %d may", fault, mode, allowed, most)
	}
}

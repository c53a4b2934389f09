package fault

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

// TestAnchors puts other libraries through the faults that ours goes through, counted by the same
// checker. Their counts are printed and nothing is asked of them; of ours, nothing but zero.
func TestAnchors(t *testing.T) {
	if os.Getenv("FLATRATE_FAULT") == "" {
		t.Skip("a part of make fault")
	}
	all := append(ours, anchors...)
	table := fmt.Sprintf("%-28s %-12s %6s %12s %9s %12s %11s", "", "clock off by", "faults", "acquisitions", "overlaps", "longest both", "waits > 30s")
	for _, shift := range []time.Duration{0, time.Minute, -time.Minute} {
		for _, a := range all {
			t.Run(fmt.Sprint(a.name, " ", shift), func(t *testing.T) {
				server, _ := shifted(t, valkeytest.Valkey, shift, aof...)
				c := campaign{server: server, locker: a.make, ttl: time.Second, faults: 120, serverFaults: true, limit: 3 * time.Minute}
				sites, seen := c.run(t)
				if a.name == "flatrate" {
					sites.mustExclude(t)
				}
				table += fmt.Sprintf("\n%-28s %-12v %6d %12d %9d %12v %11d", a.name, shift, seen.faults, seen.acquired, seen.overlaps, seen.longest.Round(time.Millisecond), seen.stuck+seen.passedOver)
			})
		}
	}
	t.Logf("\n%s", table)
}

// TestAnchorsWaiters counts waiters of whom nobody thinks any more, the second defect: 8 processes want one
// name, and 512 callers of one process want a name each. Nothing fails, and none may wait for long.
func TestAnchorsWaiters(t *testing.T) {
	const long, each = 4 * time.Second, 6 * time.Second
	crowds := []struct {
		what                      string
		processes, callers, names int
	}{{"8 processes, one name", 8, 8, 1}, {"512 callers, a name each", 1, 512, 512}}
	table := fmt.Sprintf("%-28s %-26s %12s %22s", "", "", "acquisitions", "waited 4s and got none")
	all := ours
	if os.Getenv("FLATRATE_FAULT") != "" {
		all = append(append(ours, anchors...), library{"valkeylock, NoLoopTracking", valkeyLock(true)})
	}
	for _, a := range all {
		for _, crowd := range crowds {
			server := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
			var lockers []acquire
			for range crowd.processes {
				lockers = append(lockers, a.make(t, server.Addr, 5*time.Second))
			}
			var served, stuck atomic.Int64
			var callers sync.WaitGroup
			end := time.Now().Add(each / time.Duration(scale(6, 1)))
			for i := range crowd.callers {
				callers.Go(func() {
					for time.Now().Before(end) {
						ctx, cancel := context.WithTimeout(t.Context(), long)
						held, err := lockers[i%len(lockers)](ctx, fmt.Sprint("name-", i%crowd.names))
						cancel()
						if err != nil {
							stuck.Add(1)
							continue
						}
						served.Add(1)
						if crowd.names == 1 {
							<-time.After(time.Millisecond) // the work
						}
						held.release(t.Context())
					}
				})
			}
			callers.Wait()
			table += fmt.Sprintf("\n%-28s %-26s %12d %22d", a.name, crowd.what, served.Load(), stuck.Load())
			if a.name == "flatrate" && (stuck.Load() != 0 || served.Load() == 0) {
				t.Errorf("%s: %d waited in vain, %d were served", crowd.what, stuck.Load(), served.Load())
			}
		}
	}
	t.Logf("\n%s", table)
}

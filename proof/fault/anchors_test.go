package fault

import (
	"fmt"
	"os"
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
	all := append([]struct {
		name string
		make contender
	}{{"flatrate", flatrateLock}}, anchors...)
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

package replay

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestJar holds both promises under a random schedule: what was used less than idle ago is there, and what is older than twice
// that takes no room.
func TestJar(t *testing.T) {
	const seed = 11
	r := rand.New(rand.NewPCG(seed, 0))
	const idle = 10 * time.Second
	jar := newJar(idle)
	now := time.Unix(0, 0)
	used := map[browser]time.Time{}
	most := 0
	for step := range 20_000 {
		if r.IntN(3) == 0 {
			now = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
		}
		if r.IntN(500) == 0 {
			now = now.Add(time.Duration(r.IntN(3)) * idle)
		}
		who := browser{fmt.Sprint(step/100 + r.IntN(20)), "agent"} // new clients keep coming
		token := jar.token(who, now)
		if last, known := used[who]; known && now.Sub(last) < idle && token != "token of "+who.address {
			t.Fatalf("seed %d, step %d: %v was forgotten after %v: %q", seed, step, who, now.Sub(last), token)
		}
		if token == "" {
			jar.keep(who, "token of "+who.address)
		}
		used[who] = now

		recent := 0
		for _, last := range used {
			if now.Sub(last) <= 2*idle {
				recent++
			}
		}
		held := map[browser]bool{}
		for who := range jar.young {
			held[who] = true
		}
		for who := range jar.old {
			held[who] = true
		}
		if len(held) > recent {
			t.Fatalf("seed %d, step %d: %d tokens held, %d clients in twice the idle time", seed, step, len(held), recent)
		}
		most = max(most, len(held))
	}
	if most < 10 || len(used) < 10*most {
		t.Errorf("at most %d tokens of %d clients: the schedule shows nothing", most, len(used))
	}
}

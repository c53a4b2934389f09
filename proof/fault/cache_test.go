package fault

import (
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/flatrate/flatrate/proof/behindproc"
	"github.com/flatrate/flatrate/proof/crowd"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestMain(m *testing.M) {
	crowd.Main()
	behindproc.Main()
	queueMain()
	logMain()
	os.Exit(m.Run())
}

// crowdOf starts members that ask together: few, or as many as the long run has.
func crowdOf(t *testing.T, setting crowd.Setting) (c *crowd.Crowd, rounds int) {
	t.Helper()
	members := 4
	rounds = 10
	if os.Getenv("FLATRATE_FAULT") != "" {
		members, rounds = 16, 1000
	}
	s := valkeytest.Start(t)
	setting.URL, setting.Callers = "unix://"+s.Socket, 256
	c, err := crowd.Start(t.Context(), members, setting)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, rounds
}

// TestColdKey lets all processes ask for the same missing key at once, round after round.
func TestColdKey(t *testing.T) {
	const load = 50 * time.Millisecond
	c, rounds := crowdOf(t, crowd.Setting{Load: load})
	loads, wrong := 0, 0
	var took []time.Duration
	for i := range rounds {
		r, err := c.Round("cold " + strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		loads, wrong, took = loads+r.Loads, wrong+r.Wrong, append(took, r.Took...)
	}
	slices.Sort(took)
	at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))].Round(100 * time.Microsecond) }
	t.Logf("%d rounds of %d callers: %d loads of %v; waited p50 %v, p99 %v, at most %v",
		rounds, len(took)/rounds, loads, load, at(0.5), at(0.99), at(1))
	if loads != rounds || wrong != 0 {
		t.Errorf("%d loads in %d rounds, %d wrong answers", loads, rounds, wrong)
	}
}

// TestHolderKilled kills the process that loads, with SIGKILL: another one takes over when the lease has ended.
func TestHolderKilled(t *testing.T) {
	const lease = 500 * time.Millisecond
	c, _ := crowdOf(t, crowd.Setting{Load: 200 * time.Millisecond, Lease: lease})
	for i := range 2 {
		if err := c.Ask("orphan " + strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		holder, err := c.Load(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		if err := c.Kill(holder); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Load(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		t.Logf("taken over after %v, the lease is %v", time.Since(killed).Round(time.Millisecond), lease)
		r, err := c.Answers()
		if err != nil || r.Loads != 0 || r.Wrong != 0 {
			t.Errorf("%d loads beside the first and the one that took over, %d wrong answers; %v", r.Loads, r.Wrong, err)
		}
	}
}

// TestLoadOutlivesLeaseAndTTL loads for longer than both.
func TestLoadOutlivesLeaseAndTTL(t *testing.T) {
	c, _ := crowdOf(t, crowd.Setting{Load: 3 * time.Second, Lease: 300 * time.Millisecond, TTL: 2 * time.Second})
	r, err := c.Round("slow")
	if err != nil || r.Loads != 1 || r.Wrong != 0 {
		t.Errorf("%d loads, %d wrong answers; %v", r.Loads, r.Wrong, err)
	}
}

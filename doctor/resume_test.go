package doctor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// TestSlowScanEnds is slower than its patience: what it waits for is its own turn, not the server.
func TestSlowScanEnds(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", ""}})
	write(t, s.Client(), 100, func(i int) []string { return []string{"SET", fmt.Sprintf("k:%d", i), "v"} })
	before := total(usedCommands(t, s.Client()))
	begin := time.Now()
	r, err := Scan(t.Context(), s.Client(), Config{MaxOps: 150, Patience: 500 * time.Millisecond})
	if err != nil || !r.Complete || r.Keys != 100 || len(r.Findings) == 0 {
		t.Errorf("%d keys, complete %v, %d findings, %v", r.Keys, r.Complete, len(r.Findings), err)
	}
	// A burst of a batch's questions is allowed, and what the client says when it connects.
	if n, most := total(usedCommands(t, s.Client()))-before, 150*time.Since(begin).Seconds()+4*batchKeys; float64(n) > most {
		t.Errorf("%d commands, at most %.0f are allowed", n, most)
	}
}

func total(calls map[string]int64) (n int64) {
	for _, c := range calls {
		n += c
	}
	return n
}

// interrupted returns the state of a scan that was ended after some keys.
func interrupted(t *testing.T, c valkey.Client, keys int64, cfg Config) (Report, []byte) {
	t.Helper()
	var state []byte
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg.Checkpoint = func(b []byte) error { state = b; return nil }
	cfg.Progress = func(done, _ int64) {
		if done >= keys {
			cancel()
		}
	}
	r, err := Scan(ctx, c, cfg)
	if !errors.Is(err, context.Canceled) || state == nil {
		t.Fatalf("%v, %d bytes of state", err, len(state))
	}
	return r, state
}

// TestResumeOfWhatHasChanged holds that a state is not gone on from where its cursors mean something else.
func TestResumeOfWhatHasChanged(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--appendonly", "yes"}})
	write(t, s.Client(), 5000, func(i int) []string { return []string{"SET", fmt.Sprintf("k:%d", i), "v"} })
	_, state := interrupted(t, s.Client(), 1000, Config{})
	for want, cfg := range map[string]Config{
		"Sample": {Sample: 10}, "Prefixes": {Prefixes: []string{"other"}}, "Top 5": {Top: 5},
	} {
		cfg.Resume = state
		if _, err := Scan(t.Context(), s.Client(), cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if r, err := Scan(t.Context(), s.Client(), Config{Resume: state}); err != nil || r.Keys != 5000 {
		t.Errorf("%d keys, %v", r.Keys, err)
	}
	s.Kill()
	s.Restart()
	if _, err := Scan(t.Context(), s.Client(), Config{Resume: state}); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "started again") {
		t.Errorf("after a restart: %v", err)
	}
}

// TestRestartDuringAScan: the cursor means something else then, so that the report is not complete.
func TestRestartDuringAScan(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--appendonly", "yes"}})
	write(t, s.Client(), 3000, func(i int) []string { return []string{"SET", fmt.Sprintf("k:%d", i), "v"} })
	again := false
	r, err := Scan(t.Context(), s.Client(), Config{Progress: func(int64, int64) {
		if !again {
			again = true
			s.Kill()
			s.Restart()
		}
	}})
	if err != nil || r.Complete || !strings.Contains(strings.Join(r.Notes, " "), "started again") {
		t.Errorf("complete %v, %v, %v", r.Complete, r.Notes, err)
	}
}

// TestPartOfTheTables: keys that were seen are not charged with the tables of those that were not.
func TestPartOfTheTables(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", ""}})
	write(t, s.Client(), 20_000, func(i int) []string { return []string{"SET", fmt.Sprintf("k:%05d", i), "v"} })
	whole, err := Scan(t.Context(), s.Client(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	part, _ := interrupted(t, s.Client(), 6000, Config{})
	a, b := whole.Bytes/float64(whole.Keys), part.Bytes/float64(part.Keys)
	if math.Abs(a-b) > 0.02*a {
		t.Errorf("a key takes %.1f B of the whole, %.1f B of a part", a, b)
	}
}

// TestSampleOfUnequalNodes: one node has all large keys, and few of all keys.
func TestSampleOfUnequalNodes(t *testing.T) {
	nodes := valkeytest.Cluster(t, 3)
	c := nodes.Client()
	write(t, c, 9000, func(i int) []string { return []string{"SET", fmt.Sprintf("{a}:%d", i), "v"} })                      // slot 15495
	write(t, c, 300, func(i int) []string { return []string{"SET", fmt.Sprintf("{b}:%d", i), strings.Repeat("v", 2000)} }) // slot 3300
	whole, err := Scan(t.Context(), c, Config{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Scan(t.Context(), c, Config{Sample: 3000})
	if err != nil || r.Source != "sample" || r.Sampled != 3000 || math.Abs(r.Bytes-whole.Bytes) > 2*r.Margin {
		t.Errorf("%.0f bytes +- %.0f of %d keys, all are %.0f, %v", r.Bytes, r.Margin, r.Sampled, whole.Bytes, err)
	}
}

func TestSampleWithFewRights(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", ""}})
	write(t, s.Client(), 2000, func(i int) []string { return []string{"SET", fmt.Sprintf("%s:%d", "ab"[i%2:i%2+1], i), "v"} })
	rights := []string{"+@read", "+scan", "+hello", "+info", "+memory", "+client", "+command", "+ping"}
	if r, err := Scan(t.Context(), as(t, s, append(rights, "~*", "-dbsize")...), Config{Sample: 10}); err == nil || !strings.Contains(err.Error(), "DBSIZE") {
		t.Errorf("without DBSIZE all %d keys were looked at: %v", r.Sampled, err)
	}
	r, err := Scan(t.Context(), as(t, s, append(rights, "~a:*", "+dbsize")...), Config{Sample: 1000})
	if err != nil || r.Hidden == 0 || r.Keys < 800 || r.Keys > 1200 {
		t.Errorf("about %d keys, of 1000 that are not hidden; %v", r.Keys, err)
	}
}

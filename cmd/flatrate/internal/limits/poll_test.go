package limits

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/valkey-io/valkey-go"
)

// offline is a client for limiters that are never asked.
type offline struct{ valkey.Client }

func (offline) Mode() valkey.ClientMode { return valkey.ClientModeStandalone }

// TestPoll looks step by step: a change counts at the second look that sees it, a failure is told once, and a
// file that is changed back is no failure any more.
func TestPoll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plans.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const first, second, bad = "plans: {a: {quota: {limit: 1, period: DAY}}}", "plans: {b: {quota: {limit: 1, period: DAY}}}", "plans: {"
	changes, failures := 0, 0
	write(first)
	s, err := Open(path, Config{Client: offline{}, Changed: func([]string) { changes++ }, Failed: func(error) { failures++ }})
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		write             string
		plan              string
		changes, failures int
		err               bool
	}{
		{"", "a", 0, 0, false},
		{second, "a", 0, 0, false},
		{"", "b", 1, 0, false},
		{"", "b", 1, 0, false},
		{first, "b", 1, 0, false},
		{bad, "b", 1, 0, false}, // not what the look before saw
		{"", "b", 1, 1, true},
		{"", "b", 1, 1, true}, // the same failure is told once
		{"remove", "b", 1, 1, true},
		{"", "b", 1, 2, true},
		{second, "b", 1, 2, false}, // as it was: no failure, and no change
		{bad, "b", 1, 2, false},
		{"", "b", 1, 3, true},
		{first, "b", 1, 3, true},
		{"", "a", 2, 3, false},
	} {
		switch step.write {
		case "":
		case "remove":
			os.Remove(path)
		default:
			write(step.write)
		}
		s.poll()
		_, ok := s.Plan(step.plan)
		if !ok || changes != step.changes || failures != step.failures || (s.Err() != nil) != step.err {
			t.Errorf("step %d: plans %v, %d changes, %d failures, error %v; want %+v", i, s.Names(), changes, failures, s.Err(), step)
		}
	}
}

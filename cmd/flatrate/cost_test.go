package main

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/cost"
	"github.com/flatrate/flatrate/meter"
	"github.com/flatrate/flatrate/valkeytest"
)

// runCost runs flatrate cost with the shipped prices.
func runCost(t *testing.T, args ...string) (code int, out, problems string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), append([]string{"cost", "--shipped-prices"}, args...), stdio{strings.NewReader(""), &stdout, &stderr})
	return code, stdout.String(), stderr.String()
}

func estimateOf(t *testing.T, args ...string) cost.Estimate {
	t.Helper()
	code, out, problems := runCost(t, append(args, "--output", "json")...)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, problems)
	}
	var e cost.Estimate
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestCostOfAServer prices what a running server did, by its own statistics and by a meter.
func TestCostOfAServer(t *testing.T) {
	server := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	url, client := "valkey://"+server.Addr, server.Client()
	if code, out, problems := runCost(t, "--valkey", url, "--commandstats"); code != 1 || out != "" || !strings.Contains(problems, "no command has read or written data yet") {
		t.Errorf("an idle server: %d, %q, %s", code, out, problems)
	}
	if code, out, problems := runCost(t, "--valkey", url, "--meter", "shop"); code != 1 || out != "" || !strings.Contains(problems, "--meter shop: meter: nothing was counted") {
		t.Errorf("an idle meter: %d, %q, %s", code, out, problems)
	}
	for range 100 {
		_ = client.Do(t.Context(), client.B().Get().Key("a").Build()).Error()
	}
	e := estimateOf(t, "--valkey", url, "--commandstats", "--item-bytes", "5000", "--reads", "eventual")
	if l := e.Services[0].Lines[0]; len(e.Services) != 1 || l.Unit != "RRU" || l.Units < 100 || e.Services[0].Need.Bytes < 1e5 {
		t.Errorf("%+v", e.Services)
	}
	for _, prefix := range []string{"fr", "mine"} {
		m, err := meter.New(client, meter.Config{Prefix: prefix, Name: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			m.SessionRead(2048)
		}
		m.SessionWrite(2048)
		if err := m.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		e = estimateOf(t, "--valkey", url, "--meter", "shop", "--meter-prefix", prefix, "--days", "2")
		s := e.Services[0]
		if s.Name != "sessions" || math.Abs(s.Lines[0].Units-500*s.Lines[1].Units) > 1e-6*s.Lines[0].Units || s.Need.Bytes < 1e5 {
			t.Errorf("%+v", s)
		}
	}
}

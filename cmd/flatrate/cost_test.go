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

// TestCostRefuses holds that a wrong flag is one line and exit code 2, and nothing is printed.
func TestCostRefuses(t *testing.T) {
	for _, args := range []string{
		"", "--preset nobody", "--preset sessions --users 0", "--preset sessions --users NaN", "--preset sessions --users=-5",
		"--preset sessions --users 1e12", "--preset sessions --users many", "--preset sessions --messages 5", "--messages=-1", "--messages Inf",
		"--messages 5 --as-article", "--preset sessions --region mars-north-1", "--preset sessions --node cache.z9.huge",
		"--preset sessions --node cache.r8g.large --engine redis", "--preset sessions --kind memorydb", "--preset sessions --kind cloud",
		"--preset sessions --term 3y", "--preset sessions --reads firm", "--preset sessions --headroom 1", "--preset sessions --peak 0",
		"--preset sessions --spread 1", "--preset sessions --cross-az 2", "--preset sessions --nodes=-1", "--preset sessions --shards 501",
		"--preset sessions --output pdf", "--commandstats", "--meter shop", "--messages 5 --queue-batch 11", "--messages 5 --days 0",
		"--messages 5 --queue-batch 10 --message-bytes 200000", "--messages 5 --item-bytes 500000", "--db-reads 5 --hit-rate 1.5",
		"--db-reads 5 --db-usd-per-million NaN", "--rcu=-1", "--dynamodb-reads 1e14",
	} {
		code, out, problems := runCost(t, strings.Fields(args)...)
		if code != 2 || out != "" || strings.Count(problems, "\n") != 1 || !strings.HasPrefix(problems, "flatrate: ") {
			t.Errorf("%s: exit code %d, %q, %q", args, code, out, problems)
		}
	}
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

package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/replay"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage/bill"
	"github.com/flatrate/flatrate/cost"
	"github.com/flatrate/flatrate/meter"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/parquet-go/parquet-go"
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
		"--cur a --cur ./a", "--cloudwatch a --cloudwatch a",
		"--db-reads 5 --db-usd-per-million NaN", "--rcu=-1", "--dynamodb-reads 1e14",
	} {
		code, out, problems := runCost(t, strings.Fields(args)...)
		if code != 2 || out != "" || strings.Count(problems, "\n") != 1 || !strings.HasPrefix(problems, "flatrate: ") {
			t.Errorf("%s: exit code %d, %q, %q", args, code, out, problems)
		}
	}
}

// TestCostOfParquet reads a report as Parquet, whole and cut short.
func TestCostOfParquet(t *testing.T) {
	type lineItem struct {
		Product string    `parquet:"line_item_product_code"`
		Usage   string    `parquet:"line_item_usage_type"`
		Amount  float64   `parquet:"line_item_usage_amount"`
		Cost    float64   `parquet:"line_item_unblended_cost"`
		Kind    string    `parquet:"line_item_line_item_type"`
		Start   time.Time `parquet:"line_item_usage_start_date,timestamp(microsecond)"`
		End     time.Time `parquet:"line_item_usage_end_date,timestamp(microsecond)"`
	}
	from := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	path := filepath.Join(t.TempDir(), "report.parquet")
	if err := parquet.WriteFile(path, []lineItem{{"AmazonDynamoDB", "ReadRequestUnits", 1.2e8, 15, "Usage", from, from.AddDate(0, 0, 30)}}); err != nil {
		t.Fatal(err)
	}
	if e := estimateOf(t, "--cur", path); e.Total.MeteredUSD != 15 {
		t.Errorf("$%v", e.Total.MeteredUSD)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{8, len(whole) / 2, len(whole) - 1} {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, problems := runCost(t, "--cur", path)
		if code != 1 || out != "" || strings.Count(problems, "\n") != 1 || !strings.Contains(problems, path+": not a whole Parquet file") {
			t.Errorf("%d of %d bytes: exit code %d, %q, %s", n, len(whole), code, out, problems)
		}
	}
}

// TestCostReadsWhatReplayPrints holds the two commands together.
func TestCostReadsWhatReplayPrints(t *testing.T) {
	o := replay.Outcome{Requests: 3000, Span: 24 * time.Hour,
		Counts: replay.Counts{Reads: 2911, Created: 121, Lookups: 2747, Hits: 866, Misses: 1881}}
	var out bytes.Buffer
	if err := replay.NewResult(o, true, cost.Bill{}, nil).JSON(&out); err != nil {
		t.Fatal(err)
	}
	f, err := bill.ReadReplay("f", &out, bill.Options{ItemBytes: 2048}, cost.Database{USDPerMillion: 1})
	if err != nil || len(f.Workloads) != 3 {
		t.Fatalf("%+v, %v", f, err)
	}
	d, calls, db := f.Workloads[0].Usage.DynamoDB, f.Workloads[1].Usage.APIGateway.HTTPRequests, f.Workloads[2].Usage.Database
	if d.Reads[0].Count != 30*2911 || d.Writes[0].Count != 30*121 || calls != 90_000 || db.Reads != 30*2747 || math.Abs(db.HitRate-866/2747.0) > 1e-12 {
		t.Errorf("%+v", f.Workloads)
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

package limits_test

import (
	"errors"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/limits"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/yamlfile"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/rogpeppe/go-internal/txtar"
)

const day = 24 * time.Hour

// TestExample holds what the example file means.
func TestExample(t *testing.T) {
	data, err := os.ReadFile("testdata/plans.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := limits.Parse("plans.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	type limit = ratelimit.Limit
	want := map[string]ratelimit.Config{
		"basic": {Limits: []limit{
			{Name: "throttle", Algorithm: ratelimit.TokenBucket, Limit: 21, Window: 2 * time.Second, Burst: 20},
			{Name: "quota", Algorithm: ratelimit.Quota, Limit: 10_000, Period: ratelimit.Month},
		}},
		"gold": {Limits: []limit{
			{Name: "throttle", Algorithm: ratelimit.TokenBucket, Limit: 100, Window: time.Second, Burst: 200},
			{Name: "quota", Algorithm: ratelimit.Quota, Limit: 1_000_000, Period: ratelimit.Week},
			{Algorithm: ratelimit.Concurrency, Limit: 20, Lease: 2 * time.Minute},
		}, Outage: ratelimit.OutageLocal, Processes: 4},
		"partner": {Limits: []limit{
			{Name: "minute", Algorithm: ratelimit.SlidingWindow, Limit: 600, Window: time.Minute},
			{Algorithm: ratelimit.Quota, Limit: 50_000, Period: ratelimit.Day, Offset: 6 * time.Hour},
		}, Timeout: 100 * time.Millisecond, Outage: ratelimit.OutageClosed, RememberDenied: time.Second},
		"sign-in": {Limits: []limit{{Algorithm: ratelimit.SlidingLog, Limit: 5, Window: 15 * time.Minute}}},
		"bulk": {Limits: []limit{{Algorithm: ratelimit.TokenBucket, Limit: 1000, Window: time.Second, Burst: 2000}},
			Batch: 40, BatchFor: 500 * time.Millisecond},
	}
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v", slices.Collect(maps.Keys(got)))
	}
	page, err := os.ReadFile("../../../../docs/ratelimit-plans.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), string(data)) {
		t.Error("docs/ratelimit-plans.md shows another file than testdata/plans.yaml")
	}
}

// TestPageNamesEveryKey compares the page with what the parser says that it knows.
func TestPageNamesEveryKey(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/ratelimit-plans.md")
	if err != nil {
		t.Fatal(err)
	}
	text := "plans: {p: {zzzzz: 1, throttle: {zzzzz: 1}, quota: {zzzzz: 1}, limits: [{zzzzz: 1, algorithm: zzzzz, outage: zzzzz, period: zzzzz}]}}"
	_, err = limits.Parse("a.yaml", []byte(text))
	if err == nil {
		t.Fatal("unknown keys were accepted")
	}
	words := 0
	for _, list := range regexp.MustCompile(`not one of (.*)`).FindAllStringSubmatch(err.Error(), -1) {
		for _, word := range strings.Split(list[1], ", ") {
			words++
			if !strings.Contains(string(page), "`"+word+"`") {
				t.Errorf("docs/ratelimit-plans.md does not name `%s`", word)
			}
		}
	}
	if words < 30 {
		t.Errorf("%d words in %v", words, err)
	}
}

// TestAPIGateway holds how rates and offsets of usage plans are read.
func TestAPIGateway(t *testing.T) {
	for text, want := range map[string]ratelimit.Limit{
		"throttle: {rateLimit: 1, burstLimit: 1}":         {Limit: 1, Window: time.Second, Burst: 1},
		"throttle: {rateLimit: 10.0, burstLimit: 2}":      {Limit: 10, Window: time.Second, Burst: 2},
		"throttle: {rateLimit: 0.5, burstLimit: 3}":       {Limit: 1, Window: 2 * time.Second, Burst: 3},
		"throttle: {rateLimit: 2.25, burstLimit: 3}":      {Limit: 9, Window: 4 * time.Second, Burst: 3},
		"throttle: {rateLimit: 33.333333, burstLimit: 3}": {Limit: 33333333, Window: 1_000_000 * time.Second, Burst: 3},
		"quota: {limit: 5, period: DAY}":                  {Limit: 5, Period: ratelimit.Day},
		"quota: {limit: 5, period: DAY, offset: 0}":       {Limit: 5, Period: ratelimit.Day},
		"quota: {limit: 5, period: WEEK}":                 {Limit: 5, Period: ratelimit.Week, Offset: 6 * day}, // Sunday
		"quota: {limit: 5, period: WEEK, offset: 6}":      {Limit: 5, Period: ratelimit.Week, Offset: 5 * day}, // Saturday
		"quota: {limit: 5, period: MONTH, offset: 27}":    {Limit: 5, Period: ratelimit.Month, Offset: 27 * day},
	} {
		want.Name, want.Algorithm = "quota", ratelimit.Quota
		if want.Burst > 0 {
			want.Name, want.Algorithm = "throttle", ratelimit.TokenBucket
		}
		got, err := limits.Parse("a.yaml", []byte("plans:\n  p:\n    "+text+"\n"))
		if err != nil || !reflect.DeepEqual(got["p"].Limits, []ratelimit.Limit{want}) {
			t.Errorf("%s: %+v %v", text, got, err)
		}
	}
}

// TestErrors compares with testdata/errors.txtar: each NAME.yaml and what is wrong with it, NAME.err.
func TestErrors(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/errors.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(archive.Files); i += 2 {
		in, want := archive.Files[i], archive.Files[i+1]
		plans, err := limits.Parse(in.Name, in.Data)
		got := ""
		if err != nil {
			got = err.Error() + "\n"
		}
		if got != string(want.Data) || plans != nil {
			t.Errorf("%s:\ngot\n%swant\n%s", in.Name, got, want.Data)
		}
		archive.Files[i+1].Data = []byte(got)
	}
	if os.Getenv("FLATRATE_UPDATE") != "" {
		if err := os.WriteFile("testdata/errors.txtar", txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzParse: whatever a file says, there are plans or problems with a position, and the plans can be used.
func FuzzParse(f *testing.F) {
	example, err := os.ReadFile("testdata/plans.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	archive, err := txtar.ParseFile("testdata/errors.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for i := 0; i < len(archive.Files); i += 2 {
		f.Add(archive.Files[i].Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		plans, err := limits.Parse("a.yaml", data)
		if err == nil {
			if len(plans) == 0 {
				t.Error("neither plans nor problems")
			}
			for name, cfg := range plans {
				if len(cfg.Limits) == 0 || name == "" {
					t.Errorf("%q: %+v", name, cfg)
				}
			}
			return
		}
		var list *yamlfile.Error
		if !errors.As(err, &list) || len(list.Problems) == 0 || plans != nil {
			t.Fatalf("%v, plans %v", err, plans)
		}
		for _, p := range list.Problems {
			if p.Line < 1 || p.Column < 1 || p.Line > 2+strings.Count(string(data), "\n")+strings.Count(string(data), "\r")+strings.Count(string(data), "\u0085")+strings.Count(string(data), "\u2028")+strings.Count(string(data), "\u2029") {
				t.Errorf("%+v", p)
			}
		}
	})
}

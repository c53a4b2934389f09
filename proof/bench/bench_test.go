package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

func TestStatistics(t *testing.T) {
	for _, test := range []struct {
		values         []float64
		median, spread float64
	}{
		{[]float64{5}, 5, 0},
		{[]float64{3, 1}, 2, 0.5},              // quartiles 1.5 and 2.5
		{[]float64{5, 1, 3, 2, 4}, 3, 2.0 / 3}, // 2 and 4
		{[]float64{1, 1, 1, 1, 100}, 1, 0},     // one outlier moves neither
		{[]float64{-1, -2, -3}, -2, 0.5},       // -2.5 and -1.5
		{[]float64{0, 0, 0}, 0, 0},
	} {
		before := slices.Clone(test.values)
		if m, s := median(test.values), spread(test.values); m != test.median || math.Abs(s-test.spread) > 1e-9 {
			t.Errorf("%v: median %v, spread %v", test.values, m, s)
		}
		if !slices.Equal(before, test.values) {
			t.Errorf("%v became %v", before, test.values)
		}
	}
	if got := divide([]float64{6, 9}, []float64{2, 3}); !slices.Equal(got, []float64{3, 3}) {
		t.Errorf("divide: %v", got)
	}
}

// fixed is a contender whose rounds return the values in turn.
func fixed(name string, order *[]string, values ...float64) Peer {
	i := -1
	return Peer{name, func(context.Context, time.Duration) (float64, error) {
		*order = append(*order, name)
		i++
		return values[i], nil
	}}
}

func TestMeasure(t *testing.T) {
	var order []string
	row := Row{
		Name: "r", Unit: "ops/s", Better: "higher",
		Ours:  fixed("flatrate", &order, 1e9, 10, 20, 30).Round,
		Peers: []Peer{fixed("a", &order, 1e9, 10, 10, 10), fixed("b", &order, 0, 5, 10, 15)},
	}
	alone := Row{Name: "alone", Unit: "B", Better: "lower", Ours: fixed("alone", &order, 0, 7, 7, 7).Round}
	var got []Figure
	err := measure(t.Context(), "x", []Row{row, alone}, plan{rounds: 3, total: time.Second}, func(f Figure) { got = append(got, f) })
	if err != nil {
		t.Fatal(err)
	}
	if want := "flatrate a b b a flatrate flatrate a b b a flatrate alone alone alone alone"; strings.Join(order, " ") != want {
		t.Errorf("order %v", order)
	}
	text, err := json.Marshal(got)
	want := `[` +
		`{"area":"x","row":"r","versus":"a","value":20,"unit":"ops/s","ratio":2,"better":"higher","spread":0.5},` +
		`{"area":"x","row":"r","versus":"b","value":20,"unit":"ops/s","ratio":2,"better":"higher","spread":0},` +
		`{"area":"x","row":"alone","versus":"-","value":7,"unit":"B","ratio":null,"better":"lower","spread":0}]`
	if err != nil || string(text) != want {
		t.Errorf("%v\n got %s\nwant %s", err, text, want)
	}
}

func TestMeasureFails(t *testing.T) {
	boom := errors.New("boom")
	for name, round := range map[string]Round{
		"an error":  func(context.Context, time.Duration) (float64, error) { return 0, boom },
		"no number": func(context.Context, time.Duration) (float64, error) { return math.NaN(), nil },
		"no end":    func(context.Context, time.Duration) (float64, error) { return math.Inf(1), nil },
		"the op's":  Throughput(3, func(context.Context, int) error { return boom }),
	} {
		report := func(f Figure) { t.Errorf("%s: %+v", name, f) }
		if err := measure(t.Context(), "x", []Row{{Name: "r", Ours: round}}, quick, report); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := measure(ctx, "x", []Row{{Ours: Throughput(1, nil)}}, quick, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestThroughputCountsEachCaller(t *testing.T) {
	var ops [4]atomic.Int64
	var all atomic.Int64
	n, took, err := drive(t.Context(), len(ops), 20*time.Millisecond, func(_ context.Context, caller int) error {
		time.Sleep(time.Millisecond) // so that each caller gets its turn, however few cores there are
		ops[caller].Add(1)
		all.Add(1)
		return nil
	})
	if err != nil || n != all.Load() || took < 20*time.Millisecond {
		t.Errorf("%d of %d in %v, %v", n, all.Load(), took, err)
	}
	for i := range ops {
		if ops[i].Load() == 0 {
			t.Errorf("caller %d did nothing", i)
		}
	}
}

func TestPlanEndsInTime(t *testing.T) {
	rows := make([]Row, 50)
	for i := range rows {
		rows[i].Peers = make([]Peer, i%4)
	}
	contenders := 0
	for _, row := range rows {
		contenders += 1 + len(row.Peers)
	}
	if all := quick.each(rows) * time.Duration(contenders*(quick.rounds+1)); all > quick.total || all < quick.total/2 {
		t.Errorf("50 rows take %v of %v", all, quick.total)
	}
	if d := quick.each(rows[:1]); d != quick.round {
		t.Errorf("one row: %v", d)
	}
}

func TestTargets(t *testing.T) {
	targets, err := readTargets(targetsCSV)
	if err != nil || len(targets) < 30 {
		t.Fatalf("%d targets, %v", len(targets), err)
	}
	for key, owed := range targets {
		harder := owed.stretch >= owed.target
		if owed.better == "lower" {
			harder = owed.stretch <= owed.target
		}
		if !harder || owed.better != "lower" && owed.better != "higher" {
			t.Errorf("%v: %+v", key, owed)
		}
	}
	if _, err := readTargets("area,row,versus,better,target,stretch,note\na,b,c,higher,x,1,\n"); err == nil {
		t.Error("x is a number")
	}
	higher, lower := target{"higher", 1.5, 2}, target{"lower", 0.5, 0.2}
	for _, test := range []struct {
		owed  target
		ratio number
		want  string
	}{
		{higher, 1.49, "no"}, {higher, 1.5, "yes"}, {higher, 2, "stretch"},
		{lower, 0.51, "no"}, {lower, 0.5, "yes"}, {lower, 0.2, "stretch"},
	} {
		if got := test.owed.meets(Figure{Versus: "p", Ratio: test.ratio}); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
	if got := lower.meets(Figure{Versus: "-", Value: 0.3, Ratio: number(math.NaN())}); got != "yes" {
		t.Errorf("a value for itself: %v", got)
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	tab := &table{w: &out, targets: map[rowKey]target{{"x", "r", "peer"}: {"higher", 1.5, 2}}}
	tab.write(Figure{Area: "x", Row: "r", Versus: "peer", Value: 123456, Unit: "ops/s", Ratio: 1.777, Better: "higher", Spread: 0.04})
	tab.write(Figure{Area: "x", Row: "bytes", Versus: "-", Value: 61.25, Unit: "B", Ratio: number(math.NaN()), Better: "lower"})
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"row versus value ratio spread target stretch met",
		"r peer 123456 ops/s 1.78 4% 1.5 2 yes",
		"bytes - 61.2 B 0%",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestArguments(t *testing.T) {
	for _, args := range []string{"connect", "--quick connect --output json", "connect -quick", "connect --output=json --quick"} {
		area, rough, output, err := parse(strings.Fields(args))
		if err != nil || area.Name != "connect" || rough != strings.Contains(args, "quick") ||
			(output == "json") != strings.Contains(args, "json") {
			t.Errorf("%s: %v %v %v %v", args, area.Name, rough, output, err)
		}
	}
	for _, args := range []string{"", "nowhere", "connect connect", "connect --output xml", "connect --fast", "-h"} {
		err := bench(t.Context(), strings.Fields(args), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "areas: connect") {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestBEndsAnAreaOnce(t *testing.T) {
	var ended []int
	b := &B{}
	err := b.run(func() error {
		b.Cleanup(func() { ended = append(ended, 1) })
		b.Cleanup(func() { ended = append(ended, 2) })
		b.Must(nil)
		b.Must(errors.New("no server"))
		return nil
	})
	if err == nil || err.Error() != "no server" || !slices.Equal(ended, []int{2, 1}) {
		t.Errorf("%v, %v", err, ended)
	}
}

// TestAreas runs areas once, too short for figures that mean anything.
func TestAreas(t *testing.T) {
	valkeytest.Start(t) // skips where there is no server
	for name, test := range map[string]struct {
		rows    func(context.Context, *B) []Row
		figures int
	}{"connect": {connectRows, 15}, "ratelimit": {ratelimitRows, 13}} {
		t.Run(name, func(t *testing.T) {
			b := &B{Quick: true}
			figures := 0
			err := b.run(func() error {
				short := plan{rounds: 1, round: 10 * time.Millisecond, total: time.Minute}
				return measure(t.Context(), name, test.rows(t.Context(), b), short, func(f Figure) {
					figures++
					if f.Value <= 0 || f.Ratio <= 0 {
						t.Errorf("%+v", f)
					}
				})
			})
			if err != nil || figures != test.figures {
				t.Errorf("%d figures, %v", figures, err)
			}
		})
	}
}

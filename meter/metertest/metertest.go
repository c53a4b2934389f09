// Package metertest is the conformance suite of package meter: what holds on every kind of server.
package metertest

import (
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cost"
	"github.com/flatrate/flatrate/meter"
	"github.com/flatrate/flatrate/valkeytest"
)

// Run runs the suite against env.
func Run(t *testing.T, env valkeytest.Env) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, valkeytest.Env)
	}{
		{"Model", model},
		{"Nothing", nothing},
		{"Shared", shared},
		{"Apart", apart},
		{"Month", month},
		{"Foreign", foreign},
		{"Ends", ends},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, env) })
	}
}

func start(t *testing.T, env valkeytest.Env, cfg meter.Config) *meter.Meter {
	t.Helper()
	if cfg.Every == 0 {
		cfg.Every = 10 * time.Minute // the suite flushes
	}
	m, err := meter.New(env.Client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close(t.Context()) })
	return m
}

func read(t *testing.T, env valkeytest.Env, cfg meter.Config) map[string]int64 {
	t.Helper()
	days, err := meter.Read(t.Context(), env.Client, cfg, 3)
	if err != nil {
		t.Fatal(err)
	}
	total := map[string]int64{}
	for _, d := range days { // two, if the test runs at midnight
		for field, n := range d.Counts {
			total[field] += n
		}
		if d.First.After(d.Last) {
			t.Errorf("from %v to %v", d.First, d.Last)
		}
	}
	return total
}

// action counts one thing, and says under which field it must turn up.
func action(m *meter.Meter, rng *rand.Rand, want map[string]int64) {
	switch rng.IntN(6) {
	case 0:
		bytes := rng.IntN(5000)
		m.SessionRead(bytes)
		want["sessions:read:"+kb(bytes)]++
	case 1:
		bytes := rng.IntN(5000)
		m.SessionWrite(bytes)
		want["sessions:write:"+kb(bytes)]++
	case 2:
		n := rng.Int64N(5) - 1
		m.Requests(n)
		want["requests"] += max(0, n)
	case 3:
		m.Messages(meter.Messages{Sent: 70_000, Deleted: 1})
		want["queue:send:2"]++
		want["queue:delete"]++
	case 4:
		m.Messages(meter.Messages{Received: 100, Empty: 2, Deleted: -1})
		want["queue:receive:1"]++
		want["queue:empty"] += 2
	case 5:
		m.SessionRead(1 << 30) // over what an item may be: the largest
		want["sessions:read:400"]++
	}
}

// kb is how many KB so many bytes begin, as the model has it.
func kb(bytes int) string {
	n := 1
	for n*1024 < bytes {
		n++
	}
	return string(rune('0' + n)) // below 5,000 bytes: one digit
}

// model drives a meter with random actions and flushes, beside a plain map.
func model(t *testing.T, env valkeytest.Env) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	cfg := meter.Config{Prefix: valkeytest.Prefix(t)}
	m := start(t, env, cfg)
	want := map[string]int64{}
	for range 400 {
		action(m, rng, want)
		if rng.IntN(20) == 0 {
			if err := m.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := read(t, env, cfg); !same(got, want) {
				t.Fatalf("seed %d: got %v, want %v", seed, got, want)
			}
		}
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, env, cfg); !same(got, want) {
		t.Errorf("seed %d: got %v, want %v", seed, got, want)
	}
}

func same(got, want map[string]int64) bool {
	maps.DeleteFunc(want, func(_ string, n int64) bool { return n == 0 })
	return maps.Equal(got, want)
}

func nothing(t *testing.T, env valkeytest.Env) {
	cfg := meter.Config{Prefix: valkeytest.Prefix(t)}
	m := start(t, env, cfg)
	if err := m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	days, err := meter.Read(t.Context(), env.Client, cfg, meter.MaxDays)
	if err != nil || len(days) != 0 {
		t.Errorf("%v, %v", days, err)
	}
	if _, _, err := meter.Month(days, meter.Options{}); !errors.Is(err, meter.ErrNothing) {
		t.Errorf("got %v", err)
	}
}

// shared lets several meters of one name count at once, flushing as they go: not one count is lost or doubled.
func shared(t *testing.T, env valkeytest.Env) {
	cfg := meter.Config{Prefix: valkeytest.Prefix(t), Name: "shop {1}"}
	const meters, callers, rounds = 3, 4, 200
	var all sync.WaitGroup
	var started []*meter.Meter
	for range meters {
		m := start(t, env, cfg)
		started = append(started, m)
		for range callers {
			all.Go(func() {
				for i := range rounds {
					m.Requests(1)
					if i%50 == 0 {
						if err := m.Flush(t.Context()); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
	}
	all.Wait()
	for _, m := range started {
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if got := read(t, env, cfg)["requests"]; got != meters*callers*rounds {
		t.Errorf("%d requests, want %d", got, meters*callers*rounds)
	}
}

// apart holds that names and prefixes don't mix.
func apart(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	for i, name := range []string{"", "a", "b"} {
		m := start(t, env, meter.Config{Prefix: prefix, Name: name})
		m.Requests(int64(i) + 1)
		if err := m.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"", "a", "b"} {
		if got := read(t, env, meter.Config{Prefix: prefix, Name: name}); len(got) != 1 || got["requests"] != int64(i)+1 {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// month holds what becomes of the counts: usage that is charged as the operations would have been.
func month(t *testing.T, env valkeytest.Env) {
	cfg := meter.Config{Prefix: valkeytest.Prefix(t)}
	m := start(t, env, cfg)
	m.SessionRead(2048)
	m.SessionWrite(2049)
	m.Requests(10)
	m.Messages(meter.Messages{Sent: 65_537, Received: 1, Deleted: 1, Empty: 1})
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	days, err := meter.Read(t.Context(), env.Client, cfg, 2)
	if err != nil || len(days) == 0 {
		t.Fatal(days, err)
	}
	days[0].First, days[len(days)-1].Last = time.Unix(0, 0), time.Unix(30*86400, 0) // a month: nothing is scaled
	list, span, err := meter.Month(days, meter.Options{Consistency: cost.Eventual, REST: true, KeepsGateway: true})
	if err != nil || span != 30*24*time.Hour || len(list) != 3 {
		t.Fatalf("%+v, %v, %v", list, span, err)
	}
	prices, err := cost.ListPrices("us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]float64{
		"sessions":      {"RRU": 0.5, "WRU": 3},
		"rate limiting": {"REST request": 10},
		"queue":         {"standard request": 5}, // 2 to send, 1 to receive, 1 to delete, 1 in vain
	}
	for _, w := range list {
		w.Usage.SQS.FreeUsed = 1e6
		bill, err := prices.Bill(w.Usage, cost.Flat{})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, l := range bill.PerService[0].Lines {
			got[l.Unit] = l.Units
		}
		if !maps.Equal(got, want[w.Name]) || w.KeepsGateway != (w.Name == "rate limiting") {
			t.Errorf("%s: %v, want %v", w.Name, got, want[w.Name])
		}
	}
}

// foreign holds that somebody else's data under the key is an error, and not a count.
func foreign(t *testing.T, env valkeytest.Env) {
	cfg := meter.Config{Prefix: valkeytest.Prefix(t)}
	c := env.Client
	m := start(t, env, cfg)
	m.Requests(1)
	if err := m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	days, err := meter.Read(t.Context(), c, cfg, 1)
	if err != nil || len(days) != 1 {
		t.Skipf("midnight: %v, %v", days, err)
	}
	key := cfg.Prefix + ":meter:{default}:day:" + days[0].Date.Format("20060102")
	if err := c.Do(t.Context(), c.B().Hset().Key(key).FieldValue().FieldValue("requests", "many").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := meter.Read(t.Context(), c, cfg, 1); err == nil {
		t.Error("a count that is no number was read")
	}
	m.Requests(1)
	if err := m.Flush(t.Context()); err == nil {
		t.Error("a count was added to what is no number")
	}
	if err := c.Do(t.Context(), c.B().Del().Key(key).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if err := m.Flush(t.Context()); err != nil { // what had failed waits
		t.Fatal(err)
	}
	if got := read(t, env, cfg)["requests"]; got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
}

// ends holds that a day ends so long after its last count.
func ends(t *testing.T, env valkeytest.Env) {
	cfg := meter.Config{Prefix: valkeytest.Prefix(t), Keep: 24 * time.Hour}
	m := start(t, env, cfg)
	m.Requests(1)
	if err := m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	days, err := meter.Read(t.Context(), env.Client, cfg, 2)
	if err != nil || len(days) != 1 {
		t.Fatal(days, err)
	}
	key := cfg.Prefix + ":meter:{default}:day:" + days[0].Date.Format("20060102")
	left, err := env.Client.Do(t.Context(), env.Client.B().Pttl().Key(key).Build()).AsInt64()
	if day := (24 * time.Hour).Milliseconds(); err != nil || left <= day-10*60_000 || left > day {
		t.Errorf("%d ms left, %v", left, err)
	}
}

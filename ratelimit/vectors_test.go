package ratelimit

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

// vectorPlan is a plan of docs/recipes/ratelimit/vectors.json: its keys and arguments, and calls of the script.
type vectorPlan struct {
	Says    string        `json:"says"`
	Name    string        `json:"name"`
	Limits  []vectorLimit `json:"limits"`
	Subject string        `json:"subject"`
	Keys    []string      `json:"keys"`
	Args    []string      `json:"args"`
	Steps   []vectorStep  `json:"steps"`
}

// vectorLimit is a limit as the recipes take it; times in ms.
type vectorLimit struct {
	Algorithm string `json:"algorithm"`
	Limit     int64  `json:"limit"`
	Window    int64  `json:"window,omitempty"`
	Burst     int64  `json:"burst,omitempty"`
	Period    string `json:"period,omitempty"`
	Offset    int64  `json:"offset,omitempty"`
	Lease     int64  `json:"lease,omitempty"`
}

type vectorStep struct {
	Now   int64   `json:"now"` // Unix us
	Token string  `json:"token"`
	Cost  int64   `json:"cost"`
	Count int64   `json:"count"`
	Reply []int64 `json:"reply"`
}

const vectorsAbout = "plans: for each plan the keys of a subject for the prefix fr, the arguments of decide.lua for its limits " +
	"(that of a token left empty), and calls of the script, one after the other on an empty server: now is the last argument " +
	"(Unix microseconds), reply what the script answers. All other times are ms."

// vectorPlans are the plans, without what the script says.
func vectorPlans() []vectorPlan {
	hour := time.Hour.Milliseconds()
	return []vectorPlan{
		{Says: "fixed", Limits: []vectorLimit{{Algorithm: "fixed", Limit: 7, Window: 60_000}}, Subject: "user:42"},
		{Says: "sliding", Limits: []vectorLimit{{Algorithm: "sliding", Limit: 7, Window: 60_000}}, Subject: "user:42"},
		{Says: "sliding, parts rounded up", Limits: []vectorLimit{{Algorithm: "sliding", Limit: 7, Window: 1_234}}, Subject: "user:42"},
		{Says: "log", Limits: []vectorLimit{{Algorithm: "log", Limit: 7, Window: 60_000}}, Subject: "user:42"},
		{Says: "log, records of two bytes", Limits: []vectorLimit{{Algorithm: "log", Limit: 7, Window: 16_384}}, Subject: "user:42"},
		{Says: "log, records of four bytes", Limits: []vectorLimit{{Algorithm: "log", Limit: 7, Window: 24 * hour}}, Subject: "user:42"},
		{Says: "bucket", Limits: []vectorLimit{{Algorithm: "bucket", Limit: 7, Window: 60_000}}, Subject: "user:42"},
		{Says: "bucket with a burst", Limits: []vectorLimit{{Algorithm: "bucket", Limit: 3, Window: 1_000, Burst: 7}}, Subject: "user:42"},
		{Says: "day", Limits: []vectorLimit{{Algorithm: "quota", Limit: 7, Period: "day"}}, Subject: "user:42"},
		{Says: "week from Sunday", Limits: []vectorLimit{{Algorithm: "quota", Limit: 7, Period: "week", Offset: 6 * 24 * hour}}, Subject: "user:42"},
		{Says: "month", Limits: []vectorLimit{{Algorithm: "quota", Limit: 7, Period: "month", Offset: 90_000}}, Subject: "user:42"},
		{Says: "concurrency", Limits: []vectorLimit{{Algorithm: "concurrency", Limit: 3}}, Subject: "user:42"},
		{Says: "all of them", Name: "all", Subject: "user:42", Limits: []vectorLimit{
			{Algorithm: "fixed", Limit: 20, Window: 60_000}, {Algorithm: "sliding", Limit: 19, Window: hour},
			{Algorithm: "log", Limit: 18, Window: hour}, {Algorithm: "concurrency", Limit: 9, Lease: 5_000},
			{Algorithm: "bucket", Limit: 10, Window: 1_000, Burst: 17}, {Algorithm: "quota", Limit: 1000, Period: "month"},
		}},
		{Says: "large numbers", Limits: []vectorLimit{{Algorithm: "fixed", Limit: MaxLimit, Window: hour}}, Subject: "user:42"},
		{Says: "the empty subject", Limits: []vectorLimit{{Algorithm: "fixed", Limit: 7, Window: 250}}, Subject: ""},
		{Says: "braces and spaces", Name: "a:b{c} d", Limits: []vectorLimit{{Algorithm: "fixed", Limit: 7, Window: 24 * hour}}, Subject: "a{b} 50%\n"},
		{Says: "other alphabets", Name: "f\u00fc\u00fc", Limits: []vectorLimit{{Algorithm: "fixed", Limit: 7, Window: 90_000}}, Subject: "\u540d\u524d \U0001f512"},
		{Says: "a long subject", Limits: []vectorLimit{{Algorithm: "fixed", Limit: 7, Window: hour}}, Subject: strings.Repeat("x", 513)},
		{Says: "the longest that is kept", Limits: []vectorLimit{{Algorithm: "fixed", Limit: 7, Window: hour}}, Subject: strings.Repeat("x", 512)},
	}
}

// vectorSteps asks for one, for many, for too much; looks, gives back, and lets time pass, backwards too.
func vectorSteps(limit int64) []vectorStep {
	const begin = 1_790_000_000_123_456
	now := int64(begin)
	var steps []vectorStep
	step := func(pass time.Duration, cost, count int64) {
		now += pass.Microseconds()
		steps = append(steps, vectorStep{Now: now, Token: fmt.Sprintf("token%d", len(steps)), Cost: cost, Count: count})
	}
	step(0, 1, 1)
	step(time.Millisecond, 2, 1)
	step(333*time.Microsecond, 1, 0)
	step(200*time.Millisecond, 1, 9)
	step(0, 3, 1)
	step(0, min(limit+1, MaxLimit), 1)
	step(0, 2, -begin/1000)
	step(time.Second, 2, 1)
	step(-3*time.Second, 1, 1)
	step(40*time.Second, 1, 2)
	step(30*time.Minute, 4, 1)
	step(40*24*time.Hour, 1, 1)
	step(0, 1, 0)
	return steps
}

func (l vectorLimit) limit(t *testing.T) Limit {
	t.Helper()
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	limit := Limit{Limit: l.Limit, Window: ms(l.Window), Burst: l.Burst, Offset: ms(l.Offset), Lease: ms(l.Lease)}
	for a := FixedWindow; a.String() != l.Algorithm; a++ {
		if limit.Algorithm = a + 1; limit.Algorithm > Quota {
			t.Fatalf("algorithm %q", l.Algorithm)
		}
	}
	for p := Day; p <= Month; p++ {
		if p.String() == l.Period {
			limit.Period = p
		}
	}
	return limit
}

// TestVectors holds what recipes in other languages are tested with. FLATRATE_UPDATE=1 writes it anew.
func TestVectors(t *testing.T) {
	client := valkeytest.Start(t).Client()
	all := vectorPlans()
	for i := range all {
		all[i].fill(t, func(cfg Config) (*Limiter, error) {
			if err := client.Do(t.Context(), client.B().Flushall().Build()).Error(); err != nil {
				return nil, err
			}
			return New(client, cfg)
		})
	}
	var b strings.Builder
	about, _ := json.Marshal(vectorsAbout)
	fmt.Fprintf(&b, "{\n  \"about\": %s,\n  \"plans\": [\n", about)
	for i, p := range all {
		steps := p.Steps
		p.Steps = nil
		head, _ := json.Marshal(p)
		fmt.Fprintf(&b, "    %s[\n", strings.TrimSuffix(string(head), "null}"))
		for j, s := range steps {
			line, _ := json.Marshal(s)
			fmt.Fprintf(&b, "      %s%s\n", line, map[bool]string{true: ",", false: "\n    ]}"}[j < len(steps)-1])
		}
		if i < len(all)-1 {
			text := strings.TrimSuffix(b.String(), "\n")
			b.Reset()
			b.WriteString(text + ",\n")
		}
	}
	b.WriteString("  ]\n}\n")
	const file = "../docs/recipes/ratelimit/vectors.json"
	if os.Getenv("FLATRATE_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(b.String(), "\n")
	for i, line := range strings.Split(string(want), "\n") {
		if i >= len(got) || got[i] != line {
			t.Fatalf("%s:%d:\n%s\nnow\n%s", file, i+1, line, strings.Join(got[min(i, len(got)):min(i+1, len(got))], ""))
		}
	}
}

// fill runs the steps of a plan.
func (p *vectorPlan) fill(t *testing.T, newLimiter func(Config) (*Limiter, error)) {
	t.Helper()
	cfg := Config{Name: p.Name}
	least := int64(MaxLimit)
	for _, l := range p.Limits {
		cfg.Limits = append(cfg.Limits, l.limit(t))
		least = min(least, l.Limit)
	}
	l, err := newLimiter(cfg)
	if err != nil {
		t.Fatalf("%s: %v", p.Says, err)
	}
	p.Keys = []string{l.keys.Key(p.Subject)}
	if l.places >= 0 {
		p.Keys = append(p.Keys, p.Keys[0]+heldPart)
	}
	for _, r := range l.rules {
		p.Args = append(p.Args, r.args...)
		if r.Algorithm == Concurrency {
			p.Args[len(p.Args)-1] = ""
		}
	}
	p.Steps = vectorSteps(least)
	for i := range p.Steps {
		s := &p.Steps[i]
		args := append([]string{strconv.Itoa(len(l.rules)), "1"}, p.Args...)
		if l.places >= 0 {
			args[2+4*l.places+3] = s.Token
		}
		args = append(args, number(s.Cost), number(s.Count), number(s.Now))
		if s.Reply, err = decide.Exec(t.Context(), l.client, p.Keys, args...).AsIntSlice(); err != nil {
			t.Fatalf("%s, step %d: %v", p.Says, i, err)
		}
	}
}

package ratelimit

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"
)

// FuzzDecode holds that no reply, of a server that answers garbage, makes a result that contradicts itself.
func FuzzDecode(f *testing.F) {
	f.Add(int64(1790000000000), int64(1), int64(5), int64(1000), int64(0), int64(1), byte(4))
	f.Add(int64(-1), int64(-1), int64(math.MaxInt64), int64(math.MinInt64), int64(-2), int64(math.MaxInt64), byte(3))
	var limiters []*Limiter
	for _, limits := range [][]Limit{
		{{Limit: 10, Window: time.Minute}},
		{{Algorithm: TokenBucket, Limit: 7, Window: time.Second}},
		{{Algorithm: SlidingLog, Limit: 10, Window: time.Minute}},
		{{Limit: MaxLimit, Window: time.Minute}, {Algorithm: TokenBucket, Limit: 999_983, Window: time.Second}},
	} {
		cfg := Config{Limits: limits}
		rules, err := compileAll(&cfg)
		if err != nil {
			f.Fatal(err)
		}
		l := &Limiter{rules: rules, places: -1}
		for _, r := range rules {
			l.names = append(l.names, r.Name)
		}
		limiters = append(limiters, l)
	}
	f.Fuzz(func(t *testing.T, now, granted, left, all, this, cost int64, size byte) {
		cost = max(1, cost)
		reply := slices.Repeat([]int64{now, granted, left, all, this}, 4)[:size%20]
		for _, l := range limiters {
			for _, decode := range []func() (int64, []answer, error){
				func() (int64, []answer, error) { return l.decode(reply, []run{{cost, 1}}) },
				func() (int64, []answer, error) {
					if l.rules[0].Algorithm == SlidingLog {
						return 0, nil, errReply // it has no fast script
					}
					return l.decodeFast(reply, []run{{cost, 1}})
				},
			} {
				now, answers, err := decode()
				if err != nil {
					if !errors.Is(err, errReply) {
						t.Fatal(err)
					}
					continue
				}
				if len(l.rules) != len(answers[0].states) {
					continue // decodeFast is for one limit
				}
				r := l.result(now, 1, answers[0], 0)
				if r.Allowed != (r.Granted > 0) || r.Allowed && r.RetryAfter != 0 || r.RetryAfter < 0 || r.ResetAfter < 0 || r.Remaining < 0 {
					t.Fatalf("%v: %+v", reply, r)
				}
			}
		}
	})
}

// TestMemoryIsBounded shows a million subjects to what this process remembers of them.
func TestMemoryIsBounded(t *testing.T) {
	const many = 1_000_000
	cfg := Config{Limits: []Limit{{Limit: 10, Window: time.Hour}}, Outage: OutageLocal, Processes: 1, RememberDenied: time.Hour, Batch: 10}
	rules, err := compileAll(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := &Limiter{cfg: cfg}
	l.local.begin(1, rules)
	l.denials.most = cfg.RememberDenied
	l.batches.begin(cfg.Batch, cfg.BatchFor, rules)
	now, admitted := time.Now(), int64(0)
	for i := range many {
		subject := strconv.Itoa(i)
		l.denials.put(subject, 0, now, Result{RetryAfter: time.Hour})
		if t := l.batches.want(subject, 1, &item{}); t != nil {
			l.batches.put(subject, t, now, 0, Result{ResetAfter: time.Hour})
		}
		admitted += l.local.decide(subject, 10, 1).Granted
	}
	denials, batches := 0, 0
	for i := range shards {
		denials += len(l.denials.shards[i].subjects)
		batches += len(l.batches.shards[i].subjects)
	}
	if denials > 65_536 || batches > 65_536 || denials < 30_000 || batches < 30_000 {
		t.Errorf("%d denials and %d batches are kept", denials, batches)
	}
	if n := len(l.local.counts); n != localSubjects+1 {
		t.Errorf("%d local counts are kept", n)
	}
	// Who finds no room shares one count: nobody is admitted for want of memory.
	if admitted != (localSubjects+1)*10 {
		t.Errorf("%d admitted, want %d", admitted, (localSubjects+1)*10)
	}
	if _, ok := l.denials.find("0"); !ok {
		t.Error("the first denial is forgotten")
	}
}

// TestShapes: two limits share a counter only if they count in the same way.
func TestShapes(t *testing.T) {
	for want, limit := range map[string]Limit{
		"w1m": {Limit: 1, Window: time.Minute}, "w90s": {Limit: 1, Window: 90 * time.Second}, "w1d": {Limit: 1, Window: 24 * time.Hour},
		"w1500ms": {Limit: 1, Window: 1500 * time.Millisecond}, "s1h": {Algorithm: SlidingWindow, Limit: 1, Window: time.Hour},
		"l1s": {Algorithm: SlidingLog, Limit: 1, Window: time.Second}, "b7-1s-7": {Algorithm: TokenBucket, Limit: 7, Window: time.Second},
		"b7-1m-50": {Algorithm: TokenBucket, Limit: 7, Window: time.Minute, Burst: 50},
		"c":        {Algorithm: Concurrency, Limit: 1}, "qd": {Algorithm: Quota, Limit: 1, Period: Day},
		"qw-1d": {Algorithm: Quota, Limit: 1, Period: Week, Offset: 24 * time.Hour}, "qm-90m": {Algorithm: Quota, Limit: 1, Period: Month, Offset: 90 * time.Minute},
	} {
		if _, err := compile(limit); err != nil {
			t.Error(err)
		}
		if got := limit.shape(); got != want {
			t.Errorf("the layout is a public contract: %s, want %s", got, want)
		}
	}
	if got := shapes([]Limit{{Limit: 1, Window: time.Minute}, {Algorithm: Quota, Limit: 1, Period: Day}}); got != "w1mqd" {
		t.Error(got)
	}
}

func TestSlot(t *testing.T) {
	// From the cluster specification, and of a key with a tag.
	if got := slot("{123456789}"); got != 12739 {
		t.Error(got)
	}
	if got, same := slot("fr:rate:a:w1m:{user:1}"), slot("fr:rate:b:b1-1s-1c:{user:1}:held"); got != same {
		t.Error(got, same)
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		Quota.String(): "quota", Algorithm(9).String(): "Algorithm(9)", Month.String(): "month", Period(9).String(): "Period(9)",
		ModeDenied.String(): "denied", Mode(9).String(): "Mode(9)", OutageLocal.String(): "local", Outage(9).String(): "Outage(9)",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

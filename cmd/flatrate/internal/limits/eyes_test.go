package limits_test

import (
	"testing"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/limits"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
)

// TestEyesOutageOfOneLimit: "outage: error" of a limit in a plan with "outage: open" is taken for no word at all: OutageError is the
// zero of ratelimit.Outage, and a limit's zero means the plan's. So who writes that sign-ins must fail while the server is away
// gets that all are admitted. The page says "as above, for this limit". In Go the zero can't be told from the
// word either, which go doc of OutageError says. Fix: refuse the word there (unless the plan says error too), or give Limit a
// pointer or a value of its own for "as the plan".
func TestEyesOutageOfOneLimit(t *testing.T) {
	plans, err := limits.Parse("a.yaml", []byte("plans: {a: {outage: open, limits: [{limit: 5, window: 1s, outage: error}]}}"))
	if err != nil {
		return // refused
	}
	l, err := ratelimit.New(valkeytest.Start(t).Client(), plans["a"])
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Limits()[0].Outage; got != ratelimit.OutageError {
		t.Errorf(`a limit with "outage: error" has %v`, got)
	}
}

// TestEyesZeroIsNoDefault: a zero that a file spells out is taken for the default: "burst: 0" is a burst of limit, "timeout: 0" one of
// 40 ms, "lease: 0s" one of 30 s. The page: "A rate or a burst of 0, which admits nothing, is refused", timeout "1 ms to 1
// min", batchFor likewise. throttle.burstLimit: 0 is refused, limits[].burst: 0 is not. Fix: refuse a zero where the key is written.
func TestEyesZeroIsNoDefault(t *testing.T) {
	for _, text := range []string{
		"plans: {a: {limits: [{algorithm: bucket, limit: 5, window: 1s, burst: 0}]}}",
		"plans: {a: {timeout: 0s, limits: [{limit: 5, window: 1s}]}}",
		"plans: {a: {batch: 2, batchFor: 0s, limits: [{limit: 5, window: 1s}]}}",
		"plans: {a: {limits: [{algorithm: concurrency, limit: 5, lease: 0s}]}}",
	} {
		if _, err := limits.Parse("a.yaml", []byte(text)); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}

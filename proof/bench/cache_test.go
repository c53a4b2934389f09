package main

import (
	"os"
	"testing"
	"time"

	"github.com/flatrate/flatrate/proof/crowd"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestMain(m *testing.M) {
	crowd.Main()
	os.Exit(m.Run())
}

// TestCacheArea runs the area once, too short for figures that mean anything but the counts.
func TestCacheArea(t *testing.T) {
	valkeytest.Start(t) // skips where there is no server
	b := &B{Quick: true}
	figures := map[string]float64{}
	err := b.run(func() error {
		short := plan{rounds: 1, round: 10 * time.Millisecond, total: time.Minute}
		return measure(t.Context(), "cache", cacheRows(t.Context(), b), short, func(f Figure) { figures[f.Row+" "+f.Versus] = f.Value })
	})
	if err != nil || len(figures) != 9 {
		t.Errorf("%v, %v", figures, err)
	}
	if figures["cold-key-loads -"] != 1 || figures["batch-100-round-trips -"] != 2 {
		t.Errorf("%v", figures)
	}
}

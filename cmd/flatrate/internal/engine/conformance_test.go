package engine

import (
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/cachetest"
	"github.com/flatrate/flatrate/cache/object/objecttest"
	"github.com/flatrate/flatrate/cache/writebehind/writebehindtest"
	"github.com/flatrate/flatrate/lock/locktest"
	"github.com/flatrate/flatrate/meter/metertest"
	"github.com/flatrate/flatrate/queue/queuetest"
	"github.com/flatrate/flatrate/ratelimit/ratelimittest"
	"github.com/flatrate/flatrate/session/sessiontest"
	"github.com/flatrate/flatrate/valkeytest"
)

// TestBlocks runs the conformance suites of the building blocks on the embedded engine.
func TestBlocks(t *testing.T) {
	for name, suite := range map[string]func(*testing.T, valkeytest.Env){
		"cache": cachetest.Run, "lock": locktest.Run, "list": queuetest.RunList, "log": queuetest.RunLog, "meter": metertest.Run, "object": objecttest.Run, "queue": queuetest.Run,
		"ratelimit": ratelimittest.Run, "session": sessiontest.Run, "writebehind": writebehindtest.Run,
	} {
		t.Run(name, func(t *testing.T) {
			e, client := start(t)
			clock := date(2026)
			e.Advance(clock)
			var mu sync.Mutex
			suite(t, valkeytest.Env{
				Client:   client,
				Embedded: true,
				Advance: func(d time.Duration) {
					mu.Lock()
					defer mu.Unlock()
					clock = clock.Add(d)
					e.Advance(clock)
				},
			})
		})
	}
}

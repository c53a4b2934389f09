package queue_test

import (
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue/queuetest"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestLogConformance(t *testing.T) { valkeytest.Each(t, queuetest.RunLog) }

func TestListConformance(t *testing.T) { valkeytest.Each(t, queuetest.RunList) }

func TestLogSlotsMove(t *testing.T) {
	c := valkeytest.Cluster(t, 3)
	stop := moveSlots(t, c)
	defer func() { t.Logf("%d slots moved", stop()) }()
	queuetest.RunLogTimeless(t, valkeytest.Env{Client: c.Client(), Advance: func(time.Duration) {}})
}

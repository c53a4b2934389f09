package queue_test

import (
	"testing"

	"github.com/flatrate/flatrate/queue/queuetest"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestConformance(t *testing.T) { valkeytest.Each(t, queuetest.Run) }

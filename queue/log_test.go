package queue_test

import (
	"testing"

	"github.com/flatrate/flatrate/queue/queuetest"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestLogConformance(t *testing.T) { valkeytest.Each(t, queuetest.RunLog) }

func TestListConformance(t *testing.T) { valkeytest.Each(t, queuetest.RunList) }

package meter

import (
	"context"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

// TestLostAnswerIsCountedOnce pauses the server under the flush itself: it will run, and nobody hears of it. The same batch
// comes again, and is not added twice.
func TestLostAnswerIsCountedOnce(t *testing.T) {
	s := valkeytest.Start(t)
	m, err := New(s.Client(), Config{Every: maxEvery})
	if err != nil {
		t.Fatal(err)
	}
	m.Requests(1)
	if err := m.Flush(t.Context()); err != nil { // loads the script: a paused server could not
		t.Fatal(err)
	}
	m.Requests(10)
	m.number++
	m.batch = &batch{key: m.keys.day(m.cfg.Name, date(time.Now())), number: m.number, fields: m.counts.take()}
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Flush(ctx); err == nil || m.batch == nil {
		t.Fatalf("%v, %v", err, m.batch)
	}
	s.Resume()
	m.Requests(100)
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	days, err := Read(t.Context(), s.Client(), Config{}, 2)
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, d := range days {
		total += d.Counts["requests"]
	}
	if total != 111 {
		t.Errorf("%d requests, want 111", total)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	m := &Meter{}
	if n := testing.AllocsPerRun(100, func() {
		m.SessionRead(2048)
		m.SessionWrite(1)
		m.Requests(1)
		m.Messages(Messages{Sent: 1, Received: 1, Deleted: 1, Empty: 1})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

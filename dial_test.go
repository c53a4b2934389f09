package flatrate

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"
)

func TestRetryDelay(t *testing.T) {
	var b valkey.Builder
	get, subscribe := b.Arbitrary("GET", "k").Build(), b.Subscribe().Channel("c").Build()
	var most time.Duration
	for attempt := 1; attempt <= retries; attempt++ {
		d := retryDelay(attempt, get, io.EOF)
		if limit := firstRetry << (attempt - 1); d <= 0 || d > limit || d > lastRetry {
			t.Errorf("attempt %d: %v", attempt, d)
		}
		most += min(lastRetry, firstRetry<<(attempt-1))
	}
	if most > 2100*time.Millisecond {
		t.Errorf("a read is repeated for %v; docs/connect.md says two seconds", most)
	}
	for name, d := range map[string]time.Duration{
		"the last attempt":     retryDelay(retries+1, get, io.EOF),
		"a silent server":      retryDelay(1, get, os.ErrDeadlineExceeded),
		"a silent dial, again": retryDelay(2, get, context.DeadlineExceeded),
		"a far attempt":        retryDelay(1<<40, get, io.EOF),
	} {
		if d >= 0 {
			t.Errorf("%s: %v", name, d)
		}
	}
	for name, d := range map[string]time.Duration{
		"a silent dial":             retryDelay(1, get, context.DeadlineExceeded),
		"a subscription, for long":  retryDelay(1<<40, subscribe, io.EOF),
		"a subscription, if silent": retryDelay(5, subscribe, os.ErrDeadlineExceeded),
	} {
		if d <= 0 || d > lastRetry {
			t.Errorf("%s: %v", name, d)
		}
	}
}

// TestYieldingNoticesPipelining: only a write during a read shows that there is more than one caller.
func TestYieldingNoticesPipelining(t *testing.T) {
	ours, theirs := net.Pipe()
	c := &yielding{Conn: ours}
	go func() { _, _ = io.Copy(theirs, theirs) }() // an echo
	in, out := make([]byte, 1), []byte("x")
	for range 100 {
		if _, err := c.Write(out); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			t.Fatal(err)
		}
	}
	if c.pipelined.Load() {
		t.Error("one caller looks like several")
	}
	read := make(chan error)
	go func() {
		_, err := io.ReadFull(c, make([]byte, 1))
		read <- err
	}()
	for !c.reading.Load() {
		time.Sleep(time.Millisecond)
	}
	if _, err := c.Write(out); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil || !c.pipelined.Load() {
		t.Errorf("%v, pipelined %v", err, c.pipelined.Load())
	}
	_ = c.Close()
	if _, err := c.Write(out); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("after Close: %v", err)
	}
}

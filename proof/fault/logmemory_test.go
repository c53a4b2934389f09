package fault

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// TestLogMemory appends a million entries of 256 bytes for two groups: one that keeps up, and has one entry that is never done; one
// that takes one entry in a hundred, and catches up at the end. It prints lag and memory on the way: what the slow group has
// not read is kept, and the stuck entry keeps nothing.
func TestLogMemory(t *testing.T) {
	entries := 20_000
	if os.Getenv("FLATRATE_FAULT") != "" {
		entries = 1_000_000
	}
	server := valkeytest.Start(t)
	l, err := queue.NewLog(server.Client(), queue.LogConfig{Name: "l", Retention: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	open := func(name string) *queue.Group {
		g, err := l.Group(queue.GroupConfig{Name: name, Aside: time.Second})
		if err == nil {
			err = g.Open(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	fast, slow := open("fast"), open("slow")
	var caughtUp, read, done atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 2)
	go func() {
		ended <- runConsumer(ctx, fast, &done, func(d *queue.Delivery) bool { return string(d.Body[:5]) == "stuck" }, nil)
	}()
	go func() {
		ended <- runConsumer(ctx, slow, &read, nil, func() bool { return caughtUp.Load() == 1 || read.Load() < done.Load()/100 })
	}()
	report := func(what string) queue.LogStats {
		text, err := server.Client().Do(ctx, server.Client().B().Info().Section("memory").Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		_, used, _ := strings.Cut(text, "\nused_memory:")
		used, _, _ = strings.Cut(used, "\r")
		bytes, _ := strconv.ParseInt(used, 10, 64)
		st, err := l.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%-34s %8d entries in the stream, memory %6.1f MB; lag of fast %6d, aside %d; lag of slow %7d", what, st.Entries, float64(bytes)/1e6,
			st.Groups[0].Lag, st.Groups[0].Aside, st.Groups[1].Lag)
		return st
	}
	report("at the beginning")
	if _, err := l.Append(ctx, queue.Message{Body: []byte("stuck"), Group: "stuck"}); err != nil {
		t.Fatal(err)
	}
	batch := make([]queue.Message, 100)
	for n := 1; n <= entries; n += len(batch) {
		for i := range batch {
			body := make([]byte, 256)
			copy(body, strconv.Itoa(n+i))
			batch[i] = queue.Message{Body: body}
		}
		if _, err := l.AppendBatch(ctx, batch); err != nil {
			t.Fatal(err)
		}
		if (n+99)%(entries/4) == 0 {
			report(fmt.Sprintf("%d appended", n+99))
		}
	}
	wait := func(what string, so func() bool) {
		for begin := time.Now(); !so(); <-time.After(20 * time.Millisecond) {
			if time.Since(begin) > 10*time.Minute {
				t.Fatalf("%s: not within 10 min; %d and %d are done", what, done.Load(), read.Load())
			}
		}
	}
	wait("the fast group", func() bool { return done.Load() == int64(entries) })
	if st := report("fast is done"); st.Entries < int64(entries)/2 || st.Dropped > 0 {
		t.Errorf("what the slow group has not read is gone: %+v", st)
	}
	caughtUp.Store(1)
	wait("the slow group", func() bool { return read.Load() == int64(entries)+1 })
	wait("the trim", func() bool { st, err := l.Stats(ctx); return err == nil && st.Entries == 0 })
	if st := report("slow is done, one entry is stuck"); st.Groups[0].Aside != 1 || st.Groups[0].Pending != 0 || st.Dropped > 0 {
		t.Errorf("%+v", st)
	}
	stop()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// runConsumer handles a group's entries in batches, but for those that are stuck, which it holds until it ends. It waits while may says no.
func runConsumer(ctx context.Context, g *queue.Group, count *atomic.Int64, stuck func(*queue.Delivery) bool, may func() bool) error {
	for ctx.Err() == nil {
		if may != nil && !may() {
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		ds, err := g.Receive(ctx, queue.ReceiveOptions{Max: 100, Wait: time.Second, Visibility: time.Hour})
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return err
		}
		var receipts []string
		for _, d := range ds {
			if stuck == nil || !stuck(d) {
				receipts = append(receipts, d.Receipt)
			}
		}
		for _, err := range g.AckBatch(ctx, receipts) {
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
		count.Add(int64(len(receipts)))
	}
	return nil
}

package interop

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// queueLanguages are the languages of docs/recipes/queue.
func queueLanguages() []language {
	all := rateLanguages()
	for i, l := range all {
		all[i].command = []string{l.command[0], strings.Replace(l.command[1], "ratelimit.", "producer.", 1)}
	}
	return all
}

// TestQueueVectors holds the recipes against the test vectors. Go's is in package queue.
func TestQueueVectors(t *testing.T) {
	for _, l := range installed(t, queueLanguages()) {
		if r := l.run(t.Context(), t, "vectors"); r.Steps < 30 {
			t.Errorf("%s: %d steps", l.name, r.Steps)
		}
	}
}

// TestQueueProducers receives in Go what the other languages send: standard and FIFO, in one partition and in several.
func TestQueueProducers(t *testing.T) {
	const n = 50
	server := valkeytest.Start(t)
	for _, cfg := range []queue.Config{{Name: "a {1}"}, {Name: "b", Partitions: 3}, {Name: "c", FIFO: true}, {Name: "d", FIFO: true, Partitions: 3}} {
		q, err := queue.New(server.Client(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, l := range installed(t, queueLanguages()) {
			if r := l.run(t.Context(), t, "send", server.Socket, cfg.Name, strconv.Itoa(n)); r.Steps != 2*n {
				t.Errorf("%s: %d steps", l.name, r.Steps)
			}
			for i := range n {
				ds, err := q.Receive(t.Context(), queue.ReceiveOptions{})
				if err != nil || len(ds) != 1 {
					t.Fatalf("%s: %d messages, %v", l.name, len(ds), err)
				}
				d := ds[0]
				if want := fmt.Sprint(l.name, " ", i); string(d.Body) != want || d.Group != l.name || d.Attributes["n"] != strconv.Itoa(i) {
					t.Errorf("%s: %+v, want %s", l.name, d, want)
				}
				if err := q.Ack(t.Context(), d.Receipt); err != nil {
					t.Error(err)
				}
			}
			if s, err := q.Stats(t.Context()); err != nil || s.Visible+s.InFlight+s.Delayed != 0 {
				t.Errorf("%s: left behind: %+v, %v", l.name, s, err)
			}
		}
	}
}

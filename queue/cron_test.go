package queue

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

func TestSchedule(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	const form = "2006-01-02 15:04:05 MST"
	for _, test := range []struct {
		spec, after string
		loc         *time.Location
		want        string
	}{
		{"* * * * *", "2026-03-01 10:00:00 UTC", nil, "2026-03-01 10:01:00 UTC"},
		{"*/15 * * * *", "2026-03-01 10:46:10 UTC", nil, "2026-03-01 11:00:00 UTC"},
		{"5-20/7 3 * * *", "2026-03-01 03:12:00 UTC", nil, "2026-03-01 03:19:00 UTC"},
		{"0 0 29 2 *", "2026-03-01 00:00:00 UTC", nil, "2028-02-29 00:00:00 UTC"},
		{"0 0 13 * fri", "2026-03-01 00:00:00 UTC", nil, "2026-03-06 00:00:00 UTC"}, // either of the two
		{"0 12 * JAN,jul mon-wed", "2026-03-01 00:00:00 UTC", nil, "2026-07-01 12:00:00 UTC"},
		{"0 0 * * 7", "2026-03-02 00:00:00 UTC", nil, "2026-03-08 00:00:00 UTC"},
		{"30 50/5 * * *", "2026-03-01 00:00:00 UTC", nil, "error"},
		{"@monthly", "2026-12-31 23:59:59 UTC", nil, "2027-01-01 00:00:00 UTC"},
		{"@every 90s", "2026-03-01 00:00:00 UTC", nil, "2026-03-01 00:01:30 UTC"},
		{"30 2 * * *", "2026-03-28 12:00:00 UTC", berlin, "2026-03-30 00:30:00 UTC"}, // 02:30 is skipped on the 29th
		{"30 2 * * *", "2026-10-25 00:30:00 UTC", berlin, "2026-10-25 01:30:00 UTC"}, // and comes twice then
		{"0 0 31 2 *", "", nil, "error"}, {"* * * *", "", nil, "error"}, {"60 * * * *", "", nil, "error"}, {"*/0 * * * *", "", nil, "error"},
		{"5-1 * * * *", "", nil, "error"}, {"@every 1ms", "", nil, "error"}, {"@often", "", nil, "error"}, {"", "", nil, "error"},
		{"a * * * *", "", nil, "error"}, {"1,,2 * * * *", "", nil, "error"},
	} {
		s, err := parseSchedule(test.spec, test.loc)
		if err != nil {
			if test.want != "error" {
				t.Errorf("%s: %v", test.spec, err)
			}
			continue
		}
		after, err := time.Parse(form, test.after)
		if err != nil {
			t.Errorf("%s was taken", test.spec)
			continue
		}
		next := s.next(after)
		if got := next.UTC().Format(form); got != test.want {
			t.Errorf("%s after %s: %s, want %s", test.spec, test.after, got, test.want)
		}
		if last := s.latest(after, next); !last.Equal(next) {
			t.Errorf("%s: the last one until %v is %v", test.spec, next, last)
		}
		if last := s.latest(after, next.Add(-time.Second)); !last.IsZero() {
			t.Errorf("%s: %v is due before %v", test.spec, last, next)
		}
	}
}

func FuzzSchedule(f *testing.F) {
	for _, spec := range []string{"* * * * *", "*/5 1-3 1,2 jan mon", "@every 1h", "@daily", "0 0 30 2 *"} {
		f.Add(spec, int64(1_790_000_000))
	}
	f.Fuzz(func(t *testing.T, spec string, unix int64) {
		s, err := parseSchedule(spec, nil)
		if err != nil {
			return
		}
		after := time.Unix(unix%4e9, 0)
		if next := s.next(after); !next.IsZero() && !next.After(after) {
			t.Errorf("%q: %v after %v", spec, next, after)
		}
	})
}

// TestScheduler lets three schedulers share a job that is due every second: each time comes once, whoever leads.
func TestScheduler(t *testing.T) {
	server := valkeytest.Start(t)
	prefix := valkeytest.Prefix(t)
	open := func() *Queue {
		q, err := New(server.Client(), Config{Prefix: prefix, Name: "q"})
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	type member struct {
		stop context.CancelFunc
		done chan error
	}
	var mu sync.Mutex
	by, leader := map[int64]int{}, -1
	var members []member
	for i := range 3 {
		s, err := NewScheduler(open(), SchedulerConfig{
			Lease: time.Second,
			Jobs: []Job{{Name: "tick", Spec: "@every 1s", Make: func(due time.Time) (Message, error) {
				return Message{Body: []byte(fmt.Sprint(due.Unix()))}, nil
			}}},
			Sent: func(_ string, due time.Time) {
				mu.Lock()
				defer mu.Unlock()
				by[due.Unix()]++
				leader = i
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		m := member{cancel, make(chan error, 1)}
		members = append(members, m)
		go func() { m.done <- s.Run(ctx) }()
	}
	q := open()
	seen := map[string]bool{}
	receive := func() {
		ds, err := q.Receive(t.Context(), ReceiveOptions{Wait: 20 * time.Second, Visibility: time.Hour})
		if err != nil || len(ds) != 1 {
			t.Fatalf("%d messages, %v", len(ds), err)
		}
		if seen[string(ds[0].Body)] {
			t.Errorf("%s came twice", ds[0].Body)
		}
		seen[string(ds[0].Body)] = true
	}
	receive()
	mu.Lock()
	first := leader
	mu.Unlock()
	members[first].stop()
	if err := <-members[first].done; err != nil {
		t.Error(err)
	}
	receive()
	mu.Lock()
	defer mu.Unlock()
	for at, n := range by {
		if n != 1 {
			t.Errorf("%d was sent %d times", at, n)
		}
	}
	for i, m := range members {
		if m.stop(); i != first {
			if err := <-m.done; err != nil {
				t.Error(err)
			}
		}
	}
}

// TestSendOnce holds that a time which was sent is not sent again, nor an earlier one.
func TestSendOnce(t *testing.T) {
	server := valkeytest.Start(t)
	q, err := New(server.Client(), Config{Prefix: valkeytest.Prefix(t), Name: "q", Partitions: 3})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_790_000_000, 0)
	for i, test := range []struct {
		due  time.Time
		sent bool
	}{{at, true}, {at, false}, {at.Add(-time.Second), false}, {at.Add(time.Second), true}} {
		sent, err := q.sendOnce(t.Context(), "job {1}", test.due, Message{})
		if err != nil || sent.Duplicate == test.sent {
			t.Errorf("%d: %+v, %v", i, sent, err)
		}
	}
	if last, err := q.lastOf(t.Context(), "job {1}"); err != nil || !last.Equal(at.Add(time.Second)) {
		t.Errorf("last: %v, %v", last, err)
	}
	if _, err := NewScheduler(q, SchedulerConfig{Jobs: []Job{{Name: "a", Spec: "@daily"}, {Name: "a", Spec: "@daily"}}}); err == nil || !strings.Contains(err.Error(), "two jobs") {
		t.Errorf("two jobs of a name: %v", err)
	}
	for field, cfg := range map[string]SchedulerConfig{
		"Lease": {Lease: time.Millisecond}, "Spec": {Jobs: []Job{{Name: "a", Spec: "x"}}}, "Name": {Jobs: []Job{{Spec: "@daily"}}},
	} {
		if _, err := NewScheduler(q, cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

package queuetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// logTimeless tests wait for nothing to end: a server may take as long as it likes, up to a lease.
var logTimeless = []test{
	{"Lifecycle", logLifecycle},
	{"Bodies", logBodies},
	{"FanOut", logFanOut},
	{"KeyOrder", logKeyOrder},
	{"DeadLetters", logDeadLetters},
	{"Receipts", logReceipts},
	{"Handover", logHandover},
	{"Model", logModel},
}

var logTimed = []test{
	{"Refused", logRefused},
	{"Retry", logRetry},
	{"Rebalance", logRebalance},
	{"Seek", logSeek},
	{"SeekDead", logSeekDead},
	{"Trim", logTrim},
	{"Full", logFull},
	{"TooBig", logTooBig},
	{"LossyLog", logLossy},
	{"Aside", logAside},
	{"GroupDeleted", logGroupDeleted},
	{"Deleted", logDeleted},
	{"Foreign", logForeign},
	{"Sweep", logSweep},
}

// RunLog runs the suite of the log queue against env.
func RunLog(t *testing.T, env valkeytest.Env) {
	RunLogTimeless(t, env)
	for _, test := range logTimed {
		t.Run(test.name, func(t *testing.T) { test.run(t, env) })
	}
}

// RunLogTimeless runs those tests in which no time ends, on a server that may be slow.
func RunLogTimeless(t *testing.T, env valkeytest.Env) {
	for _, test := range logTimeless {
		t.Run(test.name, func(t *testing.T) { test.run(t, env) })
	}
}

// NewLog makes a log with a prefix of its own, unless cfg has one.
func NewLog(t *testing.T, env valkeytest.Env, cfg queue.LogConfig) *queue.Log {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	if cfg.Name == "" {
		cfg.Name = "l"
	}
	l, err := queue.NewLog(env.Client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// group makes a group, whose partitions are given up at the end of the test.
func group(t *testing.T, l *queue.Log, cfg queue.GroupConfig) *queue.Group {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "g"
	}
	if cfg.Lease == 0 {
		cfg.Lease = time.Minute // which no test waits for
	}
	g, err := l.Group(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeGroup(t, g) })
	return g
}

func closeGroup(t *testing.T, g *queue.Group) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := g.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func appendText(t *testing.T, l *queue.Log, key string, bodies ...string) []queue.Sent {
	t.Helper()
	batch := make([]queue.Message, len(bodies))
	for i, body := range bodies {
		batch[i] = queue.Message{Body: []byte(body), Group: key}
	}
	sent, err := l.AppendBatch(t.Context(), batch)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return sent
}

// wait is how a test receives what has to come.
var wait = queue.ReceiveOptions{Max: 10, Wait: 20 * time.Second, Visibility: time.Hour}

// read receives until all have come, in this order.
func read(t *testing.T, g *queue.Group, want ...string) []*queue.Delivery {
	t.Helper()
	var ds []*queue.Delivery
	for len(ds) < len(want) {
		o := wait
		o.Max = len(want) - len(ds)
		some, err := g.Receive(t.Context(), o)
		if err != nil || len(some) == 0 {
			t.Fatalf("received %d, %v, after %q; wanted %q", len(some), err, bodiesOf(ds), want)
		}
		ds = append(ds, some...)
	}
	if got := strings.Join(bodiesOf(ds), " "); got != strings.Join(want, " ") {
		t.Fatalf("received %q, want %q", got, strings.Join(want, " "))
	}
	return ds
}

// nothing fails the test if there is something.
func nothing(t *testing.T, g *queue.Group) {
	t.Helper()
	if ds, err := g.Receive(t.Context(), ten); err != nil || len(ds) > 0 {
		t.Fatalf("received %q, %v", bodiesOf(ds), err)
	}
}

func done(t *testing.T, g *queue.Group, ds ...*queue.Delivery) {
	t.Helper()
	receipts := make([]string, len(ds))
	for i, d := range ds {
		receipts[i] = d.Receipt
	}
	if errs := g.AckBatch(t.Context(), receipts); errs != nil {
		t.Fatalf("ack: %v", errors.Join(errs...))
	}
}

func groupStats(t *testing.T, g *queue.Group) queue.GroupStats {
	t.Helper()
	s, err := g.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func logStats(t *testing.T, l *queue.Log) queue.LogStats {
	t.Helper()
	s, err := l.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func logLifecycle(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{})
	g := group(t, l, queue.GroupConfig{})
	nothing(t, g)
	sent, err := l.Append(t.Context(), queue.Message{Body: []byte("a"), Attributes: map[string]string{"k": "v"}})
	if err != nil || sent.Sequence != 1 || !strings.HasPrefix(sent.ID, "0:") {
		t.Fatalf("%+v, %v", sent, err)
	}
	d := read(t, g, "a")[0]
	if d.ID != sent.ID || d.Receives != 1 || d.Attributes["k"] != "v" || d.Sequence != 1 || d.Dead != nil || d.Sent.IsZero() || d.FirstReceived.Before(d.Sent) {
		t.Errorf("%+v", d)
	}
	if s := groupStats(t, g); s.Pending != 1 || s.Lag != 0 || s.Owned != 1 || s.Consumers != 1 {
		t.Errorf("%+v", s)
	}
	pending, err := g.Pending(t.Context(), 10)
	if err != nil || len(pending) != 1 || pending[0].ID != d.ID || pending[0].Receives != 1 || pending[0].Aside {
		t.Errorf("%+v, %v", pending, err)
	}
	nothing(t, g)
	done(t, g, d)
	if s := groupStats(t, g); s.Pending != 0 {
		t.Errorf("%+v", s)
	}
	appendText(t, l, "", "b", "c")
	ds := read(t, g, "b", "c")
	if err := g.Extend(t.Context(), ds[0].Receipt, 0); err != nil {
		t.Fatal(err)
	}
	again := read(t, g, "b")[0]
	if again.Receives != 1 {
		t.Errorf("given back, %d receives", again.Receives)
	}
	if err := g.Ack(t.Context(), ds[0].Receipt); !errors.Is(err, queue.ErrNotHeld) {
		t.Errorf("an old receipt: %v", err)
	}
	done(t, g, again, ds[1])
	s := logStats(t, l)
	if s.Entries != 3 || s.Appended != 3 || s.Bytes < 3 || s.Partitions != 1 || len(s.Groups) != 1 || s.Groups[0].Name != "g" {
		t.Errorf("%+v", s)
	}
	names, err := queue.LogNames(t.Context(), env.Client, queue.LogPrefixOf(l))
	if err != nil || fmt.Sprint(names) != "[l]" {
		t.Errorf("%v, %v", names, err)
	}
}

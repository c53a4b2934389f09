package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

func newGroup(t *testing.T, s *valkeytest.Server, cfg queue.LogConfig, gcfg queue.GroupConfig) (*queue.Log, *queue.Group) {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	cfg.Name = "l"
	if gcfg.Name == "" {
		gcfg.Name = "g"
	}
	l := must(queue.NewLog(s.Client(), cfg))
	g := must(l.Group(gcfg))
	if err := g.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l, g
}

// runGroup runs a consumer of a group until stop is called, which returns what Run did.
func runGroup(t *testing.T, g *queue.Group, cfg queue.ConsumerConfig) (stop func() error) {
	t.Helper()
	c := must(queue.NewConsumer(g, cfg))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return errors.New("Run does not return")
		}
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// TestLogConsumer handles a log with the same kind of handler as a queue: errors, panics, rejections, and order by key.
func TestLogConsumer(t *testing.T) {
	s := valkeytest.Start(t)
	l, g := newGroup(t, s, queue.LogConfig{Partitions: 3}, queue.GroupConfig{MaxReceives: 3})
	var mu sync.Mutex
	last, tries := map[string]int{}, map[string]int{}
	var handled atomic.Int64
	stop := runGroup(t, g, queue.ConsumerConfig{
		Concurrency: 8, Backoff: func(int) time.Duration { return 0 },
		Handler: func(_ context.Context, d *queue.Delivery) error {
			var n int
			if _, err := fmt.Sscanf(string(d.Body), "%d", &n); err != nil {
				return queue.Reject(err)
			}
			mu.Lock()
			defer mu.Unlock()
			tries[string(d.Body)]++
			switch {
			case n%10 == 3 && tries[string(d.Body)] == 1:
				return errors.New("once")
			case n%10 == 5 && tries[string(d.Body)] == 1:
				panic("oh")
			case n%50 == 7:
				return errors.New("always")
			}
			if n < last[d.Group] {
				t.Errorf("%s: %d after %d", d.Group, n, last[d.Group])
			}
			last[d.Group] = n
			handled.Add(1)
			return nil
		},
	})
	const n = 3000
	var batch []queue.Message
	for i := range n {
		batch = append(batch, queue.Message{Body: []byte(fmt.Sprint(i)), Group: fmt.Sprint("k", i%7)})
	}
	batch = append(batch, queue.Message{Body: []byte("no number")})
	must(l.AppendBatch(t.Context(), batch))
	eventually(t, "all are handled", func() bool { return handled.Load() == n-n/50 })
	eventually(t, "nothing is left", func() bool {
		st := must(g.Stats(t.Context()))
		return st.Lag+st.Pending+st.Aside == 0 && st.Dead == n/50+1
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, d := range must(g.Dead(t.Context(), 100)) {
		if r := d.Dead.Reason; r != "always" && !strings.Contains(r, "expected integer") {
			t.Errorf("%s: %s", d.Body, r)
		}
	}
	if st := must(g.Stats(t.Context())); st.Owned != 0 {
		t.Errorf("after Run it has %d partitions", st.Owned)
	}
}

// TestLogLostLease takes a partition from a handler: its context ends, its acknowledgement does not count, and the entry comes again.
func TestLogLostLease(t *testing.T) {
	s := valkeytest.Start(t)
	l, g := newGroup(t, s, queue.LogConfig{}, queue.GroupConfig{Lease: time.Second})
	causes, begun := make(chan error, 1), make(chan struct{})
	var times atomic.Int64
	stop := runGroup(t, g, queue.ConsumerConfig{Handler: func(ctx context.Context, _ *queue.Delivery) error {
		if times.Add(1) > 1 {
			return nil
		}
		close(begun)
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return nil
	}})
	must(l.Append(t.Context(), queue.Message{Body: []byte("a")}))
	<-begun
	if err := run(t, s.Client(), "SET", queue.LogPrefixOf(l)+":log:{l:0}:own:g", "somebody", "PX", "300").Error(); err != nil {
		t.Fatal(err)
	}
	select {
	case cause := <-causes:
		if !errors.Is(cause, queue.ErrNotHeld) {
			t.Errorf("the cause is %v", cause)
		}
	case <-time.After(patience):
		t.Fatal("its handler goes on")
	}
	eventually(t, "it is handled again", func() bool { return times.Load() == 2 })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestLogHeartbeat has a handler that runs for longer than its Visibility.
func TestLogHeartbeat(t *testing.T) {
	s := valkeytest.Start(t)
	l, g := newGroup(t, s, queue.LogConfig{}, queue.GroupConfig{})
	var handled atomic.Int64
	stop := runGroup(t, g, queue.ConsumerConfig{Visibility: 400 * time.Millisecond, Handler: func(ctx context.Context, _ *queue.Delivery) error {
		select {
		case <-ctx.Done():
			t.Errorf("the context ended: %v", context.Cause(ctx))
		case <-time.After(1200 * time.Millisecond):
		}
		handled.Add(1)
		return nil
	}})
	must(l.Append(t.Context(), queue.Message{}))
	eventually(t, "it is acknowledged", func() bool {
		st := must(g.Stats(t.Context()))
		return handled.Load() > 0 && st.Pending+st.Aside+st.Lag == 0
	})
	if err := stop(); err != nil || handled.Load() != 1 {
		t.Errorf("handled %d times, %v", handled.Load(), err)
	}
}

// TestLogConsumerEnds ends Run when the group is deleted, and when the log is.
func TestLogConsumerEnds(t *testing.T) {
	s := valkeytest.Start(t)
	for want, end := range map[error]func(*queue.Log, *queue.Group) error{
		queue.ErrNoGroup: func(_ *queue.Log, g *queue.Group) error { return g.Delete(context.Background()) },
		queue.ErrDeleted: func(l *queue.Log, _ *queue.Group) error { return l.Delete(context.Background()) },
	} {
		l, g := newGroup(t, s, queue.LogConfig{Partitions: 2}, queue.GroupConfig{})
		other := must(queue.NewLog(s.Client(), queue.LogConfig{Prefix: queue.LogPrefixOf(l), Name: "l"}))
		var handled atomic.Int64
		c := must(queue.NewConsumer(g, queue.ConsumerConfig{Handler: func(context.Context, *queue.Delivery) error { handled.Add(1); return nil }}))
		done := make(chan error, 1)
		go func() { done <- c.Run(t.Context()) }()
		must(l.Append(t.Context(), queue.Message{}))
		eventually(t, "one is handled", func() bool { return handled.Load() == 1 })
		if err := end(other, must(other.Group(queue.GroupConfig{Name: "g"}))); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if !errors.Is(err, want) {
				t.Errorf("Run: %v, want %v", err, want)
			}
		case <-time.After(patience):
			t.Errorf("Run goes on after %v", want)
		}
	}
}

// TestLogOutlivesServer restarts the server without its data, and with.
func TestLogOutlivesServer(t *testing.T) {
	for _, args := range [][]string{nil, {"--appendonly", "yes", "--appendfsync", "always"}} {
		s := valkeytest.StartWith(t, valkeytest.Config{Args: args})
		l, g := newGroup(t, s, queue.LogConfig{Timeout: time.Second}, queue.GroupConfig{Lease: time.Second})
		var handled atomic.Int64
		stop := runGroup(t, g, queue.ConsumerConfig{Handler: func(context.Context, *queue.Delivery) error { handled.Add(1); return nil }})
		must(l.Append(t.Context(), queue.Message{Body: []byte("before")}))
		eventually(t, "one is handled", func() bool { return handled.Load() == 1 })
		s.Restart()
		eventually(t, "the server takes entries", func() bool {
			_, err := l.Append(t.Context(), queue.Message{})
			return err == nil
		})
		eventually(t, "another one is handled", func() bool { return handled.Load() >= 2 })
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestLogEvictingServer holds that logs and lists refuse a server that may evict them.
func TestLogEvictingServer(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--maxmemory-policy", "allkeys-lru"}})
	l := must(queue.NewLog(s.Client(), queue.LogConfig{Name: "l"}))
	_, err := l.Append(t.Context(), queue.Message{})
	list := must(queue.NewList(s.Client(), queue.ListConfig{Name: "l"}))
	_, pushed := list.Push(t.Context(), []byte("a"))
	for _, err := range []error{err, pushed} {
		if err == nil || !strings.Contains(err.Error(), "allkeys-lru") {
			t.Errorf("%v", err)
		}
	}
}

// TestLogFullServer has no memory left: appends are refused, and what is there can be read, retried and acknowledged.
func TestLogFullServer(t *testing.T) {
	s := valkeytest.Start(t)
	l, g := newGroup(t, s, queue.LogConfig{}, queue.GroupConfig{})
	must(l.AppendBatch(t.Context(), []queue.Message{{Body: []byte("a")}, {Body: []byte("b")}}))
	run(t, s.Client(), "CONFIG", "SET", "maxmemory", "1")
	if _, err := l.Append(t.Context(), queue.Message{}); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("appended: %v", err)
	}
	_, other := newGroup(t, s, queue.LogConfig{Prefix: queue.LogPrefixOf(l)}, queue.GroupConfig{})
	for _, d := range must(other.Receive(t.Context(), queue.ReceiveOptions{Max: 1, Wait: patience})) {
		if err := other.Nack(t.Context(), d.Receipt, 0, "x"); err != nil {
			t.Error(err)
		}
	}
	for n := 0; n < 2; {
		for _, d := range must(other.Receive(t.Context(), queue.ReceiveOptions{Max: 2, Wait: patience})) {
			n++
			if err := other.Ack(t.Context(), d.Receipt); err != nil {
				t.Error(err)
			}
		}
	}
	_ = g
}

// TestLogDurability waits for replicas that there are not, and for the disk.
func TestLogDurability(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--appendonly", "yes"}})
	for _, cfg := range []queue.LogConfig{
		{Durability: queue.Replicated, DurabilityTimeout: 20 * time.Millisecond}, {Durability: queue.Synced, DurabilityTimeout: 20 * time.Second},
	} {
		l, g := newGroup(t, s, cfg, queue.GroupConfig{})
		sent, err := l.Append(t.Context(), queue.Message{Body: []byte("a")})
		if cfg.Durability == queue.Replicated && (err == nil || !strings.Contains(err.Error(), "0 of 1 replicas")) || cfg.Durability == queue.Synced && err != nil {
			t.Errorf("%v: %+v, %v", cfg.Durability, sent, err)
		}
		if ds := must(g.Receive(t.Context(), queue.ReceiveOptions{Wait: patience})); len(ds) != 1 {
			t.Errorf("%v: it is not there", cfg.Durability)
		}
		if err := g.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestLogConfigs(t *testing.T) {
	s := valkeytest.Start(t)
	for field, cfg := range map[string]queue.LogConfig{
		"Name": {}, "Prefix": {Name: "l", Prefix: "{"}, "Partitions": {Name: "l", Partitions: 257}, "MaxBody": {Name: "l", MaxBody: -1}, "Lossy": {Name: "l", Lossy: 7},
		"Durability": {Name: "l", Durability: 9}, "Replicas": {Name: "l", Replicas: 1}, "MaxEntries": {Name: "l", MaxEntries: -2}, "MaxBytes": {Name: "l", MaxBytes: -2},
		"Retention": {Name: "l", Retention: time.Millisecond}, "KeepDead": {Name: "l", KeepDead: 1}, "DurabilityTimeout": {Name: "l", DurabilityTimeout: time.Hour},
		"Timeout": {Name: "l", Timeout: -1},
	} {
		if _, err := queue.NewLog(s.Client(), cfg); err == nil || !strings.Contains(err.Error(), "LogConfig."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	l := must(queue.NewLog(s.Client(), queue.LogConfig{Name: "l"}))
	for field, cfg := range map[string]queue.GroupConfig{
		"Name": {}, "MaxReceives": {Name: "g", MaxReceives: -2}, "Visibility": {Name: "g", Visibility: 1}, "Lease": {Name: "g", Lease: time.Hour},
		"Aside": {Name: "g", Aside: 1}, "Consumer": {Name: "g", Consumer: strings.Repeat("x", 129)}, "Start": {Name: "g", Start: queue.Position{ID: "0:1-0"}},
	} {
		if _, err := l.Group(cfg); err == nil || !strings.Contains(err.Error(), "GroupConfig."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for field, cfg := range map[string]queue.ListConfig{
		"Name": {}, "Prefix": {Name: "l", Prefix: " "}, "MaxLen": {Name: "l", MaxLen: -1}, "MaxBody": {Name: "l", MaxBody: 1 << 30}, "Timeout": {Name: "l", Timeout: 1},
	} {
		if _, err := queue.NewList(s.Client(), cfg); err == nil || !strings.Contains(err.Error(), "ListConfig."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestLogLostAnswer has the server run a read whose answer nobody hears: what it took comes all the same, and counts as delivered once.
func TestLogLostAnswer(t *testing.T) {
	s := valkeytest.Start(t)
	l, g := newGroup(t, s, queue.LogConfig{
		Timeout: 200 * time.Millisecond, Hooks: queue.Hooks{Missed: func(n int) { t.Errorf("%d entries are said to be missing", n) }},
	}, queue.GroupConfig{Lease: time.Minute})
	t.Cleanup(func() { _ = g.Close(context.Background()) })
	must(l.Append(t.Context(), queue.Message{}))
	for _, d := range must(g.Receive(t.Context(), queue.ReceiveOptions{Wait: patience})) {
		if err := g.Ack(t.Context(), d.Receipt); err != nil {
			t.Fatal(err)
		}
	}
	if ds := must(g.Receive(t.Context(), queue.ReceiveOptions{})); len(ds) != 0 {
		t.Fatal(ds)
	}
	// As the log does, but without a wake-up: the read is to be sent while the server stands still.
	key := queue.LogPrefixOf(l) + ":log:{l:0}:log"
	if err := run(t, s.Client(), "XADD", key, "*", "b", "2 0 0 \nlost").Error(); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	if ds, err := g.Receive(t.Context(), queue.ReceiveOptions{}); err == nil {
		t.Errorf("received %v from a server that stands still", ds)
	}
	s.Resume()
	var d *queue.Delivery
	eventually(t, "it comes", func() bool {
		ds, err := g.Receive(t.Context(), queue.ReceiveOptions{Wait: 50 * time.Millisecond})
		if err == nil && len(ds) == 1 {
			d = ds[0]
		}
		return d != nil
	})
	if string(d.Body) != "lost" || d.Receives != 1 {
		t.Errorf("%+v", d)
	}
	if err := run(t, s.Client(), "XADD", key, "*", "b", "3 0 0 \nnext").Error(); err != nil {
		t.Fatal(err)
	}
	next := must(g.Receive(t.Context(), queue.ReceiveOptions{Wait: patience}))
	if len(next) != 1 || string(next[0].Body) != "next" {
		t.Fatal(next)
	}
	if errs := g.AckBatch(t.Context(), []string{d.Receipt, next[0].Receipt}); errs != nil {
		t.Error(errs)
	}
}

// TestLogManyPending takes over more entries than a process holds, from one who has read them and died.
func TestLogManyPending(t *testing.T) {
	s := valkeytest.Start(t)
	l, g := newGroup(t, s, queue.LogConfig{}, queue.GroupConfig{Lease: time.Minute})
	t.Cleanup(func() { _ = g.Close(context.Background()) })
	const n = 11_000
	batch := make([]queue.Message, n)
	for i := range batch {
		batch[i] = queue.Message{Body: []byte(fmt.Sprint(i)), Group: fmt.Sprint(i % 500)}
	}
	must(l.AppendBatch(t.Context(), batch))
	if err := run(t, s.Client(), "XREADGROUP", "GROUP", "g", "dead", "COUNT", "12000", "STREAMS", queue.LogPrefixOf(l)+":log:{l:0}:log", ">").Error(); err != nil {
		t.Fatal(err)
	}
	must(l.Append(t.Context(), queue.Message{Body: []byte(fmt.Sprint(n)), Group: fmt.Sprint(n % 500)}))
	last := map[string]int{}
	for got := 0; got <= n; {
		ds := must(g.Receive(t.Context(), queue.ReceiveOptions{Max: 500, Wait: patience, Visibility: time.Hour}))
		if len(ds) == 0 {
			t.Fatalf("%d of %d have come", got, n)
		}
		receipts := make([]string, len(ds))
		for i, d := range ds {
			number := 0
			if _, err := fmt.Sscan(string(d.Body), &number); err != nil {
				t.Fatal(err)
			}
			if before, ok := last[d.Group]; ok && number != before+500 {
				t.Fatalf("%d of key %s came after %d", number, d.Group, before)
			}
			last[d.Group] = number
			receipts[i] = d.Receipt
		}
		got += len(ds)
		if errs := g.AckBatch(t.Context(), receipts); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
	}
	if st := must(g.Stats(t.Context())); st.Pending+st.Lag+st.Aside != 0 || st.Consumers != 1 {
		t.Errorf("%+v", st)
	}
}

// TestLogHeldBack has one key's entry hold back more entries than a process holds: others stand still until it is done, and then go on.
func TestLogHeldBack(t *testing.T) {
	s := valkeytest.Start(t)
	l, g := newGroup(t, s, queue.LogConfig{}, queue.GroupConfig{Lease: time.Minute})
	t.Cleanup(func() { _ = g.Close(context.Background()) })
	batch := make([]queue.Message, 10_500)
	for i := range batch {
		batch[i].Group = "slow"
	}
	batch[len(batch)-1] = queue.Message{Body: []byte("other")}
	must(l.AppendBatch(t.Context(), batch))
	o := queue.ReceiveOptions{Max: 1000, Wait: patience, Visibility: time.Hour}
	first := must(g.Receive(t.Context(), o))
	if len(first) != 1 {
		t.Fatalf("%d of one key are out", len(first))
	}
	o.Wait = 300 * time.Millisecond
	if ds := must(g.Receive(t.Context(), o)); len(ds) != 0 {
		t.Fatalf("%d are out behind ten thousand", len(ds))
	}
	o.Wait = patience
	for d, other := first[0], false; !other; {
		if err := g.Ack(t.Context(), d.Receipt); err != nil {
			t.Fatal(err)
		}
		ds := must(g.Receive(t.Context(), o))
		if len(ds) == 0 {
			t.Fatal("nothing comes")
		}
		for _, one := range ds {
			if other = other || string(one.Body) == "other"; string(one.Body) != "other" {
				d = one
			}
		}
	}
}

// TestLogTwoConsumers ends one of two consumers of a Group: the other one goes on.
func TestLogTwoConsumers(t *testing.T) {
	s := valkeytest.Start(t)
	l, g := newGroup(t, s, queue.LogConfig{}, queue.GroupConfig{})
	var handled atomic.Int64
	cfg := queue.ConsumerConfig{Handler: func(context.Context, *queue.Delivery) error { handled.Add(1); return nil }}
	first, second := runGroup(t, g, cfg), runGroup(t, g, cfg)
	must(l.Append(t.Context(), queue.Message{}))
	eventually(t, "one is handled", func() bool { return handled.Load() == 1 })
	if err := first(); err != nil {
		t.Fatal(err)
	}
	if n := queue.OwnedBy(g); n != 1 {
		t.Errorf("it has %d partitions", n)
	}
	must(l.Append(t.Context(), queue.Message{}))
	eventually(t, "another one is handled", func() bool { return handled.Load() == 2 })
	if err := second(); err != nil {
		t.Fatal(err)
	}
	if n := queue.OwnedBy(g); n != 0 {
		t.Errorf("it has %d partitions", n)
	}
}

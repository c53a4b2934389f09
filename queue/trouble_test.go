package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/queue/queuetest"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

func run(t *testing.T, c valkey.Client, args ...string) valkey.ValkeyResult {
	t.Helper()
	return c.Do(context.Background(), c.B().Arbitrary(args...).Build())
}

// TestEvictingServer holds that a server that may evict messages is refused.
func TestEvictingServer(t *testing.T) {
	for policy, refused := range map[string]bool{"allkeys-lru": true, "allkeys-random": true, "volatile-lru": false, "noeviction": false} {
		s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--maxmemory-policy", policy}})
		q := newQueue(t, s, queue.Config{})
		_, err := q.Send(t.Context(), queue.Message{})
		if (err != nil) != refused || err != nil && !strings.Contains(err.Error(), policy) {
			t.Errorf("%s: %v", policy, err)
		}
	}
}

// TestFullServer fills the server's memory in the middle of batches: what is reported as sent is there, and nothing else; and
// what is there can be received and acknowledged.
func TestFullServer(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--maxmemory", "8mb"}})
	for _, cfg := range []queue.Config{{}, {FIFO: true, Partitions: 3}} {
		q := newQueue(t, s, cfg)
		sent, refused := map[string]bool{}, 0
		for refused == 0 {
			var batch []queue.Message
			for i := range 200 {
				batch = append(batch, queue.Message{Body: make([]byte, 2000), Group: strconv.Itoa(i % 7)})
			}
			all, err := q.SendBatch(t.Context(), batch)
			for _, m := range all {
				switch {
				case m.Err == nil:
					sent[m.ID] = true
				case !strings.Contains(m.Err.Error(), "OOM"):
					t.Fatal(m.Err)
				default:
					refused++
				}
			}
			if (err != nil) != (refused > 0) {
				t.Fatalf("%d refused: %v", refused, err)
			}
		}
		got := 0
		for {
			ds := must(q.Receive(t.Context(), queue.ReceiveOptions{Max: 100, Visibility: time.Hour}))
			if len(ds) == 0 {
				break
			}
			receipts := make([]string, len(ds))
			for i, d := range ds {
				if !sent[d.ID] {
					t.Fatalf("%s was not reported as sent", d.ID)
				}
				receipts[i] = d.Receipt
			}
			if errs := q.AckBatch(t.Context(), receipts); errs != nil {
				t.Fatal(errors.Join(errs...))
			}
			got += len(ds)
		}
		if got != len(sent) || !isEmpty(t, q)() {
			t.Errorf("%d of %d messages came", got, len(sent))
		}
		put := func() bool {
			_, err := q.Send(t.Context(), queue.Message{Group: "g"})
			return err == nil
		}
		eventually(t, "there is room again", put)
		if err := q.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOpenOnFullServer opens a queue on a server without memory: it can be drained by a process that has just begun.
func TestOpenOnFullServer(t *testing.T) {
	s := valkeytest.Start(t)
	for _, cfg := range []queue.Config{{DeadLetters: "dead"}, {FIFO: true, Partitions: 3}} {
		first := newQueue(t, s, cfg)
		for i := range 5 {
			must(first.Send(t.Context(), queue.Message{Group: strconv.Itoa(i)}))
		}
		run(t, s.Client(), "CONFIG", "SET", "maxmemory", "1")
		for _, cfg := range []queue.Config{{}, cfg} {
			cfg.Prefix, cfg.Name = queue.PrefixOf(first), first.Name()
			q := must(queue.New(s.Client(), cfg))
			ds, err := q.Receive(t.Context(), queue.ReceiveOptions{Max: 2})
			if err != nil || len(ds) == 0 || q.Ack(t.Context(), ds[0].Receipt) != nil {
				t.Fatalf("%d messages, %v", len(ds), err)
			}
			if _, err := q.Send(t.Context(), queue.Message{Group: "g"}); err == nil || !strings.Contains(err.Error(), "OOM") {
				t.Errorf("sent: %v", err)
			}
			if _, err := q.Stats(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := must(queue.New(s.Client(), queue.Config{Prefix: queue.PrefixOf(first), Name: first.Name()})).Purge(t.Context()); err != nil {
			t.Error(err)
		}
		if err := newQueue(t, s, queue.Config{Name: "new"}).Open(t.Context()); err == nil || !strings.Contains(err.Error(), "OOM") {
			t.Errorf("a new queue: %v", err)
		}
		run(t, s.Client(), "CONFIG", "SET", "maxmemory", "0")
	}
}

// TestDurability waits for replicas and for the disk, in vain too.
func TestDurability(t *testing.T) {
	primary := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Args: []string{"--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"}})
	synced := newQueue(t, primary, queue.Config{Durability: queue.Synced, DurabilityTimeout: 10 * time.Second})
	put(t, synced, "a", "b")
	if ds := must(synced.Receive(t.Context(), queue.ReceiveOptions{Max: 10})); len(ds) != 2 {
		t.Errorf("%d messages", len(ds))
	}
	replicated := newQueue(t, primary, queue.Config{Durability: queue.Replicated, DurabilityTimeout: 20 * time.Millisecond})
	if sent, err := replicated.Send(t.Context(), queue.Message{}); err == nil || sent.ID != "" || !strings.Contains(err.Error(), "0 of 1 replicas") {
		t.Errorf("without a replica: %+v, %v", sent, err)
	}
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--replicaof", host + " " + port}})
	patient := must(queue.New(primary.Client(), queue.Config{
		Prefix: queue.PrefixOf(replicated), Name: "q", Durability: queue.Replicated, DurabilityTimeout: 10 * time.Second,
	}))
	put(t, patient, "c")
	eventually(t, "the replica answers", func() bool {
		n, err := run(t, replica.Client(), "LLEN", queue.PrefixOf(replicated)+":queue:{q:0}:ready").AsInt64()
		return err == nil && n == 2
	})

	memory := valkeytest.Start(t)
	if _, err := newQueue(t, memory, queue.Config{Durability: queue.Synced}).Send(t.Context(), queue.Message{}); err == nil {
		t.Error("a server without an append-only file has synced")
	}
	old := valkeytest.StartWith(t, valkeytest.Config{Binary: valkeytest.Redis})
	if err := newQueue(t, old, queue.Config{Durability: queue.Synced}).Open(t.Context()); err == nil || !strings.Contains(err.Error(), "WAITAOF") {
		t.Errorf("Redis 7.0: %v", err)
	}
}

// TestHungServer stops the server: calls end with their contexts, or Config.Timeout.
func TestHungServer(t *testing.T) {
	s := valkeytest.Start(t)
	q := newQueue(t, s, queue.Config{Timeout: 200 * time.Millisecond})
	put(t, q, "a")
	d := must(q.Receive(t.Context(), queue.ReceiveOptions{Visibility: time.Hour}))[0]
	s.Pause()
	defer s.Resume()
	done := make(chan error, 4)
	go func() { _, err := q.Send(t.Context(), queue.Message{}); done <- err }()
	go func() { _, err := q.Receive(t.Context(), queue.ReceiveOptions{Wait: time.Hour}); done <- err }()
	go func() { done <- q.Ack(t.Context(), d.Receipt) }()
	go func() { _, err := q.Stats(t.Context()); done <- err }()
	for range 4 {
		select {
		case err := <-done:
			if err == nil {
				t.Error("a server that is stopped has answered")
			}
		case <-time.After(patience):
			t.Fatal("a call does not end")
		}
	}
}

// TestServerLosesQueue flushes the server: the queue is made anew, with its settings.
func TestServerLosesQueue(t *testing.T) {
	s := valkeytest.Start(t)
	q := newQueue(t, s, queue.Config{MaxMessages: 2})
	put(t, q, "a")
	run(t, s.Client(), "FLUSHALL")
	put(t, q, "b", "c")
	if _, err := q.Send(t.Context(), queue.Message{}); !errors.Is(err, queue.ErrFull) {
		t.Errorf("the quota is gone: %v", err)
	}
	if st := must(q.Stats(t.Context())); st.Visible != 2 {
		t.Errorf("%+v", st)
	}
}

// slots moves slots that have keys from node to node until stop is called; it returns how many it has moved.
func moveSlots(t *testing.T, c *valkeytest.Nodes) (stop func() int) {
	t.Helper()
	ids := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		ids[i] = must(run(t, s.Client(), "CLUSTER", "MYID").ToString())
	}
	quit, done := make(chan struct{}), make(chan int)
	go func() {
		moved := 0
		for {
			select {
			case <-quit:
				done <- moved
				return
			default:
			}
			from := rand.IntN(len(ids))
			to := (from + 1 + rand.IntN(len(ids)-1)) % len(ids)
			key, err := run(t, c.Servers[from].Client(), "RANDOMKEY").ToString()
			if err != nil {
				<-time.After(time.Millisecond)
				continue
			}
			moveSlot(t, c, ids, key, from, to)
			moved++
			<-time.After(rand.N(100 * time.Millisecond)) // calls go on between two moves
		}
	}()
	return sync.OnceValue(func() int { close(quit); return <-done })
}

func moveSlot(t *testing.T, c *valkeytest.Nodes, ids []string, key string, from, to int) {
	t.Helper()
	source, target := c.Servers[from], c.Servers[to]
	slot := strconv.FormatInt(must(run(t, source.Client(), "CLUSTER", "KEYSLOT", key).AsInt64()), 10)
	host, port, err := net.SplitHostPort(target.Addr)
	if err != nil {
		t.Error(err)
		return
	}
	if run(t, source.Client(), "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to]).Error() != nil {
		return // it has moved meanwhile
	}
	_ = run(t, target.Client(), "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[from]).Error()
	for {
		keys, err := run(t, source.Client(), "CLUSTER", "GETKEYSINSLOT", slot, "100").AsStrSlice()
		if err != nil {
			t.Error(err)
			return
		}
		if len(keys) == 0 {
			break
		}
		if err := run(t, source.Client(), append([]string{"MIGRATE", host, port, "", "0", "5000", "REPLACE", "KEYS"}, keys...)...).Error(); err != nil {
			t.Error(err)
			return
		}
	}
	for _, i := range []int{to, from, 3 - to - from} {
		if err := run(t, c.Servers[i].Client(), "CLUSTER", "SETSLOT", slot, "NODE", ids[to]).Error(); err != nil {
			t.Error(err)
		}
	}
}

// TestSlotsMove runs what has no times in it while the slots of its keys move from node to node.
func TestSlotsMove(t *testing.T) {
	c := valkeytest.Cluster(t, 3)
	stop := moveSlots(t, c)
	defer func() { t.Logf("%d slots moved", stop()) }()
	queuetest.RunTimeless(t, valkeytest.Env{Client: c.Client(), Advance: func(time.Duration) {}})
}

// TestOracle holds the queue against the model for FLATRATE_QUEUE_STEPS steps, of a standard and a FIFO queue.
func TestOracle(t *testing.T) {
	steps, _ := strconv.Atoi(os.Getenv("FLATRATE_QUEUE_STEPS"))
	if steps == 0 {
		t.Skip("make queue-oracle")
	}
	s := valkeytest.Start(t)
	queuetest.Oracle(t, valkeytest.Env{Client: s.Client()}, steps)
}

func TestConfig(t *testing.T) {
	s := valkeytest.Start(t)
	for field, cfg := range map[string]queue.Config{
		"Name":              {},
		"Name has":          {Name: strings.Repeat("n", 257)},
		"Prefix":            {Name: "q", Prefix: "{"},
		"Partitions":        {Name: "q", Partitions: 257},
		"DeadLetters":       {Name: "q", DeadLetters: "q"},
		"DeadLetters has":   {Name: "q", DeadLetters: strings.Repeat("n", 257)},
		"MaxReceives":       {Name: "q", MaxReceives: -2},
		"Retention":         {Name: "q", Retention: time.Millisecond},
		"MaxMessages":       {Name: "q", MaxMessages: -5},
		"MaxBytes":          {Name: "q", MaxBytes: -5},
		"Delay":             {Name: "q", Delay: time.Microsecond},
		"MaxInFlight":       {Name: "q", MaxInFlight: -5},
		"Rate.Per":          {Name: "q", Rate: queue.Rate{Limit: 1}},
		"GroupRate.Limit":   {Name: "q", GroupRate: queue.Rate{Per: time.Second}},
		"Visibility":        {Name: "q", Visibility: 13 * time.Hour},
		"MaxBody":           {Name: "q", MaxBody: 65 << 20},
		"Durability":        {Name: "q", Durability: 3},
		"Replicas":          {Name: "q", Replicas: 1},
		"DurabilityTimeout": {Name: "q", DurabilityTimeout: time.Hour},
		"Timeout":           {Name: "q", Timeout: -1},
	} {
		_, err := queue.New(s.Client(), cfg)
		if err == nil || !strings.HasPrefix(err.Error(), "queue: Config."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := queue.New(nil, queue.Config{Name: "q"}); err == nil {
		t.Error("a queue without a client")
	}
	if got := fmt.Sprint(queue.Memory, queue.Replicated, queue.Synced, queue.Durability(7)); got != "memory replicated synced Durability(7)" {
		t.Error(got)
	}
}

package fault

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// queueMode is a server's way to keep its data, and what a send waits for.
type queueMode struct {
	name     string
	args     []string
	promote  bool // a replica is promoted in place of a restart
	config   queue.Config
	lossless bool // docs/queue.md promises that nothing is lost
}

var queueModes = []queueMode{
	{name: "memory, nothing persistent"},
	{name: "memory, appendfsync everysec", args: []string{"--appendonly", "yes"}},
	{name: "memory, appendfsync always", args: []string{"--appendonly", "yes", "--appendfsync", "always"}, lossless: true},
	{name: "synced, appendfsync everysec", args: []string{"--appendonly", "yes"}, config: queue.Config{Durability: queue.Synced, DurabilityTimeout: 5 * time.Second}, lossless: true},
	{name: "memory, replica promoted", promote: true},
	{name: "replicated, replica promoted", promote: true, config: queue.Config{Durability: queue.Replicated, DurabilityTimeout: 5 * time.Second}, lossless: true},
}

// TestQueueServerKilled kills the server under load in each mode, and counts.
func TestQueueServerKilled(t *testing.T) {
	rounds := 1
	if os.Getenv("FLATRATE_FAULT") != "" {
		rounds = 10
	}
	for _, mode := range queueModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			var sum count
			for range rounds {
				c := serverKilled(t, mode)
				sum.sent += c.sent
				sum.came += c.came
				sum.lost += c.lost
				sum.twice += c.twice
				sum.unknown += c.unknown
				sum.order += c.order
			}
			t.Logf("%d kills: %v", rounds, &sum)
			if mode.lossless && sum.lost > 0 {
				t.Errorf("lost %d", sum.lost)
			}
		})
	}
}

// ledger is what producers and consumers of this process saw.
type ledger struct {
	mu    sync.Mutex
	acked map[string]bool
	seen  map[string]int
	last  map[string]int
	count count
}

func (l *ledger) sent(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[key] = true
}

func (l *ledger) came(group string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := fmt.Sprint(group, " ", n)
	l.seen[key]++
	l.count.came++
	if l.seen[key] > 1 {
		l.count.twice++
	} else if n < l.last[group] {
		l.count.order++
	}
	l.last[group] = max(l.last[group], n)
}

func (l *ledger) sum() *count {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.sent = len(l.acked)
	for key := range l.seen {
		if !l.acked[key] {
			l.count.unknown++
		}
	}
	for key := range l.acked {
		if l.seen[key] == 0 {
			l.count.lost++
		}
	}
	return &l.count
}

func serverKilled(t *testing.T, mode queueMode) *count {
	cfg := valkeytest.Config{Args: append([]string{"--repl-diskless-sync-delay", "0"}, mode.args...), TCP: mode.promote}
	server := valkeytest.StartWith(t, cfg)
	defer server.Kill()
	var socket atomic.Pointer[string]
	socket.Store(&server.Socket)
	var replica *valkeytest.Server
	if mode.promote {
		host, port, err := net.SplitHostPort(server.Addr)
		if err != nil {
			t.Fatal(err)
		}
		replica = valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--replicaof", host + " " + port}})
		defer replica.Kill()
	}
	client, err := valkey.NewClient(valkey.ClientOption{
		InitAddress: []string{"now"}, ForceSingleClient: true,
		DialCtxFn: func(ctx context.Context, _ string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", *socket.Load())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	own := mode.config
	own.Name, own.FIFO, own.Visibility, own.Timeout = "q", true, time.Second, 2*time.Second
	q, err := queue.New(client, own)
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{acked: map[string]bool{}, seen: map[string]int{}, last: map[string]int{}}
	producing, stop := context.WithCancel(t.Context())
	consuming, end := context.WithCancel(t.Context())
	defer stop()
	defer end()
	var producers, consumers sync.WaitGroup
	for i := range 16 {
		producers.Go(func() { produce(producing, q, fmt.Sprint(i), l) })
	}
	for range 8 {
		consumers.Go(func() { drain(consuming, q, l) })
	}
	arrived := func() int { l.mu.Lock(); defer l.mu.Unlock(); return l.count.came }
	wait := func(what string, until func() bool) {
		for deadline := time.Now().Add(time.Minute); !until(); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s: not within a minute", mode.name, what)
			}
			<-time.After(time.Millisecond)
		}
	}
	some := 500 + rand.IntN(1000)
	wait("messages come", func() bool { return arrived() > some })
	server.Kill()
	if mode.promote {
		wait("the replica is promoted", func() bool {
			c := replica.Client()
			return c.Do(t.Context(), c.B().Arbitrary("REPLICAOF", "NO", "ONE").Build()).Error() == nil
		})
		socket.Store(&replica.Socket)
		// There is no replica any more to wait for.
		if own.Durability == queue.Replicated {
			stop()
		}
	} else {
		server.Restart()
	}
	if producing.Err() == nil {
		more := arrived() + 500
		wait("messages come again", func() bool { return arrived() > more })
		stop()
	}
	producers.Wait()
	wait("the queue is empty", func() bool {
		s, err := q.Stats(t.Context())
		return err == nil && s.Visible+s.InFlight == 0
	})
	end()
	consumers.Wait()
	return l.sum()
}

// produce sends messages of a group one after the other; one that failed is not sent again.
func produce(ctx context.Context, q *queue.Queue, group string, l *ledger) {
	for n := 1; ctx.Err() == nil; n++ {
		body := fmt.Sprint(group, " ", n)
		if _, err := q.Send(ctx, queue.Message{Body: []byte(body), Group: group}); err == nil {
			l.sent(body)
		} else {
			<-time.After(10 * time.Millisecond)
		}
	}
}

func drain(ctx context.Context, q *queue.Queue, l *ledger) {
	for ctx.Err() == nil {
		ds, err := q.Receive(ctx, queue.ReceiveOptions{Wait: time.Second})
		if err != nil {
			<-time.After(10 * time.Millisecond)
			continue
		}
		for _, d := range ds {
			var n int
			if _, err := fmt.Sscanf(string(d.Body), d.Group+" %d", &n); err != nil {
				panic(err)
			}
			l.came(d.Group, n)
			_ = q.Ack(ctx, d.Receipt)
		}
	}
}

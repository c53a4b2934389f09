package interop

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// queueLanguages are the languages of docs/recipes/queue.
func queueLanguages() []language {
	var all []language
	for _, l := range rateLanguages() {
		program := strings.Replace(l.command[1], "ratelimit.", "queues.", 1)
		l.command = []string{l.command[0], program}
		all = append(all, l)
	}
	return all
}

func queueOn(t *testing.T, server *valkeytest.Server, cfg queue.Config) *queue.Queue {
	t.Helper()
	cfg.Timeout = 30 * time.Second
	q, err := queue.New(server.Client(), cfg)
	if err == nil {
		err = q.Open(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// TestQueueVectors holds the recipes against the test vectors. Go's is in package queue.
func TestQueueVectors(t *testing.T) {
	for _, l := range installed(t, queueLanguages()) {
		server := valkeytest.Start(t)
		if r := l.run(t.Context(), t, "vectors", server.Socket); r.Keys < 10 || r.Steps < 30 {
			t.Errorf("%s: %d keys, %d steps", l.name, r.Keys, r.Steps)
		}
	}
}

// TestQueueCalls goes through the rest of the recipes.
func TestQueueCalls(t *testing.T) {
	for _, l := range installed(t, queueLanguages()) {
		server := valkeytest.Start(t)
		queueOn(t, server, queue.Config{Name: "small", MaxMessages: 2})
		queueOn(t, server, queue.Config{Name: "fifo", FIFO: true})
		many := queueOn(t, server, queue.Config{Name: "many", Partitions: 3})
		if err := queueOn(t, server, queue.Config{Name: "deleted"}).Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.run(t.Context(), t, "calls", server.Socket)
		if s, err := many.Stats(t.Context()); err != nil || s.Visible != 306 {
			t.Errorf("%s: %+v, %v", l.name, s, err)
		}
	}
}

// TestQueueWakes lets each language wake who waits: a channel that is only registered, and a consumer.
func TestQueueWakes(t *testing.T) {
	const wait = "fr:queue:{waited:0}:wait"
	for _, l := range installed(t, queueLanguages()) {
		server := valkeytest.Start(t)
		client, q := server.Client(), queueOn(t, server, queue.Config{Name: "waited"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		waiting := func() int64 {
			n, err := client.Do(ctx, client.B().Zcard().Key(wait).Build()).AsInt64()
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		register := client.B().Zadd().Key(wait).ScoreMember().ScoreMember(4e12, "fr:wake:somebody me").Build()
		if err := client.Do(ctx, register).Error(); err != nil {
			t.Fatal(err)
		}
		wake := func() {
			if r := l.run(ctx, t, "wake", server.Socket); r.Turns != 1 {
				t.Errorf("%s: %+v", l.name, r)
				cancel() // nothing will come
			}
		}
		wake()
		stats, err := client.Do(ctx, client.B().Info().Section("commandstats").Build()).ToString()
		if err != nil || waiting() != 0 || !strings.Contains(stats, "cmdstat_publish:calls=1,") {
			t.Errorf("%s: nobody was woken: %v", l.name, err)
		}
		receive := func(wait time.Duration) {
			ds, err := q.Receive(ctx, queue.ReceiveOptions{Wait: wait, Visibility: time.Hour})
			if err != nil || len(ds) != 1 || string(ds[0].Body) != "\x00\xff" || ds[0].Receives != 1 {
				t.Errorf("%s: %v, %v", l.name, ds, err)
			}
		}
		receive(0)
		done := make(chan struct{})
		go func() {
			defer close(done)
			receive(time.Minute)
		}()
		for waiting() == 0 {
			<-time.After(time.Millisecond)
		}
		wake()
		<-done
		cancel()
	}
}

// TestQueueShared lets all languages and Go send to one queue, and each message twice. A consumer gets each once, and those of a group
// in the order in which each of them has sent.
func TestQueueShared(t *testing.T) {
	const rounds, groups = 60, 4
	others := installed(t, queueLanguages())
	server := valkeytest.Start(t)
	q := queueOn(t, server, queue.Config{Name: "shared", FIFO: true, Partitions: 3})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
	defer cancel()
	var senders sync.WaitGroup
	for _, l := range others {
		senders.Go(func() {
			if r := l.run(ctx, t, "send", server.Socket, fmt.Sprint(rounds)); r.Turns != rounds*groups {
				t.Errorf("%s: %+v", l.name, r)
				cancel() // they will not be all
			}
		})
	}
	senders.Go(func() {
		for i := range rounds * 2 {
			for g := range groups {
				id := fmt.Sprint("go ", g, " ", i/2)
				sent, err := q.Send(ctx, queue.Message{Body: []byte(id), Group: fmt.Sprint("g", g), DedupID: id})
				if err != nil || sent.Duplicate != (i%2 == 1) {
					t.Errorf("%+v, %v", sent, err)
				}
			}
		}
	})
	want := (len(others) + 1) * rounds * groups
	var mu sync.Mutex
	got, next := 0, map[string]int{}
	all := make(chan struct{})
	consumer, err := queue.NewConsumer(q, queue.ConsumerConfig{
		Visibility: 30 * time.Second,
		Handler: func(_ context.Context, d *queue.Delivery) error {
			var from string
			var group, i int
			_, err := fmt.Sscan(string(d.Body), &from, &group, &i)
			mu.Lock()
			defer mu.Unlock()
			who := fmt.Sprint(from, group)
			if err != nil || i != next[who] || d.Group != fmt.Sprint("g", group) || from != "go" && d.Attributes["from"] != from {
				t.Errorf("%s in group %s, want %d: %v", d.Body, d.Group, next[who], err)
			}
			next[who]++
			if got++; got == want {
				close(all)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(running) }()
	senders.Wait()
	select {
	case <-all:
	case <-ctx.Done():
		t.Errorf("only %d of %d have come", got, want)
	}
	stop()
	if err := <-ended; err != nil && ctx.Err() == nil {
		t.Log(err)
	}
	if s, err := q.Stats(t.Context()); err != nil || s.Visible+s.InFlight != 0 || s.Acked != int64(want) {
		t.Errorf("%+v, %v", s, err)
	}
	t.Logf("%d messages of %d languages", got, len(others)+1)
}

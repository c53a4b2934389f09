package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/proof/crowd"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/maypok86/otter/v2"
	"github.com/redis/go-redis/v9"
	"github.com/valkey-io/valkey-go"
)

// cacheArea is what a hit costs in the process and on the server, and what a miss costs a crowd.
func cacheArea() Area { return Area{Name: "cache", Rows: cacheRows} }

const (
	cacheKeys  = 1000
	cacheBytes = 1 << 10
	cacheLoad  = 50 * time.Millisecond
)

// page is a typed value.
type page struct {
	ID    int64
	Title string
	Tags  []string
}

func cacheRows(ctx context.Context, b *B) []Row {
	server := valkeytest.StartWith(b, valkeytest.Config{TCP: true})
	rows := []Row{localHits(ctx, b, server.Addr), hitsWhileDown(ctx, b, server.Addr), serverHits(ctx, b, server.Addr)}
	return append(append(rows, coldKey(ctx, b, server.Addr)...), batchTrips(ctx, b, server.Addr), behindAck(ctx, b, server.Addr))
}

func connectTo(ctx context.Context, b *B, addr string) valkey.Client {
	client, err := flatrate.Connect(ctx, "valkey://"+addr)
	b.Must(err)
	b.Cleanup(client.Close)
	return client
}

func cacheNames() []string {
	names := make([]string, cacheKeys)
	for i := range names {
		names[i] = "user:" + strconv.Itoa(100_000+i)
	}
	return names
}

// nanoseconds is a round of one caller that returns the time of one op. It looks at the clock once in a thousand.
func nanoseconds(op func(ctx context.Context, i int) error) Round {
	return func(ctx context.Context, d time.Duration) (float64, error) {
		begin, n := time.Now(), 0
		for time.Since(begin) < d {
			for range 1000 {
				if err := op(ctx, n); err != nil {
					return 0, err
				}
				n++
			}
		}
		return float64(time.Since(begin).Nanoseconds()) / float64(n), nil
	}
}

// localHits compares hits of a typed value in the process.
func localHits(ctx context.Context, b *B, addr string) Row {
	names := cacheNames()
	ours := localPages(ctx, b, addr, names)
	plain, err := otter.New(&otter.Options[string, page]{MaximumSize: 2 * cacheKeys})
	b.Must(err)
	for i, name := range names {
		plain.Set(name, page{int64(i), "title", []string{"a", "b"}})
	}
	return Row{
		Name: "local-hit-time", Unit: "ns", Better: "lower",
		Ours: nanoseconds(ours),
		Peers: []Peer{
			{"otter", nanoseconds(func(_ context.Context, i int) error {
				if _, ok := plain.GetIfPresent(names[i%cacheKeys]); !ok {
					return fmt.Errorf("otter has lost %s", names[i%cacheKeys])
				}
				return nil
			})},
			{"valkey-go DoCache", trackedRound(ctx, b, addr, names)},
		},
	}
}

// localPages makes a cache whose entries are all in this process, and returns a hit.
func localPages(ctx context.Context, b *B, addr string, names []string) func(context.Context, int) error {
	pages, err := cache.New[page](connectTo(ctx, b, addr), cache.Config{
		Name: "page", TTL: time.Hour, Local: cache.LocalTier{Entries: 2 * cacheKeys, TTL: time.Hour},
	})
	b.Must(err)
	b.Cleanup(pages.Close)
	missing := func(context.Context) (page, error) { return page{}, fmt.Errorf("a local hit was expected") }
	get := func(ctx context.Context, i int) error {
		_, err := pages.Get(ctx, names[i%cacheKeys], missing)
		return err
	}
	for i, name := range names {
		b.Must(pages.Set(ctx, name, page{int64(i), "title", []string{"a", "b"}}))
	}
	for range 3 { // until all is local: the first reads may come before the server's messages are heard
		<-time.After(100 * time.Millisecond)
		for i := range names {
			b.Must(get(ctx, i))
		}
	}
	return get
}

// hitsWhileDown compares local hits while the server is away with those while it is there.
func hitsWhileDown(ctx context.Context, b *B, addr string) Row {
	names := cacheNames()
	up := localPages(ctx, b, addr, names)
	server := valkeytest.StartWith(b, valkeytest.Config{TCP: true})
	down := localPages(ctx, b, server.Addr, names)
	server.Kill()
	for begin := time.Now(); time.Since(begin) < 2*time.Second; { // until that is known
		b.Must(down(ctx, 0))
	}
	return Row{
		Name: "local-hit-p99-server-down", Unit: "ns", Better: "lower", Ours: p99(down), Peers: []Peer{{"server up", p99(up)}},
	}
}

// p99 is a round of one caller that returns the 99th percentile of one op's time.
func p99(op func(ctx context.Context, i int) error) Round {
	return func(ctx context.Context, d time.Duration) (float64, error) {
		var took []time.Duration
		for begin := time.Now(); time.Since(begin) < d && len(took) < 1<<20; {
			start := time.Now()
			if err := op(ctx, len(took)); err != nil {
				return 0, err
			}
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		return float64(took[len(took)*99/100].Nanoseconds()), nil
	}
}

// trackedRound is a local hit of valkey-go, whose values are the server's replies.
func trackedRound(ctx context.Context, b *B, addr string, names []string) Round {
	client := connectTo(ctx, b, addr)
	get := func(ctx context.Context, i int) error {
		name := "tracked:" + names[i%cacheKeys]
		_, err := client.DoCache(ctx, client.B().Get().Key(name).Cache(), time.Hour).AsBytes()
		return err
	}
	for i, name := range names {
		b.Must(client.Do(ctx, client.B().Set().Key("tracked:"+name).Value("title").Build()).Error())
		b.Must(get(ctx, i))
	}
	return nanoseconds(get)
}

// serverHits compares hits of 1 KB that are read from the server.
func serverHits(ctx context.Context, b *B, addr string) Row {
	client := connectTo(ctx, b, addr)
	values, err := cache.New[[]byte](client, cache.Config{Name: "bytes", TTL: time.Hour})
	b.Must(err)
	value := []byte(strings.Repeat("x", cacheBytes))
	names := cacheNames()
	for _, name := range names {
		b.Must(values.Set(ctx, name, value))
		b.Must(client.Do(ctx, client.B().Set().Key(name).Value(string(value)).Build()).Error())
	}
	goRedis := redis.NewClient(&redis.Options{Addr: addr})
	b.Cleanup(func() { _ = goRedis.Close() })
	missing := func(context.Context) ([]byte, error) { return nil, fmt.Errorf("a hit was expected") }
	check := func(got []byte, err error) error {
		if err == nil && len(got) != cacheBytes {
			err = fmt.Errorf("%d bytes", len(got))
		}
		return err
	}
	var next atomic.Int64
	name := func() string { return names[next.Add(1)%cacheKeys] }
	return Row{
		Name: "server-hit-64", Unit: "ops/s", Better: "higher",
		Ours: Throughput(64, func(ctx context.Context, _ int) error { return check(values.Get(ctx, name(), missing)) }),
		Peers: []Peer{
			{"raw GET", Throughput(64, func(ctx context.Context, _ int) error {
				return check(client.Do(ctx, client.B().Get().Key(name()).Build()).AsBytes())
			})},
			{"go-redis GET", Throughput(64, func(ctx context.Context, _ int) error {
				return check(goRedis.Get(ctx, name()).Bytes())
			})},
		},
	}
}

// coldKey lets a crowd of processes miss one key at once.
func coldKey(ctx context.Context, b *B, addr string) []Row {
	members := 16
	if b.Quick {
		members = 4
	}
	all, err := crowd.Start(ctx, members, crowd.Setting{URL: "valkey://" + addr, Callers: 256, Load: cacheLoad})
	b.Must(err)
	b.Cleanup(func() { _ = all.Close() })
	key := 0
	rounds := func(d time.Duration) (loads, rounds int, took []time.Duration, err error) {
		for begin := time.Now(); rounds == 0 || time.Since(begin) < d; rounds++ {
			key++
			r, err := all.Round("cold " + strconv.Itoa(key))
			if err == nil && r.Wrong > 0 {
				err = fmt.Errorf("%d wrong answers", r.Wrong)
			}
			if err != nil {
				return 0, 0, nil, err
			}
			loads, took = loads+r.Loads, append(took, r.Took...)
		}
		return loads, rounds, took, nil
	}
	return []Row{
		{Name: "cold-key-loads", Unit: "loads", Better: "lower", Ours: func(_ context.Context, d time.Duration) (float64, error) {
			loads, n, _, err := rounds(d)
			return float64(loads) / float64(n), err
		}},
		{Name: "cold-key-p99-over-loader", Unit: "ratio", Better: "lower", Ours: func(_ context.Context, d time.Duration) (float64, error) {
			_, _, took, err := rounds(d)
			if err != nil {
				return 0, err
			}
			slices.Sort(took)
			return float64(took[len(took)*99/100]) / float64(cacheLoad), nil
		}},
	}
}

// trips counts the calls of a client: each is one round trip.
type trips struct {
	valkey.Client
	n int
}

func (c *trips) Do(ctx context.Context, cmd valkey.Completed) valkey.ValkeyResult {
	c.n++
	return c.Client.Do(ctx, cmd)
}

func (c *trips) DoMulti(ctx context.Context, multi ...valkey.Completed) []valkey.ValkeyResult {
	c.n++
	return c.Client.DoMulti(ctx, multi...)
}

// batchTrips counts the round trips of a batch of 100 keys, of which 30 are missing.
func batchTrips(ctx context.Context, b *B, addr string) Row {
	client := &trips{Client: connectTo(ctx, b, addr)}
	values, err := cache.New[string](client, cache.Config{Name: "batch", TTL: time.Hour})
	b.Must(err)
	load := func(_ context.Context, keys []string) (map[string]string, error) {
		loaded := make(map[string]string, len(keys))
		for _, key := range keys {
			loaded[key] = "v"
		}
		return loaded, nil
	}
	batch := 0
	return Row{Name: "batch-100-round-trips", Unit: "trips", Better: "lower", Ours: func(ctx context.Context, _ time.Duration) (float64, error) {
		batch++
		names := make([]string, 100)
		for i := range names {
			names[i] = fmt.Sprintf("batch %d, key %d", batch, i)
		}
		if _, err := values.GetMany(ctx, names[:70], load); err != nil {
			return 0, err
		}
		client.n = 0
		got, err := values.GetMany(ctx, names, load)
		if err == nil && len(got) != len(names) {
			err = fmt.Errorf("%d values", len(got))
		}
		return float64(client.n), err
	}}
}

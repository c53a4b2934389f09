package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	goRedis "github.com/redis/go-redis/v9"
	"github.com/valkey-io/valkey-go"
)

// redlockArea is what a lock on a majority of 3 and of 5 servers costs, and what it costs while one of
// them is a black hole.
func redlockArea() Area { return Area{Name: "redlock", Rows: redlockRows} }

// One caller, so that what is measured is the wait for servers, not for a turn on a busy machine.
const redlockCallers = 1

func redlockRows(ctx context.Context, b *B) []Row {
	var rows []Row
	for _, n := range []int{3, 5} {
		up, holed := startServers(b, n), startServers(b, n)
		ours, theirs, withHole := redlockTake(ctx, b, up), redsyncTake(b, up), redlockTake(ctx, b, holed)
		// Its connections stay open, new ones are accepted, and nothing is answered.
		holed[0].Pause()
		rows = append(rows,
			Row{
				Name: fmt.Sprintf("acquire-%d-p99", n), Unit: "us", Better: "lower", Ours: acquireP99(ours),
				Peers: []Peer{{"redsync", acquireP99(theirs)}},
			},
			Row{
				Name: fmt.Sprintf("black-hole-%d-p99", n), Unit: "us", Better: "lower", Ours: acquireP99(withHole),
				Peers: []Peer{{"all up", acquireP99(ours)}},
			})
	}
	return rows
}

func startServers(b *B, n int) (servers []*valkeytest.Server) {
	for range n {
		servers = append(servers, valkeytest.StartWith(b, valkeytest.Config{TCP: true}))
	}
	return servers
}

func redlockTake(ctx context.Context, b *B, servers []*valkeytest.Server) take {
	var clients []valkey.Client
	for _, s := range servers {
		c, err := flatrate.Connect(ctx, "valkey://"+s.Addr)
		b.Must(err)
		b.Cleanup(c.Close)
		clients = append(clients, c)
	}
	r, err := lock.NewRedlock(clients, lock.RedlockConfig{TTL: lockTTL})
	b.Must(err)
	return func(ctx context.Context, name string) (func() error, error) {
		held, err := r.Acquire(ctx, name)
		if err != nil {
			return nil, err
		}
		return func() error { return held.Release(ctx) }, nil
	}
}

func redsyncTake(b *B, servers []*valkeytest.Server) take {
	var pools []redis.Pool
	for _, s := range servers {
		c := goRedis.NewClient(&goRedis.Options{Addr: s.Addr})
		b.Cleanup(func() { _ = c.Close() })
		pools = append(pools, goredis.NewPool(c))
	}
	rs := redsync.New(pools...)
	return func(ctx context.Context, name string) (func() error, error) {
		m := rs.NewMutex(name, redsync.WithExpiry(lockTTL))
		if err := m.LockContext(ctx); err != nil {
			return nil, err
		}
		return func() error { _, err := m.UnlockContext(ctx); return err }, nil
	}
}

// acquireP99 is a round in which callers take names that nobody else wants, and give them back; it returns
// the 99th percentile of the time to take one, in microseconds.
func acquireP99(t take) Round {
	return func(ctx context.Context, d time.Duration) (float64, error) {
		var mu sync.Mutex
		var took []time.Duration
		_, _, err := drive(ctx, redlockCallers, d, func(ctx context.Context, caller int) error {
			begin := time.Now()
			release, err := t(ctx, "pair-"+strconv.Itoa(caller))
			if err != nil {
				return err
			}
			one := time.Since(begin)
			mu.Lock()
			took = append(took, one)
			mu.Unlock()
			return release()
		})
		if err != nil || len(took) == 0 {
			return 0, err
		}
		slices.Sort(took)
		return float64(took[len(took)*99/100].Microseconds()), nil
	}
}

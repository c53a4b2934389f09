package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bsm/redislock"
	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
	"github.com/valkey-io/valkey-go"
	"github.com/valkey-io/valkey-go/valkeylock"
)

// lockArea is what a lock costs where nobody contends, and how it changes hands where many do.
func lockArea() Area { return Area{Name: "lock", Rows: lockRows} }

const (
	lockCallers = 64
	lockWaiters = 8
	lockHold    = 5 * time.Millisecond
	lockTTL     = 10 * time.Second
)

// take acquires a name, waiting for it, and returns what gives it back.
type take func(ctx context.Context, name string) (release func() error, err error)

func lockRows(ctx context.Context, b *B) []Row {
	server := valkeytest.StartWith(b, valkeytest.Config{TCP: true})
	ours, peers := lockers(ctx, b, server.Addr)
	names := make([]string, lockCallers)
	for i := range names {
		names[i] = "pair-" + strconv.Itoa(i)
	}
	pair := func(t take) func(context.Context, int) error {
		return func(ctx context.Context, caller int) error {
			release, err := t(ctx, names[caller])
			if err != nil {
				return err
			}
			return release()
		}
	}
	pairs := Row{Name: "pair-64", Unit: "pairs/s", Better: "higher", Ours: Throughput(lockCallers, pair(ours))}
	p50 := Row{Name: "handover-p50", Unit: "us", Better: "lower", Ours: handover(ours, 0.5)}
	p99 := Row{Name: "handover-p99", Unit: "us", Better: "lower", Ours: handover(ours, 0.99)}
	for _, name := range []string{"redsync", "redislock", "valkeylock"} {
		pairs.Peers = append(pairs.Peers, Peer{name, Throughput(lockCallers, pair(peers[name]))})
		p50.Peers = append(p50.Peers, Peer{name, handover(peers[name], 0.5)})
		p99.Peers = append(p99.Peers, Peer{name, handover(peers[name], 0.99)})
	}
	return []Row{
		pairs, p50, p99,
		{Name: "waiter-max-over-min", Unit: "ratio", Better: "lower", Ours: fairness(ours)},
		{Name: "commands-per-pair", Unit: "commands", Better: "lower", Ours: commandsPerPair(server.Client(), pair(ours))},
	}
}

// lockers are ours and those of the peers, each on clients of its own, set up as their pages say.
func lockers(ctx context.Context, b *B, addr string) (ours take, peers map[string]take) {
	client, err := flatrate.Connect(ctx, "valkey://"+addr)
	b.Must(err)
	b.Cleanup(client.Close)
	locker, err := lock.New(client, lock.Config{TTL: lockTTL})
	b.Must(err)
	ours = func(ctx context.Context, name string) (func() error, error) {
		held, err := locker.Acquire(ctx, name)
		if err != nil {
			return nil, err
		}
		return func() error { return held.Release(ctx) }, nil
	}
	goRedis := redis.NewClient(&redis.Options{Addr: addr})
	b.Cleanup(func() { _ = goRedis.Close() })
	sync := redsync.New(goredis.NewPool(goRedis))
	simple := redislock.New(goRedis)
	theirs, err := valkeylock.NewLocker(valkeylock.LockerOption{
		ClientOption: valkey.ClientOption{InitAddress: []string{addr}}, KeyMajority: 1, KeyValidity: lockTTL,
	})
	b.Must(err)
	b.Cleanup(theirs.Close)
	return ours, map[string]take{
		"redsync": func(ctx context.Context, name string) (func() error, error) {
			m := sync.NewMutex(name, redsync.WithExpiry(lockTTL), redsync.WithTries(1<<30), redsync.WithRetryDelay(10*time.Millisecond))
			if err := m.LockContext(ctx); err != nil {
				return nil, err
			}
			return func() error { _, err := m.UnlockContext(ctx); return err }, nil
		},
		"redislock": func(ctx context.Context, name string) (func() error, error) {
			held, err := simple.Obtain(ctx, name, lockTTL, &redislock.Options{RetryStrategy: redislock.LinearBackoff(10 * time.Millisecond)})
			if err != nil {
				return nil, err
			}
			return func() error { return held.Release(ctx) }, nil
		},
		"valkeylock": func(ctx context.Context, name string) (func() error, error) {
			_, cancel, err := theirs.WithContext(ctx, name)
			if err != nil {
				return nil, err
			}
			return func() error { cancel(); return nil }, nil
		},
	}
}

// contend lets waiters take one name in turn, hold it, and give it back, for about d. It returns how long
// each hand-over took, from before the release to after the next acquisition, and how often each waiter
// had the lock.
func contend(ctx context.Context, t take, d time.Duration) (handovers []time.Duration, turns []int, err error) {
	// A round whose peer loses a wake-up ends all the same.
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	var (
		mu       sync.Mutex
		released time.Time
		failed   error
		all      sync.WaitGroup
	)
	turns = make([]int, lockWaiters)
	deadline := time.Now().Add(d)
	for waiter := range lockWaiters {
		all.Go(func() {
			for time.Now().Before(deadline) {
				release, err := t(ctx, "one")
				now := time.Now()
				mu.Lock()
				if err != nil {
					failed = err
					mu.Unlock()
					return
				}
				if !released.IsZero() {
					handovers = append(handovers, now.Sub(released))
				}
				turns[waiter]++
				mu.Unlock()
				<-time.After(lockHold)
				mu.Lock()
				released = time.Now()
				mu.Unlock()
				if err := release(); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if failed == nil && len(handovers) < lockWaiters {
		failed = errors.New("the lock hardly changed hands")
	}
	return handovers, turns, failed
}

// handover is a round that returns a quantile of the hand-overs, in microseconds.
func handover(t take, quantile float64) Round {
	return func(ctx context.Context, d time.Duration) (float64, error) {
		took, _, err := contend(ctx, t, d)
		if err != nil {
			return 0, err
		}
		slices.Sort(took)
		return float64(took[int(quantile*float64(len(took)-1))].Microseconds()), nil
	}
}

// fairness is a round that returns the turns of the waiter with the most over those of the one with the
// fewest.
func fairness(t take) Round {
	return func(ctx context.Context, d time.Duration) (float64, error) {
		_, turns, err := contend(ctx, t, d)
		if err != nil {
			return 0, err
		}
		return float64(slices.Max(turns)) / float64(max(1, slices.Min(turns))), nil
	}
}

// commandsPerPair is a round that counts on the server what the clients sent for each uncontended pair:
// calls of EVALSHA, EVAL and SCRIPT, which are all that a lock sends; what scripts call inside is not
// sent.
func commandsPerPair(admin valkey.Client, pair func(context.Context, int) error) Round {
	return func(ctx context.Context, d time.Duration) (float64, error) {
		before, err := scriptCalls(ctx, admin)
		if err != nil {
			return 0, err
		}
		n, _, err := drive(ctx, 1, d, pair)
		if err != nil {
			return 0, err
		}
		after, err := scriptCalls(ctx, admin)
		return float64(after-before) / float64(max(1, n)), err
	}
}

func scriptCalls(ctx context.Context, admin valkey.Client) (calls int64, err error) {
	text, err := admin.Do(ctx, admin.B().Info().Section("commandstats").Build()).ToString()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		name, stats, _ := strings.Cut(line, ":calls=")
		if name != "cmdstat_evalsha" && name != "cmdstat_eval" && !strings.HasPrefix(name, "cmdstat_script") {
			continue
		}
		n, _, _ := strings.Cut(stats, ",")
		one, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("INFO commandstats: %w", err)
		}
		calls += one
	}
	return calls, nil
}

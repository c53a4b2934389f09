package fault

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bsm/redislock"
	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/lock"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
	"github.com/valkey-io/valkey-go"
	"github.com/valkey-io/valkey-go/valkeylock"
)

// grip is a lock that some library has given.
type grip struct {
	held    context.Context // ends when the holder is told that the lock is lost
	fence   uint64          // 0 where the library has none
	release func(ctx context.Context)
}

// acquire waits for a name.
type acquire func(ctx context.Context, name string) (*grip, error)

// contender makes one process's way to lock on the server at addr.
type contender func(t *testing.T, addr string, ttl time.Duration) acquire

func flatrateLock(t *testing.T, addr string, ttl time.Duration) acquire {
	t.Helper()
	c, err := flatrate.Connect(t.Context(), "valkey://"+addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	l, err := lock.New(c, lock.Config{TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, name string) (*grip, error) {
		held, err := l.Acquire(ctx, name)
		if err != nil {
			return nil, err
		}
		return &grip{held.Context(), held.Fence(), func(ctx context.Context) { _ = held.Release(ctx) }}, nil
	}
}

// library is one whose counts are printed.
type library struct {
	name string
	make contender
}

var ours = []library{{"flatrate", flatrateLock}}

// The anchors. redsync and redislock neither renew nor tell of a loss: their holder extends every third
// of the time to live and stops when that returns an error, as their users write it.
var anchors = []library{
	{"redsync", redsyncLock(false, false)},
	{"redsync, WithSetNXOnExtend", redsyncLock(true, false)},
	{"redsync, heeding Until", redsyncLock(false, true)},
	{"redislock", redisLock},
	{"valkeylock", valkeyLock(false)},
}

func redsyncLock(setNX, until bool) contender {
	return func(t *testing.T, addr string, ttl time.Duration) acquire {
		c := redis.NewClient(&redis.Options{Addr: addr})
		t.Cleanup(func() { _ = c.Close() })
		rs := redsync.New(goredis.NewPool(c))
		options := []redsync.Option{redsync.WithExpiry(ttl), redsync.WithTries(1 << 30), redsync.WithRetryDelay(10 * time.Millisecond)}
		if setNX {
			options = append(options, redsync.WithSetNXOnExtend())
		}
		return func(ctx context.Context, name string) (*grip, error) {
			m := rs.NewMutex(name, options...)
			if err := m.LockContext(ctx); err != nil {
				return nil, err
			}
			end := func() time.Time { return time.Time{} }
			if until {
				end = m.Until
			}
			held, stop := extendByHand(ctx, ttl, end, func(ctx context.Context) error {
				if ok, err := m.ExtendContext(ctx); !ok {
					return errors.Join(errors.New("not extended"), err)
				}
				return nil
			})
			return &grip{held, 0, func(ctx context.Context) { stop(); _, _ = m.UnlockContext(ctx) }}, nil
		}
	}
}

func redisLock(t *testing.T, addr string, ttl time.Duration) acquire {
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { _ = c.Close() })
	rl := redislock.New(c)
	options := &redislock.Options{RetryStrategy: redislock.LinearBackoff(10 * time.Millisecond)}
	return func(ctx context.Context, name string) (*grip, error) {
		l, err := rl.Obtain(ctx, name, ttl, options)
		if err != nil {
			return nil, err
		}
		held, stop := extendByHand(ctx, ttl, func() time.Time { return time.Time{} }, func(ctx context.Context) error {
			return l.Refresh(ctx, ttl, nil)
		})
		return &grip{held, 0, func(ctx context.Context) { stop(); _ = l.Release(ctx) }}, nil
	}
}

func valkeyLock(noLoop bool) contender {
	return func(t *testing.T, addr string, ttl time.Duration) acquire {
		l, err := valkeylock.NewLocker(valkeylock.LockerOption{
			ClientOption: valkey.ClientOption{InitAddress: []string{addr}}, KeyMajority: 1, KeyValidity: ttl, NoLoopTracking: noLoop,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		return func(ctx context.Context, name string) (*grip, error) {
			// Its lock ends with the context it was acquired with, so ctx may only bound the wait.
			hold, end := context.WithCancel(context.WithoutCancel(ctx))
			stop := context.AfterFunc(ctx, end)
			held, cancel, err := l.WithContext(hold, name)
			if err != nil || !stop() {
				end()
				return nil, errors.Join(err, ctx.Err())
			}
			return &grip{held, 0, func(ctx context.Context) {
				done := make(chan struct{})
				go func() { cancel(); end(); close(done) }() // it waits for the server without a limit
				select {
				case <-done:
				case <-ctx.Done():
				}
			}}, nil
		}
	}
}

// extendByHand calls extend every third of ttl. The context it returns ends with the first error, or
// when end, unless that is zero, has passed.
func extendByHand(ctx context.Context, ttl time.Duration, end func() time.Time, extend func(context.Context) error) (context.Context, func()) {
	held, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var expired *time.Timer
	if at := end(); !at.IsZero() {
		expired = time.AfterFunc(time.Until(at), cancel)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		every := time.NewTicker(ttl / 3)
		defer every.Stop()
		for {
			select {
			case <-held.Done():
				return
			case <-every.C:
			}
			if extend(held) != nil {
				return
			}
			if expired != nil {
				expired.Reset(time.Until(end()))
			}
		}
	}()
	return held, func() { cancel(); <-done }
}

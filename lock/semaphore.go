package lock

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/valkey-io/valkey-go"
)

// SemaphoreConfig says how permits are kept. Limit is required; all else is as in [Config].
type SemaphoreConfig struct {
	// Limit is how many permits of a name are held at most: from 1 to 2^31-1. Where callers differ, each
	// waits until fewer than its own Limit are held.
	Limit int
	// Prefix stands before every key. Default "fr".
	Prefix string
	// TTL is how long a permit lasts if it is not renewed. Default 30 s.
	TTL time.Duration
	// NoRenewal leaves extending to the caller.
	NoRenewal bool
	// MaxHold ends a permit so long after it was acquired, however often it was extended.
	MaxHold time.Duration
	// Replicas is how many replicas must have an acquisition before it counts.
	Replicas int
	// ReplicaTimeout is how long to wait for them. Default 1 s.
	ReplicaTimeout time.Duration
	// Hooks hear what happens to permits.
	Hooks Hooks
}

// Semaphore lets a limited number of holders have a name at a time, each with a lease of its own. It is
// safe for concurrent use. Its names are apart from those of a [Locker].
type Semaphore struct{ locker *Locker }

// NewSemaphore returns a Semaphore on client, which stays the caller's to close. The error names the
// field of cfg that is wrong.
func NewSemaphore(client valkey.Client, cfg SemaphoreConfig) (*Semaphore, error) {
	if cfg.Limit < 1 || cfg.Limit > math.MaxInt32 {
		return nil, fmt.Errorf("lock: SemaphoreConfig.Limit is %d, not from 1 to %d", cfg.Limit, math.MaxInt32)
	}
	k := kind{
		scripts: shared, config: "SemaphoreConfig", held: "sem", queue: "semwait", place: "semplace",
		args: []string{strconv.Itoa(cfg.Limit)},
	}
	locker, err := newLocker(client, k, Config{
		Prefix: cfg.Prefix, TTL: cfg.TTL, NoRenewal: cfg.NoRenewal, MaxHold: cfg.MaxHold,
		Replicas: cfg.Replicas, ReplicaTimeout: cfg.ReplicaTimeout, Hooks: cfg.Hooks,
	})
	if err != nil {
		return nil, err
	}
	return &Semaphore{locker}, nil
}

// TryAcquire takes a permit of name if one is free and nobody waits for it; ok is false if not. Names
// and errors are as in [Locker.TryAcquire]. One round trip.
func (s *Semaphore) TryAcquire(ctx context.Context, name string) (permit *Permit, ok bool, err error) {
	return tryPermit(ctx, s.locker, name)
}

// Acquire waits until it holds a permit of name, or ctx ends; then the error wraps ctx.Err(). Who came
// first is served first, at the round trips of [Locker.Acquire].
func (s *Semaphore) Acquire(ctx context.Context, name string) (*Permit, error) {
	return acquirePermit(ctx, s.locker, name)
}

// Do acquires a permit of name, runs f, and releases the permit, as [Locker.Do] does with a lock.
func (s *Semaphore) Do(ctx context.Context, name string, f func(context.Context) error) error {
	return s.locker.Do(ctx, name, f)
}

// Permit is held together with others: one of a [Semaphore]'s, or a reader's. It is safe for concurrent
// use.
type Permit struct{ lock *Lock }

func tryPermit(ctx context.Context, l *Locker, name string) (*Permit, bool, error) {
	lock, ok, err := l.TryAcquire(ctx, name)
	if !ok || err != nil {
		return nil, false, err
	}
	return &Permit{lock}, true, nil
}

func acquirePermit(ctx context.Context, l *Locker, name string) (*Permit, error) {
	lock, err := l.Acquire(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Permit{lock}, nil
}

// Name is the name that was acquired.
func (p *Permit) Name() string { return p.lock.Name() }

// Context ends when the permit is released or lost, before the server can give its place to another; see
// [Lock.Context].
func (p *Permit) Context() context.Context { return p.lock.Context() }

// Extend lets the permit last for ttl from now on, as [Lock.Extend] does. A permit that was lost is never
// taken anew: the error is an [EndedError]. One round trip.
func (p *Permit) Extend(ctx context.Context, ttl time.Duration) error {
	return p.lock.Extend(ctx, ttl)
}

// Release gives the permit back, to the first who waits if somebody does, and ends Context at once. The
// error is an [EndedError] if it was no longer held; other holders are never harmed. One round trip.
func (p *Permit) Release(ctx context.Context) error { return p.lock.Release(ctx) }

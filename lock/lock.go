// Package lock is mutual exclusion between processes: at most one of them holds a name at a time.
//
// [New] makes a Locker of a client; [Locker.Acquire] is what most callers want, [Locker.TryAcquire]
// does not wait. A lock belongs to whoever took it and ends by itself after its time to live, so
// that a holder that died blocks nobody for longer. The server's clock alone decides when.
//
// A holder that is paused for longer than the time to live has lost the lock without knowing it: use
// locks to avoid doing work twice, and let the resource itself refuse what must never happen twice.
// docs/lock.md says what is promised in which failure.
//
// # Keys
//
//	key             type    value              ends
//	fr:lock:{NAME}  string  the owner's token  after the lock's TTL
package lock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/flatrate/flatrate/internal/key"
	"github.com/flatrate/flatrate/internal/lease"
	"github.com/valkey-io/valkey-go"
)

// ErrNotHeld is returned by [Lock.Extend] and [Lock.Release] if the lock is no longer the caller's:
// it was released, its time to live passed, the server lost it, or somebody else holds it by now.
var ErrNotHeld = errors.New("lock: not held")

// Defaults of [Config].
const (
	DefaultTTL   = 30 * time.Second
	DefaultRetry = 50 * time.Millisecond
)

// Config says how locks are kept. The zero value is ready to use.
type Config struct {
	// Prefix stands before every key; all who share a lock use the same one. Default "fr".
	Prefix string
	// TTL is how long a lock lasts if nobody extends it: whole milliseconds, at least one. Choose it
	// longer than the work takes; a holder that died blocks the others for so long. Default 30 s.
	TTL time.Duration
	// Retry is the mean pause between two attempts of a waiting Acquire; each is drawn between half
	// and one and a half times of it. Default 50 ms.
	Retry time.Duration
}

// Locker takes locks. It is safe for concurrent use and holds no resources.
type Locker struct {
	client valkey.Client
	keys   key.Space
	cfg    Config
}

// New returns a Locker on client, which stays the caller's to close. The error names the field of
// cfg that is wrong.
func New(client valkey.Client, cfg Config) (*Locker, error) {
	if client == nil {
		return nil, errors.New("lock: client is nil")
	}
	keys, err := keySpace(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.TTL < lease.MinTTL {
		return nil, fmt.Errorf("lock: Config.TTL is %v, less than %v", cfg.TTL, lease.MinTTL)
	}
	if cfg.Retry == 0 {
		cfg.Retry = DefaultRetry
	}
	if cfg.Retry < 0 {
		return nil, fmt.Errorf("lock: Config.Retry is %v, less than zero", cfg.Retry)
	}
	return &Locker{client: client, keys: keys, cfg: cfg}, nil
}

// TryAcquire takes the lock of name if nobody holds it; ok is false if somebody does. One round trip.
//
// A name is any string; braces, spaces and control bytes in it are safe. If the server's answer does
// not arrive, the lock counts as not taken and is given back in the background.
func (l *Locker) TryAcquire(ctx context.Context, name string) (lock *Lock, ok bool, err error) {
	held, ok, err := lease.Take(ctx, l.client, l.keys.Key(name), l.cfg.TTL)
	if err != nil {
		return nil, false, fmt.Errorf("lock: acquire: %w", err)
	}
	if !ok {
		return nil, false, nil
	}
	return &Lock{name: name, lease: held, ttl: l.cfg.TTL}, true, nil
}

// Acquire waits until it holds the lock of name or ctx ends; then the error wraps ctx.Err(). It asks
// the server again every Config.Retry; waiters are not served in order.
func (l *Locker) Acquire(ctx context.Context, name string) (*Lock, error) {
	for {
		lock, ok, err := l.TryAcquire(ctx, name)
		if err != nil || ok {
			return lock, err
		}
		pause := time.NewTimer(l.cfg.Retry/2 + rand.N(l.cfg.Retry+1))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, fmt.Errorf("lock: acquire: %w", ctx.Err())
		}
	}
}

// Lock is a lock that was acquired. It is safe for concurrent use.
type Lock struct {
	name  string
	lease *lease.Lease
	ttl   time.Duration
}

// Name is the name that was locked.
func (l *Lock) Name() string { return l.name }

// Extend lets the lock last for ttl from now on, at least one millisecond; zero means Config.TTL. A
// lock that was lost is never taken anew: the error is [ErrNotHeld]. One round trip.
func (l *Lock) Extend(ctx context.Context, ttl time.Duration) error {
	if ttl == 0 {
		ttl = l.ttl
	}
	if ttl < lease.MinTTL {
		return fmt.Errorf("lock: extend: ttl is %v, less than %v", ttl, lease.MinTTL)
	}
	held, err := l.lease.Extend(ctx, ttl)
	return outcome("extend", held, err)
}

// Release gives the lock back. The error is [ErrNotHeld] if it was no longer held; another holder is
// never harmed. One round trip; if it fails, the lock ends with its time to live.
func (l *Lock) Release(ctx context.Context) error {
	held, err := l.lease.Drop(ctx)
	return outcome("release", held, err)
}

func outcome(what string, held bool, err error) error {
	if err != nil {
		return fmt.Errorf("lock: %s: %w", what, err)
	}
	if !held {
		return ErrNotHeld
	}
	return nil
}

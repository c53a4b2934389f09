// Package lock is mutual exclusion between processes: at most one of them holds a name at a time.
// A [Semaphore] lets a limited number hold it, an [RW] many readers or one writer.
//
// [New] makes a Locker of a client. [Locker.Do] is what most callers want: it waits for the lock, runs
// a func with a context that ends if the lock is lost, and releases it. [Locker.Acquire] and
// [Locker.TryAcquire] leave the release to the caller.
//
// A lock belongs to whoever took it. It is renewed while its holder lives and can reach the server,
// and ends by itself after its time to live when not. Who waits is served in order, and woken: nobody
// polls. The server's clock alone decides when a lock ends.
//
// Three tiers, of which docs/lock.md says what each promises in which failure: one server, for saving
// work; [Config.Replicas] or [NewRedlock], for a server that may be lost with its data; and
// [Lock.Fence], a number that the resource itself checks, for what must never happen twice.
//
// # Keys
//
//	key                        type    value                                          ends
//	fr:lock:{TAG}:own:NAME     string  the owner's token                              after the lock's TTL
//	fr:lock:{TAG}:wait:NAME    list    the tokens that wait, first come first         3 s after the last one asked
//	fr:lock:{TAG}:place:NAME   hash    token -> its place: until, TTL, channel        3 s after the last one asked
//	fr:lock:{TAG}:gone:TOKEN   string  empty: whose call was cut off gets nothing     after 3 s
//	fr:lock:{TAG}:red:NAME     string  the token of a Redlock's owner, on each server  after the lock's TTL
//	fr:lock:{TAG}:fence        string  the last fencing token of the tag              never: at most 1,024 keys
//	fr:lock:{TAG}:sem:NAME       zset  token of a permit -> until when                with the last permit
//	fr:lock:{TAG}:semwait:NAME   list  the tokens that wait, first come first         3 s after the last one asked
//	fr:lock:{TAG}:semplace:NAME  hash  token -> its place: until, limit, channel      3 s after the last one asked
//	fr:lock:{TAG}:rw:NAME        zset  token of a reader or writer -> until when      with the last of them
//	fr:lock:{TAG}:rwwait:NAME    list  the tokens that wait, first come first         3 s after the last one asked
//	fr:lock:{TAG}:rwplace:NAME   hash  token -> its place: until, limit, channel      3 s after the last one asked
//
// TAG is a number from 0 to 1,023, the first ten bits of the SHA-256 of NAME.
package lock

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/key"
	"github.com/flatrate/flatrate/internal/lease"
	"github.com/valkey-io/valkey-go"
)

// ErrNotHeld is returned by Extend and Release, and is the cause of a lock's context, if the lock is
// no longer the caller's. [EndedError] says why.
var ErrNotHeld = errors.New("lock: not held")

// Defaults of [Config].
const (
	DefaultTTL            = 30 * time.Second
	DefaultReplicaTimeout = time.Second
)

const (
	place        = 3 * time.Second        // how long a waiter keeps its place without asking again
	claim        = 100 * time.Millisecond // how long a grant waits for its claim
	moving       = 20 * time.Millisecond  // between two attempts while a slot moves
	minConfigTTL = 10 * time.Millisecond
	maxTTL       = 365 * 24 * time.Hour
	placeMs      = "3000"
	claimMs      = "100"
	goneMs       = "3000" // how long a call that was cut off may still be on its way
	noPlace      = "0"
	answered     = "0"
	anywhere     = ""
)

// Config says how locks are kept. The zero value is ready to use.
type Config struct {
	// Prefix stands before every key; all who share a lock use the same one. Default "fr".
	Prefix string
	// TTL is how long a lock lasts if it is not renewed, so for how long a holder that died blocks the
	// others: whole milliseconds, from 10 ms to a year. Default 30 s.
	TTL time.Duration
	// NoRenewal leaves extending to the caller. By default a lock is renewed every third of its TTL
	// until it is released.
	NoRenewal bool
	// MaxHold ends a lock so long after it was acquired, however often it was extended: a holder that
	// hangs does not keep it for ever. Others get it when its last TTL has passed too. Zero means no such
	// limit.
	MaxHold time.Duration
	// Replicas is how many replicas must have an acquisition before it counts (WAIT). Zero asks none.
	Replicas int
	// ReplicaTimeout is how long to wait for them. Default 1 s.
	ReplicaTimeout time.Duration
	// Hooks hear what happens to locks.
	Hooks Hooks
}

// Hooks are optional funcs, called from any goroutine. They should return soon: a lock waits for them.
type Hooks struct {
	// Acquired is called with each lock taken, and how long it was waited for.
	Acquired func(name string, waited time.Duration)
	// Waiting is called when somebody else has the lock, before the wait for it.
	Waiting func(name string)
	// Renewed is called after each automatic renewal.
	Renewed func(name string)
	// Lost is called when a lock ends before it was released; cause is an [EndedError].
	Lost func(name string, cause error)
}

// Locker takes locks on one server or cluster. It is safe for concurrent use and holds no resources
// while nobody waits, but for a subscription that ends ten seconds after the last wait.
type Locker struct {
	client valkey.Client
	leases *lease.Server
	kind   kind
	keys   keySpace
	prefix string
	cfg    Config
	ttlMs  string
}

// New returns a Locker on client, which stays the caller's to close. The error names the field of
// cfg that is wrong.
func New(client valkey.Client, cfg Config) (*Locker, error) { return newLocker(client, mutex, cfg) }

func newLocker(client valkey.Client, k kind, cfg Config) (*Locker, error) {
	if client == nil {
		return nil, errors.New("lock: client is nil")
	}
	keys, err := newKeySpace(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("lock: %s.Prefix: %w", k.config, err)
	}
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.ReplicaTimeout == 0 {
		cfg.ReplicaTimeout = DefaultReplicaTimeout
	}
	switch {
	case checkConfigTTL(cfg.TTL) != nil:
		return nil, fmt.Errorf("lock: %s.TTL: %w", k.config, checkConfigTTL(cfg.TTL))
	case cfg.MaxHold < 0:
		return nil, fmt.Errorf("lock: %s.MaxHold is %v, less than zero", k.config, cfg.MaxHold)
	case cfg.Replicas < 0:
		return nil, fmt.Errorf("lock: %s.Replicas is %d, less than zero", k.config, cfg.Replicas)
	case cfg.ReplicaTimeout < time.Millisecond:
		return nil, fmt.Errorf("lock: %s.ReplicaTimeout is %v, less than 1ms", k.config, cfg.ReplicaTimeout)
	}
	return &Locker{client: client, leases: lease.On(client), kind: k, keys: keys, prefix: cmp.Or(cfg.Prefix, key.DefaultPrefix), cfg: cfg, ttlMs: milliseconds(cfg.TTL)}, nil
}

func checkTTL(ttl time.Duration) error {
	if ttl < lease.MinTTL || ttl > maxTTL || ttl%time.Millisecond != 0 {
		return fmt.Errorf("%v is not whole milliseconds, from one to a year", ttl)
	}
	return nil
}

// checkConfigTTL asks for more than checkTTL: of less than 3 ms, the allowance for drift leaves nothing.
func checkConfigTTL(ttl time.Duration) error {
	if ttl < minConfigTTL || checkTTL(ttl) != nil {
		return fmt.Errorf("%v is not whole milliseconds, from 10ms to a year", ttl)
	}
	return nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// TryAcquire takes the lock of name if nobody holds it and nobody waits for it; ok is false if
// somebody does. One round trip.
//
// A name is any string that is not empty; braces, spaces and control bytes in it are safe. If the
// server's answer does not arrive, the lock counts as not taken and is given back in the background; so
// it is if the answer comes when the lock has ended already: then the error is an [EndedError].
func (l *Locker) TryAcquire(ctx context.Context, name string) (lock *Lock, ok bool, err error) {
	a, err := l.attempt(name)
	if err != nil {
		return nil, false, err
	}
	lock, _, err = a.ask(ctx, noPlace, anywhere)
	if err != nil {
		a.abandon(ctx)
		return nil, false, fmt.Errorf("lock: acquire: %w", err)
	}
	return lock, lock != nil, nil
}

// errLate says that an acquisition was answered when what it had taken may have ended.
var errLate = &EndedError{Expired}

// Acquire waits until it holds the lock of name, or ctx ends; then the error wraps ctx.Err(). Who came
// first is served first. One round trip if the lock is free; else two and the wait, in which one a second
// keeps the place, and a third to claim what another process has released.
//
// The end of ctx is not the end of the lock: [Lock.Context] is for that.
func (l *Locker) Acquire(ctx context.Context, name string) (*Lock, error) {
	for begin := time.Now(); ; {
		a, err := l.attempt(name)
		if err != nil {
			return nil, err
		}
		a.begin = begin
		lock, _, err := a.insist(ctx, noPlace, anywhere)
		if err == nil && lock == nil {
			lock, err = a.wait(ctx)
		}
		if err == nil {
			return lock, nil
		}
		a.abandon(ctx)
		if !errors.Is(err, errLate) || ctx.Err() != nil {
			return nil, fmt.Errorf("lock: acquire: %w", err)
		}
	}
}

// Do acquires the lock of name, runs f, and releases the lock. The context of f ends with ctx, and when
// the lock is lost: then its cause is an [EndedError], which Do returns if f returned nil. f has to
// return when its context ends; nobody can stop it.
func (l *Locker) Do(ctx context.Context, name string, f func(context.Context) error) error {
	lock, err := l.Acquire(ctx, name)
	if err != nil {
		return err
	}
	defer lock.giveBack(ctx)
	err = lock.run(ctx, f)
	if cause := context.Cause(lock.Context()); err == nil && cause != nil {
		err = cause
	}
	return err
}

var errNoName = errors.New("lock: the name is empty")

// attempt is one call's way to a lock.
type attempt struct {
	lock  *Lock
	begin time.Time
}

func (l *Locker) attempt(name string) (*attempt, error) {
	if name == "" {
		return nil, errNoName
	}
	token := l.kind.mark + rand.Text()
	lock := &Lock{locker: l, name: name, token: token, keys: l.kind.keys(l.keys, name, token)}
	return &attempt{lock: lock, begin: time.Now()}, nil
}

// ask asks for the lock once; lock is nil if somebody has it, for so long unless it is renewed.
func (a *attempt) ask(ctx context.Context, keep, channel string) (lock *Lock, left time.Duration, err error) {
	l, sent := a.lock.locker, time.Now()
	args := append([]string{a.lock.token, l.ttlMs, keep, channel, claimMs}, l.kind.args...)
	reply, err := l.send(ctx, a.lock.keys, args)
	if err != nil {
		return nil, 0, err
	}
	if len(reply) != 2 {
		return nil, 0, fmt.Errorf("the server answered %d numbers, not 2", len(reply))
	}
	if reply[0] == 0 {
		return nil, time.Duration(reply[1]) * time.Millisecond, nil
	}
	lock, err = a.taken(ctx, uint64(reply[0]), sent)
	return lock, 0, err
}

// taken begins the lock that a call sent at sent has taken.
func (a *attempt) taken(ctx context.Context, fence uint64, sent time.Time) (*Lock, error) {
	cfg := a.lock.locker.cfg
	if time.Since(sent) >= cfg.TTL-lease.Drift(cfg.TTL) {
		return nil, errLate // somebody else may have it by now
	}
	a.lock.begin(ctx, fence, sent)
	if hook := cfg.Hooks.Acquired; hook != nil {
		hook(a.lock.name, time.Since(a.begin))
	}
	return a.lock, nil
}

// insist asks until the server has an answer: while a slot of a cluster moves to another node, it says
// that it ran nothing, and to try again.
func (a *attempt) insist(ctx context.Context, keep, channel string) (lock *Lock, left time.Duration, err error) {
	for {
		lock, left, err = a.ask(ctx, keep, channel)
		refused, ok := valkey.IsValkeyErr(err)
		if !ok || !strings.HasPrefix(refused.Error(), "TRYAGAIN") {
			return lock, left, err
		}
		if err := pause(ctx, moving); err != nil {
			return nil, 0, err
		}
	}
}

// pause waits for between half and one and a half of d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d/2 + mathrand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// abandon gives back what may have been taken, a place or the lock, although the caller has gone, and
// lets the server refuse what is still on its way. The server ends all three where this fails.
func (a *attempt) abandon(ctx context.Context) { a.lock.leaveLater(ctx, goneMs) }

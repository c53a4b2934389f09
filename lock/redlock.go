package lock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/valkey-io/valkey-go"
)

// DefaultRetry is that of [RedlockConfig].
const DefaultRetry = 50 * time.Millisecond

const (
	maxRetry       = time.Minute
	maxNodeTimeout = 50 * time.Millisecond
)

// RedlockConfig says how the locks of a [Redlock] are kept. The zero value is ready to use.
type RedlockConfig struct {
	// Prefix stands before every key; all who share a lock use the same one. Default "fr".
	Prefix string
	// TTL is how long a lock lasts if it is not renewed, from 10 ms to a year. Default 30 s.
	TTL time.Duration
	// NoRenewal leaves extending to the caller. By default a lock is renewed, on a quorum, every third
	// of its TTL until it is released.
	NoRenewal bool
	// MaxHold ends a lock so long after it was acquired, however often it was extended. Zero means no
	// such limit.
	MaxHold time.Duration
	// NodeTimeout is how long to wait for one server's answer, from a millisecond to less than the TTL.
	// Default a tenth of the TTL, at most 50 ms: far above a round trip, far below the TTL.
	NodeTimeout time.Duration
	// Retry is the mean pause of a waiting Acquire; drawn between half and one and a half of it, so
	// that callers who split the servers between them do not meet again. From 1 ms to a minute, default
	// 50 ms.
	Retry time.Duration
	// Hooks hear what happens to locks.
	Hooks Hooks
}

// Redlock takes locks on a majority of independent servers, so that one lock outlives the loss of any
// minority of them. It is safe for concurrent use and holds no resources while nobody waits.
//
// It costs N servers and N commands where a [Locker] needs one. It has no queue: who waits asks again
// after a pause, and who comes first is not served first. It has no fencing token: the servers share no
// counter, so what must never happen twice needs a [Locker] and [Lock.Fence].
//
// A server that restarts without a lock it had granted may grant it again: if the holder had a bare
// majority, two hold it then. Give the servers appendonly with appendfsync always, or start one
// that lost its data only after the longest TTL has passed. The same goes for an evicted key
// (use noeviction), and for a server whose clock jumps; a clock that runs up to 1% fast is allowed for.
type Redlock struct {
	servers []*lease.Server
	keys    keySpace
	cfg     RedlockConfig
	quorum  int
}

// NewRedlock returns a Redlock on independent servers, typically 3 or 5: no replicas of each other, not
// nodes of one cluster. Their number is odd, since one more than that would survive no more failures.
// All who share a lock name the same servers, in any order. The clients stay the caller's to close.
// The error names the field that is wrong.
func NewRedlock(clients []valkey.Client, cfg RedlockConfig) (*Redlock, error) {
	if err := checkClients(clients); err != nil {
		return nil, err
	}
	keys, err := newKeySpace(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("lock: RedlockConfig.Prefix: %w", errors.Unwrap(err))
	}
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.NodeTimeout == 0 {
		cfg.NodeTimeout = min(cfg.TTL/10, maxNodeTimeout)
	}
	if cfg.Retry == 0 {
		cfg.Retry = DefaultRetry
	}
	switch {
	case checkConfigTTL(cfg.TTL) != nil:
		return nil, fmt.Errorf("lock: RedlockConfig.TTL: %w", checkConfigTTL(cfg.TTL))
	case cfg.MaxHold < 0:
		return nil, fmt.Errorf("lock: RedlockConfig.MaxHold is %v, less than zero", cfg.MaxHold)
	case cfg.NodeTimeout < time.Millisecond || cfg.NodeTimeout >= cfg.TTL:
		return nil, fmt.Errorf("lock: RedlockConfig.NodeTimeout is %v, not from 1ms to less than the TTL", cfg.NodeTimeout)
	case cfg.Retry < time.Millisecond || cfg.Retry > maxRetry:
		return nil, fmt.Errorf("lock: RedlockConfig.Retry is %v, not from 1ms to %v", cfg.Retry, maxRetry)
	}
	servers := make([]*lease.Server, len(clients))
	for i, client := range clients {
		servers[i] = lease.On(client)
	}
	return &Redlock{
		servers: servers,
		keys:    keys, cfg: cfg, quorum: len(clients)/2 + 1,
	}, nil
}

func checkClients(clients []valkey.Client) error {
	if len(clients)%2 == 0 {
		return fmt.Errorf("lock: clients: %d of them, not an odd number", len(clients))
	}
	seen := map[valkey.Client]int{}
	for i, client := range clients {
		if client == nil {
			return fmt.Errorf("lock: clients[%d] is nil", i)
		}
		if !reflect.ValueOf(client).Comparable() {
			continue // a wrapper of the caller's
		}
		if j, twice := seen[client]; twice {
			return fmt.Errorf("lock: clients[%d] is clients[%d] again", i, j)
		}
		seen[client] = i
	}
	return nil
}

// TryAcquire takes the lock of name if a majority of the servers gives it; ok is false if somebody else
// has it, or a part of it. The error is that of the servers if a majority did not answer. It waits for
// no more servers than it needs, and for none longer than RedlockConfig.NodeTimeout. Without a
// majority everything is given back, in the background where a server does not answer.
func (r *Redlock) TryAcquire(ctx context.Context, name string) (lock *QuorumLock, ok bool, err error) {
	if name == "" {
		return nil, false, errNoName
	}
	begin := time.Now()
	lock, err = r.round(ctx, name)
	if err != nil {
		return nil, false, fmt.Errorf("lock: acquire: %w", err)
	}
	lock.acquired(begin)
	return lock, lock != nil, nil
}

// Acquire tries until it holds the lock of name, or ctx ends; then the error wraps ctx.Err(), and those
// of the servers if a majority did not answer. It tries on while servers are away: give it a context
// that ends. The end of ctx is not the end of the lock: [QuorumLock.Context] is for that.
func (r *Redlock) Acquire(ctx context.Context, name string) (*QuorumLock, error) {
	if name == "" {
		return nil, errNoName
	}
	begin := time.Now()
	var last error // of the servers
	for try := 0; ; try++ {
		lock, err := r.round(ctx, name)
		if lock != nil {
			lock.acquired(begin)
			return lock, nil
		}
		if ctx.Err() == nil {
			last = err
		}
		if hook := r.cfg.Hooks.Waiting; hook != nil && try == 0 && err == nil {
			hook(name)
		}
		pause := time.NewTimer(r.cfg.Retry/2 + rand.N(r.cfg.Retry))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			if last != nil {
				return nil, fmt.Errorf("lock: acquire: %w; %w", ctx.Err(), last)
			}
			return nil, fmt.Errorf("lock: acquire: %w", ctx.Err())
		}
	}
}

// Do acquires the lock of name, runs f, and releases the lock, as [Locker.Do] does.
func (r *Redlock) Do(ctx context.Context, name string, f func(context.Context) error) error {
	lock, err := r.Acquire(ctx, name)
	if err != nil {
		return err
	}
	defer lock.giveBack(ctx)
	err = runUnder(ctx, lock.Context(), f)
	if cause := context.Cause(lock.Context()); err == nil && cause != nil {
		err = cause
	}
	return err
}

// round asks every server once; lock is nil if somebody else has it. Each round has its own token: what
// an earlier one left behind, or gives back late, is not this one's.
func (r *Redlock) round(ctx context.Context, name string) (*QuorumLock, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	key, token := r.keys.key(tag(name), "red", name), lease.NewToken()
	l := &QuorumLock{redlock: r, name: name}
	for _, server := range r.servers {
		l.nodes = append(l.nodes, newNode(server.At(key, token)))
	}
	sent := time.Now()
	t := l.poll(ctx, r.cfg.NodeTimeout, func(ctx context.Context, n *node) error { return n.take(ctx, r.cfg.TTL) })
	late := time.Since(sent) >= r.cfg.TTL-lease.Drift(r.cfg.TTL)
	if t.agreed() && !late {
		l.begin(ctx, sent)
		return l, nil
	}
	// Whoever tries next should find the servers free, but nobody waits long for that.
	giving, cancel := context.WithTimeout(ctx, r.cfg.NodeTimeout)
	defer cancel()
	l.drop(giving)
	if t.ended != nil || t.unanswered() {
		return nil, t.err()
	}
	if t.agreed() {
		return nil, errors.New("the servers agreed too late: the lock had ended")
	}
	return nil, nil
}

// poll calls every server at once and counts until a quorum agrees or none can any more. The calls that
// are under way then go on by themselves, each until its timeout.
func (l *QuorumLock) poll(ctx context.Context, timeout time.Duration, call func(context.Context, *node) error) tally {
	votes := make(chan error, len(l.nodes))
	for _, n := range l.nodes {
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
			defer cancel()
			votes <- call(ctx, n)
		}()
	}
	t := tally{nodes: len(l.nodes), quorum: l.redlock.quorum}
	late := time.NewTimer(timeout + timeout/4) // a client that connects may return from it late
	defer late.Stop()
	for !t.decided() {
		select {
		case err := <-votes:
			t.add(err)
		case <-late.C:
			for !t.decided() {
				t.add(context.DeadlineExceeded)
			}
		case <-ctx.Done():
			t.ended = ctx.Err()
			return t
		}
	}
	return t
}

// tally counts what servers answered.
type tally struct {
	nodes, quorum    int
	yes, taken, gone int
	errs             []error
	ended            error // the caller's context did
}

func (t *tally) add(err error) {
	switch {
	case err == nil:
		t.yes++
	case errors.Is(err, lease.ErrTaken):
		t.taken++
	case errors.Is(err, lease.ErrGone):
		t.gone++
	default:
		t.errs = append(t.errs, err)
	}
}

func (t *tally) agreed() bool { return t.yes >= t.quorum }

// blocked tells whether so many servers keep a quorum from agreeing.
func (t *tally) blocked(servers int) bool { return servers > t.nodes-t.quorum }

func (t *tally) decided() bool { return t.agreed() || t.blocked(t.taken+t.gone+len(t.errs)) }

func (t *tally) unanswered() bool { return t.blocked(len(t.errs)) }

// err is nil if a quorum agreed, ErrTaken or ErrGone if a quorum never will, else what went wrong.
func (t *tally) err() error {
	switch {
	case t.agreed():
		return nil
	case t.blocked(t.taken + t.gone):
		if t.taken > 0 {
			return lease.ErrTaken
		}
		return lease.ErrGone
	case t.ended != nil:
		return t.ended
	}
	return fmt.Errorf("%d of %d servers agreed, %d are needed: %w", t.yes, t.nodes, t.quorum, errors.Join(t.errs...))
}

// node is one server's part in one lock.
type node struct {
	lease *lease.Lease
	// turn is full while a call is under way: calls to one server keep their order, so that none takes
	// or shortens what a later one has given back or extended.
	turn    chan struct{}
	last    int64 // the number of the last call; guarded by turn, as is refused
	refused bool  // the server said that it did not give the lease
}

// newNode returns a node whose turn is that of take.
func newNode(l *lease.Lease) *node {
	n := &node{lease: l, turn: make(chan struct{}, 1)}
	n.turn <- struct{}{}
	return n
}

var errOvertaken = errors.New("a later call was first")

func (n *node) take(ctx context.Context, ttl time.Duration) error {
	defer func() { <-n.turn }()
	ok, err := n.lease.Take(ctx, ttl)
	if err == nil && !ok {
		err = lease.ErrTaken
	}
	_, answered := valkey.IsValkeyErr(err)
	n.refused = answered || errors.Is(err, lease.ErrTaken)
	return err
}

func (n *node) extend(ctx context.Context, number int64, ttl time.Duration) error {
	select {
	case n.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-n.turn }()
	if number < n.last {
		return errOvertaken
	}
	n.last = number
	return n.lease.Extend(ctx, ttl)
}

func (n *node) drop(ctx context.Context) error {
	select {
	case n.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-n.turn }()
	n.last = math.MaxInt64
	if n.refused {
		return lease.ErrGone
	}
	ok, err := n.lease.Drop(ctx)
	if err == nil && !ok {
		err = lease.ErrGone
	}
	return err
}

// Package ratelimit decides whether a subject (a user, an address, an API key) may do one more thing.
//
// [New] makes a Limiter of a client and one or more limits; [Limiter.Allow] is what most callers want.
// However many limits there are, a decision is one round trip, all or nothing. The server's clock
// decides, and denied requests are not counted. Callers of one process that ask for the same subject at
// the same time share a round trip; each gets the answer that it would have got in its turn.
//
// docs/ratelimit.md says which algorithm is for what, and what happens in which failure.
//
// # Keys
//
//	key                                 type    value                               ends
//	fr:rate:NAME:SHAPE:{SUBJECT}        string  the state of the limits, see below  when all is available again
//	fr:rate:NAME:SHAPE:{SUBJECT}:held   zset    places of a Concurrency limit       with the last place
//
// SHAPE is how the limits count, not how much: a letter and a window for each ("w1m", "s1hqd"), of a bucket its rate
// and its burst too ("b10-1s-50"). A plan without a name has no NAME and no colon behind it.
package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/breaker"
	"github.com/flatrate/flatrate/internal/key"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

// DefaultTimeout is that of [Config.Timeout].
const DefaultTimeout = 40 * time.Millisecond

// Config is a plan: the limits that hold for each subject, and what happens when the server is away.
// Limits has no default.
type Config struct {
	// Prefix stands before every key; all who share limits use the same one. Default "fr".
	Prefix string
	// Name keeps apart plans that apply to the same subjects. By default it is empty, and not in the keys.
	Name string
	// Limits are the rules that a request has to pass, all of them: one to 16, at most one of them
	// Concurrency.
	Limits []Limit

	// Timeout is how long a decision may take before the server counts as away: 1 ms to 1 min. Default
	// 40 ms. It holds beside the deadline of the caller's context.
	Timeout time.Duration
	// Outage is what the limits do while the server is away. By default a call returns an error.
	Outage Outage
	// Processes is among how many processes the limits are divided while the server is away: needed, and
	// only used, with [OutageLocal].
	Processes int

	// Batch is how many units this process may take at once for a subject that is busy, and then hand
	// out by itself, with no round trip. At most Batch units of each process are used later than they were
	// counted, by BatchFor at most. Zero takes none in advance.
	Batch int64
	// BatchFor is how long such units are kept. Default 1 s.
	BatchFor time.Duration
	// RememberDenied is for how long at most a subject that was denied is denied by this process alone: until
	// the time that the server gave, but no longer than this. Refunds and resets of other processes are
	// seen only then. Zero asks the server each time.
	RememberDenied time.Duration

	// Hooks hear what happens in the background.
	Hooks Hooks
}

// Hooks are optional funcs, called from any goroutine. They should return soon.
type Hooks struct {
	// Down is called when the server counts as away, or answers with an error: after err, and until Up, decisions are
	// made without it.
	Down func(err error)
	// Up is called when it has answered again, or when nobody has asked for a minute; after an error that it has
	// answered with, when it has decided again.
	Up func()
}

// Limiter applies a Config to any number of subjects. It is safe for concurrent use. Its memory is
// bounded, and it needs no closing.
type Limiter struct {
	client valkey.Client
	keys   key.Space
	cfg    Config
	rules  []rule
	names  []string // of the rules
	places int      // which of them is Concurrency; -1 if none

	count    string         // how many rules, for the scripts
	fast     *script.Script // for a plan of one limit of some kinds, nil for others
	fastArgs []string

	cluster  atomic.Bool
	gathered gatherer
	breakers []breaker.Breaker
	outage   Outage   // of the plan
	closed   []string // the limits that deny in OutageClosed

	local   localShares
	denials denials
	batches batches
}

// Validate returns the error that [New] would, which names the field that is wrong.
func (c Config) Validate() error {
	_, _, err := c.compile()
	return err
}

// compile checks c and fills in its defaults.
func (c *Config) compile() ([]rule, key.Space, error) {
	rules, err := compileAll(c)
	if err != nil {
		return nil, key.Space{}, fmt.Errorf("ratelimit: %w", err)
	}
	keys, err := keySpace(c.Prefix, c.Name, shapes(c.Limits))
	return rules, keys, err
}

// New returns a Limiter on client, which stays the caller's to close. The error names the field of
// cfg that is wrong.
func New(client valkey.Client, cfg Config) (*Limiter, error) {
	if client == nil {
		return nil, errors.New("ratelimit: client is nil")
	}
	rules, keys, err := cfg.compile()
	if err != nil {
		return nil, err
	}
	l := &Limiter{client: client, keys: keys, cfg: cfg, rules: rules, places: -1, count: strconv.Itoa(len(rules))}
	for i, r := range rules {
		l.names = append(l.names, r.Name)
		if r.Algorithm == Concurrency {
			l.places = i
		}
	}
	if len(rules) == 1 {
		switch r := rules[0]; r.Algorithm {
		case FixedWindow:
			l.fast, l.fastArgs = window, r.args[1:3]
		case TokenBucket:
			l.fast, l.fastArgs = bucket, r.args[1:4]
		}
	}
	l.cluster.Store(isCluster(client))
	l.newBreakers()
	l.outage, l.closed = l.outageMode()
	l.local.begin(cfg.Processes, rules)
	l.denials.most = cfg.RememberDenied
	l.batches.begin(cfg.Batch, cfg.BatchFor, rules)
	return l, nil
}

// Limits returns the limits, with their defaults filled in.
func (l *Limiter) Limits() []Limit {
	limits := make([]Limit, len(l.rules))
	for i, r := range l.rules {
		limits[i] = r.Limit
	}
	return limits
}

// Allow asks for one unit. One round trip.
//
// A subject is any string; braces, spaces and control bytes in it are safe. An error says that the
// server could not be asked; with another [Outage] than the default there is a Result instead.
func (l *Limiter) Allow(ctx context.Context, subject string) (Result, error) {
	return l.AllowN(ctx, subject, 1)
}

// AllowN asks for n units, all or none. One round trip. n is from 1 to [MaxLimit]; above a limit or a
// burst it is denied for ever, and RetryAfter is [Never].
func (l *Limiter) AllowN(ctx context.Context, subject string, n int64) (Result, error) {
	if err := costError(n); err != nil {
		return Result{}, err
	}
	return l.ask(ctx, subject, n, 1)
}

// AllowAtMost asks for as many units as there are, up to n: Result.Granted says how many, and only those
// are charged. It is allowed if that is one or more. n is from 1 to [MaxLimit]. One round trip.
func (l *Limiter) AllowAtMost(ctx context.Context, subject string, n int64) (Result, error) {
	if err := costError(n); err != nil {
		return Result{}, err
	}
	return l.ask(ctx, subject, 1, n)
}

// Peek says what Allow would, and changes nothing. One round trip.
func (l *Limiter) Peek(ctx context.Context, subject string) (Result, error) {
	return l.ask(ctx, subject, 1, 0)
}

// Package ratelimit decides whether a subject (a user, an address, an API key) may do one more thing.
//
// [New] makes a Limiter of a client and a limit; [Limiter.Allow] is what most callers want. The
// window is fixed and aligned to the Unix epoch, so that a window of a minute begins with each
// minute: within a window a subject never gets more than the limit, across the border of two windows
// up to twice as much in a moment. The server's clock decides; denied requests are not counted.
//
// # Keys
//
//	key                     type    value       ends
//	fr:rate:NAME:{SUBJECT}  string  units used  with the window
package ratelimit

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/flatrate/flatrate/internal/key"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

// MaxLimit is the largest limit and the largest cost: what a script's numbers hold exactly.
const MaxLimit = 1 << 53

// MinWindow is the shortest window: the server counts in milliseconds.
const MinWindow = time.Millisecond

// Never is the [Result.RetryAfter] of a request whose cost is above the limit.
const Never = time.Duration(math.MaxInt64)

//go:embed window.lua
var windowLua string

var window = script.New(windowLua)

// Config is one limit. Limit and Window have no default.
type Config struct {
	// Prefix stands before every key; all who share a limit use the same one. Default "fr".
	Prefix string
	// Name keeps apart limits that apply to the same subjects. Default "default".
	Name string
	// Limit is how many units a subject has in a window, from 1 to [MaxLimit].
	Limit int64
	// Window is the window's length: whole milliseconds, at least one.
	Window time.Duration
}

// Limiter applies one limit to any number of subjects. It is safe for concurrent use and holds no
// resources.
type Limiter struct {
	client        valkey.Client
	keys          key.Space
	limit         int64
	limitArg, wms string
}

// Result is a decision. A denial is a result, not an error.
type Result struct {
	// Allowed says whether the request may go on. It is false in the Result beside an error.
	Allowed bool
	// Limit is Config.Limit, and Remaining what is left of it in this window.
	Limit, Remaining int64
	// RetryAfter is zero if allowed; else how long until a new window admits the request, and
	// [Never] if none will.
	RetryAfter time.Duration
	// ResetAfter is how long until the window ends, and Reset when that is by the server's clock.
	ResetAfter time.Duration
	Reset      time.Time
}

// New returns a Limiter on client, which stays the caller's to close. The error names the field of
// cfg that is wrong.
func New(client valkey.Client, cfg Config) (*Limiter, error) {
	if client == nil {
		return nil, errors.New("ratelimit: client is nil")
	}
	keys, err := keySpace(cfg.Prefix, cfg.Name)
	if err != nil {
		return nil, err
	}
	if cfg.Limit < 1 || cfg.Limit > MaxLimit {
		return nil, fmt.Errorf("ratelimit: Config.Limit is %d, not from 1 to %d", cfg.Limit, int64(MaxLimit))
	}
	if cfg.Window < MinWindow || cfg.Window%time.Millisecond != 0 {
		return nil, fmt.Errorf("ratelimit: Config.Window is %v, not a whole number of milliseconds above zero", cfg.Window)
	}
	return &Limiter{
		client:   client,
		keys:     keys,
		limit:    cfg.Limit,
		limitArg: strconv.FormatInt(cfg.Limit, 10),
		wms:      strconv.FormatInt(cfg.Window.Milliseconds(), 10),
	}, nil
}

// Allow asks for one unit. One round trip.
//
// A subject is any string; braces, spaces and control bytes in it are safe. An error says that the
// server could not be asked: whether the request goes on then is the caller's choice.
func (l *Limiter) Allow(ctx context.Context, subject string) (Result, error) {
	return l.AllowN(ctx, subject, 1)
}

// AllowN asks for n units, all or none. One round trip. n is from 1 to [MaxLimit]; above the limit it
// is denied for ever.
func (l *Limiter) AllowN(ctx context.Context, subject string, n int64) (Result, error) {
	if n < 1 || n > MaxLimit {
		return Result{}, fmt.Errorf("ratelimit: a cost of %d, not from 1 to %d", n, int64(MaxLimit))
	}
	keys := []string{l.keys.Key(subject)}
	reply, err := window.Exec(ctx, l.client, keys, l.limitArg, l.wms, strconv.FormatInt(n, 10)).AsIntSlice()
	if err != nil {
		return Result{}, fmt.Errorf("ratelimit: %w", err)
	}
	if len(reply) != 4 {
		return Result{}, fmt.Errorf("ratelimit: the server answered %d numbers, not 4", len(reply))
	}
	allowed, used, ends, now := reply[0] == 1, reply[1], reply[2], reply[3]
	r := Result{
		Allowed:    allowed,
		Limit:      l.limit,
		Remaining:  max(0, l.limit-used),
		ResetAfter: time.Duration(ends-now) * time.Millisecond,
		Reset:      time.UnixMilli(ends),
	}
	if !allowed {
		r.RetryAfter = r.ResetAfter
		if n > l.limit {
			r.RetryAfter = Never
		}
	}
	return r, nil
}

// Package lease keeps a key that has one owner and a time to live: what locks, and later cache fills,
// sweepers and schedulers, stand on.
//
// The server's clock ends a lease; the client sends durations only. Each call is one round trip.
package lease

import (
	"context"
	"crypto/rand"
	_ "embed"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

// MinTTL is the shortest time to live: the server counts in milliseconds.
const MinTTL = time.Millisecond

//go:embed extend.lua
var extendLua string

//go:embed drop.lua
var dropLua string

var (
	extend = script.New(extendLua)
	drop   = script.New(dropLua)
)

// Server is where leases are. It remembers which commands the server lacks: SET with IFEQ is of Valkey
// 8.1, DELIFEQ of 9.0; where they are not, scripts do the same. It is safe for concurrent use.
type Server struct {
	client         valkey.Client
	noIfEq, noDrop atomic.Bool
}

// On returns the Server that client talks to, for as long as the client is used.
func On(client valkey.Client) *Server { return &Server{client: client} }

// Lease is a key that has, or may get, one owner. It is safe for concurrent use.
type Lease struct {
	server     *Server
	key, token string
}

// NewToken returns an owner's token that nobody else has.
func NewToken() string { return rand.Text() }

// At returns the lease of key for the owner with a token; nothing is sent.
func (s *Server) At(key, token string) *Lease { return &Lease{s, key, token} }

// Take takes the lease of key for ttl, at least [MinTTL] and cut to whole milliseconds; ok is false
// if another owner has it. If the answer is lost, so that it may have been taken for nobody, Take
// tries to drop it in the background: at worst it lasts until ttl has passed.
func (s *Server) Take(ctx context.Context, key string, ttl time.Duration) (l *Lease, ok bool, err error) {
	mine := s.At(key, NewToken())
	if ok, err = mine.Take(ctx, ttl); ok {
		return mine, true, nil
	}
	if _, answered := valkey.IsValkeyErr(err); err != nil && !answered {
		GiveBack(ctx, func(ctx context.Context) bool {
			dropped, _ := mine.Drop(ctx)
			return dropped // what was not there may still be on its way
		})
	}
	return nil, false, err
}

// Take takes the lease for ttl; ok is false if it has an owner. If the answer is lost, it is the
// caller's to drop.
func (l *Lease) Take(ctx context.Context, ttl time.Duration) (ok bool, err error) {
	c := l.server.client
	err = c.Do(ctx, c.B().Set().Key(l.key).Value(l.token).Nx().Px(ttl).Build()).Error()
	if valkey.IsValkeyNil(err) {
		return false, nil
	}
	return err == nil, err
}

// Extend gives the lease a new time to live from now on; the error is [ErrTaken] or [ErrGone] if it is
// no longer this owner's. A lease that is gone is never made again.
func (l *Lease) Extend(ctx context.Context, ttl time.Duration) error {
	ms := strconv.FormatInt(ttl.Milliseconds(), 10)
	if !l.server.noIfEq.Load() {
		c := l.server.client
		err := c.Do(ctx, c.B().Arbitrary("SET").Keys(l.key).Args(l.token, "IFEQ", l.token, "PX", ms).Build()).Error()
		if err == nil {
			return nil
		}
		refused, answered := valkey.IsValkeyErr(err)
		if !answered && !valkey.IsValkeyNil(err) {
			return err
		}
		if answered && lacks(refused) {
			l.server.noIfEq.Store(true)
		}
		// Nil says that it is not ours, and the script whose. It also extends where memory is full.
	}
	switch n, err := extend.Exec(ctx, l.server.client, []string{l.key}, l.token, ms).AsInt64(); {
	case err != nil:
		return err
	case n == 0:
		return ErrTaken
	case n < 0:
		return ErrGone
	}
	return nil
}

// ExtendAll gives leases a new time to live from now on, in one round trip to each node. Those that are no
// longer their owner's stay as they are.
func (s *Server) ExtendAll(ctx context.Context, leases []*Lease, ttl time.Duration) {
	ms := strconv.FormatInt(ttl.Milliseconds(), 10)
	calls := make([]script.Call, len(leases))
	for i, l := range leases {
		calls[i] = script.Call{Script: extend, Keys: []string{l.key}, Args: []string{l.token, ms}}
	}
	script.Multi(ctx, s.client, calls...)
}

// Drop gives the lease back; ok is false if it was no longer this owner's. It harms no other owner.
func (l *Lease) Drop(ctx context.Context) (ok bool, err error) {
	if !l.server.noDrop.Load() {
		c := l.server.client
		ok, err = c.Do(ctx, c.B().Arbitrary("DELIFEQ").Keys(l.key).Args(l.token).Build()).AsBool()
		refused, answered := valkey.IsValkeyErr(err)
		if err == nil || !answered {
			return ok, err
		}
		if lacks(refused) {
			l.server.noDrop.Store(true)
		}
	}
	return drop.Exec(ctx, l.server.client, []string{l.key}, l.token).AsBool()
}

// lacks tells a server that does not know a command or its option from one that refuses the call.
func lacks(err *valkey.ValkeyError) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "syntax error") || strings.Contains(text, "unknown command")
}

// Token is the owner's.
func (l *Lease) Token() string { return l.token }

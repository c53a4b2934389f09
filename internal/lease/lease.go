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

// Lease is a key that has, or may get, one owner. It is safe for concurrent use.
type Lease struct {
	client     valkey.Client
	key, token string
	whole      bool
}

// NewToken returns an owner's token that nobody else has.
func NewToken() string { return rand.Text() }

// At returns the lease of key for the owner with a token, for the same one on several servers; nothing
// is sent. It sends its scripts whole: where loading one waits for a server that hangs, the calls to
// the others would wait with it.
func At(client valkey.Client, key, token string) *Lease {
	return &Lease{client: client, key: key, token: token, whole: true}
}

// Take takes the lease of key for ttl, at least [MinTTL] and cut to whole milliseconds; ok is false
// if another owner has it. If the answer is lost, so that it may have been taken for nobody, Take
// tries to drop it in the background: at worst it lasts until ttl has passed.
func Take(ctx context.Context, client valkey.Client, key string, ttl time.Duration) (l *Lease, ok bool, err error) {
	l = &Lease{client: client, key: key, token: NewToken()}
	if ok, err = l.Take(ctx, ttl); ok {
		return l, true, nil
	}
	if err != nil && !answered(err) {
		GiveBack(ctx, func(ctx context.Context) bool {
			dropped, _ := l.Drop(ctx)
			return dropped // what was not there may still be on its way
		})
	}
	return nil, false, err
}

// Take takes the lease for ttl; ok is false if it has an owner. If the answer is lost, it is the
// caller's to drop.
func (l *Lease) Take(ctx context.Context, ttl time.Duration) (ok bool, err error) {
	err = l.client.Do(ctx, l.client.B().Set().Key(l.key).Value(l.token).Nx().Px(ttl).Build()).Error()
	if valkey.IsValkeyNil(err) {
		return false, nil
	}
	return err == nil, err
}

// Extend gives the lease a new time to live from now on; the error is [ErrTaken] or [ErrGone] if it is
// no longer this owner's.
func (l *Lease) Extend(ctx context.Context, ttl time.Duration) error {
	switch n, err := l.run(ctx, extend, strconv.FormatInt(ttl.Milliseconds(), 10)).AsInt64(); {
	case err != nil:
		return err
	case n == 0:
		return ErrTaken
	case n < 0:
		return ErrGone
	}
	return nil
}

// Drop gives the lease back; ok is false if it was no longer this owner's. It harms no other owner.
func (l *Lease) Drop(ctx context.Context) (ok bool, err error) {
	return l.run(ctx, drop).AsBool()
}

func (l *Lease) run(ctx context.Context, s *script.Script, args ...string) valkey.ValkeyResult {
	args = append([]string{l.token}, args...)
	if l.whole {
		return s.Eval(ctx, l.client, []string{l.key}, args...)
	}
	return s.Exec(ctx, l.client, []string{l.key}, args...)
}

// answered tells an error that the server sent from a lost answer.
func answered(err error) bool {
	_, ok := valkey.IsValkeyErr(err)
	return ok
}

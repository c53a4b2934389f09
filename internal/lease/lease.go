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

// cleanUp bounds the attempt to drop a lease of which nobody knows whether it was taken.
const cleanUp = time.Second

//go:embed extend.lua
var extendLua string

//go:embed drop.lua
var dropLua string

var (
	extend = script.New(extendLua)
	drop   = script.New(dropLua)
)

// Lease is a key that this process took. It is safe for concurrent use.
type Lease struct {
	client     valkey.Client
	key, token string
}

// Take takes the lease of key for ttl, at least [MinTTL] and cut to whole milliseconds; ok is false
// if another owner has it. If the answer is lost, so that it may have been taken for nobody, Take
// drops it in the background: at worst it lasts until ttl has passed.
func Take(ctx context.Context, client valkey.Client, key string, ttl time.Duration) (l *Lease, ok bool, err error) {
	l = &Lease{client: client, key: key, token: rand.Text()}
	set := client.B().Set().Key(key).Value(l.token).Nx().Px(ttl).Build()
	switch err := client.Do(ctx, set).Error(); {
	case err == nil:
		return l, true, nil
	case valkey.IsValkeyNil(err):
		return nil, false, nil
	default:
		if _, answered := valkey.IsValkeyErr(err); !answered {
			go l.abandon(context.WithoutCancel(ctx))
		}
		return nil, false, err
	}
}

// Extend gives the lease a new time to live from now on; ok is false if it is no longer this owner's.
func (l *Lease) Extend(ctx context.Context, ttl time.Duration) (ok bool, err error) {
	ms := strconv.FormatInt(ttl.Milliseconds(), 10)
	return extend.Exec(ctx, l.client, []string{l.key}, l.token, ms).AsBool()
}

// Drop gives the lease back; ok is false if it was no longer this owner's. It harms no other owner.
func (l *Lease) Drop(ctx context.Context) (ok bool, err error) {
	return drop.Exec(ctx, l.client, []string{l.key}, l.token).AsBool()
}

func (l *Lease) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cleanUp)
	defer cancel()
	_, _ = l.Drop(ctx) // the time to live ends it where this fails
}

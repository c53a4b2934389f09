package cache

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/script"
)

//go:embed begin.lua
var beginLua string

//go:embed renew.lua
var renewLua string

//go:embed commit.lua
var commitLua string

var (
	beginScript  = script.New(beginLua)
	renewScript  = script.New(renewLua)
	commitScript = script.New(commitLua)
)

// ErrUnfenced is returned, wrapped, by [Cache.Write] if the value was stored, but the cache could be told neither
// before nor after: others may get the old entry until its TTL ends. Removing it is tried again in the background.
var ErrUnfenced = errors.New("cache: stored, but the cache could not be told")

// writerMark begins what lies in the place of a token while somebody writes.
const writerMark = "w"

// Write stores a value in the origin, with store, and then in the cache. Before that it removes the old entry and
// keeps others from loading until store has returned, so that nobody gets the old value afterwards, nor a
// value between two writes. Two round trips (three with tags) and store.
//
//   - store returns an error, or panics: the entry is removed, since nobody knows what the origin has now, and
//     the error is returned as it is, or as a [PanicError].
//   - two write at once: both are stored in the origin, in whatever order; neither in the cache. Nobody loads
//     before both have ended, or their leases have.
//   - the server is away before store: store is called all the same. If it is back afterwards, the entry is
//     removed; if not, the error is [ErrUnfenced].
//   - the server is away after store, or this process dies: the old entry is gone, and others load again
//     after Config.Lease.
func (c *Cache[V]) Write(ctx context.Context, key string, value V, store func(context.Context, V) error) error {
	if store == nil {
		return errors.New("cache: store is nil")
	}
	token := rand.Text()
	gens, alone, sent, beginErr := c.begin(ctx, key, token)
	var keeper *lease.Keeper
	if beginErr == nil {
		keeper = lease.Keep(ctx, lease.Keeping{TTL: c.cfg.Lease, Sent: sent, Renew: true, Extend: func(ctx context.Context, ttl time.Duration) error {
			return c.renew(ctx, key, token, ttl)
		}})
		defer keeper.End(lease.ErrReleased)
	}
	defer c.localDrop(key)
	storeErr := runStore(ctx, value, store)
	ctx = context.WithoutCancel(ctx) // it may have been stored: the cache has to know
	text := storeNo
	if storeErr == nil && beginErr == nil && alone {
		var err error
		if text, err = c.encode(value, entry{kept: c.cfg.kept(), gens: gens}); err != nil {
			c.cfg.Hooks.Error("set", fmt.Errorf("cache: write: %w", err))
		}
	}
	life := milliseconds(c.cfg.life() + c.cfg.kept())
	stored, err := c.exec(ctx, commitScript, c.keys.of(key), token, text, life).AsBool()
	switch {
	case err != nil:
		c.cfg.Hooks.Error("set", fmt.Errorf("cache: write: %w", err))
		if err = c.Delete(ctx, key); err == nil { // as where memory is full
			break
		}
		c.forget(ctx, key)
		// A token that was there all the time has kept everybody from loading the old value.
		if storeErr == nil && (keeper == nil || keeper.Context().Err() != nil) {
			return fmt.Errorf("%w: %w", ErrUnfenced, err)
		}
	case text != storeNo && !stored:
		c.cfg.Hooks.Refused(key)
	}
	return storeErr
}

// begin removes the entry and the token of whoever loads it, so that nobody stores what is older than the
// write. Alone is false if somebody else writes too.
func (c *Cache[V]) begin(ctx context.Context, key, token string) (gens []string, alone bool, sent time.Time, err error) {
	if gens, err = c.readTags(ctx, key); err == nil {
		sent = time.Now()
		alone, err = c.exec(ctx, beginScript, c.keys.of(key)[:2], token, milliseconds(c.cfg.Lease)).AsBool()
		c.localDrop(key)
	}
	if err != nil {
		err = fmt.Errorf("cache: write: %w", err)
		c.cfg.Hooks.Error("set", err)
	}
	return gens, alone, sent, err
}

// renew extends the token of a writer, beside those of others.
func (c *Cache[V]) renew(ctx context.Context, key, token string, ttl time.Duration) error {
	there, err := c.exec(ctx, renewScript, []string{c.keys.fills.Key(key)}, token, milliseconds(ttl)).AsBool()
	if err == nil && !there {
		return lease.ErrGone
	}
	return err
}

// forget removes an entry in the background.
func (c *Cache[V]) forget(ctx context.Context, key string) {
	lease.GiveBack(ctx, func(ctx context.Context) bool {
		del := c.client.B().Del().Key(c.keys.entries.Key(key), c.keys.fills.Key(key)).Build()
		return c.client.Do(ctx, del).Error() == nil
	})
}

func runStore[V any](ctx context.Context, value V, store func(context.Context, V) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{p, debug.Stack()}
		}
	}()
	return store(ctx, value)
}

package cache

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

//go:embed take.lua
var takeLua string

//go:embed fill.lua
var fillLua string

//go:embed tag.lua
var tagLua string

var (
	takeScript = script.New(takeLua)
	fillScript = script.New(fillLua)
	tagScript  = script.New(tagLua)
)

const (
	always  = 1<<53 - 1 // take the lease whatever lies there
	cooling = "-"       // the token of nobody, after a load that failed
	storeNo = ""
)

// ask is the answer to one who wants to fill an entry.
type ask[V any] struct {
	sight[V]
	taken bool
	owner string        // the token that fills it
	ends  time.Duration // of the owner's lease, unless it is renewed
	gens  []string      // of the tags, read before anything is loaded
}

// take asks for the lease of a key, whose entry is to be filled if it lives for at most least ms.
// Everything that a value depends on is read here, before it is loaded. One round trip.
func (c *Cache[V]) take(ctx context.Context, key, token string, least int64, waker string) (ask[V], error) {
	tags, err := c.tagsOf(key)
	if err != nil {
		return ask[V]{}, err
	}
	calls := append([]script.Call{c.takeCall(key, token, least, waker)}, c.tagCalls(tags)...)
	sent := time.Now()
	replies := c.execs(ctx, calls)
	gens, err := tagGens(replies[1:])
	if err != nil {
		return ask[V]{}, err
	}
	return c.taken(replies[0], tags, gens, sent)
}

func (c *Cache[V]) takeCall(key, token string, least int64, waker string) script.Call {
	return script.Call{Script: takeScript, Keys: c.keys.of(key), Args: []string{
		token, milliseconds(c.cfg.Lease), strconv.FormatInt(least, 10), waker,
	}}
}

// tagCalls read the generations of tags, and make those that are not there. They last for longer than any
// entry that names them.
func (c *Cache[V]) tagCalls(tags []string) []script.Call {
	calls := make([]script.Call, len(tags))
	lasts := milliseconds(c.cfg.TTL + c.cfg.kept() + c.cfg.LoadTimeout + time.Minute)
	for i, tag := range tags {
		calls[i] = script.Call{Script: tagScript, Keys: []string{c.keys.tags.Key(tag)}, Args: []string{rand.Text()[:genLen], lasts}}
	}
	return calls
}

func tagGens(replies []valkey.ValkeyResult) ([]string, error) {
	gens := make([]string, len(replies))
	for i, reply := range replies {
		gen, err := reply.ToString()
		if err == nil && len(gen) != genLen {
			err = errors.New("something else lies where the generation of a tag should be")
		}
		if err != nil {
			return nil, fmt.Errorf("cache: tags: %w", err)
		}
		gens[i] = gen
	}
	return gens, nil
}

// taken reads the reply of take.lua.
func (c *Cache[V]) taken(reply valkey.ValkeyResult, tags, gens []string, sent time.Time) (ask[V], error) {
	parts, err := reply.ToArray()
	if err == nil && len(parts) != 5 {
		err = fmt.Errorf("the server answered %d parts, not 5", len(parts))
	}
	if err != nil {
		return ask[V]{}, fmt.Errorf("cache: take: %w", err)
	}
	got, gotErr := parts[0].AsInt64()
	left, leftErr := parts[2].AsInt64()
	owner, ownerErr := parts[3].ToString()
	ends, endsErr := parts[4].AsInt64()
	if err := errors.Join(gotErr, leftErr, ownerErr, endsErr); err != nil {
		return ask[V]{}, fmt.Errorf("cache: take: %w", err)
	}
	b, err := parts[1].AsBytes()
	return ask[V]{
		sight: c.judge(b, left, tags, gens, sent, err),
		taken: got == 1, owner: owner, ends: time.Duration(ends) * time.Millisecond, gens: gens,
	}, nil
}

// fill stores an entry, if the token of who loaded it is still there, gives the lease back and wakes those
// who wait. Stored is false if an invalidation has destroyed the token. One round trip.
func (c *Cache[V]) fill(ctx context.Context, key, token, text string, life, cool time.Duration) (stored bool, err error) {
	call := c.fillCall(key, token, text, life, cool)
	stored, err = c.exec(ctx, call.Script, call.Keys, call.Args...).AsBool()
	if err != nil {
		c.giveBack(ctx, key, token, false)
	}
	return stored, err
}

func (c *Cache[V]) fillCall(key, token, text string, life, cool time.Duration) script.Call {
	return script.Call{Script: fillScript, Keys: c.keys.of(key), Args: []string{
		token, text, milliseconds(life), milliseconds(cool),
	}}
}

// giveBack drops, in the background, a lease that may have been taken or kept; pending says that the call which
// takes it may still be on its way.
func (c *Cache[V]) giveBack(ctx context.Context, key, token string, pending bool) {
	held := c.leases.At(c.keys.fills.Key(key), token)
	lease.GiveBack(ctx, func(ctx context.Context) bool {
		dropped, err := held.Drop(ctx)
		return err == nil && (dropped || !pending)
	})
}

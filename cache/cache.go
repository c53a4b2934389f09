// Package cache keeps values that are dear to load in the server for a while: typed cache-aside, one load
// for all who miss, and no value stored that is older than an invalidation.
//
// [New] makes a Cache for the caller's own type; [Cache.Get] is what most callers want, and
// [Cache.Delete] what follows a change of the origin. A cache that can't be reached costs speed, not
// answers: Get then loads.
//
// A V of []byte or string is stored as it is, any other as JSON, unless Config.Codec says otherwise.
// Values may be shared between callers: don't change them.
//
// # Keys
//
//	key                        type    value                                                    ends
//	fr:cache:NAME:{KEY}        string  the entry: a header, and the value's bytes               after the TTL, less jitter, and the time it is kept stale
//	fr:cache:fill:NAME:{KEY}   string  the token of who loads it, or those of who write it;     after the lease, 3 s, unless it is renewed
//	                                   - after a load that failed
//	fr:cache:wait:NAME:{KEY}   set     the channel that wakes, a space, who waits               3 s after the last one asked
//	fr:cache:tag:NAME:{TAG}    string  the tag's generation, 16 characters                      a minute or more after the entries that name it
//	fr:cache:late:NAME:{NAME}  zset    token of a load beside another -> until when (Unix ms)   with the last of them
package cache

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/flatrate/flatrate/internal/track"
	"github.com/valkey-io/valkey-go"
)

//go:embed set.lua
var setLua string

var setScript = script.New(setLua)

// Cache keeps values of type V. It is safe for concurrent use.
type Cache[V any] struct {
	link
	leases    *lease.Server
	keys      keySpace
	cfg       Config
	wantsTTL  bool // GET does not say enough
	unmarshal func([]byte) (V, error)
	alone     chan struct{} // loads while the server is away

	local    *local[V] // nil if there is none
	tracker  *track.Tracker
	polls    atomic.Bool // the server tells nothing
	auditing atomic.Bool
	closed   atomic.Bool

	waitedFor atomic.Int32 // how many flights are not in the background
	mu        sync.Mutex
	flights   map[string]*flight[V]
	refreshes int
}

// New returns a Cache on client, which stays the caller's to close. The error names the field of cfg
// that is wrong.
func New[V any](client valkey.Client, cfg Config) (*Cache[V], error) {
	if client == nil {
		return nil, errors.New("cache: client is nil")
	}
	keys, err := newKeySpace(cfg.Prefix, cfg.Name)
	if err != nil {
		return nil, err
	}
	cfg.setDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Cache[V]{
		link: link{client: client}, leases: lease.On(client), keys: keys, cfg: cfg,
		wantsTTL:  cfg.kept() > 0 || cfg.Early > 0 || cfg.Local.Entries > 0,
		unmarshal: unmarshaler[V](cfg.Codec),
		alone:     make(chan struct{}, cfg.Loads),
		flights:   map[string]*flight[V]{},
	}
	c.watch()
	if cfg.Local.Entries > 0 {
		if c.local, err = newLocal[V](cfg.Local); err != nil {
			return nil, err
		}
		c.listenToChanges()
	}
	return c, nil
}

// Close ends the local tier and what keeps it coherent; without one there is nothing to close. The Cache can still
// be used, without its local tier.
func (c *Cache[V]) Close() {
	if c.local == nil || !c.closed.CompareAndSwap(false, true) {
		return
	}
	c.tracker.Close()
	c.local.stop()
}

// Get returns the entry of key, or loads and stores it. One round trip for a hit; three, and the load, for a
// miss. The error is load's own, as it is.
//
// All who miss a key at the same time, in all processes, wait for one load. It runs in a goroutine of its own,
// with the values of the context of a caller, but not with its end: load's context ends after
// Config.LoadTimeout. Whoever called has an answer or, when ctx ends, its error. No caller gets what was loaded
// before an invalidation that had ended when it called.
//
// If the server can't be asked, or holds what is no V, the value is loaded all the same: Hooks.Error
// hears of it. Looking up takes [MaxWait] at most, and at most half of the time that ctx leaves.
//
// A key is any string; braces, spaces and control bytes in it are safe.
func (c *Cache[V]) Get(ctx context.Context, key string, load func(context.Context) (V, error)) (V, error) {
	var zero V
	if load == nil {
		return zero, errors.New("cache: load is nil")
	}
	if h := c.localHit(key); h != nil {
		c.cfg.Hooks.Hit(key, Local)
		if c.cfg.Audit > 0 && h.err == nil {
			c.audit(ctx, key, load, h.value)
		}
		return h.value, h.err
	}
	return c.get(ctx, key, time.Time{}, load)
}

// get is Get without the local tier. Who arrived at a time gets nothing that is older; zero is now.
func (c *Cache[V]) get(ctx context.Context, key string, arrived time.Time, load func(context.Context) (V, error)) (value V, err error) {
	for {
		// Who comes while others of this process wait for the key need not ask the server too.
		f := c.join(key)
		if f != nil {
			if arrived.IsZero() {
				c.cfg.Hooks.Miss(key)
				arrived = time.Now()
			}
			if err := c.await(ctx, f); err != nil {
				return value, err
			}
			if f.answers(arrived) {
				return c.land(key, f, arrived, true)
			}
		}
		before := c.localMark(key)
		seen := c.look(ctx, key)
		if seen.why != nil {
			c.cfg.Hooks.Error("get", seen.why)
		}
		if seen.state == unanswered {
			if h := c.localAny(key); h != nil {
				c.cfg.Hooks.Hit(key, Local)
				return h.value, h.err
			}
		}
		switch {
		case seen.state >= stale:
			c.localPut(before, &seen)
			if seen.state == stale || c.isEarly(&seen) {
				was := seen // so that hits leave no garbage
				c.refresh(ctx, key, load, &was)
			}
			if c.cfg.Audit > 0 && seen.err == nil {
				c.audit(ctx, key, load, seen.value)
			}
			c.hit(key, &seen)
			return seen.value, seen.err
		case arrived.IsZero():
			c.cfg.Hooks.Miss(key)
			arrived = time.Now()
		}
		if err := ctx.Err(); err != nil {
			return value, err
		}
		was := seen
		f, joined, err := c.fly(ctx, key, load, &was)
		if err != nil {
			return value, err
		}
		if f.answers(arrived) {
			return c.land(key, f, arrived, joined)
		}
	}
}

// land gives the outcome of a flight to one who waited for it.
func (c *Cache[V]) land(key string, f *flight[V], arrived time.Time, joined bool) (V, error) {
	if joined || f.waited {
		c.cfg.Hooks.Waited(key, time.Since(arrived))
	}
	if f.stale {
		c.cfg.Hooks.Stale(key, f.past)
	}
	return f.value, f.err
}

func (c *Cache[V]) hit(key string, s *sight[V]) {
	c.cfg.Hooks.Hit(key, Server)
	if s.state == stale {
		c.cfg.Hooks.Stale(key, s.past)
	}
}

// isEarly says whether to load an entry anew before its TTL ends: XFetch (Vattani, Chierichetti and
// Lowenstein, VLDB 2015).
func (c *Cache[V]) isEarly(s *sight[V]) bool {
	if c.cfg.Early == 0 || s.err != nil {
		return false
	}
	// Random is in [0, 1), and ln needs (0, 1].
	return -c.cfg.Early*float64(s.took)*math.Log(1-c.cfg.Random()) >= float64(-s.past)
}

// Peek returns the entry of key and loads nothing; ok is false if there is none that could be served, or it is
// remembered that there is no value. One round trip, which ends with ctx, or after [MaxWait].
func (c *Cache[V]) Peek(ctx context.Context, key string) (value V, ok bool, err error) {
	if h := c.localHit(key); h != nil {
		c.cfg.Hooks.Hit(key, Local)
		return h.value, h.err == nil, nil
	}
	before := c.localMark(key)
	seen := c.look(ctx, key)
	if seen.why != nil {
		return value, false, seen.why
	}
	c.localPut(before, &seen)
	if seen.state < stale || seen.err != nil {
		c.cfg.Hooks.Miss(key)
		return value, false, nil
	}
	c.hit(key, &seen)
	return seen.value, true, nil
}

// Set stores an entry, whatever others are loading: what they load is not stored after it. It is for values
// that did not come from the origin; after a change of the origin use [Cache.Delete] or [Cache.Write]. One
// round trip, two with tags; it ends with ctx, or after [MaxWait].
func (c *Cache[V]) Set(ctx context.Context, key string, value V) error {
	gens, err := c.readTags(ctx, key)
	if err != nil {
		return err
	}
	text, err := c.encode(value, entry{kept: c.cfg.kept(), gens: gens})
	if err != nil {
		return fmt.Errorf("cache: set: %w", err)
	}
	life := milliseconds(c.cfg.life() + c.cfg.kept())
	defer c.localDrop(key)
	if err := c.exec(ctx, setScript, c.keys.of(key), text, life).Error(); err != nil {
		return fmt.Errorf("cache: set: %w", err)
	}
	return nil
}

// readTags returns the generations of a key's tags, and makes those that are missing.
func (c *Cache[V]) readTags(ctx context.Context, key string) ([]string, error) {
	tags, err := c.tagsOf(key)
	if err != nil || len(tags) == 0 {
		return nil, err
	}
	return tagGens(c.execs(ctx, c.tagCalls(tags)))
}

// Delete removes entries: once it has returned nil, nobody gets what was loaded before, and nothing that was
// loaded before is stored. Removing one that isn't there is no error. One round trip to each node that has
// a key. It ends with ctx, or after [MaxWait] if ctx has no deadline.
func (c *Cache[V]) Delete(ctx context.Context, keys ...string) error {
	names, dels := make([]string, len(keys)), make(valkey.Commands, len(keys))
	for i, key := range keys {
		names[i] = c.keys.entries.Key(key)
		dels[i] = c.client.B().Del().Key(names[i], c.keys.fills.Key(key)).Build()
	}
	defer c.localDrop(keys...)
	return c.invalidate(ctx, "delete", dels, names)
}

// DeleteTags removes all entries of tags, as Delete does: the generation that they name is gone. One round trip
// to each node that has a tag, however many entries there are.
func (c *Cache[V]) DeleteTags(ctx context.Context, tags ...string) error {
	names, dels := make([]string, len(tags)), make(valkey.Commands, len(tags))
	for i, tag := range tags {
		names[i] = c.keys.tags.Key(tag)
		dels[i] = c.client.B().Del().Key(names[i]).Build()
	}
	defer c.localDropTags(tags...)
	return c.invalidate(ctx, "delete tags", dels, names)
}

func (c *Cache[V]) invalidate(ctx context.Context, what string, dels valkey.Commands, names []string) error {
	if len(dels) == 0 {
		return nil
	}
	for _, del := range dels {
		if err := c.way.BreakerOf(del).Err(); err != nil {
			return fmt.Errorf("cache: %s: the server is away: %w", what, err)
		}
	}
	for i, reply := range c.client.DoMulti(c.way.Wait.Bounded(ctx), dels...) {
		if err := reply.Error(); err != nil {
			c.way.Heard(ctx, names[i], err)
			return fmt.Errorf("cache: %s: %w", what, err)
		}
	}
	return nil
}

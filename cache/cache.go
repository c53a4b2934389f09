// Package cache keeps values that are dear to load in the server for a while: typed cache-aside.
//
// [New] makes a Cache for the caller's own type; [Cache.GetOrLoad] is what most callers want. Entries
// live for Config.TTL, each shortened by a random part, so that what was stored together does not end
// together. A cache that can't be reached costs speed, not answers: GetOrLoad then loads.
//
// A V of []byte or string is stored as it is, any other as JSON.
//
// # Keys
//
//	key                  type    value      ends
//	fr:cache:NAME:{KEY}  string  the value  after the TTL, less jitter
package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/flatrate/flatrate/internal/key"
	"github.com/valkey-io/valkey-go"
)

// Defaults of [Config].
const (
	DefaultTTL    = 5 * time.Minute
	DefaultJitter = 0.1
)

// NoJitter is the [Config.Jitter] that lets every entry live for exactly the TTL.
const NoJitter = -1

// Config says how entries are kept. The zero value is ready to use.
type Config struct {
	// Prefix stands before every key; all who share a cache use the same one. Default "fr".
	Prefix string
	// Name keeps apart caches with the same keys, one for each type of value. Default "default".
	Name string
	// TTL is how long an entry lives at most: whole milliseconds, at least one. Default 5 minutes.
	TTL time.Duration
	// Jitter is the part of the TTL, from 0 to 1, by which an entry's life is shortened at random at
	// most. Zero means 0.1; [NoJitter] means none.
	Jitter float64
	// Random returns numbers in [0, 1) for the jitter, from any goroutine. Default math/rand/v2.
	Random func() float64
	// Hooks are called at what the results don't show.
	Hooks Hooks
}

// Hooks are optional funcs, called from any goroutine.
type Hooks struct {
	// Error gets each error of the server, or of decoding, that GetOrLoad went on without. Op is "get"
	// or "set".
	Error func(op string, err error)
}

// Cache keeps values of type V. It is safe for concurrent use and holds no resources that
// would have to be given back.
type Cache[V any] struct {
	client valkey.Client
	keys   key.Space
	cfg    Config
	wait   patience
}

// New returns a Cache on client, which stays the caller's to close. The error names the field of cfg
// that is wrong.
func New[V any](client valkey.Client, cfg Config) (*Cache[V], error) {
	if client == nil {
		return nil, errors.New("cache: client is nil")
	}
	keys, err := keySpace(cfg.Prefix, cfg.Name)
	if err != nil {
		return nil, err
	}
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.TTL < time.Millisecond || cfg.TTL%time.Millisecond != 0 {
		return nil, fmt.Errorf("cache: Config.TTL is %v, not a whole number of milliseconds above zero", cfg.TTL)
	}
	switch {
	case cfg.Jitter == 0:
		cfg.Jitter = DefaultJitter
	case cfg.Jitter == NoJitter:
		cfg.Jitter = 0
	case !(cfg.Jitter > 0 && cfg.Jitter <= 1): // so that NaN is wrong too
		return nil, fmt.Errorf("cache: Config.Jitter is %v, not from 0 to 1", cfg.Jitter)
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	if cfg.Hooks.Error == nil {
		cfg.Hooks.Error = func(string, error) {}
	}
	return &Cache[V]{client: client, keys: keys, cfg: cfg}, nil
}

// Get returns the entry of key; ok is false if there is none. One round trip, which ends with ctx, or
// after [MaxWait] if ctx has no deadline.
//
// A key is any string; braces, spaces and control bytes in it are safe.
func (c *Cache[V]) Get(ctx context.Context, key string) (value V, ok bool, err error) {
	ctx = c.wait.bounded(ctx)
	value, ok, _, err = c.get(ctx, key)
	return value, ok, err
}

// get also says whether the server answered, if only with an error.
func (c *Cache[V]) get(ctx context.Context, key string) (value V, ok, answered bool, err error) {
	b, err := c.client.Do(ctx, c.client.B().Get().Key(c.keys.Key(key)).Build()).AsBytes()
	if valkey.IsValkeyNil(err) {
		return value, false, true, nil
	}
	if err != nil {
		_, answered = valkey.IsValkeyErr(err)
		return value, false, answered, fmt.Errorf("cache: get: %w", err)
	}
	if value, err = decode[V](b); err != nil {
		var zero V
		return zero, false, true, fmt.Errorf("cache: get: %w", err)
	}
	return value, true, true, nil
}

// GetOrLoad returns the entry of key, or loads and stores it. One round trip for a hit, two and the
// load for a miss. The error is load's own, as it is, and nothing is stored then.
//
// If the server can't be asked, or holds what is no V, the value is loaded all the same: Hooks.Error
// hears of it. Looking up takes [MaxWait] at most, and at most half of the time that ctx leaves; load
// gets ctx as it is; storing takes MaxWait at most, and is left out where the server did not answer.
// Callers that miss at the same time load at the same time.
func (c *Cache[V]) GetOrLoad(ctx context.Context, key string, load func(context.Context) (V, error)) (V, error) {
	if load == nil {
		var zero V
		return zero, errors.New("cache: load is nil")
	}
	value, ok, answered := c.lookUp(ctx, key)
	if ok {
		return value, nil
	}
	value, err := load(ctx)
	if err != nil || !answered {
		return value, err
	}
	if err := c.Set(c.wait.storing(ctx), key, value); err != nil {
		c.cfg.Hooks.Error("set", err)
	}
	return value, nil
}

// lookUp is GetOrLoad's Get.
func (c *Cache[V]) lookUp(ctx context.Context, key string) (value V, ok, answered bool) {
	ctx, cancel := c.wait.looking(ctx)
	defer cancel()
	value, ok, answered, err := c.get(ctx, key)
	if err != nil {
		c.cfg.Hooks.Error("get", err)
	}
	return value, ok, answered
}

// Set stores an entry. One round trip, which ends with ctx, or after [MaxWait] if ctx has no deadline.
func (c *Cache[V]) Set(ctx context.Context, key string, value V) error {
	text, err := encode(value)
	if err != nil {
		return fmt.Errorf("cache: set: %w", err)
	}
	ctx = c.wait.bounded(ctx)
	set := c.client.B().Set().Key(c.keys.Key(key)).Value(text).Px(c.life()).Build()
	if err := c.client.Do(ctx, set).Error(); err != nil {
		return fmt.Errorf("cache: set: %w", err)
	}
	return nil
}

// Delete removes entries. Removing one that isn't there is no error. One round trip to each node that
// has a key. It ends with ctx, or after [MaxWait] if ctx has no deadline.
func (c *Cache[V]) Delete(ctx context.Context, keys ...string) error {
	dels := make(valkey.Commands, len(keys))
	for i, key := range keys {
		dels[i] = c.client.B().Del().Key(c.keys.Key(key)).Build()
	}
	ctx = c.wait.bounded(ctx)
	for _, reply := range c.client.DoMulti(ctx, dels...) {
		if err := reply.Error(); err != nil {
			return fmt.Errorf("cache: delete: %w", err)
		}
	}
	return nil
}

// life is the TTL less a random part of the jitter.
func (c *Cache[V]) life() time.Duration {
	if c.cfg.Jitter == 0 {
		return c.cfg.TTL
	}
	cut := time.Duration(c.cfg.Random() * c.cfg.Jitter * float64(c.cfg.TTL))
	return max(c.cfg.TTL-cut, time.Millisecond)
}

package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/script"
)

// inOneGo is how many keys go to the server in one round trip, and so are kept waiting for each other.
const inOneGo = 1000

// waitsAtOnce is how many keys of a batch, that others are loading, are waited for at once.
const waitsAtOnce = 64

// LoadMany loads the values of keys. A key that is not in the result has no value; that is remembered, for
// Config.NegativeTTL. With an error the result counts for nothing.
type LoadMany[V any] func(ctx context.Context, keys []string) (map[string]V, error)

// GetMany returns the entries of keys, and loads and stores those that are missing: all in one call of load,
// with exactly the missing keys, in their order. What has no value is not in the result. Two round trips, and the load,
// for each 1,000 keys; one if nothing is missing.
//
// The rules are those of [Cache.Get], but that Config.Early does not count. Keys that somebody else is loading are waited for; if they never come, load is
// called for each of them. With an error of load the result has what could be served without it.
// Duplicates cost nothing.
func (c *Cache[V]) GetMany(ctx context.Context, keys []string, load LoadMany[V]) (map[string]V, error) {
	if load == nil {
		return nil, errors.New("cache: load is nil")
	}
	b := &batch[V]{Cache: c, load: load, token: rand.Text(), values: make(map[string]V, len(keys)), arrived: time.Now()}
	for keys := range slicesOf(b.unique(keys), inOneGo) {
		if err := ctx.Err(); err != nil {
			return b.values, err
		}
		if useless := b.look(ctx, keys, c.cfg.kept().Milliseconds()); len(useless) > 0 {
			b.look(ctx, useless, always)
		}
	}
	if len(b.refresh) > 0 {
		b.refreshAll(ctx)
	}
	if len(b.missing) > 0 {
		if err := b.loadAll(ctx); err != nil {
			return b.values, err
		}
	}
	b.wait(ctx)
	return b.values, b.err
}

// batch is one call of GetMany. It is safe for concurrent use where it says so.
type batch[V any] struct {
	*Cache[V]
	load    LoadMany[V]
	token   string // of all leases
	arrived time.Time

	missing, refresh, others []wanted[V] // to load; to load in the background; that others load
	blind                    bool        // the server did not answer for all

	mu     sync.Mutex // of those below, once callers wait for others
	values map[string]V
	err    error
}

// wanted is a key that has to be loaded, by this batch if held.
type wanted[V any] struct {
	key  string
	got  ask[V]
	held bool
}

// unique returns each key once, less those that the local tier answers.
func (b *batch[V]) unique(keys []string) []string {
	seen := make(map[string]struct{}, len(keys))
	left := make([]string, 0, len(keys))
	for _, key := range keys {
		if _, again := seen[key]; again {
			continue
		}
		seen[key] = struct{}{}
		if h := b.localHit(key); h != nil {
			b.cfg.Hooks.Hit(key, Local)
			b.add(key, h.value, h.err)
			continue
		}
		left = append(left, key)
	}
	return left
}

// add puts an answer into the result.
func (b *batch[V]) add(key string, value V, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		b.values[key] = value
	case !errors.Is(err, ErrNotFound) && b.err == nil:
		b.err = err
	}
}

// look reads entries and takes the leases of those that have to be filled, in one round trip. Useless are keys whose
// entries live on, as the server can tell, and can't be served: their tag is gone, or they are foreign.
func (b *batch[V]) look(ctx context.Context, keys []string, least int64) (useless []string) {
	marks := make([]mark, len(keys))
	calls := make([]script.Call, 0, len(keys))
	tags, at, err := b.tagsOfAll(keys)
	if err != nil {
		b.cfg.Hooks.Error("get", err)
		b.blindly(keys)
		return nil
	}
	for i, key := range keys {
		marks[i] = b.localMark(key)
		calls = append(calls, b.takeCall(key, b.token, least, ""))
	}
	var names []string
	for tag := range at {
		at[tag] = len(names)
		names = append(names, tag)
	}
	calls = append(calls, b.tagCalls(names)...)
	sent := time.Now()
	replies := b.execs(ctx, calls)
	gens, err := tagGens(replies[len(keys):])
	if err != nil {
		b.cfg.Hooks.Error("get", err)
		b.blindly(keys)
		return nil
	}
	var first error
	for i, key := range keys {
		mine := make([]string, 0, len(tags[i]))
		for _, tag := range tags[i] {
			mine = append(mine, gens[at[tag]])
		}
		got, err := b.taken(replies[i], tags[i], mine, sent)
		if err != nil {
			if cutOff(err) {
				b.giveBack(ctx, key, b.token, true)
			}
			if first == nil {
				first = err
			}
			b.blindly(keys[i : i+1])
			continue
		}
		if got.state < stale && got.owner == "" {
			if got.why != nil {
				b.cfg.Hooks.Error("get", got.why)
			}
			useless = append(useless, key)
			continue
		}
		b.sort(key, got, marks[i])
	}
	if first != nil {
		b.cfg.Hooks.Error("set", first)
	}
	return useless
}

func (b *batch[V]) tagsOfAll(keys []string) (tags [][]string, at map[string]int, err error) {
	tags, at = make([][]string, len(keys)), map[string]int{}
	for i, key := range keys {
		if tags[i], err = b.tagsOf(key); err != nil {
			return nil, nil, err
		}
		for _, tag := range tags[i] {
			at[tag] = 0
		}
	}
	return tags, at, nil
}

// sort decides what becomes of a key.
func (b *batch[V]) sort(key string, got ask[V], m mark) {
	switch {
	case got.state >= stale:
		if got.state == fresh {
			b.localPut(m, &got.sight)
			if got.taken { // it is fresh by its own TTL, which the script can't see
				b.giveBack(context.Background(), key, b.token, false)
			}
		} else if got.taken {
			b.refresh = append(b.refresh, wanted[V]{key, got, true})
		}
		b.hit(key, &got.sight)
		b.add(key, got.value, got.err)
	case got.taken:
		b.cfg.Hooks.Miss(key)
		b.missing = append(b.missing, wanted[V]{key, got, true})
	default: // somebody else loads it
		b.cfg.Hooks.Miss(key)
		b.others = append(b.others, wanted[V]{key, got, false})
	}
}

// blindly loads what the server did not answer for, unless the local tier has it.
func (b *batch[V]) blindly(keys []string) {
	for _, key := range keys {
		if h := b.localAny(key); h != nil {
			b.cfg.Hooks.Hit(key, Local)
			b.add(key, h.value, h.err)
			continue
		}
		b.cfg.Hooks.Miss(key)
		b.blind = true
		b.missing = append(b.missing, wanted[V]{key: key})
	}
}

// loadAll loads what is missing, in a goroutine of its own: the caller may go, the load goes on.
func (b *batch[V]) loadAll(ctx context.Context) error {
	done := make(chan []outcome[V], 1)
	go func() { done <- b.loadAndFill(ctx, b.missing, b.blind) }()
	select {
	case outcomes := <-done:
		for i, o := range outcomes {
			if o.stale {
				b.cfg.Hooks.Stale(b.missing[i].key, o.past)
			}
			b.add(b.missing[i].key, o.value, o.err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refreshAll loads in the background what was served stale.
func (b *batch[V]) refreshAll(ctx context.Context) {
	b.Cache.mu.Lock()
	defer b.Cache.mu.Unlock()
	if b.refreshes >= maxRefreshes {
		for _, w := range b.refresh {
			b.giveBack(ctx, w.key, b.token, false)
		}
		return
	}
	b.refreshes++
	go func() {
		b.loadAndFill(ctx, b.refresh, false)
		b.Cache.mu.Lock()
		b.refreshes--
		b.Cache.mu.Unlock()
	}()
}

// loadAndFill loads keys in one call and stores what came, in one round trip for each 1,000.
func (b *batch[V]) loadAndFill(ctx context.Context, all []wanted[V], blind bool) []outcome[V] {
	ctx = context.WithoutCancel(ctx)
	if blind {
		b.alone <- struct{}{} // every load ends, so every wait does
		defer func() { <-b.alone }()
	}
	keys, held := make([]string, len(all)), make([]*lease.Lease, 0, len(all))
	for i, w := range all {
		keys[i] = w.key
		if w.held {
			held = append(held, b.leases.At(b.keys.fills.Key(w.key), b.token))
		}
	}
	keeper := lease.Keep(ctx, lease.Keeping{TTL: b.cfg.Lease, Sent: time.Now(), Renew: true, Extend: func(ctx context.Context, ttl time.Duration) error {
		b.leases.ExtendAll(ctx, held, ttl)
		return nil // each stands or falls by itself, as storing will tell
	}})
	defer keeper.End(lease.ErrReleased)
	began := time.Now()
	loaded, err := runLoad(ctx, &b.cfg, keys[0], func(ctx context.Context) (map[string]V, error) { return b.load(ctx, keys) })
	took := time.Since(began)
	outcomes := make([]outcome[V], len(all))
	var calls []script.Call
	var at []int
	for i, w := range all {
		value, ok := loaded[w.key]
		failed := err
		if failed == nil && !ok {
			failed = ErrNotFound
		}
		store, o := b.settle(value, failed, w.got, began, took)
		outcomes[i] = o
		switch {
		case w.held:
			calls = append(calls, b.fillCall(w.key, b.token, store.text, store.life, store.cool))
			at = append(at, i)
		case failed == nil:
			b.localPutBlind(w.key, value)
		}
	}
	b.fillAll(ctx, all, calls, at, outcomes)
	return outcomes
}

func (b *batch[V]) fillAll(ctx context.Context, all []wanted[V], calls []script.Call, at []int, outcomes []outcome[V]) {
	var first error
	for begin := 0; begin < len(calls); begin += inOneGo {
		end := min(begin+inOneGo, len(calls))
		sent := time.Now()
		for n, reply := range b.execs(ctx, calls[begin:end]) {
			i := at[begin+n]
			stored, err := reply.AsBool()
			switch {
			case err != nil:
				b.giveBack(ctx, all[i].key, b.token, false)
				if first == nil {
					first = err
				}
			case !stored:
				b.cfg.Hooks.Refused(all[i].key)
			case calls[begin+n].Args[1] != storeNo:
				outcomes[i].asOf = sent
			}
		}
	}
	if first != nil {
		b.cfg.Hooks.Error("set", fmt.Errorf("cache: set: %w", first))
	}
}

// wait gets what others load, some keys at a time.
func (b *batch[V]) wait(ctx context.Context) {
	if len(b.others) == 0 {
		return
	}
	free := make(chan struct{}, waitsAtOnce)
	var all sync.WaitGroup
	for _, w := range b.others {
		free <- struct{}{}
		all.Go(func() {
			defer func() { <-free }()
			value, err := b.get(ctx, w.key, b.arrived, func(ctx context.Context) (value V, err error) {
				values, err := b.load(ctx, []string{w.key})
				if err != nil {
					return value, err
				}
				value, ok := values[w.key]
				if !ok {
					return value, ErrNotFound
				}
				return value, nil
			})
			b.add(w.key, value, err)
		})
	}
	all.Wait()
}

func slicesOf[T any](all []T, size int) func(func([]T) bool) {
	return func(yield func([]T) bool) {
		for len(all) > 0 {
			n := min(size, len(all))
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

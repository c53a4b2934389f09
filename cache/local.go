package cache

import (
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/key"
	"github.com/maypok86/otter/v2"
	"github.com/valkey-io/valkey-go"
)

// LocalTier says how much of the cache this process keeps itself, decoded: a hit costs no round trip and no
// allocation. The server tells it what has changed (CLIENT TRACKING); where it refuses to, an entry is asked
// for again after a second. A Cache with a local tier has to be closed.
type LocalTier struct {
	// Entries is how many entries at most, whatever their size. Zero means that there is no local tier.
	Entries int
	// TTL is how long an entry is kept at most, and for how long it is served while the server is away. It is never
	// kept for longer than it is fresh in the server. Default 1 minute.
	TTL time.Duration
}

// DefaultLocalTTL is the default of [LocalTier].TTL.
const DefaultLocalTTL = time.Minute

const (
	tick      = 5 * time.Millisecond // of the clock that local hits look at: reading the time costs as much as the hit
	pollEvery = time.Second          // how old an entry gets where the server tells nothing
	stripes   = 256
)

func (l *LocalTier) check() error {
	if l.TTL == 0 {
		l.TTL = DefaultLocalTTL
	}
	switch {
	case l.Entries < 0:
		return fmt.Errorf("cache: Config.Local.Entries is %d, less than zero", l.Entries)
	case l.TTL < time.Millisecond || l.TTL > maxTTL || l.TTL%time.Millisecond != 0:
		return fmt.Errorf("cache: Config.Local.TTL is %v, not whole milliseconds from 1ms to a century", l.TTL)
	}
	return nil
}

// local is the tier in this process. What is put into it was read from the server while nothing changed: each
// entry has a stripe, whose number grows with every change, and who read before that puts nothing.
type local[V any] struct {
	entries *otter.Cache[string, *held[V]]
	clock   *otter.CoarseClock
	ttl     time.Duration
	limit   atomic.Int64 // of the time for which entries are served unasked, ns
	whole   atomic.Bool  // it hears of every change
	down    atomic.Bool  // the only server is away
	seed    maphash.Seed

	epoch atomic.Uint64 // grows when nobody knows what has changed
	keys  [stripes]stripe
	tags  [stripes]atomic.Uint64
}

type stripe struct {
	sync.Mutex
	changes uint64
}

// held is an entry of the local tier.
type held[V any] struct {
	value V
	err   error
	until int64 // it is served without asking
	end   int64 // it is served if nobody can be asked
	epoch uint64
	tags  []tagMark
}

type tagMark struct {
	stripe  int
	changes uint64
}

// mark is what a reader remembers from before it read.
type mark struct {
	name           string
	epoch, changes uint64
	tags           []tagMark
}

func newLocal[V any](cfg LocalTier) (*local[V], error) {
	entries, err := otter.New(&otter.Options[string, *held[V]]{MaximumSize: cfg.Entries})
	if err != nil {
		return nil, fmt.Errorf("cache: Config.Local: %w", err)
	}
	l := &local[V]{entries: entries, clock: otter.NewCoarseClock(tick), ttl: cfg.TTL, seed: maphash.MakeSeed()}
	l.limit.Store(int64(maxTTL))
	return l, nil
}

func (l *local[V]) stop() {
	l.whole.Store(false)
	l.down.Store(false)
	l.clock.Stop()
	l.entries.InvalidateAll()
	l.entries.StopAllGoroutines()
}

func (l *local[V]) stripe(name string) int { return int(maphash.String(l.seed, name) % stripes) }

// find returns the entry of a name, as long as it is good for; untold asks for what is served only if nobody
// can be asked.
func (l *local[V]) find(name string, untold bool) *held[V] {
	h, ok := l.entries.GetIfPresent(name)
	if !ok {
		return nil
	}
	end := h.until
	if untold {
		end = h.end
	} else if h.epoch != l.epoch.Load() {
		return nil
	}
	if l.clock.NowNano() >= end {
		return nil
	}
	for _, tag := range h.tags {
		if l.tags[tag.stripe].Load() != tag.changes {
			return nil
		}
	}
	return h
}

// mark is taken before the server is asked.
func (l *local[V]) mark(name string, tags []string) mark {
	s := &l.keys[l.stripe(name)]
	s.Lock()
	defer s.Unlock()
	m := mark{name: name, epoch: l.epoch.Load(), changes: s.changes}
	for _, tag := range tags {
		n := l.stripe(key.Escape(tag))
		m.tags = append(m.tags, tagMark{n, l.tags[n].Load()})
	}
	return m
}

// put keeps what was read since a mark, unless it may have changed.
func (l *local[V]) put(m mark, value V, err error, fresh time.Duration) {
	now := l.clock.NowNano()
	last := int64(min(fresh, l.ttl) - 2*tick) // the clock may be behind
	h := &held[V]{value: value, err: err, until: now + min(last, l.limit.Load()), end: now + last, epoch: m.epoch, tags: m.tags}
	s := &l.keys[l.stripe(m.name)]
	s.Lock()
	defer s.Unlock()
	if s.changes == m.changes && last > 0 {
		l.entries.Set(m.name, h)
	}
}

// drop forgets what changed.
func (l *local[V]) drop(name string) {
	s := &l.keys[l.stripe(name)]
	s.Lock()
	defer s.Unlock()
	s.changes++
	l.entries.Invalidate(name)
}

func (l *local[V]) dropTag(name string) { l.tags[l.stripe(name)].Add(1) }

// doubt serves what is there only if nobody can be asked: nobody knows what has changed.
func (l *local[V]) doubt() { l.epoch.Add(1) }

// clear forgets everything.
func (l *local[V]) clear() {
	l.doubt()
	for i := range l.keys {
		l.keys[i].Lock()
		l.keys[i].changes++ // of those who have read and not yet put
		l.keys[i].Unlock()
	}
	l.entries.InvalidateAll()
}

// localHit returns what the local tier may serve without asking, or because nobody can be asked.
func (c *Cache[V]) localHit(name string) *held[V] {
	if c.local == nil {
		return nil
	}
	if c.local.whole.Load() {
		return c.local.find(key.Escape(name), false)
	}
	if c.local.down.Load() || c.client.Mode() == valkey.ClientModeCluster && !c.closed.Load() && c.away(c.keys.entries.Key(name)) {
		return c.local.find(key.Escape(name), true)
	}
	return nil
}

// localAny returns what may be served if nobody can be asked.
func (c *Cache[V]) localAny(name string) *held[V] {
	if c.local == nil {
		return nil
	}
	return c.local.find(key.Escape(name), true)
}

func (c *Cache[V]) localMark(name string) (m mark) {
	if c.local == nil {
		return m
	}
	tags, _ := c.tagsOf(name) // whoever reads the entry hears of the error
	return c.local.mark(key.Escape(name), tags)
}

// localPut keeps what was read since a mark.
func (c *Cache[V]) localPut(m mark, s *sight[V]) {
	if c.local == nil || s.state != fresh || !c.local.whole.Load() {
		return
	}
	c.local.put(m, s.value, s.err, -s.past-time.Since(s.sent))
}

// localPutBlind keeps what was loaded while the server is away; once it is back, all is forgotten.
func (c *Cache[V]) localPutBlind(name string, value V) {
	if c.local != nil && c.away(c.keys.entries.Key(name)) {
		c.local.put(c.localMark(name), value, nil, c.cfg.TTL)
	}
}

// localDrop forgets keys: also what was read but not yet put.
func (c *Cache[V]) localDrop(names ...string) {
	if c.local == nil {
		return
	}
	for _, name := range names {
		c.local.drop(key.Escape(name))
	}
}

func (c *Cache[V]) localDropTags(tags ...string) {
	if c.local == nil {
		return
	}
	for _, tag := range tags {
		c.local.dropTag(key.Escape(tag))
	}
}

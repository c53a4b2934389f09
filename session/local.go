package session

import (
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/track"
)

// LocalTier says how many sessions this process keeps itself, so that a read costs no round trip. The server tells it
// what has changed (CLIENT TRACKING); where it refuses to, nothing is kept. A logout that another process handled is
// seen here when that message has arrived, within milliseconds; up to 0.7 s later where a connection breaks.
type LocalTier struct {
	// Entries is how many sessions at most. Zero means that there is no local tier.
	Entries int
	// TTL is how long a session is kept at most. Default 1 minute.
	TTL time.Duration
}

// DefaultLocalTTL is the default of [LocalTier].TTL.
const DefaultLocalTTL = time.Minute

const stripes = 64

func (l *LocalTier) check() error {
	if l.TTL == 0 {
		l.TTL = DefaultLocalTTL
	}
	switch {
	case l.Entries < 0 || l.Entries > 1<<24:
		return fmt.Errorf("session: Config.Local.Entries is %d, not from 0 to %d", l.Entries, 1<<24)
	case l.TTL < time.Millisecond || l.TTL > maxTimeout:
		return fmt.Errorf("session: Config.Local.TTL is %v, not from 1ms to %v", l.TTL, maxTimeout)
	}
	return nil
}

// localTier keeps records that were read from the server while nothing changed: each has a stripe, whose number grows
// with every change, and who read before that puts nothing. A nil one keeps nothing.
type localTier struct {
	seed    maphash.Seed
	each    int
	ttl     time.Duration
	whole   atomic.Bool // it hears of every change
	stripes [stripes]stripe
	tracker *track.Tracker
}

type stripe struct {
	sync.Mutex
	changes uint64
	entries map[string]*localEntry
}

type localEntry struct {
	text    string
	until   time.Time
	decoded atomic.Value // what Read returns of it, once somebody has asked
}

// mark is what a reader remembers from before it read.
type mark struct {
	at      place
	changes uint64
	taken   bool
}

func (m *Manager[T]) newLocal() *localTier {
	l := &localTier{seed: maphash.MakeSeed(), each: max(1, m.cfg.Local.Entries/stripes), ttl: m.cfg.Local.TTL}
	for i := range l.stripes {
		l.stripes[i].entries = map[string]*localEntry{}
	}
	head := m.keys.space.Head()
	l.tracker = &track.Tracker{
		Client: m.Client, Log: m.cfg.Logger, Block: "session", Prefixes: []string{head},
		Doubt: l.clear, Clear: l.clear,
		Changed: func(keys []string) {
			for _, key := range keys {
				tag, digest, ok := strings.Cut(strings.TrimPrefix(key, head), "}:")
				if ok && len(digest) == digestLen {
					l.drop(place{tag, digest})
				}
			}
		},
		Standing: func(whole bool, _ error) { l.whole.Store(whole) },
	}
	l.tracker.Start()
	return l
}

func (l *localTier) close() {
	l.whole.Store(false)
	l.tracker.Close()
	l.whole.Store(false)
}

func (l *localTier) stripe(digest string) *stripe {
	return &l.stripes[maphash.String(l.seed, digest)%stripes]
}

// localHit returns a session that need not be asked for.
func (m *Manager[T]) localHit(at place) *localEntry {
	l, now := m.local, time.Now()
	if !l.whole.Load() || !m.hints.fresh(at.digest, now) || m.cfg.AskAlways {
		return nil
	}
	s := l.stripe(at.digest)
	s.Lock()
	defer s.Unlock()
	e := s.entries[at.digest]
	if e == nil || !now.Before(e.until) {
		return nil
	}
	return e
}

// mark is taken before the server is asked.
func (l *localTier) mark(at place) mark {
	if l == nil || !l.whole.Load() {
		return mark{}
	}
	s := l.stripe(at.digest)
	s.Lock()
	defer s.Unlock()
	return mark{at, s.changes, true}
}

// put keeps what was read since a mark, unless it may have changed.
func (l *localTier) put(m mark, text string) {
	if !m.taken || text == "" || text[0] != live {
		return
	}
	s := l.stripe(m.at.digest)
	s.Lock()
	defer s.Unlock()
	if s.changes != m.changes || !l.whole.Load() {
		return
	}
	if len(s.entries) >= l.each && s.entries[m.at.digest] == nil {
		for digest := range s.entries { // any one: a map's order is random
			delete(s.entries, digest)
			break
		}
	}
	s.entries[m.at.digest] = &localEntry{text: text, until: time.Now().Add(l.ttl)}
}

// drop forgets what changed: also what was read but not yet put.
func (l *localTier) drop(at place) {
	if l == nil {
		return
	}
	s := l.stripe(at.digest)
	s.Lock()
	defer s.Unlock()
	s.changes++
	delete(s.entries, at.digest)
}

func (l *localTier) clear() {
	for i := range l.stripes {
		s := &l.stripes[i]
		s.Lock()
		s.changes++
		clear(s.entries)
		s.Unlock()
	}
}

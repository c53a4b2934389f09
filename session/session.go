// Package session keeps what a server knows of a visitor between requests: a token in the visitor's
// cookie, the values in the server, and an end when nothing is heard for the idle timeout.
//
// [New] makes a Manager for the caller's own type. [Manager.Handler] is what most callers want: a middleware
// that loads the session when a handler asks for it ([Manager.Load], [Manager.Read]) and saves what has
// changed before the response begins. [Manager.Login] and [Manager.Logout] go with it. Without net/http,
// [Manager.Create] begins a session, [Manager.Get] reads it and counts as a sign of life, [Manager.Set] saves what
// changed, [Manager.Renew] replaces its token, [Manager.Delete] ends it; [Manager.List], [Manager.End],
// [Manager.EndOthers] and [Manager.EndAll] are about all sessions of a user. A session that was ended never comes
// back.
//
// The value must encode as a JSON object; each member changes by itself, so that two requests which change different
// members don't undo each other. Names count as they are spelled: "User" is not "user". The server keeps a digest of
// the token, not the token: who reads its memory or a dump can't take over a session.
//
// # Keys
//
//	key                           type    value                                                            ends
//	fr:sess:{TAG}:TOKEN           string  the session ([docs/session.md]); - remembers one that was ended  after a timeout
//	fr:sess:{TAG}:user            zset    TOKEN of each session of a user -> until when (Unix ms)          with the last of them
//	fr:sess:{SHARD}:ends          zset    TAG:TOKEN of each session -> when to look whether it has ended   with the last of them
//	fr:sess:{SHARD}:notes         hash    TAG:TOKEN -> what Sweep.Note said of the session                 with the last of them
//	fr:sess:{SHARD}:sweep         string  the token of the process that looks                              after 30 s, unless it is renewed
//	fr:sess:NAME:{SHARD}:TOKEN    string  what a scs or gorilla store keeps; - as above                    after its own time
//	fr:sess:NAME:{SHARD}:all      zset    TOKEN of each of these -> until when (Unix ms)                   with the last of them
//
// TOKEN stands for the first 16 bytes of the token's SHA-256 in URL-safe base64, TAG for what a token has behind its
// dot, SHARD for a number from 0 to 15, or 63 in a store.
//
// [docs/session.md]: https://github.com/flatrate/flatrate/blob/main/docs/session.md
package session

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/flatrate/flatrate/internal/link"
	"github.com/valkey-io/valkey-go"
)

var (
	// ErrConflict is returned by [Manager.Set] with [Compare] if another request has changed the same member.
	ErrConflict = errors.New("session: another request has changed the same member")
	// ErrTooLarge is returned if a session would have more than [Config.MaxBytes] in the server.
	ErrTooLarge = errors.New("session: too large")
	// ErrEnded is returned by [Manager.Renew] if the session has ended.
	ErrEnded = errors.New("session: has ended")
	// ErrUnavailable is what the errors of all calls are if the server did not answer, or answered with an error.
	ErrUnavailable = errors.New("session: the server can't be asked")
)

// Never is the [Terms.Absolute] of a session without an absolute timeout.
const Never = -1

// Terms are those of one session.
type Terms struct {
	// User is the id of the user the session belongs to; the session is then listed and ended with the user's others.
	// Empty means nobody. It is not stored: only a digest of it is.
	User string
	// Idle and Absolute are the session's own timeouts. Zero means those of Config; an Absolute of [Never] means none.
	Idle, Absolute time.Duration
	// Device and Address are shown by List. They are cut to 256 and 64 bytes; empty means that none is stored.
	// Handlers have them filled in, from the request.
	Device, Address string
}

// Manager keeps sessions whose value is a T. It is safe for concurrent use. With a local tier or a sweep it has to
// be closed.
type Manager[T any] struct {
	link.Link
	cfg   Config
	keys  keySpace
	plan  plan
	zero  []member // of a value that is empty
	rings rings
	hints hints
	local *localTier
	sweep *sweeper
	old   Legacy[T]
	grace string
	gone  string // Config.Remember, ms
	close sync.Once
}

// Session is a session as it was created or read. It is not safe for concurrent use.
type Session[T any] struct {
	// Token goes into the visitor's cookie: letters, digits, '-', '_' and one dot, with 130 random bits. Calls that
	// replace the token change it. It is empty if the token is known to another request only.
	Token string
	// Value is the caller's. Changes to it are kept once Set has saved them.
	Value T
	// Created is when the session began and Seen when its idle time was last extended, in whole seconds of the
	// server's clock.
	Created, Seen time.Time
	// Idle and Absolute are the session's timeouts; an Absolute of zero is none.
	Idle, Absolute time.Duration

	at      place    // where changes go
	origin  place    // of the token it was made or read by, whose user is the only one it acts for
	fresh   bool     // it is not in the server yet
	old     bool     // it was read by a token that was replaced: Value is as it was then
	lost    bool     // nor will it be: the server could not be asked
	wire    []member // as the server has it
	stored  []member // the same, opened
	seal    *seal    // nil if it is not encrypted
	pending []change // of the package's own members
}

// ID names the session without giving it away, as in [Info.ID]. It changes with the token, and is empty before the
// session is stored.
func (s *Session[T]) ID() string {
	if s == nil || s.fresh {
		return ""
	}
	return s.at.digest
}

// OfUser says whether the session belongs to a user, by [Manager.Login] or [Manager.Begin]: then it is listed and ended
// with the user's others. One that was read by a token of before the login does not.
func (s *Session[T]) OfUser() bool { return s != nil && !s.fresh && s.origin.ofUser() }

// New returns a Manager on client, which stays the caller's to close. The error names the field of
// cfg that is wrong.
func New[T any](client valkey.Client, cfg Config) (*Manager[T], error) {
	if client == nil {
		return nil, errors.New("session: client is nil")
	}
	keys, err := newKeySpace(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	cfg.setDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	rings, err := newRings(cfg.Keys)
	if err != nil {
		return nil, err
	}
	m := &Manager[T]{
		cfg: cfg, keys: keys, plan: planOf(reflect.TypeFor[T]()), rings: rings,
		grace: milliseconds(cfg.Grace), gone: milliseconds(cfg.Remember),
	}
	m.Client, m.Wait.Most = client, cfg.Timeout
	if zero, err := encode(m.empty().Value); err == nil { // who stores something else hears of the error
		m.zero = zero
	}
	if cfg.Local.Entries > 0 {
		m.local = m.newLocal()
	}
	if cfg.Expired.Func != nil {
		m.sweep = m.newSweeper()
	}
	return m, nil
}

// Close ends what the manager does in the background, and waits for it.
func (m *Manager[T]) Close() {
	m.close.Do(func() {
		if m.local != nil {
			m.local.close()
		}
		if m.sweep != nil {
			m.sweep.close()
		}
	})
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// Create begins a session with a new token, that belongs to nobody. One round trip.
func (m *Manager[T]) Create(ctx context.Context, value T) (*Session[T], error) {
	return m.Begin(ctx, value, Terms{})
}

// Begin begins a session with a new token. One round trip.
func (m *Manager[T]) Begin(ctx context.Context, value T, terms Terms) (*Session[T], error) {
	s := &Session[T]{Value: value, fresh: true}
	if err := m.begin(ctx, s, terms); err != nil {
		return nil, err
	}
	return s, nil
}

// Import begins a session with a token that somebody else has made, unless there is or was one with it: ok is false
// then. It needs [Config.ForeignTokens]. One round trip.
func (m *Manager[T]) Import(ctx context.Context, token string, value T, terms Terms) (s *Session[T], ok bool, err error) {
	at, ok := locate(token, m.cfg.ForeignTokens)
	if !ok || at.ofUser() {
		return nil, false, errors.New("session: import: the token is none that Config.ForeignTokens accepts")
	}
	terms.User = ""
	s = &Session[T]{Value: value, fresh: true}
	now, err := encode(value)
	if err != nil {
		return nil, false, err
	}
	switch ok, err := m.put(ctx, s, now, token, at, terms); {
	case err != nil:
		return nil, false, err
	case !ok:
		return nil, false, nil
	}
	return s, true, nil
}

// begin stores a session that is not in the server yet, with its flash messages.
func (m *Manager[T]) begin(ctx context.Context, s *Session[T], terms Terms) error {
	now, err := encode(s.Value)
	if err != nil {
		return err
	}
	tag := ""
	if terms.User != "" {
		tag = userTag(m.cfg.TagSecret, terms.User)
	}
	token := newToken(tag)
	at, _ := locate(token, false)
	ok, err := m.put(ctx, s, apply(now, s.pending), token, at, terms)
	if err == nil && !ok {
		err = errors.New("session: create: the token was given before")
	}
	return err
}

// put stores members as a new session, and makes s that session.
func (m *Manager[T]) put(ctx context.Context, s *Session[T], stored []member, token string, at place, terms Terms) (ok bool, err error) {
	idle, absolute, err := m.cfg.terms(terms)
	if err != nil {
		return false, err
	}
	stored = apply(stored, about(terms))
	sealed, wire, err := m.sealAll(at, stored, s.seal)
	if err != nil {
		return false, err
	}
	body := []byte{'{'}
	for _, line := range wire {
		body = appendMember(body, line.name, line.value)
	}
	body = append(body, '}')
	if len(body) > m.cfg.MaxBytes {
		return false, fmt.Errorf("%w: %d bytes, more than %d", ErrTooLarge, len(body), m.cfg.MaxBytes)
	}
	args := []string{milliseconds(idle), strconv.Itoa(int(absolute.Seconds())), string(body)}
	created, err := m.create(ctx, at, idle, s.Value, args)
	if err != nil || created < 0 {
		return false, wrap("create", err)
	}
	s.Token, s.at, s.origin, s.fresh, s.old = token, at, at, false, false
	s.Created = time.Unix(created, 0)
	s.Seen, s.Idle, s.Absolute = s.Created, idle, absolute
	s.wire, s.stored, s.seal, s.pending = wire, stored, sealed, nil
	m.extended(at, idle/20)
	m.cfg.Hooks.Created(at.digest)
	m.cfg.Hooks.Written(len(m.keys.session(at)) + headBytes + len(body))
	return true, nil
}

// Get reads the session of a token, as it came from a cookie, and puts off its end by the idle
// timeout; ok is false if there is none. One round trip, two for a token that was replaced a moment ago; none for what
// can't be a token.
func (m *Manager[T]) Get(ctx context.Context, token string) (s *Session[T], ok bool, err error) {
	at, ok := locate(token, m.cfg.ForeignTokens)
	if !ok {
		return nil, false, nil
	}
	f, err := m.fetch(ctx, at)
	if err != nil {
		return nil, false, err
	}
	if !f.alive {
		if f.absent && m.old.Find != nil {
			return m.takeOver(ctx, token)
		}
		return nil, false, nil
	}
	s, err = m.open(token, f)
	return s, err == nil, err
}

// open makes a session of what was read.
func (m *Manager[T]) open(token string, f found) (*Session[T], error) {
	s := &Session[T]{
		Token: token, Created: f.created, Seen: f.seen, Idle: f.idle, Absolute: f.absolute, at: f.at, origin: f.origin,
		old: f.at != f.origin,
	}
	var err error
	if s.wire, err = members(f.body); err != nil {
		return nil, err
	}
	if s.seal, s.stored, err = m.openAll(f.origin, s.wire); err != nil {
		return nil, err
	}
	if err := m.plan.decode(reflect.ValueOf(&s.Value).Elem(), s.stored); err != nil {
		return nil, err
	}
	return s, nil
}

// Set saves the members of s.Value that changed since s was created, read or last saved, and puts
// off its end by the idle timeout as Get does; ok is false if the session has ended, and then nothing is saved. Nothing is sent
// if nothing has changed: ok is true then. The errors are [ErrTooLarge] and, with [Compare], [ErrConflict], and nothing
// is saved then either. One round trip, two if the token was replaced meanwhile.
func (m *Manager[T]) Set(ctx context.Context, s *Session[T]) (ok bool, err error) {
	if s == nil || s.fresh {
		return false, errors.New("session: set: the session is nil, or was never created")
	}
	changes, err := m.changes(s)
	if err != nil {
		return false, err
	}
	if len(changes) == 0 {
		return true, nil
	}
	return m.save(ctx, s, changes)
}

// Delete ends the session of a token, as a logout does. Ending one that has ended is no error. One
// round trip, two for a token that was replaced a moment ago; none for what can't be a token.
func (m *Manager[T]) Delete(ctx context.Context, token string) error {
	at, ok := locate(token, m.cfg.ForeignTokens)
	if !ok {
		return nil
	}
	if err := m.deleteOld(ctx, token); err != nil {
		return err
	}
	return m.endAt(ctx, at, m.old.Find != nil)
}

// callError is that of a call to the server.
type callError struct {
	op  string
	err error
}

func (e *callError) Error() string { return "session: " + e.op + ": " + e.err.Error() }

func (e *callError) Unwrap() error { return e.err }

// Is makes errors.Is(err, ErrUnavailable) true.
func (e *callError) Is(target error) bool { return target == ErrUnavailable }

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &callError{op, err}
}

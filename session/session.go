// Package session keeps what a server knows of a visitor between requests: a token in the visitor's
// cookie, the values in the server, and an end when nothing is heard for the idle timeout.
//
// [New] makes a Manager for the caller's own type; [Manager.Create] begins a session,
// [Manager.Get] reads it and counts as a sign of life, [Manager.Set] saves what changed,
// [Manager.Delete] ends it. A session that has ended never comes back: neither Get nor Set makes one.
//
// The value must encode as a JSON object; each member is a field of its own in the server, so that two
// requests which change different members don't undo each other. Names count as they are spelled:
// "User" is not "user". The server keeps a digest of the
// token, not the token: who reads its memory or a dump can't take over a session.
//
// # Keys
//
//	key             type  fields                               ends
//	fr:sess:{TOKEN}  hash  @created (Unix ms); one per member   after the idle timeout
//
// TOKEN stands for the first 16 bytes of the token's SHA-256 in URL-safe base64.
package session

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/flatrate/flatrate/internal/key"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

// DefaultIdle is the idle timeout where Config names none.
const DefaultIdle = 30 * time.Minute

// created is the field that every session has. Names that begin with '@' are the package's own.
const created = "@created"

var maxFields = strconv.Itoa(MaxFields)

//go:embed create.lua
var createLua string

//go:embed set.lua
var setLua string

var (
	create = script.New(createLua)
	set    = script.New(setLua)
)

// Config says how sessions are kept. The zero value is ready to use.
type Config struct {
	// Prefix stands before every key; all who share sessions use the same one. Default "fr".
	Prefix string
	// Idle ends a session for which neither Get nor Set was called for so long: whole milliseconds,
	// at least one. Default 30 minutes.
	Idle time.Duration
}

// Manager keeps sessions whose value is a T. It is safe for concurrent use and holds no resources.
type Manager[T any] struct {
	client valkey.Client
	keys   key.Space
	names  names
	idle   time.Duration
	idleMs string
}

// Session is a session as it was created or read. It is not safe for concurrent use.
type Session[T any] struct {
	// Token goes into the visitor's cookie: 26 letters and digits with at least 128 random bits.
	Token string
	// Value is the caller's. Changes to it are kept once Set has saved them.
	Value T
	// Created is when the session began, by the server's clock.
	Created time.Time

	stored fields // Value as the server had it, as far as T knows its fields
}

// New returns a Manager on client, which stays the caller's to close. The error names the field of
// cfg that is wrong.
func New[T any](client valkey.Client, cfg Config) (*Manager[T], error) {
	if client == nil {
		return nil, errors.New("session: client is nil")
	}
	keys, err := keySpace(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	if cfg.Idle == 0 {
		cfg.Idle = DefaultIdle
	}
	if cfg.Idle < time.Millisecond || cfg.Idle%time.Millisecond != 0 {
		return nil, fmt.Errorf("session: Config.Idle is %v, not a whole number of milliseconds above zero", cfg.Idle)
	}
	return &Manager[T]{
		client: client,
		keys:   keys,
		names:  namesOf(reflect.TypeFor[T]()),
		idle:   cfg.Idle,
		idleMs: strconv.FormatInt(cfg.Idle.Milliseconds(), 10),
	}, nil
}

// Create begins a session with a new token. One round trip.
func (m *Manager[T]) Create(ctx context.Context, value T) (*Session[T], error) {
	stored, err := encode(value)
	if err != nil {
		return nil, err
	}
	token := rand.Text()
	args := stored.appendTo([]string{m.idleMs})
	ms, err := create.Exec(ctx, m.client, []string{m.key(token)}, args...).AsInt64()
	if err != nil {
		return nil, fmt.Errorf("session: create: %w", err)
	}
	return &Session[T]{Token: token, Value: value, Created: time.UnixMilli(ms), stored: stored}, nil
}

// Get reads the session of a token, as it came from a cookie, and puts off its end by the idle
// timeout; ok is false if there is none. One round trip; none for what can't be a token.
func (m *Manager[T]) Get(ctx context.Context, token string) (s *Session[T], ok bool, err error) {
	if !wellFormed(token) {
		return nil, false, nil
	}
	k := m.key(token)
	replies := m.client.DoMulti(ctx,
		m.client.B().Hgetall().Key(k).Build(),
		m.client.B().Pexpire().Key(k).Milliseconds(m.idle.Milliseconds()).Build(),
	)
	hash, err := replies[0].AsStrMap()
	if err == nil {
		err = replies[1].Error()
	}
	if err != nil {
		return nil, false, fmt.Errorf("session: get: %w", err)
	}
	if len(hash) == 0 {
		return nil, false, nil
	}
	s = &Session[T]{Token: token}
	if s.Created, err = createdAt(hash); err != nil {
		return nil, false, err
	}
	if s.Value, err = decode[T](hash, m.names); err != nil {
		return nil, false, err
	}
	if s.stored, err = split(s.Value); err != nil {
		return nil, false, err
	}
	return s, true, nil
}

// Set saves the members of s.Value that changed since s was created, read or last saved, and puts
// off its end by the idle timeout; ok is false if the session has ended, and then nothing is saved.
// Nothing is saved either, and that is an error, if the session would have more than [MaxFields] members
// with those that others have saved meanwhile. One round trip.
func (m *Manager[T]) Set(ctx context.Context, s *Session[T]) (ok bool, err error) {
	if s == nil {
		return false, errors.New("session: set: the session is nil")
	}
	now, err := encode(s.Value)
	if err != nil {
		return false, err
	}
	removed, changed := s.stored.diff(now)
	args := append([]string{m.idleMs, maxFields, strconv.Itoa(len(removed))}, removed...)
	args = changed.appendTo(args)
	saved, err := set.Exec(ctx, m.client, []string{m.key(s.Token)}, args...).AsInt64()
	switch {
	case err != nil:
		return false, fmt.Errorf("session: set: %w", err)
	case saved < 0:
		return false, fmt.Errorf("session: set: the session would have more than %d members", MaxFields)
	case saved == 0:
		return false, nil
	}
	s.stored = now
	return true, nil
}

// Delete ends the session of a token, as a logout does. Ending one that has ended is no error. One
// round trip; none for what can't be a token.
func (m *Manager[T]) Delete(ctx context.Context, token string) error {
	if !wellFormed(token) {
		return nil
	}
	if err := m.client.Do(ctx, m.client.B().Del().Key(m.key(token)).Build()).Error(); err != nil {
		return fmt.Errorf("session: delete: %w", err)
	}
	return nil
}

func (m *Manager[T]) key(token string) string { return m.keys.Key(digest(token)) }

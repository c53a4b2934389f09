// Package object keeps structs in the server field by field, each in a hash: one field is read without the rest, and
// changed atomically.
//
// [New] makes a Store for the caller's own struct, [Store.Set] and [Store.Get] move all of it, [FieldOf] and
// [NumberOf] one field. [Advise] says whether a hash or a string of JSON is smaller for a struct.
//
// Fields are named by their cache tag, as in `cache:"email,omitempty"`, else as in Go; `cache:"-"` leaves one out. A
// string, a byte slice and a number lie there as they are, a bool as 1 or 0, what has MarshalText as its text, anything
// else as JSON. A nil pointer, and a zero value with omitempty, is not stored. With ttl=30s a field ends by itself, where
// the server can: [ErrNoFieldTTL].
//
// # Keys
//
//	key                type  value                                 ends
//	fr:obj:NAME:{KEY}  hash  the struct's fields; @ if it has none  after the TTL
package object

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/key"
	"github.com/flatrate/flatrate/internal/link"
	"github.com/flatrate/flatrate/internal/patience"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/flatrate/flatrate/internal/server"
	"github.com/valkey-io/valkey-go"
)

//go:embed set.lua
var setLua string

var setScript = script.New(setLua)

// DefaultTTL is the default of [Config.TTL].
const DefaultTTL = 5 * time.Minute

// NoTTL is the [Config.TTL] that keeps objects until they are deleted.
const NoTTL = -1

// MaxWait is how long a call waits for one answer of the server at most, if ctx has no deadline. A ctx that is cancelled
// during such a wait does not shorten it.
const MaxWait = patience.Default

const (
	maxTTL = 100 * 365 * 24 * time.Hour
)

// ErrNoFieldTTL is returned, wrapped, where a field is to have a time to live of its own and the server can't do that:
// it takes HPEXPIRE, of Valkey 9.0 or Redis 7.4.
var ErrNoFieldTTL = errors.New("object: the server has no time to live for fields")

// ErrRange is returned, wrapped, by [Number.Add] if the sum does not fit the field's type: it stays as it was.
var ErrRange = errors.New("object: out of range")

// Config says how objects are kept. The zero value is ready to use. All who share objects use the same one; durations are
// whole milliseconds.
type Config struct {
	// Prefix stands before every key; all who share objects use the same one. Default "fr".
	Prefix string
	// Name keeps apart objects with the same keys, one for each type. Default "default".
	Name string
	// TTL is how long an object lives after Set: from a millisecond to a century. Changes of fields don't prolong it.
	// Zero means 5 minutes; [NoTTL] means for ever.
	TTL time.Duration
}

// Store keeps objects of type T, a struct. It is safe for concurrent use.
type Store[T any] struct {
	way  *link.Link
	cfg  Config
	keys key.Space
	plan *plan

	canExpire atomic.Int32 // fields: 0 nobody knows, 1 yes, 2 no
}

// New returns a Store on client, which stays the caller's to close. Nothing is sent. The error names the field of cfg,
// or of T, that is wrong.
func New[T any](client valkey.Client, cfg Config) (*Store[T], error) {
	if client == nil {
		return nil, errors.New("object: client is nil")
	}
	keys, err := newKeySpace(cfg.Prefix, cfg.Name)
	if err != nil {
		return nil, err
	}
	p, err := newPlan(reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	switch {
	case cfg.TTL == 0:
		cfg.TTL = DefaultTTL
	case cfg.TTL == NoTTL:
		cfg.TTL = 0
	case cfg.TTL < time.Millisecond || cfg.TTL > maxTTL || cfg.TTL%time.Millisecond != 0:
		return nil, fmt.Errorf("object: Config.TTL is %v, not whole milliseconds from one to a century", cfg.TTL)
	}
	return &Store[T]{way: &link.Link{Client: client}, cfg: cfg, keys: keys, plan: p}, nil
}

// exec runs a script on a key.
func (s *Store[T]) exec(ctx context.Context, script *script.Script, name string, args ...string) valkey.ValkeyResult {
	return s.way.Exec(ctx, script, []string{name}, args...)
}

// do runs a command on a key.
func (s *Store[T]) do(ctx context.Context, name string, cmd valkey.Completed) valkey.ValkeyResult {
	return s.way.Do(ctx, name, cmd)
}

// Set stores an object in place of whatever lies there, and begins its TTL. One round trip, the first one with fields that
// have a TTL two. It ends with ctx, or after [MaxWait] if ctx has no deadline.
//
// A key is any string; braces, spaces and control bytes in it are safe.
func (s *Store[T]) Set(ctx context.Context, key string, object T) error {
	words, err := s.plan.encodeAll(reflect.ValueOf(&object).Elem())
	if err != nil {
		return fmt.Errorf("object: set: %w", err)
	}
	args := []string{milliseconds(s.cfg.TTL), "0"}
	if s.plan.ttls {
		if err := s.mayExpire(ctx); err != nil {
			return fmt.Errorf("object: set: %w", err)
		}
		n := 0
		for i := 0; i < len(words); i += 2 {
			if at, ok := s.plan.byName[words[i]]; ok && s.plan.fields[at].ttl > 0 {
				args = append(args, words[i], milliseconds(s.plan.fields[at].ttl))
				n++
			}
		}
		args[1] = strconv.Itoa(n)
	}
	if err := s.exec(ctx, setScript, s.keys.Key(key), append(args, words...)...).Error(); err != nil {
		return fmt.Errorf("object: set: %w", err)
	}
	return nil
}

// mayExpire says whether fields can have a time to live. The server is asked once.
func (s *Store[T]) mayExpire(ctx context.Context) error {
	if s.canExpire.Load() == 0 {
		ctx = s.way.Wait.Bounded(ctx)
		info, err := server.Probe(ctx, s.way.Client, "hpexpire")
		if err != nil {
			return err
		}
		s.canExpire.Store(map[bool]int32{true: 1, false: 2}[info.Has("hpexpire")])
	}
	if s.canExpire.Load() == 2 {
		return ErrNoFieldTTL
	}
	return nil
}

// Get returns an object; ok is false if there is none. Fields that are missing have their zero value, and what the hash
// has beside them is left alone. What lies there and is no T is an error: a [FieldError] if it is one field. One round
// trip.
func (s *Store[T]) Get(ctx context.Context, key string) (object T, ok bool, err error) {
	fields, err := s.do(ctx, s.keys.Key(key), s.way.Client.B().Hgetall().Key(s.keys.Key(key)).Build()).AsStrMap()
	if err == nil && len(fields) > 0 {
		err = s.plan.decodeAll(fields, reflect.ValueOf(&object).Elem())
	}
	if err != nil {
		var zero T
		return zero, false, fmt.Errorf("object: get: %w", err)
	}
	return object, len(fields) > 0, nil
}

// Delete removes an object; existed says whether there was one. One round trip.
func (s *Store[T]) Delete(ctx context.Context, key string) (existed bool, err error) {
	n, err := s.do(ctx, s.keys.Key(key), s.way.Client.B().Del().Key(s.keys.Key(key)).Build()).AsInt64()
	if err != nil {
		return false, fmt.Errorf("object: delete: %w", err)
	}
	return n > 0, nil
}

// Touch begins the TTL of an object anew; ok is false if there is none. With [NoTTL] it only says so. One round trip.
func (s *Store[T]) Touch(ctx context.Context, key string) (ok bool, err error) {
	cmd := s.way.Client.B().Pexpire().Key(s.keys.Key(key)).Milliseconds(s.cfg.TTL.Milliseconds()).Build()
	if s.cfg.TTL == 0 {
		cmd = s.way.Client.B().Exists().Key(s.keys.Key(key)).Build()
	}
	n, err := s.do(ctx, s.keys.Key(key), cmd).AsInt64()
	if err != nil {
		return false, fmt.Errorf("object: touch: %w", err)
	}
	return n > 0, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

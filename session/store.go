package session

import (
	"context"
	_ "embed"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

//go:embed create.lua
var createLua string

//go:embed read.lua
var readLua string

//go:embed save.lua
var saveLua string

var (
	create = script.New(createLua)
	read   = script.New(readLua)
	save   = script.New(saveLua)
)

// hops bounds how many replaced tokens are followed.
const hops = 4

// What the scripts answer first.
const (
	nothing = iota
	done
	conflict
	elsewhere
	tooLarge
)

// found is what lies in a session's key.
type found struct {
	record
	alive  bool
	absent bool  // nothing lies there, not even what remembers a session that was ended
	at     place // where changes go
	origin place // where the record was read
}

// fetch reads a session. One whose token was replaced is alive if the session is, and is as it was then.
func (m *Manager[T]) fetch(ctx context.Context, at place) (found, error) {
	f, err := m.look(ctx, at)
	if err != nil || !f.alive || f.moved == (place{}) {
		return f, err
	}
	for range hops {
		target, err := m.look(ctx, f.moved)
		if err != nil || !target.alive {
			return found{}, err
		}
		f.at = target.at
		if target.moved == (place{}) {
			return f, nil
		}
		f.moved = target.moved
	}
	return found{}, nil
}

// look reads one key: with the script that also extends the idle time, where that may be due, else with a GET.
func (m *Manager[T]) look(ctx context.Context, at place) (found, error) {
	f, err := m.lookUp(ctx, at)
	if err == nil {
		bytes := 0
		if f.alive {
			bytes = len(m.keys.session(at)) + headBytes + len(f.body)
		}
		m.cfg.Hooks.Read(bytes)
	}
	return f, err
}

// headBytes is about what a record has beside its value.
const headBytes = 40

func (m *Manager[T]) lookUp(ctx context.Context, at place) (found, error) {
	if m.local != nil {
		if e := m.localHit(at); e != nil {
			return parseFound(at, e.text)
		}
	}
	key := m.keys.session(at)
	mark := m.local.mark(at)
	sent := time.Now()
	if !m.cfg.AskAlways && m.hints.fresh(at.digest, sent) {
		text, err := m.Do(ctx, key, m.Client.B().Get().Key(key).Build()).ToString()
		if valkey.IsValkeyNil(err) {
			return found{absent: true}, nil
		}
		if err != nil {
			return found{}, wrap("get", err)
		}
		m.local.put(mark, text)
		return parseFound(at, text)
	}
	reply, err := m.Exec(ctx, read, m.keys.of(at)).ToArray()
	if err != nil {
		return found{}, wrap("get", err)
	}
	if len(reply) != 2 {
		return found{}, fmt.Errorf("session: get: the server answered %d values, not 2", len(reply))
	}
	text, err := reply[0].ToString()
	if valkey.IsValkeyNil(err) {
		return found{absent: true}, nil
	}
	if err != nil {
		return found{}, wrap("get", err)
	}
	due, err := reply[1].AsInt64()
	if err != nil {
		return found{}, wrap("get", err)
	}
	if due > 0 {
		m.hints.set(at.digest, sent, time.Duration(due)*time.Millisecond)
		m.local.put(mark, text)
	}
	return parseFound(at, text)
}

func parseFound(at place, text string) (found, error) {
	r, ok, err := parseRecord(text)
	return found{record: r, alive: ok, at: at, origin: at}, err
}

// extended remembers that the server need not be asked for so long whether the idle time is to be extended.
func (m *Manager[T]) extended(at place, by time.Duration) {
	m.hints.set(at.digest, time.Now(), by)
}

func (m *Manager[T]) create(ctx context.Context, at place, idle time.Duration, value T, args []string) (int64, error) {
	return m.exec(ctx, at, create, m.keys.of(at), args, m.sweep.register(at, m.note(value), idle)...).AsInt64()
}

// exec runs a script that changes the session at a place, and in the same round trip what the registry of ends has to
// know. Its result is that of the first one that failed.
func (m *Manager[T]) exec(ctx context.Context, at place, s *script.Script, keys, args []string, also ...script.Call) valkey.ValkeyResult {
	m.local.drop(at)
	defer m.local.drop(at)
	if len(also) == 0 {
		return m.Exec(ctx, s, keys, args...)
	}
	replies := m.Execs(ctx, append(also, script.Call{Script: s, Keys: keys, Args: args})...)
	for _, reply := range replies {
		if reply.Error() != nil {
			return reply
		}
	}
	return replies[len(also)]
}

// changes is what Set has to send.
func (m *Manager[T]) changes(s *Session[T]) ([]change, error) {
	now, err := encode(s.Value)
	if err != nil {
		return nil, err
	}
	if covers(s.stored, now, m.plan.names) {
		return s.pending, nil
	}
	// The texts differ. Another program may have written the same in other words, so what was read is written anew.
	var before T
	if err := m.plan.decode(reflect.ValueOf(&before).Elem(), s.stored); err != nil {
		return nil, err
	}
	was, err := encode(before)
	if err != nil {
		return nil, err
	}
	return append(diff(was, now), s.pending...), nil
}

func (m *Manager[T]) save(ctx context.Context, s *Session[T], changes []change) (ok bool, err error) {
	sealed := changes
	if s.seal != nil {
		sealed = s.seal.changes(changes)
	}
	extend := m.cfg.AskAlways || !m.hints.fresh(s.at.digest, time.Now())
	args := m.saveArgs(lookup(s.wire), sealed, extend)
	for range hops {
		keys := m.keys.of(s.at)
		if !extend {
			keys = keys[:1]
		}
		n, text, err := codeAnd(m.exec(ctx, s.at, save, keys, args))
		switch {
		case err != nil:
			return false, wrap("set", err)
		case n == done:
			if slack, err := strconv.Atoi(text); err == nil && slack > 0 {
				m.extended(s.at, time.Duration(slack)*time.Millisecond)
			}
			s.wire, s.pending = apply(s.wire, sealed), nil
			bytes := len(m.keys.session(s.at)) + headBytes
			for _, line := range s.wire {
				bytes += len(line.name) + len(line.value) + len(`"":,`) + 1
			}
			m.cfg.Hooks.Written(bytes)
			if s.seal == nil {
				s.stored = s.wire
			} else {
				s.stored = apply(s.stored, changes)
			}
			return true, nil
		case n == nothing:
			return false, nil
		case n == conflict:
			return false, fmt.Errorf("%w: %q", ErrConflict, text)
		case n == tooLarge:
			return false, fmt.Errorf("%w: %s bytes, more than %d", ErrTooLarge, text, m.cfg.MaxBytes)
		}
		if s.at, ok = parsePlace(text); !ok {
			return false, errNoSession
		}
		s.old = true // from here on a renewal or a login would be that of another token's session
	}
	return false, nil
}

// saveArgs are those of save.lua. What is the default is not sent: it would be a tenth of the call.
func (m *Manager[T]) saveArgs(old func(string) (string, bool), changes []change, extend bool) (args []string) {
	options := "@="
	if m.cfg.MaxBytes != DefaultMaxBytes {
		options += strconv.Itoa(m.cfg.MaxBytes)
	}
	if m.cfg.Conflict == Compare {
		options += "c"
	}
	if extend {
		options += "x"
	}
	if options != "@=" {
		args = append(args, options)
	}
	for _, c := range changes {
		args = append(args, c.name, c.value)
		if m.cfg.Conflict == Compare {
			was, _ := old(c.name)
			args = append(args, was)
		}
	}
	return args
}

// codeAnd reads a reply of a number and a text.
func codeAnd(result valkey.ValkeyResult) (code int64, text string, err error) {
	reply, err := result.ToArray()
	if err != nil {
		return 0, "", err
	}
	if len(reply) != 2 {
		return 0, "", fmt.Errorf("the server answered %d values, not 2", len(reply))
	}
	if code, err = reply[0].AsInt64(); err != nil {
		return 0, "", err
	}
	if code == nothing {
		return code, "", nil
	}
	text, err = reply[1].ToString()
	return code, text, err
}

// Package writebehind acknowledges writes on the server and brings them to their origin later: the newest value of
// each key once in a window, in batches.
//
// [New] makes a Store for the caller's own type, [Store.Start] begins to drain, [Store.Put] is what most callers
// want, and [Store.Close] brings what is left to the origin. A write is acknowledged when the value and its place
// in the log are on the server, in one step; what the server may lose then, docs/write-behind.md says.
//
// # Keys
//
//	key                            type    value                                                            ends
//	fr:behind:{NAME:P}:val:KEY     string  the value: a header, its version, its bytes                      never while it waits; then after the TTL
//	fr:behind:{NAME:P}:fill:KEY    string  the token of who loads the value                                 after the load's timeout
//	fr:behind:{NAME:P}:log         hash    .KEY -> version, since when, and how often the write has failed  with the write, if that is done
//	                                       version, claims, done, dead: the last version, and counts        never
//	fr:behind:{NAME:P}:due         zset    KEY -> when it is due (Unix ms)                                  with the last key
//	fr:behind:{NAME:P}:flight      zset    KEY -> since when it is at the origin (Unix ms)                  with the last key
//	fr:behind:{NAME:P}:dead        hash    KEY -> the dead letter                                           with the last letter
//	fr:behind:{NAME:P}:own         string  the token of who drains the partition                            after the lease, 5 s, unless it is renewed
//	fr:behind:{NAME}:layout        string  the number of partitions                                         never
package writebehind

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/codec"
	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/link"
	"github.com/flatrate/flatrate/internal/patience"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/flatrate/flatrate/internal/server"
	"github.com/valkey-io/valkey-go"
)

//go:embed put.lua
var putLua string

//go:embed miss.lua
var missLua string

//go:embed fill.lua
var fillLua string

var (
	putScript  = script.New(putLua)
	missScript = script.New(missLua)
	fillScript = script.New(fillLua)
)

var (
	// ErrNotFound is returned by [Store.Get] for a key that was deleted, or that neither the store nor load has. Load
	// returns it, wrapped or not, to say so.
	ErrNotFound = errors.New("writebehind: not found")
	// ErrFull is returned, wrapped, by [Store.Put] and [Store.Delete] if the log has no room: nothing was written.
	ErrFull = errors.New("writebehind: the log is full")
	// ErrClosed is returned after [Store.Close].
	ErrClosed = errors.New("writebehind: closed")
	// ErrEviction is returned, wrapped, where the server may evict keys that have no TTL: it would drop writes that it
	// has acknowledged.
	ErrEviction = errors.New("writebehind: the server may evict the log")
)

// MaxWait is how long a call waits for one answer of the server at most, if ctx has no deadline. A ctx that is cancelled
// during such a wait does not shorten it.
const MaxWait = patience.Default

// MaxKey is the longest key, in bytes.
const MaxKey = 1024

// Store keeps values of type V that wait for their origin. It is safe for concurrent use.
type Store[V any] struct {
	way       *link.Link
	cfg       Config[V]
	keys      keySpace
	leases    *lease.Server
	unmarshal func([]byte) (V, error)
	checked   atomic.Bool // that the server is fit for it
	gates     []chan struct{}

	mu       sync.Mutex
	started  bool
	drainers []*drainer[V]
	closed   chan struct{} // closed when Close begins
	running  sync.WaitGroup
	quit     context.CancelFunc // ends what drains
}

// New returns a Store on client, which stays the caller's to close. Nothing is sent. The error names the field of
// cfg that is wrong.
func New[V any](client valkey.Client, cfg Config[V]) (*Store[V], error) {
	if client == nil {
		return nil, errors.New("writebehind: client is nil")
	}
	cfg.setDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	keys, err := newKeySpace(cfg.Prefix, cfg.Name, cfg.Partitions)
	if err != nil {
		return nil, err
	}
	s := &Store[V]{
		way: &link.Link{Client: client}, cfg: cfg, keys: keys, leases: lease.On(client),
		unmarshal: codec.Unmarshaler[V](cfg.Codec),
		gates:     make([]chan struct{}, cfg.Partitions),
		closed:    make(chan struct{}),
	}
	for i := range s.gates {
		s.gates[i] = make(chan struct{}, 1)
	}
	return s, nil
}

// Start checks the server, and begins to drain if Config.Origin is set: each partition that nobody else drains. Two
// round trips. The error says why the server is not fit: [ErrEviction], or another number of partitions.
func (s *Store[V]) Start(ctx context.Context) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed() {
		return ErrClosed
	}
	if s.started || s.cfg.Origin == nil {
		return nil
	}
	s.started = true
	running, quit := context.WithCancel(context.WithoutCancel(ctx)) //nolint:gosec // Close calls it
	s.quit = quit
	for p := range s.cfg.Partitions {
		d := newDrainer(s, p)
		s.drainers = append(s.drainers, d)
		s.running.Go(func() { d.run(running) })
	}
	return nil
}

// check asks the server once whether it may evict the log, and whether others have as many partitions.
func (s *Store[V]) check(ctx context.Context) error {
	if s.checked.Load() {
		return nil
	}
	ctx = s.way.Wait.Bounded(ctx)
	info, err := server.Probe(ctx, s.way.Client)
	if err != nil {
		return fmt.Errorf("writebehind: start: %w", err)
	}
	if strings.HasPrefix(info.Eviction, "allkeys") {
		return fmt.Errorf("%w, and with it writes that were acknowledged: its maxmemory-policy is %s, not noeviction or volatile-*", ErrEviction, info.Eviction)
	}
	want := strconv.Itoa(s.cfg.Partitions)
	b := s.way.Client.B()
	replies := s.way.Client.DoMulti(ctx, b.Set().Key(s.keys.layout()).Value(want).Nx().Build(), b.Get().Key(s.keys.layout()).Build())
	has, err := replies[1].ToString()
	if err == nil && !valkey.IsValkeyNil(replies[0].Error()) {
		err = replies[0].Error()
	}
	if err != nil {
		return fmt.Errorf("writebehind: start: %w", err)
	}
	if has != want {
		return fmt.Errorf("writebehind: Config.Partitions is %s, and others have %q", want, has)
	}
	s.checked.Store(true)
	return nil
}

// Put writes a value: once it has returned nil, the server has the value and its place in the log, every [Store.Get]
// returns it, and it goes to the origin when the window of its key ends. One round trip, the first call of a
// process two more. It ends with ctx, or after [MaxWait] if ctx has no deadline; then nobody knows whether it was
// written, and to write it again does no harm. With [Block] it waits for room until ctx ends.
//
// A key has up to [MaxKey] bytes, of any kind.
func (s *Store[V]) Put(ctx context.Context, key string, value V) error {
	text, err := s.encode(value)
	if err != nil {
		return fmt.Errorf("writebehind: put: %w", err)
	}
	return s.write(ctx, "put", key, headPut, text)
}

// Delete writes that a key has no value any more, as [Store.Put] writes one: the origin hears of it in its turn.
func (s *Store[V]) Delete(ctx context.Context, key string) error {
	return s.write(ctx, "delete", key, headDelete, "")
}

func (s *Store[V]) write(ctx context.Context, op, key, head, text string) error {
	if len(key) > MaxKey {
		return fmt.Errorf("writebehind: %s: the key is over %d bytes", op, MaxKey)
	}
	if s.isClosed() {
		return ErrClosed
	}
	if err := s.check(ctx); err != nil {
		return err
	}
	p := s.keys.partition(key)
	at := &s.keys.places[p]
	keys := []string{at.value(key), at.log, at.due}
	args := []string{key, head, text, milliseconds(s.cfg.Window), strconv.Itoa(s.cfg.Limit / s.cfg.Partitions)}
	put := func() (ok bool, err error) {
		version, err := s.way.Exec(ctx, putScript, keys, args...).ToString()
		if err != nil {
			return false, fmt.Errorf("writebehind: %s: %w", op, err)
		}
		return version != "0", nil
	}
	ok, err := put()
	if ok || err != nil {
		return err
	}
	s.cfg.Hooks.Full(key)
	if s.cfg.Full == Refuse {
		return fmt.Errorf("%w: %d keys wait in partition %d", ErrFull, s.cfg.Limit/s.cfg.Partitions, p)
	}
	return s.waitForRoom(ctx, p, put)
}

const (
	firstAsk = 5 * time.Millisecond // between two attempts while the log is full, doubling ...
	lastAsk  = 100 * time.Millisecond
)

// waitForRoom repeats put until it has room. One caller of the process asks at a time, the others wait for it.
func (s *Store[V]) waitForRoom(ctx context.Context, p int, put func() (bool, error)) error {
	ended := func() error { return fmt.Errorf("%w: %w", ErrFull, context.Cause(ctx)) }
	select {
	case s.gates[p] <- struct{}{}:
	case <-ctx.Done():
		return ended()
	case <-s.closed:
		return ErrClosed
	}
	defer func() { <-s.gates[p] }()
	for pause := firstAsk; ; pause = min(2*pause, lastAsk) {
		if ctx.Err() != nil {
			return ended()
		}
		if ok, err := put(); ok || err != nil {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ended()
		case <-s.closed:
			return ErrClosed
		}
	}
}

// Get returns the value that was written last, whether the origin has it yet or not. If there is none in the store,
// load asks the origin, and what it returns is kept for Config.TTL unless somebody has written meanwhile; a nil load
// means [ErrNotFound]. One round trip; with load three.
//
// If the server can't be asked, Get returns an error and does not load: the origin may lack the last writes.
func (s *Store[V]) Get(ctx context.Context, key string, load func(context.Context) (V, error)) (value V, err error) {
	p := s.keys.partition(key)
	at := &s.keys.places[p]
	b, err := s.way.Do(ctx, at.value(key), s.way.Client.B().Get().Key(at.value(key)).Build()).AsBytes()
	switch {
	case err == nil:
		return s.decode(b)
	case !valkey.IsValkeyNil(err):
		return value, fmt.Errorf("writebehind: get: %w", err)
	case load == nil:
		return value, ErrNotFound
	case s.cfg.TTL == 0:
		return s.runLoad(ctx, load)
	}
	token := rand.Text()
	keys := []string{at.value(key), at.fill(key)}
	b, err = s.way.Exec(ctx, missScript, keys, token, milliseconds(s.cfg.LoadTimeout+MaxWait)).AsBytes()
	switch {
	case err == nil:
		return s.decode(b)
	case !valkey.IsValkeyNil(err):
		return value, fmt.Errorf("writebehind: get: %w", err)
	}
	if value, err = s.runLoad(ctx, load); err != nil && !errors.Is(err, ErrNotFound) {
		return value, err
	}
	text := headDelete + loaded
	if err == nil {
		body, err := s.encode(value)
		if err != nil {
			s.cfg.Hooks.Error("load", err)
			return value, nil
		}
		text = headPut + loaded + body
	}
	kept, fillErr := s.way.Exec(context.WithoutCancel(ctx), fillScript, keys, token, text, milliseconds(s.cfg.TTL)).AsBool()
	if fillErr != nil {
		s.cfg.Hooks.Error("load", fillErr)
	} else if !kept {
		s.cfg.Hooks.Refused(key)
	}
	return value, err
}

func (s *Store[V]) runLoad(ctx context.Context, load func(context.Context) (V, error)) (value V, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.LoadTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{p, debug.Stack()}
		}
	}()
	return load(ctx)
}

func (s *Store[V]) encode(value V) (text string, err error) {
	defer func() {
		if p := recover(); p != nil { // a codec or a MarshalJSON is not ours
			err = fmt.Errorf("encoding panicked: %v", p)
		}
	}()
	b, err := codec.Marshal(s.cfg.Codec, value)
	return string(b), err
}

func (s *Store[V]) decode(b []byte) (value V, err error) {
	e, err := parseEntry(b)
	if err != nil {
		return value, fmt.Errorf("writebehind: get: %w", err)
	}
	if e.deleted {
		return value, ErrNotFound
	}
	return s.decodeBody(e.body)
}

func (s *Store[V]) decodeBody(b []byte) (value V, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("writebehind: decoding panicked: %v", p)
		}
	}()
	if value, err = s.unmarshal(b); err != nil {
		return value, fmt.Errorf("writebehind: decoding: %w", err)
	}
	return value, nil
}

// PanicError is a panic of the caller's code, as an error.
type PanicError struct {
	// Value is what it panicked with, and Stack where.
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("writebehind: panic: %v", e.Value) }

func (s *Store[V]) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// Close ends the Store. What waits in the partitions that this process drains, and was written before the call, goes
// to the origin at once, but for what has failed and has its pause; then others may drain them. Writes fail with
// [ErrClosed] as soon as it is called.
//
// It returns when that is done, or ctx has ended; the error says how many keys still wait here. They are safe in the log:
// whoever drains next goes on with them. A second call waits again.
func (s *Store[V]) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.isClosed() {
		close(s.closed)
	}
	quit := s.quit
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	var cause error
	select {
	case <-done:
	case <-ctx.Done():
		cause = context.Cause(ctx)
	}
	if quit != nil {
		quit()
	}
	if cause != nil {
		select { // what was cut off has a moment to give its partitions back
		case <-done:
		case <-time.After(MaxWait):
		}
	}
	left := int64(0)
	for _, d := range s.drainers {
		left += d.left.Load()
	}
	switch {
	case cause != nil:
		return fmt.Errorf("writebehind: close: some keys still wait in the log: %w", cause)
	case left > 0:
		return fmt.Errorf("writebehind: close: %d keys still wait in the log", left)
	}
	return nil
}

// Package writebehindtest is the conformance suite of package writebehind: what holds on every kind of server.
package writebehindtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/flatrate/flatrate/valkeytest"
)

// Run runs the suite against env.
func Run(t *testing.T, env valkeytest.Env) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, valkeytest.Env)
	}{
		{"PutGetDelete", putGetDelete},
		{"Keys", keys},
		{"Load", load},
		{"LoadIsFenced", loadIsFenced},
		{"Coalesce", coalesce},
		{"WhileAtOrigin", whileAtOrigin},
		{"DeleteIsAWrite", deleteIsAWrite},
		{"Poison", poison},
		{"Rejected", rejected},
		{"Permanent", permanent},
		{"Outage", outage},
		{"Replay", replay},
		{"Superseded", superseded},
		{"DeadLimit", deadLimit},
		{"BadOrigins", badOrigins},
		{"Full", full},
		{"Block", block},
		{"Takeover", takeover},
		{"TwoDrainers", twoDrainers},
		{"Layout", layout},
		{"Gone", gone},
		{"Large", large},
		{"Waiting", waiting},
		{"Model", model},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, env) })
	}
}

// patient is a context for calls on a machine that others use too: they would else end after a second.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

type user struct {
	Name string
	N    int `json:",omitempty"`
}

// window is short: no test may hope to be done within it.
const window = 60 * time.Millisecond

// origin keeps what it was given, and fails as it is told.
type origin[V any] struct {
	mu    sync.Mutex
	rows  map[string]writebehind.Write[V]
	log   []writebehind.Write[V] // all that it took
	stale int                    // calls with a version that is not newer
	calls int
	fail  func([]writebehind.Write[V]) error // called without the lock
}

func (o *origin[V]) write(_ context.Context, batch []writebehind.Write[V]) error {
	o.mu.Lock()
	fail := o.fail
	o.calls++
	o.mu.Unlock()
	var rejected writebehind.Rejected
	if fail != nil {
		if err := fail(batch); err != nil && !errors.As(err, &rejected) {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rows == nil {
		o.rows = map[string]writebehind.Write[V]{}
	}
	for i, w := range batch {
		if rejected[i] != nil {
			continue
		}
		if w.Version <= o.rows[w.Key].Version {
			o.stale++
			continue
		}
		o.rows[w.Key] = w
		o.log = append(o.log, w)
	}
	if rejected != nil {
		return rejected
	}
	return nil
}

func (o *origin[V]) failing(fail func([]writebehind.Write[V]) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail = fail
}

func (o *origin[V]) row(key string) (writebehind.Write[V], bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w, ok := o.rows[key]
	return w, ok
}

func (o *origin[V]) taken() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.log)
}

// newStore returns a store that is closed with the test; one with an Origin drains.
func newStore[V any](t *testing.T, env valkeytest.Env, cfg writebehind.Config[V]) *writebehind.Store[V] {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	if cfg.Window == 0 {
		cfg.Window = window
	}
	if cfg.Partitions == 0 {
		cfg.Partitions = 2
	}
	if cfg.Backoff == 0 {
		cfg.Backoff, cfg.MaxBackoff = 5*time.Millisecond, 20*time.Millisecond
	}
	s, err := writebehind.New(env.Client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(patient(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
		defer cancel()
		_ = s.Close(ctx)
	})
	return s
}

func put[V any](t *testing.T, s *writebehind.Store[V], key string, value V) {
	t.Helper()
	if err := steady(t, func() error { return s.Put(patient(t), key, value) }); err != nil {
		t.Fatalf("Put(%.40q): %v", key, err)
	}
}

// steady repeats a call while the server counts as away, as after a drainer's call that took longer than a second.
func steady(t *testing.T, call func() error) (err error) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		if err = call(); err == nil || !strings.Contains(err.Error(), "the server is away") {
			return err
		}
	}
	return err
}

// get is Get without a load.
func get[V any](t *testing.T, s *writebehind.Store[V], key string) (value V, err error) {
	t.Helper()
	err = steady(t, func() error { value, err = s.Get(patient(t), key, nil); return err })
	return value, err
}

func want[V comparable](t *testing.T, s *writebehind.Store[V], key string, value V) {
	t.Helper()
	if got, err := get(t, s, key); err != nil || got != value {
		t.Fatalf("Get(%.40q) = %+v, %v; want %+v", key, got, err, value)
	}
}

func wantNone[V any](t *testing.T, s *writebehind.Store[V], key string) {
	t.Helper()
	if got, err := get(t, s, key); !errors.Is(err, writebehind.ErrNotFound) {
		t.Fatalf("Get(%.40q) = %+v, %v; want none", key, got, err)
	}
}

// until lets the server's time pass until done says so.
func until(t *testing.T, env valkeytest.Env, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s: not yet %s", what)
		}
		env.Advance(10 * time.Millisecond)
		if env.Embedded { // whose time passes at once
			<-time.After(time.Millisecond)
		}
	}
}

// drained waits until nothing waits.
func drained[V any](t *testing.T, env valkeytest.Env, s *writebehind.Store[V]) {
	t.Helper()
	until(t, env, "drained", func() bool { return stats(t, s).Waiting == 0 })
}

func stats[V any](t *testing.T, s *writebehind.Store[V]) writebehind.Stats {
	t.Helper()
	all, err := s.Stats(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func letters[V any](t *testing.T, s *writebehind.Store[V]) (all []writebehind.DeadLetter[V]) {
	t.Helper()
	for l, err := range s.DeadLetters(patient(t)) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

func putGetDelete(t *testing.T, env valkeytest.Env) {
	var o origin[user]
	s := newStore(t, env, writebehind.Config[user]{Origin: o.write})
	wantNone(t, s, "a")
	put(t, s, "a", user{Name: "ann"})
	want(t, s, "a", user{Name: "ann"})
	put(t, s, "a", user{Name: "anna"})
	want(t, s, "a", user{Name: "anna"})
	put(t, s, "b", user{})
	want(t, s, "b", user{})
	if err := s.Delete(patient(t), "b"); err != nil {
		t.Fatal(err)
	}
	wantNone(t, s, "b")
	if err := s.Delete(patient(t), "never there"); err != nil {
		t.Fatal(err)
	}
	drained(t, env, s)
	want(t, s, "a", user{Name: "anna"}) // it is kept for the TTL
	wantNone(t, s, "b")
	a, _ := o.row("a")
	b, ok := o.row("b")
	if a.Value.Name != "anna" || a.Deleted || !b.Deleted || !ok || a.Token() == b.Token() || a.Token() == "" {
		t.Errorf("the origin has %+v, %+v", a, b)
	}
	if all := stats(t, s); all.Done < 3 || all.Dead != 0 || all.Drained != 2 || all.AtOrigin != 0 {
		t.Errorf("%+v", all)
	}
}

// keys holds that no key meets another one, in the server and at the origin.
func keys(t *testing.T, env valkeytest.Env) {
	var o origin[string]
	prefix := valkeytest.Prefix(t)
	all := []string{"", "%", "{", "}", "{}", "a", "a ", "b:{a}", "%7Ba%7D", "a\x00", "a\n", "*", "ü", "\xff", strings.Repeat("x", 513), strings.Repeat("x", 1024)}
	for _, name := range []string{"", "a", "a:1", "a{b}"} {
		s := newStore(t, env, writebehind.Config[string]{Prefix: prefix, Name: name, Origin: o.write})
		for _, key := range all {
			wantNone(t, s, key)
			put(t, s, key, name+key)
		}
		drained(t, env, s)
		for _, key := range all {
			want(t, s, key, name+key)
			if w, _ := o.row(key); w.Value != name+key {
				t.Errorf("%q: the origin has %q for %.40q", name, w.Value, key)
			}
		}
		if err := s.Put(patient(t), strings.Repeat("x", 1025), ""); err == nil {
			t.Error("a key of 1,025 bytes was taken")
		}
	}
}

func load(t *testing.T, env valkeytest.Env) {
	s := newStore(t, env, writebehind.Config[user]{TTL: 50 * time.Millisecond})
	loads := 0
	get := func(err error) (user, error) {
		return s.Get(patient(t), "k", func(context.Context) (user, error) { loads++; return user{Name: "ann"}, err })
	}
	broken := errors.New("origin")
	if _, err := get(broken); err != broken || loads != 1 { //nolint:errorlint // as it is, not wrapped
		t.Fatalf("%v, %d loads", err, loads)
	}
	for range 3 {
		if got, err := get(nil); err != nil || got.Name != "ann" || loads != 2 {
			t.Fatalf("%+v, %v, %d loads", got, err, loads)
		}
	}
	env.Advance(51 * time.Millisecond)
	for range 3 {
		if _, err := get(fmt.Errorf("no row: %w", writebehind.ErrNotFound)); !errors.Is(err, writebehind.ErrNotFound) || loads != 3 {
			t.Fatalf("%v, %d loads", err, loads)
		}
	}
	if _, err := s.Get(patient(t), "panics", func(context.Context) (user, error) { panic("load") }); err == nil {
		t.Error("a panic is no error")
	}
}

// loadIsFenced writes while a load is under way: what was loaded is not kept.
func loadIsFenced(t *testing.T, env valkeytest.Env) {
	refused := 0
	s := newStore(t, env, writebehind.Config[string]{Hooks: writebehind.Hooks{Refused: func(string) { refused++ }}})
	got, err := s.Get(patient(t), "k", func(context.Context) (string, error) {
		put(t, s, "k", "new")
		return "old", nil
	})
	if err != nil || got != "old" || refused != 1 {
		t.Errorf("%q, %v, refused %d", got, err, refused)
	}
	want(t, s, "k", "new")
}

// Package locktest is the conformance suite of package lock: what holds on every kind of server.
package locktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
)

// Run runs the suite against env.
func Run(t *testing.T, env valkeytest.Env) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, valkeytest.Env)
	}{
		{"Owner", owner},
		{"Expiry", expiry},
		{"Names", names},
		{"ForeignType", foreignType},
		{"BadNames", badNames},
		{"Fence", fence},
		{"Order", order},
		{"Handover", handover},
		{"Cancelled", cancelled},
		{"Crowd", crowd},
		{"Do", do},
		{"Ends", ends},
		{"Several", several},
		{"Lead", lead},
		{"Model", model},
		{"Permits", permits},
		{"DeadPermit", deadPermit},
		{"PermitOrder", permitOrder},
		{"PermitCrowd", permitCrowd},
		{"PermitModel", permitModel},
		{"ReadWrite", readWrite},
		{"DeadWriter", deadWriter},
		{"Fair", fair},
		{"ReadersBehind", readersBehind},
		{"ReadWriteCrowd", readWriteCrowd},
		{"ReadWriteModel", readWriteModel},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, env) })
	}
}

func newLocker(t *testing.T, env valkeytest.Env, cfg lock.Config) *lock.Locker {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	l, err := lock.New(env.Client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// try fails the test unless TryAcquire answers as wanted.
func try(t *testing.T, l *lock.Locker, name string, want bool) *lock.Lock {
	t.Helper()
	held, ok, err := inTime(t, name, l.TryAcquire)
	if err != nil || ok != want || (held != nil) != want {
		t.Fatalf("TryAcquire(%.40q) = %v, %v, %v; want %v", name, held, ok, err, want)
	}
	return held
}

// inTime calls a TryAcquire again if its answer came after the end of what it took: on a busy machine that
// happens to locks of some milliseconds.
func inTime[H any](t *testing.T, name string, try func(context.Context, string) (H, bool, error)) (held H, ok bool, err error) {
	t.Helper()
	held, ok, err = try(t.Context(), name)
	for late := errors.Is(err, lock.ErrNotHeld); late && !ok && t.Context().Err() == nil; {
		held, ok, err = try(t.Context(), name)
	}
	return held, ok, err
}

func owner(t *testing.T, env valkeytest.Env) {
	ctx, l := t.Context(), newLocker(t, env, lock.Config{TTL: time.Hour})
	first := try(t, l, "n", true)
	try(t, l, "n", false)
	try(t, l, "other", true)
	if err := first.Extend(ctx, 0); err != nil {
		t.Fatalf("extend: %v", err)
	}
	if err := first.Extend(ctx, -time.Second); err == nil || errors.Is(err, lock.ErrNotHeld) {
		t.Fatalf("a negative ttl: %v", err)
	}
	if err := first.Release(ctx); err != nil {
		t.Fatalf("release: %v", err)
	}
	second := try(t, l, "n", true)
	for what, err := range map[string]error{"extend": first.Extend(ctx, 0), "release": first.Release(ctx)} {
		if !errors.Is(err, lock.ErrNotHeld) {
			t.Errorf("%s by a former owner: %v", what, err)
		}
	}
	try(t, l, "n", false)
	if err := second.Release(ctx); err != nil {
		t.Errorf("the second owner was harmed: %v", err)
	}
}

func expiry(t *testing.T, env valkeytest.Env) {
	ctx, prefix := t.Context(), valkeytest.Prefix(t)
	l := newLocker(t, env, lock.Config{Prefix: prefix, TTL: 30 * time.Millisecond, NoRenewal: true})
	lost := try(t, l, "n", true)
	env.Advance(31 * time.Millisecond)
	if err := lost.Extend(ctx, time.Hour); !errors.Is(err, lock.ErrNotHeld) {
		t.Fatalf("extend after the end: %v", err)
	}
	again := try(t, newLocker(t, env, lock.Config{Prefix: prefix, TTL: time.Hour}), "n", true)
	if err := lost.Release(ctx); !errors.Is(err, lock.ErrNotHeld) {
		t.Fatalf("release after the end: %v", err)
	}
	// So short that its context may end before the answer comes.
	if err := again.Extend(ctx, time.Millisecond); err != nil && !errors.Is(err, lock.ErrNotHeld) {
		t.Fatal(err)
	}
	env.Advance(2 * time.Millisecond)
	if err := again.Release(ctx); !errors.Is(err, lock.ErrNotHeld) {
		t.Fatalf("an extension to less than was left: %v", err)
	}
}

// names holds that no name meets another's lock.
func names(t *testing.T, env valkeytest.Env) {
	l := newLocker(t, env, lock.Config{TTL: time.Hour})
	for _, name := range []string{
		"%", "{", "}", "{}", "a", "a ", "{a}", "%7Ba%7D", "a\x00", "a\n", "*", "ü", "\xff", "own:a", "a:own",
		strings.Repeat("x", 512), strings.Repeat("x", 513), strings.Repeat("x", 1<<20),
	} {
		held := try(t, l, name, true)
		if held.Name() != name {
			t.Errorf("Name() = %.40q, want %.40q", held.Name(), name)
		}
		try(t, l, name, false)
	}
}

func badNames(t *testing.T, env valkeytest.Env) {
	l := newLocker(t, env, lock.Config{})
	if _, ok, err := l.TryAcquire(t.Context(), ""); ok || err == nil {
		t.Errorf("TryAcquire of no name: %v, %v", ok, err)
	}
	if _, err := l.Acquire(t.Context(), ""); err == nil {
		t.Error("Acquire of no name")
	}
}

// foreignType puts a list where a lock belongs: it is neither taken nor harmed.
func foreignType(t *testing.T, env valkeytest.Env) {
	ctx, prefix := t.Context(), valkeytest.Prefix(t)
	l := newLocker(t, env, lock.Config{Prefix: prefix})
	c, key := env.Client, prefix+":lock:{"+Tag("n")+"}:own:n"
	held := try(t, l, "n", true)
	for _, cmd := range [][]string{{"DEL", key}, {"RPUSH", key, "x"}} {
		if err := c.Do(ctx, c.B().Arbitrary(cmd[0]).Keys(cmd[1]).Args(cmd[2:]...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	try(t, l, "n", false)
	if err := held.Extend(ctx, 0); !errors.Is(err, lock.ErrNotHeld) {
		t.Errorf("extend: %v", err)
	}
	if err := held.Release(ctx); !errors.Is(err, lock.ErrNotHeld) {
		t.Errorf("release: %v", err)
	}
	if n, err := c.Do(ctx, c.B().Llen().Key(key).Build()).AsInt64(); err != nil || n != 1 {
		t.Errorf("the list was touched: %d, %v", n, err)
	}
}

// model drives the locks and a map with the same random schedule.
func model(t *testing.T, env valkeytest.Env) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	ctx, l := t.Context(), newLocker(t, env, lock.Config{TTL: time.Hour})
	var taken []*lock.Lock            // every lock that was ever taken
	owners := map[string]*lock.Lock{} // the model: who holds which name
	for step := range 1500 {
		name := string(rune('a' + random.IntN(4)))
		if op := random.IntN(4); op == 0 || len(taken) == 0 {
			held, ok, err := l.TryAcquire(ctx, name)
			if err != nil || ok != (owners[name] == nil) {
				t.Fatalf("step %d: TryAcquire(%s) = %v, %v; model: held %v", step, name, ok, err, owners[name] != nil)
			}
			if ok {
				taken, owners[name] = append(taken, held), held
			}
		} else {
			held := taken[max(0, len(taken)-1-random.IntN(6))]
			mine := owners[held.Name()] == held
			var err error
			switch op {
			case 1:
				err = held.Extend(ctx, time.Hour)
			case 2:
				err = held.Release(ctx)
				forget(owners, held)
			case 3: // let it end: a millisecond is less than the drift, so its context may end before the answer
				err = held.Extend(ctx, time.Millisecond)
				if end := new(lock.EndedError); mine && errors.As(err, &end) && end.Reason == lock.Expired {
					err = nil
				}
				if err == nil {
					env.Advance(2 * time.Millisecond)
				}
				forget(owners, held)
			}
			if mine != (err == nil) || !mine && !errors.Is(err, lock.ErrNotHeld) {
				t.Fatalf("step %d: op %d on %s: %v; model: held %v", step, op, held.Name(), err, mine)
			}
		}
	}
}

// forget removes held from the model if it is the owner.
func forget(owners map[string]*lock.Lock, held *lock.Lock) {
	if owners[held.Name()] == held {
		delete(owners, held.Name())
	}
}

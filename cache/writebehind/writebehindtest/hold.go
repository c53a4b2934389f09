package writebehindtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/flatrate/flatrate/valkeytest"
)

// full holds that a log that is full refuses new keys, and takes newer values of those that wait.
func full(t *testing.T, env valkeytest.Env) {
	heard := 0
	prefix := valkeytest.Prefix(t)
	s := newStore(t, env, writebehind.Config[int]{Prefix: prefix, Partitions: 1, Limit: 3, Hooks: writebehind.Hooks{Full: func(string) { heard++ }}})
	for k := range 3 {
		put(t, s, strconv.Itoa(k), k)
	}
	if err := s.Put(patient(t), "3", 3); !errors.Is(err, writebehind.ErrFull) || heard != 1 {
		t.Errorf("%v, heard %d", err, heard)
	}
	if err := s.Delete(patient(t), "4"); !errors.Is(err, writebehind.ErrFull) {
		t.Errorf("%v", err)
	}
	wantNone(t, s, "3")
	put(t, s, "2", 22)
	want(t, s, "2", 22)
	var o origin[int]
	d := newStore(t, env, writebehind.Config[int]{Prefix: prefix, Partitions: 1, Limit: 3, Origin: o.write})
	drained(t, env, d)
	put(t, s, "3", 3)
}

// block holds that writers wait for room, all of them, and that who waits may go.
func block(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	ctx, leave := context.WithCancel(t.Context())
	cfg := writebehind.Config[int]{Prefix: prefix, Partitions: 1, Limit: 3, Full: writebehind.Block, Hooks: writebehind.Hooks{Full: func(key string) {
		if key == "gone" {
			leave()
		}
	}}}
	s := newStore(t, env, cfg)
	for k := range 3 {
		put(t, s, strconv.Itoa(k), k)
	}
	if err := s.Put(ctx, "gone", 3); !errors.Is(err, writebehind.ErrFull) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	var o origin[int]
	cfg.Origin = o.write
	d := newStore(t, env, cfg)
	var writers sync.WaitGroup
	var written atomic.Int64
	for k := range 8 {
		writers.Go(func() {
			if err := s.Put(patient(t), "k"+strconv.Itoa(k), k); err != nil {
				t.Errorf("Put: %v", err)
			}
			written.Add(1)
		})
	}
	until(t, env, "written", func() bool { return written.Load() == 8 })
	writers.Wait()
	drained(t, env, d)
	if o.taken() != 11 {
		t.Errorf("%d taken", o.taken())
	}
	if _, ok := o.row("gone"); ok {
		t.Error("a refused write reached the origin")
	}
}

// takeover lets a drainer go that has claimed keys and says nothing: another one goes on with them.
func takeover(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	var first, second origin[int]
	entered := make(chan struct{}, 8)
	stop := make(chan struct{})
	defer close(stop)
	first.failing(func([]writebehind.Write[int]) error { entered <- struct{}{}; <-stop; return errors.New("gone") })
	cfg := writebehind.Config[int]{Prefix: prefix, Partitions: 1, Origin: first.write, Lease: 200 * time.Millisecond, Calls: 1}
	dying := newStore(t, env, cfg)
	for k := range 10 {
		put(t, dying, strconv.Itoa(k), k)
	}
	until(t, env, "at the origin", func() bool { return len(entered) > 0 })
	lose(t, env, prefix) // as after a pause that was longer than the lease
	cfg.Origin = second.write
	heir := newStore(t, env, cfg)
	drained(t, env, heir)
	if second.taken() != 10 {
		t.Errorf("%d taken", second.taken())
	}
}

// lose gives the lease of the only partition to somebody who does nothing with it, until it ends.
func lose(t *testing.T, env valkeytest.Env, prefix string) {
	t.Helper()
	set := env.Client.B().Set().Key(prefix + ":behind:{default:0}:own").Value("another").PxMilliseconds(200).Build()
	if err := env.Client.Do(patient(t), set).Error(); err != nil {
		t.Fatal(err)
	}
}

// twoDrainers takes the lease away while both drain, again and again: nothing is lost, and by its versions the origin
// never goes back.
func twoDrainers(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	var o origin[int]
	o.failing(func([]writebehind.Write[int]) error {
		if rand.IntN(4) == 0 {
			return errors.New("sometimes")
		}
		return nil
	})
	cfg := writebehind.Config[int]{
		Prefix: prefix, Partitions: 1, Origin: o.write, Window: 10 * time.Millisecond, Lease: 200 * time.Millisecond, Batch: 5, Attempts: 1000,
	}
	a := newStore(t, env, cfg)
	newStore(t, env, cfg)
	const keys = 20
	for n := range 100 {
		put(t, a, strconv.Itoa(n%keys), n)
		if n%30 == 15 {
			lose(t, env, prefix)
		}
		env.Advance(5 * time.Millisecond)
	}
	drained(t, env, a)
	o.mu.Lock()
	defer o.mu.Unlock()
	for k := range keys {
		if w := o.rows[strconv.Itoa(k)]; w.Value != 100-keys+k {
			t.Errorf("key %d: %+v", k, w)
		}
	}
	last := map[string]int64{}
	for _, w := range o.log {
		if w.Version <= last[w.Key] {
			t.Errorf("%+v after %d", w, last[w.Key])
		}
		last[w.Key] = w.Version
	}
}

func layout(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	put(t, newStore(t, env, writebehind.Config[int]{Prefix: prefix, Partitions: 4}), "k", 1)
	other, err := writebehind.New(env.Client, writebehind.Config[int]{Prefix: prefix, Partitions: 8})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{other.Start(patient(t)), other.Put(patient(t), "k", 2)} {
		if err == nil || !strings.Contains(err.Error(), "Config.Partitions") {
			t.Errorf("another number of partitions: %v", err)
		}
	}
}

// gone takes the values away from under the log: the writes are dead letters that say so.
func gone(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	var o origin[int]
	s := newStore(t, env, writebehind.Config[int]{Prefix: prefix, Partitions: 1, Origin: o.write})
	at := prefix + ":behind:{default:0}:val:"
	for k, cmd := range [][]string{{"DEL", at + "0"}, {"SET", at + "1", "\"foreign\""}, {"SET", at + "2", "\xFB\x01P7 no JSON"}} {
		put(t, s, strconv.Itoa(k), k)
		if err := env.Client.Do(patient(t), env.Client.B().Arbitrary(cmd[0]).Keys(cmd[1]).Args(cmd[2:]...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, "list", 3)
	for _, cmd := range [][]string{{"DEL"}, {"RPUSH", "x"}} {
		if err := env.Client.Do(patient(t), env.Client.B().Arbitrary(cmd[0]).Keys(at+"list").Args(cmd[1:]...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, "good", 4)
	drained(t, env, s)
	all := letters(t, s)
	if len(all) != 4 || o.taken() != 1 {
		t.Errorf("%d letters, %d taken", len(all), o.taken())
	}
	for _, l := range all {
		if l.Err == nil || l.Reason == "" {
			t.Errorf("%+v", l)
		}
	}
	if _, err := s.Get(patient(t), "3", nil); !errors.Is(err, writebehind.ErrNotFound) {
		t.Error(err)
	}
}

// large has values of a megabyte: a call gets no more of them than BatchBytes.
func large(t *testing.T, env valkeytest.Env) {
	var o origin[string]
	var most atomic.Int64
	o.failing(func(batch []writebehind.Write[string]) error {
		most.Store(max(most.Load(), int64(len(batch))))
		return nil
	})
	s := newStore(t, env, writebehind.Config[string]{Origin: o.write, Partitions: 1, BatchBytes: 5 << 19})
	value := strings.Repeat("x", 1<<20)
	for k := range 6 {
		put(t, s, strconv.Itoa(k), value)
	}
	put(t, s, "more", strings.Repeat(value, 3)) // than a call may have, by itself
	drained(t, env, s)
	if most.Load() > 2 || o.taken() != 7 {
		t.Errorf("%d in one call, %d taken", most.Load(), o.taken())
	}
	if w, _ := o.row("more"); len(w.Value) != 3<<20 {
		t.Errorf("%d bytes", len(w.Value))
	}
}

func waiting(t *testing.T, env valkeytest.Env) {
	s := newStore(t, env, writebehind.Config[int]{})
	for k := range 250 {
		put(t, s, strconv.Itoa(k), k)
	}
	seen := map[string]bool{}
	for w, err := range s.Waiting(patient(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if w.Since.IsZero() || w.AtOrigin || w.Tries != 0 || w.Bytes < 1 {
			t.Errorf("%+v", w)
		}
		seen[w.Key] = true
	}
	for _, err := range s.Waiting(patient(t)) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	env.Advance(2 * window)
	if all := stats(t, s); len(seen) != 250 || all.Waiting != 250 || all.Late < window || all.Drained != 0 {
		t.Errorf("%d seen, %+v", len(seen), all)
	}
}

// model drives the store, an origin that fails at times, and a map with the same random schedule.
func model(t *testing.T, env valkeytest.Env) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var o origin[int]
	var mu sync.Mutex
	failures := rand.New(rand.NewPCG(seed, 1))
	o.failing(func(batch []writebehind.Write[int]) error {
		mu.Lock()
		defer mu.Unlock()
		switch failures.IntN(6) {
		case 0:
			return errors.New("all")
		case 1:
			return writebehind.Rejected{failures.IntN(len(batch)): errors.New("one")}
		}
		return nil
	})
	cfg := writebehind.Config[int]{Prefix: valkeytest.Prefix(t), Origin: o.write, Window: 5 * time.Millisecond, Attempts: 1000, Batch: 7}
	s := newStore(t, env, cfg)
	has := map[string]int{}
	for step := range 1000 {
		key := fmt.Sprint(random.IntN(30))
		switch random.IntN(4) {
		case 0, 1:
			put(t, s, key, step)
			has[key] = step
		case 2:
			if err := s.Delete(patient(t), key); err != nil {
				t.Fatal(err)
			}
			delete(has, key)
		default:
			if value, ok := has[key]; ok {
				want(t, s, key, value)
			} else {
				wantNone(t, s, key)
			}
		}
		if random.IntN(20) == 0 {
			env.Advance(5 * time.Millisecond)
		}
	}
	drained(t, env, s)
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, w := range o.rows {
		if value, ok := has[key]; ok == w.Deleted || ok && value != w.Value {
			t.Errorf("%s: the origin has %+v, the model %d, %v", key, w, value, ok)
		}
	}
	for key := range has {
		if _, ok := o.rows[key]; !ok {
			t.Errorf("%s is lost", key)
		}
	}
}

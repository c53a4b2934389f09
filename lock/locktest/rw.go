package locktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
)

func newRW(t *testing.T, env valkeytest.Env, cfg lock.Config) *lock.RW {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	rw, err := lock.NewRW(env.Client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return rw
}

// tryWrite fails the test unless TryAcquireWrite answers as wanted.
func tryWrite(t *testing.T, rw *lock.RW, want bool) *lock.Lock {
	t.Helper()
	held, ok, err := rw.TryAcquireWrite(t.Context(), "n")
	if err != nil || ok != want || (held != nil) != want {
		t.Fatalf("TryAcquireWrite: %v, %v, %v; want %v", held, ok, err, want)
	}
	return held
}

func readWrite(t *testing.T, env valkeytest.Env) {
	ctx, prefix := t.Context(), valkeytest.Prefix(t)
	rw := newRW(t, env, lock.Config{Prefix: prefix, TTL: time.Hour})
	var readers []*lock.Permit
	for range 20 {
		readers = append(readers, tryPermit(t, rw.TryAcquireRead, true))
	}
	tryWrite(t, rw, false)
	give(t, readers[:19]...)
	tryWrite(t, rw, false)
	give(t, readers[19])
	last := uint64(0)
	for range 3 {
		writer := tryWrite(t, rw, true)
		if writer.Fence() <= last {
			t.Errorf("fence %d after %d", writer.Fence(), last)
		}
		last = writer.Fence()
		tryWrite(t, rw, false)
		tryPermit(t, rw.TryAcquireRead, false)
		for what, err := range map[string]error{"extend": readers[0].Extend(ctx, 0), "release": readers[0].Release(ctx)} {
			if !errors.Is(err, lock.ErrNotHeld) {
				t.Errorf("%s by a former reader: %v", what, err)
			}
		}
		if err := writer.Extend(ctx, 0); err != nil {
			t.Errorf("the writer was harmed: %v", err)
		}
		give(t, writer)
	}
	broken := errors.New("broken")
	if err := rw.DoRead(ctx, "n", func(context.Context) error { tryWrite(t, rw, false); return broken }); !errors.Is(err, broken) {
		t.Errorf("DoRead: %v", err)
	}
	err := rw.DoWrite(ctx, "n", func(context.Context) error { tryPermit(t, rw.TryAcquireRead, false); return broken })
	if !errors.Is(err, broken) {
		t.Errorf("DoWrite: %v", err)
	}
	nothingLeft(t, env.Client, prefix, "rw", "rwwait", "rwplace")
}

// deadWriter lets a writer die, then a reader: whoever waits for it gets in when its lease ends.
func deadWriter(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	rw := newRW(t, env, lock.Config{Prefix: prefix, TTL: time.Hour})
	dying := newRW(t, env, lock.Config{Prefix: prefix, TTL: time.Hour, NoRenewal: true})
	dead := tryWrite(t, dying, true)
	read := make(chan *lock.Permit)
	go func() {
		p, err := rw.AcquireRead(t.Context(), "n")
		if err != nil {
			t.Error(err)
		}
		read <- p
	}()
	inQueue(t, env.Client, prefix, "rwwait", "n", 1)
	die(t, env, dead)
	tryWrite(t, rw, false) // it lets the reader in
	give(t, <-read)
	if err := dead.Release(t.Context()); !errors.Is(err, lock.ErrNotHeld) {
		t.Errorf("release after the end: %v", err)
	}
	deadReader := tryPermit(t, dying.TryAcquireRead, true)
	wrote := make(chan *lock.Lock)
	go func() {
		l, err := rw.AcquireWrite(t.Context(), "n")
		if err != nil {
			t.Error(err)
		}
		wrote <- l
	}()
	inQueue(t, env.Client, prefix, "rwwait", "n", 1)
	die(t, env, deadReader)
	tryPermit(t, rw.TryAcquireRead, false)
	give(t, <-wrote)
	nothingLeft(t, env.Client, prefix, "rw", "rwwait", "rwplace")
}

// fair queues readers and writers behind a reader, and expects them served in order: each writer alone,
// the two readers between them together.
func fair(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	rw := newRW(t, env, lock.Config{Prefix: prefix, TTL: time.Hour})
	first := tryPermit(t, rw.TryAcquireRead, true)
	served := make(chan string)
	var together, all sync.WaitGroup
	together.Add(2)
	for i, mode := range "wrrw" {
		all.Go(func() {
			what := fmt.Sprintf("%c%d", mode, i)
			if mode == 'w' {
				held, err := rw.AcquireWrite(t.Context(), "n")
				if err != nil {
					t.Error(err)
					return
				}
				served <- what
				give(t, held)
				return
			}
			held, err := rw.AcquireRead(t.Context(), "n")
			if err != nil {
				t.Error(err)
				return
			}
			together.Done() // neither goes on without the other
			together.Wait()
			served <- "r"
			give(t, held)
		})
		inQueue(t, env.Client, prefix, "rwwait", "n", int64(i+1))
	}
	tryPermit(t, rw.TryAcquireRead, false) // readers hold it, but a writer came first
	give(t, first)
	for _, want := range []string{"w0", "r", "r", "w3"} {
		if got := <-served; got != want {
			t.Fatalf("%s was served, not %s", got, want)
		}
	}
	all.Wait()
	nothingLeft(t, env.Client, prefix, "rw", "rwwait", "rwplace")
}

// readersBehind lets a waiting writer give up: the readers behind it get in at once.
func readersBehind(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	rw := newRW(t, env, lock.Config{Prefix: prefix, TTL: time.Hour})
	first := tryPermit(t, rw.TryAcquireRead, true)
	ctx, giveUp := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := rw.AcquireWrite(ctx, "n")
		gone <- err
	}()
	inQueue(t, env.Client, prefix, "rwwait", "n", 1)
	got := make(chan *lock.Permit)
	go func() {
		p, err := rw.AcquireRead(t.Context(), "n")
		if err != nil {
			t.Error(err)
		}
		got <- p
	}()
	inQueue(t, env.Client, prefix, "rwwait", "n", 2)
	giveUp()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("a wait whose context ends: %v", err)
	}
	give(t, first, <-got)
	nothingLeft(t, env.Client, prefix, "rw", "rwwait", "rwplace")
}

// readWriteCrowd lets readers and writers contend while some give up.
func readWriteCrowd(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	const callers, rounds = 12, 15
	var mu sync.Mutex
	readers, writers := 0, 0
	visit := func(count *int) {
		mu.Lock()
		defer mu.Unlock()
		if *count++; writers > 1 || writers == 1 && readers > 0 {
			t.Errorf("%d writers and %d readers at once", writers, readers)
		}
	}
	leave := func(count *int) {
		mu.Lock()
		defer mu.Unlock()
		*count--
	}
	var all sync.WaitGroup
	for caller := range callers {
		rw := newRW(t, env, lock.Config{Prefix: prefix, TTL: time.Hour})
		all.Go(func() {
			for round := range rounds {
				patience, hasty := 60*time.Second, (caller+round)%4 == 0
				if hasty {
					patience = time.Duration(round%5) * time.Millisecond
				}
				do, count := rw.DoRead, &readers
				if (caller+round)%3 == 0 {
					do, count = rw.DoWrite, &writers
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				err := do(ctx, "n", func(context.Context) error {
					visit(count)
					err := env.Client.Do(t.Context(), env.Client.B().Exists().Key("x").Build()).Error()
					leave(count)
					return err
				})
				cancel()
				if err != nil && !hasty {
					t.Errorf("%v", err)
				}
			}
		})
	}
	all.Wait()
	inQueue(t, env.Client, prefix, "rwwait", "n", 0)
	held, err := newRW(t, env, lock.Config{Prefix: prefix}).AcquireWrite(t.Context(), "n")
	if err != nil {
		t.Fatal(err)
	}
	give(t, held)
}

// readWriteModel drives a read-write lock and a model of it with the same random schedule.
func readWriteModel(t *testing.T, env valkeytest.Env) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	type hold interface {
		releaser
		Extend(context.Context, time.Duration) error
	}
	ctx, rw := t.Context(), newRW(t, env, lock.Config{TTL: time.Hour})
	var taken []hold          // everything that was ever taken
	living := map[hold]bool{} // the model: who holds; true for a writer
	for step := range 800 {
		writes := func() bool {
			for _, alone := range living {
				return alone
			}
			return false
		}()
		op := random.IntN(7)
		if op < 3 || len(taken) == 0 {
			var held hold
			var ok, want bool
			var err error
			if op == 0 {
				held, ok, err = rw.TryAcquireWrite(ctx, "n")
				want = len(living) == 0
			} else {
				held, ok, err = rw.TryAcquireRead(ctx, "n")
				want = !writes
			}
			if err != nil || ok != want {
				t.Fatalf("step %d: op %d = %v, %v; model: %d hold, a writer %v", step, op, ok, err, len(living), writes)
			}
			if ok {
				taken, living[held] = append(taken, held), op == 0
			}
			continue
		}
		held := taken[max(0, len(taken)-1-random.IntN(6))]
		_, mine := living[held]
		var err error
		switch op {
		case 3:
			err = held.Extend(ctx, time.Hour)
		case 4, 5:
			err = held.Release(ctx)
		case 6: // let it end: see model
			err = held.Extend(ctx, time.Millisecond)
			if end := new(lock.EndedError); mine && errors.As(err, &end) && end.Reason == lock.Expired {
				err = nil
			}
			if err == nil {
				env.Advance(2 * time.Millisecond)
			}
		}
		if mine != (err == nil) || !mine && !errors.Is(err, lock.ErrNotHeld) {
			t.Fatalf("step %d: op %d: %v; model: held %v", step, op, err, mine)
		}
		if op != 3 {
			delete(living, held)
		}
	}
}

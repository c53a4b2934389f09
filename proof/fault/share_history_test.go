package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
)

// shareInput is a call as the checker sees it: an acquisition, alone or with others, or a release.
type shareInput struct {
	release, alone bool
	token          int // which acquisition is released
}

// shared is what holds a name: tokens in order, each with a space, and whether the only one holds alone.
type shared struct {
	holders string
	alone   bool
	fence   uint64 // the highest of those who held alone
}

func (s shared) tokens() []string { return strings.Fields(s.holders) }

// shareModel is a lock that up to limit hold together, or one alone.
func shareModel(limit int) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return shared{} },
		Step: func(state, input, output any) (bool, any) {
			s, in, out := state.(shared), input.(shareInput), output.(lockOutput)
			holders := s.tokens()
			if in.release {
				at := slices.Index(holders, strconv.Itoa(in.token))
				if at < 0 || !out.ok {
					return false, s
				}
				s.holders, s.alone = strings.Join(slices.Delete(holders, at, at+1), " "), false
				return true, s
			}
			free := len(holders) == 0 || !in.alone && !s.alone && len(holders) < limit
			if !out.ok {
				return !free, s // TryAcquire fails only while somebody is in the way
			}
			if !free || in.alone && out.fence <= s.fence {
				return false, s
			}
			holders = append(holders, strconv.Itoa(out.token))
			slices.Sort(holders)
			s.holders, s.alone = strings.Join(holders, " "), in.alone
			if in.alone {
				s.fence = out.fence
			}
			return true, s
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
}

// hold is a permit or a lock.
type hold interface {
	Release(context.Context) error
}

// acquisition is one call's outcome; held is nil if a try failed.
type acquisition func(ctx context.Context, name string, alone, wait bool) (held hold, fence uint64, err error)

func bySemaphore(s *lock.Semaphore) acquisition {
	return func(ctx context.Context, name string, _, wait bool) (hold, uint64, error) {
		if wait {
			held, err := s.Acquire(ctx, name)
			return held, 0, err
		}
		held, ok, err := s.TryAcquire(ctx, name)
		if !ok {
			return nil, 0, err
		}
		return held, 0, nil
	}
}

func byRW(rw *lock.RW) acquisition {
	return func(ctx context.Context, name string, alone, wait bool) (hold, uint64, error) {
		switch {
		case alone && wait:
			held, err := rw.AcquireWrite(ctx, name)
			if err != nil {
				return nil, 0, err
			}
			return held, held.Fence(), nil
		case alone:
			held, ok, err := rw.TryAcquireWrite(ctx, name)
			if !ok {
				return nil, 0, err
			}
			return held, held.Fence(), nil
		case wait:
			held, err := rw.AcquireRead(ctx, name)
			return held, 0, err
		}
		held, ok, err := rw.TryAcquireRead(ctx, name)
		if !ok {
			return nil, 0, err
		}
		return held, 0, nil
	}
}

// TestSharedHistories is TestHistories for the semaphore and the read-write lock.
func TestSharedHistories(t *testing.T) {
	const callers, each, limit = 6, 20, 3
	server := valkeytest.Start(t)
	client := connect(t, server)
	semaphore, err := lock.NewSemaphore(client, lock.SemaphoreConfig{Limit: limit})
	if err != nil {
		t.Fatal(err)
	}
	rw, err := lock.NewRW(client, lock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []struct {
		name    string
		limit   int
		writers bool
		acquire acquisition
	}{
		{"semaphore", limit, false, bySemaphore(semaphore)},
		{"read-write lock", callers, true, byRW(rw)},
	} {
		t.Run(what.name, func(t *testing.T) {
			operations := 0
			for run := range scale(4, 60) {
				history := shareHistory(t, what.acquire, fmt.Sprint(what.name, run), callers, each, run%2 == 0, what.writers)
				operations += len(history)
				if result := porcupine.CheckOperationsTimeout(shareModel(what.limit), history, time.Minute); result != porcupine.Ok {
					t.Fatalf("run %d: a history of %d operations is %s", run, len(history), result)
				}
			}
			t.Logf("%d histories with %d operations are linearizable", scale(4, 60), operations)
		})
	}
}

// shareHistory records what callers of one name saw.
func shareHistory(t *testing.T, acquire acquisition, name string, callers, each int, wait, writers bool) (history []porcupine.Operation) {
	var mu sync.Mutex
	tokens := 0
	record := func(caller int, in shareInput, begin time.Time, out lockOutput) {
		mu.Lock()
		defer mu.Unlock()
		history = append(history, porcupine.Operation{
			ClientId: caller, Input: in, Call: begin.UnixNano(), Output: out, Return: time.Now().UnixNano(),
		})
	}
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			for range each {
				in, begin := shareInput{alone: writers && rand.IntN(3) == 0}, time.Now()
				held, fence, err := acquire(t.Context(), name, in.alone, wait)
				if err != nil {
					t.Error(err)
					return
				}
				if held == nil {
					record(caller, in, begin, lockOutput{})
					continue
				}
				mu.Lock()
				tokens++
				token := tokens
				mu.Unlock()
				record(caller, in, begin, lockOutput{ok: true, token: token, fence: fence})
				<-time.After(rand.N(time.Millisecond))
				begin = time.Now()
				err = held.Release(context.WithoutCancel(t.Context()))
				record(caller, shareInput{release: true, token: token}, begin, lockOutput{ok: err == nil})
			}
		})
	}
	all.Wait()
	return history
}

// TestSharedCheckerCanFail feeds the checker histories that no such lock has.
func TestSharedCheckerCanFail(t *testing.T) {
	op := func(call int64, in shareInput, out lockOutput) porcupine.Operation {
		return porcupine.Operation{Input: in, Call: call, Output: out, Return: call + 1}
	}
	reader := func(call int64, token int) porcupine.Operation {
		return op(call, shareInput{}, lockOutput{ok: true, token: token})
	}
	writer := func(call int64, token int, fence uint64) porcupine.Operation {
		return op(call, shareInput{alone: true}, lockOutput{ok: true, token: token, fence: fence})
	}
	for name, history := range map[string][]porcupine.Operation{
		"three of two permits":            {reader(1, 1), reader(3, 2), reader(5, 3)},
		"a writer beside a reader":        {reader(1, 1), writer(3, 2, 1)},
		"a reader beside a writer":        {writer(1, 1, 1), reader(3, 2)},
		"a free permit that can't be had": {reader(1, 1), op(3, shareInput{}, lockOutput{})},
		"a permit that is released twice": {reader(1, 1), op(3, shareInput{release: true, token: 1}, lockOutput{ok: true}), op(5, shareInput{release: true, token: 1}, lockOutput{ok: true})},
		"the same fence for two who were alone": {
			writer(1, 1, 7), op(3, shareInput{release: true, token: 1}, lockOutput{ok: true}), writer(5, 2, 7),
		},
	} {
		if porcupine.CheckOperations(shareModel(2), history) {
			t.Errorf("%s passed", name)
		}
	}
}

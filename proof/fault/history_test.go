package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
)

// acquisition and its outcome, or a release, as the checker of histories sees them.
type lockInput struct {
	release bool
	token   int // which acquisition is released
}

type lockOutput struct {
	ok    bool
	token int
	fence uint64
}

// mutex is a lock in three lines: who holds it, and the highest fence so far.
type mutex struct {
	holder int // 0 is nobody
	fence  uint64
}

var mutexModel = porcupine.Model{
	Init: func() any { return mutex{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(mutex), input.(lockInput), output.(lockOutput)
		switch {
		case in.release && s.holder == in.token && out.ok:
			return true, mutex{0, s.fence}
		case in.release:
			return false, s
		case out.ok:
			grown := out.fence > s.fence || out.fence == 0 // 0: a lock that has no fence
			return s.holder == 0 && grown, mutex{out.token, out.fence}
		default:
			return s.holder != 0, s // TryAcquire fails only while somebody has it
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// TestHistories records what many callers saw of one lock and lets a linearizability checker look for
// an order in which a mutex with a growing fence would have answered the same. In one half of the runs
// callers wait for the lock, in the other they try.
func TestHistories(t *testing.T) {
	const callers, each = 6, 25
	server := valkeytest.Start(t)
	client := connect(t, server)
	l, err := lock.New(client, lock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for run := range scale(4, 60) {
		var mu sync.Mutex
		var history []porcupine.Operation
		tokens := 0
		record := func(caller int, in lockInput, begin time.Time, out lockOutput) {
			mu.Lock()
			defer mu.Unlock()
			history = append(history, porcupine.Operation{
				ClientId: caller, Input: in, Call: begin.UnixNano(), Output: out, Return: time.Now().UnixNano(),
			})
		}
		name := fmt.Sprint("history-", run)
		var all sync.WaitGroup
		for caller := range callers {
			all.Go(func() {
				for range each {
					begin, held, ok := time.Now(), (*lock.Lock)(nil), true
					var err error
					if run%2 == 0 {
						held, err = l.Acquire(t.Context(), name)
					} else {
						held, ok, err = l.TryAcquire(t.Context(), name)
					}
					if err != nil {
						t.Error(err)
						return
					}
					if !ok {
						record(caller, lockInput{}, begin, lockOutput{})
						continue
					}
					mu.Lock()
					tokens++
					token := tokens
					mu.Unlock()
					record(caller, lockInput{}, begin, lockOutput{ok: true, token: token, fence: held.Fence()})
					<-time.After(rand.N(time.Millisecond))
					begin = time.Now()
					err = held.Release(context.WithoutCancel(t.Context()))
					record(caller, lockInput{release: true, token: token}, begin, lockOutput{ok: err == nil})
				}
			})
		}
		all.Wait()
		if result := porcupine.CheckOperationsTimeout(mutexModel, history, time.Minute); result != porcupine.Ok {
			t.Fatalf("run %d: a history of %d operations is %s", run, len(history), result)
		}
	}
}

// TestCheckerCanFail feeds the checker a history with two holders, and one whose fence does not grow.
func TestCheckerCanFail(t *testing.T) {
	op := func(call, back int64, in lockInput, out lockOutput) porcupine.Operation {
		return porcupine.Operation{Input: in, Call: call, Output: out, Return: back}
	}
	for name, history := range map[string][]porcupine.Operation{
		"two holders": {
			op(1, 2, lockInput{}, lockOutput{ok: true, token: 1, fence: 1}),
			op(3, 4, lockInput{}, lockOutput{ok: true, token: 2, fence: 2}),
			op(5, 6, lockInput{release: true, token: 1}, lockOutput{ok: true}),
		},
		"the same fence twice": {
			op(1, 2, lockInput{}, lockOutput{ok: true, token: 1, fence: 7}),
			op(3, 4, lockInput{release: true, token: 1}, lockOutput{ok: true}),
			op(5, 6, lockInput{}, lockOutput{ok: true, token: 2, fence: 7}),
		},
		"a free lock that can't be had": {
			op(1, 2, lockInput{}, lockOutput{}),
		},
	} {
		if porcupine.CheckOperations(mutexModel, history) {
			t.Errorf("%s passed", name)
		}
	}
}

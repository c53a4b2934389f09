package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/flatrate/flatrate/internal/breaker"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

// groups is how many parts of a cluster's slots are away or not by themselves: a node that is gone shall not
// keep calls from the others.
const groups = 16

// link is the way to the server: no call waits for ever, and none is made while the server is known to be
// away.
type link struct {
	client   valkey.Client
	wait     patience
	breakers [groups]breaker.Breaker

	mu   sync.Mutex
	back chan struct{} // closed when a part of the server is back
}

// watch begins to tell those who wait for the server.
func (l *link) watch() {
	l.back = make(chan struct{})
	for i := range l.breakers {
		l.breakers[i].Closed = l.returned
	}
}

func (l *link) returned() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.back)
	l.back = make(chan struct{})
}

// isBack is closed once a part of the server is back after this call.
func (l *link) isBack() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.back
}

// breaker returns that of the node which has a key; probe asks that node.
func (l *link) breaker(key string) *breaker.Breaker {
	if l.client.Mode() != valkey.ClientModeCluster {
		return &l.breakers[0]
	}
	return l.breakerOf(l.client.B().Get().Key(key).Build())
}

func (l *link) breakerOf(cmd valkey.Completed) *breaker.Breaker {
	if l.client.Mode() != valkey.ClientModeCluster {
		return &l.breakers[0]
	}
	return &l.breakers[cmd.Slot()>>10%groups]
}

// away says whether the node of a key is known to be away.
func (l *link) away(key string) bool { return l.breaker(key).Err() != nil }

func (l *link) probe(key string) breaker.Probe {
	return func(ctx context.Context) error {
		err := l.client.Do(ctx, l.client.B().Exists().Key(key).Build()).Error()
		if answered(err) {
			return nil
		}
		return err
	}
}

// answered tells a server that said something, if only no, from one that said nothing, or that it can't say yet: the cluster is
// down, it loads its data, its primary is away.
func answered(err error) bool {
	if err == nil || valkey.IsValkeyNil(err) {
		return true
	}
	said, ok := valkey.IsValkeyErr(err)
	return ok && !said.IsClusterDown() && !said.IsLoading() && !strings.HasPrefix(said.Error(), "MASTERDOWN")
}

// heard tells the breaker how a call ended that was made with bounded for a caller's ctx.
func (l *link) heard(ctx context.Context, key string, err error) {
	switch {
	case answered(err):
	case ctx.Err() != nil || errors.Is(err, context.Canceled):
		l.breaker(key).Suspect(l.probe(key)) // the caller has gone, which says nothing of the server
	default:
		l.breaker(key).Open(err, l.probe(key))
	}
}

// exec runs a script within [MaxWait].
func (l *link) exec(ctx context.Context, s *script.Script, keys []string, args ...string) valkey.ValkeyResult {
	if err := l.breaker(keys[0]).Err(); err != nil {
		return valkey.NewErrorResult(fmt.Errorf("the server is away: %w", err))
	}
	result := s.Exec(l.wait.storing(ctx), l.client, keys, args...)
	l.heard(ctx, keys[0], result.NonValkeyError())
	return result
}

// execs runs scripts in one round trip to each node, within [MaxWait].
func (l *link) execs(ctx context.Context, calls []script.Call) []valkey.ValkeyResult {
	results := make([]valkey.ValkeyResult, len(calls))
	var at []int
	var send []script.Call
	for i, call := range calls {
		if err := l.breaker(call.Keys[0]).Err(); err != nil {
			results[i] = valkey.NewErrorResult(fmt.Errorf("the server is away: %w", err))
			continue
		}
		at, send = append(at, i), append(send, call)
	}
	for n, result := range script.Multi(l.wait.storing(ctx), l.client, send...) {
		results[at[n]] = result
		l.heard(ctx, send[n].Keys[0], result.NonValkeyError())
	}
	return results
}

// cutOff says whether a call may still have an effect: its answer was lost.
func cutOff(err error) bool { return err != nil && !answered(err) }

// until is the context of what goes on without its caller, with an end of its own.
func until(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

// Package link is the way to the server: no call waits for ever, and none is made while the server, or the part
// of a cluster that it is for, is known to be away.
package link

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/flatrate/flatrate/internal/breaker"
	"github.com/flatrate/flatrate/internal/patience"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

// groups is how many parts of a cluster's slots are away or not by themselves: a node that is gone shall not
// keep calls from the others.
const groups = 16

// Link is a client with its limits. It is safe for concurrent use.
type Link struct {
	Client valkey.Client
	Wait   patience.Patience

	breakers [groups]breaker.Breaker
}

// Each calls do with the breaker of each part, the only one of a single server first. It is for before the first call.
func (l *Link) Each(do func(*breaker.Breaker)) {
	for i := range l.breakers {
		do(&l.breakers[i])
	}
}

// Breaker returns that of the part which has a key.
func (l *Link) Breaker(key string) *breaker.Breaker {
	if l.Client.Mode() != valkey.ClientModeCluster {
		return &l.breakers[0]
	}
	return l.BreakerOf(l.Client.B().Get().Key(key).Build())
}

// BreakerOf returns that of the part which a command goes to.
func (l *Link) BreakerOf(cmd valkey.Completed) *breaker.Breaker {
	if l.Client.Mode() != valkey.ClientModeCluster {
		return &l.breakers[0]
	}
	return &l.breakers[cmd.Slot()>>10%groups]
}

// Probe asks the node that has a key.
func (l *Link) Probe(key string) breaker.Probe {
	return func(ctx context.Context) error {
		err := l.Client.Do(ctx, l.Client.B().Exists().Key(key).Build()).Error()
		if Answered(err) {
			return nil
		}
		return err
	}
}

// Answered tells a server that said something, if only no, from one that said nothing, or that it can't say yet: the cluster is
// down, it loads its data, its primary is away.
func Answered(err error) bool {
	if err == nil || valkey.IsValkeyNil(err) {
		return true
	}
	said, ok := valkey.IsValkeyErr(err)
	return ok && !said.IsClusterDown() && !said.IsLoading() && !strings.HasPrefix(said.Error(), "MASTERDOWN")
}

// Away says why the server of a key counts as away, or nil.
func (l *Link) Away(key string) error {
	if err := l.Breaker(key).Err(); err != nil {
		return fmt.Errorf("the server is away: %w", err)
	}
	return nil
}

// Heard tells how a call for a caller's ctx ended.
func (l *Link) Heard(ctx context.Context, key string, err error) {
	switch {
	case Answered(err):
	case ctx.Err() != nil || errors.Is(err, context.Canceled):
		l.Breaker(key).Suspect(l.Probe(key)) // the caller has gone, which says nothing of the server
	default:
		l.Breaker(key).Open(err, l.Probe(key))
	}
}

// Do sends one command about a key, which is never sent twice.
func (l *Link) Do(ctx context.Context, key string, cmd valkey.Completed) valkey.ValkeyResult {
	if err := l.Away(key); err != nil {
		return valkey.NewErrorResult(err)
	}
	result := l.Client.Do(l.Wait.Bounded(ctx), cmd)
	l.Heard(ctx, key, result.Error())
	return result
}

// Exec runs a script.
func (l *Link) Exec(ctx context.Context, s *script.Script, keys []string, args ...string) valkey.ValkeyResult {
	if err := l.Away(keys[0]); err != nil {
		return valkey.NewErrorResult(err)
	}
	result := s.Exec(l.Wait.Bounded(ctx), l.Client, keys, args...)
	l.Heard(ctx, keys[0], result.Error())
	return result
}

// Execs runs scripts in one round trip to each node.
func (l *Link) Execs(ctx context.Context, calls ...script.Call) []valkey.ValkeyResult {
	results := make([]valkey.ValkeyResult, len(calls))
	var at []int
	var send []script.Call
	for i, call := range calls {
		if err := l.Away(call.Keys[0]); err != nil {
			results[i] = valkey.NewErrorResult(err)
			continue
		}
		at, send = append(at, i), append(send, call)
	}
	for n, result := range script.Multi(l.Wait.Bounded(ctx), l.Client, send...) {
		results[at[n]] = result
		l.Heard(ctx, send[n].Keys[0], result.Error())
	}
	return results
}

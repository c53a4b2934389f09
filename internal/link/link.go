// Package link is the way to the server for blocks whose calls must end: no call waits for ever, and none is made while
// the part of the server that it is for is known to be away.
package link

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/breaker"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

// MaxWait is how long a call waits for one answer of the server at most, if ctx has no deadline. A ctx that is cancelled
// during such a wait does not shorten it.
const MaxWait = time.Second

// Link is the way to a server. Its parts, numbered from 0, are away or not by themselves: what shares a part lies on
// one node.
type Link struct {
	Client   valkey.Client
	breakers []breaker.Breaker
	current  atomic.Pointer[period]
}

// period is an end that the calls of an eighth of [MaxWait] share: a timer for each of them would cost as much as half a
// call.
type period struct {
	context.Context
	until time.Time
}

// waiting has the values of the caller's context, and the end of the period's.
type waiting struct {
	context.Context
	values context.Context
}

func (w waiting) Value(key any) any { return w.values.Value(key) }

// New returns the way to client's server, which has so many parts.
func New(client valkey.Client, parts int) *Link {
	return &Link{Client: client, breakers: make([]breaker.Breaker, parts)}
}

// Err is nil if calls may be made, else why the part counts as away.
func (l *Link) Err(part int) error { return l.breakers[part].Err() }

// Bounded gives an end to a context that has none: after [MaxWait], or up to an eighth earlier. A cancellation of ctx
// does not shorten that.
func (l *Link) Bounded(ctx context.Context) context.Context {
	if _, limited := ctx.Deadline(); limited || ctx.Err() != nil {
		return ctx
	}
	now, current := time.Now(), l.current.Load()
	if current == nil || now.After(current.until) {
		shared, cancel := context.WithTimeout(context.Background(), MaxWait)
		context.AfterFunc(shared, cancel)
		current = &period{shared, now.Add(MaxWait / 8)}
		l.current.Store(current)
	}
	return waiting{current, ctx}
}

// Exec runs a script on keys of a part.
func (l *Link) Exec(ctx context.Context, part int, s *script.Script, keys []string, args ...string) valkey.ValkeyResult {
	return l.guard(ctx, part, keys[0], func(ctx context.Context) valkey.ValkeyResult {
		return s.Exec(ctx, l.Client, keys, args...)
	})
}

// Do runs a command on a key of a part, its first argument.
func (l *Link) Do(ctx context.Context, part int, cmd valkey.Completed) valkey.ValkeyResult {
	return l.guard(ctx, part, cmd.Commands()[1], func(ctx context.Context) valkey.ValkeyResult {
		return l.Client.Do(ctx, cmd)
	})
}

func (l *Link) guard(ctx context.Context, part int, key string, call func(context.Context) valkey.ValkeyResult) valkey.ValkeyResult {
	if err := l.breakers[part].Err(); err != nil {
		return valkey.NewErrorResult(fmt.Errorf("the server is away: %w", err))
	}
	if err := ctx.Err(); err != nil {
		return valkey.NewErrorResult(err)
	}
	result := call(l.Bounded(ctx))
	err := result.NonValkeyError()
	if err == nil || answered(err) {
		return result
	}
	probe := func(ctx context.Context) error {
		err := l.Client.Do(ctx, l.Client.B().Exists().Key(key).Build()).Error()
		if answered(err) {
			return nil
		}
		return err
	}
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		l.breakers[part].Suspect(probe) // the caller has gone, which says nothing of the server
	} else {
		l.breakers[part].Open(err, probe)
	}
	return result
}

// answered tells a server that said something, if only no, from one that said nothing.
func answered(err error) bool {
	if err == nil || valkey.IsValkeyNil(err) {
		return true
	}
	_, said := valkey.IsValkeyErr(err)
	return said
}

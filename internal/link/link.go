// Package link is the way to the server for blocks whose calls must end: no call waits for ever, and none is made while
// the part of the server that it is for is known to be away.
package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flatrate/flatrate/internal/breaker"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

// MaxWait is how long a call waits for one answer of the server at most, if ctx has no deadline.
const MaxWait = time.Second

// Link is the way to a server. Its parts, numbered from 0, are away or not by themselves: what shares a part lies on
// one node.
type Link struct {
	Client   valkey.Client
	breakers []breaker.Breaker
}

// New returns the way to client's server, which has so many parts.
func New(client valkey.Client, parts int) *Link {
	return &Link{client, make([]breaker.Breaker, parts)}
}

// Err is nil if calls may be made, else why the part counts as away.
func (l *Link) Err(part int) error { return l.breakers[part].Err() }

// Bounded gives an end to a context that has none.
func (l *Link) Bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, limited := ctx.Deadline(); limited {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, MaxWait)
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
	limited, cancel := l.Bounded(ctx)
	defer cancel()
	result := call(limited)
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

package writebehind

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

// link is the way to the server: no call waits for ever, and none is made while the node of its partition is known
// to be away.
type link struct {
	client   valkey.Client
	breakers []breaker.Breaker // of the partitions
}

func (l *link) init(client valkey.Client, partitions int) {
	l.client, l.breakers = client, make([]breaker.Breaker, partitions)
}

// bounded gives an end to a context that has none.
func (l *link) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, limited := ctx.Deadline(); limited {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, MaxWait)
}

// exec runs a script of a partition.
func (l *link) exec(ctx context.Context, p int, s *script.Script, keys []string, args ...string) valkey.ValkeyResult {
	return l.guard(ctx, p, keys[0], func(ctx context.Context) valkey.ValkeyResult {
		return s.Exec(ctx, l.client, keys, args...)
	})
}

// do runs a command on one key of a partition.
func (l *link) do(ctx context.Context, p int, cmd valkey.Completed) valkey.ValkeyResult {
	return l.guard(ctx, p, cmd.Commands()[1], func(ctx context.Context) valkey.ValkeyResult {
		return l.client.Do(ctx, cmd)
	})
}

func (l *link) guard(ctx context.Context, p int, key string, call func(context.Context) valkey.ValkeyResult) valkey.ValkeyResult {
	if err := l.breakers[p].Err(); err != nil {
		return valkey.NewErrorResult(fmt.Errorf("the server is away: %w", err))
	}
	if err := ctx.Err(); err != nil {
		return valkey.NewErrorResult(err)
	}
	limited, cancel := l.bounded(ctx)
	defer cancel()
	result := call(limited)
	err := result.NonValkeyError()
	if err == nil || answered(err) {
		return result
	}
	probe := func(ctx context.Context) error {
		err := l.client.Do(ctx, l.client.B().Exists().Key(key).Build()).Error()
		if answered(err) {
			return nil
		}
		return err
	}
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		l.breakers[p].Suspect(probe) // the caller has gone, which says nothing of the server
	} else {
		l.breakers[p].Open(err, probe)
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

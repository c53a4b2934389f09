package lock

import (
	"context"
	"fmt"

	"github.com/valkey-io/valkey-go"
)

// send runs the acquire script. With Config.Replicas an acquisition also waits until so many replicas
// have it: a round trip more, on a connection of its own, because WAIT asks about the writes of its own
// connection.
func (l *Locker) send(ctx context.Context, keys, args []string) (reply []int64, err error) {
	if l.cfg.Replicas == 0 {
		return l.kind.acquire.Exec(ctx, l.client, keys, args...).AsIntSlice()
	}
	type answer struct {
		reply []int64
		err   error
	}
	done := make(chan answer, 1)
	go func() { // a client whose connections are all in use would keep the caller past its context
		reply, err := l.sendAndWait(ctx, keys, args)
		done <- answer{reply, err}
	}()
	select {
	case a := <-done:
		return a.reply, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *Locker) sendAndWait(ctx context.Context, keys, args []string) (reply []int64, err error) {
	err = l.client.Dedicated(func(conn valkey.DedicatedClient) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		reply, err = l.kind.acquire.Eval(ctx, conn, keys, args...).AsIntSlice()
		if err != nil || len(reply) == 0 || reply[0] == 0 {
			return err
		}
		wait := conn.B().Wait().Numreplicas(int64(l.cfg.Replicas)).Timeout(l.cfg.ReplicaTimeout.Milliseconds()).Build()
		n, err := conn.Do(ctx, wait).AsInt64()
		if err == nil && n < int64(l.cfg.Replicas) {
			err = fmt.Errorf("%d of %d replicas have it after %v", n, l.cfg.Replicas, l.cfg.ReplicaTimeout)
		}
		return err
	})
	return reply, err
}

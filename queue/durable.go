package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/valkey-io/valkey-go"
)

// Durability is what a send waits for before it counts as sent.
type Durability int

// The durabilities. docs/queue.md says what each loses in which failure.
const (
	// Memory: the server has it. Whether it survives the server is up to the server's own settings.
	Memory Durability = iota
	// Replicated: Config.Replicas have it too (WAIT).
	Replicated
	// Synced: the server has it in its append-only file, on its disk (WAITAOF). For Valkey, and Redis from 7.2,
	// with appendonly yes.
	Synced
)

func (d Durability) String() string {
	switch d {
	case Memory:
		return "memory"
	case Replicated:
		return "replicated"
	case Synced:
		return "synced"
	}
	return fmt.Sprintf("Durability(%d)", int(d))
}

// errNotDurable says that the server has the messages, and nobody else yet.
type errNotDurable struct{ error }

func (e errNotDurable) Unwrap() error { return e.error }

// execSend runs the send script on a partition, and waits for what Config.Durability asks for: that needs a connection of its own,
// because WAIT asks about the writes of its own connection. An errNotDurable comes with the reply.
func (q *Queue) execSend(ctx context.Context, p *partition, args []string) ([]valkey.ValkeyMessage, error) {
	if q.cfg.Durability == Memory {
		return q.exec(ctx, send, p.keys, args)
	}
	type answer struct {
		reply []valkey.ValkeyMessage
		err   error
	}
	done := make(chan answer, 1)
	go func() { // a client whose connections are all in use would keep the caller past its context
		var a answer
		a.reply, a.err = insist(ctx, func() (reply []valkey.ValkeyMessage, err error) {
			err = q.client.Dedicated(func(conn valkey.DedicatedClient) error {
				if err := ctx.Err(); err != nil {
					return err
				}
				if reply, err = send.ExecOn(ctx, q.client, conn, p.keys, args...).ToArray(); err != nil {
					return err
				}
				return q.settled(ctx, conn)
			})
			return reply, err
		})
		done <- a
	}()
	select {
	case a := <-done:
		return a.reply, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// settled waits until what was written on conn is as durable as it has to be.
func (q *Queue) settled(ctx context.Context, conn valkey.DedicatedClient) error {
	ms := q.cfg.DurabilityTimeout.Milliseconds()
	if q.cfg.Durability == Replicated {
		n, err := conn.Do(ctx, conn.B().Wait().Numreplicas(int64(q.cfg.Replicas)).Timeout(ms).Build()).AsInt64()
		if err == nil && n < int64(q.cfg.Replicas) {
			err = fmt.Errorf("%d of %d replicas have it after %v", n, q.cfg.Replicas, q.cfg.DurabilityTimeout)
		}
		return notDurable(err)
	}
	acks, err := conn.Do(ctx, conn.B().Waitaof().Numlocal(1).Numreplicas(0).Timeout(ms).Build()).AsIntSlice()
	if err == nil && (len(acks) == 0 || acks[0] < 1) {
		err = fmt.Errorf("it is not on disk after %v", q.cfg.DurabilityTimeout)
	}
	return notDurable(err)
}

func notDurable(err error) error {
	if err == nil {
		return nil
	}
	return errNotDurable{fmt.Errorf("queue: sent, but not confirmed as durable: %w", err)}
}

func isNotDurable(err error) bool { return errors.As(err, new(errNotDurable)) }

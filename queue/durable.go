package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flatrate/flatrate/internal/script"
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

// durably is what a send waits for, and for how long.
type durably struct {
	what     Durability
	replicas int
	timeout  time.Duration
}

// execSend runs the send script on a partition, and waits for what Config.Durability asks for. An errNotDurable comes with the reply.
func (q *Queue) execSend(ctx context.Context, p *partition, args []string) ([]valkey.ValkeyMessage, error) {
	d := durably{q.cfg.Durability, q.cfg.Replicas, q.cfg.DurabilityTimeout}
	return d.exec(ctx, q.client, send, p.keys, args)
}

// exec runs a script and waits for its durability: that needs a connection of its own, because WAIT asks about the writes of its own
// connection. An errNotDurable comes with the reply.
func (d durably) exec(ctx context.Context, client valkey.Client, s *script.Script, keys, args []string) ([]valkey.ValkeyMessage, error) {
	if d.what == Memory {
		return insist(ctx, func() ([]valkey.ValkeyMessage, error) { return s.Exec(ctx, client, keys, args...).ToArray() })
	}
	type answer struct {
		reply []valkey.ValkeyMessage
		err   error
	}
	done := make(chan answer, 1)
	go func() { // a client whose connections are all in use would keep the caller past its context
		var a answer
		a.reply, a.err = insist(ctx, func() (reply []valkey.ValkeyMessage, err error) {
			err = client.Dedicated(func(conn valkey.DedicatedClient) error {
				if err := ctx.Err(); err != nil {
					return err
				}
				if reply, err = s.ExecOn(ctx, client, conn, keys, args...).ToArray(); err != nil {
					return err
				}
				return d.settled(ctx, conn)
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
func (d durably) settled(ctx context.Context, conn valkey.DedicatedClient) error {
	ms := d.timeout.Milliseconds()
	if d.what == Replicated {
		n, err := conn.Do(ctx, conn.B().Wait().Numreplicas(int64(d.replicas)).Timeout(ms).Build()).AsInt64()
		if err == nil && n < int64(d.replicas) {
			err = fmt.Errorf("%d of %d replicas have it after %v", n, d.replicas, d.timeout)
		}
		return notDurable(err)
	}
	acks, err := conn.Do(ctx, conn.B().Waitaof().Numlocal(1).Numreplicas(0).Timeout(ms).Build()).AsIntSlice()
	if err == nil && (len(acks) == 0 || acks[0] < 1) {
		err = fmt.Errorf("it is not on disk after %v", d.timeout)
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

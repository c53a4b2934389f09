package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed control.lua
	controlLua string
	//go:embed stats.lua
	statsLua string
	//go:embed peek.lua
	peekLua string

	control = script.New(controlLua)
	stats   = script.New(statsLua)
	peek    = script.New(peekLua)
)

// Pause stops deliveries: nobody receives until [Queue.Resume]. Sends go on, and what is in flight can be acknowledged. A round
// trip for each partition, as with Resume. None of the calls from here to Peek makes a queue: they return [ErrNoQueue] if there is none, or
// [ErrDeleted] if it was deleted within a minute.
func (q *Queue) Pause(ctx context.Context) error { return q.control(ctx, "pause") }

// Resume lets deliveries go on, and wakes who waits.
func (q *Queue) Resume(ctx context.Context) error { return q.control(ctx, "resume") }

// Purge deletes all messages, those in flight too. What is sent meanwhile may be deleted or not. Deduplication ids are
// remembered on. [ErrNoQueue] if there is no queue. A round trip for each partition and each 1,000 groups.
func (q *Queue) Purge(ctx context.Context) error { return q.control(ctx, "purge") }

// Delete deletes the queue with all that is in it. Processes that have it open get [ErrDeleted] from then on, until they call
// [Queue.Open]; those that make no call for longer than a minute don't learn of it, and those that start later don't either: their first
// send or receive makes the queue anew, with the settings of their Config. So stop who sends first. The error is [ErrNoQueue] if there is
// none. Round trips as of Purge, and one more.
func (q *Queue) Delete(ctx context.Context) error {
	err := q.control(ctx, "delete")
	missing := errors.Is(err, ErrNoQueue)
	switch {
	case missing: // its name may be there yet, if the server has lost the rest
	case err != nil && !errors.Is(err, ErrDeleted):
		return err
	default:
		q.deleted.Store(true)
		q.state.Store(nil)
	}
	if err := q.client.Do(ctx, q.client.B().Hdel().Key(q.keys.names()).Field(q.cfg.Name).Build()).Error(); err != nil {
		return fmt.Errorf("queue: delete: %w", err)
	}
	if missing {
		return ErrNoQueue
	}
	return nil
}

func (q *Queue) control(ctx context.Context, what string) error {
	s, err := q.found(ctx)
	if err != nil {
		return err
	}
	// The first partition says whether there is a queue, so it goes last.
	for _, p := range slices.Backward(s.parts) {
		for more := true; more; {
			call, cancel := q.bounded(ctx)
			reply, err := q.onFound(call, s, p, func() ([]valkey.ValkeyMessage, error) {
				return q.exec(call, control, p.keys, []string{what})
			})
			cancel()
			if errors.Is(err, ErrDeleted) || errors.Is(err, ErrNoQueue) {
				return err
			}
			if err != nil {
				return fmt.Errorf("queue: %s: %w", what, err)
			}
			code, _ := number(reply, 0)
			more = code == 0
		}
	}
	return nil
}

// Stats are the counts of a queue, of all partitions together. They are exact for each partition at the moment at which it
// is asked.
type Stats struct {
	// Visible messages can be received now: also those of FIFO groups that are locked, and those held up by a limit.
	Visible int64 `json:"visible"`
	// InFlight were received and are hidden until they are acknowledged or their time has passed; those that were
	// given back with a delay are, too.
	InFlight int64 `json:"in_flight"`
	// Delayed have not become visible yet; messages of a FIFO queue count as visible.
	Delayed int64 `json:"delayed"`
	// Dying are on their way to the dead letters.
	Dying int64 `json:"dying"`
	// Bytes are those of all messages, headers included.
	Bytes int64 `json:"bytes"`
	// OldestAge is how long ago the oldest message was sent that is visible and the first in its place; zero if there is none.
	OldestAge time.Duration `json:"oldest_age_ns"`
	// Groups have messages that were not received yet.
	Groups int64 `json:"groups"`
	// Paused is set while nobody receives.
	Paused bool `json:"paused"`
	// Sent, Acked and Expired are how many messages ever were sent, acknowledged, or dropped at the end of their
	// retention.
	Sent    int64 `json:"sent"`
	Acked   int64 `json:"acked"`
	Expired int64 `json:"expired"`
	// Partitions and FIFO are how the queue was made.
	Partitions int  `json:"partitions"`
	FIFO       bool `json:"fifo"`
	// DeadLetters is the name of the queue for messages that failed, if there is one.
	DeadLetters string `json:"dead_letters,omitempty"`
}

// Stats counts. The error is [ErrNoQueue] if there is no queue. One round trip to each node; for the server it costs the logarithm of the
// messages in flight.
func (q *Queue) Stats(ctx context.Context) (Stats, error) {
	s, err := q.found(ctx)
	if err != nil {
		return Stats{}, err
	}
	sum := Stats{Partitions: len(s.parts), FIFO: s.fifo, DeadLetters: s.dlq}
	err = q.eachBy(ctx, s, q.onFound, stats, nil, func(_ *partition, reply []valkey.ValkeyMessage) error {
		var n [11]int64
		for i := range n {
			var err error
			if n[i], err = number(reply, i); err != nil {
				return err
			}
		}
		sum.Visible += max(0, n[0]-n[1]-n[2]-n[3])
		sum.InFlight += n[1]
		sum.Delayed += n[2]
		sum.Dying += n[3]
		sum.Bytes += n[4]
		sum.OldestAge = max(sum.OldestAge, time.Duration(n[5])*time.Millisecond)
		sum.Groups += n[6]
		sum.Paused = sum.Paused || n[7] == 1
		sum.Sent += n[8]
		sum.Acked += n[9]
		sum.Expired += n[10]
		return nil
	})
	if err != nil {
		return Stats{}, fmt.Errorf("queue: stats: %w", err)
	}
	return sum, nil
}

// each runs a script on all partitions, in one round trip to each node.
func (q *Queue) each(ctx context.Context, s *state, scr *script.Script, args []string, do func(*partition, []valkey.ValkeyMessage) error) error {
	return q.eachBy(ctx, s, q.onPartition, scr, args, do)
}

// caller is [Queue.onPartition] or [Queue.onFound].
type caller func(context.Context, *state, *partition, func() ([]valkey.ValkeyMessage, error)) ([]valkey.ValkeyMessage, error)

func (q *Queue) eachBy(ctx context.Context, s *state, call caller, scr *script.Script, args []string, do func(*partition, []valkey.ValkeyMessage) error) error {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	calls := make([]script.Call, len(s.parts))
	for i, p := range s.parts {
		calls[i] = script.Call{Script: scr, Keys: p.keys, Args: args}
	}
	for i, result := range script.Multi(ctx, q.client, calls...) {
		p, first := s.parts[i], true
		reply, err := call(ctx, s, p, func() ([]valkey.ValkeyMessage, error) {
			if first {
				first = false
				if reply, err := result.ToArray(); !isTryAgain(err) {
					return reply, err
				}
			}
			return q.exec(ctx, scr, p.keys, args)
		})
		if err == nil {
			err = do(p, reply)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// peekBytes is how much Peek returns, headers included, so that no script keeps a server for long.
const peekBytes = 4 << 20

// Peek returns up to most messages that wait, 1 to 1,000, and leaves them where they are: they have no receipt. It ends with the message
// with which they have 4 MiB or more, so that large ones are fewer. The error is [ErrNoQueue] if there is no queue. One round trip for
// each partition until there are enough.
func (q *Queue) Peek(ctx context.Context, most int) ([]*Delivery, error) {
	if most < 1 || most > maxReceive {
		return nil, fmt.Errorf("queue: peek: %d is not from 1 to %d", most, maxReceive)
	}
	s, err := q.found(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	var ds []*Delivery
	left := peekBytes
	for _, p := range s.parts {
		if len(ds) == most || left <= 0 {
			break
		}
		reply, err := q.onFound(ctx, s, p, func() ([]valkey.ValkeyMessage, error) {
			return q.exec(ctx, peek, p.keys, []string{strconv.Itoa(most - len(ds)), strconv.Itoa(left)})
		})
		if err != nil {
			return nil, fmt.Errorf("queue: peek: %w", err)
		}
		for at := 1; at+1 < len(reply); at += 2 {
			member, _ := reply[at].ToString()
			blob, err := reply[at+1].ToString()
			if err != nil {
				return nil, fmt.Errorf("queue: peek: %w", err)
			}
			d, err := parse(p.index, member, blob)
			if err != nil {
				return nil, err
			}
			d.Receipt = ""
			left -= len(blob)
			ds = append(ds, d)
		}
	}
	return ds, nil
}

// Names returns the names of all queues under a prefix, sorted; an empty one is the default. One round trip.
func Names(ctx context.Context, client valkey.Client, prefix string) ([]string, error) {
	keys, err := newKeySpace(prefix)
	if err != nil {
		return nil, fmt.Errorf("queue: prefix: %w", err)
	}
	names, err := client.Do(ctx, client.B().Hkeys().Key(keys.names()).Build()).AsStrSlice()
	if err != nil {
		return nil, fmt.Errorf("queue: names: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/key"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed listpush.lua
	listPushLua string

	listPush = script.New(listPushLua)
)

const popSlice = time.Second // for how long one call of Pop waits

// ListConfig says which list, and how long it may get. Name has no default.
type ListConfig struct {
	// Prefix stands before the key. Default "fr".
	Prefix string
	// Name is any string of 1 to 256 bytes.
	Name string
	// MaxLen is how many items the list may have: a push that has no room for all of its items is refused with [ErrFull].
	// Zero is no limit. It is this process's: others push as their own ListConfig says.
	MaxLen int
	// MaxBody is how many bytes an item may have, up to 64 MiB. Default 256 KiB.
	MaxBody int
	// Timeout bounds every call to the server, beside the caller's context and what Pop waits. Default 10 s.
	Timeout time.Duration
}

// List loses what was popped when the process that popped it crashes, or when the answer to it is lost: it is for work where that
// does not matter, and [Queue] is for all other. It is one list in the server: first in, first out, items of bytes, without
// acknowledgements, retries, delays or counts. It is safe for concurrent use, and needs no closing.
type List struct {
	client  valkey.Client
	cfg     ListConfig
	key     string
	checked atomic.Bool
}

// NewList returns the List of cfg.Name on client, which stays the caller's to close. Nothing is sent. The error names the field of cfg
// that is wrong.
func NewList(client valkey.Client, cfg ListConfig) (*List, error) {
	if client == nil {
		return nil, errors.New("queue: client is nil")
	}
	space, err := key.NewSpace(cfg.Prefix, "list")
	if err != nil {
		return nil, fmt.Errorf("queue: ListConfig.Prefix: %w", err)
	}
	switch {
	case cfg.Name == "" || len(cfg.Name) > maxName:
		return nil, fmt.Errorf("queue: ListConfig.Name has %d bytes, not 1 to %d", len(cfg.Name), maxName)
	case cfg.MaxLen < 0:
		return nil, fmt.Errorf("queue: ListConfig.MaxLen is %d, less than zero", cfg.MaxLen)
	case cfg.MaxBody < 0 || cfg.MaxBody > maxBody:
		return nil, fmt.Errorf("queue: ListConfig.MaxBody is %d, not from 1 to %d", cfg.MaxBody, maxBody)
	}
	if err := span("ListConfig.Timeout", cfg.Timeout, time.Millisecond, time.Hour); err != nil {
		return nil, err
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	return &List{client: client, cfg: cfg, key: space.Key(cfg.Name)}, nil
}

// check refuses, once, a server that may evict the list.
func (l *List) check(ctx context.Context) error {
	if l.checked.Load() {
		return nil
	}
	if err := checkServer(ctx, l.client, "ListConfig", Memory); err != nil {
		return err
	}
	l.checked.Store(true)
	return nil
}

// Push adds items behind all others, all of them or none: up to 1,000 in one round trip. It returns how many there are then; the error is
// [ErrFull] if they have no room. If no answer came they may be in the list.
func (l *List) Push(ctx context.Context, items ...[]byte) (length int, err error) {
	if len(items) == 0 || len(items) > maxReceive {
		return 0, fmt.Errorf("queue: push: %d items, not 1 to %d", len(items), maxReceive)
	}
	args := make([]string, 1, 1+len(items))
	args[0] = strconv.Itoa(l.cfg.MaxLen)
	for i, item := range items {
		if len(item) > l.cfg.MaxBody {
			return 0, fmt.Errorf("queue: push: item %d has %d bytes, over ListConfig.MaxBody, %d", i, len(item), l.cfg.MaxBody)
		}
		args = append(args, string(item))
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	if err := l.check(ctx); err != nil {
		return 0, err
	}
	n, err := insist(ctx, func() (int64, error) { return listPush.Exec(ctx, l.client, []string{l.key}, args...).AsInt64() })
	switch {
	case err != nil:
		return 0, fmt.Errorf("queue: push: %w", err)
	case n < 0:
		return 0, ErrFull
	}
	return int(n), nil
}

// Pop takes the oldest item, and waits for one if there is none: up to 24 h, or not at all. ok is false if none came. An item that
// was popped is in nobody's hands but the caller's. A Pop that waits has a connection of its own, and asks again every second, which is
// also how soon it hears that ctx was cancelled. If ctx ends just when an item comes, that item may be lost.
func (l *List) Pop(ctx context.Context, wait time.Duration) (item []byte, ok bool, err error) {
	if wait < 0 || wait > maxWait {
		return nil, false, fmt.Errorf("queue: pop: wait is %v, not from 0 to %v", wait, maxWait)
	}
	call, cancel := context.WithTimeout(ctx, l.cfg.Timeout+wait)
	defer cancel()
	if err := l.check(call); err != nil {
		return nil, false, err
	}
	if wait == 0 {
		items, err := l.PopBatch(ctx, 1)
		if err != nil || len(items) == 0 {
			return nil, false, err
		}
		return items[0], true, nil
	}
	var reply []valkey.ValkeyMessage
	for end := time.Now().Add(wait); ; {
		// A connection that waits does not hear of the end of a context that has no deadline, so it never waits for long.
		some := max(min(time.Until(end), popSlice), time.Millisecond)
		reply, err = l.client.Do(call, l.client.B().Brpop().Key(l.key).Timeout(some.Seconds()).Build()).ToArray()
		if !valkey.IsValkeyNil(err) {
			break
		}
		if ctx.Err() != nil {
			return nil, false, fmt.Errorf("queue: pop: %w", ctx.Err())
		}
		if !time.Now().Before(end) {
			return nil, false, nil
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("queue: pop: %w", err)
	}
	if len(reply) != 2 {
		return nil, false, fmt.Errorf("queue: pop: the server answered %d values", len(reply))
	}
	if item, err = reply[1].AsBytes(); err != nil {
		return nil, false, fmt.Errorf("queue: pop: %w", err)
	}
	return item, true, nil
}

// PopBatch takes up to n of the oldest items, 1 to 1,000, and does not wait. One round trip.
func (l *List) PopBatch(ctx context.Context, n int) (items [][]byte, err error) {
	if n < 1 || n > maxReceive {
		return nil, fmt.Errorf("queue: pop: %d items, not 1 to %d", n, maxReceive)
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	if err := l.check(ctx); err != nil {
		return nil, err
	}
	reply, err := l.client.Do(ctx, l.client.B().Rpop().Key(l.key).Count(int64(n)).Build()).ToArray()
	if err != nil && !valkey.IsValkeyNil(err) {
		return nil, fmt.Errorf("queue: pop: %w", err)
	}
	for i := range reply {
		item, err := reply[i].AsBytes()
		if err != nil {
			return items, fmt.Errorf("queue: pop: %w", err)
		}
		items = append(items, item)
	}
	return items, nil
}

// Len is how many items there are. One round trip.
func (l *List) Len(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	n, err := l.client.Do(ctx, l.client.B().Llen().Key(l.key).Build()).AsInt64()
	if err != nil {
		return 0, fmt.Errorf("queue: len: %w", err)
	}
	return int(n), nil
}

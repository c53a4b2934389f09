package lock

import (
	"context"
	"math"
	"strconv"

	"github.com/valkey-io/valkey-go"
)

// RW is a read-write lock: any number of readers hold a name together, a writer holds it alone. Readers
// and writers stand in one queue, so that neither starves the other: a reader that comes after a waiting
// writer is served after it, and readers that wait side by side are let in together. It is safe for
// concurrent use. Its names are apart from those of a [Locker].
//
// A reader that acquires the name a second time may wait for a writer that waits for the first: that ends
// with its context only.
type RW struct{ readers, writers *Locker }

// NewRW returns an RW on client, which stays the caller's to close. The error names the field of cfg that
// is wrong.
func NewRW(client valkey.Client, cfg Config) (*RW, error) {
	k := kind{scripts: shared, config: "Config", held: "rw", queue: "rwwait", place: "rwplace"}
	k.args = []string{strconv.Itoa(math.MaxInt32)}
	readers, err := newLocker(client, k, cfg)
	if err != nil {
		return nil, err
	}
	k.mark, k.args = "w", []string{"1"}
	writers, err := newLocker(client, k, cfg)
	if err != nil {
		return nil, err
	}
	return &RW{readers, writers}, nil
}

// TryAcquireRead takes name for reading if no writer holds it and nobody waits for it; ok is false if
// somebody does. Names and errors are as in [Locker.TryAcquire]. One round trip.
func (rw *RW) TryAcquireRead(ctx context.Context, name string) (permit *Permit, ok bool, err error) {
	return tryPermit(ctx, rw.readers, name)
}

// AcquireRead waits until it holds name for reading, or ctx ends; then the error wraps ctx.Err(). It costs
// the round trips of [Locker.Acquire].
func (rw *RW) AcquireRead(ctx context.Context, name string) (*Permit, error) {
	return acquirePermit(ctx, rw.readers, name)
}

// DoRead acquires name for reading, runs f, and releases it, as [Locker.Do] does with a lock.
func (rw *RW) DoRead(ctx context.Context, name string, f func(context.Context) error) error {
	return rw.readers.Do(ctx, name, f)
}

// TryAcquireWrite takes name for writing if nobody holds it and nobody waits for it; ok is false if
// somebody does. One round trip.
func (rw *RW) TryAcquireWrite(ctx context.Context, name string) (lock *Lock, ok bool, err error) {
	return rw.writers.TryAcquire(ctx, name)
}

// AcquireWrite waits until it holds name for writing, or ctx ends; then the error wraps ctx.Err(). Its
// [Lock.Fence] is above that of every earlier writer of the name.
func (rw *RW) AcquireWrite(ctx context.Context, name string) (*Lock, error) {
	return rw.writers.Acquire(ctx, name)
}

// DoWrite acquires name for writing, runs f, and releases it, as [Locker.Do] does with a lock.
func (rw *RW) DoWrite(ctx context.Context, name string, f func(context.Context) error) error {
	return rw.writers.Do(ctx, name, f)
}

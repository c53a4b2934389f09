package writebehind

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Defaults of [Config].
const (
	DefaultPartitions  = 16
	DefaultWindow      = time.Second
	DefaultTTL         = 5 * time.Minute
	DefaultLimit       = 100_000
	DefaultDeadLimit   = 10_000
	DefaultBatch       = 100
	DefaultBatchBytes  = 4 << 20
	DefaultCalls       = 4
	DefaultCallTimeout = 10 * time.Second
	DefaultAttempts    = 10
	DefaultBackoff     = 100 * time.Millisecond
	DefaultMaxBackoff  = 30 * time.Second
	DefaultGiveUp      = 24 * time.Hour
	DefaultLease       = 5 * time.Second
)

// Never is the [Config.GiveUp] that lets no write become a dead letter for its age.
const Never = -1

// Forget is the [Config.TTL] that keeps no value once the origin has it.
const Forget = -1

const (
	maxPartitions = 1024
	maxBatch      = 1000
	maxName       = 256
	maxReason     = 300
	maxTime       = 100 * 365 * 24 * time.Hour
)

// Codec turns values into bytes and back, as encoding/json does. It is used from any goroutine.
type Codec interface {
	// Marshal gets a value of the store's type.
	Marshal(value any) ([]byte, error)
	// Unmarshal gets a pointer to one, and bytes that it may keep but not change.
	Unmarshal(data []byte, value any) error
}

// Origin writes a batch to where the values belong, of different keys and in no order. It is called from several
// goroutines, but never twice at once for the same key by the process that drains it.
//
//   - nil: all are written.
//   - [Rejected]: those that it names are not, all others are.
//   - [Permanent]: none is; a write that was alone becomes a dead letter at once.
//   - any other error, or a panic: nobody knows. The batch is cut in halves until what fails stands alone.
//
// A call may come again for a write that was done: after a crash, a timeout, a lost answer. Whoever compares
// [Write.Version] with that of the last write, in the same transaction, makes such a call change nothing. Its context
// ends after [Config.CallTimeout], and when the process may drain no longer.
type Origin[V any] func(ctx context.Context, batch []Write[V]) error

// Full is what [Store.Put] does when the log is full.
type Full int

const (
	// Refuse returns [ErrFull].
	Refuse Full = iota
	// Block waits until there is room, or ctx ends.
	Block
)

// Config says how writes are kept and drained. The zero value is ready to use, and only writes: somebody has to
// have an Origin. All who share a store use the same one; durations are whole milliseconds.
type Config[V any] struct {
	// Prefix stands before every key; all who share a store use the same one. Default "fr".
	Prefix string
	// Name keeps apart stores with the same keys, one for each type of value. Default "default".
	Name string
	// Partitions is into how many parts the keys are divided, each drained by one process at a time. It can't be
	// changed while the store is in use: [Store.Start] refuses another number. From 1 to 1024. Default 16.
	Partitions int

	// Origin is what this process drains into. Nil means that it doesn't drain.
	Origin Origin[V]
	// Window is for how long the writes of a key are gathered: the origin gets its newest value once in each. From a
	// millisecond on. Default 1 s.
	Window time.Duration
	// TTL is how long a value is kept once the origin has it, or was asked for it. Zero means 5 minutes; [Forget]
	// means not at all.
	TTL time.Duration
	// LoadTimeout bounds each load of [Store.Get]. Zero means CallTimeout.
	LoadTimeout time.Duration

	// Limit is how many keys wait for the origin at most; each partition has its part of it. Default 100,000.
	Limit int
	// Full is what Put does beyond that. Default [Refuse].
	Full Full

	// Batch is how many writes the origin gets in one call at most, from 1 to 1,000; BatchBytes how many bytes of
	// values, unless a single one has more. Default 100, and 4 MiB.
	Batch, BatchBytes int
	// Calls is how many calls of Origin a process makes at once for each partition. Half of them, and at least
	// one, is for writes that have failed before. Default 4.
	Calls int
	// CallTimeout bounds each call. Default 10 s.
	CallTimeout time.Duration

	// Attempts is how often a write fails until it is a dead letter: alone in a call, or by [Rejected]. Failures alone in
	// a call don't count, but for the first, unless the origin has taken another write of the partition since the last
	// one: it may be away. Default 10.
	Attempts int
	// Backoff is the pause after a write's first failure. It doubles with each, up to MaxBackoff, give or take a
	// fifth. Default 100 ms, and 30 s.
	Backoff, MaxBackoff time.Duration
	// GiveUp is for how long a write fails until it is a dead letter, whatever its failures count. Zero means a
	// day; [Never] means that it is tried for ever.
	GiveUp time.Duration
	// DeadLimit is how many dead letters are kept at most, by parts as Limit is. Beyond it writes are tried on.
	// Default 10,000.
	DeadLimit int

	// Lease is how long the partitions of a process that has died wait for another one. It is renewed every third
	// of it. From 100 ms on. Default 5 s.
	Lease time.Duration

	// Codec turns values into bytes. Nil means: bytes and strings as they are, others as JSON.
	Codec Codec
	// Hooks are called at what the results don't show.
	Hooks Hooks
	// Logger hears what goes wrong in the background. Nil discards it.
	Logger *slog.Logger
}

func (cfg *Config[V]) setDefaults() {
	number := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	duration := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	if cfg.Name == "" {
		cfg.Name = defaultName
	}
	number(&cfg.Partitions, DefaultPartitions)
	duration(&cfg.Window, DefaultWindow)
	duration(&cfg.TTL, DefaultTTL)
	number(&cfg.Limit, DefaultLimit)
	number(&cfg.Batch, DefaultBatch)
	number(&cfg.BatchBytes, DefaultBatchBytes)
	number(&cfg.Calls, DefaultCalls)
	duration(&cfg.CallTimeout, DefaultCallTimeout)
	duration(&cfg.LoadTimeout, max(cfg.CallTimeout, time.Millisecond))
	number(&cfg.Attempts, DefaultAttempts)
	duration(&cfg.Backoff, min(DefaultBackoff, max(cfg.MaxBackoff, time.Millisecond)))
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = max(DefaultMaxBackoff, cfg.Backoff)
	}
	duration(&cfg.GiveUp, DefaultGiveUp)
	number(&cfg.DeadLimit, DefaultDeadLimit)
	duration(&cfg.Lease, DefaultLease)
	if cfg.GiveUp == Never {
		cfg.GiveUp = 0
	}
	if cfg.TTL == Forget {
		cfg.TTL = 0
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Hooks.setDefaults()
}

// check says which field is wrong, once the defaults are set.
func (cfg *Config[V]) check() error {
	for _, field := range []struct {
		name         string
		value, least time.Duration
	}{
		{"Window", cfg.Window, time.Millisecond},
		{"TTL", cfg.TTL, 0},
		{"LoadTimeout", cfg.LoadTimeout, time.Millisecond},
		{"CallTimeout", cfg.CallTimeout, time.Millisecond},
		{"Backoff", cfg.Backoff, time.Millisecond},
		{"MaxBackoff", cfg.MaxBackoff, cfg.Backoff},
		{"GiveUp", cfg.GiveUp, 0},
		{"Lease", cfg.Lease, 100 * time.Millisecond},
	} {
		if field.value < field.least || field.value > maxTime || field.value%time.Millisecond != 0 {
			return fmt.Errorf("writebehind: Config.%s is %v, not whole milliseconds from %v to a century", field.name, field.value, field.least)
		}
	}
	for _, field := range []struct {
		name               string
		value, least, most int
	}{
		{"Partitions", cfg.Partitions, 1, maxPartitions},
		{"Limit", cfg.Limit, cfg.Partitions, 1 << 40},
		{"Batch", cfg.Batch, 1, maxBatch},
		{"BatchBytes", cfg.BatchBytes, 1, 1 << 40},
		{"Calls", cfg.Calls, 1, 1000},
		{"Attempts", cfg.Attempts, 1, 1 << 30},
		{"DeadLimit", cfg.DeadLimit, cfg.Partitions, 1 << 40},
	} {
		if field.value < field.least || field.value > field.most {
			return fmt.Errorf("writebehind: Config.%s is %d, not from %d to %d", field.name, field.value, field.least, field.most)
		}
	}
	if len(cfg.Name) > maxName {
		return errors.New("writebehind: Config.Name is over 256 bytes")
	}
	if cfg.Full < Refuse || cfg.Full > Block {
		return fmt.Errorf("writebehind: Config.Full is %d, none of the choices", cfg.Full)
	}
	return nil
}

package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/key"
	"github.com/flatrate/flatrate/internal/lease"
	"github.com/valkey-io/valkey-go"
)

var (
	// ErrNoGroup is returned by calls of a [Group] that the server has no longer, although it has the log: somebody has deleted
	// it, or the stream. [Group.Open] makes it anew.
	ErrNoGroup = errors.New("queue: the log has no such group")
	// ErrFuture is returned for a position that the log has not reached.
	ErrFuture = errors.New("queue: the position is in the future")
)

// Defaults of [LogConfig].
const (
	DefaultKeepDead = 14 * 24 * time.Hour
	maxGroups       = 100
	maxDead         = 100_000 // dead letters of a group in a partition
)

// LogConfig says which log, and how it is. Name has no default.
//
// Retention, KeepDead, MaxEntries, MaxBytes and Lossy are kept with the log, for all who use it: a zero value leaves what the log has, or
// the default if it is new, and [NoLimit] takes a limit away. They are written by the first call, or by [Log.Open].
type LogConfig struct {
	// Prefix stands before every key; all who share a log use the same one. Default "fr".
	Prefix string
	// Name is any string of 1 to 256 bytes. Logs and queues have names of their own.
	Name string
	// Partitions is over how many streams the log is spread, from 1 to 256, each in a slot of its own. At most so many processes of a group
	// work at a time. It can't be changed. Zero takes the log as it is, or 1.
	Partitions int

	// Retention is how long entries are kept that all groups have acknowledged: whole milliseconds, a second to 366 days. Default 4 days.
	// What a group has not acknowledged stays, unless the log is Lossy.
	Retention time.Duration
	// KeepDead is how long dead letters are kept: whole milliseconds, a second to 366 days. Default 14 days.
	KeepDead time.Duration
	// MaxEntries and MaxBytes are how much the log keeps. For an append that would exceed one, the oldest entries go that all groups
	// have acknowledged; if that makes no room it is refused with [ErrFull], unless the log is Lossy. Each partition has its part,
	// rounded up. No limit by default. What stands aside does not count.
	MaxEntries, MaxBytes int64
	// Lossy, if it is [Lossy], lets Retention, MaxEntries and MaxBytes drop entries that groups have not acknowledged or not even read.
	// [Lossless] takes that back.
	Lossy Lossiness

	// MaxBody is how many bytes body and attributes of a message may have together, up to 64 MiB. Default 256 KiB.
	MaxBody int

	// Durability is what an append waits for. Default [Memory]. Replicas and DurabilityTimeout are as in [Config].
	Durability        Durability
	Replicas          int
	DurabilityTimeout time.Duration

	// Timeout bounds every call to the server, beside the caller's context. Default 10 s.
	Timeout time.Duration
	// Hooks hear what happens.
	Hooks Hooks
	// Logger hears of failures in the background. Nil discards them.
	Logger *slog.Logger
}

// Lossiness is whether a log drops what is not acknowledged.
type Lossiness int

// What [LogConfig] may ask for.
const (
	// AsItIs leaves what the log has; a new one loses nothing.
	AsItIs Lossiness = iota
	// Lossy drops what is too old or too much, whoever has not acknowledged it.
	Lossy
	// Lossless refuses appends before it drops what is not acknowledged.
	Lossless
)

// Log is a log: entries stay where they are, and any number of groups read all of them, each from its own position. It is safe for
// concurrent use. It needs no closing.
type Log struct {
	client valkey.Client
	cfg    LogConfig
	prefix string
	keys   keySpace
	log    *slog.Logger
	leases *lease.Server

	opening chan struct{} // full while somebody opens it
	state   atomic.Pointer[logState]
	deleted atomic.Bool
}

// logState is what is known of a log that is open.
type logState struct {
	created string // which incarnation it is
	parts   []*logPart
}

// logPart is one stream of a log.
type logPart struct {
	index   int
	of      int
	keys    []string
	appends gather[*appending]
	trimmed atomic.Int64 // when this process trimmed it last (Unix ms, by its own clock)
}

// NewLog returns the Log of cfg.Name on client, which stays the caller's to close. Nothing is sent: the first call opens the log, or
// [Log.Open] does. The error names the field of cfg that is wrong.
func NewLog(client valkey.Client, cfg LogConfig) (*Log, error) {
	if client == nil {
		return nil, errors.New("queue: client is nil")
	}
	keys, err := newLogSpace(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("queue: LogConfig.Prefix: %w", err)
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Prefix == "" {
		cfg.Prefix = key.DefaultPrefix
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	if cfg.Durability == Replicated && cfg.Replicas == 0 {
		cfg.Replicas = 1
	}
	if cfg.DurabilityTimeout == 0 {
		cfg.DurabilityTimeout = time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Log{
		client: client, cfg: cfg, prefix: cfg.Prefix, keys: keys, log: cfg.Logger, leases: lease.On(client), opening: make(chan struct{}, 1),
	}, nil
}

// Name is the log's name.
func (l *Log) Name() string { return l.cfg.Name }

func (c *LogConfig) check() error {
	switch {
	case c.Name == "" || len(c.Name) > maxName:
		return fmt.Errorf("queue: LogConfig.Name has %d bytes, not 1 to %d", len(c.Name), maxName)
	case c.Partitions < 0 || c.Partitions > maxPartitions:
		return fmt.Errorf("queue: LogConfig.Partitions is %d, not from 1 to %d", c.Partitions, maxPartitions)
	case c.MaxBody < 0 || c.MaxBody > maxBody:
		return fmt.Errorf("queue: LogConfig.MaxBody is %d, not from 1 to %d", c.MaxBody, maxBody)
	case c.Lossy < AsItIs || c.Lossy > Lossless:
		return fmt.Errorf("queue: LogConfig.Lossy is %d, none of those there are", c.Lossy)
	case c.Durability < Memory || c.Durability > Synced:
		return fmt.Errorf("queue: LogConfig.Durability is %d, none of those there are", c.Durability)
	case c.Replicas < 0 || c.Replicas > 0 && c.Durability != Replicated:
		return fmt.Errorf("queue: LogConfig.Replicas is %d, with Durability %v", c.Replicas, c.Durability)
	}
	for field, n := range map[string]int64{"MaxEntries": c.MaxEntries, "MaxBytes": c.MaxBytes} {
		if n < NoLimit || n > 1<<50 {
			return fmt.Errorf("queue: LogConfig.%s is %d, not positive, NoLimit, or zero", field, n)
		}
	}
	for _, err := range []error{
		span("LogConfig.Retention", c.Retention, time.Second, maxDuration), span("LogConfig.KeepDead", c.KeepDead, time.Second, maxDuration),
		span("LogConfig.DurabilityTimeout", c.DurabilityTimeout, time.Millisecond, time.Minute),
		span("LogConfig.Timeout", c.Timeout, time.Millisecond, time.Hour),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// span refuses a duration that is neither zero nor whole milliseconds within bounds.
func span(field string, d, least, most time.Duration) error {
	if d != 0 && (d < least || d > most || d%time.Millisecond != 0) {
		return fmt.Errorf("queue: %s is %v, not whole milliseconds from %v to %v", field, d, least, most)
	}
	return nil
}

// LogPrefixOf returns what stands before every key of l, for tests of the layout.
func LogPrefixOf(l *Log) string { return l.cfg.Prefix }

// OwnedBy returns how many partitions g has in this process, for tests of the sharing.
func OwnedBy(g *Group) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.shares)
}

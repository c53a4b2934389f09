// Package queue is a work queue: messages that are sent, received, and gone when they were acknowledged. It is a log, too, whose entries any
// number of groups read, each from its own position ([Log], [Group]), and a simple list ([List]). docs/log.md says which is for which case.
//
// [New] makes a Queue of a client and a name. [Queue.Send] sends, a [Consumer] handles what comes: it receives, keeps
// what it works on, acknowledges, and sends to the dead letters what fails again and again. [Queue.Receive],
// [Queue.Ack], [Queue.Nack] and [Queue.Extend] are for those who do that by themselves.
//
// Delivery is at least once. A message that was received stays in the queue, hidden for its time in flight; who
// received it acknowledges it, or it comes again. A FIFO queue also keeps the order of each group: nothing of a group is
// delivered while something of it is in flight.
//
// docs/queue.md says what is lost in which failure, and which limits hold for each partition of a queue.
//
// # Keys
//
//	key                           type    value                                                         ends
//	fr:queue:{%}:names            hash    the name of each queue -> since when (Unix ms)                with the queue
//	fr:queue:{NAME:N}:meta        hash    settings and counters of partition N                          with the queue
//	fr:queue:{NAME:N}:gone        string  empty: the queue was deleted                                  after a minute
//	fr:queue:{NAME:N}:ready       list    messages without a group that nobody has received             when empty
//	fr:queue:{NAME:N}:g:GROUP     list    messages of a group that nobody has received                  when empty
//	fr:queue:{NAME:N}:groups      list    groups with messages, next one first; empty is without group  when empty
//	fr:queue:{NAME:N}:heads       zset    group -> when its first message was sent (Unix ms)            when empty
//	fr:queue:{NAME:N}:locked      zset    group -> until when nothing of it is delivered (Unix ms)      when empty
//	fr:queue:{NAME:N}:held        hash    group -> FIFO: its receipts in order; else how many           when empty
//	fr:queue:{NAME:N}:msg         hash    id -> message in flight or delayed                            when empty
//	fr:queue:{NAME:N}:flight      zset    receipt -> until when it is hidden (Unix ms)                  when empty
//	fr:queue:{NAME:N}:delay       zset    id -> when it may be received (Unix ms)                       when empty
//	fr:queue:{NAME:N}:dead        zset    receipt of what goes to the dead letters -> since when        when empty
//	fr:queue:{NAME:N}:why         hash    id -> why it failed                                           when empty
//	fr:queue:{NAME:N}:moved       zset    mark of each message moved here -> when (Unix ms)             after a day
//	fr:queue:{NAME:N}:dedup       hash    deduplication id -> id and time of the message                with the queue
//	fr:queue:{NAME:N}:dedupq      list    time and deduplication id, oldest first                       when empty
//	fr:queue:{NAME:N}:unique      hash    key of a unique job -> its message, until when                when empty
//	fr:queue:{NAME:N}:cron        hash    periodic job -> its last time (Unix s)                        with the queue
//	fr:queue:{NAME:N}:lead        string  token of who sends periodic jobs; partition 0 only            after its lease
//	fr:queue:{NAME:N}:tries       hash    attempt to receive -> its time and receipts                   when empty
//	fr:queue:{NAME:N}:triesq      list    time and attempt, oldest first                                when empty
//	fr:queue:{NAME:N}:rates       zset    group -> when its tokens are full again (Unix ms)             when empty
//	fr:queue:{NAME:N}:wait        zset    channel and id of who waits -> until when (Unix ms)           when empty
//
// Those of logs and lists; GROUP is the name of a group of readers:
//
//	fr:log:{%}:names              hash    the name of each log -> since when (Unix ms)                  with the log
//	fr:log:{NAME:N}:meta          hash    settings and counters of partition N                          with the log
//	fr:log:{NAME:N}:gone          string  empty: the log was deleted                                    after a minute
//	fr:log:{NAME:N}:log           stream  the entries, with a consumer group for each GROUP             with the log
//	fr:log:{NAME:N}:groups        set     the groups                                                    with the log
//	fr:log:{NAME:N}:own:GROUP     string  token of the process that has the partition                   after its lease
//	fr:log:{NAME:N}:members:GROUP  zset   channel and id of each process -> until when; partition 0     when empty
//	fr:log:{NAME:N}:side:GROUP    hash    id -> entry that was moved out of the stream, or is dead      when empty
//	fr:log:{NAME:N}:try:GROUP     hash    id -> deliveries, when first (Unix ms), why it failed last    when empty
//	fr:log:{NAME:N}:due:GROUP     zset    id of what was moved out -> when it may come (Unix ms)        when empty
//	fr:log:{NAME:N}:dead:GROUP    zset    id of each dead letter -> since when (Unix ms)                when empty
//	fr:log:{NAME:N}:wait          zset    channel and id of who waits -> until when (Unix ms)           when empty
//	fr:list:{NAME}                list    items, the oldest one last                                    when empty
package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/internal/key"
	"github.com/valkey-io/valkey-go"
)

var (
	// ErrNotHeld is returned for a receipt that is not the last one of its message: it was delivered again, is
	// acknowledged, or gone; or the receipt is none.
	ErrNotHeld = errors.New("queue: the message is not held by this receipt")
	// ErrFull is returned by a send that the queue's quota has no room for.
	ErrFull = errors.New("queue: the queue is full")
	// ErrDeleted is returned after the queue was deleted. [Queue.Open] makes it anew.
	ErrDeleted = errors.New("queue: the queue was deleted")
	// ErrNoQueue is returned by calls that make no queue, for a name of which there is none: those that look at one, delete what
	// is in it, pause it or move what is in it.
	ErrNoQueue = errors.New("queue: there is no queue of that name")
	// ErrNoDeadLetters is returned by a rejection where Config.DeadLetters is not set.
	ErrNoDeadLetters = errors.New("queue: it has no dead-letter queue")
)

// Defaults of [Config].
const (
	DefaultVisibility  = 30 * time.Second
	DefaultRetention   = 4 * 24 * time.Hour
	DefaultMaxBody     = 256 << 10
	DefaultMaxReceives = 5
	DefaultTimeout     = 10 * time.Second
)

// NoLimit in a setting of [Config] takes away a limit that the queue has.
const NoLimit = -1

const (
	maxName       = 256
	maxPartitions = 256
	maxBody       = 64 << 20
	maxDuration   = 366 * 24 * time.Hour
)

// Rate is how many messages may be delivered in a time: a bucket of Limit tokens that fills up in Per. So at most twice the
// Limit is delivered within Per. The zero value leaves what the queue has, or no limit; a Limit of [NoLimit] takes it away.
type Rate struct {
	Limit int
	Per   time.Duration
}

// Config says which queue, and how it is. Name has no default.
//
// The settings from MaxReceives to GroupRate are kept with the queue, for all who use it: a zero value leaves what the queue has, or
// the default if it is new, and [NoLimit] takes a limit away. They are written by the first call, or by [Queue.Open].
type Config struct {
	// Prefix stands before every key; all who share a queue use the same one. Default "fr".
	Prefix string
	// Name is any string of 1 to 256 bytes.
	Name string
	// FIFO keeps the order of each group. A queue stays what it was made as: false takes it as it is.
	FIFO bool
	// Partitions is over how many slots of a cluster the queue is spread, from 1 to 256. It can't be changed. Zero takes
	// the queue as it is, or 1.
	Partitions int

	// MaxReceives is after how many deliveries a message that was not acknowledged goes to the dead letters.
	// Default 5 with DeadLetters; without, there is no limit, and none may be set.
	MaxReceives int
	// DeadLetters is the name of the queue for messages that failed. It is made when the first one comes. Empty
	// leaves what the queue has.
	DeadLetters string
	// Retention is how long a message is kept that nobody acknowledges: whole milliseconds, a second to 366 days. Default 4 days.
	Retention time.Duration
	// MaxMessages and MaxBytes are quotas: a send that would exceed one is refused with [ErrFull]. Messages count until
	// they are acknowledged or have moved to the dead letters, with about 50 bytes beside the body and the attributes. Each
	// partition has its part, rounded up. No limit by default.
	MaxMessages, MaxBytes int64
	// Delay is how long messages can't be received after they were sent: less than Retention. A message's own
	// Delay counts instead, which a FIFO queue does not have; there a changed Delay holds for what was sent before, too.
	Delay time.Duration
	// MaxInFlight is how many messages may be in flight at a time. Each partition has its part, rounded up. No limit
	// by default.
	MaxInFlight int
	// MaxInFlightPerGroup is the same for each group of a standard queue; a FIFO group has one delivery at a time anyway.
	MaxInFlightPerGroup int
	// Rate is how many messages are delivered in a time, each partition its part; GroupRate, of each group.
	Rate, GroupRate Rate

	// Visibility is how long a message is in flight if Receive does not say: 10 ms to 12 h. Default 30 s.
	Visibility time.Duration
	// MaxBody is how many bytes body and attributes of a message may have together, up to 64 MiB. Default 256 KiB.
	MaxBody int
	// DedupByContent takes the SHA-256 of the body as the deduplication id of messages that have none.
	DedupByContent bool

	// Durability is what a send waits for. Default [Memory].
	Durability Durability
	// Replicas is how many replicas must have a message, with [Replicated]: 1 or more, default 1.
	Replicas int
	// DurabilityTimeout is how long a send waits for that. Default 1 s.
	DurabilityTimeout time.Duration

	// Timeout bounds every call to the server, beside the caller's context. Default 10 s.
	Timeout time.Duration
	// Hooks hear what happens.
	Hooks Hooks
	// Logger hears of failures in the background. Nil discards them.
	Logger *slog.Logger
}

// Hooks are optional funcs, called from any goroutine. They should return soon.
type Hooks struct {
	// Sent is called with how many messages, and bytes of body and attributes, the server has taken in a call, duplicates among
	// them: never with none.
	Sent func(messages, bytes int)
	// Received is called with how many messages, and bytes of body and attributes, a call has brought: never with none.
	Received func(messages, bytes int)
	// Settled is called with how many receipts a call has acknowledged, extended or given back.
	Settled func(receipts int)
	// Missed is called with how many entries of a log were gone before a group of this process had acknowledged them: the log is [Lossy],
	// or somebody else has trimmed it.
	Missed func(entries int)
	// Buried is called with each message that this process has moved to the dead letters.
	Buried func(id, reason string)
}

// Queue is one queue. It is safe for concurrent use. It needs no closing: what runs in the background ends when
// nobody waits.
type Queue struct {
	client valkey.Client
	cfg    Config
	prefix string
	keys   keySpace
	log    *slog.Logger

	opening chan struct{} // full while somebody opens it
	state   atomic.Pointer[state]
	deleted atomic.Bool

	receiving receiving
	moving    mover
	siblings  sync.Map // name -> *Queue, where messages are moved to
}

// state is what is known of a queue that is open.
type state struct {
	fifo     bool
	dlq      string
	settings map[string]string
	parts    []*partition
	next     atomic.Uint32 // the partition whose turn it is
}

// kind is what can't be changed of a queue, as scripts have it.
func (s *state) kind() string {
	if s.fifo {
		return "1 " + strconv.Itoa(len(s.parts))
	}
	return "0 " + strconv.Itoa(len(s.parts))
}

// partition is one slot's part of a queue.
type partition struct {
	index   int
	keys    []string
	waiting atomic.Int64 // messages that waited when it was last asked
	sends   gather[*sending]
	settles gather[*settling]
}

// New returns the Queue of cfg.Name on client, which stays the caller's to close. Nothing is sent: the first call
// opens the queue, or [Queue.Open] does. The error names the field of cfg that is wrong.
func New(client valkey.Client, cfg Config) (*Queue, error) {
	if client == nil {
		return nil, errors.New("queue: client is nil")
	}
	keys, err := newKeySpace(cfg.Prefix)
	if err != nil {
		return nil, fmt.Errorf("queue: Config.Prefix: %w", err)
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.fill()
	q := &Queue{client: client, cfg: cfg, prefix: cfg.Prefix, keys: keys, log: cfg.Logger, opening: make(chan struct{}, 1)}
	q.receiving.begin(q)
	q.moving.queue = q
	return q, nil
}

func (c *Config) fill() {
	if c.Prefix == "" {
		c.Prefix = key.DefaultPrefix
	}
	if c.Visibility == 0 {
		c.Visibility = DefaultVisibility
	}
	if c.MaxBody == 0 {
		c.MaxBody = DefaultMaxBody
	}
	if c.Durability == Replicated && c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.DurabilityTimeout == 0 {
		c.DurabilityTimeout = time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.DeadLetters != "" && c.MaxReceives == 0 {
		c.MaxReceives = DefaultMaxReceives
	}
}

func (c *Config) check() error {
	limit := func(field string, n int64) error {
		if n < NoLimit || n > math.MaxInt32<<20 {
			return fmt.Errorf("queue: Config.%s is %d, not positive, NoLimit, or zero", field, n)
		}
		return nil
	}
	rate := func(field string, r Rate) error {
		switch {
		case r.Limit == 0 && r.Per == 0, r.Limit == NoLimit:
			return nil
		case r.Limit < 1 || r.Limit > 1e9:
			return fmt.Errorf("queue: Config.%s.Limit is %d, not from 1 to a thousand million", field, r.Limit)
		case r.Per == 0:
			return fmt.Errorf("queue: Config.%s.Per is missing", field)
		}
		return span("Config."+field+".Per", r.Per, time.Millisecond, maxDuration)
	}
	switch {
	case c.Name == "" || len(c.Name) > maxName:
		return fmt.Errorf("queue: Config.Name has %d bytes, not 1 to %d", len(c.Name), maxName)
	case c.Partitions < 0 || c.Partitions > maxPartitions:
		return fmt.Errorf("queue: Config.Partitions is %d, not from 1 to %d", c.Partitions, maxPartitions)
	case c.DeadLetters == c.Name:
		return errors.New("queue: Config.DeadLetters is the queue itself")
	case len(c.DeadLetters) > maxName:
		return fmt.Errorf("queue: Config.DeadLetters has %d bytes, over %d", len(c.DeadLetters), maxName)
	case c.MaxBody < 0 || c.MaxBody > maxBody:
		return fmt.Errorf("queue: Config.MaxBody is %d, not from 1 to %d", c.MaxBody, maxBody)
	case c.Durability < Memory || c.Durability > Synced:
		return fmt.Errorf("queue: Config.Durability is %d, none of those there are", c.Durability)
	case c.Replicas < 0 || c.Replicas > 0 && c.Durability != Replicated:
		return fmt.Errorf("queue: Config.Replicas is %d, with Durability %v", c.Replicas, c.Durability)
	}
	for _, err := range []error{
		limit("MaxReceives", int64(c.MaxReceives)), limit("MaxMessages", c.MaxMessages), limit("MaxBytes", c.MaxBytes),
		limit("MaxInFlight", int64(c.MaxInFlight)), limit("MaxInFlightPerGroup", int64(c.MaxInFlightPerGroup)),
		rate("Rate", c.Rate), rate("GroupRate", c.GroupRate),
		span("Config.Retention", c.Retention, time.Second, maxDuration), span("Config.Delay", max(c.Delay, 0), time.Millisecond, maxDuration),
		span("Config.Visibility", c.Visibility, minVisibility, maxVisibility),
		span("Config.DurabilityTimeout", c.DurabilityTimeout, time.Millisecond, time.Minute),
		span("Config.Timeout", c.Timeout, time.Millisecond, time.Hour),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// Name is the queue's name.
func (q *Queue) Name() string { return q.cfg.Name }

// partOf returns the partition of whatever has to be on one: a group, or a key of which there is one.
func (s *state) partOf(key string) *partition {
	if len(s.parts) == 1 {
		return s.parts[0]
	}
	return s.parts[hashOf(key)%uint64(len(s.parts))]
}

// hashOf is FNV-1a, folded, since its low bits alone are poor.
func hashOf(key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return h ^ h>>32
}

// PrefixOf returns what stands before every key of q, for tests of the layout.
func PrefixOf(q *Queue) string { return q.cfg.Prefix }

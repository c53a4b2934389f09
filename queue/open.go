package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/flatrate/flatrate/internal/server"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed declare.lua
	declareLua string

	declare = script.New(declareLua)
)

// Open makes the queue if it is not there, writes the settings that the Config has, and checks that the server keeps what it is
// given: it refuses one that evicts keys as it likes (an allkeys-* policy). Every other call does so once by itself, but those that
// return [ErrNoQueue] make none. A process that had the queue open when it was deleted gets it again only by Open; one that is new makes
// it by its first send or receive. Two round trips and one for each partition.
func (q *Queue) Open(ctx context.Context) error {
	if err := q.turn(ctx); err != nil {
		return err
	}
	defer func() { <-q.opening }()
	return q.open(ctx, true)
}

// opened returns the state of the queue, and opens it first if nobody has.
func (q *Queue) opened(ctx context.Context) (*state, error) {
	if s := q.state.Load(); s != nil {
		return s, nil
	}
	if err := q.turn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-q.opening }()
	if s := q.state.Load(); s != nil {
		return s, nil
	}
	if q.deleted.Load() {
		return nil, ErrDeleted
	}
	if err := q.open(ctx, true); err != nil {
		return nil, err
	}
	return q.state.Load(), nil
}

// found is opened for calls that make no queue: the error is ErrNoQueue if there is none.
func (q *Queue) found(ctx context.Context) (*state, error) {
	if s := q.state.Load(); s != nil {
		return s, nil
	}
	if err := q.turn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-q.opening }()
	if s := q.state.Load(); s != nil {
		return s, nil
	}
	if q.deleted.Load() {
		return nil, ErrDeleted
	}
	if err := q.exists(ctx); err != nil {
		return nil, err
	}
	if err := q.open(ctx, false); err != nil {
		return nil, err
	}
	return q.state.Load(), nil
}

// exists returns ErrNoQueue if there is no queue, or ErrDeleted if there was one a minute ago.
func (q *Queue) exists(ctx context.Context) error {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	keys, c := q.keys.of(q.cfg.Name, 0), q.client
	there, err := c.Do(ctx, c.B().Hexists().Key(keys[0]).Field("fifo").Build()).AsBool()
	if err != nil {
		return fmt.Errorf("queue: open: %w", err)
	}
	if there {
		return nil
	}
	gone, err := c.Do(ctx, c.B().Exists().Key(keys[1]).Build()).AsBool()
	switch {
	case err != nil:
		return fmt.Errorf("queue: open: %w", err)
	case gone:
		return ErrDeleted
	}
	return ErrNoQueue
}

// lost opens a queue again that the server did not find in the state was: it has lost its data, or the queue was deleted.
func (q *Queue) lost(ctx context.Context, was *state) error {
	if err := q.turn(ctx); err != nil {
		return err
	}
	defer func() { <-q.opening }()
	if q.deleted.Load() {
		return ErrDeleted
	}
	if q.state.Load() != was {
		return nil // somebody else has
	}
	return q.open(ctx, false)
}

func (q *Queue) turn(ctx context.Context) error {
	select {
	case q.opening <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("queue: open: %w", ctx.Err())
	}
}

func (q *Queue) open(ctx context.Context, anew bool) error {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	if err := q.checkServer(ctx); err != nil {
		return err
	}
	parts := ""
	if q.cfg.Partitions > 0 {
		parts = strconv.Itoa(q.cfg.Partitions)
	}
	// The first partition says what the queue is: how many there are decides which part of a limit each has.
	fifo := map[bool]string{true: "1"}[q.cfg.FIFO]
	settings, err := q.declare(ctx, 0, anew, parts, fifo, nil)
	isNew := settings[""] == "1"
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(settings["parts"])
	if err != nil || n < 1 || n > maxPartitions {
		return fmt.Errorf("queue: open: the server has %q partitions", settings["parts"])
	}
	given := q.cfg.settings(n)
	if settings["fifo"] != "1" {
		fifo = ""
	} else {
		fifo = "1"
	}
	for i := range n {
		part, err := q.declare(ctx, i, anew || i > 0, settings["parts"], fifo, given)
		if err != nil {
			return err
		}
		if i == 0 {
			settings = part
		}
	}
	now := strconv.FormatInt(time.Now().UnixMilli(), 10)
	if created := settings["created"]; created != "" {
		now = created
	}
	c := q.client
	if err := c.Do(ctx, c.B().Hsetnx().Key(q.keys.names()).Field(q.cfg.Name).Value(now).Build()).Error(); err != nil && (isNew || !isFull(err)) {
		return fmt.Errorf("queue: open: %w", err)
	}
	s := &state{fifo: settings["fifo"] == "1", dlq: settings["dlq"], settings: settings}
	for i := range n {
		s.parts = append(s.parts, q.newPartition(i, s))
	}
	q.deleted.Store(false)
	q.state.Store(s)
	return nil
}

// isFull says that the server refused a write for lack of memory.
func isFull(err error) bool {
	refused, ok := valkey.IsValkeyErr(err)
	return ok && strings.HasPrefix(refused.Error(), "OOM")
}

// checkServer refuses a server that may evict messages, or that can't do what Config.Durability asks for.
func (q *Queue) checkServer(ctx context.Context) error {
	return checkServer(ctx, q.client, "Config", q.cfg.Durability)
}

func checkServer(ctx context.Context, client valkey.Client, config string, durability Durability) error {
	info, err := server.Probe(ctx, client, "waitaof")
	if err != nil {
		return fmt.Errorf("queue: open: %w", err)
	}
	if strings.HasPrefix(info.Eviction, "allkeys") {
		return fmt.Errorf("queue: open: the server's maxmemory-policy is %s: it would evict messages; use noeviction, or a volatile-* policy", info.Eviction)
	}
	if durability == Synced && !info.Has("waitaof") {
		return fmt.Errorf("queue: open: %s.Durability is Synced, and %s %v has no WAITAOF", config, info.Kind, info.Version)
	}
	return nil
}

// settings returns names and values of those that the Config has, as each of n partitions keeps them.
func (c *Config) settings(n int) []string {
	var all []string
	number := func(name string, v int64, split bool) {
		switch {
		case v == NoLimit:
			all = append(all, name, "0")
		case v > 0 && split:
			all = append(all, name, strconv.FormatInt((v+int64(n)-1)/int64(n), 10))
		case v > 0:
			all = append(all, name, strconv.FormatInt(v, 10))
		}
	}
	rate := func(name, per string, r Rate, split bool) {
		number(name, int64(r.Limit), split)
		if r.Limit > 0 {
			number(per, r.Per.Milliseconds(), false)
		}
	}
	if c.DeadLetters != "" {
		all = append(all, "dlq", c.DeadLetters)
	}
	number("recv", int64(c.MaxReceives), false)
	number("keep", c.Retention.Milliseconds(), false)
	number("max", c.MaxMessages, true)
	number("maxbytes", c.MaxBytes, true)
	number("flight", int64(c.MaxInFlight), true)
	number("gflight", int64(c.MaxInFlightPerGroup), false)
	rate("rate", "per", c.Rate, true)
	rate("grate", "gper", c.GroupRate, false)
	if c.Delay > 0 {
		number("delay", c.Delay.Milliseconds(), false)
	} else if c.Delay == NoLimit {
		number("delay", NoLimit, false)
	}
	return all
}

// declare makes a partition, writes settings, and returns what it has then.
func (q *Queue) declare(ctx context.Context, i int, anew bool, parts, fifo string, given []string) (map[string]string, error) {
	args := append([]string{map[bool]string{true: "1"}[anew], parts, fifo, strconv.FormatInt(DefaultRetention.Milliseconds(), 10)}, given...)
	reply, err := q.exec(ctx, declare, q.keys.of(q.cfg.Name, i), args)
	if err != nil {
		return nil, fmt.Errorf("queue: open: %w", err)
	}
	code, err := number(reply, 0)
	if err != nil {
		return nil, fmt.Errorf("queue: open: %w", err)
	}
	switch code {
	case -1:
		q.deleted.Store(true)
		q.state.Store(nil)
		return nil, ErrDeleted
	case -2:
		return nil, errors.New("queue: Config.FIFO is set, and the queue is a standard one")
	case -3:
		n, _ := number(reply, 1)
		return nil, fmt.Errorf("queue: Config.Partitions is %s, and the queue has %d; they can't be changed", parts, n)
	case -5:
		delay, _ := number(reply, 1)
		keep, _ := number(reply, 2)
		return nil, fmt.Errorf("queue: Config.Delay is %v, and Config.Retention %v: no message would live until it can be received", time.Duration(delay)*time.Millisecond, time.Duration(keep)*time.Millisecond)
	case -4:
		return nil, errors.New("queue: Config.MaxReceives is set, and DeadLetters is not: where would the messages go?")
	}
	isNew, _ := number(reply, 1)
	settings := map[string]string{"": strconv.FormatInt(isNew, 10)}
	for at := 2; at+1 < len(reply); at += 2 {
		name, err1 := reply[at].ToString()
		value, err2 := reply[at+1].ToString()
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("queue: open: %w", err)
		}
		settings[name] = value
	}
	return settings, nil
}

func (q *Queue) newPartition(i int, s *state) *partition {
	p := &partition{index: i, keys: q.keys.of(q.cfg.Name, i)}
	calls := 2
	if s.fifo { // two calls take different connections, so that the later one may come first
		calls = 1
	}
	p.sends = gather[*sending]{
		most: maxSend, bytes: maxSendBytes, calls: calls, timeout: q.bounded,
		size: func(it *sending) int { return len(it.blob) },
		send: func(ctx context.Context, batch []*sending) { q.sendAll(ctx, s, p, batch) },
	}
	p.settles = gather[*settling]{
		most: maxSettle, calls: 2, timeout: q.bounded,
		send: func(ctx context.Context, batch []*settling) { q.settleAll(ctx, s, p, batch) },
	}
	return p
}

// bounded is ctx with the queue's own limit.
func (q *Queue) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, q.cfg.Timeout)
}

const moving = 20 * time.Millisecond // between two attempts while a slot moves

// exec runs a script until the server has run it: while a slot of a cluster moves to another node, it says that it ran
// nothing, and to try again.
func (q *Queue) exec(ctx context.Context, s *script.Script, keys, args []string) ([]valkey.ValkeyMessage, error) {
	return insist(ctx, func() ([]valkey.ValkeyMessage, error) { return s.Exec(ctx, q.client, keys, args...).ToArray() })
}

func insist[T any](ctx context.Context, try func() (T, error)) (T, error) {
	for {
		v, err := try()
		refused, ok := valkey.IsValkeyErr(err)
		if !ok || !strings.HasPrefix(refused.Error(), "TRYAGAIN") {
			return v, err
		}
		timer := time.NewTimer(moving)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return v, err
		}
	}
}

// gone says what a script's first number means if it is negative: nil if it is not.
var errLost = errors.New("queue: the server does not know the queue")

// errAnew ends a call that was on its way to a queue that was deleted, and made anew as another one.
var errAnew = errors.New("queue: the queue was deleted, and made anew as another kind or with other partitions")

func gone(reply []valkey.ValkeyMessage) error {
	code, err := number(reply, 0)
	switch {
	case err != nil:
		return err
	case code == -1:
		return ErrDeleted
	case code == -2:
		return errLost
	}
	return nil
}

func number(reply []valkey.ValkeyMessage, at int) (int64, error) {
	if at >= len(reply) {
		return 0, fmt.Errorf("queue: the server answered %d values", len(reply))
	}
	return reply[at].AsInt64()
}

// onPartition runs a script on a partition. If the server has lost the queue, it is made anew, once; do is then called
// again, since the new state has other partitions.
func (q *Queue) onPartition(ctx context.Context, s *state, p *partition, run func() ([]valkey.ValkeyMessage, error)) ([]valkey.ValkeyMessage, error) {
	return q.orAnew(ctx, s, p, q.remake, run)
}

// onFound is onPartition for calls that make no queue: they only make partitions anew that are lost while the first one is there.
func (q *Queue) onFound(ctx context.Context, s *state, p *partition, run func() ([]valkey.ValkeyMessage, error)) ([]valkey.ValkeyMessage, error) {
	return q.orAnew(ctx, s, p, func(ctx context.Context, was *state) error {
		if err := q.exists(ctx); err != nil {
			return err
		}
		return q.remake(ctx, was)
	}, run)
}

func (q *Queue) orAnew(ctx context.Context, s *state, p *partition, remake func(context.Context, *state) error, run func() ([]valkey.ValkeyMessage, error)) ([]valkey.ValkeyMessage, error) {
	for again := false; ; again = true {
		reply, err := run()
		if err != nil {
			return nil, err
		}
		switch err := gone(reply); {
		case errors.Is(err, ErrDeleted):
			q.deleted.Store(true)
			q.state.CompareAndSwap(s, nil)
			return nil, err
		case errors.Is(err, errLost) && !again:
			if err := remake(ctx, s); err != nil {
				return nil, err
			}
			if now := q.state.Load(); now == nil || now.kind() != s.kind() {
				return nil, errAnew
			}
		case err != nil:
			return nil, err
		default:
			return reply, nil
		}
	}
}

// remake makes a queue anew that the server has lost, or finds out what it is now. The partitions keep their keys, so what is under way goes on.
func (q *Queue) remake(ctx context.Context, was *state) error {
	q.log.Warn("the server does not know the queue any more, or as another one: it is opened anew", "queue", q.cfg.Name)
	return q.lost(ctx, was)
}

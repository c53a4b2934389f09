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
	//go:embed logdeclare.lua
	logDeclareLua string
	//go:embed logdelete.lua
	logDeleteLua string

	logDeclare = script.New(logDeclareLua)
	logDelete  = script.New(logDeleteLua)
)

// errTaken says that a partition is somebody else's.
var errTaken = errors.New("queue: the partition is somebody else's")

// Open makes the log if it is not there, writes the settings that the LogConfig has, and refuses a server that evicts keys as it likes
// (an allkeys-* policy). Every other call does so once by itself, but those that return [ErrNoQueue] make none. A process that had the log
// open when it was deleted gets it again only by Open. Three round trips and one for each partition.
func (l *Log) Open(ctx context.Context) error {
	if err := l.turn(ctx); err != nil {
		return err
	}
	defer func() { <-l.opening }()
	return l.open(ctx, true)
}

func (l *Log) turn(ctx context.Context) error {
	select {
	case l.opening <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("queue: open: %w", ctx.Err())
	}
}

// opened returns the state of the log, and opens it first if nobody has; with must, only if it is there.
func (l *Log) opened(ctx context.Context, must bool) (*logState, error) {
	if s := l.state.Load(); s != nil {
		return s, nil
	}
	if err := l.turn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-l.opening }()
	if s := l.state.Load(); s != nil {
		return s, nil
	}
	if l.deleted.Load() {
		return nil, ErrDeleted
	}
	if must {
		call, cancel := l.bounded(ctx)
		defer cancel()
		there, err := l.client.Do(call, l.client.B().Hexists().Key(l.keys.part(l.cfg.Name, 0, "meta")).Field("parts").Build()).AsBool()
		if err != nil {
			return nil, fmt.Errorf("queue: open: %w", err)
		}
		if !there {
			return nil, ErrNoQueue
		}
	}
	if err := l.open(ctx, !must); err != nil {
		return nil, err
	}
	return l.state.Load(), nil
}

// open declares the partitions, the first one first: it says how many there are. Not anew, a log that was deleted stays so.
func (l *Log) open(ctx context.Context, anew bool) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	if err := checkServer(ctx, l.client, "LogConfig", l.cfg.Durability); err != nil {
		return err
	}
	parts := ""
	if l.cfg.Partitions > 0 {
		parts = strconv.Itoa(l.cfg.Partitions)
	}
	n, created, err := l.declare(ctx, 0, anew, parts, "", nil)
	if err != nil {
		return err
	}
	given := l.cfg.settings(n)
	for i := range n {
		if _, _, err := l.declare(ctx, i, anew || i > 0, strconv.Itoa(n), created, given); err != nil {
			return err
		}
	}
	c := l.client
	if err := c.Do(ctx, c.B().Hsetnx().Key(l.keys.names()).Field(l.cfg.Name).Value(created).Build()).Error(); err != nil && !isFull(err) {
		return fmt.Errorf("queue: open: %w", err)
	}
	s := &logState{created: created}
	for i := range n {
		p := &logPart{index: i, of: n, keys: l.keys.of(l.cfg.Name, i)}
		p.appends = gather[*appending]{
			most: maxSend, bytes: maxSendBytes, timeout: l.bounded,
			calls: 1, // two calls take different connections, so that the later one may come first
			size:  func(it *appending) int { return len(it.blob) },
			send:  func(ctx context.Context, batch []*appending) { l.appendAll(ctx, p, batch) },
		}
		s.parts = append(s.parts, p)
	}
	l.deleted.Store(false)
	l.state.Store(s)
	return nil
}

// settings returns names and values of those that the LogConfig has, as each of n partitions keeps them.
func (c *LogConfig) settings(n int) []string {
	var all []string
	number := func(name string, v int64, split int64) {
		switch {
		case v == NoLimit:
			all = append(all, name, "0")
		case v > 0:
			all = append(all, name, strconv.FormatInt((v+split-1)/split, 10))
		}
	}
	number("keep", c.Retention.Milliseconds(), 1)
	number("keepdead", c.KeepDead.Milliseconds(), 1)
	number("max", c.MaxEntries, int64(n))
	number("maxbytes", c.MaxBytes, int64(n))
	switch c.Lossy {
	case Lossy:
		all = append(all, "lossy", "1")
	case Lossless:
		all = append(all, "lossy", "0")
	case AsItIs:
	}
	return all
}

func (l *Log) declare(ctx context.Context, i int, anew bool, parts, created string, given []string) (n int, made string, err error) {
	args := append([]string{
		map[bool]string{true: "1"}[anew], parts, strconv.FormatInt(DefaultRetention.Milliseconds(), 10),
		strconv.FormatInt(DefaultKeepDead.Milliseconds(), 10), created,
	}, given...)
	reply, err := l.exec(ctx, logDeclare, l.keys.of(l.cfg.Name, i), args)
	if err != nil {
		return 0, "", fmt.Errorf("queue: open: %w", err)
	}
	code, err := number(reply, 0)
	switch {
	case err != nil:
		return 0, "", fmt.Errorf("queue: open: %w", err)
	case code == -1:
		l.deleted.Store(true)
		l.state.Store(nil)
		return 0, "", ErrDeleted
	case code == -3:
		has, _ := number(reply, 1)
		return 0, "", fmt.Errorf("queue: LogConfig.Partitions is %s, and the log has %d; they can't be changed", parts, has)
	}
	has, err := number(reply, 1)
	if err != nil || has < 1 || has > maxPartitions || len(reply) < 3 {
		return 0, "", fmt.Errorf("queue: open: the server has %d partitions: %w", has, err)
	}
	made, err = reply[2].ToString()
	return int(has), made, err
}

func (l *Log) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, l.cfg.Timeout)
}

func (l *Log) exec(ctx context.Context, s *script.Script, keys, args []string) ([]valkey.ValkeyMessage, error) {
	return insist(ctx, func() ([]valkey.ValkeyMessage, error) { return s.Exec(ctx, l.client, keys, args...).ToArray() })
}

// call runs a script on a partition, and says what its first number means. If the server has lost the log it is made anew, once, unless
// the call makes none.
func (l *Log) call(ctx context.Context, p *logPart, makes bool, run func() ([]valkey.ValkeyMessage, error)) ([]valkey.ValkeyMessage, error) {
	for again := false; ; again = true {
		reply, err := run()
		if err != nil {
			return nil, err
		}
		code, err := number(reply, 0)
		switch {
		case err != nil:
			return nil, err
		case code == -1:
			l.deleted.Store(true)
			l.state.Store(nil)
			return nil, ErrDeleted
		case code == -2 && !makes:
			l.state.Store(nil)
			return nil, ErrNoQueue
		case code == -2 && again:
			return nil, errLost
		case code == -2:
			if err := l.remake(ctx, p); err != nil {
				return nil, err
			}
		case code == -3:
			return nil, ErrNoGroup
		case code == -4:
			return nil, errTaken
		default:
			return reply, nil
		}
	}
}

// on is call of a script with its arguments.
func (l *Log) on(ctx context.Context, p *logPart, makes bool, s *script.Script, args ...string) ([]valkey.ValkeyMessage, error) {
	return l.call(ctx, p, makes, func() ([]valkey.ValkeyMessage, error) { return l.exec(ctx, s, p.keys, args) })
}

// remake makes a log anew that the server has lost, or finds out what it is now.
func (l *Log) remake(ctx context.Context, p *logPart) error {
	if err := l.turn(ctx); err != nil {
		return err
	}
	defer func() { <-l.opening }()
	if l.deleted.Load() {
		return ErrDeleted
	}
	l.log.Warn("the server does not know the log any more, or as another one: it is opened anew", "log", l.cfg.Name)
	if err := l.open(ctx, false); err != nil {
		return err
	}
	if n := len(l.state.Load().parts); n != p.of {
		return fmt.Errorf("queue: the log was deleted, and made anew with %d partitions", n)
	}
	return nil
}

// Delete deletes the log with all that is in it, its groups and their dead letters. Processes that have it open get [ErrDeleted] from
// then on, until they call [Log.Open]; those that make no call for a minute don't learn of it, and their next append makes it anew. The
// error is [ErrNoQueue] if there is none. A round trip for each partition, and two more.
func (l *Log) Delete(ctx context.Context) error {
	s, err := l.opened(ctx, true)
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(s.parts) { // the first partition says whether there is a log, so it goes last
		call, cancel := l.bounded(ctx)
		_, err := l.on(call, p, false, logDelete)
		cancel()
		if err != nil && !errors.Is(err, ErrDeleted) && !errors.Is(err, ErrNoQueue) {
			return fmt.Errorf("queue: delete: %w", err)
		}
	}
	l.deleted.Store(true)
	l.state.Store(nil)
	if err := l.client.Do(ctx, l.client.B().Hdel().Key(l.keys.names()).Field(l.cfg.Name).Build()).Error(); err != nil {
		return fmt.Errorf("queue: delete: %w", err)
	}
	return nil
}

// LogNames returns the names of all logs under a prefix, sorted; an empty one is the default. One round trip.
func LogNames(ctx context.Context, client valkey.Client, prefix string) ([]string, error) {
	keys, err := newLogSpace(prefix)
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

const trimEvery = time.Second // how often a process that uses a partition trims it

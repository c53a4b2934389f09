// Package meter counts what the building blocks do, so that package cost can say what the same would have cost on
// metered services.
//
// [New] starts a Meter. Its methods [Meter.Lock], [Meter.Cache], [Meter.Session] and [Meter.RateHTTP] put it into the hooks of
// a block: one line each. What has none is counted with [Meter.Requests], [Meter.Messages], [Meter.SessionRead] and
// [Meter.SessionWrite]. [Read] returns the days, and [Month] a month of workloads for cost.
//
// Counting is an atomic addition: no lock, no allocation, no round trip. The counts go to the server in the
// background, in two round trips every ten seconds, and are added there exactly once also when an answer is lost.
// While the server is away they wait in the process; memory does not grow. What was counted since the last flush is
// lost when a process dies without [Meter.Close].
//
// # Keys
//
//	key                         type    holds                                             ends
//	fr:meter:{NAME}:day:DATE    hash    @first, @last (Unix ms); a count for each class   400 days after its last count
//	fr:meter:{NAME}:seen:TOKEN  string  the number of a process's last batch              a day after it
//
// DATE is a day in UTC by the server's clock, as 20261126; TOKEN is 26 random characters for each Meter.
package meter

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

//go:embed flush.lua
var flushLua string

var flush = script.New(flushLua)

const (
	defaultEvery = 10 * time.Second
	minEvery     = 100 * time.Millisecond
	maxEvery     = 10 * time.Minute
	defaultKeep  = 400 * 24 * time.Hour
	minKeep      = 24 * time.Hour
	maxKeep      = 10 * 365 * 24 * time.Hour
	seenMs       = "86400000"
	patience     = 5 * time.Second // for one flush
	maxName      = 200
)

// Config says how a meter counts. The zero value is ready to use.
type Config struct {
	// Prefix stands before every key; all who share a meter use the same one. Default "fr".
	Prefix string
	// Name keeps meters apart that share a server: an application, an environment. At most 200 bytes. Default "default".
	Name string
	// Every is how long counts wait for the next flush: 100 ms to 10 min. Default 10 s.
	Every time.Duration
	// Keep is how long a day is kept: 1 day to 10 years, whole milliseconds. Default 400 days.
	Keep time.Duration
	// Logger hears of flushes that failed, once for each outage. Nil discards.
	Logger *slog.Logger
	// Failed, if set, is called with the error of each flush that failed. Its counts are kept, and tried again.
	Failed func(error)
}

func (c *Config) setDefaults() (keySpace, error) {
	if c.Name == "" {
		c.Name = "default"
	}
	if c.Every == 0 {
		c.Every = defaultEvery
	}
	if c.Keep == 0 {
		c.Keep = defaultKeep
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Failed == nil {
		c.Failed = func(error) {}
	}
	switch {
	case len(c.Name) > maxName:
		return keySpace{}, fmt.Errorf("meter: Config.Name is over %d bytes", maxName)
	case c.Every < minEvery || c.Every > maxEvery:
		return keySpace{}, fmt.Errorf("meter: Config.Every is %v, not from %v to %v", c.Every, minEvery, maxEvery)
	case c.Keep < minKeep || c.Keep > maxKeep || c.Keep%time.Millisecond != 0:
		return keySpace{}, fmt.Errorf("meter: Config.Keep is %v, not whole milliseconds from %v to %v", c.Keep, minKeep, maxKeep)
	}
	keys, err := newKeySpace(c.Prefix)
	if err != nil {
		return keySpace{}, fmt.Errorf("meter: Config.Prefix: %w", err)
	}
	return keys, nil
}

// Meter counts. It is safe for concurrent use. A nil Meter counts nothing.
type Meter struct {
	client valkey.Client
	cfg    Config
	keys   keySpace
	token  string
	counts counts

	mu      sync.Mutex // of what follows: one flush at a time
	batch   *batch     // sent, or to be sent, and not known to have arrived
	number  int64
	since   time.Time // when the counts that are in no batch began
	away    bool      // the last flush failed
	closing chan struct{}
	stopped chan struct{}
	once    sync.Once
}

// batch is what one flush adds. It stays as it is until it has arrived.
type batch struct {
	key     string
	number  int64
	elapsed time.Duration
	fields  []string // field, count, ...
}

// New starts a Meter on client, which stays the caller's to close, after the Meter. The error names the field of cfg that is
// wrong. It starts one goroutine, which [Meter.Close] ends.
func New(client valkey.Client, cfg Config) (*Meter, error) {
	if client == nil {
		return nil, errors.New("meter: client is nil")
	}
	keys, err := cfg.setDefaults()
	if err != nil {
		return nil, err
	}
	m := &Meter{client: client, cfg: cfg, keys: keys, token: rand.Text(), since: time.Now(),
		closing: make(chan struct{}), stopped: make(chan struct{})}
	go m.run()
	return m, nil
}

func (m *Meter) run() {
	defer close(m.stopped)
	tick := time.NewTicker(m.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			_ = m.Flush(ctx) // told to Failed and Logger
			cancel()
		case <-m.closing:
			return
		}
	}
}

// Close ends the background, and sends what was counted. The error is that of the last flush: then its counts are lost. What is
// counted afterwards is lost too. Two or three round trips.
func (m *Meter) Close(ctx context.Context) error {
	if m == nil {
		return nil
	}
	m.once.Do(func() { close(m.closing) })
	<-m.stopped
	return m.Flush(ctx)
}

// Flush sends what was counted since the last one. Two round trips, none if nothing was. An error keeps the counts.
func (m *Meter) Flush(ctx context.Context) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.flush(ctx)
	if err == nil {
		m.away = false
		return nil
	}
	if !m.away {
		m.cfg.Logger.Warn("meter: counts wait in this process", "name", m.cfg.Name, "error", err)
	}
	m.away = true
	m.cfg.Failed(err)
	return err
}

// flush sends the batch that is left from before, and then a new one.
func (m *Meter) flush(ctx context.Context) error {
	if m.batch != nil {
		if err := m.send(ctx); err != nil {
			return err
		}
	}
	if !m.counts.any() {
		m.since = time.Now()
		return nil
	}
	// The day is asked for first: counts that were taken from the counters must have a key.
	now, err := serverTime(ctx, m.client)
	if err != nil {
		return fmt.Errorf("meter: TIME: %w", err)
	}
	m.number++
	m.batch = &batch{key: m.keys.day(m.cfg.Name, date(now)), number: m.number, elapsed: time.Since(m.since), fields: m.counts.take()}
	m.since = time.Now()
	return m.send(ctx)
}

func (m *Meter) send(ctx context.Context) error {
	b := m.batch
	args := append([]string{strconv.FormatInt(b.number, 10), strconv.FormatInt(m.cfg.Keep.Milliseconds(), 10), seenMs,
		strconv.FormatInt(b.elapsed.Milliseconds(), 10)}, b.fields...)
	err := flush.Exec(ctx, m.client, []string{b.key, m.keys.seen(m.cfg.Name, m.token)}, args...).Error()
	if err != nil {
		return fmt.Errorf("meter: flush: %w", err)
	}
	m.batch = nil
	return nil
}

func serverTime(ctx context.Context, client valkey.Client) (time.Time, error) {
	parts, err := client.Do(ctx, client.B().Time().Build()).AsIntSlice()
	if err != nil {
		return time.Time{}, err
	}
	if len(parts) != 2 {
		return time.Time{}, fmt.Errorf("%d parts", len(parts))
	}
	return time.Unix(parts[0], parts[1]*1000), nil
}

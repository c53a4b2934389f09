package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/flatrate/flatrate/internal/key"
)

// Defaults of [Config].
const (
	DefaultTTL         = 5 * time.Minute
	DefaultJitter      = 0.1
	DefaultNegativeTTL = 10 * time.Second
	DefaultLease       = 3 * time.Second
	DefaultLoadTimeout = 30 * time.Second
	DefaultLateAfter   = time.Second
	DefaultLoads       = 16
	DefaultLateLoads   = 4
	DefaultMinCompress = 1 << 10
)

// NoJitter is the [Config.Jitter] that lets every entry live for exactly the TTL.
const NoJitter = -1

// NoNegative is the [Config.NegativeTTL] that remembers no [ErrNotFound].
const NoNegative = -1

const maxTTL = 100 * 365 * 24 * time.Hour

// Config says how entries are kept. The zero value is ready to use. All who share a cache use the same
// one; durations are whole milliseconds.
type Config struct {
	// Prefix stands before every key; all who share a cache use the same one. Default "fr".
	Prefix string
	// Name keeps apart caches with the same keys, one for each type of value. Default "default".
	Name string

	// TTL is how long an entry is fresh at most: from a millisecond to a century. Default 5 minutes.
	TTL time.Duration
	// Jitter is the part of the TTL, from 0 to 1, by which an entry's life is shortened at random at
	// most. Zero means 0.1; [NoJitter] means none.
	Jitter float64
	// NegativeTTL is how long it is remembered that load found nothing ([ErrNotFound]). Zero means 10 s,
	// or the TTL if that is shorter; [NoNegative] means not at all.
	NegativeTTL time.Duration
	// ErrorTTL is how long an error of load is remembered, with its text in the server, so that others
	// get a [LoadError] in place of another load. Zero means not at all.
	ErrorTTL time.Duration

	// StaleWhileRevalidate is for how long after its TTL an entry is still served, while one process
	// loads it anew in the background. Zero means not at all.
	StaleWhileRevalidate time.Duration
	// StaleIfError is for how long after its TTL an entry is still served if load fails. Zero means not
	// at all.
	StaleIfError time.Duration
	// Early, the beta of XFetch, lets an entry be loaded anew in the background before its TTL ends, with a
	// probability that grows as the end comes near, and is higher the longer its load took: 1 is the
	// optimum of its authors, more is earlier. Zero means not at all.
	Early float64

	// Lease is how long a process that died while it was loading keeps others from loading the same key.
	// It is renewed every third of it. From 10 ms on. Default 3 s.
	Lease time.Duration
	// LoadTimeout bounds each load: its context ends, and those who wait get an error. Default 30 s.
	LoadTimeout time.Duration
	// Late is what those get who have waited for somebody else's load for LateAfter. Default [Wait].
	Late Late
	// LateAfter is from a millisecond on. Default 1 s.
	LateAfter time.Duration
	// LateLoads is how many loads may run, over all processes and keys of this cache, beside those that
	// somebody waits for, with [Load]. Default 4.
	LateLoads int
	// Loads is how many loads this process runs at once while the server can't be asked who loads what.
	// Default 16.
	Loads int

	// Codec turns values into bytes. Nil means: bytes and strings as they are, others as JSON.
	Codec Codec
	// Compressor makes the bytes fewer. Nil means none. Values of less than MinCompress bytes, and those that
	// don't get shorter, are stored as they are.
	Compressor Compressor
	// MinCompress is in bytes. Default 1024.
	MinCompress int

	// Tags returns the tags of a key, always the same ones, at most 16: [Cache.DeleteTags] removes all entries
	// of a tag. They have to be known from the key, since they are read before the value is loaded. Nil
	// means none.
	Tags func(key string) []string

	// Local is what this process keeps itself. The zero value keeps nothing.
	Local LocalTier

	// Audit is the part of the hits, from 0 to 1, after which the value is loaded again in the background, one at
	// a time, and compared: Hooks.Audited. Zero means none.
	Audit float64

	// Random returns numbers in [0, 1) for Jitter, Early and Audit, from any goroutine. Default math/rand/v2.
	Random func() float64
	// Hooks are called at what the results don't show.
	Hooks Hooks
	// Logger hears what goes wrong in the background. Nil discards it.
	Logger *slog.Logger
}

// Late is what those get who wait for somebody else's load for longer than [Config.LateAfter].
type Late int

const (
	// Wait goes on waiting, until the caller's context ends, or the lease, whose holder is then replaced.
	Wait Late = iota
	// ServeStale serves the entry that has ended its TTL, if it is within [Config.StaleIfError] or
	// [Config.StaleWhileRevalidate]; else it waits.
	ServeStale
	// Load loads too, as far as [Config.LateLoads] allows, and unless it is a [Cache.Write] that others wait for; else it
	// waits.
	Load
)

func (cfg *Config) setDefaults() {
	zero := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	number := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	if cfg.Prefix == "" {
		cfg.Prefix = key.DefaultPrefix
	}
	zero(&cfg.TTL, DefaultTTL)
	zero(&cfg.NegativeTTL, min(DefaultNegativeTTL, cfg.TTL))
	zero(&cfg.Lease, DefaultLease)
	zero(&cfg.LoadTimeout, DefaultLoadTimeout)
	zero(&cfg.LateAfter, DefaultLateAfter)
	number(&cfg.LateLoads, DefaultLateLoads)
	number(&cfg.Loads, DefaultLoads)
	number(&cfg.MinCompress, DefaultMinCompress)
	switch cfg.Jitter {
	case 0:
		cfg.Jitter = DefaultJitter
	case NoJitter:
		cfg.Jitter = 0
	}
	if cfg.NegativeTTL == NoNegative {
		cfg.NegativeTTL = 0
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Hooks.setDefaults()
}

// check says which field is wrong, once the defaults are set.
func (cfg *Config) check() error {
	for _, field := range []struct {
		name  string
		value time.Duration
		least time.Duration
	}{
		{"TTL", cfg.TTL, time.Millisecond},
		{"NegativeTTL", cfg.NegativeTTL, 0},
		{"ErrorTTL", cfg.ErrorTTL, 0},
		{"StaleWhileRevalidate", cfg.StaleWhileRevalidate, 0},
		{"StaleIfError", cfg.StaleIfError, 0},
		{"Lease", cfg.Lease, 10 * time.Millisecond},
		{"LoadTimeout", cfg.LoadTimeout, time.Millisecond},
		{"LateAfter", cfg.LateAfter, time.Millisecond},
	} {
		if field.value < field.least || field.value > maxTTL || field.value%time.Millisecond != 0 {
			return fmt.Errorf("cache: Config.%s is %v, not whole milliseconds from %v to a century", field.name, field.value, field.least)
		}
	}
	switch {
	case !(cfg.Jitter >= 0 && cfg.Jitter <= 1): // so that NaN is wrong too
		return fmt.Errorf("cache: Config.Jitter is %v, not from 0 to 1", cfg.Jitter)
	case !(cfg.Early >= 0 && cfg.Early <= 1000):
		return fmt.Errorf("cache: Config.Early is %v, not from 0 to 1000", cfg.Early)
	case !(cfg.Audit >= 0 && cfg.Audit <= 1):
		return fmt.Errorf("cache: Config.Audit is %v, not from 0 to 1", cfg.Audit)
	case cfg.Late < Wait || cfg.Late > Load:
		return fmt.Errorf("cache: Config.Late is %d, none of the choices", cfg.Late)
	case cfg.LateLoads < 0:
		return fmt.Errorf("cache: Config.LateLoads is %d, less than one", cfg.LateLoads)
	case cfg.Loads < 0:
		return fmt.Errorf("cache: Config.Loads is %d, less than one", cfg.Loads)
	case cfg.MinCompress < 0:
		return errors.New("cache: Config.MinCompress is less than zero")
	}
	return cfg.Local.check()
}

// kept is for how long after their TTL entries are kept.
func (cfg *Config) kept() time.Duration { return max(cfg.StaleWhileRevalidate, cfg.StaleIfError) }

// life is the TTL less a random part of the jitter.
func (cfg *Config) life() time.Duration { return cfg.jittered(cfg.TTL) }

func (cfg *Config) jittered(ttl time.Duration) time.Duration {
	if cfg.Jitter == 0 {
		return ttl
	}
	cut := time.Duration(cfg.Random() * cfg.Jitter * float64(ttl))
	return max(ttl-cut, time.Millisecond)
}

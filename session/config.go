package session

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/flatrate/flatrate/internal/patience"
)

// Defaults of [Config].
const (
	DefaultIdle     = 30 * time.Minute
	DefaultGrace    = 10 * time.Second
	DefaultRemember = time.Hour
	DefaultMaxBytes = 64 << 10
	DefaultTimeout  = patience.Default
)

// NoGrace is the [Config.Grace] that ends the old token at once.
const NoGrace = -1

const (
	maxTimeout = 10 * 365 * 24 * time.Hour
	maxBytes   = 512 << 10
)

// Conflict is what happens to a change of a member that another request has changed since it was read.
type Conflict int

const (
	// LastWins lets the later of two changes of one member replace the earlier.
	LastWins Conflict = iota
	// Compare refuses the later one: [Manager.Set] returns [ErrConflict], and saves nothing.
	Compare
)

// Config says how sessions are kept. The zero value is ready to use. All who share sessions use the same one,
// but for Timeout, Local, Hooks and Logger.
type Config struct {
	// Prefix stands before every key; all who share sessions use the same one. Default "fr".
	Prefix string

	// Idle ends a session that was not read or written for so long: whole milliseconds, at least one and at most ten
	// years. It is extended once a twentieth of it has passed since it was, so a session may end that much earlier.
	// Default 30 minutes.
	Idle time.Duration
	// Absolute ends a session so long after it began, whatever happens to it: whole seconds, at most ten years. Zero
	// means never.
	Absolute time.Duration
	// Jitter is the part of the idle timeout, from 0 to 0.5, by which that of each new session is shortened at
	// random at most, so that those which began together don't end together. Zero means none.
	Jitter float64

	// Grace is for how long a token that was replaced still answers requests that were under way: they see the session
	// as it was before, and what they change goes to where it is now. Whole milliseconds, at most a
	// minute. Default 10 s; [NoGrace] means not at all.
	Grace time.Duration
	// Remember is for how long it is remembered that a session was ended, so that nothing can bring it back: a request
	// that takes longer than this must not write one. Whole milliseconds, from a second on. Default 1 hour.
	Remember time.Duration
	// MaxBytes is how much a session may have in the server, from 1024 to 524288. Default 65536.
	MaxBytes int
	// Conflict is what happens when two requests change the same member. Default [LastWins].
	Conflict Conflict

	// Keys encrypt the values, each member by itself; the first one encrypts, all decrypt. Names, times and
	// sizes are not hidden. None means that nothing is encrypted. See [Key].
	Keys []Key
	// AcceptPlain reads sessions that were written before there were Keys. Without it they are errors.
	AcceptPlain bool
	// TagSecret makes the tag that a user's tokens carry from the user's id and this secret, of at least 16 bytes, so
	// that who sees a token can't try ids. Nil means: from the id alone. It can't be changed while sessions live.
	TagSecret []byte
	// ForeignTokens accepts tokens that others have made, for [Manager.Import] and [Manager.TakeOver]: 16 to 256
	// printable ASCII characters. Such a session has no user until its token is replaced.
	ForeignTokens bool

	// Timeout bounds the wait for each answer of the server where ctx has no deadline: from 10 ms to a minute. A
	// server that has not answered is not asked again until it does. Default 1 s.
	Timeout time.Duration
	// AskAlways lets the server decide at every read whether the idle time is to be extended. Without it this process
	// remembers when a read has to ask, and reads with a plain GET until then. It is for servers whose clock does
	// not go with this process's, as in tests that drive it.
	AskAlways bool
	// Local is what this process keeps itself. The zero value keeps nothing.
	Local LocalTier
	// Expired is told of sessions that ended by their timeouts. The zero value tells nobody.
	Expired Sweep

	// HTTP is how [Manager.Handler] speaks with browsers and other clients.
	HTTP HTTP
	// Hooks are called at what the results don't show.
	Hooks Hooks
	// Logger hears what goes wrong in the background. Nil discards it.
	Logger *slog.Logger
}

// Hooks are called while the caller waits, from any goroutine. Each may be nil. IDs are [Info.ID].
type Hooks struct {
	// Created is called when a session was begun, and Ended when one was ended by a call, not by a timeout.
	Created, Ended func(id string)
	// Renewed is called when a session has got another token.
	Renewed func(oldID, newID string)
	// Refused is called when a request's token was not used, with the reason: "malformed", "unknown" (or ended),
	// "ambiguous" (two cookies of one name).
	Refused func(reason string)
	// Read and Written are told the bytes, key and value, of each session that was read, 0 for one that was not found, and of
	// each that was begun, changed (the whole of it) or ended: what a table bills. The local tier's reads are among them.
	Read, Written func(bytes int)
	// Failed is called when the middleware could not load or save a session.
	Failed func(err error)
}

func (h *Hooks) setDefaults() {
	none := func(string) {}
	if h.Created == nil {
		h.Created = none
	}
	if h.Ended == nil {
		h.Ended = none
	}
	if h.Renewed == nil {
		h.Renewed = func(string, string) {}
	}
	if h.Refused == nil {
		h.Refused = none
	}
	if h.Read == nil {
		h.Read = func(int) {}
	}
	if h.Written == nil {
		h.Written = func(int) {}
	}
	if h.Failed == nil {
		h.Failed = func(error) {}
	}
}

func (cfg *Config) setDefaults() {
	zero := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	zero(&cfg.Idle, DefaultIdle)
	zero(&cfg.Grace, DefaultGrace)
	zero(&cfg.Remember, DefaultRemember)
	zero(&cfg.Timeout, DefaultTimeout)
	if cfg.Grace == NoGrace {
		cfg.Grace = 0
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Hooks.setDefaults()
}

// check says which field is wrong, once the defaults are set.
func (cfg *Config) check() error {
	for _, field := range []struct {
		name              string
		value, least, top time.Duration
	}{
		{"Idle", cfg.Idle, time.Millisecond, maxTimeout},
		{"Grace", cfg.Grace, 0, time.Minute},
		{"Remember", cfg.Remember, time.Second, maxTimeout},
		{"Timeout", cfg.Timeout, 10 * time.Millisecond, time.Minute},
	} {
		if field.value < field.least || field.value > field.top || field.value%time.Millisecond != 0 {
			return fmt.Errorf("session: Config.%s is %v, not whole milliseconds from %v to %v", field.name, field.value, field.least, field.top)
		}
	}
	if err := checkAbsolute(cfg.Absolute); err != nil {
		return fmt.Errorf("session: Config.Absolute is %w", err)
	}
	switch {
	case !(cfg.Jitter >= 0 && cfg.Jitter <= 0.5): // so that NaN is wrong too
		return fmt.Errorf("session: Config.Jitter is %v, not from 0 to 0.5", cfg.Jitter)
	case cfg.MaxBytes < 1024 || cfg.MaxBytes > maxBytes:
		return fmt.Errorf("session: Config.MaxBytes is %d, not from 1024 to %d", cfg.MaxBytes, maxBytes)
	case cfg.Conflict < LastWins || cfg.Conflict > Compare:
		return fmt.Errorf("session: Config.Conflict is %d, none of the choices", cfg.Conflict)
	case cfg.TagSecret != nil && len(cfg.TagSecret) < 16:
		return fmt.Errorf("session: Config.TagSecret has %d bytes, less than 16", len(cfg.TagSecret))
	}
	if err := cfg.Local.check(); err != nil {
		return err
	}
	if err := cfg.Expired.check(); err != nil {
		return err
	}
	return cfg.HTTP.check()
}

func checkAbsolute(d time.Duration) error {
	if d < 0 || d > maxTimeout || d%time.Second != 0 {
		return fmt.Errorf("%v, not whole seconds from 0 to %v", d, maxTimeout)
	}
	return nil
}

// terms are the timeouts of a new session.
func (cfg *Config) terms(t Terms) (idle, absolute time.Duration, err error) {
	idle, absolute = cfg.Idle, cfg.Absolute
	if t.Idle != 0 {
		idle = t.Idle
	}
	switch t.Absolute {
	case 0:
	case Never:
		absolute = 0
	default:
		absolute = t.Absolute
	}
	if idle < time.Millisecond || idle > maxTimeout || idle%time.Millisecond != 0 {
		return 0, 0, fmt.Errorf("session: Terms.Idle is %v, not whole milliseconds from 1ms to %v", idle, maxTimeout)
	}
	if err := checkAbsolute(absolute); err != nil {
		return 0, 0, fmt.Errorf("session: Terms.Absolute is %w", err)
	}
	if cut := time.Duration(rand.Float64() * cfg.Jitter * float64(idle)).Truncate(time.Millisecond); cut > 0 {
		idle = max(idle-cut, time.Millisecond)
	}
	return idle, absolute, nil
}

// Package ratehttp puts package ratelimit before an [http.Handler].
//
// [New] makes a Middleware of a limiter and a func that says whom a request counts for; its Handler is what
// a mux takes. Requests that are denied get 429 and a problem document (RFC 9457); all get the headers that
// tell a client how to behave. The ResponseWriter reaches the handler as it is, so that flushing, hijacking
// and the like work.
//
// docs/ratelimit-http.md has the headers, the key functions, and what happens in which failure.
package ratehttp

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/flatrate/flatrate/ratelimit"
)

// Config is a Middleware's. Either Limiter and Key are needed, or Asks.
type Config struct {
	// Limiter decides.
	Limiter *ratelimit.Limiter
	// Key says whom a request counts for, as [Address], [Header], [User] and their like do. A request for
	// which it has no answer is refused with 403.
	Key KeyFunc
	// Cost is how many units a request takes; zero means one, and a negative cost is an error. By default
	// each request takes one.
	Cost func(*http.Request) int64

	// Asks replaces Limiter, Key and Cost where requests have different limits, limits that are reloaded,
	// or several subjects at once, all or nothing. No asks count as a request without a key. It is called once
	// for each request.
	Asks func(*http.Request) ([]ratelimit.Ask, error)

	// Skip exempts requests from the limits, such as health checks. By default none are.
	Skip func(*http.Request) bool
	// Shadow admits every request and sets no headers: the limits only count, and Hooks.Decided says what they
	// would have done.
	Shadow bool
	// OnError is what happens to a request about which no decision could be made. It holds for errors only:
	// where a limiter has an Outage mode, that decides.
	OnError OnError
	// Headers are those that responses get.
	Headers Headers
	// Refuse writes the response to a request that is refused, in place of the problem document. The
	// headers are set already; the status is Decision.Status.
	Refuse func(http.ResponseWriter, *http.Request, Decision)

	// Hooks hear of decisions.
	Hooks Hooks
}

// Hooks are optional funcs, called from the request's goroutine.
type Hooks struct {
	// Decided is called once for each request that is not skipped, before it is handled or refused.
	Decided func(*http.Request, Decision)
	// ReleaseFailed is called when a place of a Concurrency limit could not be given up at the end of a
	// request. It lasts until its lease ends.
	ReleaseFailed func(*http.Request, error)
}

// OnError is what happens to a request when the limiter returns an error.
type OnError uint8

// The ways to treat errors.
const (
	// ErrorRefuses answers 503: no request is admitted that was not counted.
	ErrorRefuses OnError = iota
	// ErrorAdmits lets the request go on: there is no limit while the server is away.
	ErrorAdmits
)

// Headers are the fields that tell a client of its limits. Retry-After is not among them: each response that
// can be repeated has it.
type Headers uint8

// The sets of headers.
const (
	// HeadersAll sets both kinds.
	HeadersAll Headers = iota
	// HeadersX sets X-RateLimit-Limit, X-RateLimit-Remaining and X-RateLimit-Reset.
	HeadersX
	// HeadersIETF sets RateLimit and RateLimit-Policy.
	HeadersIETF
	// HeadersNone sets neither.
	HeadersNone
)

// Middleware limits the requests of any number of handlers. It is safe for concurrent use.
type Middleware struct {
	cfg      Config
	policies []policy // of cfg.Limiter; those of asks differ
}

// New returns a Middleware. The error names the field of cfg that is wrong.
func New(cfg Config) (*Middleware, error) {
	m := &Middleware{cfg: cfg}
	switch {
	case cfg.Asks == nil && cfg.Limiter == nil:
		return nil, errors.New("ratehttp: Config.Limiter is nil, and there is no Config.Asks")
	case cfg.Asks == nil && cfg.Key == nil:
		return nil, errors.New("ratehttp: Config.Key is nil")
	case cfg.Asks != nil && (cfg.Limiter != nil || cfg.Key != nil || cfg.Cost != nil):
		return nil, errors.New("ratehttp: Config.Asks is set beside Limiter, Key or Cost, which it replaces")
	case cfg.OnError > ErrorAdmits:
		return nil, fmt.Errorf("ratehttp: Config.OnError is %d, which is none", cfg.OnError)
	case cfg.Headers > HeadersNone:
		return nil, fmt.Errorf("ratehttp: Config.Headers is %d, which is none", cfg.Headers)
	}
	if cfg.Limiter != nil {
		m.policies = policiesOf([]ratelimit.Ask{{Limiter: cfg.Limiter}})
	}
	return m, nil
}

// Handler returns a handler that asks the limits, and calls next if they admit the request. The place of a
// Concurrency limit is held until next returns or panics.
func (m *Middleware) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.cfg.Skip != nil && m.cfg.Skip(r) {
			next.ServeHTTP(w, r)
			return
		}
		d := m.decide(r)
		if m.cfg.Hooks.Decided != nil {
			m.cfg.Hooks.Decided(r, d)
		}
		if d.holdsPlace() {
			defer m.release(r, d)
		}
		admitted := m.admits(d)
		if !m.cfg.Shadow {
			d.SetHeaders(w.Header(), m.cfg.Headers)
		}
		switch {
		case admitted:
			w.Header().Del("Retry-After") // of a failed decision that admits
			next.ServeHTTP(w, r)
		case m.cfg.Refuse != nil:
			m.cfg.Refuse(w, r, d)
		default:
			d.WriteProblem(w)
		}
	})
}

func (m *Middleware) release(r *http.Request, d Decision) {
	if err := d.Release(r.Context()); err != nil && m.cfg.Hooks.ReleaseFailed != nil {
		m.cfg.Hooks.ReleaseFailed(r, err)
	}
}

// admits is the one place that says which requests go on.
func (m *Middleware) admits(d Decision) bool {
	failed := d.Err != nil && !errors.Is(d.Err, ErrNoKey)
	return d.Allowed || m.cfg.Shadow || failed && m.cfg.OnError == ErrorAdmits
}

// decide asks the limits.
func (m *Middleware) decide(r *http.Request) Decision {
	asks, err := m.asks(r)
	d := Decision{Asks: asks, Err: err, policies: m.policies}
	if err == nil {
		d.ask(r.Context())
	}
	d.finish()
	d.Shadow = m.cfg.Shadow
	return d
}

func (m *Middleware) asks(r *http.Request) ([]ratelimit.Ask, error) {
	if m.cfg.Asks != nil {
		return m.cfg.Asks(r)
	}
	subject, ok := m.cfg.Key(r)
	if !ok {
		return nil, ErrNoKey
	}
	ask := ratelimit.Ask{Limiter: m.cfg.Limiter, Subject: subject}
	if m.cfg.Cost != nil {
		ask.Cost = m.cfg.Cost(r)
	}
	return []ratelimit.Ask{ask}, nil
}

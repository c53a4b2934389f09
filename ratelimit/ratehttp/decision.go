package ratehttp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
)

// Decision is what became of a request.
type Decision struct {
	// Allowed says whether the limits admit the request. With Config.Shadow it goes on anyway, and with
	// [ErrorAdmits] it also does where Err is set.
	Allowed bool
	// Status is that of the response if the request is refused, or would be: 429, 503, or 403 without a key.
	// It is zero if the request is allowed.
	Status int
	// Asks are what was asked, and Results what was answered, in the same order. Don't modify them.
	Asks    []ratelimit.Ask
	Results []ratelimit.Result
	// Err says why there was no decision: [ErrNoKey], or what the limiter returned.
	Err error
	// Shadow is Config.Shadow.
	Shadow bool

	policies []policy
}

// ErrNoKey is the Decision.Err of a request that does not say whom it counts for.
var ErrNoKey = errors.New("ratehttp: the request has no key")

const (
	// releaseTimeout bounds how long the end of a response waits for a place to be given up.
	releaseTimeout = 250 * time.Millisecond
	// afterOutage is when a client may come again that was refused for want of a decision.
	afterOutage = time.Second
)

// Decide is the decision of a Middleware by itself, for servers of another kind. No asks are [ErrNoKey]. If it
// is allowed, call Release when the request is done.
func Decide(ctx context.Context, asks ...ratelimit.Ask) Decision {
	d := Decision{Asks: asks}
	d.ask(ctx)
	d.finish()
	return d
}

// Undecided is the Decision about a request for which there is nothing to ask: err says why.
func Undecided(err error) Decision {
	d := Decision{Err: err}
	d.finish()
	return d
}

func (d *Decision) ask(ctx context.Context) {
	if len(d.Asks) == 0 {
		d.Err = ErrNoKey
		return
	}
	d.Results, d.Allowed, d.Err = ratelimit.AllowAll(ctx, d.Asks...)
	d.Allowed = d.Allowed && d.Err == nil
}

// finish finds the status.
func (d *Decision) finish() {
	closed := func(r ratelimit.Result) bool { return !r.Allowed && r.Mode == ratelimit.ModeClosed }
	switch {
	case d.Allowed:
	case errors.Is(d.Err, ErrNoKey):
		d.Status = http.StatusForbidden
	case d.Err != nil, slices.ContainsFunc(d.Results, closed):
		d.Status = http.StatusServiceUnavailable
	default:
		d.Status = http.StatusTooManyRequests
	}
}

// Release gives up the places of Concurrency limits, whatever became of ctx. A Middleware does so before a response
// is complete, so that a client which has it finds the place free.
func (d Decision) Release(ctx context.Context) error {
	if !d.holdsPlace() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	var errs error
	for i, ask := range d.Asks {
		_, err := ask.Limiter.Release(ctx, ask.Subject, d.Results[i])
		errs = errors.Join(errs, err)
	}
	return errs
}

func (d Decision) holdsPlace() bool {
	return d.Allowed && slices.ContainsFunc(d.limits(), func(p policy) bool { return p.places })
}

// limits names the limits of all asks; a Middleware of one limiter knows them beforehand.
func (d Decision) limits() []policy {
	if d.policies == nil {
		return policiesOf(d.Asks)
	}
	return d.policies
}

// RetryAfter is when the request may be repeated: zero if it is allowed or has no key, [ratelimit.Never] if its
// cost is above a limit.
func (d Decision) RetryAfter() time.Duration {
	switch d.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
	default:
		return 0
	}
	var longest time.Duration
	for _, r := range d.Results {
		if !r.Allowed {
			longest = max(longest, r.RetryAfter)
		}
	}
	if longest == 0 {
		return afterOutage
	}
	return longest
}

// Violated are the names of the limits that deny, as RateLimit-Policy has them.
func (d Decision) Violated() (names []string) {
	var limits []ratelimit.LimitResult
	for _, p := range d.limits() {
		if p.index == 0 {
			limits = d.Results[p.ask].Limits()
		}
		if p.index < len(limits) && limits[p.index].RetryAfter > 0 {
			names = append(names, p.name)
		}
	}
	return names
}

// problem is a problem document (RFC 9457).
type problem struct {
	Type     string   `json:"type"`
	Title    string   `json:"title"`
	Status   int      `json:"status"`
	Detail   string   `json:"detail,omitempty"`
	Violated []string `json:"violated-policies,omitempty"`
}

const problemTypes = "https://iana.org/assignments/http-problem-types#"

func (d Decision) problem() problem {
	p := problem{Status: d.Status}
	switch d.Status {
	case http.StatusForbidden:
		p.Type, p.Title = "about:blank", http.StatusText(d.Status)
		p.Detail = "The request does not say whom it counts for."
	case http.StatusServiceUnavailable:
		p.Type, p.Title = problemTypes+"temporary-reduced-capacity", "The limits of this request can't be checked at present."
	default:
		p.Type, p.Title = problemTypes+"quota-exceeded", "The request exceeds a limit."
		p.Violated = d.Violated()
		if d.RetryAfter() == ratelimit.Never {
			p.Detail = "The request costs more than the limit ever admits: repeating it is of no use."
		}
	}
	return p
}

// WriteProblem writes the response to a request that is refused: Status and a problem document.
func (d Decision) WriteProblem(w http.ResponseWriter) {
	body, _ := json.Marshal(d.problem()) // of strings and a number
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(d.Status)
	_, _ = w.Write(append(body, '\n'))
}

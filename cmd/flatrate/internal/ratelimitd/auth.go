package ratelimitd

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/flatrate/flatrate/ratelimit/ratehttp"
)

// AuthConfig is how GET /v1/ratelimit/auth answers gateways.
type AuthConfig struct {
	// Plans are asked where the request's query names none.
	Plans []string
	// Keys say whom a request counts for, the first that it has: "address", "header:NAME", or several of these joined
	// by "+" that count together. Default "address".
	Keys []string
	// Trusted are the gateways whose word on the client's address is taken, and Header is where they write it.
	// Defaults: this machine, and X-Forwarded-For.
	Trusted []string
	Header  string
	// Deny is the status of a denial: 429, or 403 for nginx. Default 429.
	Deny int
	// Headers are those of the answers.
	Headers ratehttp.Headers

	key ratehttp.KeyFunc
}

var thisMachine = []string{"127.0.0.0/8", "::1"}

// check also fills in the defaults.
func (a *AuthConfig) check() error {
	if len(a.Keys) == 0 {
		a.Keys = []string{"address"}
	}
	if len(a.Trusted) == 0 {
		a.Trusted = thisMachine
	}
	if a.Deny == 0 {
		a.Deny = http.StatusTooManyRequests
	}
	var errs []error
	if a.Deny != http.StatusTooManyRequests && a.Deny != http.StatusForbidden {
		errs = append(errs, fmt.Errorf("auth-deny is %d, not 429 or 403", a.Deny))
	}
	if len(a.Plans) > maxAsks {
		errs = append(errs, fmt.Errorf("auth-plan: over %d plans", maxAsks))
	}
	address, err := ratehttp.Address(ratehttp.AddressConfig{Trusted: a.Trusted, Header: a.Header})
	if err != nil {
		errs = append(errs, fmt.Errorf("trusted-proxies: %w", err))
	}
	var firsts []ratehttp.KeyFunc
	for _, spec := range a.Keys {
		var parts []ratehttp.KeyFunc
		for part := range strings.SplitSeq(spec, "+") {
			name, isHeader := strings.CutPrefix(part, "header:")
			switch {
			case part == "address":
				parts = append(parts, address)
			case isHeader && isToken(name):
				parts = append(parts, ratehttp.Header(name))
			default:
				errs = append(errs, fmt.Errorf("auth-key: %q is neither address nor header:NAME", part))
			}
		}
		if len(parts) == 1 {
			firsts = append(firsts, parts[0])
		} else {
			firsts = append(firsts, ratehttp.All(parts...))
		}
	}
	a.key = ratehttp.First(firsts...)
	return errors.Join(errs...)
}

// isToken says whether name can be a header's.
func isToken(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	})
}

// auth answers 204 to go on, 429 or 403 to stop, 403 where the request has no key, and 503 where there is no decision.
// The body of the request is never read.
func (s *Server) auth(w http.ResponseWriter, r *http.Request) {
	plans, deny, err := s.authQuery(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	b := s.ready.Load()
	if b == nil {
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, s.notReady())
		return
	}
	d := ratehttp.Undecided(ratehttp.ErrNoKey)
	if subject, ok := s.cfg.Auth.key(r); ok {
		asks, err := b.asks(plans, subject)
		if err != nil {
			refuse(w, planStatus(err), err.Error())
			return
		}
		d = ratehttp.Decide(r.Context(), asks...)
		for i, plan := range plans {
			allowed := d.Allowed
			if d.Err == nil {
				allowed = d.Results[i].Allowed
			}
			s.metrics.decided("auth", plan, outcome(allowed, d.Err))
		}
	}
	d.SetHeaders(w.Header(), s.cfg.Auth.Headers)
	if d.Allowed {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if d.Status == http.StatusTooManyRequests {
		d.Status = deny
	}
	d.WriteProblem(w)
}

// authQuery reads what the gateway's configuration says: plan=NAME, any number of times, and deny=403 or 429.
func (s *Server) authQuery(r *http.Request) (plans []string, deny int, err error) {
	plans, deny = s.cfg.Auth.Plans, s.cfg.Auth.Deny
	if r.URL.RawQuery != "" {
		query := r.URL.Query()
		if named := query["plan"]; len(named) > 0 {
			plans = named
		}
		switch query.Get("deny") {
		case "":
		case "403":
			deny = http.StatusForbidden
		case "429":
			deny = http.StatusTooManyRequests
		default:
			return nil, 0, errors.New("deny is neither 403 nor 429")
		}
	}
	switch {
	case len(plans) == 0:
		return nil, 0, errors.New("no plan: neither in the query, as in ?plan=NAME, nor in auth-plan")
	case len(plans) > maxAsks || slices.ContainsFunc(plans, func(p string) bool { return len(p) > maxSubject }):
		return nil, 0, fmt.Errorf("over %d plans, or a name of over %d bytes", maxAsks, maxSubject)
	}
	return plans, deny, nil
}

// quiet passes on what net/http logs of single connections, for who wants to see it.
func quiet(l *slog.Logger) *log.Logger { return log.New(debugWriter{l}, "", 0) }

type debugWriter struct{ log *slog.Logger }

func (w debugWriter) Write(p []byte) (int, error) {
	w.log.Debug("http", "message", string(bytes.TrimSpace(p)))
	return len(p), nil
}

package ratelimitd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
)

const maxAsks = 16 // plans of one request

// newHTTP makes the server of the endpoints: this is all of them.
func (s *Server) newHTTP() *http.Server {
	mux := http.NewServeMux()
	handle := func(pattern, endpoint string, open bool, h http.HandlerFunc) {
		mux.Handle(pattern, s.measured(endpoint, s.guarded(open, h)))
	}
	handle("POST /v1/ratelimit/check", "check", false, s.check)
	handle("/v1/ratelimit/check", "check", true, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, http.StatusMethodNotAllowed, "A check is a POST.")
	})
	handle("/v1/ratelimit/auth", "auth", false, s.auth) // with the client's method, where a gateway passes it on
	handle("GET /metrics", "metrics", false, s.metrics.handler().ServeHTTP)
	handle("GET /livez", "livez", true, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	handle("GET /readyz", "readyz", true, s.readyz)
	handle("/", "other", true, func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "There is no "+r.Method+" "+printable(r.URL.Path)+" here.")
	})
	b := s.cfg.Bounds
	return &http.Server{
		Handler:           mux,
		MaxHeaderBytes:    b.Header,
		ReadHeaderTimeout: b.Read,
		ReadTimeout:       b.Read,
		WriteTimeout:      b.Write,
		IdleTimeout:       b.Idle,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: b.Streams},
		ErrorLog:          quiet(s.log),
	}
}

// printable keeps what a client wrote short.
func printable(path string) string {
	return fmt.Sprintf("%.64q", path)
}

// guarded turns away callers who have not shown what they need to, and bodies that are too long.
func (s *Server) guarded(open bool, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if !open && !s.admits(r.Header.Get("Authorization"), r.TLS) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "This needs an API token or a client certificate.")
			return
		}
		if r.ContentLength > int64(s.cfg.Bounds.Body) {
			w.Header().Set("Connection", "close")
			refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("The body is over %d bytes.", s.cfg.Bounds.Body))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, int64(s.cfg.Bounds.Body))
		next(w, r)
	}
}

// measured counts and times requests.
func (s *Server) measured(endpoint string, next http.HandlerFunc) http.Handler {
	seconds := s.metrics.seconds.WithLabelValues(endpoint)
	var codes sync.Map // of status to its counter
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		seen := &statusWriter{ResponseWriter: w, server: s}
		defer func() {
			seconds.Observe(time.Since(begun).Seconds())
			counter, ok := codes.Load(seen.status)
			if !ok {
				counter, _ = codes.LoadOrStore(seen.status, s.metrics.requests.WithLabelValues(endpoint, strconv.Itoa(seen.status)))
			}
			counter.(interface{ Inc() }).Inc()
		}()
		next(seen, r)
	})
}

// statusWriter sees the status, and closes connections with their answers when the server ends.
type statusWriter struct {
	http.ResponseWriter
	server *Server
	status int // 0 until it is written
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	if w.server.isDraining() {
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// refuse answers with a problem document (RFC 9457).
func refuse(w http.ResponseWriter, status int, detail string) {
	body, _ := json.Marshal(map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail}) // of texts and a number
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// notReady says why the server can't decide; empty if it can.
func (s *Server) notReady() string {
	if s.isDraining() {
		return "the server is ending"
	}
	b := s.ready.Load()
	if b == nil {
		if why := s.waiting.Load(); why != nil {
			return "waiting for the Valkey server: " + *why
		}
		return "waiting for the Valkey server"
	}
	if err := b.probe.check(); err != nil {
		return "the Valkey server does not answer: " + err.Error()
	}
	return ""
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if why := s.notReady(); why != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, why+"\n")
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// question is the body of a check.
type question struct {
	Plan    string   `json:"plan"`
	Plans   []string `json:"plans"`
	Subject string   `json:"subject"`
	Cost    *int64   `json:"cost"`
}

func (q question) cost() int64 {
	if q.Cost == nil {
		return 1
	}
	return *q.Cost
}

// answer is what a check answers. What is not known of a limit, as while the Valkey server is away, is left out.
type answer struct {
	Allowed bool `json:"allowed"`
	limitAnswer
	Mode   string        `json:"mode"`
	Limits []limitAnswer `json:"limits,omitempty"`
}

// limitAnswer is one limit, or the most restrictive one. RetryAfter is in seconds, null if it is never.
type limitAnswer struct {
	Plan       string   `json:"plan,omitempty"`
	Name       string   `json:"name,omitempty"`
	Limit      *int64   `json:"limit,omitempty"`
	Remaining  *int64   `json:"remaining,omitempty"`
	Reset      *int64   `json:"reset,omitempty"`
	RetryAfter *float64 `json:"retry_after"`
}

func (s *Server) check(w http.ResponseWriter, r *http.Request) {
	q, status, err := readQuestion(r)
	if err != nil {
		refuse(w, status, err.Error())
		return
	}
	b := s.ready.Load()
	if b == nil {
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, s.notReady())
		return
	}
	asks, err := b.asks(q.Plans, q.Subject)
	if err != nil {
		refuse(w, planStatus(err), err.Error())
		return
	}
	for i := range asks {
		asks[i].Cost = q.cost()
	}
	ask := ratelimit.AllowAll
	if q.cost() == 0 {
		ask = peek
	}
	results, allowed, err := ask(r.Context(), asks...)
	for i, plan := range q.Plans {
		s.metrics.decided("check", plan, outcome(results[i].Allowed, err))
	}
	if err != nil {
		s.log.Debug("no decision", "error", err)
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "The limits can't be checked at present.")
		return
	}
	body, _ := json.Marshal(answerOf(q.Plans, asks, results, allowed)) // of texts and finite numbers
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n'))
}

func planStatus(err error) int {
	if errors.Is(err, errPlan) {
		return http.StatusNotFound
	}
	return http.StatusUnprocessableEntity
}

// readQuestion reads and checks a body; the status is that of the refusal.
func readQuestion(r *http.Request) (q question, status int, err error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return q, http.StatusUnsupportedMediaType, errors.New("The Content-Type is not application/json.") //nolint:revive,staticcheck // a sentence for clients
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	err = decoder.Decode(&q)
	if err == nil {
		if _, more := decoder.Token(); !errors.Is(more, io.EOF) {
			if err = more; err == nil {
				err = errors.New("there is more behind the JSON object")
			}
		}
	}
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return q, http.StatusRequestEntityTooLarge, fmt.Errorf("the body is over %d bytes", long.Limit)
	case err != nil:
		return q, http.StatusBadRequest, fmt.Errorf("no valid JSON object of plan, plans, subject and cost: %w", err)
	}
	if q.Plan != "" {
		q.Plans = append([]string{q.Plan}, q.Plans...)
	}
	switch {
	case len(q.Plans) == 0:
		err = errors.New("plan is missing")
	case len(q.Plans) > maxAsks:
		err = fmt.Errorf("over %d plans", maxAsks)
	case q.Subject == "":
		err = errors.New("subject is missing")
	case len(q.Subject) > maxSubject:
		err = fmt.Errorf("subject has over %d bytes", maxSubject)
	case q.Cost != nil && (*q.Cost < 0 || *q.Cost > ratelimit.MaxLimit):
		err = fmt.Errorf("cost is %d, not from 0 to %d", *q.Cost, int64(ratelimit.MaxLimit))
	}
	for _, plan := range q.Plans {
		if len(plan) > maxSubject {
			err = fmt.Errorf("the name of a plan has over %d bytes", maxSubject)
		}
	}
	return q, http.StatusBadRequest, err
}

// asks are for one subject in several plans.
func (b *backend) asks(plans []string, subject string) ([]ratelimit.Ask, error) {
	asks := make([]ratelimit.Ask, len(plans))
	for i, plan := range plans {
		l, err := b.plan(plan)
		if err != nil {
			return nil, err
		}
		asks[i] = ratelimit.Ask{Limiter: l, Subject: subject}
	}
	return asks, nil
}

// peek looks at all asks at the same time, and charges nothing.
func peek(ctx context.Context, asks ...ratelimit.Ask) (results []ratelimit.Result, allowed bool, err error) {
	results, errs := make([]ratelimit.Result, len(asks)), make([]error, len(asks))
	var wg sync.WaitGroup
	for i, a := range asks {
		wg.Go(func() { results[i], errs[i] = a.Limiter.Peek(ctx, a.Subject) })
	}
	wg.Wait()
	allowed = true
	for i := range asks {
		allowed = allowed && errs[i] == nil && results[i].Allowed
	}
	return results, allowed, errors.Join(errs...)
}

func answerOf(plans []string, asks []ratelimit.Ask, results []ratelimit.Result, allowed bool) answer {
	a := answer{Allowed: allowed}
	var tightest ratelimit.Result
	for i, r := range results {
		back := int64(0) // what this plan had counted, and another one's denial gave back
		if !allowed && r.Allowed && r.Mode == ratelimit.ModeServer {
			back = asks[i].Cost
		}
		r.Remaining = min(r.Limit, r.Remaining+back)
		for _, l := range r.Limits() {
			l.Remaining = min(l.Limit, l.Remaining+back)
			a.Limits = append(a.Limits, limitAnswer{plans[i], l.Name, &l.Limit, &l.Remaining, unixSeconds(l.Reset, l.ResetAfter), inSeconds(l.RetryAfter)})
		}
		if i == 0 || tighter(r, tightest) {
			tightest = r
			a.limitAnswer = limitAnswer{Plan: plans[i], Name: r.Name, RetryAfter: inSeconds(r.RetryAfter)}
			a.Mode = r.Mode.String()
			if r.Limit > 0 {
				a.Limit, a.Remaining, a.Reset = &r.Limit, &r.Remaining, unixSeconds(r.Reset, r.ResetAfter)
			}
		}
	}
	return a
}

// tighter says whether a is more restrictive than b: denied for longer, or with a smaller part left.
func tighter(a, b ratelimit.Result) bool {
	switch {
	case a.RetryAfter != b.RetryAfter:
		return a.RetryAfter > b.RetryAfter
	case a.Limit == 0 || b.Limit == 0:
		return a.Limit > 0
	}
	return float64(a.Remaining)/float64(a.Limit) < float64(b.Remaining)/float64(b.Limit)
}

// unixSeconds is when all is available again in Unix seconds, rounded up: by the server's clock where it was asked.
func unixSeconds(at time.Time, after time.Duration) *int64 {
	if at.IsZero() {
		at = time.Now().Add(after)
	}
	seconds := (at.UnixMilli() + 999) / 1000
	return &seconds
}

// inSeconds rounds up to milliseconds; nil is never.
func inSeconds(d time.Duration) *float64 {
	if d == ratelimit.Never {
		return nil
	}
	seconds := math.Ceil(float64(d)/float64(time.Millisecond)) / 1000
	return &seconds
}

package ratehttp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratehttp"
	"github.com/flatrate/flatrate/valkeytest"
)

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })

func limiter(t *testing.T, s *valkeytest.Server, limits ...ratelimit.Limit) *ratelimit.Limiter {
	t.Helper()
	return limiterOf(t, s, ratelimit.Config{Limits: limits})
}

// limiterOf gives decisions time: a loaded machine is no outage.
func limiterOf(t *testing.T, s *valkeytest.Server, cfg ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	cfg.Prefix = valkeytest.Prefix(t)
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	l, err := ratelimit.New(s.Client(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func user(r *http.Request) string { return r.Header.Get("X-User") }

// serve starts a real server with the middleware before next.
func serve(t *testing.T, cfg ratehttp.Config, next http.Handler) *httptest.Server {
	t.Helper()
	if cfg.Key == nil && cfg.Asks == nil {
		cfg.Key = ratehttp.User(user)
	}
	m, err := ratehttp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(m.Handler(next))
	t.Cleanup(s.Close)
	return s
}

type response struct {
	*http.Response
	body string
}

func get(t *testing.T, s *httptest.Server, who string) response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if who != "" {
		r.Header.Set("X-User", who)
	}
	return do(t, s, r)
}

func do(t *testing.T, s *httptest.Server, r *http.Request) response {
	t.Helper()
	res, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{res, string(body)}
}

func (r response) number(t *testing.T, header string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(r.Header.Get(header), 10, 64)
	if err != nil {
		t.Errorf("%s: %v", header, err)
	}
	return n
}

type problem struct {
	Type, Title, Detail string
	Status              int
	Violated            []string `json:"violated-policies"`
}

func (r response) problem(t *testing.T) (p problem) {
	t.Helper()
	if r.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("Content-Type %q", r.Header.Get("Content-Type"))
	}
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Errorf("%q: %v", r.body, err)
	}
	if p.Status != r.StatusCode || p.Title == "" {
		t.Errorf("%d: %+v", r.StatusCode, p)
	}
	return p
}

func TestHeadersOfAdmittedAndDenied(t *testing.T) {
	v := valkeytest.Start(t)
	s := serve(t, ratehttp.Config{Limiter: limiter(t, v,
		ratelimit.Limit{Name: "hour", Limit: 2, Window: time.Hour},
		ratelimit.Limit{Algorithm: ratelimit.Quota, Limit: 100, Period: ratelimit.Day},
	)}, hello)
	const policies = `"hour";q=2;w=3600, "day";q=100;w=86400`
	now := time.Now().Unix()
	for left := int64(1); left >= 0; left-- {
		res := get(t, s, "anna")
		if res.StatusCode != 200 || res.body != "hello" || res.Header.Get("Retry-After") != "" {
			t.Fatalf("%d %q %v", res.StatusCode, res.body, res.Header)
		}
		reset := res.number(t, "X-RateLimit-Reset")
		if res.number(t, "X-RateLimit-Limit") != 2 || res.number(t, "X-RateLimit-Remaining") != left || reset%3600 != 0 || reset < now || reset > now+2*3600 {
			t.Errorf("%v", res.Header)
		}
		var r, t1, day, t2 int64
		if _, err := fmt.Sscanf(res.Header.Get("RateLimit"), `"hour";r=%d;t=%d, "day";r=%d;t=%d`, &r, &t1, &day, &t2); err != nil || r != left || day != 98+left || t1 < 1 || t1 > 3600 || t2 < 1 || t2 > 86400 {
			t.Errorf("%q %v", res.Header.Get("RateLimit"), err)
		}
		if res.Header.Get("RateLimit-Policy") != policies {
			t.Errorf("%q", res.Header.Get("RateLimit-Policy"))
		}
	}
	res := get(t, s, "anna")
	var r, after int64
	if _, err := fmt.Sscanf(res.Header.Get("RateLimit"), `"hour";r=%d;t=%d`, &r, &after); err != nil || r != 0 {
		t.Errorf("%q %v", res.Header.Get("RateLimit"), err)
	}
	if retry := res.number(t, "Retry-After"); res.StatusCode != 429 || retry < 1 || retry > 3600 || after > retry {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	if res.number(t, "X-RateLimit-Remaining") != 0 || res.Header.Get("RateLimit-Policy") != policies {
		t.Errorf("%v", res.Header)
	}
	if p := res.problem(t); p.Type != "https://iana.org/assignments/http-problem-types#quota-exceeded" || !slices.Equal(p.Violated, []string{"hour"}) {
		t.Errorf("%+v", p)
	}
	if res := get(t, s, "bert"); res.StatusCode != 200 {
		t.Errorf("another user: %d", res.StatusCode)
	}
	if res := get(t, s, ""); res.StatusCode != 403 || res.problem(t).Type != "about:blank" || res.Header.Get("Retry-After") != "" {
		t.Errorf("no user: %d %v", res.StatusCode, res.Header)
	}
}

func TestHeadersThatAreAskedFor(t *testing.T) {
	v := valkeytest.Start(t)
	for headers, want := range map[ratehttp.Headers]string{
		ratehttp.HeadersAll: "X-Ratelimit-Limit Ratelimit", ratehttp.HeadersX: "X-Ratelimit-Limit",
		ratehttp.HeadersIETF: "Ratelimit", ratehttp.HeadersNone: "",
	} {
		s := serve(t, ratehttp.Config{Limiter: limiter(t, v, ratelimit.Limit{Limit: 1, Window: time.Hour}), Headers: headers}, hello)
		res := get(t, s, "anna")
		var got []string
		for _, name := range []string{"X-Ratelimit-Limit", "Ratelimit"} {
			if res.Header.Get(name) != "" {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%d: %v", headers, res.Header)
		}
		if res := get(t, s, "anna"); res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
			t.Errorf("%d: %d %v", headers, res.StatusCode, res.Header)
		}
	}
}

// TestPolicies holds what RateLimit-Policy says of each kind of limit.
func TestPolicies(t *testing.T) {
	v := valkeytest.Start(t)
	for want, limit := range map[string]ratelimit.Limit{
		`"a \"b\" \\ %25 f%C3%BC";q=1;w=1`:           {Name: `a "b" \ % fü`, Limit: 1, Window: time.Millisecond},
		`"bucket-1m";q=500;w=300`:                    {Algorithm: ratelimit.TokenBucket, Limit: 100, Window: time.Minute, Burst: 500},
		`"bucket-1s";q=1;w=1`:                        {Algorithm: ratelimit.TokenBucket, Limit: 3, Window: time.Second, Burst: 1},
		`"sliding-90s";q=7;w=90`:                     {Algorithm: ratelimit.SlidingWindow, Limit: 7, Window: 90 * time.Second},
		`"week";q=5;w=604800`:                        {Algorithm: ratelimit.Quota, Limit: 5, Period: ratelimit.Week},
		`"month";q=5`:                                {Algorithm: ratelimit.Quota, Limit: 5, Period: ratelimit.Month},
		`"concurrency";q=5;qu="concurrent-requests"`: {Algorithm: ratelimit.Concurrency, Limit: 5},
		`"1500ms";q=999999999999999;w=2`:             {Limit: ratelimit.MaxLimit, Window: 1500 * time.Millisecond},
		`"log-1h";q=10;w=3600`:                       {Algorithm: ratelimit.SlidingLog, Limit: 10, Window: time.Hour},
	} {
		s := serve(t, ratehttp.Config{Limiter: limiter(t, v, limit)}, hello)
		if got := get(t, s, "anna").Header.Get("RateLimit-Policy"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestCost(t *testing.T) {
	v := valkeytest.Start(t)
	var err error
	s := serve(t, ratehttp.Config{
		Limiter: limiter(t, v, ratelimit.Limit{Limit: 10, Window: time.Hour}),
		Cost: func(r *http.Request) int64 {
			n, _ := strconv.ParseInt(r.Header.Get("Rows"), 10, 64)
			return n
		},
		Hooks: ratehttp.Hooks{Decided: func(_ *http.Request, d ratehttp.Decision) { err = d.Err }},
	}, hello)
	for _, c := range []struct {
		rows         string
		status       int
		remaining    string
		retry, fails bool
	}{
		{"4", 200, "6", false, false},
		{"0", 200, "5", false, false}, // zero means one
		{"6", 429, "5", true, false},
		{"5", 200, "0", false, false},
		{"11", 429, "0", false, false}, // never: no Retry-After
		{"-1", 503, "", true, true},
		{"9223372036854775807", 503, "", true, true},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		r.Header.Set("X-User", "anna")
		r.Header.Set("Rows", c.rows)
		res := do(t, s, r)
		if res.StatusCode != c.status || res.Header.Get("X-RateLimit-Remaining") != c.remaining || (res.Header.Get("Retry-After") != "") != c.retry || (err != nil) != c.fails {
			t.Errorf("%+v: %d %v, error %v", c, res.StatusCode, res.Header, err)
		}
		if c.rows == "11" && !strings.Contains(res.problem(t).Detail, "of no use") {
			t.Errorf("%s", res.body)
		}
	}
}

// TestShadow counts and admits: by the limits, without a key, and without a server.
func TestShadow(t *testing.T) {
	v := valkeytest.Start(t)
	var seen []string
	s := serve(t, ratehttp.Config{
		Limiter: limiter(t, v, ratelimit.Limit{Limit: 1, Window: time.Hour}),
		Shadow:  true,
		Hooks: ratehttp.Hooks{Decided: func(_ *http.Request, d ratehttp.Decision) {
			seen = append(seen, fmt.Sprint(d.Allowed, d.Status, d.Shadow, d.Err != nil))
		}},
	}, hello)
	for _, who := range []string{"anna", "anna", "", "anna"} {
		if len(seen) == 3 {
			v.Kill()
		}
		res := get(t, s, who)
		if res.StatusCode != 200 || res.Header.Get("X-RateLimit-Limit") != "" || res.Header.Get("RateLimit") != "" || res.Header.Get("Retry-After") != "" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
	}
	want := []string{"true 0 true false", "false 429 true false", "false 403 true true", "false 503 true true"}
	if !slices.Equal(seen, want) {
		t.Errorf("%q, want %q", seen, want)
	}
}

// TestErrorsAreNotAdmitted takes the server away.
func TestErrorsAreNotAdmitted(t *testing.T) {
	v := valkeytest.Start(t)
	l := limiter(t, v, ratelimit.Limit{Limit: 100, Window: time.Hour})
	var last ratehttp.Decision
	hooks := ratehttp.Hooks{Decided: func(_ *http.Request, d ratehttp.Decision) { last = d }}
	refuses := serve(t, ratehttp.Config{Limiter: l, Hooks: hooks}, hello)
	admits := serve(t, ratehttp.Config{Limiter: l, Hooks: hooks, OnError: ratehttp.ErrorAdmits}, hello)
	if res := get(t, refuses, "anna"); res.StatusCode != 200 {
		t.Fatal(res.StatusCode)
	}
	v.Kill()
	res := get(t, refuses, "anna")
	if res.StatusCode != 503 || res.number(t, "Retry-After") != 1 || last.Err == nil || last.Allowed {
		t.Errorf("%d %v %+v", res.StatusCode, res.Header, last)
	}
	if p := res.problem(t); p.Type != "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity" {
		t.Errorf("%+v", p)
	}
	if res := get(t, admits, "anna"); res.StatusCode != 200 || last.Err == nil || last.Allowed || res.Header.Get("Retry-After") != "" {
		t.Errorf("%d %v %+v", res.StatusCode, res.Header, last)
	}
	if res := get(t, admits, ""); res.StatusCode != 403 {
		t.Errorf("a request without a key: %d", res.StatusCode)
	}
}

// TestOutageModes says which responses an outage mode gives, beside the error of TestErrorsAreNotAdmitted.
func TestOutageModes(t *testing.T) {
	for _, c := range []struct {
		outage   ratelimit.Outage
		statuses []int
		headers  bool
		mode     ratelimit.Mode
	}{
		{ratelimit.OutageOpen, []int{200, 200, 200}, false, ratelimit.ModeOpen},
		{ratelimit.OutageClosed, []int{503, 503, 503}, false, ratelimit.ModeClosed},
		{ratelimit.OutageLocal, []int{200, 200, 429}, true, ratelimit.ModeLocal}, // 4 among 2 processes
	} {
		v := valkeytest.Start(t)
		l := limiterOf(t, v, ratelimit.Config{Outage: c.outage, Processes: 2, Timeout: time.Second, Limits: []ratelimit.Limit{{Limit: 4, Window: time.Hour}}})
		var mode ratelimit.Mode
		s := serve(t, ratehttp.Config{Limiter: l, Hooks: ratehttp.Hooks{Decided: func(_ *http.Request, d ratehttp.Decision) { mode = d.Results[0].Mode }}}, hello)
		if res := get(t, s, "bert"); res.StatusCode != 200 || mode != ratelimit.ModeServer {
			t.Fatalf("%v: %d, mode %v", c.outage, res.StatusCode, mode)
		}
		v.Kill()
		for i, status := range c.statuses {
			res := get(t, s, "anna")
			if res.StatusCode != status || mode != c.mode || (res.Header.Get("RateLimit") != "") != c.headers || (res.Header.Get("X-RateLimit-Reset") != "") != c.headers {
				t.Errorf("%v, call %d: %d, mode %v, %v", c.outage, i, res.StatusCode, mode, res.Header)
			}
			if status != 200 {
				res.number(t, "Retry-After")
				res.problem(t)
			}
		}
	}
}

// TestPlaces holds that a place is free when its response is, after panics too, and once its handler returns.
func TestPlaces(t *testing.T) {
	v := valkeytest.Start(t)
	inside, goOn := make(chan bool), make(chan bool)
	var calls atomic.Int64
	s := serve(t, ratehttp.Config{
		Limiter: limiter(t, v, ratelimit.Limit{Algorithm: ratelimit.Concurrency, Limit: 1, Lease: time.Hour}),
	}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		switch r.Header.Get("What") {
		case "wait":
			inside <- true
			<-goOn
		case "panic":
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "hello")
	}))
	ask := func(what string) (*http.Response, error) {
		// POST: the client would repeat a GET that was cut off.
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("X-User", "anna")
		r.Header.Set("What", what)
		return s.Client().Do(r)
	}
	done := make(chan error)
	go func() {
		res, err := ask("wait")
		if err == nil {
			res.Body.Close()
		}
		done <- err
	}()
	<-inside
	if res := get(t, s, "anna"); res.StatusCode != 429 || res.number(t, "Retry-After") < 3000 || !slices.Equal(res.problem(t).Violated, []string{"concurrency"}) {
		t.Errorf("while one is inside: %d %v %s", res.StatusCode, res.Header, res.body)
	}
	goOn <- true
	if err := <-done; err != nil {
		t.Error(err)
	}
	for range 20 { // each finds the place that the one before it had
		if res := get(t, s, "anna"); res.StatusCode != 200 {
			t.Fatalf("after a response: %d", res.StatusCode)
		}
	}
	if res, err := ask("panic"); err == nil {
		res.Body.Close()
		t.Error("the panic did not reach the server")
	}
	if res := get(t, s, "anna"); res.StatusCode != 200 {
		t.Errorf("after a panic: %d", res.StatusCode)
	}
	if calls.Load() != 23 {
		t.Errorf("%d calls", calls.Load())
	}
}

// TestReleaseIsBounded stops the server while a request is inside.
func TestReleaseIsBounded(t *testing.T) {
	v := valkeytest.Start(t)
	failed := make(chan error, 1)
	s := serve(t, ratehttp.Config{
		Limiter: limiter(t, v, ratelimit.Limit{Algorithm: ratelimit.Concurrency, Limit: 1}),
		Hooks:   ratehttp.Hooks{ReleaseFailed: func(_ *http.Request, err error) { failed <- err }},
	}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { v.Pause() }))
	defer v.Resume()
	if res := get(t, s, "anna"); res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}
	if err := <-failed; !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestSeveralSubjects are limited all or nothing, and their headers stand side by side.
func TestSeveralSubjects(t *testing.T) {
	v := valkeytest.Start(t)
	users := limiterOf(t, v, ratelimit.Config{Name: "user", Limits: []ratelimit.Limit{{Limit: 5, Window: time.Hour}}})
	orgs := limiterOf(t, v, ratelimit.Config{Name: "org", Limits: []ratelimit.Limit{{Limit: 1, Window: time.Hour}, {Algorithm: ratelimit.Concurrency, Limit: 3}}})
	unknown := errors.New("unknown plan")
	s := serve(t, ratehttp.Config{Asks: func(r *http.Request) ([]ratelimit.Ask, error) {
		switch user(r) {
		case "":
			return nil, nil
		case "bad":
			return nil, unknown
		case "nil":
			return []ratelimit.Ask{{}}, nil
		}
		return []ratelimit.Ask{{Limiter: users, Subject: user(r)}, {Limiter: orgs, Subject: "acme"}}, nil
	}}, hello)
	res := get(t, s, "anna")
	const policies = `"1h";q=5;w=3600, "1h-2";q=1;w=3600, "concurrency";q=3;qu="concurrent-requests"`
	if res.StatusCode != 200 || res.Header.Get("RateLimit-Policy") != policies || res.number(t, "X-RateLimit-Limit") != 1 {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	res = get(t, s, "anna")
	if res.StatusCode != 429 || !slices.Equal(res.problem(t).Violated, []string{"1h-2"}) || !strings.HasPrefix(res.Header.Get("RateLimit"), `"1h-2";r=0;t=`) {
		t.Errorf("%d %s %v", res.StatusCode, res.body, res.Header)
	}
	if r, err := users.Peek(t.Context(), "anna"); err != nil || r.Remaining != 4 {
		t.Errorf("what the user was granted was not given back: %+v %v", r, err)
	}
	if r, err := orgs.Peek(t.Context(), "acme"); err != nil || r.Limits()[1].Remaining != 3 {
		t.Errorf("places are held: %+v %v", r, err)
	}
	for who, status := range map[string]int{"": 403, "bad": 503, "nil": 503} {
		if res := get(t, s, who); res.StatusCode != status {
			t.Errorf("%q: %d", who, res.StatusCode)
		}
	}
}

func TestSkipAndRefuse(t *testing.T) {
	v := valkeytest.Start(t)
	decided := 0
	s := serve(t, ratehttp.Config{
		Limiter: limiter(t, v, ratelimit.Limit{Limit: 1, Window: time.Hour}),
		Skip:    func(r *http.Request) bool { return user(r) == "health" },
		Refuse: func(w http.ResponseWriter, _ *http.Request, d ratehttp.Decision) {
			http.Error(w, "no: "+d.Results[0].Name, d.Status)
		},
		Hooks: ratehttp.Hooks{Decided: func(*http.Request, ratehttp.Decision) { decided++ }},
	}, hello)
	for range 3 {
		if res := get(t, s, "health"); res.StatusCode != 200 || res.Header.Get("RateLimit") != "" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
	}
	get(t, s, "anna")
	if res := get(t, s, "anna"); res.StatusCode != 429 || res.body != "no: 1h\n" || res.Header.Get("Retry-After") == "" || decided != 2 {
		t.Errorf("%d %q, %d decisions", res.StatusCode, res.body, decided)
	}
}

// TestWriterIsTheServersOwn flushes and hijacks behind the middleware.
func TestWriterIsTheServersOwn(t *testing.T) {
	v := valkeytest.Start(t)
	read := make(chan bool)
	s := serve(t, ratehttp.Config{
		Limiter: limiter(t, v, ratelimit.Limit{Limit: 9, Window: time.Hour}, ratelimit.Limit{Algorithm: ratelimit.Concurrency, Limit: 1}),
	}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user(r) == "flush" {
			_, _ = io.WriteString(w, "first\n")
			w.(http.Flusher).Flush()
			<-read
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\nraw")
		_ = conn.Close()
	}))
	dial := func(who string) *bufio.Reader {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a\r\nX-User: %s\r\n\r\n", who)
		return bufio.NewReader(conn)
	}
	stream := dial("flush")
	for line := ""; line != "first\n"; {
		var err error
		if line, err = stream.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	read <- true
	raw, err := io.ReadAll(dial("hijack"))
	if err != nil || !strings.HasSuffix(string(raw), "\r\n\r\nraw") {
		t.Errorf("%q %v", raw, err)
	}
}

// TestUnixSocket trusts the proxy behind a unix socket only if it is told to.
func TestUnixSocket(t *testing.T) {
	v := valkeytest.Start(t)
	for _, trust := range []bool{false, true} {
		key := address(t, ratehttp.AddressConfig{TrustUnix: trust})
		seen := ""
		m, err := ratehttp.New(ratehttp.Config{
			Limiter: limiter(t, v, ratelimit.Limit{Limit: 1, Window: time.Hour}), Key: key,
			Hooks: ratehttp.Hooks{Decided: func(_ *http.Request, d ratehttp.Decision) {
				if d.Err == nil {
					seen = d.Asks[0].Subject
				}
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		socket := filepath.Join(v.Dir, "http"+strconv.FormatBool(trust))
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(m.Handler(hello))
		s.Listener.Close()
		s.Listener = l
		s.Start()
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\nX-Forwarded-For: 203.0.113.1, 198.51.100.7\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		want, subject := "HTTP/1.0 403", ""
		if trust {
			want, subject = "HTTP/1.0 200", "addr:198.51.100.7"
		}
		if !strings.HasPrefix(string(answer), want) || seen != subject {
			t.Errorf("trusted %v: %q, subject %q", trust, answer, seen)
		}
		conn.Close()
		s.Close()
	}
}

func TestKeys(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "http://shop.example/orders//7/../8?q=1", nil)
	r.Header.Set("X-API-Key", "k 1%")
	r.Header["X-Twice"] = []string{"a", "b"}
	r.Header.Set("X-User", "anna")
	u := ratehttp.User(user)
	missing := ratehttp.Header("X-Missing")
	type key = ratehttp.KeyFunc
	for _, c := range []struct {
		key  key
		want string
	}{
		{ratehttp.Header("x-api-key"), "X-Api-Key:k 1%"},
		{ratehttp.Header("Host"), "Host:shop.example"},
		{ratehttp.Header("X-Twice"), ""},
		{missing, ""},
		{u, "user:anna"},
		{ratehttp.User(func(*http.Request) string { return "" }), ""},
		{ratehttp.Path(), "path:/orders/8"},
		{ratehttp.Method(), "method:POST"},
		{ratehttp.Route(), ""},
		{ratehttp.All(u, ratehttp.Header("X-API-Key"), ratehttp.Path()), "user:anna X-Api-Key:k%201%25 path:/orders/8"},
		{ratehttp.All(u, missing), ""},
		{ratehttp.All(), ""},
		{ratehttp.First(missing, u, ratehttp.Path()), "user:anna"},
		{ratehttp.First(missing), ""},
	} {
		if got, ok := c.key(r); ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%q %v, want %q", got, ok, c.want)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders/{id}", func(_ http.ResponseWriter, r *http.Request) {
		if got, ok := ratehttp.Route()(r); !ok || got != "route:GET /orders/{id}" {
			t.Errorf("%q %v", got, ok)
		}
	})
	mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/orders/7", nil))
	if got, _ := ratehttp.Method()(&http.Request{}); got != "method:GET" {
		t.Error(got)
	}
}

func TestNewNamesTheField(t *testing.T) {
	l := limiter(t, valkeytest.Start(t), ratelimit.Limit{Limit: 1, Window: time.Hour})
	asks := func(*http.Request) ([]ratelimit.Ask, error) { return nil, nil }
	for want, cfg := range map[string]ratehttp.Config{
		"Config.Limiter": {Key: ratehttp.Path()},
		"Config.Key":     {Limiter: l},
		"Config.Asks":    {Limiter: l, Asks: asks},
		"Config.OnError": {Asks: asks, OnError: 9},
		"Config.Headers": {Asks: asks, Headers: 9},
	} {
		if _, err := ratehttp.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// BenchmarkHandler is a decision behind the middleware; BenchmarkAllow the same without.
func BenchmarkHandler(b *testing.B) {
	m, err := ratehttp.New(ratehttp.Config{Limiter: benchLimiter(b), Key: ratehttp.User(user)})
	if err != nil {
		b.Fatal(err)
	}
	h := m.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("X-User", "anna")
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
}

func BenchmarkAllow(b *testing.B) {
	l := benchLimiter(b)
	for b.Loop() {
		_ = httptest.NewRecorder()
		if _, err := l.Allow(b.Context(), "user:anna"); err != nil {
			b.Fatal(err)
		}
	}
}

func benchLimiter(b *testing.B) *ratelimit.Limiter {
	b.Helper()
	l, err := ratelimit.New(valkeytest.Start(b).Client(), ratelimit.Config{
		Limits: []ratelimit.Limit{{Limit: 1 << 40, Window: time.Hour}}, Timeout: 10 * time.Second,
	})
	if err != nil {
		b.Fatal(err)
	}
	return l
}

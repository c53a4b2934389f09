package ratelimitd_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/ratelimitd"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratehttp"
)

const year300 = 300 * 24 * time.Hour

type checked struct {
	Allowed    bool
	Plan, Name string
	Limit      int64
	Remaining  int64
	Reset      int64
	RetryAfter *float64 `json:"retry_after"`
	Mode       string
	Limits     []struct {
		Plan, Name       string
		Limit, Remaining int64
	}
}

func (s *served) check(t *testing.T, body string) checked {
	t.Helper()
	status, text, h := s.do(t, "POST", "/v1/ratelimit/check", body)
	if status != 200 || h.Get("Content-Type") != "application/json" {
		t.Fatalf("%s: %d %s", body, status, text)
	}
	var c checked
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCheck asks the endpoint and package ratelimit the same.
func TestCheck(t *testing.T) {
	s := serve(t, nil)
	direct := s.limiter(t, s.prefix+"-direct", "five", ratelimit.Limit{Limit: 5, Window: year300})
	for i, cost := range []int64{1, 2, 3, 0, 2, 0, 1, 6} {
		var want ratelimit.Result
		var err error
		if cost == 0 {
			want, err = direct.Peek(t.Context(), "user:ü {1}")
		} else {
			want, err = direct.AllowN(t.Context(), "user:ü {1}", cost)
		}
		if err != nil {
			t.Fatal(err)
		}
		got := s.check(t, fmt.Sprintf(`{"plan": "five", "subject": "user:ü {1}", "cost": %d}`, cost))
		if got.Allowed != want.Allowed || got.Limit != want.Limit || got.Remaining != want.Remaining || got.Name != want.Name ||
			got.Plan != "five" || got.Mode != "server" || got.Reset != want.Reset.Unix() || len(got.Limits) != 1 {
			t.Errorf("%d: cost %d: %+v, want %+v", i, cost, got, want)
		}
		if never := want.RetryAfter == ratelimit.Never; (got.RetryAfter == nil) != never || !never && (*got.RetryAfter > 0) == want.Allowed {
			t.Errorf("%d: cost %d: retry after %v, want %v", i, cost, got.RetryAfter, want.RetryAfter)
		}
	}
	// Several plans, all or nothing.
	for i, want := range []struct {
		body      string
		allowed   bool
		plan      string
		remaining int64
	}{
		{`{"plans": ["many", "two"], "subject": "b"}`, true, "two", 1},
		{`{"plan": "many", "plans": ["two"], "subject": "b"}`, true, "two", 0},
		{`{"plans": ["five", "two"], "subject": "b"}`, false, "two", 0},
		{`{"plan": "five", "subject": "b", "cost": 0}`, true, "five", 5},
		{`{"plan": "many", "subject": "b", "cost": 0}`, true, "many", 999_998},
		{`{"plans": ["five", "two"], "subject": "b", "cost": 0}`, false, "two", 0},
		{`{"plan": "both", "subject": "b", "cost": 3}`, true, "both", 0},
	} {
		got := s.check(t, want.body)
		if got.Allowed != want.allowed || got.Plan != want.plan || got.Remaining != want.remaining {
			t.Errorf("%d: %s: %+v", i, want.body, got)
		}
		if i == 2 && (len(got.Limits) != 2 || got.Limits[0].Remaining != 5) {
			t.Errorf("what was given back is missing: %+v", got)
		}
		if want.plan == "both" && (got.Name != "month" || len(got.Limits) != 2 || got.Limits[0].Name != "wide" || got.Limits[0].Remaining != 1) {
			t.Errorf("%+v", got)
		}
	}
	_, text, _ := s.do(t, "GET", "/metrics", "")
	for _, line := range []string{
		`flatrate_decisions_total{endpoint="check",outcome="allowed",plan="two"} 2`,
		`flatrate_requests_total{code="200",endpoint="check"} 15`,
		`flatrate_valkey_up 1`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

// TestPageShowsAnswer holds the answer in docs/serve.md against one that is given.
func TestPageShowsAnswer(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/serve.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "    {\"allowed\"")
	shown, _, _ := strings.Cut(rest, "\n\n")
	_, text, _ := serve(t, nil).do(t, "POST", "/v1/ratelimit/check", `{"plan": "five", "subject": "a"}`)
	names := func(text string) (all []string) {
		return regexp.MustCompile(`"[a-z_]+":`).FindAllString(text, -1)
	}
	if got := names(text); len(got) < 10 || !slices.Equal(got, names(`{"allowed"`+shown)) {
		t.Errorf("the page has %v\nnot %v", names(`{"allowed"`+shown), got)
	}
}

func TestCheckRefuses(t *testing.T) {
	s := serve(t, nil)
	long := strings.Repeat("x", 1025)
	for name, test := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"not JSON":      {`{"plan": five}`, 400, "no valid JSON object"},
		"cut short":     {`{"plan": "five"`, 400, "no valid JSON object"},
		"a list":        {`["five"]`, 400, "no valid JSON object"},
		"null":          {`null`, 400, "plan is missing"},
		"two objects":   {`{"plan": "five", "subject": "a"}{}`, 400, "more behind"},
		"more":          {`{"plan": "five", "subject": "a"} x`, 400, "no valid JSON object"},
		"unknown field": {`{"plan": "five", "subjct": "a"}`, 400, `unknown field \"subjct\"`},
		"a float":       {`{"plan": "five", "subject": "a", "cost": 1.5}`, 400, "cost"},
		"a huge cost":   {`{"plan": "five", "subject": "a", "cost": 9007199254740993}`, 400, "cost is 9007199254740993"},
		"beyond":        {`{"plan": "five", "subject": "a", "cost": 1e40}`, 400, "cost"},
		"negative":      {`{"plan": "five", "subject": "a", "cost": -1}`, 400, "cost is -1"},
		"no plan":       {`{"subject": "a"}`, 400, "plan is missing"},
		"no subject":    {`{"plan": "five"}`, 400, "subject is missing"},
		"long subject":  {`{"plan": "five", "subject": "` + long + `"}`, 400, "subject has over 1024 bytes"},
		"long plan":     {`{"plan": "` + long + `", "subject": "a"}`, 400, "name of a plan"},
		"many plans":    {`{"plans": [` + strings.Repeat(`"five",`, 16) + `"five"], "subject": "a"}`, 400, "over 16 plans"},
		"unknown plan":  {`{"plan": "six", "subject": "a"}`, 404, `unknown plan \"six\"`},
		"unfit plan":    {`{"plan": "places", "subject": "a"}`, 422, "concurrency limit"},
		"deep":          {strings.Repeat(`[`, 30_000), 400, "no valid JSON object"},
		"long":          {`{"plan": "five", "subject": "` + strings.Repeat("x", 1<<17) + `"}`, 413, "over 65536 bytes"},
	} {
		status, text, h := s.do(t, "POST", "/v1/ratelimit/check", test.body)
		if status != test.status || !strings.Contains(text, test.says) || h.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %.300s", name, status, text)
		}
	}
	status, _, h := s.do(t, "GET", "/v1/ratelimit/check", "")
	if status != 405 || h.Get("Allow") != "POST" {
		t.Errorf("GET: %d, Allow %q", status, h.Get("Allow"))
	}
	if status, _, _ := s.do(t, "POST", "/v1/ratelimit/check", `{"plan": "five", "subject": "a"}`, "Content-Type", "text/plain"); status != 415 {
		t.Errorf("text/plain: %d", status)
	}
	// Without a length, so that it has to be read.
	r, _ := http.NewRequestWithContext(t.Context(), "POST", s.url+"/v1/ratelimit/check", io.MultiReader(strings.NewReader(`{"plan":"`), strings.NewReader(strings.Repeat("x", 1<<20))))
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 413 {
		t.Errorf("chunked: %s", response.Status)
	}
	if status, text, _ := s.do(t, "GET", "/v1/ratelimit/nothing", ""); status != 404 || !strings.Contains(text, "There is no GET") {
		t.Errorf("an unknown path: %d %s", status, text)
	}
	if got := s.check(t, `{"plan": "five", "subject": "a", "cost": 0}`); got.Remaining != 5 {
		t.Errorf("what was refused was counted: %+v", got)
	}
}

func TestAuth(t *testing.T) {
	s := serve(t, func(c *ratelimitd.Config) {
		c.Auth = ratelimitd.AuthConfig{Plans: []string{"two"}, Keys: []string{"header:X-User+header:X-Org", "header:X-Api-Key", "address"}}
	})
	ask := func(want int, path string, header ...string) http.Header {
		t.Helper()
		status, text, h := s.do(t, "GET", path, "", header...)
		if status != want {
			t.Errorf("%s %q: %d %s, want %d", path, header, status, text, want)
		}
		return h
	}
	const auth = "/v1/ratelimit/auth"
	key := []string{"X-Api-Key", "k1"}
	if h := ask(204, auth, key...); h.Get("X-RateLimit-Remaining") != "1" || h.Get("RateLimit") == "" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", h)
	}
	ask(204, auth, key...)
	if h := ask(429, auth, key...); h.Get("Retry-After") == "" || h.Get("X-RateLimit-Remaining") != "0" || h.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%v", h)
	}
	if h := ask(403, auth+"?deny=403", key...); h.Get("Retry-After") == "" {
		t.Errorf("%v", h)
	}
	ask(429, auth+"?plan=five&plan=two", key...)
	for range 5 { // what the two denied was not counted
		ask(204, auth+"?plan=five", key...)
	}
	ask(429, auth+"?plan=five", key...)
	// Other keys are other subjects.
	ask(204, auth, "X-Api-Key", "k2")
	ask(204, auth, "X-Api-Key", "k1", "X-User", "u", "X-Org", "o")
	ask(204, auth, "X-Api-Key", "k1", "X-User", "u", "X-Org", "o")
	ask(429, auth, "X-Api-Key", "k3", "X-User", "u", "X-Org", "o")
	// The address is what the nearest gateway says, whatever a client wrote before it.
	ask(204, auth, "X-Forwarded-For", "10.0.0.1, 192.0.2.7")
	ask(204, auth, "X-Forwarded-For", "10.0.0.2, 192.0.2.7")
	ask(429, auth, "X-Forwarded-For", "10.0.0.3, 192.0.2.7")
	ask(204, auth, "X-Forwarded-For", "192.0.2.8")
	// What is not right.
	ask(404, auth+"?plan=nope", key...)
	ask(422, auth+"?plan=places", key...)
	ask(400, auth+"?deny=401", key...)
	ask(400, auth+"?plan="+strings.Repeat("x", 2000), key...)
	ask(400, auth+"?plan=five"+strings.Repeat("&plan=five", 16), key...)
	// A gateway may pass on the client's method, and a body, which is not read.
	if status, _, _ := s.do(t, "DELETE", auth+"?plan=many", "x", key...); status != 204 {
		t.Errorf("DELETE: %d", status)
	}
	if direct, err := s.limiter(t, s.prefix, "two", ratelimit.Limit{Limit: 2, Window: year300}).Peek(t.Context(), "X-User:u X-Org:o"); err != nil || direct.Remaining != 0 {
		t.Errorf("the subject is another one: %+v %v", direct, err)
	}
}

func TestAuthWithoutKey(t *testing.T) {
	s := serve(t, func(c *ratelimitd.Config) {
		c.Auth = ratelimitd.AuthConfig{Keys: []string{"header:X-Api-Key"}, Headers: ratehttp.HeadersNone}
	})
	if status, text, _ := s.do(t, "GET", "/v1/ratelimit/auth?plan=five", ""); status != 403 || !strings.Contains(text, "whom it counts for") {
		t.Errorf("%d %s", status, text)
	}
	if status, text, _ := s.do(t, "GET", "/v1/ratelimit/auth", "", "X-Api-Key", "k"); status != 400 || !strings.Contains(text, "no plan") {
		t.Errorf("%d %s", status, text)
	}
	if status, _, h := s.do(t, "GET", "/v1/ratelimit/auth?plan=five", "", "X-Api-Key", "k"); status != 204 || h.Get("RateLimit") != "" {
		t.Errorf("%d %v", status, h)
	}
}

// dial opens a connection and sends text.
func (s *served) dial(t *testing.T, addr, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // a bound for the test, not what is tested
	if _, err := io.WriteString(c, text); err != nil {
		t.Logf("the server closed while this was sent: %v", err)
	}
	return c
}

func (s *served) host() string { return strings.TrimPrefix(s.url, "http://") }

func TestHugeHeader(t *testing.T) {
	s := serve(t, nil)
	c := s.dial(t, s.host(), "GET /v1/ratelimit/auth?plan=five HTTP/1.1\r\nHost: a\r\nX-Api-Key: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")
	answer, err := bufio.NewReader(c).ReadString('\n')
	// The server answers and closes; with so much on its way the answer may be lost to the reset.
	if err == nil && !strings.HasPrefix(answer, "HTTP/1.1 431 ") {
		t.Errorf("%q", answer)
	}
	if status, _, _ := s.do(t, "GET", "/v1/ratelimit/auth?plan=five", "", "X-Api-Key", "k"); status != 204 {
		t.Errorf("others: %d", status)
	}
}

// TestSlowClients sends half a header, half a body, and never reads: each loses its connection, and others don't notice.
func TestSlowClients(t *testing.T) {
	s := serve(t, func(c *ratelimitd.Config) {
		c.Bounds = ratelimitd.Bounds{Read: 300 * time.Millisecond, Write: 300 * time.Millisecond, Idle: 300 * time.Millisecond}
	})
	half := s.dial(t, s.host(), "GET /livez HTTP/1.1\r\nHost:")
	body := s.dial(t, s.host(), "POST /v1/ratelimit/check HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	idle := s.dial(t, s.host(), "")
	for name, c := range map[string]net.Conn{"half a header": half, "half a body": body, "idle": idle} {
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	deaf := s.dial(t, s.host(), "")
	request := []byte("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
	for { // until the server has closed, which it does once its answers find no reader
		if _, err := deaf.Write(bytes.Repeat(request, 100)); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a client that never reads keeps its connection")
			}
			break
		}
		if status, _, _ := s.do(t, "GET", "/livez", ""); status != 200 {
			t.Errorf("others: %d", status)
		}
	}
}

func TestConnections(t *testing.T) {
	s := serve(t, func(c *ratelimitd.Config) { c.Connections = 2 })
	http.DefaultClient.CloseIdleConnections()
	held := []net.Conn{s.dial(t, s.host(), ""), s.dial(t, s.host(), "")}
	third := s.dial(t, s.host(), "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
	if n, err := third.Read(make([]byte, 1)); err == nil {
		t.Errorf("a third connection: %d bytes", n)
	}
	for _, c := range held {
		c.Close()
	}
	s.await(t, "there is room again", func() bool {
		response, err := http.Get(s.url + "/metrics")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return strings.Contains(string(text), `flatrate_connections_refused_total{listener="listen-http"} `)
	})
}

package ratelimitd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/limits"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/ratelimitd"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// The windows are so long that none ends during a test.
const plansFile = `plans:
  five: {limits: [{limit: 5, window: 300d}], timeout: 10s}
  two: {limits: [{limit: 2, window: 300d}], timeout: 10s}
  many: {limits: [{limit: 1_000_000, window: 300d}], timeout: 10s}
  both: {limits: [{name: wide, limit: 4, window: 300d}, {name: month, algorithm: quota, limit: 3, period: month}], timeout: 10s}
  open: {limits: [{limit: 1, window: 300d}], outage: open}
  closed: {limits: [{limit: 1, window: 300d}], outage: closed}
  fails: {limits: [{limit: 1, window: 300d}]}
  places: {limits: [{algorithm: concurrency, limit: 1}]}
`

// journal collects what a server logs.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// served is a server under test.
type served struct {
	*ratelimitd.Server
	valkey *valkeytest.Server
	client valkey.Client
	prefix string
	plans  string // the file
	url    string // of HTTP
	rls    string // host:port
	log    *journal
	stop   func() error // ends it, and returns what Run did
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// baseConfig has plans on a server of its own.
func baseConfig(t *testing.T) (ratelimitd.Config, *served) {
	t.Helper()
	s := &served{valkey: valkeytest.Start(t), prefix: valkeytest.Prefix(t), log: &journal{}}
	s.client = s.valkey.Client()
	s.plans = write(t, t.TempDir(), "plans.yaml", plansFile)
	return ratelimitd.Config{
		ListenHTTP: "127.0.0.1:0", ListenRLS: "127.0.0.1:0", Prefix: s.prefix,
		Connect: func(context.Context) (valkey.Client, error) { return valkeytest.NewClient(t, s.valkey), nil },
		OpenPlans: func(client valkey.Client, hooks ratelimit.Hooks, reloaded func(bool)) (ratelimitd.Plans, error) {
			return limits.Open(s.plans, limits.Config{
				Client: client, Prefix: s.prefix, Limiters: hooks,
				Changed: func([]string) { reloaded(true) }, Failed: func(error) { reloaded(false) },
			})
		},
		PlanNames: []string{"five", "two", "many", "both", "open", "closed", "fails"},
		Logger:    slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, s
}

// serve starts a server, and waits until it is ready unless its configuration keeps it from that.
func serve(t *testing.T, change func(*ratelimitd.Config)) *served {
	t.Helper()
	cfg, s := baseConfig(t)
	if change != nil {
		change(&cfg)
	}
	s.run(t, cfg)
	s.await(t, "the server is ready", func() bool { return strings.Contains(s.log.String(), "msg=ready") })
	return s
}

func (s *served) run(t *testing.T, cfg ratelimitd.Config) {
	t.Helper()
	server, err := ratelimitd.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Server = server
	httpAddr, rlsAddr := server.Addr()
	scheme := "http://"
	if cfg.CertFile != "" {
		scheme = "https://"
	}
	if httpAddr != nil {
		s.url = scheme + httpAddr.String()
	}
	if rlsAddr != nil {
		s.rls = rlsAddr.String()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		_ = s.stop()
	})
}

// await fails the test if something does not come about within ten seconds.
func (s *served) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not so: %s\n%s", what, s.log)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// limiter is package ratelimit called directly, for the same or for other keys.
func (s *served) limiter(t *testing.T, prefix, name string, limits ...ratelimit.Limit) *ratelimit.Limiter {
	t.Helper()
	l, err := ratelimit.New(s.client, ratelimit.Config{Prefix: prefix, Name: name, Limits: limits, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (s *served) do(t *testing.T, method, path, body string, header ...string) (status int, text string, h http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header[http.CanonicalHeaderKey(header[i])] = []string{header[i+1]}
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data), response.Header
}

// TestStartWaits has a server (Valkey) that can't be reached at first.
func TestStartWaits(t *testing.T) {
	cfg, s := baseConfig(t)
	reach, tried, connect := make(chan struct{}), make(chan struct{}, 100), cfg.Connect
	cfg.Connect = func(ctx context.Context) (valkey.Client, error) {
		tried <- struct{}{}
		select {
		case <-reach:
			return connect(ctx)
		default:
			return nil, errors.New("nobody is at home")
		}
	}
	s.run(t, cfg)
	<-tried
	<-tried
	if status, text, _ := s.do(t, "GET", "/livez", ""); status != 200 || text != "ok\n" {
		t.Errorf("livez: %d %s", status, text)
	}
	if status, text, _ := s.do(t, "GET", "/readyz", ""); status != 503 || text != "waiting for the Valkey server: nobody is at home\n" {
		t.Errorf("readyz: %d %s", status, text)
	}
	for _, path := range []string{"/v1/ratelimit/check", "/v1/ratelimit/auth?plan=five"} {
		status, text, h := s.do(t, "POST", path, `{"plan": "five", "subject": "a"}`)
		if status != 503 || h.Get("Retry-After") != "1" || !strings.Contains(text, "waiting for the Valkey server") {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if code := s.health(t); code != "NOT_SERVING" {
		t.Errorf("health: %s", code)
	}
	close(reach)
	s.await(t, "it is ready", func() bool { status, _, _ := s.do(t, "GET", "/readyz", ""); return status == 200 })
	if code := s.health(t); code != "SERVING" {
		t.Errorf("health: %s", code)
	}
	if !strings.Contains(s.log.String(), `msg="waiting for the Valkey server" error="nobody is at home" again=100ms`) ||
		!strings.Contains(s.log.String(), "again=200ms") {
		t.Errorf("the log does not say so:\n%s", s.log)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func TestStartGivesUp(t *testing.T) {
	cfg, s := baseConfig(t)
	wrong := errors.New("wrong password")
	cfg.Connect = func(context.Context) (valkey.Client, error) { return nil, errors.Join(wrong, ratelimitd.ErrPermanent) }
	s.run(t, cfg)
	s.await(t, "the server has ended", func() bool { return strings.Contains(s.log.String(), "msg=ended") })
	if err := s.stop(); !errors.Is(err, wrong) {
		t.Errorf("Run: %v", err)
	}
}

// TestStopsWhileWaiting ends a server that never reached its own.
func TestStopsWhileWaiting(t *testing.T) {
	cfg, s := baseConfig(t)
	tried := make(chan struct{}, 100)
	cfg.Connect = func(context.Context) (valkey.Client, error) {
		tried <- struct{}{}
		return nil, errors.New("nobody is at home")
	}
	s.run(t, cfg)
	<-tried
	if err := s.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestOutage stops the server (Valkey) of a server.
func TestOutage(t *testing.T) {
	s := serve(t, nil)
	s.valkey.Kill()
	ask := func(plan string) (int, string) {
		status, text, _ := s.do(t, "POST", "/v1/ratelimit/check", `{"plan": "`+plan+`", "subject": "a"}`)
		return status, text
	}
	if status, text := ask("fails"); status != 503 || !strings.Contains(text, "can't be checked at present") {
		t.Errorf("error: %d %s", status, text)
	}
	if status, text := ask("open"); status != 200 || text != `{"allowed":true,"plan":"open","retry_after":0,"mode":"open"}`+"\n" {
		t.Errorf("open: %d %s", status, text)
	}
	if status, text := ask("closed"); status != 200 || text != `{"allowed":false,"plan":"closed","retry_after":1,"mode":"closed"}`+"\n" {
		t.Errorf("closed: %d %s", status, text)
	}
	for plan, want := range map[string]int{"fails": 503, "open": 204, "closed": 503} {
		if status, _, h := s.do(t, "GET", "/v1/ratelimit/auth?plan="+plan, ""); status != want || (h.Get("Retry-After") == "1") != (want == 503) {
			t.Errorf("auth: %s: %d, Retry-After %q", plan, status, h.Get("Retry-After"))
		}
	}
	s.await(t, "readyz says so", func() bool {
		status, text, _ := s.do(t, "GET", "/readyz", "")
		return status == 503 && strings.HasPrefix(text, "the Valkey server does not answer: ")
	})
	if status, _, _ := s.do(t, "GET", "/livez", ""); status != 200 {
		t.Errorf("livez: %d", status)
	}
	if _, text, _ := s.do(t, "GET", "/metrics", ""); !strings.Contains(text, "\nflatrate_valkey_up 0\n") || strings.Contains(text, "flatrate_valkey_outages_total 0\n") {
		t.Error("the metrics don't say so")
	}
	s.valkey.Restart()
	s.await(t, "it is ready again", func() bool { status, _, _ := s.do(t, "GET", "/readyz", ""); return status == 200 })
	s.await(t, "it decides again", func() bool { status, _ := ask("fails"); return status == 200 })
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	notPEM := write(t, dir, "cert.pem", "no certificate")
	rules := write(t, dir, "rules.yaml", "domain: d\ndescriptors: [{key: k, plan: nowhere}]\n")
	for name, test := range map[string]struct {
		change func(*ratelimitd.Config)
		want   []string
	}{
		"nothing":      {func(c *ratelimitd.Config) { c.ListenHTTP, c.ListenRLS = "", "" }, []string{"there is nothing to serve"}},
		"no port":      {func(c *ratelimitd.Config) { c.ListenRLS = "127.0.0.1" }, []string{"listen-rls: ", "missing port"}},
		"in use":       {func(c *ratelimitd.Config) { c.ListenHTTP = taken.Addr().String() }, []string{"listen-http: ", "address already in use"}},
		"open":         {func(c *ratelimitd.Config) { c.ListenHTTP = ":0" }, []string{"listen-http: :0 can be reached from elsewhere"}},
		"open to all":  {func(c *ratelimitd.Config) { c.ListenRLS = "0.0.0.0:0" }, []string{"listen-rls: 0.0.0.0:0 can be reached"}},
		"a name":       {func(c *ratelimitd.Config) { c.ListenRLS = "example.com:1" }, []string{"can be reached"}},
		"token":        {func(c *ratelimitd.Config) { c.Token = "short" }, []string{"under 16 bytes"}},
		"half TLS":     {func(c *ratelimitd.Config) { c.CertFile = notPEM }, []string{"belong together"}},
		"no cert":      {func(c *ratelimitd.Config) { c.CertFile, c.KeyFile = filepath.Join(dir, "none"), notPEM }, []string{"none: no such file"}},
		"bad cert":     {func(c *ratelimitd.Config) { c.CertFile, c.KeyFile = notPEM, notPEM }, []string{"cert.pem", "failed to find any PEM data"}},
		"CA alone":     {func(c *ratelimitd.Config) { c.ClientCAFile = notPEM }, []string{"tls-client-ca needs"}},
		"shutdown":     {func(c *ratelimitd.Config) { c.Shutdown = time.Millisecond }, []string{"shutdown-timeout is 1ms"}},
		"connections":  {func(c *ratelimitd.Config) { c.Connections = -1 }, []string{"max-connections is -1"}},
		"rule timeout": {func(c *ratelimitd.Config) { c.RuleTimeout = time.Hour }, []string{"rls-timeout is 1h0m0s"}},
		"deny":         {func(c *ratelimitd.Config) { c.Auth.Deny = 500 }, []string{"auth-deny is 500"}},
		"key":          {func(c *ratelimitd.Config) { c.Auth.Keys = []string{"header:", "ip"} }, []string{`"header:" is neither`, `"ip" is neither`}},
		"proxies":      {func(c *ratelimitd.Config) { c.Auth.Trusted = []string{"x"} }, []string{"trusted-proxies: "}},
		"unknown plan": {func(c *ratelimitd.Config) { c.Auth.Plans = []string{"nope"} }, []string{`auth-plan: there is no plan "nope"`}},
		"rules":        {func(c *ratelimitd.Config) { c.EnvoyFiles = []string{rules} }, []string{`envoy-rules: there is no plan "nowhere"`}},
		"no rules":     {func(c *ratelimitd.Config) { c.EnvoyFiles = []string{t.TempDir()} }, []string{"no file ends in .yaml"}},
		"several":      {func(c *ratelimitd.Config) { c.Token, c.Connections = "short", -1 }, []string{"under 16 bytes", "max-connections"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := ratelimitd.Config{ListenHTTP: "127.0.0.1:0", ListenRLS: "[::1]:0"}
			test.change(&cfg)
			_, err := ratelimitd.Open(t.Context(), cfg)
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, without %q", err, want)
				}
			}
		})
	}
	for name, fine := range map[string]ratelimitd.Config{
		"loopback":  {ListenHTTP: "localhost:0", ListenRLS: "127.8.8.8:0"},
		"token":     {ListenHTTP: ":0", Token: strings.Repeat("x", 16)},
		"trusted":   {ListenHTTP: ":0", TrustNetwork: true},
		"one alone": {ListenRLS: "127.0.0.1:0"},
	} {
		if err := ratelimitd.Check(fine); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPlansReload changes the plans, by hand and for the worse.
func TestPlansReload(t *testing.T) {
	s := serve(t, nil)
	limit := func() int64 { return s.check(t, `{"plan": "five", "subject": "a", "cost": 0}`).Limit }
	write(t, filepath.Dir(s.plans), "plans.yaml", strings.ReplaceAll(plansFile, "limit: 5,", "limit: 6,"))
	s.Reload()
	if got := limit(); got != 6 {
		t.Errorf("after a change: %d", got)
	}
	write(t, filepath.Dir(s.plans), "plans.yaml", "plans: five\n")
	s.await(t, "the broken file is noticed", func() bool {
		_, text, _ := s.do(t, "GET", "/metrics", "")
		return strings.Contains(text, `flatrate_reloads_total{result="failed",what="plans"} 1`) && strings.Contains(text, `flatrate_reloads_total{result="ok",what="plans"} 1`)
	})
	if got := limit(); got != 6 {
		t.Errorf("with a broken file: %d", got)
	}
}

// TestDrain ends a server while requests are under way: those it has begun are answered.
func TestDrain(t *testing.T) {
	s := serve(t, nil)
	kept := &http.Client{Transport: &http.Transport{}}
	ask := func() (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/v1/ratelimit/check", strings.NewReader(`{"plan": "many", "subject": "a"}`))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/json")
		return kept.Do(r)
	}
	if _, err := ask(); err != nil {
		t.Fatal(err)
	}
	s.valkey.Pause()
	type result struct {
		response *http.Response
		err      error
	}
	results := make(chan result, 4)
	for range cap(results) {
		go func() {
			response, err := ask()
			results <- result{response, err}
		}()
	}
	s.await(t, "the requests have arrived", func() bool { return s.blocked(t) })
	ended := make(chan error, 1)
	go func() { ended <- s.stop() }()
	s.await(t, "it is ending", func() bool { return strings.Contains(s.log.String(), "ending: no new connections") })
	if c, err := net.Dial("tcp", s.host()); err == nil {
		c.Close()
		t.Error("it takes connections")
	}
	s.valkey.Resume()
	for range cap(results) {
		got := <-results
		if got.err != nil {
			t.Error(got.err)
			continue
		}
		if got.response.StatusCode != 200 || !got.response.Close {
			t.Errorf("%s, close %v\n%s", got.response.Status, got.response.Close, s.log)
		}
		got.response.Body.Close()
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// blocked says whether four requests have been taken and not answered: the log of a server on debug has nothing on that,
// so it counts connections in the metrics, which need no Valkey server but for one gauge.
func (s *served) blocked(t *testing.T) bool {
	_, text, _ := s.do(t, "GET", "/metrics", "")
	var n int
	for line := range strings.Lines(text) {
		_, _ = fmt.Sscanf(line, `flatrate_connections{listener="listen-http"} %d`, &n)
	}
	return n >= 5
}

// TestDrainCuts has a request that takes longer than the server is given.
func TestDrainCuts(t *testing.T) {
	s := serve(t, func(c *ratelimitd.Config) { c.Shutdown = time.Second })
	s.valkey.Pause()
	defer s.valkey.Resume()
	failed := make(chan error, 1)
	go func() {
		response, err := http.Post(s.url+"/v1/ratelimit/check", "application/json", strings.NewReader(`{"plan": "many", "subject": "a"}`))
		if err == nil {
			response.Body.Close()
		}
		failed <- err
	}()
	s.await(t, "the request has arrived", func() bool {
		_, text, _ := s.do(t, "GET", "/metrics", "")
		return strings.Contains(text, `flatrate_connections{listener="listen-http"} 2`)
	})
	if err := s.stop(); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("Run: %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
}

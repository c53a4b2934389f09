package interop

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/proof/serveproc"
	"github.com/flatrate/flatrate/valkeytest"
)

// gatewayPlans have a window that does not end during a test.
const gatewayPlans = "plans:\n  api: {limits: [{limit: 40, window: 300d}], timeout: 10s}\n"

// program finds a gateway; without it the test is skipped, or fails where it must not be missing.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin") {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && !info.IsDir() {
			return filepath.Join(dir, name)
		}
	}
	if os.Getenv("FLATRATE_REQUIRE_GATEWAYS") == "1" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed: as root on Debian, sh tools/install-clients.sh", name)
	return ""
}

// gateway starts a program with a file of deploy/, on other ports, between a backend and flatrate serve. It returns the
// gateway's URL, and how many requests have reached the backend.
func gateway(t *testing.T, name string, files []string, args func(dir string) []string) (url string, reached *atomic.Int64, serve *serveproc.Process) {
	t.Helper()
	path := program(t, name)
	dir := t.TempDir()
	reached = &atomic.Int64{}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		if r.URL.Path == "/forbidden" {
			w.WriteHeader(http.StatusForbidden)
		}
		_, _ = io.WriteString(w, "backend\n")
	}))
	t.Cleanup(backend.Close)
	plans := filepath.Join(dir, "plans.yaml")
	if err := os.WriteFile(plans, []byte(gatewayPlans), 0o600); err != nil {
		t.Fatal(err)
	}
	serve = serveproc.Start(t, "--valkey", "unix://"+valkeytest.Start(t).Socket, "--limits", plans, "--auth-key", "header:X-Api-Key,address")
	addr := "127.0.0.1:" + strconv.Itoa(valkeytest.FreePort(t))
	ports := strings.NewReplacer("127.0.0.1:8080", serve.HTTP, "127.0.0.1:8000", addr, "127.0.0.1:9000", strings.TrimPrefix(backend.URL, "http://"),
		"lua-load ", "lua-load "+dir+"/")
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("..", "..", "deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(ports.Replace(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(path, args(dir)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	log, err := os.Create(filepath.Join(dir, "gateway.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%s said:\n%s\nflatrate serve said:\n%s", name, text, serve.Log())
		}
	})
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			break
		}
		select {
		case <-ended:
			t.Fatalf("%s has ended", name)
		default:
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("%s does not listen", name)
		}
	}
	return "http://" + addr, reached, serve
}

// drive sends requests of several keys at once, and returns how many had which status, by key.
func drive(t *testing.T, url string, keys, each int) []map[int]int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	defer client.CloseIdleConnections()
	counts := make([]map[int]int, keys)
	for i := range counts {
		counts[i] = map[int]int{}
	}
	var mu sync.Mutex
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= keys*each {
					return
				}
				r, err := http.NewRequestWithContext(t.Context(), "GET", url+"/", nil)
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("X-Api-Key", "key-"+strconv.Itoa(n%keys))
				response, err := client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if response.StatusCode == 429 && response.Header.Get("Retry-After") == "" {
					t.Error("a 429 without Retry-After")
				}
				mu.Lock()
				counts[n%keys][response.StatusCode]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return counts
}

// mustLimit holds a gateway against the oracle: of each key exactly 40 requests pass, and all others are denied.
func mustLimit(t *testing.T, url string, reached *atomic.Int64) {
	t.Helper()
	const keys, each, limit = 10, 100, 40
	before := reached.Load()
	for key, got := range drive(t, url, keys, each) {
		if got[200] != limit || got[429] != each-limit {
			t.Errorf("key %d: %v, want %d times 200 and %d times 429", key, got, limit, each-limit)
		}
	}
	if n := reached.Load() - before; n != keys*limit {
		t.Errorf("%d requests reached the backend, not %d", n, keys*limit)
	}
	// Without a key the address counts, whatever the client says that it is.
	for i := range limit + 1 {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", url+"/", nil)
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i))
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if want := map[bool]int{true: 200, false: 429}[i < limit]; response.StatusCode != want {
			t.Errorf("by address, request %d: %s", i, response.Status)
			break
		}
	}
}

func get(t *testing.T, url, key string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Api-Key", key)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response
}

func nginx(dir string) []string {
	return []string{"-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-g", "daemon off; error_log " + dir + "/error.log; pid " + dir + "/nginx.pid;"}
}

// TestNginx runs Debian's nginx with deploy/nginx.conf.
func TestNginx(t *testing.T) {
	url, reached, serve := gateway(t, "nginx", []string{"nginx.conf"}, nginx)
	mustLimit(t, url, reached)
	if r := get(t, url, "key-0"); r.StatusCode != 429 || r.Header.Get("X-RateLimit-Limit") != "40" || r.Header.Get("X-RateLimit-Remaining") != "0" {
		t.Errorf("%s %v", r.Status, r.Header)
	}
	if r := get(t, url, "fresh"); r.StatusCode != 200 || r.Header.Get("X-RateLimit-Remaining") != "39" {
		t.Errorf("%s %v", r.Status, r.Header)
	}
	if r := get(t, url+"/forbidden", "fresh"); r.StatusCode != 403 {
		t.Errorf("a 403 of the backend: %s", r.Status)
	}
	if r := get(t, url+"/ratelimit", "fresh"); r.StatusCode != 404 {
		t.Errorf("the inner location from outside: %s", r.Status)
	}
	serve.Kill()
	if r := get(t, url, "fresh"); r.StatusCode != 500 {
		t.Errorf("without flatrate: %s", r.Status)
	}
}

// TestNginxLetsPass uncomments what lets requests pass without flatrate.
func TestNginxLetsPass(t *testing.T) {
	url, _, serve := gateway(t, "nginx", []string{"nginx.conf"}, func(dir string) []string {
		path := filepath.Join(dir, "nginx.conf")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		open := strings.NewReplacer("# proxy_intercept_errors", "proxy_intercept_errors", "# error_page 500", "error_page 500").Replace(string(text))
		if err := os.WriteFile(path, []byte(open), 0o600); err != nil {
			t.Fatal(err)
		}
		return nginx(dir)
	})
	serve.Kill()
	if r := get(t, url, "k"); r.StatusCode != 200 {
		t.Errorf("without flatrate: %s", r.Status)
	}
}

// TestNginxUnderWrk drives nginx with wrk, whose Lua counts answers by status and key.
func TestNginxUnderWrk(t *testing.T) {
	wrk := program(t, "wrk")
	url, reached, _ := gateway(t, "nginx", []string{"nginx.conf"}, nginx)
	script := filepath.Join(t.TempDir(), "count.lua")
	if err := os.WriteFile(script, []byte(`
local n, threads = 0, {}
function setup(thread) table.insert(threads, thread) end
function init() passed, denied, other = 0, 0, 0 end
function request() n = n + 1; wrk.headers["X-Api-Key"] = "key-" .. (n % 10); return wrk.format() end
function response(status) if status == 200 then passed = passed + 1 elseif status == 429 then denied = denied + 1 else other = other + 1 end end
function done(summary) local p, d, o = 0, 0, 0
	for _, t in ipairs(threads) do p, d, o = p + t:get("passed"), d + t:get("denied"), o + t:get("other") end
	print("counted", p, d, o, summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout)
end
`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), wrk, "-t2", "-c32", "-d3s", "-s", script, url+"/").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := regexp.MustCompile(`counted\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)`).FindStringSubmatch(string(out))
	if m == nil {
		t.Fatalf("%s", out)
	}
	// Ten keys of 40 each: what wrk cuts off at its end comes long after these were used up.
	if m[1] != "400" || m[2] == "0" || m[3] != "0" || m[4] != "0" || reached.Load() != 400 {
		t.Errorf("passed %s, denied %s, other %s, errors %s, at the backend %d; want 400 passed\n%s", m[1], m[2], m[3], m[4], reached.Load(), out)
	}
	t.Logf("wrk: %s passed, %s denied\n%s", m[1], m[2], out)
}

// TestCaddy runs Debian's Caddy with deploy/Caddyfile.
func TestCaddy(t *testing.T) {
	url, reached, serve := gateway(t, "caddy", []string{"Caddyfile"}, func(dir string) []string {
		return []string{"run", "--config", filepath.Join(dir, "Caddyfile"), "--adapter", "caddyfile"}
	})
	mustLimit(t, url, reached)
	if r := get(t, url, "key-0"); r.Header.Get("X-RateLimit-Remaining") != "0" || r.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s %v", r.Status, r.Header)
	}
	serve.Kill()
	if r := get(t, url, "fresh"); r.StatusCode != 502 {
		t.Errorf("without flatrate: %s", r.Status)
	}
}

// TestHAProxy runs Debian's HAProxy with deploy/haproxy.cfg and haproxy.lua.
func TestHAProxy(t *testing.T) {
	url, reached, serve := gateway(t, "haproxy", []string{"haproxy.cfg", "haproxy.lua"}, func(dir string) []string {
		return []string{"-db", "-f", filepath.Join(dir, "haproxy.cfg")}
	})
	mustLimit(t, url, reached)
	serve.Kill()
	if r := get(t, url, "fresh"); r.StatusCode != 503 {
		t.Errorf("without flatrate: %s", r.Status)
	}
}

package session_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

type profile struct {
	User  string         `json:"user,omitempty"`
	Theme string         `json:"theme,omitempty"`
	Cart  map[string]int `json:"cart,omitempty"`
	Bad   any            `json:"bad,omitempty"`
}

// site is a server with sessions, and what its hooks have heard.
type site struct {
	*session.Manager[profile]
	url string

	mu      sync.Mutex
	refused []string
	failed  []error
}

func (s *site) heard() (refused []string, failed []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refused, failed = s.refused, s.failed
	s.refused, s.failed = nil, nil
	return refused, failed
}

// open starts a server that answers each path with a handler.
func open(t *testing.T, client valkey.Client, cfg session.Config, handlers map[string]http.HandlerFunc) *site {
	t.Helper()
	s := &site{}
	cfg.Prefix = valkeytest.Prefix(t)
	if cfg.Timeout == 0 {
		cfg.Timeout = patient
	}
	cfg.Hooks.Refused = func(reason string) { s.mu.Lock(); s.refused = append(s.refused, reason); s.mu.Unlock() }
	cfg.Hooks.Failed = func(err error) { s.mu.Lock(); s.failed = append(s.failed, err); s.mu.Unlock() }
	var err error
	if s.Manager, err = session.New[profile](client, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	mux := http.NewServeMux()
	for path, handler := range handlers {
		mux.HandleFunc(path, handler)
	}
	server := httptest.NewUnstartedServer(s.Handler(mux))
	server.Config.ErrorLog = nil
	server.EnableHTTP2 = false
	server.StartTLS()
	t.Cleanup(server.Close)
	s.url = server.URL
	transports.Store(s, server.Client().Transport)
	return s
}

var transports sync.Map

// browser is a client with cookies of its own.
func (s *site) browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport, _ := transports.Load(s)
	return &http.Client{Jar: jar, Transport: transport.(http.RoundTripper)}
}

// get asks for a path and returns what came.
func (s *site) get(t *testing.T, c *http.Client, path string, header ...string) (code int, body string, h http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err.Error(), resp.Header
	}
	return resp.StatusCode, string(b), resp.Header
}

func (s *site) load(t *testing.T, w http.ResponseWriter, r *http.Request) *session.Session[profile] {
	t.Helper()
	got, err := s.Load(r.Context())
	if err != nil {
		http.Error(w, "handler: "+err.Error(), http.StatusTeapot)
		return &session.Session[profile]{}
	}
	return got
}

// usual are handlers that most tests need.
func usual(t *testing.T, s **site) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/nothing": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "nothing") },
		"/whoami": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, (*s).load(t, w, r).Value.User, " ", len((*s).load(t, w, r).Value.Cart))
		},
		"/read": func(w http.ResponseWriter, r *http.Request) {
			v, ok, err := (*s).Read(r.Context())
			fmt.Fprint(w, v.User, " ", ok, " ", err)
		},
		"/cart": func(w http.ResponseWriter, r *http.Request) {
			got := (*s).load(t, w, r)
			if got.Value.Cart == nil {
				got.Value.Cart = map[string]int{}
			}
			got.Value.Cart[r.FormValue("item")]++
			fmt.Fprint(w, "added")
		},
		"/login": func(w http.ResponseWriter, r *http.Request) {
			got := (*s).load(t, w, r)
			got.Value.User = r.FormValue("user")
			if err := (*s).Login(r.Context(), got, session.Terms{User: got.Value.User}); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		},
		"/renew": func(w http.ResponseWriter, r *http.Request) {
			if err := (*s).Renew(r.Context(), (*s).load(t, w, r)); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		},
		"/logout": func(w http.ResponseWriter, r *http.Request) {
			if err := (*s).Logout(r.Context()); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
			fmt.Fprint(w, (*s).load(t, w, r).Value.User)
		},
	}
}

func usualSite(t *testing.T, cfg session.Config) *site {
	t.Helper()
	var s *site
	s = open(t, valkeytest.Start(t).Client(), cfg, usual(t, &s))
	return s
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// TestVisit goes through a site as a browser does.
func TestVisit(t *testing.T) {
	s := usualSite(t, session.Config{Absolute: time.Hour})
	b := s.browser(t)
	for _, path := range []string{"/nothing", "/whoami", "/read"} {
		if _, _, h := s.get(t, b, path); len(h.Values("Set-Cookie")) != 0 {
			t.Errorf("%s: a visitor without data got %q", path, h.Values("Set-Cookie"))
		}
	}
	if keys := s.count(t); keys != 0 {
		t.Errorf("%d keys for a visitor without data", keys)
	}
	_, body, h := s.get(t, b, "/cart?item=pear")
	want(t, "cart", body, "added")
	cookie := h.Get("Set-Cookie")
	for _, part := range []string{"__Host-session=", "; Path=/", "; HttpOnly", "; Secure", "; SameSite=Lax"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("%s is not in %s", part, cookie)
		}
	}
	if strings.Contains(cookie, "Domain") || strings.Contains(cookie, "Max-Age") || h.Get("Cache-Control") != "no-store" {
		t.Errorf("%s, %v", cookie, h)
	}
	for _, path := range []string{"/whoami", "/read", "/cart?item=fig", "/nothing"} {
		if _, _, h := s.get(t, b, path); len(h.Values("Set-Cookie")) != 0 {
			t.Errorf("%s: %q", path, h.Values("Set-Cookie"))
		}
	}
	_, _, h = s.get(t, b, "/login?user=ann")
	if after := h.Get("Set-Cookie"); after == "" || after == cookie {
		t.Errorf("after the login: %q", after)
	}
	_, body, _ = s.get(t, b, "/whoami")
	want(t, "whoami", body, "ann 2")
	_, body, _ = s.get(t, b, "/read")
	want(t, "read", body, "ann true <nil>")
	infos, err := s.List(t.Context(), "ann")
	if err != nil || len(infos) != 1 || infos[0].Device != "Go-http-client/1.1" || infos[0].Address != "127.0.0.1" {
		t.Errorf("%+v, %v", infos, err)
	}
	_, _, h = s.get(t, b, "/renew")
	if h.Get("Set-Cookie") == "" {
		t.Error("a renewal without a cookie")
	}
	_, body, h = s.get(t, b, "/logout")
	want(t, "logout", body, "")
	if !strings.Contains(h.Get("Set-Cookie"), "__Host-session=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax") {
		t.Errorf("after the logout: %q", h.Get("Set-Cookie"))
	}
	_, body, _ = s.get(t, b, "/whoami")
	want(t, "whoami", body, " 0")
	if refused, failed := s.heard(); len(refused)+len(failed) != 0 {
		t.Errorf("%v, %v", refused, failed)
	}
}

// count is how many keys of the site's there are, tombstones left out.
func (s *site) count(t *testing.T) (n int) {
	t.Helper()
	keys, err := s.Client.Do(t.Context(), s.Client.B().Keys().Pattern("*:sess:*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if text, err := s.Client.Do(t.Context(), s.Client.B().Get().Key(key).Build()).ToString(); err != nil || text != "-" {
			n++
		}
	}
	return n
}

// TestBadCookies are of no use, and do no harm.
func TestBadCookies(t *testing.T) {
	s := usualSite(t, session.Config{})
	b := s.browser(t)
	_, _, h := s.get(t, b, "/login?user=ann")
	good, _, _ := strings.Cut(h.Get("Set-Cookie"), ";")
	plain := func() *http.Client { c := s.browser(t); c.Jar = nil; return c }
	_, body, _ := s.get(t, plain(), "/whoami", "Cookie", good)
	want(t, "the cookie itself", body, "ann 0")
	_, body, _ = s.get(t, plain(), "/whoami", "Cookie", good+"; "+good)
	want(t, "twice the same", body, "ann 0")
	s.heard()
	name, value, _ := strings.Cut(good, "=")
	for what, test := range map[string]struct{ cookie, reason string }{
		"forged":        {name + "=" + strings.Repeat("A", 26) + value[26:], "unknown"},
		"truncated":     {good[:len(good)-1], "malformed"},
		"cut short":     {name + "=" + value[:26], "malformed"},
		"too long":      {good + strings.Repeat("A", 100_000), "malformed"},
		"not ASCII":     {name + "=é" + value[2:], ""},
		"quoted":        {name + `="` + value + `"`, "-"},
		"empty":         {name + "=", ""},
		"two different": {good + "; " + name + "=" + strings.Repeat("A", 26) + ".AAAA", "ambiguous"},
		"another name":  {"session=" + value, ""},
		"no equals":     {name, ""},
	} {
		_, body, h := s.get(t, plain(), "/whoami", "Cookie", test.cookie)
		refused, failed := s.heard()
		if test.reason == "-" { // the quotes are not part of the value: RFC 6265
			continue
		}
		if body != " 0" || len(h.Values("Set-Cookie")) != 0 || len(failed) != 0 {
			t.Errorf("%s: %q, %q, %v", what, body, h.Values("Set-Cookie"), failed)
		}
		if test.reason != "" && !slices.Equal(refused, []string{test.reason}) {
			t.Errorf("%s: refused for %q, want %s", what, refused, test.reason)
		}
	}
}

// TestHeaderTokens are for clients without cookies.
func TestHeaderTokens(t *testing.T) {
	for name, test := range map[string]struct{ answer, prefix string }{
		"Authorization": {"Session-Token", "Bearer "}, "X-Token": {"X-Token", ""},
	} {
		s := usualSite(t, session.Config{HTTP: session.HTTP{Header: name, NoCookie: true}})
		c := s.browser(t)
		_, _, h := s.get(t, c, "/login?user=ann")
		token := h.Get(test.answer)
		if token == "" || h.Get("Set-Cookie") != "" {
			t.Fatalf("%s: %v", name, h)
		}
		_, body, h := s.get(t, c, "/whoami", name, test.prefix+token)
		want(t, name, body, "ann 0")
		if h.Get(test.answer) != "" {
			t.Errorf("%s: a read is answered with a token", name)
		}
		for _, bad := range [][]string{{name, "Basic " + token}, {name, test.prefix + token + "x"}, {name, test.prefix + token, name, test.prefix + token[:26] + ".AAAA"}, {"Cookie", "__Host-session=" + token}} {
			_, body, _ = s.get(t, c, "/whoami", bad...)
			want(t, strings.Join(bad, " "), body, " 0")
		}
		_, _, _ = s.get(t, c, "/logout", name, test.prefix+token)
		_, body, _ = s.get(t, c, "/whoami", name, test.prefix+token)
		want(t, "after the logout", body, " 0")
	}
}

// TestCookieForms are those that Config can ask for.
func TestCookieForms(t *testing.T) {
	for want, test := range map[string]struct {
		cfg session.Config
	}{
		"session=*; Path=/app; Domain=127.0.0.1; HttpOnly; Secure; SameSite=Strict": {session.Config{HTTP: session.HTTP{Cookie: session.Cookie{Path: "/app", Domain: "127.0.0.1", SameSite: http.SameSiteStrictMode}}}},
		"__Host-session=*; Path=/; HttpOnly; Secure; SameSite=None; Partitioned":    {session.Config{HTTP: session.HTTP{Cookie: session.Cookie{SameSite: http.SameSiteNoneMode, Partitioned: true}}}},
		"session=*; Path=/; HttpOnly; SameSite=Lax":                                 {session.Config{HTTP: session.HTTP{Cookie: session.Cookie{Insecure: true}}}},
		"__Secure-x=*; Path=/; Max-Age=7200; HttpOnly; Secure; SameSite=Lax":        {session.Config{Absolute: 2 * time.Hour, HTTP: session.HTTP{Cookie: session.Cookie{Name: "__Secure-x", Persist: true}}}},
		"__Host-session=*; Path=/; Max-Age=1800; HttpOnly; Secure; SameSite=Lax":    {session.Config{HTTP: session.HTTP{Cookie: session.Cookie{Persist: true}}}},
	} {
		s := usualSite(t, test.cfg)
		_, _, h := s.get(t, s.browser(t), "/cart?item=x")
		name, rest, _ := strings.Cut(h.Get("Set-Cookie"), "=")
		_, rest, _ = strings.Cut(rest, ";")
		if got := name + "=*;" + rest; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestTheResponseBeginsAfterTheSave lets handlers write in all the ways there are, and asks at once.
func TestTheResponseBeginsAfterTheSave(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("file"), 0o600); err != nil {
		t.Fatal(err)
	}
	writers := map[string]func(http.ResponseWriter, *http.Request){
		"WriteHeader": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202) },
		"Write":       func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("x")) },
		"WriteString": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") },
		"ReadFrom":    func(w http.ResponseWriter, _ *http.Request) { w.(io.ReaderFrom).ReadFrom(strings.NewReader("x")) },
		"ServeFile":   func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) },
		"Redirect":    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/nothing", http.StatusSeeOther) },
		"Flush":       func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() },
		"Controller": func(w http.ResponseWriter, _ *http.Request) {
			c := http.NewResponseController(w)
			if err := errors.Join(c.SetWriteDeadline(time.Now().Add(time.Minute)), c.EnableFullDuplex(), c.Flush()); err != nil {
				panic(err)
			}
		},
		"EarlyHints": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusEarlyHints); w.WriteHeader(200) },
		"nothing":    func(http.ResponseWriter, *http.Request) {},
		"Error":      func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "bad", 400) },
	}
	var s *site
	handlers := usual(t, &s)
	for name, write := range writers {
		handlers["/"+name] = func(w http.ResponseWriter, r *http.Request) {
			s.load(t, w, r).Value.User = name
			write(w, r)
		}
	}
	s = open(t, valkeytest.Start(t).Client(), session.Config{}, handlers)
	for name := range writers {
		b := s.browser(t)
		b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		if _, _, h := s.get(t, b, "/"+name); h.Get("Set-Cookie") == "" {
			t.Errorf("%s: no cookie", name)
		}
		if _, body, _ := s.get(t, b, "/whoami"); body != name+" 0" {
			t.Errorf("%s: %q", name, body)
		}
	}
	if _, failed := s.heard(); len(failed) != 0 {
		t.Error(failed)
	}
}

// TestAfterTheHeader changes sessions once the response has begun.
func TestAfterTheHeader(t *testing.T) {
	var s *site
	handlers := usual(t, &s)
	handlers["/late"] = func(w http.ResponseWriter, r *http.Request) {
		got := s.load(t, w, r)
		io.WriteString(w, "begun")
		got.Value.Theme, got.Value.User = "late", got.Value.User+"!"
	}
	handlers["/latelogin"] = func(w http.ResponseWriter, r *http.Request) {
		got := s.load(t, w, r)
		w.WriteHeader(200)
		fmt.Fprint(w, s.Login(r.Context(), got, session.Terms{User: "eve"}))
	}
	handlers["/laterenew"] = func(w http.ResponseWriter, r *http.Request) {
		got := s.load(t, w, r)
		w.WriteHeader(200)
		fmt.Fprint(w, s.Renew(r.Context(), got))
	}
	handlers["/latelogout"] = func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		fmt.Fprint(w, s.Logout(r.Context()))
	}
	s = open(t, valkeytest.Start(t).Client(), session.Config{}, handlers)
	b := s.browser(t)
	// Nothing was told to the visitor: nothing is stored.
	if _, body, h := s.get(t, b, "/late"); body != "begun" || h.Get("Set-Cookie") != "" || s.count(t) != 0 {
		t.Errorf("%q, %v, %d keys", body, h, s.count(t))
	}
	if _, failed := s.heard(); len(failed) != 1 || !errors.Is(failed[0], session.ErrHeaderSent) {
		t.Errorf("%v", failed)
	}
	s.get(t, b, "/login?user=ann")
	s.get(t, b, "/late")
	waitFor(t, "the late change", func() bool { _, body, _ := s.get(t, b, "/whoami"); return body == "ann! 0" })
	for _, path := range []string{"/latelogin", "/laterenew"} {
		_, body, _ := s.get(t, b, path)
		want(t, path, body, session.ErrHeaderSent.Error())
	}
	_, body, _ := s.get(t, b, "/whoami")
	want(t, "whoami", body, "ann! 0")
	_, body, _ = s.get(t, b, "/latelogout")
	want(t, "a logout", body, "<nil>")
	_, body, _ = s.get(t, b, "/whoami")
	want(t, "afterwards", body, " 0")
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// TestPanics holds that nothing is saved for a handler that panics, and that a token which was replaced is told.
func TestPanics(t *testing.T) {
	var s *site
	handlers := usual(t, &s)
	handlers["/panic"] = func(w http.ResponseWriter, r *http.Request) {
		s.load(t, w, r).Value.User = "panicked"
		panic(http.ErrAbortHandler)
	}
	handlers["/renewpanic"] = func(w http.ResponseWriter, r *http.Request) {
		got := s.load(t, w, r)
		if err := s.Renew(r.Context(), got); err != nil {
			t.Error(err)
		}
		got.Value.User = "panicked"
		panic("on purpose")
	}
	s = open(t, valkeytest.Start(t).Client(), session.Config{}, handlers)
	b := s.browser(t)
	s.get(t, b, "/login?user=ann")
	if code, _, _ := s.get(t, b, "/panic"); code != 0 {
		t.Errorf("code %d", code)
	}
	_, body, _ := s.get(t, b, "/whoami")
	want(t, "whoami", body, "ann 0")

	// A middleware outside of ours that recovers.
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/renewpanic", nil)
	u, _ := url.Parse(s.url)
	for _, c := range b.Jar.Cookies(u) {
		r.AddCookie(c)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
			w.WriteHeader(500)
		}()
		mux := http.NewServeMux()
		mux.HandleFunc("/renewpanic", handlers["/renewpanic"])
		s.Handler(mux).ServeHTTP(w, r)
	}()
	token, _, _ := strings.Cut(w.Result().Header.Get("Set-Cookie"), ";")
	b.Jar = nil
	_, body, _ = s.get(t, b, "/whoami", "Cookie", token)
	want(t, "with the new token", body, "ann 0")
}

// TestHijack saves before the connection is taken over.
func TestHijack(t *testing.T) {
	var s *site
	handlers := usual(t, &s)
	handlers["/hijack"] = func(w http.ResponseWriter, r *http.Request) {
		s.load(t, w, r).Value.Theme = "hijacked"
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		answer(t, rw, conn)
		s.load(t, w, r).Value.User += " later"
	}
	s = open(t, valkeytest.Start(t).Client(), session.Config{}, handlers)
	b := s.browser(t)
	_, body, _ := s.get(t, b, "/hijack")
	want(t, "a visitor without a session", body, "mine")
	if _, failed := s.heard(); len(failed) == 0 || !errors.Is(failed[0], session.ErrHeaderSent) || s.count(t) != 0 {
		t.Errorf("%v, %d keys", failed, s.count(t))
	}
	s.get(t, b, "/login?user=ann")
	_, body, _ = s.get(t, b, "/hijack")
	want(t, "a user", body, "mine")
	waitFor(t, "the change after the hijack", func() bool { _, body, _ := s.get(t, b, "/whoami"); return body == "ann later 0" })
}

func answer(t *testing.T, rw *bufio.ReadWriter, conn net.Conn) {
	t.Helper()
	fmt.Fprint(rw, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmine")
	if err := errors.Join(rw.Flush(), conn.SetDeadline(time.Now().Add(time.Second))); err != nil {
		t.Error(err)
	}
}

// TestWhatCannotBeSaved replaces the response.
func TestWhatCannotBeSaved(t *testing.T) {
	var s *site
	handlers := usual(t, &s)
	handlers["/bad"] = func(w http.ResponseWriter, r *http.Request) {
		s.load(t, w, r).Value.Bad = func() {}
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("ETag", `"x"`)
		_, err := io.WriteString(w, "never seen")
		if err == nil {
			t.Error("the handler's bytes were taken")
		}
	}
	handlers["/big"] = func(w http.ResponseWriter, r *http.Request) {
		s.load(t, w, r).Value.Theme = strings.Repeat("x", 1<<20)
	}
	handlers["/conflict"] = func(w http.ResponseWriter, r *http.Request) {
		got := s.load(t, w, r)
		other, ok, err := s.Get(r.Context(), got.Token)
		if err != nil || !ok {
			t.Error(ok, err)
			return
		}
		other.Value.Theme = "theirs"
		if ok, err := s.Set(r.Context(), other); err != nil || !ok {
			t.Error(ok, err)
		}
		got.Value.Theme = "mine"
	}
	s = open(t, valkeytest.Start(t).Client(), session.Config{Conflict: session.Compare}, handlers)
	b := s.browser(t)
	s.get(t, b, "/login?user=ann")
	for path, want := range map[string]struct {
		code int
		err  string
	}{"/bad": {500, "unsupported type"}, "/big": {500, "too large"}, "/conflict": {409, "changed the same"}} {
		code, body, h := s.get(t, b, path)
		if code != want.code || strings.Contains(body, "never seen") || strings.Contains(body, want.err) && path != "/conflict" || h.Get("ETag") != "" || h.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%s: %d, %q, %v", path, code, body, h)
		}
		if _, failed := s.heard(); len(failed) != 1 || !strings.Contains(failed[0].Error(), want.err) {
			t.Errorf("%s: %v", path, failed)
		}
	}
	_, body, _ := s.get(t, b, "/whoami")
	want(t, "whoami", body, "ann 0")
}

// TestStoreDown kills the server, under both policies.
func TestStoreDown(t *testing.T) {
	t.Parallel()
	for _, down := range []session.Down{session.FailClosed, session.Anonymous} {
		server := valkeytest.Start(t)
		var s *site
		handlers := usual(t, &s)
		handlers["/ignores"] = func(w http.ResponseWriter, r *http.Request) {
			_, _ = s.Load(r.Context())
			io.WriteString(w, "all is well")
		}
		s = open(t, server.Client(), session.Config{HTTP: session.HTTP{Down: down}, Timeout: 2 * time.Second}, handlers)
		b := s.browser(t)
		s.get(t, b, "/login?user=ann")
		server.Kill()
		code, body, _ := s.get(t, b, "/nothing")
		if code != 200 || body != "nothing" {
			t.Errorf("a handler that needs no session: %d, %q", code, body)
		}
		code, body, h := s.get(t, b, "/ignores")
		read, _, _ := s.get(t, b, "/read")
		login, _, _ := s.get(t, b, "/login?user=eve")
		logout, _, _ := s.get(t, b, "/logout")
		_, failed := s.heard()
		if down == session.FailClosed {
			if code != 503 || strings.Contains(body, "well") || h.Get("Retry-After") == "" || read != 503 || login != 418 || logout != 503 {
				t.Errorf("closed: %d %q, %d, %d, %d", code, body, read, login, logout)
			}
		} else if code != 200 || body != "all is well" || h.Get("Set-Cookie") != "" || read != 200 || login != 503 || logout != 503 {
			t.Errorf("anonymous: %d %q %v, %d, %d, %d", code, body, h, read, login, logout)
		}
		if len(failed) == 0 {
			t.Error("nobody was told")
		}
		// A visitor without a session has none to be asked for, but can't be given one.
		stranger := s.browser(t)
		if code, _, _ := s.get(t, stranger, "/whoami"); code != 200 {
			t.Errorf("a stranger: %d", code)
		}
		if code, _, h := s.get(t, stranger, "/cart?item=x"); code != 503 || h.Get("Set-Cookie") != "" {
			t.Errorf("a stranger with a cart: %d, %v", code, h)
		}
		server.Restart()
		waitFor(t, "the server", func() bool { code, _, _ := s.get(t, stranger, "/cart?item=x"); return code == 200 })
	}
}

// TestWithoutHandler is a mistake of the program's.
func TestWithoutHandler(t *testing.T) {
	s := usualSite(t, session.Config{})
	_, err := s.Load(context.Background())
	_, _, err2 := s.Read(context.Background())
	if err == nil || err2 == nil || s.Logout(context.Background()) == nil {
		t.Error("a context of no request was taken")
	}
}

func recordWith(h http.Handler) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w
}

// TestTheTokenIsToldAllTheSame where it was replaced and then the save fails: the visitor would else be logged out.
func TestTheTokenIsToldAllTheSame(t *testing.T) {
	var s *site
	handlers := usual(t, &s)
	spoiled := func(path string) {
		replace := handlers[path]
		handlers[path+"-spoiled"] = func(w http.ResponseWriter, r *http.Request) {
			replace(w, r)
			s.load(t, w, r).Value.Bad = func() {}
		}
	}
	spoiled("/login")
	spoiled("/renew")
	s = open(t, valkeytest.Start(t).Client(), session.Config{Grace: session.NoGrace}, handlers)
	b := s.browser(t)
	s.get(t, b, "/cart?item=pear")
	for _, path := range []string{"/login-spoiled?user=ann", "/renew-spoiled"} {
		code, _, h := s.get(t, b, path)
		if code != http.StatusInternalServerError || len(h.Values("Set-Cookie")) != 1 {
			t.Errorf("%s: code %d, %q", path, code, h.Values("Set-Cookie"))
		}
		_, body, _ := s.get(t, b, "/whoami")
		want(t, "after "+path, body, "ann 1")
	}
}

// TestLogoutOfSeveral ends whatever the cookies name: the visitor must not stay logged in because of a second one.
func TestLogoutOfSeveral(t *testing.T) {
	s := usualSite(t, session.Config{})
	b := s.browser(t)
	_, _, h := s.get(t, b, "/login?user=ann")
	good, _, _ := strings.Cut(h.Get("Set-Cookie"), ";")
	b.Jar = nil
	other := "__Host-session=" + strings.Repeat("A", 26) + ".AAAA"
	code, _, h := s.get(t, b, "/logout", "Cookie", other+"; "+good)
	if code != http.StatusOK || !strings.Contains(h.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("code %d, %q", code, h.Values("Set-Cookie"))
	}
	_, body, _ := s.get(t, b, "/whoami", "Cookie", good)
	want(t, "after the logout", body, " 0")
}

// TestHijackRefused, as over HTTP/2: the handler answers after all, and the session is kept.
func TestHijackRefused(t *testing.T) {
	m, err := session.New[profile](valkeytest.Start(t).Client(), session.Config{Prefix: valkeytest.Prefix(t), Timeout: patient})
	if err != nil {
		t.Fatal(err)
	}
	w := recordWith(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := m.Load(r.Context())
		if err != nil {
			t.Error(err)
			return
		}
		s.Value.User = "ann"
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack = %v", err)
		}
		w.WriteHeader(http.StatusAccepted)
	})))
	if w.Code != http.StatusAccepted || len(w.Result().Cookies()) != 1 {
		t.Errorf("code %d, %v", w.Code, w.Result().Header)
	}
}

// TestVisitorsOfNilTypes: nothing is stored for a visitor without data, whatever the value's type.
func TestVisitorsOfNilTypes(t *testing.T) {
	client := valkeytest.Start(t).Client()
	t.Run("pointer", func(t *testing.T) { nilType(t, client, func(v **profile) { (*v).User = "ann" }) })
	t.Run("interface", func(t *testing.T) { nilType(t, client, func(v *any) { *v = map[string]any{"user": "ann"} }) })
	t.Run("map", func(t *testing.T) { nilType(t, client, func(v *map[string]any) { (*v)["user"] = "ann" }) })
}

func nilType[T any](t *testing.T, client valkey.Client, change func(*T)) {
	t.Helper()
	m, err := session.New[T](client, session.Config{Prefix: valkeytest.Prefix(t), Timeout: patient})
	if err != nil {
		t.Fatal(err)
	}
	visit := func(then func(*T)) *httptest.ResponseRecorder {
		return recordWith(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s, err := m.Load(r.Context())
			if err != nil {
				t.Error(err)
				return
			}
			then(&s.Value)
		})))
	}
	none := func(v *T) { var zero T; *v = zero }
	for what, then := range map[string]func(*T){"as it is": func(*T) {}, "nil": none} {
		if w := visit(then); w.Code != http.StatusOK || len(w.Result().Cookies()) != 0 {
			t.Errorf("%s: code %d, %v", what, w.Code, w.Result().Header)
		}
	}
	if w := visit(change); w.Code != http.StatusOK || len(w.Result().Cookies()) != 1 {
		t.Errorf("changed: code %d, %v", w.Code, w.Result().Header)
	}
}

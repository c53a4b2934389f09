package interop

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"encoding/json"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/redis/go-redis/v9"
)

var (
	_ scs.IterableCtxStore = (*session.Store)(nil)
	_ scs.CtxStore         = (*session.Store)(nil)
	_ scs.IterableStore    = (*session.Store)(nil)
)

// scsSite is a site on scs.
type scsSite struct {
	*scs.SessionManager
	handler http.Handler
}

func newSCS(store scs.Store, idle time.Duration) *scsSite {
	m := scs.New()
	m.Store, m.IdleTimeout = store, idle
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		if err := m.RenewToken(r.Context()); err != nil {
			http.Error(w, err.Error(), 500)
		}
		m.Put(r.Context(), "user", r.FormValue("user"))
	})
	mux.HandleFunc("/whoami", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, m.GetString(r.Context(), "user")) })
	mux.HandleFunc("/write", func(_ http.ResponseWriter, r *http.Request) { m.Put(r.Context(), "n", r.FormValue("n")) })
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		if err := m.Destroy(r.Context()); err != nil {
			http.Error(w, err.Error(), 500)
		}
	})
	return &scsSite{m, m.LoadAndSave(mux)}
}

func (s *scsSite) ask(path, cookie string) (body, set string) {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	set, _, _ = strings.Cut(w.Header().Get("Set-Cookie"), ";")
	return w.Body.String(), set
}

// TestSCS runs scs itself on our store.
func TestSCS(t *testing.T) {
	client := valkeytest.Start(t).Client()
	store, err := session.NewStore(client, session.StoreConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, hashed := range []bool{false, true} {
		s := newSCS(store, time.Minute)
		s.HashTokenInStore = hashed
		var cookies []string
		for _, user := range []string{"ann", "bob"} {
			_, cookie := s.ask("/login?user="+user, "")
			cookies = append(cookies, cookie)
			if body, _ := s.ask("/whoami", cookie); body != user {
				t.Errorf("hashed %v: %q, want %s", hashed, body, user)
			}
		}
		seen := 0
		err := s.Iterate(context.Background(), func(ctx context.Context) error {
			seen++
			if s.GetString(ctx, "user") == "ann" {
				return s.Destroy(ctx)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		ann, _ := s.ask("/whoami", cookies[0])
		bob, _ := s.ask("/whoami", cookies[1])
		if !hashed && (seen != 2 || ann != "" || bob != "bob") { // scs hashes the name that it was given once more
			t.Errorf("%d sessions, %q, %q", seen, ann, bob)
		}
		s.ask("/logout", cookies[1])
		if body, _ := s.ask("/whoami", cookies[1]); body != "" {
			t.Errorf("hashed %v: after the logout: %q", hashed, body)
		}
	}
}

// back counts how many sessions a write that was under way brings back after their logout.
func back(t *testing.T, s *scsSite, n int) (count int) {
	for range n {
		_, cookie := s.ask("/login?user=ann", "")
		loaded, end := make(chan struct{}), make(chan struct{})
		slow := s.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(loaded)
			<-end
			s.Put(r.Context(), "n", "1")
		}))
		var all sync.WaitGroup
		all.Go(func() {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("Cookie", cookie)
			slow.ServeHTTP(httptest.NewRecorder(), r)
		})
		<-loaded
		s.ask("/logout", cookie)
		close(end)
		all.Wait()
		if body, _ := s.ask("/whoami", cookie); body != "" {
			count++
		}
	}
	return count
}

// TestSCSResurrection counts beside scs's own store, on the same server.
func TestSCSResurrection(t *testing.T) {
	server := valkeytest.Start(t)
	ours, err := session.NewStore(server.Client(), session.StoreConfig{})
	if err != nil {
		t.Fatal(err)
	}
	theirs := redis.NewClient(&redis.Options{Network: "unix", Addr: server.Socket})
	t.Cleanup(func() { _ = theirs.Close() })
	const n = 50
	a, b := back(t, newSCS(ours, 0), n), back(t, newSCS(goredisstore.New(theirs), 0), n)
	t.Logf("logged out, and back by a write that was under way: scs on session.Store %d of %d, on goredisstore %d of %d", a, n, b, n)
	if a != 0 || b == 0 {
		t.Errorf("%d and %d of %d", a, b, n)
	}
}

// TestConnectRedisIsTakenOver begins a session with express-session and connect-redis, and goes on with it in Go.
func TestConnectRedisIsTakenOver(t *testing.T) {
	if exec.CommandContext(t.Context(), "node", "--input-type=module", "-e", "import './node/node_modules/connect-redis/dist/connect-redis.js'").Run() != nil {
		t.Skip("node 20 with connect-redis is missing: cd proof/interop/node && npm ci")
	}
	server := valkeytest.Start(t)
	out, err := exec.CommandContext(t.Context(), "node", "node/connect-redis.mjs", server.Socket, "s3cret", `{"user":"ann","cart":{"pear":2}}`).Output()
	if err != nil {
		t.Fatal(err)
	}
	var made struct{ Cookie, Key string }
	if err := json.Unmarshal(out, &made); err != nil {
		t.Fatal(err)
	}
	m, err := session.New[account](server.Client(), session.Config{
		ForeignTokens: true, Absolute: time.Hour, HTTP: session.HTTP{Cookie: session.Cookie{Name: "connect.sid"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	old, err := session.FromConnectRedis[account](session.ConnectRedis{Client: server.Client(), Secrets: []string{"s3cret"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.TakeOver(old); err != nil {
		t.Fatal(err)
	}
	site := accounts(t, m)
	ask := func(method, path, cookie string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Cookie", cookie)
		w := httptest.NewRecorder()
		site.ServeHTTP(w, r)
		return w
	}
	if w := ask("GET", "/", made.Cookie); !strings.Contains(w.Body.String(), "ann:2") || w.Header().Get("Set-Cookie") != "" {
		t.Fatalf("%s, %v", w.Body, w.Header())
	}
	next, _, _ := strings.Cut(ask("POST", "/login", made.Cookie).Header().Get("Set-Cookie"), ";")
	if !strings.HasPrefix(next, "connect.sid=") || !strings.Contains(ask("GET", "/", next).Body.String(), "ann:2") {
		t.Errorf("after the login: %q", next)
	}
	ask("POST", "/logout", next)
	if w := ask("GET", "/", next); !strings.Contains(w.Body.String(), ">:0<") {
		t.Errorf("after the logout: %s", w.Body)
	}
}

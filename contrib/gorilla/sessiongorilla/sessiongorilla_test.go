package sessiongorilla_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/contrib/gorilla/sessiongorilla"
	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/gorilla/sessions"
)

var _ sessions.Store = (*sessiongorilla.Store)(nil)

func store(t *testing.T, server *valkeytest.Server, cfg sessiongorilla.Config) *sessiongorilla.Store {
	t.Helper()
	kept, err := session.NewStore(server.Client(), session.StoreConfig{Name: "gorilla"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := sessiongorilla.New(kept, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func request(cookies ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, c := range cookies {
		r.Header.Add("Cookie", c)
	}
	return r
}

// save returns the cookie that a session was saved with.
func save(t *testing.T, r *http.Request, s *sessions.Session) (cookie, whole string) {
	t.Helper()
	w := httptest.NewRecorder()
	if err := s.Save(r, w); err != nil {
		t.Fatal(err)
	}
	whole = w.Header().Get("Set-Cookie")
	cookie, _, _ = strings.Cut(whole, ";")
	return cookie, whole
}

func get(t *testing.T, s *sessiongorilla.Store, cookies ...string) (*http.Request, *sessions.Session) {
	t.Helper()
	r := request(cookies...)
	got, err := s.Get(r, "site")
	if err != nil {
		t.Fatal(err)
	}
	return r, got
}

func TestLife(t *testing.T) {
	s := store(t, valkeytest.Start(t), sessiongorilla.Config{})
	r, first := get(t, s)
	if !first.IsNew {
		t.Error("a new visitor has a session")
	}
	first.Values["user"] = "ann"
	first.AddFlash("hello")
	cookie, whole := save(t, r, first)
	for _, part := range []string{"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} {
		if !strings.Contains(whole, part) {
			t.Errorf("%s is not in %s", part, whole)
		}
	}
	r, next := get(t, s, cookie)
	if again, err := s.Get(r, "site"); err != nil || again != next {
		t.Error("not the same session for one request")
	}
	if next.IsNew || next.Values["user"] != "ann" || len(next.Flashes()) != 1 {
		t.Errorf("%+v", next)
	}
	// A login.
	if err := s.Renew(r, next); err != nil {
		t.Fatal(err)
	}
	renewed, _ := save(t, r, next)
	if _, old := get(t, s, cookie); !old.IsNew || renewed == cookie {
		t.Error("the token of before the login is good")
	}
	inFlight, late := get(t, s, renewed)
	r, last := get(t, s, renewed)
	last.Options.MaxAge = -1
	if _, whole := save(t, r, last); !strings.Contains(whole, "Max-Age=0") {
		t.Errorf("after the logout: %s", whole)
	}
	late.Values["user"] = "back"
	save(t, inFlight, late)
	if _, ended := get(t, s, renewed); !ended.IsNew || len(ended.Values) != 0 {
		t.Errorf("a request under way has brought the session back: %v", ended.Values)
	}
	for _, bad := range []string{"site=", "site=x", "site=" + strings.Repeat("a", 26), "site=" + strings.Repeat("A", 1<<16), renewed + "; " + renewed} {
		if _, got := get(t, s, bad); !got.IsNew {
			t.Errorf("%.60s was taken", bad)
		}
	}
}

type codec struct{ err error }

func (c codec) Encode(map[any]any) ([]byte, error)         { return []byte("{"), c.err }
func (c codec) Decode(_ []byte, values *map[any]any) error { return errors.New("garbage") }

func TestErrors(t *testing.T) {
	server := valkeytest.Start(t)
	if _, err := sessiongorilla.New(nil, sessiongorilla.Config{}); err == nil {
		t.Error("a nil store was taken")
	}
	kept, err := session.NewStore(server.Client(), session.StoreConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sessiongorilla.New(kept, sessiongorilla.Config{TTL: 1}); err == nil || !strings.Contains(err.Error(), "Config.TTL") {
		t.Errorf("TTL: %v", err)
	}
	s := store(t, server, sessiongorilla.Config{})
	r, got := get(t, s)
	got.Values["f"] = func() {}
	if err := got.Save(r, httptest.NewRecorder()); err == nil {
		t.Error("a func was saved")
	}
	got.Values = map[any]any{"big": strings.Repeat("x", 1<<20)}
	if err := got.Save(r, httptest.NewRecorder()); !errors.Is(err, session.ErrTooLarge) {
		t.Errorf("1 MB: %v", err)
	}
	odd := store(t, server, sessiongorilla.Config{Codec: codec{}, TTL: time.Minute, Options: &sessions.Options{MaxAge: 60}})
	r, got = get(t, odd)
	cookie, _ := save(t, r, got)
	if got, err := odd.Get(request(cookie), "site"); err == nil || !got.IsNew {
		t.Errorf("%+v, %v", got, err)
	}
	server.Kill()
	if got, err := s.Get(request(cookie), "site"); !errors.Is(err, session.ErrUnavailable) || !got.IsNew {
		t.Errorf("%+v, %v", got, err)
	}
	got.ID, got.Options.MaxAge = "", -1
	if err := got.Save(r, httptest.NewRecorder()); err != nil { // there is nothing to be deleted
		t.Error(err)
	}
	got.ID = strings.Repeat("A", 26)
	if err := got.Save(r, httptest.NewRecorder()); !errors.Is(err, session.ErrUnavailable) {
		t.Error(err)
	}
}

func Example() {
	var kept *session.Store // from session.NewStore
	sessions, err := sessiongorilla.New(kept, sessiongorilla.Config{TTL: 12 * time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	http.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		s, err := sessions.Get(r, "site")
		if err == nil {
			err = sessions.Renew(r, s)
		}
		if err == nil {
			s.Values["user"] = "ann"
			err = s.Save(r, w)
		}
		if err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
		}
	})
	// Output: sessiongorilla: the session.Store is nil
}

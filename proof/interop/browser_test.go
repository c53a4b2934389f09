package interop

import (
	"context"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
)

type account struct {
	User string         `json:"user,omitempty"`
	Cart map[string]int `json:"cart,omitempty"`
}

// accounts is a site with forms, as a browser sees it.
func accounts(t *testing.T, m *session.Manager[account]) http.Handler {
	page := func(w http.ResponseWriter, r *http.Request) {
		v, _, err := m.Read(r.Context())
		if err != nil {
			return
		}
		fmt.Fprintf(w, `<!doctype html><p id=who>%s:%d</p>`, html.EscapeString(v.User), v.Cart["pear"])
		for _, path := range []string{"cart", "login", "renew", "others", "logout"} {
			fmt.Fprintf(w, `<form method=post action=/%s><button id=%s>%s</button></form>`, path, path, path)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", page)
	for path, do := range map[string]func(*http.Request, *session.Session[account]) error{
		"cart": func(_ *http.Request, s *session.Session[account]) error {
			s.Value.Cart = map[string]int{"pear": s.Value.Cart["pear"] + 1}
			return nil
		},
		"login": func(r *http.Request, s *session.Session[account]) error {
			s.Value.User = "ann"
			return m.Login(r.Context(), s, session.Terms{User: "ann"})
		},
		"renew": func(r *http.Request, s *session.Session[account]) error { return m.Renew(r.Context(), s) },
		"others": func(r *http.Request, s *session.Session[account]) error {
			_, err := m.EndOthers(r.Context(), s)
			return err
		},
		"logout": func(r *http.Request, _ *session.Session[account]) error { return m.Logout(r.Context()) },
	} {
		mux.HandleFunc("POST /"+path, func(w http.ResponseWriter, r *http.Request) {
			s, err := m.Load(r.Context())
			if err == nil {
				err = do(r, s)
			}
			if err != nil {
				t.Errorf("%s: %v", path, err)
				http.Error(w, "failed", http.StatusInternalServerError)
				return
			}
			http.Redirect(w, r, "/", http.StatusSeeOther)
		})
	}
	return m.Handler(mux)
}

// chromium starts a browser with a profile of its own.
func chromium(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("FLATRATE_REQUIRE_BROWSER") != "" {
			t.Fatal("no Chromium on the PATH: apt-get install chromium")
		}
		t.Skip("no Chromium on the PATH: apt-get install chromium")
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.UserDataDir(t.TempDir()), chromedp.IgnoreCertErrors, chromedp.WSURLReadTimeout(2*time.Minute),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true),
	)
	browser, quit := chromedp.NewContext(allocator)
	ctx, stop := context.WithTimeout(browser, 3*time.Minute) // a hang guard
	t.Cleanup(func() { stop(); quit(); cancel() })
	return ctx
}

// press clicks a button and returns who the page then says is there.
func press(browser context.Context, t *testing.T, url, button string) (who string) {
	t.Helper()
	actions := []chromedp.Action{chromedp.Navigate(url)}
	if button != "" {
		actions = append(actions, chromedp.EvaluateAsDevTools(`document.body.dataset.old = 1`, nil),
			chromedp.Click("#"+button, chromedp.ByID), chromedp.WaitReady("body:not([data-old])", chromedp.ByQuery))
	}
	actions = append(actions, chromedp.Text("#who", &who, chromedp.ByID))
	if err := chromedp.Run(browser, actions...); err != nil {
		t.Fatalf("%s: %v", button, err)
	}
	return who
}

// cookieOf returns the browser's session cookie, and what scripts see of it.
func cookieOf(browser context.Context, t *testing.T) (c *network.Cookie, script string) {
	t.Helper()
	err := chromedp.Run(browser, chromedp.Evaluate(`document.cookie`, &script), chromedp.ActionFunc(func(ctx context.Context) error {
		all, err := network.GetCookies().Do(ctx)
		for _, other := range all {
			if strings.HasSuffix(other.Name, "session") {
				c = other
			}
		}
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	return c, script
}

// TestBrowser logs in with a real browser, renews, is logged out from a second one, and finds itself out.
func TestBrowser(t *testing.T) {
	m, err := session.New[account](valkeytest.Start(t).Client(), session.Config{Grace: session.NoGrace})
	if err != nil {
		t.Fatal(err)
	}
	one, two := chromium(t), chromium(t)
	site := httptest.NewTLSServer(accounts(t, m))
	t.Cleanup(site.Close)
	expect := func(browser context.Context, button, want string) {
		t.Helper()
		if got := press(browser, t, site.URL, button); got != want {
			t.Fatalf("after %q: %q, want %q", button, got, want)
		}
	}
	expect(one, "", ":0")
	if c, _ := cookieOf(one, t); c != nil {
		t.Errorf("a visitor without data has %+v", c)
	}
	expect(one, "cart", ":1")
	visitor, script := cookieOf(one, t)
	if visitor == nil || visitor.Name != "__Host-session" || !visitor.HTTPOnly || !visitor.Secure || visitor.SameSite != network.CookieSameSiteLax || !visitor.Session || script != "" {
		t.Fatalf("%+v, scripts see %q", visitor, script)
	}
	expect(one, "login", "ann:1")
	user, _ := cookieOf(one, t)
	expect(one, "renew", "ann:1")
	renewed, _ := cookieOf(one, t)
	if visitor.Value == user.Value || user.Value == renewed.Value {
		t.Errorf("%s, %s, %s", visitor.Value, user.Value, renewed.Value)
	}
	for _, old := range []string{visitor.Value, user.Value} {
		if _, ok, err := m.Get(t.Context(), old); err != nil || ok {
			t.Errorf("a token of before is good: %v, %v", ok, err)
		}
	}
	expect(two, "login", "ann:0")
	expect(one, "", "ann:1")
	expect(two, "others", "ann:0")
	expect(one, "", ":0") // it finds itself out
	expect(two, "", "ann:0")
	expect(two, "logout", ":0")
	if c, _ := cookieOf(two, t); c != nil {
		t.Errorf("after the logout: %+v", c)
	}
}

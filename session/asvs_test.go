package session_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
)

// Each line of OWASP ASVS 5.0, chapter V7, that a library can test has a test here of its number; docs/session.md
// has the table. The last ones are of V3.3, cookies.

// loggedIn opens a site and logs a user in from a browser.
func loggedIn(t *testing.T, cfg session.Config, user string) (*site, *http.Client, *http.Cookie) {
	t.Helper()
	s := usualSite(t, cfg)
	b, cookie := s.logIn(t, user)
	return s, b, cookie
}

func (s *site) logIn(t *testing.T, user string) (*http.Client, *http.Cookie) {
	t.Helper()
	b := s.browser(t)
	_, _, h := s.get(t, b, "/login?user="+user)
	cookies, err := http.ParseSetCookie(h.Get("Set-Cookie"))
	if err != nil {
		t.Fatal(err)
	}
	return b, cookies
}

func (s *site) whoami(t *testing.T, b *http.Client) string {
	t.Helper()
	_, body, _ := s.get(t, b, "/whoami")
	user, _, _ := strings.Cut(body, " ")
	return user
}

// by asks with a token only.
func (s *site) by(t *testing.T, cookie *http.Cookie) string {
	t.Helper()
	b := s.browser(t)
	_, body, _ := s.get(t, b, "/whoami", "Cookie", cookie.Name+"="+cookie.Value)
	user, _, _ := strings.Cut(body, " ")
	return user
}

// 7.2.1: all session token verification is done by a trusted backend.
func TestASVS7_2_1_TokensAreVerifiedByTheServer(t *testing.T) {
	s, b, cookie := loggedIn(t, session.Config{}, "ann")
	want(t, "with the token", s.whoami(t, b), "ann")
	for i := range cookie.Value { // each changed character makes it another token
		if cookie.Value[i] == '.' {
			continue
		}
		forged := *cookie
		c := byte('A')
		if cookie.Value[i] == 'A' {
			c = 'B'
		}
		forged.Value = cookie.Value[:i] + string(c) + cookie.Value[i+1:]
		want(t, "with character "+string(rune('0'+i%10))+" changed", s.by(t, &forged), "")
	}
}

// 7.2.2: tokens are made for each session, and are no static secrets.
func TestASVS7_2_2_TokensAreDynamic(t *testing.T) {
	s, _, cookie := loggedIn(t, session.Config{}, "ann")
	_, again := s.logIn(t, "ann")
	if cookie.Value[:26] == again.Value[:26] {
		t.Error("two logins of a user have one token")
	}
}

// 7.2.3: reference tokens are unique, from a CSPRNG, with at least 128 bits: 26 characters of 5 bits. That no
// other source is used is crypto/rand.Text's contract; here, that each bit varies.
func TestASVS7_2_3_TokensHave128RandomBits(t *testing.T) {
	s := usualSite(t, session.Config{})
	const n = 2000
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	seen := map[string]bool{}
	var ones [26 * 5]int
	for range n {
		created, err := s.Create(t.Context(), profile{})
		if err != nil {
			t.Fatal(err)
		}
		secret := created.Token[:26]
		if seen[secret] {
			t.Fatal("a token was given twice")
		}
		seen[secret] = true
		for i := range secret {
			for bit := range 5 {
				ones[i*5+bit] += strings.IndexByte(alphabet, secret[i]) >> bit & 1
			}
		}
	}
	for i, count := range ones { // eight standard deviations of a fair coin
		if count < n/2-180 || count > n/2+180 {
			t.Errorf("bit %d is set in %d of %d tokens", i, count, n)
		}
	}
}

// 7.2.4: a new token at authentication, also at a repeated one, and the old one ends.
func TestASVS7_2_4_LoginReplacesTheToken(t *testing.T) {
	s := usualSite(t, session.Config{Grace: session.NoGrace})
	b := s.browser(t)
	_, _, h := s.get(t, b, "/cart?item=pear")
	planted, err := http.ParseSetCookie(h.Get("Set-Cookie")) // an attacker knows this one
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, _, h = s.get(t, b, "/login?user=ann")
		next, err := http.ParseSetCookie(h.Get("Set-Cookie"))
		if err != nil || next.Value == planted.Value {
			t.Fatalf("%v, %v", next, err)
		}
		want(t, "with the token of before", s.by(t, planted), "")
		want(t, "with the new one", s.by(t, next), "ann")
		planted = next
	}
	// With a grace, the token of before the login shows what was there before it, and no more.
	s = usualSite(t, session.Config{Grace: time.Minute})
	b = s.browser(t)
	_, _, h = s.get(t, b, "/cart?item=pear")
	if planted, err = http.ParseSetCookie(h.Get("Set-Cookie")); err != nil {
		t.Fatal(err)
	}
	s.get(t, b, "/login?user=ann")
	want(t, "with the token of before, in its grace", s.by(t, planted), "")
}

// 7.3.1: an inactivity timeout.
func TestASVS7_3_1_Inactivity(t *testing.T) {
	s, b, _ := loggedIn(t, session.Config{Idle: 50 * time.Millisecond}, "ann")
	waitFor(t, "the end", func() bool { <-time.After(60 * time.Millisecond); return s.whoami(t, b) == "" })
}

// 7.3.2: an absolute maximum lifetime, however much the session is used.
func TestASVS7_3_2_AbsoluteLifetime(t *testing.T) {
	s, b, _ := loggedIn(t, session.Config{Absolute: time.Second}, "ann")
	waitFor(t, "the end", func() bool { return s.whoami(t, b) == "" })
}

// 7.4.1: after a logout or an expiry the session is of no further use.
func TestASVS7_4_1_LogoutEnds(t *testing.T) {
	s, b, cookie := loggedIn(t, session.Config{}, "ann")
	inFlight, ok, err := s.Get(t.Context(), cookie.Value)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	s.get(t, b, "/logout")
	inFlight.Value.Theme = "dark"
	if ok, err := s.Set(t.Context(), inFlight); err != nil || ok {
		t.Errorf("a request under way has saved: %v, %v", ok, err)
	}
	want(t, "with the token", s.by(t, cookie), "")
	want(t, "the browser", s.whoami(t, b), "")
}

// 7.4.2: all sessions end when a user is disabled or deleted.
func TestASVS7_4_2_DisabledUser(t *testing.T) {
	s, one, _ := loggedIn(t, session.Config{}, "ann")
	two, _ := s.logIn(t, "ann")
	other, _ := s.logIn(t, "bob")
	if n, err := s.EndAll(t.Context(), "ann"); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
	want(t, "one", s.whoami(t, one), "")
	want(t, "two", s.whoami(t, two), "")
	want(t, "another user", s.whoami(t, other), "bob")
}

// 7.4.3: all other sessions can be ended after an authentication factor was changed.
func TestASVS7_4_3_EndOthers(t *testing.T) {
	s, one, _ := loggedIn(t, session.Config{}, "ann")
	_, cookie := s.logIn(t, "ann")
	current, ok, err := s.Get(t.Context(), cookie.Value)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if n, err := s.EndOthers(t.Context(), current); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	want(t, "the other", s.whoami(t, one), "")
	want(t, "this one", s.by(t, cookie), "ann")
}

// 7.4.5: an administrator ends the sessions of one user, or of all.
func TestASVS7_4_5_Administrator(t *testing.T) {
	s, b, cookie := loggedIn(t, session.Config{}, "ann")
	infos, err := s.List(t.Context(), "ann")
	if err != nil || len(infos) != 1 {
		t.Fatal(infos, err)
	}
	if ok, err := s.End(t.Context(), "ann", infos[0].ID); err != nil || !ok {
		t.Errorf("%v, %v", ok, err)
	}
	want(t, "ann", s.whoami(t, b), "")
	// Of all users: another prefix.
	other, err := session.New[profile](s.Client, session.Config{Prefix: "after-the-incident"})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := other.Get(t.Context(), cookie.Value); err != nil || ok {
		t.Errorf("under another prefix: %v, %v", ok, err)
	}
}

// 7.5.2: users see their sessions, and end any of them.
func TestASVS7_5_2_ViewAndTerminate(t *testing.T) {
	s, one, cookie := loggedIn(t, session.Config{}, "ann")
	s.logIn(t, "ann")
	current, _, err := s.Get(t.Context(), cookie.Value)
	if err != nil {
		t.Fatal(err)
	}
	infos, err := s.List(t.Context(), "ann")
	if err != nil || len(infos) != 2 {
		t.Fatal(infos, err)
	}
	for _, info := range infos {
		if info.Device == "" || info.Address == "" || info.Seen.IsZero() || strings.Contains(cookie.Value, info.ID) {
			t.Errorf("%+v", info)
		}
		if info.ID != current.ID() {
			if ok, err := s.End(t.Context(), "ann", info.ID); err != nil || !ok {
				t.Errorf("%v, %v", ok, err)
			}
		}
	}
	want(t, "this one", s.whoami(t, one), "ann")
	if infos, err := s.List(t.Context(), "ann"); err != nil || len(infos) != 1 {
		t.Errorf("%v, %v", infos, err)
	}
}

// 3.3.1 to 3.3.5: Secure, SameSite, __Host-, HttpOnly, and not over 4096 bytes.
func TestASVS3_3_Cookie(t *testing.T) {
	_, _, c := loggedIn(t, session.Config{}, strings.Repeat("a", 1000))
	if !c.Secure || c.SameSite != http.SameSiteLaxMode || !strings.HasPrefix(c.Name, "__Host-") || !c.HttpOnly || len(c.Raw) > 4096 {
		t.Errorf("%+v", c)
	}
}

package session

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// HTTP is how sessions are carried. The zero value is a cookie that scripts can't read, that is sent over TLS only,
// and that goes with no request of another site but those that lead to a page.
type HTTP struct {
	// Cookie is the cookie's form. NoCookie means that there is none, as for an API.
	Cookie   Cookie
	NoCookie bool
	// Header is the name of a request header that may carry the token, and goes before the cookie. "Authorization"
	// has it behind "Bearer ", and a new token is answered in "Session-Token"; any other header has it as it
	// is, in both directions. Empty means none.
	Header string
	// Down is what becomes of requests that need their session while the server can't be asked.
	Down Down
	// Error answers in the handler's place where a session could not be loaded or saved, before anything was written. The
	// errors are those of Manager. Nil means 503, 409 with [ErrConflict], or 500, and one line of text that tells no
	// details.
	Error func(w http.ResponseWriter, r *http.Request, err error)
	// Address says where a request comes from, for [Info.Address]. Nil means: the address of the connection, which
	// behind a proxy is the proxy's.
	Address func(r *http.Request) string
}

// Down is a policy for the time in which the server can't be asked.
type Down int

const (
	// FailClosed answers with an error whatever the handler would answer, once it has asked for the session; a handler
	// that answers with an error of its own (400 or above) is left alone.
	FailClosed Down = iota
	// Anonymous gives the handler an empty session, of which nothing is saved. The visitor's cookie is left as
	// it is, so that the session is there again when the server is.
	Anonymous
)

// Cookie is the form of the cookie.
type Cookie struct {
	// Name is "__Host-session" by default, "session" if the cookie is Insecure or has a Domain or a Path. Browsers hold
	// those that begin with __Host- to Secure, Path "/" and no Domain, so that no other host can set them.
	Name string
	// Domain sends the cookie to subdomains too. Empty means to this host only.
	Domain string
	// Path is "/" by default.
	Path string
	// SameSite is [http.SameSiteLaxMode] by default.
	SameSite http.SameSite
	// Partitioned keeps the cookie apart for each site that embeds this one; it needs SameSite None to be of use.
	Partitioned bool
	// Insecure leaves out Secure, as for a test without TLS.
	Insecure bool
	// Persist keeps the cookie when the browser ends, until the session's absolute timeout, or its idle timeout from when
	// it was set where it has none. It is not set again by reads.
	Persist bool
}

func (h *HTTP) check() error {
	c := &h.Cookie
	plain := c.Insecure || c.Domain != "" || c.Path != "" && c.Path != "/"
	if c.Name == "" {
		c.Name = "__Host-session"
		if plain {
			c.Name = "session"
		}
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.SameSite == 0 {
		c.SameSite = http.SameSiteLaxMode
	}
	switch {
	case strings.HasPrefix(c.Name, "__Host-") && plain:
		return errors.New("session: Config.HTTP.Cookie.Name begins with __Host-, but the cookie is Insecure, or has a Domain or a Path")
	case strings.HasPrefix(c.Name, "__Secure-") && c.Insecure:
		return errors.New("session: Config.HTTP.Cookie.Name begins with __Secure-, but the cookie is Insecure")
	case c.Partitioned && c.Insecure:
		return errors.New("session: Config.HTTP.Cookie.Partitioned needs a cookie that is not Insecure")
	case c.SameSite == http.SameSiteNoneMode && c.Insecure:
		return errors.New("session: Config.HTTP.Cookie.SameSite is None, which needs a cookie that is not Insecure")
	case h.Header != "" && strings.ContainsFunc(h.Header, func(r rune) bool { return r <= ' ' || r == ':' || r >= 0x7f }):
		return fmt.Errorf("session: Config.HTTP.Header %q is no name of a header", h.Header)
	case h.NoCookie && h.Header == "":
		return errors.New("session: Config.HTTP.NoCookie without a Header leaves nothing that carries the token")
	case h.Down < FailClosed || h.Down > Anonymous:
		return fmt.Errorf("session: Config.HTTP.Down is %d, none of the choices", h.Down)
	}
	form := h.cookie("x")
	if err := form.Valid(); err != nil {
		return fmt.Errorf("session: Config.HTTP.Cookie: %w", err)
	}
	if h.Error == nil {
		h.Error = answer
	}
	if h.Address == nil {
		h.Address = peer
	}
	return nil
}

// answer is the default of HTTP.Error.
func answer(w http.ResponseWriter, _ *http.Request, err error) {
	code, text := http.StatusInternalServerError, "the session could not be kept"
	switch {
	case errors.Is(err, ErrConflict):
		code, text = http.StatusConflict, "another request has changed the same: try again"
	case errors.Is(err, ErrUnavailable):
		code, text = http.StatusServiceUnavailable, "try again later"
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, text, code)
}

func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

const answerHeader = "Session-Token"

// ambiguous is why none of several tokens is used.
const ambiguous = "ambiguous"

// mostTokens is how many of several tokens a logout ends.
const mostTokens = 4

// tokenOf returns the token of a request; refused says why one was not used.
func (h *HTTP) tokenOf(r *http.Request, foreign bool) (token, refused string) {
	all := h.tokensOf(r)
	if len(all) == 0 {
		return "", ""
	}
	if len(all) > 1 {
		return "", ambiguous
	}
	if _, ok := locate(all[0], foreign); !ok {
		return "", "malformed"
	}
	return all[0], ""
}

// tokensOf returns the different tokens of a request, at most mostTokens: those of the header, if it has some, else
// the cookie's.
func (h *HTTP) tokensOf(r *http.Request) (all []string) {
	add := func(token string) {
		if token != "" && len(all) < mostTokens && !slices.Contains(all, token) {
			all = append(all, token)
		}
	}
	if h.Header != "" {
		for _, value := range r.Header.Values(h.Header) {
			if strings.EqualFold(h.Header, "Authorization") {
				scheme, rest, _ := strings.Cut(value, " ")
				if !strings.EqualFold(scheme, "Bearer") {
					continue
				}
				value = strings.TrimSpace(rest)
			}
			add(value)
		}
	}
	if len(all) == 0 && !h.NoCookie {
		for _, c := range r.CookiesNamed(h.Cookie.Name) {
			add(c.Value)
		}
	}
	return all
}

func (h *HTTP) cookie(token string) http.Cookie {
	c := h.Cookie
	return http.Cookie{ //nolint:gosec // Secure unless the caller says that there is no TLS
		Name: c.Name, Value: token, Path: c.Path, Domain: c.Domain,
		Secure: !c.Insecure, HttpOnly: true, SameSite: c.SameSite, Partitioned: c.Partitioned,
	}
}

// send tells the client its new token; an empty one ends the cookie.
func (h *HTTP) send(to http.Header, token string, last time.Duration) {
	if h.Header != "" && token != "" {
		name := h.Header
		if strings.EqualFold(name, "Authorization") {
			name = answerHeader
		}
		to.Set(name, token)
	}
	to.Set("Cache-Control", "no-store")
	if h.NoCookie {
		return
	}
	c := h.cookie(token) //nolint:gosec // as it makes them
	switch {
	case token == "":
		c.MaxAge = -1
	case h.Cookie.Persist:
		c.MaxAge = max(1, int(last/time.Second))
	}
	// One that this response has set before is replaced.
	others := to.Values("Set-Cookie")
	to.Del("Set-Cookie")
	for _, other := range others {
		if !strings.HasPrefix(other, c.Name+"=") {
			to.Add("Set-Cookie", other)
		}
	}
	to.Add("Set-Cookie", c.String())
	to.Add("Vary", "Cookie")
}

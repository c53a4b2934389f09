// Package sessiongorilla keeps the sessions of github.com/gorilla/sessions in Valkey, and with them those of gin, echo
// and goth, which stand on it.
//
// [New] makes a Store of a session.Store. What gorilla's sessions hold is one value to it: two requests of a
// visitor that change it at the same time undo each other, as with every store of gorilla's. But a session that was
// ended stays ended, also if a request that was under way saves it afterwards. Package session itself has more.
package sessiongorilla

import (
	"bytes"
	"crypto/rand"
	"encoding/gob"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/gorilla/sessions"
)

// DefaultTTL is how long a session is kept in the server whose cookie ends with the browser (MaxAge 0).
const DefaultTTL = 24 * time.Hour

// Codec turns a session's values into bytes.
type Codec interface {
	Encode(values map[any]any) ([]byte, error)
	Decode(b []byte, values *map[any]any) error
}

// Config is a Store's. The zero value is ready to use.
type Config struct {
	// Options are those of new sessions. Nil means Path "/", Secure, HttpOnly, SameSite Lax, MaxAge 0.
	Options *sessions.Options
	// TTL is how long a session is kept in the server where Options.MaxAge is 0; a MaxAge goes before. It
	// begins anew with every Save. Default 24 hours.
	TTL time.Duration
	// Codec is gob by default: types other than the basic ones have to be registered with [gob.Register].
	Codec Codec
}

// Store implements [sessions.Store]. It is safe for concurrent use.
type Store struct {
	kept *session.Store
	cfg  Config
}

// New returns a Store on kept. The error names the field of cfg that is wrong.
func New(kept *session.Store, cfg Config) (*Store, error) {
	if kept == nil {
		return nil, errors.New("sessiongorilla: the session.Store is nil")
	}
	if cfg.Options == nil {
		cfg.Options = &sessions.Options{Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	}
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.TTL < time.Second {
		return nil, fmt.Errorf("sessiongorilla: Config.TTL is %v, less than a second", cfg.TTL)
	}
	if cfg.Codec == nil {
		cfg.Codec = gobs{}
	}
	return &Store{kept, cfg}, nil
}

// Get returns the session of a name for a request: the same one for all calls with it. Round trips as New, once.
func (s *Store) Get(r *http.Request, name string) (*sessions.Session, error) {
	return sessions.GetRegistry(r).Get(s, name)
}

// New returns the session that the request's cookie of a name stands for, or a new one with IsNew set. Its ID is the
// token. With an error the session is new too, as gorilla has it. One round trip, none without a cookie.
func (s *Store) New(r *http.Request, name string) (*sessions.Session, error) {
	fresh := sessions.NewSession(s, name)
	options := *s.cfg.Options
	fresh.Options = &options
	fresh.IsNew = true
	cookies := r.CookiesNamed(name)
	if len(cookies) != 1 || !isToken(cookies[0].Value) {
		return fresh, nil
	}
	b, ok, err := s.kept.FindCtx(r.Context(), cookies[0].Value)
	if err != nil || !ok {
		return fresh, err
	}
	values := map[any]any{}
	if err := s.cfg.Codec.Decode(b, &values); err != nil {
		return fresh, fmt.Errorf("sessiongorilla: decode: %w", err)
	}
	fresh.ID, fresh.Values, fresh.IsNew = cookies[0].Value, values, false
	return fresh, nil
}

// Save keeps a session and sets its cookie. A MaxAge below zero ends it. A session without an ID gets one; emptying ID
// at login gives it another, and leaves the old one to [Store.Renew]. One round trip.
func (s *Store) Save(r *http.Request, w http.ResponseWriter, kept *sessions.Session) error {
	if kept.Options.MaxAge < 0 {
		if kept.ID != "" {
			if err := s.kept.DeleteCtx(r.Context(), kept.ID); err != nil {
				return err
			}
		}
		http.SetCookie(w, sessions.NewCookie(kept.Name(), "", kept.Options))
		return nil
	}
	if kept.ID == "" {
		kept.ID = rand.Text()
	}
	b, err := s.cfg.Codec.Encode(kept.Values)
	if err != nil {
		return fmt.Errorf("sessiongorilla: encode: %w", err)
	}
	ttl := s.cfg.TTL
	if kept.Options.MaxAge > 0 {
		ttl = time.Duration(kept.Options.MaxAge) * time.Second
	}
	if err := s.kept.CommitCtx(r.Context(), kept.ID, b, time.Now().Add(ttl)); err != nil {
		return err
	}
	http.SetCookie(w, sessions.NewCookie(kept.Name(), kept.ID, kept.Options))
	return nil
}

// Renew ends the token of a session, and gives it another with the next Save: what belongs to a login. One round trip.
func (s *Store) Renew(r *http.Request, kept *sessions.Session) error {
	old := kept.ID
	kept.ID = ""
	if old == "" {
		return nil
	}
	return s.kept.DeleteCtx(r.Context(), old)
}

// isToken says whether text has the form of rand.Text.
func isToken(text string) bool {
	if len(text) != 26 {
		return false
	}
	for i := range len(text) {
		if c := text[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

type gobs struct{}

func (gobs) Encode(values map[any]any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(values)
	return b.Bytes(), err
}

func (gobs) Decode(b []byte, values *map[any]any) error {
	return gob.NewDecoder(bytes.NewReader(b)).Decode(values)
}

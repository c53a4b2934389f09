package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"sync"
)

// ErrHeaderSent is returned where a token would have to be sent to the client after the response has begun.
var ErrHeaderSent = errors.New("session: the response has begun: the client can't be told the token")

var errNoHandler = errors.New("session: the context is not that of a request which went through Manager.Handler")

// request is what a request knows of its session.
type request[T any] struct {
	m *Manager[T]
	r *http.Request
	w *writer

	mu      sync.Mutex
	asked   bool        // the token was looked for
	token   string      // what the client sent
	several []string    // what it sent, if that is ambiguous
	s       *Session[T] // nil until it was asked for
	mutable bool        // by Load
	err     error       // why it could not be loaded
	sent    string      // the token the client knows once it has the response
}

type requestKey[T any] struct{ m *Manager[T] }

// Handler gives next its visitors' sessions: [Manager.Load] and [Manager.Read] with the request's context. A session is
// read when it is asked for first. What has changed is saved before the first byte of the response, and what changes
// after that when next returns; nothing is if next panics. Where the session can't be loaded or saved, Config.HTTP
// says what is answered.
//
// A visitor for whom nothing was put into the session has none, and gets no cookie; a request that only reads gets no
// Set-Cookie either. The ResponseWriter that next gets has Unwrap, for [http.ResponseController].
func (m *Manager[T]) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := &request[T]{m: m}
		q.w = &writer{ResponseWriter: w, before: q.before, replace: q.replace}
		q.r = r.WithContext(context.WithValue(r.Context(), requestKey[T]{m}, q))
		finished := false
		defer func() {
			if !finished { // next has panicked: a token that was replaced is told all the same
				q.mu.Lock()
				defer q.mu.Unlock()
				if !q.w.begun {
					q.tell()
				}
			}
		}()
		next.ServeHTTP(q.w, q.r)
		finished = true
		if !q.w.begun {
			q.w.begin(http.StatusOK)
			return
		}
		if !q.w.replaced {
			q.after()
		}
	})
}

func (m *Manager[T]) requestOf(ctx context.Context) (*request[T], error) {
	q, ok := ctx.Value(requestKey[T]{m}).(*request[T])
	if !ok {
		return nil, errNoHandler
	}
	return q, nil
}

// Load returns the session of a request: the same one for all calls, which share it. A visitor who has none gets an
// empty one, which is stored once there is something in it. One round trip at the first call; none for a
// visitor without a token. The error is [ErrUnavailable], unless what lies in the server can't be read.
func (m *Manager[T]) Load(ctx context.Context) (*Session[T], error) {
	q, err := m.requestOf(ctx)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.load(ctx)
	if q.err != nil {
		return nil, q.err
	}
	q.mutable = true
	return q.s, nil
}

// Read returns the value of a request's session for one that only reads it: ok is false if the visitor has none. The
// value may be shared with other requests: don't change what it points to. Round trips and errors as Load; with a local
// tier, none for a session that this process knows.
func (m *Manager[T]) Read(ctx context.Context) (value T, ok bool, err error) {
	q, err := m.requestOf(ctx)
	if err != nil {
		return value, false, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.s == nil && q.err == nil && m.local != nil {
		q.look()
		if at, ok := locate(q.token, m.cfg.ForeignTokens); ok {
			if shared := m.shared(at); shared != nil {
				return *shared, true, nil
			}
		}
	}
	q.load(ctx)
	if q.err != nil {
		return value, false, q.err
	}
	return q.s.Value, !q.s.fresh, nil
}

// shared returns the value of a session in the local tier.
func (m *Manager[T]) shared(at place) *T {
	e := m.localHit(at)
	if e == nil {
		return nil
	}
	if value, ok := e.decoded.Load().(*T); ok {
		return value
	}
	f, err := parseFound(at, e.text)
	if err != nil || !f.alive {
		return nil
	}
	s, err := m.open("", f)
	if err != nil {
		return nil
	}
	e.decoded.Store(&s.Value)
	return &s.Value
}

// look finds the request's token.
func (q *request[T]) look() {
	if q.asked {
		return
	}
	q.asked = true
	token, refused := q.m.cfg.HTTP.tokenOf(q.r, q.m.cfg.ForeignTokens)
	if refused != "" {
		q.m.cfg.Hooks.Refused(refused)
	}
	if refused == ambiguous {
		q.several = q.m.cfg.HTTP.tokensOf(q.r)
	}
	q.token, q.sent = token, token
}

func (q *request[T]) load(ctx context.Context) {
	if q.s != nil || q.err != nil {
		return
	}
	q.look()
	if q.token == "" {
		q.s = q.m.empty()
		return
	}
	s, ok, err := q.m.Get(ctx, q.token)
	switch {
	case err != nil:
		q.m.cfg.Hooks.Failed(err)
		if q.m.cfg.HTTP.Down == Anonymous {
			q.s = q.m.empty()
			q.s.lost = true
			return
		}
		q.err = err
	case !ok:
		q.m.cfg.Hooks.Refused("unknown")
		q.s = q.m.empty()
	default:
		q.s = s
	}
}

// empty is the session of a visitor who has none.
func (m *Manager[T]) empty() *Session[T] {
	s := &Session[T]{fresh: true}
	switch v := reflect.ValueOf(&s.Value).Elem(); v.Kind() { //nolint:exhaustive // the others are ready for use
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	}
	return s
}

// isEmpty says whether there is nothing in a session to be stored.
func (m *Manager[T]) isEmpty(s *Session[T]) (bool, error) {
	if len(s.pending) > 0 {
		return false, nil
	}
	switch v := reflect.ValueOf(&s.Value).Elem(); v.Kind() { //nolint:exhaustive // the others are never nil
	case reflect.Map, reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return true, nil
		}
	}
	now, err := encode(s.Value)
	return err == nil && slices.Equal(now, m.zero), err
}

// Login gives a session to a user, who has shown who they are: a new token, timeouts that begin anew, and the value as
// it is now. It is listed and ended with the user's other sessions. The token of before keeps answering for
// [Config.Grace] with what it gave before, so nobody who knew it gets the user's session; what requests under way
// change is kept. One round trip for a visitor without a session, else two, or three if another request has changed the
// session meanwhile.
//
// With a request's context the Device and Address of terms are taken from the request where they are empty, and the
// error is [ErrHeaderSent] if the response has begun.
func (m *Manager[T]) Login(ctx context.Context, s *Session[T], terms Terms) error {
	if s == nil {
		return errors.New("session: login: the session is nil")
	}
	if s.lost {
		return fmt.Errorf("session: login: %w", ErrUnavailable)
	}
	if terms.User == "" {
		return errNoUser
	}
	if q, err := m.requestOf(ctx); err == nil {
		if q.w.begun {
			return ErrHeaderSent
		}
		if terms.Device == "" {
			terms.Device = q.r.UserAgent()
		}
		if terms.Address == "" {
			terms.Address = m.cfg.HTTP.Address(q.r)
		}
	}
	if s.fresh {
		return m.begin(ctx, s, terms)
	}
	return m.moveTo(ctx, s, terms)
}

// Logout ends the session of a request, and its cookie. Load returns an empty one afterwards. If the server can't be
// asked, it returns an error, and the session lives on although the visitor's cookie is gone. One round trip; where the
// request has several tokens, and so no session, one to end each of them, at most four.
func (m *Manager[T]) Logout(ctx context.Context) error {
	q, err := m.requestOf(ctx)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.look()
	token := q.token
	if q.s != nil && !q.s.fresh && q.s.Token != "" {
		token = q.s.Token
	}
	all := q.several
	if token != "" {
		all = append(all, token)
	}
	for _, token := range all {
		err = errors.Join(err, m.Delete(ctx, token))
	}
	told := q.sent != "" || len(q.several) > 0
	q.s, q.err, q.token, q.several = m.empty(), nil, "", nil
	if !q.w.begun && told {
		m.cfg.HTTP.send(q.w.Header(), "", 0)
		q.sent = ""
	}
	return err
}

// before is called before the first byte of a response with a code; its error replaces the response.
func (q *request[T]) before(code int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		if code >= 400 {
			return nil
		}
		return q.err
	}
	err := q.commit(code != hijacked)
	if err != nil {
		q.m.cfg.Hooks.Failed(err)
	}
	if code == hijacked && errors.Is(err, ErrHeaderSent) {
		return nil // nothing was stored, and the response is the handler's
	}
	q.tell() // also where the save has failed: a token that was replaced is replaced
	return err
}

// after saves what has changed since the response began.
func (q *request[T]) after() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.commit(false); err != nil {
		q.m.cfg.Hooks.Failed(err)
	}
}

// commit saves what has changed. A client that has gone does not stop it.
func (q *request[T]) commit(first bool) error {
	s := q.s
	if s == nil || !q.mutable || s.lost || q.err != nil {
		return nil
	}
	ctx := context.WithoutCancel(q.r.Context())
	if !s.fresh {
		_, err := q.m.Set(ctx, s) // if it has ended, there is nothing to be saved
		return err
	}
	empty, err := q.m.isEmpty(s)
	if err != nil || empty {
		return err
	}
	if !first {
		return ErrHeaderSent
	}
	return q.m.begin(ctx, s, Terms{})
}

// tell sends the client a token that it does not know yet.
func (q *request[T]) tell() {
	s := q.s
	if s == nil || s.fresh || s.Token == "" || s.Token == q.sent {
		return
	}
	last := s.Absolute
	if last == 0 {
		last = s.Idle
	}
	q.m.cfg.HTTP.send(q.w.Header(), s.Token, last)
	q.sent = s.Token
}

// replace answers in the handler's place.
func (q *request[T]) replace(err error) {
	h := q.w.Header()
	for name := range h {
		switch name {
		case "Content-Length", "Content-Encoding", "Etag", "Last-Modified", "Cache-Control", "Content-Type", "Location":
			h.Del(name)
		}
	}
	h.Set("Cache-Control", "no-store")
	q.m.cfg.HTTP.Error(q.w.ResponseWriter, q.r, err)
}

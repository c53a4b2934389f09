package session

import (
	"context"
	_ "embed"
	"errors"

	"github.com/flatrate/flatrate/internal/script"
)

//go:embed rotate.lua
var rotateLua string

//go:embed leave.lua
var leaveLua string

var (
	rotate = script.New(rotateLua)
	leave  = script.New(leaveLua)
)

// Renew replaces the token of a session, which else stays as it is: from time to time, or when its user confirms who
// they are. s.Token is the new one. Requests under way with the old one see the session as it was for [Config.Grace];
// what they change is kept. It is atomic: of several requests that renew at once one gets the new token, the others
// are left without one (s.Token is empty), since the visitor gets it from the first. Changes of s.Value are not
// saved. The errors are [ErrEnded] if the session has ended, and with a request's context [ErrHeaderSent]
// if the response has begun. One round trip.
func (m *Manager[T]) Renew(ctx context.Context, s *Session[T]) error {
	switch {
	case s == nil || s.fresh:
		return errors.New("session: renew: the session is nil, or was never created")
	case s.old:
		s.Token = ""
		return nil
	}
	if q, err := m.requestOf(ctx); err == nil && q.w.begun {
		return ErrHeaderSent
	}
	if err := m.replacing(ctx, s.Token); err != nil {
		return err
	}
	token := newToken(s.at.tag)
	to, _ := locate(token, false)
	bound := ""
	if s.seal != nil {
		bound = m.rings.bound(s.seal, to)
	}
	keys := append([]string{m.keys.session(s.at), m.keys.session(to)}, m.keys.of(s.at)[1:]...)
	also := append(m.sweep.register(to, m.note(s.Value), s.Idle), m.sweep.unregister(s.at)...)
	m.hints.forget(s.at.digest)
	n, text, err := codeAnd(m.exec(ctx, s.at, rotate, keys, []string{m.grace, to.String(), m.gone, bound}, also...))
	switch {
	case err != nil:
		return wrap("renew", err)
	case n == nothing:
		return ErrEnded
	case n == elsewhere:
		at, ok := parsePlace(text)
		if !ok {
			return errNoSession
		}
		s.Token, s.at, s.old = "", at, true
		return nil
	}
	m.cfg.Hooks.Renewed(s.at.digest, to.digest)
	if s.seal != nil && len(s.wire) > 0 {
		s.wire = append([]member{{sealName, bound}}, s.wire[1:]...)
	}
	s.Token, s.at, s.origin = token, to, to
	return nil
}

// moveTo gives a session to a user, or to nobody: a new session with a new token, timeouts that begin anew, and the
// value as it is now. The old one answers requests under way for [Config.Grace] as it was before; what they change is
// kept. Two round trips; three if another request has changed the session since it was read.
func (m *Manager[T]) moveTo(ctx context.Context, s *Session[T], terms Terms) error {
	changes, err := m.changes(s)
	if err != nil {
		return err
	}
	tag := ""
	if terms.User != "" {
		tag = userTag(m.cfg.TagSecret, terms.User)
	}
	token := newToken(tag)
	to, _ := locate(token, false)
	was := *s
	stored := apply(s.stored, changes)
	if s.old { // what others have made of it since is not this request's
		_, err := m.put(ctx, s, stored, token, to, terms)
		return err
	}
	if err := m.replacing(ctx, s.Token); err != nil {
		return err
	}
	if _, err := m.put(ctx, s, stored, token, to, terms); err != nil {
		return err
	}
	m.hints.forget(was.at.digest)
	n, text, err := codeAnd(m.exec(ctx, was.at, leave, m.keys.of(was.at), []string{m.grace, to.String(), m.gone}, m.sweep.unregister(was.at)...))
	if err != nil {
		return wrap("login", err)
	}
	if n != done { // it has ended, or another login has it: this one stands by itself
		return nil
	}
	m.cfg.Hooks.Renewed(was.at.digest, to.digest)
	return m.mergeSince(ctx, s, &was, changes, text)
}

// mergeSince takes over what other requests have changed of a session between was and the record that it left.
func (m *Manager[T]) mergeSince(ctx context.Context, s, was *Session[T], mine []change, left string) error {
	r, alive, err := parseRecord(left)
	if err != nil || !alive {
		return err
	}
	wire, err := members(r.body)
	if err != nil {
		return err
	}
	own := make([]member, len(mine))
	for i, c := range mine {
		own[i] = member(c)
	}
	isMine := lookup(own)
	var theirs []change
	for _, c := range diff(was.wire, wire) {
		if _, both := isMine(c.name); both || c.name == sealName {
			continue
		}
		if was.seal != nil && c.value != "" {
			value, err := was.seal.open(c.name, c.value)
			if err != nil {
				return err
			}
			c.value = value
		}
		theirs = append(theirs, c)
	}
	if len(theirs) == 0 {
		return nil
	}
	pending := s.pending
	ok, err := m.save(ctx, s, theirs)
	s.pending = pending
	if err == nil && !ok {
		err = ErrEnded
	}
	return err
}

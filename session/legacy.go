package session

import (
	"context"
	"errors"
)

// Legacy is where sessions were kept before: a table, or another library's keys.
type Legacy[T any] struct {
	// Find looks for the session of a token; ok is false if there is none. Terms.User is not used.
	Find func(ctx context.Context, token string) (value T, terms Terms, ok bool, err error)
	// Delete is called when a session of either place is ended by its token. Nil means that nothing is deleted there:
	// then what was logged out is remembered for Config.Remember only.
	Delete func(ctx context.Context, token string) error
}

// TakeOver makes Get look for a token it does not know in the place where sessions were kept before, and keep what
// it finds here from then on, under the same token: dual read. Once all old sessions have ended, or been taken over,
// it is left out. It needs [Config.ForeignTokens], and is called before the manager is used.
//
// A session that was ended here is not looked for there while that is remembered ([Config.Remember]).
func (m *Manager[T]) TakeOver(old Legacy[T]) error {
	if !m.cfg.ForeignTokens || old.Find == nil {
		return errors.New("session: take over: needs Config.ForeignTokens, and a Find")
	}
	m.old = old
	return nil
}

func (m *Manager[T]) takeOver(ctx context.Context, token string) (*Session[T], bool, error) {
	if wellFormed(token) {
		return nil, false, nil // it is ours, and has ended
	}
	value, terms, ok, err := m.old.Find(ctx, token)
	if err != nil {
		return nil, false, wrap("take over", err)
	}
	if !ok {
		return nil, false, nil
	}
	s, ok, err := m.Import(ctx, token, value, terms)
	if err != nil || ok {
		return s, ok, err
	}
	// Another request was first; or has ended it.
	at, _ := locate(token, true)
	f, err := m.fetch(ctx, at)
	if err != nil || !f.alive {
		return nil, false, err
	}
	s, err = m.open(token, f)
	return s, err == nil, err
}

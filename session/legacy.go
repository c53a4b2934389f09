package session

import (
	"context"
	"errors"
	"fmt"
)

// Legacy is where sessions were kept before: a table, or another library's keys.
type Legacy[T any] struct {
	// Find looks for the session of a token; ok is false if there is none. Terms.User is not used.
	Find func(ctx context.Context, token string) (value T, terms Terms, ok bool, err error)
	// Delete is called when a session of either place is ended by its token, and before a token that was taken over is
	// replaced, which would else be found there again. Nil means that nothing is deleted there:
	// then what was logged out or replaced is remembered for Config.Remember only.
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
	switch mark, err := m.lookUp(ctx, replacedMark(token)); {
	case err != nil:
		return nil, false, err
	case !mark.absent:
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

// replacing is called before the token of a session is replaced. The key of one that was taken over is gone after the
// grace, and what is kept in the other place must not come back then, with the token of before a login.
func (m *Manager[T]) replacing(ctx context.Context, token string) error {
	if m.old.Find == nil || token == "" || wellFormed(token) {
		return nil
	}
	if err := m.endAt(ctx, replacedMark(token), true); err != nil {
		return err
	}
	return m.deleteOld(ctx, token)
}

// replacedMark is where a tombstone remembers that a foreign token was replaced: where no token's session lies, since
// none has a space.
func replacedMark(token string) place {
	d := digest("replaced " + token)
	return place{d[:visitorTagLen], d}
}

func (m *Manager[T]) deleteOld(ctx context.Context, token string) error {
	if m.old.Delete == nil {
		return nil
	}
	if err := m.old.Delete(ctx, token); err != nil {
		return fmt.Errorf("session: delete: the session that was to be taken over: %w", err)
	}
	return nil
}

package sessiontest

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
)

// logins begins n sessions of a user.
func logins[T any](t *testing.T, m *session.Manager[T], user string, n int) (all []*session.Session[T]) {
	t.Helper()
	for range n {
		var value T
		s, err := m.Begin(t.Context(), value, session.Terms{User: user, Device: "Tester/1.0", Address: "192.0.2.7"})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

func listed[T any](t *testing.T, m *session.Manager[T], user string, want int) []session.Info {
	t.Helper()
	infos, err := m.List(t.Context(), user)
	if err != nil || len(infos) != want {
		t.Fatalf("%d sessions of %s, %v; want %d", len(infos), user, err, want)
	}
	return infos
}

func users(t *testing.T, env valkeytest.Env) {
	m := manager[cart](t, env, session.Config{Idle: time.Hour})
	ctx := t.Context()
	anns, bobs := logins(t, m, "ann", 5), logins(t, m, "bob", 2)
	for _, info := range listed(t, m, "ann", 5) {
		left := info.Ends.Sub(info.Created)
		if info.Device != "Tester/1.0" || info.Address != "192.0.2.7" || info.Seen.Before(info.Created) || left < time.Hour || left > time.Hour+2*time.Second {
			t.Errorf("%+v", info)
		}
		if !slices.ContainsFunc(anns, func(s *session.Session[cart]) bool { return s.ID() == info.ID }) {
			t.Errorf("whose is %s?", info.ID)
		}
	}
	// A session can be ended in its user's name only.
	for user, want := range map[string]bool{"bob": false, "ann": true} {
		if ok, err := m.End(ctx, user, anns[0].ID()); err != nil || ok != want {
			t.Errorf("End of ann's as %s: %v, %v", user, ok, err)
		}
	}
	get(t, m, anns[0].Token, false)
	for _, id := range []string{"", "x", strings.Repeat("{", 22), strings.Repeat("A", 22)} {
		if ok, err := m.End(ctx, "ann", id); err != nil || ok {
			t.Errorf("End(%q): %v, %v", id, ok, err)
		}
	}
	if n, err := m.EndOthers(ctx, anns[1]); err != nil || n != 3 {
		t.Errorf("EndOthers: %d, %v", n, err)
	}
	get(t, m, anns[1].Token, true)
	get(t, m, anns[2].Token, false)
	listed(t, m, "ann", 1)
	if err := m.Delete(ctx, anns[1].Token); err != nil {
		t.Fatal(err)
	}
	listed(t, m, "ann", 0)
	if n, err := m.EndAll(ctx, "bob"); err != nil || n != 2 {
		t.Errorf("EndAll: %d, %v", n, err)
	}
	for _, s := range bobs {
		get(t, m, s.Token, false)
		s.Value.User = "again"
		save(t, m, s, false)
		get(t, m, s.Token, false)
	}
	nobody := begin(t, m, cart{})
	if _, err := m.EndOthers(ctx, nobody); err == nil {
		t.Error("EndOthers for nobody")
	}
	for _, err := range []error{second(m.List(ctx, "")), second(m.EndAll(ctx, "")), second(m.End(ctx, "", nobody.ID()))} {
		if err == nil {
			t.Error("an empty user")
		}
	}
}

func second[T any](_ T, err error) error { return err }

// indexPrunes holds that a user's index forgets the sessions that have ended by themselves.
func indexPrunes(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	m := manager[cart](t, env, session.Config{Prefix: prefix, Idle: 100 * time.Millisecond})
	logins(t, m, "ann", 3)
	long, err := m.Begin(t.Context(), cart{}, session.Terms{User: "ann", Idle: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	env.Advance(101 * time.Millisecond)
	if infos := listed(t, m, "ann", 1); infos[0].ID != long.ID() {
		t.Errorf("%+v", infos)
	}
	logins(t, m, "bob", 3)
	env.Advance(101 * time.Millisecond)
	if err := m.Delete(t.Context(), long.Token); err != nil {
		t.Fatal(err)
	}
	for _, key := range keysOf(t, env.Client, prefix) {
		if strings.HasSuffix(key, ":user") {
			t.Errorf("an index is left: %s", key)
		}
	}
}

// endAllFollows ends the sessions of a user one of which has just got another token.
func endAllFollows(t *testing.T, env valkeytest.Env) {
	m := manager[cart](t, env, session.Config{})
	s := logins(t, m, "ann", 1)[0]
	old := s.Token
	renew(t, m, s)
	listed(t, m, "ann", 1)
	if n, err := m.EndAll(t.Context(), "ann"); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	get(t, m, old, false)
	get(t, m, s.Token, false)
}

// sameField has two requests change one member.
func sameField(t *testing.T, env valkeytest.Env) {
	for _, policy := range []session.Conflict{session.LastWins, session.Compare} {
		for name, keys := range map[string][]session.Key{"plain": nil, "sealed": {key("a")}} {
			m := manager[map[string]int](t, env, session.Config{Conflict: policy, Keys: keys})
			s := begin(t, m, map[string]int{"n": 0, "gone": 0})
			one, two, three := get(t, m, s.Token, true), get(t, m, s.Token, true), get(t, m, s.Token, true)
			one.Value["n"], two.Value["n"], three.Value["other"] = 1, 2, 3
			if err := two.AddFlash("hello"); err != nil {
				t.Fatal(err)
			}
			save(t, m, one, true)
			save(t, m, three, true) // another member
			ok, err := m.Set(t.Context(), two)
			got := get(t, m, s.Token, true)
			switch policy {
			case session.LastWins:
				if !ok || err != nil || got.Value["n"] != 2 {
					t.Errorf("%s: %v, %v, %v", name, ok, err, got.Value)
				}
			case session.Compare:
				if ok || !errors.Is(err, session.ErrConflict) || got.Value["n"] != 1 || got.Value["other"] != 3 {
					t.Errorf("%s: %v, %v, %v", name, ok, err, got.Value)
				}
				delete(two.Value, "gone")
				if ok, err := m.Set(t.Context(), two); ok || !errors.Is(err, session.ErrConflict) {
					t.Errorf("%s: again: %v, %v", name, ok, err)
				}
				one.Value["n"]++ // who wrote last may go on
				delete(one.Value, "gone")
				save(t, m, one, true)
				got.Value["gone"] = 7 // it is gone
				if ok, err := m.Set(t.Context(), got); ok || !errors.Is(err, session.ErrConflict) {
					t.Errorf("%s: a member that was removed: %v, %v", name, ok, err)
				}
			}
		}
	}
}

// flashes are seen once, in their order, also those that requests add at the same time.
func flashes(t *testing.T, env valkeytest.Env) {
	m := manager[map[string]any](t, env, session.Config{})
	s := begin(t, m, map[string]any{"n": 1.0})
	one, two := get(t, m, s.Token, true), get(t, m, s.Token, true)
	for who, text := range map[*session.Session[map[string]any]]string{one: "saved", two: "sent \"é\"\n"} {
		if err := who.AddFlash(text); err != nil {
			t.Fatal(err)
		}
		save(t, m, who, true)
	}
	next := get(t, m, s.Token, true)
	if !reflect.DeepEqual(next.Value, map[string]any{"n": 1.0}) {
		t.Errorf("flash messages are in the value: %v", next.Value)
	}
	got, err := next.Flashes()
	slices.Sort(got)
	if err != nil || !slices.Equal(got, []string{"saved", "sent \"é\"\n"}) {
		t.Errorf("%q, %v", got, err)
	}
	save(t, m, next, true)
	if got, err := get(t, m, s.Token, true).Flashes(); err != nil || len(got) != 0 {
		t.Errorf("again: %q, %v", got, err)
	}
	for i := range session.MaxFlashes {
		if err := next.AddFlash(string(rune('a' + i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := next.AddFlash("one more"); err == nil {
		t.Error("too many flash messages")
	}
	login1(t, m, next, "ann") // they go along
	if got, err := get(t, m, next.Token, true).Flashes(); err != nil || len(got) != session.MaxFlashes || got[0] != "a" || got[1] != "b" {
		t.Errorf("after the login: %q, %v", got, err)
	}
}

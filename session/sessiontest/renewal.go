package sessiontest

import (
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
)

func renew[T any](t *testing.T, m *session.Manager[T], s *session.Session[T]) {
	t.Helper()
	if err := m.Renew(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func login1[T any](t *testing.T, m *session.Manager[T], s *session.Session[T], user string) {
	t.Helper()
	if err := m.Login(t.Context(), s, session.Terms{User: user, Device: "Tester/1.0 é", Address: "192.0.2.7"}); err != nil {
		t.Fatal(err)
	}
}

// renewal holds that the old token answers for the grace, with what there was, and that what it changes is kept.
func renewal(t *testing.T, env valkeytest.Env) {
	m := manager[cart](t, env, session.Config{Grace: time.Minute})
	s := begin(t, m, cart{User: "ann"})
	inFlight := get(t, m, s.Token, true)
	old := s.Token
	renew(t, m, s)
	if s.Token == old {
		t.Fatal("the token is the same")
	}
	s.Value.Note = new(string)
	save(t, m, s, true)

	late := get(t, m, old, true)
	if late.Value.User != "ann" || late.Value.Note != nil {
		t.Errorf("by the old token: %+v", late.Value)
	}
	inFlight.Value.Items = map[string]int{"early": 1}
	save(t, m, inFlight, true)
	late.Value.User = "late"
	save(t, m, late, true)
	got := get(t, m, s.Token, true).Value
	if want := (cart{User: "late", Items: map[string]int{"early": 1}, Note: new(string)}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	renew(t, m, late) // it has been
	if late.Token != "" {
		t.Error("the second renewal got a token")
	}
	renewalEnds(t, env)
}

// renewalEnds holds when the old token ends.
func renewalEnds(t *testing.T, env valkeytest.Env) {
	t.Helper()
	m := manager[cart](t, env, session.Config{Grace: 20 * time.Millisecond})
	s := begin(t, m, cart{})
	old := s.Token
	renew(t, m, s)
	env.Advance(21 * time.Millisecond)
	get(t, m, old, false)
	get(t, m, s.Token, true)

	m = manager[cart](t, env, session.Config{Grace: session.NoGrace})
	s = begin(t, m, cart{})
	old = s.Token
	renew(t, m, s)
	get(t, m, old, false)
	get(t, m, s.Token, true)
	if err := m.Delete(t.Context(), s.Token); err != nil {
		t.Fatal(err)
	}
	if err := m.Renew(t.Context(), s); !errors.Is(err, session.ErrEnded) {
		t.Errorf("Renew of a session that was ended: %v", err)
	}
	m = manager[cart](t, env, session.Config{})
	s = begin(t, m, cart{})
	old = s.Token
	renew(t, m, s)
	get(t, m, old, true)
	if err := m.Delete(t.Context(), old); err != nil { // a logout that was under way
		t.Fatal(err)
	}
	get(t, m, old, false)
	get(t, m, s.Token, false)
}

// renewedAtOnce has several requests renew one session: one gets the token, all go on.
func renewedAtOnce(t *testing.T, env valkeytest.Env) {
	m := manager[map[string]int](t, env, session.Config{})
	s := begin(t, m, map[string]int{})
	var all sync.WaitGroup
	var mu sync.Mutex
	tokens := 0
	var mine [8]*session.Session[map[string]int]
	for i := range mine {
		mine[i] = get(t, m, s.Token, true)
	}
	for i, mine := range mine {
		all.Go(func() {
			if err := m.Renew(t.Context(), mine); err != nil {
				t.Error(err)
			}
			mu.Lock()
			if mine.Token != "" {
				tokens++
				s = mine
			}
			mu.Unlock()
			mine.Value[string(rune('a'+i))] = i
			if ok, err := m.Set(t.Context(), mine); err != nil || !ok {
				t.Errorf("Set: %v, %v", ok, err)
			}
		})
	}
	all.Wait()
	if tokens != 1 {
		t.Fatalf("%d new tokens", tokens)
	}
	if got := get(t, m, s.Token, true); len(got.Value) != 8 {
		t.Errorf("%v", got.Value)
	}
}

// login holds that nobody who knows the token of before gets the user's session.
func login(t *testing.T, env valkeytest.Env) {
	m := manager[cart](t, env, session.Config{Grace: time.Minute})
	s := begin(t, m, cart{Items: map[string]int{"pear": 1}})
	before := s.Token
	s.Value.User = "ann"
	login1(t, m, s, "ann")
	if s.Token == before {
		t.Fatal("the token is the same")
	}
	old := get(t, m, before, true)
	if old.Value.User != "" || old.Value.Items["pear"] != 1 {
		t.Errorf("by the token of before the login: %+v", old.Value)
	}
	if got := get(t, m, s.Token, true).Value; got.User != "ann" || got.Items["pear"] != 1 {
		t.Errorf("after the login: %+v", got)
	}
	again := s.Token
	login1(t, m, s, "ann") // once more
	if got, err := m.List(t.Context(), "ann"); err != nil || len(got) != 1 || s.Token == again {
		t.Errorf("%+v, %v", got, err)
	}
	if err := m.Login(t.Context(), s, session.Terms{}); err == nil {
		t.Error("a login of nobody")
	}
	login1(t, m, s, "bob")
	if got, err := m.List(t.Context(), "ann"); err != nil || len(got) != 0 {
		t.Errorf("ann's after bob's login: %+v, %v", got, err)
	}
	if n, err := m.EndAll(t.Context(), "bob"); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	get(t, m, before, false) // the grace of a session that has ended
	get(t, m, again, false)
}

// loginMerges changes a session between its reading and its login.
func loginMerges(t *testing.T, env valkeytest.Env) {
	for name, cfg := range map[string]session.Config{"plain": {}, "sealed": {Keys: []session.Key{key("a")}}} {
		t.Run(name, func(t *testing.T) {
			m := manager[map[string]int](t, env, cfg)
			s := begin(t, m, map[string]int{"gone": 1, "both": 1, "kept": 1})
			other := get(t, m, s.Token, true)
			late := get(t, m, s.Token, true)
			other.Value["theirs"], other.Value["both"] = 2, 2
			delete(other.Value, "gone")
			save(t, m, other, true)
			s.Value["both"], s.Value["mine"] = 3, 3
			login1(t, m, s, "ann")
			late.Value["late"] = 4
			save(t, m, late, true)
			got := get(t, m, s.Token, true).Value
			if want := (map[string]int{"both": 3, "kept": 1, "theirs": 2, "mine": 3, "late": 4}); !reflect.DeepEqual(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
}

// loginByAnOldToken holds that a login with the token of before another's login leaves that one alone.
func loginByAnOldToken(t *testing.T, env valkeytest.Env) {
	m := manager[cart](t, env, session.Config{})
	s := begin(t, m, cart{})
	early, before := get(t, m, s.Token, true), s.Token
	s.Value.User = "victim"
	login1(t, m, s, "victim")
	late := get(t, m, before, true)
	for _, attacker := range []*session.Session[cart]{early, late} {
		attacker.Value.User = "attacker"
		login1(t, m, attacker, "attacker")
		if got := get(t, m, attacker.Token, true); got.Value.User != "attacker" {
			t.Errorf("%+v", got.Value)
		}
	}
	if got := get(t, m, s.Token, true); got.Value.User != "victim" {
		t.Errorf("%+v", got.Value)
	}
}

// plantedToken holds that who knows a visitor's token gets nothing of the user who logs in with it, whatever is done
// with a session that was read by it: also one that was read before the login and saved after.
func plantedToken(t *testing.T, env valkeytest.Env) {
	for name, do := range map[string]func(*session.Manager[cart], *session.Session[cart]){
		"renewal": func(m *session.Manager[cart], s *session.Session[cart]) { renew(t, m, s) },
		"login":   func(m *session.Manager[cart], s *session.Session[cart]) { login1(t, m, s, "eve") },
	} {
		m := manager[cart](t, env, session.Config{Prefix: valkeytest.Prefix(t), Grace: time.Minute})
		s := begin(t, m, cart{Items: map[string]int{"pear": 1}})
		underWay := get(t, m, s.Token, true)
		planted := s.Token
		s.Value.User = "ann"
		login1(t, m, s, "ann")
		underWay.Value.Items = map[string]int{"apple": 1}
		save(t, m, underWay, true)
		late := get(t, m, planted, true)
		for _, old := range []*session.Session[cart]{underWay, late} {
			if n, err := m.EndOthers(t.Context(), old); err == nil || old.OfUser() {
				t.Errorf("%s: the old token is the user's: %d, %v, %v", name, n, err, old.OfUser())
			}
			do(m, old)
			if old.Token == "" || old.Token == planted {
				continue
			}
			if got := get(t, m, old.Token, true); got.Value.User != "" {
				t.Errorf("%s: the old token's holder has the session of %q", name, got.Value.User)
			}
		}
		if got := get(t, m, s.Token, true); got.Value.User != "ann" || got.Value.Items["apple"] != 1 || !got.OfUser() {
			t.Errorf("%s: the user's session is %+v", name, got.Value)
		}
		listed(t, m, "ann", 1)
	}
}

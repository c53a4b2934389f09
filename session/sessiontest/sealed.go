package sessiontest

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

func key(id string) session.Key {
	return session.Key{ID: id, Secret: bytes.Repeat([]byte(id), 32)[:32]}
}

// sealed holds that the server sees no value, and that values don't open in another place.
func sealed(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	cfg := session.Config{Prefix: prefix, Keys: []session.Key{key("a")}}
	m := manager[cart](t, env, cfg)
	c, ctx := env.Client, t.Context()
	victim, err := m.Begin(ctx, cart{User: "ann"}, session.Terms{User: "ann", Device: "Secret Browser", Address: "192.0.2.99"})
	if err != nil {
		t.Fatal(err)
	}
	victim.Value.Note = &victim.Value.User
	save(t, m, victim, true)
	if got := get(t, m, victim.Token, true); !reflect.DeepEqual(got.Value, victim.Value) {
		t.Errorf("%+v", got.Value)
	}
	if infos := listed(t, m, "ann", 1); infos[0].Device != "Secret Browser" || infos[0].Address != "192.0.2.99" {
		t.Errorf("%+v", infos)
	}
	of := func(s *session.Session[cart]) string {
		for _, key := range keysOf(t, c, prefix) {
			if strings.HasSuffix(key, ":"+s.ID()) {
				return key
			}
		}
		t.Fatal("no key")
		return ""
	}
	text, err := c.Do(ctx, c.B().Get().Key(of(victim)).Build()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"ann", "Secret", "192"} {
		if strings.Contains(text, secret) {
			t.Errorf("the server can read %q: %s", secret, text)
		}
	}
	renew(t, m, victim)
	if got := get(t, m, victim.Token, true); !reflect.DeepEqual(got.Value, victim.Value) {
		t.Errorf("after a renewal: %+v", got.Value)
	}
	victim.Value.User = "anna"
	save(t, m, victim, true)

	copied(t, m, c, of, victim)
}

// copied has who can write to the server, but has no key, copy a victim's session into their own.
func copied(t *testing.T, m *session.Manager[cart], c valkey.Client, of func(*session.Session[cart]) string, victim *session.Session[cart]) {
	t.Helper()
	ctx := t.Context()
	raw := func(key string) string {
		text, err := c.Do(ctx, c.B().Get().Key(key).Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	attacker, err := m.Begin(ctx, cart{User: "eve"}, session.Terms{User: "eve"})
	if err != nil {
		t.Fatal(err)
	}
	theirs, own := raw(of(victim)), raw(of(attacker))
	_, member, _ := strings.Cut(theirs, `"user":`)
	member, _, _ = strings.Cut(member, ",\n")
	member, _, _ = strings.Cut(member, "}")
	head, _, _ := strings.Cut(own, `"user":`)
	for name, forged := range map[string]string{
		"the whole": theirs, "a member": head + `"user":` + member + "}", "a plain one": head + `"user":"ann"}`,
		"all plain": strings.SplitAfter(own, "\n")[0] + `{"user":"ann"}`,
	} {
		if err := c.Do(ctx, c.B().Set().Key(of(attacker)).Value(forged).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := m.Get(ctx, attacker.Token); err == nil || ok {
			t.Errorf("%s: %+v, %v, %v", name, got, ok, err)
		}
	}
}

// keysRotate reads what older keys have sealed, for as long as they are there.
func keysRotate(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	with := func(accept bool, keys ...session.Key) *session.Manager[cart] {
		return manager[cart](t, env, session.Config{Prefix: prefix, Keys: keys, AcceptPlain: accept})
	}
	plain := begin(t, with(false), cart{User: "plain"})
	old := begin(t, with(false, key("a")), cart{User: "old"})
	both := with(true, key("b"), key("a"))
	young := begin(t, both, cart{User: "young"})
	for _, s := range []*session.Session[cart]{plain, old, young} {
		got := get(t, both, s.Token, true)
		if got.Value.User != s.Value.User {
			t.Errorf("%+v", got.Value)
		}
		got.Value.User += "er"
		save(t, both, got, true)
		renew(t, both, got)
		s.Token, s.Value = got.Token, got.Value
		if again := get(t, both, s.Token, true); again.Value.User != got.Value.User {
			t.Errorf("%+v", again.Value)
		}
	}
	// The renewal has bound the old one's data key to the new key.
	young2 := with(false, key("b"))
	get(t, young2, young.Token, true)
	get(t, young2, old.Token, true)
	for _, s := range []*session.Session[cart]{plain} {
		if got, ok, err := young2.Get(t.Context(), s.Token); err == nil || ok {
			t.Errorf("%+v, %v, %v", got, ok, err)
		}
	}
	if _, ok, err := with(false).Get(t.Context(), young.Token); err == nil || ok {
		t.Errorf("without the key: %v, %v", ok, err)
	}
}

// table is where sessions were before.
type table struct {
	mu    sync.Mutex
	items map[string]cart
	err   error
}

func (o *table) find(_ context.Context, token string) (cart, session.Terms, bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	value, ok := o.items[token]
	return value, session.Terms{Idle: time.Hour}, ok, o.err
}

func (o *table) delete(_ context.Context, token string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.items, token)
	return o.err
}

// takenOver reads both places, and flips.
func takenOver(t *testing.T, env valkeytest.Env) {
	const token, other = "0123456789abcdef/+=", "fedcba9876543210"
	old := &table{items: map[string]cart{token: {User: "ann"}, other: {User: "bob"}}}
	cfg := session.Config{Prefix: valkeytest.Prefix(t), ForeignTokens: true}
	m := manager[cart](t, env, cfg)
	if err := m.TakeOver(session.Legacy[cart]{Find: old.find, Delete: old.delete}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 4 { // which all find it there
		all.Go(func() {
			s, ok, err := m.Get(t.Context(), token)
			if err != nil || !ok || s.Value.User != "ann" {
				t.Errorf("%+v, %v, %v", s, ok, err)
				return
			}
			s.Value.Items = map[string]int{string(rune('a' + i)): i}
			if ok, err := m.Set(t.Context(), s); err != nil || !ok {
				t.Errorf("%v, %v", ok, err)
			}
		})
	}
	all.Wait()
	s := get(t, m, token, true)
	if s.Idle != time.Hour || len(s.Value.Items) != 1 {
		t.Errorf("%+v", s)
	}
	// Logged out here, before anybody has read it here.
	if err := m.Delete(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	old.items[other] = cart{User: "bob"} // a stale copy of the table
	get(t, m, other, false)
	if _, ok, err := m.Import(t.Context(), other, cart{}, session.Terms{}); err != nil || ok {
		t.Errorf("Import over a tombstone: %v, %v", ok, err)
	}
	for _, bad := range []string{"short", strings.Repeat("x", 257), "0123456789abcde\n", "é0123456789abcdef"} {
		get(t, m, bad, false)
	}
	old.err = errors.New("throttled")
	if _, ok, err := m.Get(t.Context(), "another0123456789"); !errors.Is(err, old.err) || ok {
		t.Errorf("%v, %v", ok, err)
	}
	get(t, m, token, true) // it is here now
	flipped := manager[cart](t, env, cfg)
	login1(t, flipped, get(t, flipped, token, true), "ann")
	get(t, flipped, other, false)
	if err := manager[cart](t, env, session.Config{}).TakeOver(session.Legacy[cart]{Find: old.find}); err == nil {
		t.Error("taken over without ForeignTokens")
	}
}

// takenOverOnce holds that a token of before a renewal or a login is not taken over again once its grace has passed.
func takenOverOnce(t *testing.T, env valkeytest.Env) {
	const grace = 20 * time.Millisecond
	for _, deletes := range []bool{true, false} {
		for name, replace := range map[string]func(*session.Manager[cart], *session.Session[cart]){
			"renewal": func(m *session.Manager[cart], s *session.Session[cart]) { renew(t, m, s) },
			"login":   func(m *session.Manager[cart], s *session.Session[cart]) { login1(t, m, s, "ann") },
		} {
			const token = "0123456789abcdef"
			old := &table{items: map[string]cart{token: {User: "ann"}}}
			legacy := session.Legacy[cart]{Find: old.find}
			if deletes {
				legacy.Delete = old.delete
			}
			m := manager[cart](t, env, session.Config{Prefix: valkeytest.Prefix(t), ForeignTokens: true, Grace: grace})
			if err := m.TakeOver(legacy); err != nil {
				t.Fatal(err)
			}
			s := get(t, m, token, true)
			replace(m, s)
			if _, there := old.items[token]; there == deletes {
				t.Errorf("%s: in the other place: %v", name, there)
			}
			env.Advance(grace + time.Millisecond)
			old.items[token] = cart{User: "ann"} // a stale copy of the table
			get(t, m, token, false)
			get(t, m, s.Token, true)
			if err := m.Delete(t.Context(), s.Token); err != nil {
				t.Fatal(err)
			}
			get(t, m, token, false)
		}
	}
}

// expired waits for the sweeper of two managers to tell of what ended by itself, and of nothing else.
func expired(t *testing.T, env valkeytest.Env) {
	told := make(chan session.Expired, 100)
	fail := true
	var mu sync.Mutex
	cfg := session.Config{Prefix: valkeytest.Prefix(t), Idle: time.Second, Absolute: time.Hour, Expired: session.Sweep{
		Every: 20 * time.Millisecond,
		Note:  func(value any) string { return value.(cart).User },
		Func: func(_ context.Context, e session.Expired) error {
			mu.Lock()
			defer mu.Unlock()
			if e.Note == "fails" && fail {
				fail = false
				return errors.New("not now")
			}
			told <- e
			return nil
		},
	}}
	m, other := manager[cart](t, env, cfg), manager[cart](t, env, cfg)
	ended := begin(t, m, cart{User: "ended"})
	if err := m.Delete(t.Context(), ended.Token); err != nil {
		t.Fatal(err)
	}
	logins(t, m, "ann", 2)
	if _, err := m.EndAll(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	kept, err := m.Begin(t.Context(), cart{User: "kept"}, session.Terms{Idle: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, user := range []string{"one", "two", "", "fails"} {
		want[begin(t, other, cart{User: user}).ID()] = user
	}
	renewed := begin(t, m, cart{User: "renewed"})
	renew(t, m, renewed)
	want[renewed.ID()] = "renewed"
	visitor := begin(t, m, cart{User: "visitor"})
	visitor.Value.User = "user"
	login1(t, m, visitor, "user")
	want[visitor.ID()] = "user"
	env.Advance(1001 * time.Millisecond)
	for len(want) > 0 {
		select {
		case e := <-told:
			if note, ok := want[e.ID]; !ok || note != e.Note {
				t.Fatalf("told of %+v, want one of %v", e, want)
			}
			delete(want, e.ID)
		case <-time.After(30 * time.Second):
			t.Fatalf("not told of %v", want)
		}
		if len(want) == 1 && env.Embedded {
			env.Advance(61 * time.Second) // the one that has failed is tried again
		} else if len(want) == 1 {
			return // after a minute
		}
	}
	get(t, m, kept.Token, true)
}

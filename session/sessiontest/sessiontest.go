// Package sessiontest is the conformance suite of package session: what holds on every kind of
// server.
package sessiontest

import (
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

// Run runs the suite against env.
func Run(t *testing.T, env valkeytest.Env) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, valkeytest.Env)
	}{
		{"Life", life},
		{"Idle", idle},
		{"Absolute", absolute},
		{"Extending", extending},
		{"NoResurrection", noResurrection},
		{"DistinctFields", distinctFields},
		{"SameField", sameField},
		{"OlderProgram", olderProgram},
		{"Spelling", spelling},
		{"TooLarge", tooLarge},
		{"ForeignValues", foreignValues},
		{"Tokens", tokens},
		{"Renewal", renewal},
		{"RenewedAtOnce", renewedAtOnce},
		{"Login", login},
		{"LoginMergesWhatOthersChanged", loginMerges},
		{"LoginByAnOldToken", loginByAnOldToken},
		{"Users", users},
		{"IndexPrunesItself", indexPrunes},
		{"EndAllFollowsRenewal", endAllFollows},
		{"Flashes", flashes},
		{"Sealed", sealed},
		{"KeysRotate", keysRotate},
		{"PlantedToken", plantedToken},
		{"TakenOver", takenOver},
		{"TakenOverOnce", takenOverOnce},
		{"Expired", expired},
		{"Model", model},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, env) })
	}
}

type cart struct {
	User  string         `json:"user,omitempty"`
	Items map[string]int `json:"items,omitempty"`
	Note  *string        `json:"note,omitempty"`
}

func manager[T any](t *testing.T, env valkeytest.Env, cfg session.Config) *session.Manager[T] {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	cfg.AskAlways = cfg.AskAlways || env.Embedded // its clock is driven
	cfg.Timeout = 20 * time.Second                // a busy machine is not what is tested
	m, err := session.New[T](env.Client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func begin[T any](t *testing.T, m *session.Manager[T], value T) *session.Session[T] {
	t.Helper()
	s, err := m.Create(t.Context(), value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// get fails the test unless there is a session as wanted.
func get[T any](t *testing.T, m *session.Manager[T], token string, want bool) *session.Session[T] {
	t.Helper()
	s, ok, err := m.Get(t.Context(), token)
	if err != nil || ok != want || (s != nil) != want {
		t.Fatalf("Get = %v, %v, %v; want %v", s, ok, err, want)
	}
	return s
}

func save[T any](t *testing.T, m *session.Manager[T], s *session.Session[T], want bool) {
	t.Helper()
	if ok, err := m.Set(t.Context(), s); err != nil || ok != want {
		t.Fatalf("Set = %v, %v; want %v", ok, err, want)
	}
}

func life(t *testing.T, env valkeytest.Env) {
	m := manager[cart](t, env, session.Config{})
	made := begin(t, m, cart{})
	s := get(t, m, made.Token, true)
	if s.Token != made.Token || !s.Created.Equal(made.Created) || !reflect.DeepEqual(s.Value, cart{}) {
		t.Fatalf("%+v, want %+v", s, made)
	}
	note := "an \"odd\"\n\x00 note"
	s.Value = cart{User: "ann", Items: map[string]int{"{pear}": 2}, Note: &note}
	save(t, m, s, true)
	if got := get(t, m, s.Token, true); !reflect.DeepEqual(got.Value, s.Value) {
		t.Fatalf("%+v, want %+v", got.Value, s.Value)
	}
	s.Value.Note = nil
	save(t, m, s, true)
	save(t, m, s, true) // nothing has changed
	if got := get(t, m, s.Token, true); !reflect.DeepEqual(got.Value, s.Value) {
		t.Fatalf("after a member was removed: %+v, want %+v", got.Value, s.Value)
	}
	for range 2 {
		if err := m.Delete(t.Context(), s.Token); err != nil {
			t.Fatal(err)
		}
		get(t, m, s.Token, false)
	}
}

// idle holds that a session ends when nothing was heard for Idle, and not before.
func idle(t *testing.T, env valkeytest.Env) {
	const short = 30 * time.Millisecond
	m := manager[cart](t, env, session.Config{Idle: short})
	s := begin(t, m, cart{})
	env.Advance(short + time.Millisecond)
	get(t, m, s.Token, false)
	s.Value.User = "ann"
	save(t, m, s, false)
	get(t, m, s.Token, false)
	if !env.Embedded {
		return // what a sign of life does to the key's expiry is tested without a clock
	}
	const long = 30 * time.Minute
	m = manager[cart](t, env, session.Config{Idle: long})
	s = begin(t, m, cart{})
	for i := range 3 {
		env.Advance(long - time.Second)
		get(t, m, s.Token, true)
		env.Advance(long - time.Second)
		s.Value.Items = map[string]int{"n": i}
		save(t, m, s, true)
	}
	env.Advance(long)
	get(t, m, s.Token, false)
}

// noResurrection logs a visitor out while requests are under way.
func noResurrection(t *testing.T, env valkeytest.Env) {
	m := manager[cart](t, env, session.Config{})
	for range 50 {
		s := begin(t, m, cart{User: "ann"})
		writing := get(t, m, s.Token, true)
		var requests sync.WaitGroup
		requests.Go(func() {
			if err := m.Delete(t.Context(), s.Token); err != nil {
				t.Error(err)
			}
		})
		requests.Go(func() {
			writing.Value.User = "bob"
			if _, err := m.Set(t.Context(), writing); err != nil {
				t.Error(err)
			}
		})
		requests.Go(func() {
			if _, _, err := m.Get(t.Context(), s.Token); err != nil {
				t.Error(err)
			}
		})
		requests.Wait()
		get(t, m, s.Token, false)
		writing.Value.User = "carl"
		save(t, m, writing, false)
		get(t, m, s.Token, false)
	}
}

// distinctFields has eight requests change a member each of one session.
func distinctFields(t *testing.T, env valkeytest.Env) {
	m := manager[map[string]int](t, env, session.Config{})
	s := begin(t, m, map[string]int{})
	var requests sync.WaitGroup
	for name := range strings.SplitSeq("a b c d e f g h", " ") {
		requests.Go(func() {
			for n := range 10 {
				mine, ok, err := m.Get(t.Context(), s.Token)
				if err != nil || !ok {
					t.Errorf("Get: %v, %v", ok, err)
					return
				}
				if mine.Value[name] != n {
					t.Errorf("member %s is %d, its update to %d was lost", name, mine.Value[name], n)
				}
				mine.Value[name] = n + 1
				if ok, err := m.Set(t.Context(), mine); err != nil || !ok {
					t.Errorf("Set: %v, %v", ok, err)
				}
			}
		})
	}
	requests.Wait()
	value := get(t, m, s.Token, true).Value
	if len(value) != 8 {
		t.Errorf("members: %v", value)
	}
	for name, n := range value {
		if n != 10 {
			t.Errorf("member %s: %d updates of 10", name, n)
		}
	}
}

// olderProgram holds that a program which knows fewer members leaves the others as they are.
func olderProgram(t *testing.T, env valkeytest.Env) {
	type newer struct{ User, Theme string }
	type older struct{ User string }
	cfg := session.Config{Prefix: valkeytest.Prefix(t)}
	news, olds := manager[newer](t, env, cfg), manager[older](t, env, cfg)
	s := begin(t, news, newer{User: "ann", Theme: "dark"})
	old := get(t, olds, s.Token, true)
	old.Value.User = "bob"
	save(t, olds, old, true)
	if got := get(t, news, s.Token, true).Value; got != (newer{User: "bob", Theme: "dark"}) {
		t.Fatalf("%+v", got)
	}
}

// spelling holds that a struct's field gets the member of its exact name, and no other one that
// encoding/json would take for it.
func spelling(t *testing.T, env valkeytest.Env) {
	type inner struct{ Deep string }
	type known struct {
		User string `json:"user"`
		inner
	}
	cfg := session.Config{Prefix: valkeytest.Prefix(t)}
	maps, exact := manager[map[string]string](t, env, cfg), manager[known](t, env, cfg)
	all := map[string]string{"User": "1", "USER": "2", "user": "3", "uSER": "4", "deep": "5", "Deep": "6"}
	s := begin(t, maps, all)
	for range 20 { // a map has no order
		got := get(t, exact, s.Token, true)
		if got.Value != (known{User: "3", inner: inner{Deep: "6"}}) {
			t.Fatalf("%+v", got.Value)
		}
		save(t, exact, got, true)
	}
	got := get(t, exact, s.Token, true)
	got.Value.User, all["user"] = "ann", "ann"
	save(t, exact, got, true)
	if got := get(t, maps, s.Token, true).Value; !reflect.DeepEqual(got, all) {
		t.Errorf("%v, want %v", got, all)
	}
	s = begin(t, maps, map[string]string{"User": "1"})
	if got := get(t, exact, s.Token, true); got.Value.User != "" {
		t.Errorf("%+v", got.Value)
	}
}

// foreignValues puts what is no session in a session's place: an error, never a session.
func foreignValues(t *testing.T, env valkeytest.Env) {
	c, ctx := env.Client, t.Context()
	const head = "11790000000 1790000000 60000 0\n"
	for name, value := range map[string]string{
		"nothing":                         "",
		"a word":                          "x",
		"another version":                 "9" + head[1:] + "{}",
		"no value":                        head,
		"no object":                       head + "[]",
		"a member that is not JSON":       head + `{"user":ann}`,
		"a member that closes the object": head + `{"user":"x","items":{}}`,
		"a member of another type":        head + `{"user":{}}`,
		"a date that is none":             "1now 1790000000 60000 0\n{}",
		"too few numbers":                 "11790000000 1790000000 60000\n{}",
		"too long a timeout":              "11790000000 1790000000 99999999999999999 0\n{}",
		"moved nowhere":                   "2x\n" + head + "{}",
	} {
		t.Run(name, func(t *testing.T) {
			prefix := valkeytest.Prefix(t)
			m := manager[cart](t, env, session.Config{Prefix: prefix})
			s := begin(t, m, cart{User: "ann"})
			key := onlyKey(t, c, prefix)
			if err := c.Do(ctx, c.B().Set().Key(key).Value(value).Build()).Error(); err != nil {
				t.Fatal(err)
			}
			if got, ok, err := m.Get(ctx, s.Token); err == nil || ok || got != nil {
				t.Errorf("Get = %+v, %v, %v; want an error", got, ok, err)
			}
			s.Value.User = "bob"
			// A script that changes a session looks at its form only.
			if !strings.HasPrefix(name, "a member") && name != "too long a timeout" {
				if ok, err := m.Set(ctx, s); err == nil && ok {
					t.Errorf("Set = %v, %v", ok, err)
				}
			}
			if err := m.Delete(ctx, s.Token); err != nil {
				t.Errorf("Delete: %v", err)
			}
			get(t, m, s.Token, false)
		})
	}
	prefix := valkeytest.Prefix(t)
	m := manager[cart](t, env, session.Config{Prefix: prefix})
	s := begin(t, m, cart{User: "ann"})
	key := onlyKey(t, c, prefix)
	for _, cmd := range [][]string{{"DEL"}, {"HSET", "user", `"ann"`}} {
		if err := c.Do(ctx, c.B().Arbitrary(cmd[0]).Keys(key).Args(cmd[1:]...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok, err := m.Get(ctx, s.Token); err == nil || ok || got != nil {
		t.Errorf("a hash: Get = %+v, %v, %v; want an error", got, ok, err)
	}
}

func tokens(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	m := manager[cart](t, env, session.Config{Prefix: prefix})
	s := begin(t, m, cart{User: "ann"})
	if key := onlyKey(t, env.Client, prefix); strings.Contains(key, s.Token) {
		t.Errorf("the server has the token: %s", key)
	}
	for _, token := range []string{
		"", "*", "{", ".", strings.ToLower(s.Token), s.Token + "A", s.Token[1:], s.Token[:26], "\x00" + s.Token[1:],
		strings.Repeat("A", 26), strings.Repeat("A", 26) + ".AAAA", strings.Repeat("A", 26) + ".{}{}", strings.Repeat("x", 1<<20), "é" + s.Token[2:],
	} {
		get(t, m, token, false)
		if err := m.Delete(t.Context(), token); err != nil {
			t.Errorf("Delete(%.40q): %v", token, err)
		}
	}
	if other := begin(t, m, cart{}); other.Token == s.Token {
		t.Error("a token was given twice")
	}
	get(t, m, s.Token, true)
}

// onlyKey returns the one key that begins with prefix.
func onlyKey(t *testing.T, c valkey.Client, prefix string) string {
	t.Helper()
	found := keysOf(t, c, prefix)
	if len(found) != 1 {
		t.Fatalf("keys with prefix %s: %q", prefix, found)
	}
	return found[0]
}

// keysOf returns the keys that begin with prefix, on all nodes.
func keysOf(t *testing.T, c valkey.Client, prefix string) (found []string) {
	t.Helper()
	for _, node := range c.Nodes() {
		keys, err := node.Do(t.Context(), node.B().Keys().Pattern(prefix+":*").Build()).AsStrSlice()
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, keys...)
	}
	return found
}

// tooLarge holds that a session has no more bytes than it may.
func tooLarge(t *testing.T, env valkeytest.Env) {
	m := manager[map[string]string](t, env, session.Config{MaxBytes: 1024})
	big := strings.Repeat("x", 1<<20)
	if _, err := m.Create(t.Context(), map[string]string{"big": big}); !errors.Is(err, session.ErrTooLarge) {
		t.Errorf("Create: %v", err)
	}
	s := begin(t, m, map[string]string{"a": "1"})
	one, two := get(t, m, s.Token, true), get(t, m, s.Token, true)
	one.Value["one"], two.Value["two"] = big[:600], big[:600]
	save(t, m, one, true)
	if ok, err := m.Set(t.Context(), two); !errors.Is(err, session.ErrTooLarge) || ok {
		t.Errorf("Set = %v, %v; want ErrTooLarge", ok, err)
	}
	if got := get(t, m, s.Token, true); !reflect.DeepEqual(got.Value, one.Value) {
		t.Errorf("%d members", len(got.Value))
	}
	one.Value["one"] = ""
	save(t, m, one, true)
	save(t, m, two, true)
}

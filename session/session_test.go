package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/session/sessiontest"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestConformance(t *testing.T) { valkeytest.Each(t, sessiontest.Run) }

func TestNewNamesTheField(t *testing.T) {
	c := valkeytest.Start(t).Client()
	for _, test := range []struct {
		cfg  session.Config
		want string
	}{
		{session.Config{Idle: -time.Second}, "Config.Idle"},
		{session.Config{Idle: time.Microsecond}, "Config.Idle"},
		{session.Config{Prefix: "a}b"}, "Config.Prefix"},
	} {
		if _, err := session.New[struct{}](c, test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %s", test.cfg, err, test.want)
		}
	}
	if _, err := session.New[struct{}](nil, session.Config{}); err == nil {
		t.Error("a nil client was accepted")
	}
}

// TestValuesThatAreNoObject are refused before anything is sent.
func TestValuesThatAreNoObject(t *testing.T) {
	c := valkeytest.Start(t).Client()
	refused := func(name, want string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", name, err, want)
		}
	}
	numbers, err := session.New[int](c, session.Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = numbers.Create(t.Context(), 1)
	refused("a number", "JSON object", err)

	anything, err := session.New[map[string]any](c, session.Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = anything.Create(t.Context(), nil)
	refused("a nil map", "JSON object", err)
	_, err = anything.Create(t.Context(), map[string]any{"@created": 1})
	refused("a reserved name", `"@created"`, err)
	_, err = anything.Create(t.Context(), map[string]any{"f": func() {}})
	refused("a func", "value", err)
	many := map[string]any{}
	for i := range session.MaxFields + 1 {
		many[strings.Repeat("x", i)] = i
	}
	_, err = anything.Create(t.Context(), many)
	refused("too many members", "1001 members", err)
	delete(many, "")
	if _, err := anything.Create(t.Context(), many); err != nil {
		t.Errorf("%d members: %v", len(many), err)
	}
}

// TestTheServerSeesTheFields is the layout that other languages read.
func TestTheServerSeesTheFields(t *testing.T) {
	c := valkeytest.Start(t).Client()
	m, err := session.New[map[string]any](c, session.Config{Idle: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Create(t.Context(), map[string]any{"user": "ann", "n": 1})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(keys) != 1 || !strings.HasPrefix(keys[0], "fr:sess:{") {
		t.Fatalf("%q, %v", keys, err)
	}
	hash, err := c.Do(t.Context(), c.B().Hgetall().Key(keys[0]).Build()).AsStrMap()
	if err != nil || len(hash) != 3 || hash["user"] != `"ann"` || hash["n"] != "1" || hash["@created"] == "" {
		t.Errorf("%q, %v", hash, err)
	}
	for what, touch := range map[string]func() error{
		"get": func() error { _, _, err := m.Get(t.Context(), s.Token); return err },
		"set": func() error { _, err := m.Set(t.Context(), s); return err },
	} {
		if err := c.Do(t.Context(), c.B().Pexpire().Key(keys[0]).Milliseconds(1000).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		if err := touch(); err != nil {
			t.Fatal(err)
		}
		if ms, err := c.Do(t.Context(), c.B().Pttl().Key(keys[0]).Build()).AsInt64(); err != nil || ms <= 1000 || ms > 60000 {
			t.Errorf("after a %s: PTTL %d, %v", what, ms, err)
		}
	}
}

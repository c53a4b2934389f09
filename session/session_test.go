package session_test

import (
	"context"
	"net"
	"strconv"
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
		{session.Config{Idle: time.Second + time.Microsecond}, "Config.Idle"},
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
	_, err = numbers.Set(t.Context(), nil)
	refused("no session", "nil", err)
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

// TestMoreFieldsThanThereMayBe reads a session that somebody else has filled.
func TestMoreFieldsThanThereMayBe(t *testing.T) {
	c := valkeytest.Start(t).Client()
	m, err := session.New[map[string]int](c, session.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Create(t.Context(), map[string]int{"a": 1})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	fill := c.B().Hset().Key(keys[0]).FieldValue()
	for i := range 2 * session.MaxFields {
		fill = fill.FieldValue(strconv.Itoa(i), "0")
	}
	if err := c.Do(t.Context(), fill.Build()).Error(); err != nil {
		t.Fatal(err)
	}
	s, ok, err := m.Get(t.Context(), s.Token)
	if err != nil || !ok || len(s.Value) != 2*session.MaxFields+1 {
		t.Fatalf("%v, %v", ok, err)
	}
	s.Value = map[string]int{"a": 2}
	if ok, err := m.Set(t.Context(), s); err != nil || !ok {
		t.Fatalf("%v, %v", ok, err)
	}
	if s, ok, err := m.Get(t.Context(), s.Token); err != nil || !ok || len(s.Value) != 1 || s.Value["a"] != 2 {
		t.Fatalf("%v, %v", ok, err)
	}
}

// TestServersThatRefuseWrites are what a client meets after a failover, or without enough replicas:
// every call writes, Get too.
func TestServersThatRefuseWrites(t *testing.T) {
	primary := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--replicaof", host + " " + port}})
	lonely := valkeytest.Start(t)
	do := func(s *valkeytest.Server, words ...string) {
		t.Helper()
		if err := s.Client().Do(t.Context(), s.Client().B().Arbitrary(words...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	on := func(s *valkeytest.Server) *session.Manager[map[string]int] {
		m, err := session.New[map[string]int](s.Client(), session.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	begun := map[string]*session.Session[map[string]int]{}
	for want, server := range map[string]*valkeytest.Server{"READONLY": primary, "NOREPLICAS": lonely} {
		if begun[want], err = on(server).Create(t.Context(), map[string]int{}); err != nil {
			t.Fatal(err)
		}
	}
	do(primary, "WAIT", "1", "0") // until the replica has it
	do(lonely, "CONFIG", "SET", "min-replicas-to-write", "1")
	for want, server := range map[string]*valkeytest.Server{"READONLY": replica, "NOREPLICAS": lonely} {
		m, s := on(server), begun[want]
		for name, call := range map[string]func() error{
			"Create": func() error { _, err := m.Create(t.Context(), map[string]int{}); return err },
			"Get":    func() error { _, _, err := m.Get(t.Context(), s.Token); return err },
			"Set":    func() error { _, err := m.Set(t.Context(), s); return err },
			"Delete": func() error { return m.Delete(t.Context(), s.Token) },
		} {
			if err := call(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: %v", want, name, err)
			}
		}
	}
	do(lonely, "CONFIG", "SET", "min-replicas-to-write", "0")
	if _, ok, err := on(lonely).Get(t.Context(), begun["NOREPLICAS"].Token); err != nil || !ok {
		t.Errorf("afterwards: %v, %v", ok, err)
	}
}

// TestServerAway makes each call without a deadline, through a client that repeats for ever what it
// may repeat. None of these calls may be.
func TestServerAway(t *testing.T) {
	s := valkeytest.Start(t)
	m, err := session.New[map[string]int](s.Client(), session.Config{})
	if err != nil {
		t.Fatal(err)
	}
	begun, err := m.Create(t.Context(), map[string]int{})
	if err != nil {
		t.Fatal(err)
	}
	s.Kill()
	for name, call := range map[string]func(context.Context) error{
		"Create": func(ctx context.Context) error { _, err := m.Create(ctx, map[string]int{}); return err },
		"Get":    func(ctx context.Context) error { _, _, err := m.Get(ctx, begun.Token); return err },
		"Set":    func(ctx context.Context) error { _, err := m.Set(ctx, begun); return err },
		"Delete": func(ctx context.Context) error { return m.Delete(ctx, begun.Token) },
	} {
		ended := make(chan error, 1)
		go func() { ended <- call(context.Background()) }()
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("%s said nothing", name)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s did not end", name)
		}
	}
}

package session_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/session/sessiontest"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	valkeytest.Each(t, sessiontest.Run)
}

func TestNewNamesTheField(t *testing.T) {
	c := valkeytest.Start(t).Client()
	cookie := func(c session.Cookie) session.Config { return session.Config{HTTP: session.HTTP{Cookie: c}} }
	told := func(context.Context, session.Expired) error { return nil }
	for want, all := range map[string][]session.Config{
		"Config.Idle":           {{Idle: -time.Second}, {Idle: time.Microsecond}, {Idle: time.Second + time.Microsecond}, {Idle: 20 * 365 * 24 * time.Hour}},
		"Config.Absolute":       {{Absolute: -time.Second}, {Absolute: 1500 * time.Millisecond}, {Absolute: 20 * 365 * 24 * time.Hour}},
		"Config.Jitter":         {{Jitter: -1}, {Jitter: 0.6}},
		"Config.Grace":          {{Grace: -2}, {Grace: time.Hour}, {Grace: time.Microsecond}},
		"Config.Remember":       {{Remember: time.Millisecond}, {Remember: -1}},
		"Config.MaxBytes":       {{MaxBytes: -1}, {MaxBytes: 100}, {MaxBytes: 1 << 20}},
		"Config.Conflict":       {{Conflict: 2}, {Conflict: -1}},
		"Config.Timeout":        {{Timeout: time.Millisecond}, {Timeout: time.Hour}},
		"Config.Prefix":         {{Prefix: "a}b"}},
		"Config.TagSecret":      {{TagSecret: []byte("short")}},
		"Config.Keys[0].ID":     {{Keys: []session.Key{{Secret: make([]byte, 32)}}}, {Keys: []session.Key{{ID: "a.b", Secret: make([]byte, 32)}}}, {Keys: []session.Key{{ID: strings.Repeat("a", 33), Secret: make([]byte, 32)}}}},
		"Config.Keys[1].ID":     {{Keys: []session.Key{{"a", make([]byte, 32)}, {"a", make([]byte, 32)}}}},
		"Config.Keys[0].Secret": {{Keys: []session.Key{{ID: "a", Secret: make([]byte, 31)}}}, {Keys: []session.Key{{ID: "a"}}}},
		"Config.Local.Entries":  {{Local: session.LocalTier{Entries: -1}}},
		"Config.Local.TTL":      {{Local: session.LocalTier{TTL: -1}}},
		"Config.Expired.Every":  {{Expired: session.Sweep{Every: time.Millisecond, Func: told}}, {Expired: session.Sweep{Every: -1}}},
		"Config.HTTP.Cookie": {
			cookie(session.Cookie{Name: "a b"}), cookie(session.Cookie{Domain: "a b"}), cookie(session.Cookie{Path: "/a;b"}),
			cookie(session.Cookie{Name: "__Host-x", Domain: "example.com"}), cookie(session.Cookie{Name: "__Host-x", Insecure: true}),
			cookie(session.Cookie{Name: "__Host-x", Path: "/app"}), cookie(session.Cookie{Name: "__Secure-x", Insecure: true}),
			cookie(session.Cookie{Partitioned: true, Insecure: true}), cookie(session.Cookie{SameSite: http.SameSiteNoneMode, Insecure: true}),
		},
		"Config.HTTP.Header":   {{HTTP: session.HTTP{Header: "a b"}}},
		"Config.HTTP.NoCookie": {{HTTP: session.HTTP{NoCookie: true}}},
		"Config.HTTP.Down":     {{HTTP: session.HTTP{Down: 7}}},
	} {
		for _, cfg := range all {
			if _, err := session.New[struct{}](c, cfg); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: error %v, want one with %s", cfg, err, want)
			}
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
	_, err = anything.Create(t.Context(), map[string]any{"@k": 1})
	refused("a reserved name", `"@k"`, err)
	_, err = anything.Create(t.Context(), map[string]any{"f": func() {}})
	refused("a func", "value", err)
	_, err = anything.Create(t.Context(), map[string]any{"a\"b": 1})
	refused("a quote in a name", "quote", err)
	_, err = anything.Create(t.Context(), map[string]any{"a\nb": 1})
	refused("a line end in a name", "control", err)
	for _, terms := range []session.Terms{{Idle: -1}, {Idle: time.Microsecond}, {Absolute: -2}, {Absolute: time.Millisecond}} {
		_, err = anything.Begin(t.Context(), map[string]any{}, terms)
		refused("terms", "Terms.", err)
	}
	strange := map[string]any{"": 1.0, "<&>": "<&>", "é \u2028": []any{"\n\",\n\"a\":1", map[string]any{"@k": "x", "}": "{"}}}
	s, err := anything.Create(t.Context(), strange)
	if err != nil {
		t.Fatal(err)
	}
	strange["more"] = true
	if ok, err := anything.Set(t.Context(), s); err != nil || !ok {
		t.Fatal(ok, err)
	}
	got, ok, err := anything.Get(t.Context(), s.Token)
	if err != nil || !ok || !reflect.DeepEqual(got.Value, strange) {
		t.Errorf("%q, %v, %v; want %q", got.Value, ok, err, strange)
	}
}

// TestTheServerSeesTheFields is the layout that other languages read.
func TestTheServerSeesTheFields(t *testing.T) {
	c := valkeytest.Start(t).Client()
	m, err := session.New[map[string]any](c, session.Config{Idle: time.Minute, Absolute: time.Hour, Timeout: patient})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Begin(t.Context(), map[string]any{"n": 1, "user": "ann"}, session.Terms{User: "ann", Device: "D", Address: "A"})
	if err != nil {
		t.Fatal(err)
	}
	tag := s.Token[27:]
	record, err := c.Do(t.Context(), c.B().Get().Key("fr:sess:{"+tag+"}:"+s.ID()).Build()).ToString()
	at := strconv.FormatInt(s.Created.Unix(), 10)
	want := "1" + at + " " + at + " 60000 3600\n{\"n\":1,\n\"user\":\"ann\",\n\"@ua\":\"D\",\n\"@ip\":\"A\"}"
	if err != nil || record != want {
		t.Errorf("%q, %v; want %q", record, err, want)
	}
	scores, err := c.Do(t.Context(), c.B().Zrange().Key("fr:sess:{"+tag+"}:user").Min("0").Max("-1").Withscores().Build()).AsZScores()
	if err != nil || len(scores) != 1 || scores[0].Member != s.ID() {
		t.Errorf("%v, %v", scores, err)
	}
	if err := m.Delete(t.Context(), s.Token); err != nil {
		t.Fatal(err)
	}
	record, err = c.Do(t.Context(), c.B().Get().Key("fr:sess:{"+tag+"}:"+s.ID()).Build()).ToString()
	if err != nil || record != "-" {
		t.Errorf("after the logout: %q, %v", record, err)
	}
}

// TestServersThatRefuseWrites are what a client meets after a failover, or without enough replicas. A read works
// as long as it need not extend the idle time.
func TestServersThatRefuseWrites(t *testing.T) {
	t.Parallel()
	primary := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Args: []string{"--repl-diskless-sync-delay", "0"}})
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
		m, err := session.New[map[string]int](s.Client(), session.Config{Timeout: patient})
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
			"Set":    func() error { s.Value["n"]++; _, err := m.Set(t.Context(), s); return err },
			"Renew":  func() error { return m.Renew(t.Context(), s) },
			"Login":  func() error { return m.Login(t.Context(), s, session.Terms{User: "ann"}) },
			"EndAll": func() error { _, err := m.EndAll(t.Context(), "ann"); return err },
			"Delete": func() error { return m.Delete(t.Context(), s.Token) },
		} {
			if err := call(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: %v", want, name, err)
			}
		}
		if _, ok, err := m.Get(t.Context(), s.Token); err != nil && !strings.Contains(err.Error(), want) || err == nil && !ok {
			t.Errorf("%s, Get: %v, %v", want, ok, err)
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
	t.Parallel()
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
		"Set":    func(ctx context.Context) error { begun.Value["n"]++; _, err := m.Set(ctx, begun); return err },
		"Renew":  func(ctx context.Context) error { return m.Renew(ctx, begun) },
		"Login":  func(ctx context.Context) error { return m.Login(ctx, begun, session.Terms{User: "ann"}) },
		"List":   func(ctx context.Context) error { _, err := m.List(ctx, "ann"); return err },
		"End":    func(ctx context.Context) error { _, err := m.End(ctx, "ann", begun.ID()); return err },
		"EndAll": func(ctx context.Context) error { _, err := m.EndAll(ctx, "ann"); return err },
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

// TestFullServer holds that on a server without room sessions are read, extended and ended, and that what needs room
// says so.
func TestFullServer(t *testing.T) {
	t.Parallel()
	server := valkeytest.Start(t)
	c := server.Client()
	m, err := session.New[map[string]string](c, session.Config{AskAlways: true, Timeout: patient})
	if err != nil {
		t.Fatal(err)
	}
	begin := func(idle time.Duration) *session.Session[map[string]string] {
		s, err := m.Begin(t.Context(), map[string]string{}, session.Terms{User: "ann", Idle: idle})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, other, third := begin(time.Hour), begin(time.Hour), begin(time.Hour)
	if _, err := m.EndAll(t.Context(), "bob"); err != nil { // the scripts are there
		t.Fatal(err)
	}
	if _, _, err := m.Get(t.Context(), s.Token); err != nil {
		t.Fatal(err)
	}
	if _, err := m.End(t.Context(), "ann", strings.Repeat("A", 22)); err != nil {
		t.Fatal(err)
	}
	key := "fr:sess:{" + s.Token[27:] + "}:" + s.ID()
	for _, words := range [][]string{{"PEXPIRE", key, "1000000"}, {"CONFIG", "SET", "maxmemory", "1mb"}} {
		if err := c.Do(t.Context(), c.B().Arbitrary(words...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Create(t.Context(), map[string]string{}); err == nil || !strings.Contains(err.Error(), "OOM") || !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("Create: %v", err)
	}
	s.Value["n"] = "1"
	if ok, err := m.Set(t.Context(), s); err == nil || ok {
		t.Errorf("Set: %v, %v", ok, err)
	}
	if _, ok, err := m.Get(t.Context(), s.Token); err != nil || !ok {
		t.Errorf("Get: %v, %v", ok, err)
	}
	if ms, err := c.Do(t.Context(), c.B().Pttl().Key(key).Build()).AsInt64(); err != nil || ms < 3_000_000 {
		t.Errorf("the idle time is not extended: %d ms, %v", ms, err)
	}
	if err := m.Delete(t.Context(), s.Token); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if n, err := m.EndOthers(t.Context(), third); err != nil || n != 1 {
		t.Errorf("EndOthers: %d, %v", n, err)
	}
	if n, err := m.EndAll(t.Context(), "ann"); err != nil || n != 1 {
		t.Errorf("EndAll: %d, %v", n, err)
	}
	for _, gone := range []*session.Session[map[string]string]{s, other, third} {
		if _, ok, err := m.Get(t.Context(), gone.Token); err != nil || ok {
			t.Errorf("afterwards: %v, %v", ok, err)
		}
	}
}

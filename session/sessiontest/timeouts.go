package sessiontest

import (
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
)

// absolute holds that a session ends however much it is used.
func absolute(t *testing.T, env valkeytest.Env) {
	m := manager[cart](t, env, session.Config{Absolute: time.Second})
	s := begin(t, m, cart{User: "ann"})
	forever, err := m.Begin(t.Context(), cart{}, session.Terms{Absolute: session.Never})
	if err != nil {
		t.Fatal(err)
	}
	if s.Absolute != time.Second || forever.Absolute != 0 || s.Idle != session.DefaultIdle {
		t.Errorf("%+v, %+v", s, forever)
	}
	for range 4 {
		env.Advance(250 * time.Millisecond)
		if _, _, err := m.Get(t.Context(), s.Token); err != nil {
			t.Fatal(err)
		}
		s.Value.Items = map[string]int{"n": len(s.Value.Items)}
		if _, err := m.Set(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	get(t, m, s.Token, false)
	get(t, m, forever.Token, true)
	if err := m.Renew(t.Context(), s); err == nil {
		t.Error("a session that has ended was renewed")
	}
}

// extending holds that a read extends the idle time, but only once a twentieth of it has passed.
func extending(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	const idle = 1000 * time.Second
	m := manager[cart](t, env, session.Config{Prefix: prefix, Idle: idle, AskAlways: true})
	s := begin(t, m, cart{User: "ann"})
	key, c := onlyKey(t, env.Client, prefix), env.Client
	for _, test := range []struct {
		left     int64 // s
		extended bool
	}{{1000, false}, {960, false}, {940, true}, {1, true}} {
		if err := c.Do(t.Context(), c.B().Pexpire().Key(key).Milliseconds(test.left*1000).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		get(t, m, s.Token, true)
		ms, err := c.Do(t.Context(), c.B().Pttl().Key(key).Build()).AsInt64()
		if want := test.left * 1000; err != nil || (ms > want) != test.extended || ms > 1_000_000 || test.extended && ms < 900_000 {
			t.Errorf("of %d s left there are %d ms after a read, %v", test.left, ms, err)
		}
	}
	if err := c.Do(t.Context(), c.B().Pexpire().Key(key).Milliseconds(1000).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	s.Value.User = "bob"
	save(t, m, s, true)
	if ms, err := c.Do(t.Context(), c.B().Pttl().Key(key).Build()).AsInt64(); err != nil || ms < 900_000 {
		t.Errorf("%d ms after a change, %v", ms, err)
	}
	own, err := m.Begin(t.Context(), cart{}, session.Terms{Idle: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	env.Advance(21 * time.Millisecond)
	get(t, m, own.Token, false)
}

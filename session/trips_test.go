package session_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// counting counts the calls of a client: each is one round trip.
type counting struct {
	valkey.Client
	trips atomic.Int64
}

func (c *counting) Do(ctx context.Context, cmd valkey.Completed) valkey.ValkeyResult {
	c.trips.Add(1)
	return c.Client.Do(ctx, cmd)
}

func (c *counting) DoMulti(ctx context.Context, multi ...valkey.Completed) []valkey.ValkeyResult {
	c.trips.Add(1)
	return c.Client.DoMulti(ctx, multi...)
}

// TestRoundTrips holds what the page says of each call.
func TestRoundTrips(t *testing.T) {
	client := &counting{Client: valkeytest.Start(t).Client()}
	m, err := session.New[map[string]int](client, session.Config{Timeout: patient})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	var s *session.Session[map[string]int]
	begin := func() error { s, err = m.Begin(ctx, map[string]int{}, session.Terms{User: "ann"}); return err }
	for _, warm := range []bool{false, true} { // the first time the scripts are loaded, and sent
		for _, step := range []struct {
			name string
			want int64
			call func() error
		}{
			{"Begin", 1, begin},
			{"Get", 1, func() error { _, _, err := m.Get(ctx, s.Token); return err }},
			{"Get of nothing", 0, func() error { _, _, err := m.Get(ctx, "x"); return err }},
			{"Set of nothing", 0, func() error { _, err := m.Set(ctx, s); return err }},
			{"Set", 1, func() error { s.Value["n"]++; _, err := m.Set(ctx, s); return err }},
			{"Renew", 1, func() error { return m.Renew(ctx, s) }},
			{"Login", 2, func() error { return m.Login(ctx, s, session.Terms{User: "bob"}) }},
			{"List", 2, func() error { _, err := m.List(ctx, "bob"); return err }},
			{"EndOthers", 1, func() error { _, err := m.EndOthers(ctx, s); return err }},
			{"End", 1, func() error { _, err := m.End(ctx, "bob", s.ID()); return err }},
			{"Begin", 1, begin},
			{"Delete", 1, func() error { return m.Delete(ctx, s.Token) }},
			{"Begin", 1, begin},
			{"EndAll", 2, func() error { _, err := m.EndAll(ctx, "ann"); return err }},
		} {
			client.trips.Store(0)
			if err := step.call(); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			if got := client.trips.Load(); got != step.want && warm {
				t.Errorf("%s: %d round trips, want %d", step.name, got, step.want)
			}
		}
	}
}

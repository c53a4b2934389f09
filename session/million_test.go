package session_test

import (
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
)

// TestMillion logs a user with 1,000 sessions out everywhere, among a million sessions of others, and lets the
// user's sessions expire. FLATRATE_SESSION_MILLION asks for the million; without it there are a few thousand.
func TestMillion(t *testing.T) {
	others, mine := 5_000, 1_000
	if os.Getenv("FLATRATE_SESSION_MILLION") != "" {
		others = 1_000_000
	}
	server := valkeytest.Start(t)
	client := &counting{Client: server.Client()}
	m, err := session.New[map[string]string](client, session.Config{Timeout: patient})
	if err != nil {
		t.Fatal(err)
	}
	value := map[string]string{"user": "somebody", "note": "a few bytes of what a session holds"}
	var next atomic.Int64
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(others); i = next.Add(1) {
				if _, err := m.Begin(t.Context(), value, session.Terms{User: strconv.FormatInt(i/3, 10)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	begin := func(idle time.Duration) (tokens []string) {
		for range mine {
			s, err := m.Begin(t.Context(), value, session.Terms{User: "ann", Idle: idle})
			if err != nil {
				t.Fatal(err)
			}
			tokens = append(tokens, s.Token)
		}
		return tokens
	}
	tokens := begin(0)
	if _, err := m.EndAll(t.Context(), "nobody"); err != nil { // the scripts are loaded
		t.Fatal(err)
	}
	if _, err := m.List(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.EndAll(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	client.trips.Store(0)
	before := time.Now()
	infos, err := m.List(t.Context(), "ann")
	if err != nil || len(infos) != mine {
		t.Fatalf("%d sessions, %v", len(infos), err)
	}
	t.Logf("list %d sessions among %d: %d round trips, %v", mine, others, client.trips.Load(), time.Since(before).Round(10*time.Microsecond))
	client.trips.Store(0)
	before = time.Now()
	n, err := m.EndAll(t.Context(), "ann")
	took := time.Since(before)
	if trips := client.trips.Load(); err != nil || n != mine || trips > 2 {
		t.Errorf("%d ended, %v, %d round trips", n, err, trips)
	}
	t.Logf("log out %d sessions among %d: %d round trips, %v", n, others, client.trips.Load(), took.Round(10*time.Microsecond))
	for _, token := range tokens {
		if _, ok, err := m.Get(t.Context(), token); err != nil || ok {
			t.Fatalf("a session lives: %v, %v", ok, err)
		}
	}
	key := "fr:sess:{" + tokens[0][27:] + "}:user"
	left := func() int64 {
		n, err := client.Do(t.Context(), client.B().Zcard().Key(key).Build()).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := left(); n != 0 {
		t.Errorf("the index has %d after the logout", n)
	}
	begin(500 * time.Millisecond)
	waitFor(t, "the end of the sessions, and of their index", func() bool { return left() == 0 })
}

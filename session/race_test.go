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
	"github.com/valkey-io/valkey-go"
)

// patient is a Config.Timeout for tests: a busy machine is not what they test.
const patient = 20 * time.Second

// trials is how often each race is run: FLATRATE_SESSION_RUNS says, make raced has ten thousand.
func trials(t *testing.T) int {
	if text := os.Getenv("FLATRATE_SESSION_RUNS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("FLATRATE_SESSION_RUNS=%q", text)
		}
		return n
	}
	return 300
}

// race does something at once in two processes, and returns how much of it went wrong.
type race func(t *testing.T, m, other *session.Manager[map[string]int]) (wrong int)

// TestRace runs each race on one server and on a cluster.
func TestRace(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) valkey.Client{
		"one":     func(t *testing.T) valkey.Client { return valkeytest.Start(t).Client() },
		"cluster": func(t *testing.T) valkey.Client { return valkeytest.Cluster(t, 3).Client() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := start(t)
			var managers [2]*session.Manager[map[string]int] // of two processes
			for i := range managers {
				cfg := session.Config{Timeout: patient}
				if i == 1 {
					cfg.Local = session.LocalTier{Entries: 1000}
				}
				var err error
				if managers[i], err = session.New[map[string]int](client, cfg); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(managers[i].Close)
			}
			t.Run("Logout", func(t *testing.T) { run(t, managers, raceLogout()) })
			t.Run("DistinctFields", func(t *testing.T) { run(t, managers, raceDistinctFields) })
			t.Run("Rotation", func(t *testing.T) { run(t, managers, raceRotation()) })
		})
	}
}

func run(t *testing.T, managers [2]*session.Manager[map[string]int], trial race) {
	t.Helper()
	n := trials(t)
	var wrong, left atomic.Int64
	left.Store(int64(n))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for left.Add(-1) >= 0 && !t.Failed() {
				wrong.Add(int64(trial(t, managers[0], managers[1])))
			}
		})
	}
	all.Wait()
	t.Logf("%d trials, %d wrong", n, wrong.Load())
	if wrong.Load() != 0 {
		t.Errorf("%d of %d trials went wrong", wrong.Load(), n)
	}
}

func began(t *testing.T, m *session.Manager[map[string]int], user string) *session.Session[map[string]int] {
	s, err := m.Begin(t.Context(), map[string]int{}, session.Terms{User: user})
	if err != nil {
		t.Error(err)
		return &session.Session[map[string]int]{}
	}
	return s
}

func alive(t *testing.T, m *session.Manager[map[string]int], token string) bool {
	_, ok, err := m.Get(t.Context(), token)
	if err != nil {
		t.Error(err)
	}
	return ok
}

// raceLogout logs a visitor out while other requests read, write and renew the session.
func raceLogout() race {
	var user atomic.Int64
	return func(t *testing.T, m, other *session.Manager[map[string]int]) (wrong int) {
		name := "u" + strconv.FormatInt(user.Add(1), 10)
		s := began(t, m, name)
		writing, ok, err := other.Get(t.Context(), s.Token)
		renewing, ok2, err2 := m.Get(t.Context(), s.Token)
		if err != nil || err2 != nil || !ok || !ok2 {
			t.Error(ok, err, ok2, err2)
			return 0
		}
		var all sync.WaitGroup
		all.Go(func() {
			var err error
			if user.Load()%2 == 0 {
				err = m.Delete(t.Context(), s.Token)
			} else {
				_, err = m.EndAll(t.Context(), name)
			}
			if err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			writing.Value["n"] = 1
			if _, err := other.Set(t.Context(), writing); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() { _ = m.Renew(t.Context(), renewing) }) // ErrEnded, or it was first
		all.Wait()
		writing.Value["n"] = 2
		if ok, err := other.Set(t.Context(), writing); err != nil || ok {
			wrong = 1
		}
		if alive(t, m, s.Token) || renewing.Token != "" && alive(t, m, renewing.Token) {
			wrong = 1
		}
		return wrong
	}
}

// raceDistinctFields has eight requests change a member each.
func raceDistinctFields(t *testing.T, m, other *session.Manager[map[string]int]) (lost int) {
	s := began(t, m, "")
	var all sync.WaitGroup
	for i := range 8 {
		who := m
		if i%2 == 1 {
			who = other
		}
		all.Go(func() {
			mine, ok, err := who.Get(t.Context(), s.Token)
			if err != nil || !ok {
				t.Error(ok, err)
				return
			}
			mine.Value[strconv.Itoa(i)] = i
			if ok, err := who.Set(t.Context(), mine); err != nil || !ok {
				t.Error(ok, err)
			}
		})
	}
	all.Wait()
	got, ok, err := m.Get(t.Context(), s.Token)
	if err != nil || !ok {
		t.Error(ok, err)
		return 0
	}
	return 8 - len(got.Value)
}

// raceRotation replaces a token, by a renewal or a login, while other requests with the old one read and write.
func raceRotation() race {
	var n atomic.Int64
	return func(t *testing.T, m, other *session.Manager[map[string]int]) (wrong int) {
		s := began(t, m, "")
		token, login := s.Token, n.Add(1)%2 == 0
		var all sync.WaitGroup
		var bad atomic.Int64
		for i := range 4 {
			who := m
			if i%2 == 1 {
				who = other
			}
			all.Go(func() {
				mine, ok, err := who.Get(t.Context(), token)
				if err != nil {
					t.Error(err)
					return
				}
				if !ok { // logged out by the rotation
					bad.Add(1)
					return
				}
				mine.Value[strconv.Itoa(i)] = i
				if ok, err := who.Set(t.Context(), mine); err != nil || !ok {
					t.Error(ok, err)
				}
			})
		}
		all.Go(func() {
			var err error
			if login {
				err = m.Login(t.Context(), s, session.Terms{User: "ann" + strconv.FormatInt(n.Load(), 10)})
			} else {
				err = m.Renew(t.Context(), s)
			}
			if err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		got, ok, err := m.Get(t.Context(), s.Token)
		if err != nil || !ok {
			t.Error(ok, err)
			return 0
		}
		if bad.Load() > 0 || len(got.Value) != 4 || s.Token == token {
			return 1
		}
		return 0
	}
}

package session_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

func localManager(t *testing.T, client valkey.Client, cfg session.Config) *session.Manager[map[string]int] {
	t.Helper()
	cfg.Timeout = patient
	if cfg.Local.Entries == 0 {
		cfg.Local.Entries = 1000
	}
	m, err := session.New[map[string]int](client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// settle reads until the local tier answers.
func settle(t *testing.T, client *counting, m *session.Manager[map[string]int], token string) {
	t.Helper()
	waitFor(t, "a local hit", func() bool {
		client.trips.Store(0)
		if _, ok, err := m.Get(t.Context(), token); err != nil || !ok {
			t.Fatal(ok, err)
		}
		return client.trips.Load() == 0
	})
}

// TestLocal holds that a read costs nothing, and that what others change and end is seen.
func TestLocal(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) valkey.Client{
		"valkey": func(t *testing.T) valkey.Client { return valkeytest.Start(t).Client() },
		"redis": func(t *testing.T) valkey.Client {
			return valkeytest.StartWith(t, valkeytest.Config{Binary: valkeytest.Redis}).Client()
		},
		"cluster": func(t *testing.T) valkey.Client { return valkeytest.Cluster(t, 3).Client() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := &counting{Client: start(t)}
			m, other := localManager(t, client, session.Config{}), localManager(t, client.Client, session.Config{})
			s, err := m.Begin(t.Context(), map[string]int{"n": 0}, session.Terms{User: "ann"})
			if err != nil {
				t.Fatal(err)
			}
			n := func() int {
				got, ok, err := m.Get(t.Context(), s.Token)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					return -1
				}
				return got.Value["n"]
			}
			for i := 1; i <= 5; i++ {
				settle(t, client, m, s.Token)
				theirs, ok, err := other.Get(t.Context(), s.Token)
				if err != nil || !ok {
					t.Fatal(ok, err)
				}
				theirs.Value["n"] = i
				if ok, err := other.Set(t.Context(), theirs); err != nil || !ok {
					t.Fatal(ok, err)
				}
				waitFor(t, "another's change", func() bool { return n() == i })
			}
			// One's own change, and end, is seen at once.
			settle(t, client, m, s.Token)
			mine, _, err := m.Get(t.Context(), s.Token)
			if err != nil {
				t.Fatal(err)
			}
			mine.Value["n"] = 10
			if ok, err := m.Set(t.Context(), mine); err != nil || !ok || n() != 10 {
				t.Errorf("%v, %v, %d", ok, err, n())
			}
			settle(t, client, m, s.Token)
			old := s.Token
			if err := m.Renew(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			settle(t, client, m, s.Token)
			if _, ok, err := m.Get(t.Context(), old); err != nil || !ok {
				t.Errorf("the old token in its grace: %v, %v", ok, err)
			}
			if _, err := other.EndAll(t.Context(), "ann"); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the logout by another", func() bool { return n() == -1 })
			if _, ok, err := m.Get(t.Context(), old); err != nil || ok {
				t.Errorf("the old token after the end: %v, %v", ok, err)
			}
			s, err = m.Create(t.Context(), map[string]int{})
			if err != nil {
				t.Fatal(err)
			}
			settle(t, client, m, s.Token)
			if err := m.Delete(t.Context(), s.Token); err != nil || n() != -1 {
				t.Errorf("%v, %d", err, n())
			}
		})
	}
}

// TestLocalEnds holds that a session is served no longer than it lives, and that the tier stays small.
func TestLocalEnds(t *testing.T) {
	client := &counting{Client: valkeytest.Start(t).Client()}
	m := localManager(t, client, session.Config{Absolute: time.Second, Local: session.LocalTier{Entries: 64}})
	s, err := m.Create(t.Context(), map[string]int{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	waitFor(t, "the end", func() bool { _, ok, err := m.Get(t.Context(), s.Token); return err == nil && !ok })
	if lived := time.Since(began); lived < 0 {
		t.Error(lived)
	}
	m = localManager(t, client, session.Config{Prefix: "small", Local: session.LocalTier{Entries: 1}})
	var tokens []string
	for range 500 {
		s, err := m.Create(t.Context(), map[string]int{})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, s.Token)
	}
	settle(t, client, m, tokens[0])
	for range 2 {
		client.trips.Store(0)
		for _, token := range tokens {
			if _, ok, err := m.Get(t.Context(), token); err != nil || !ok {
				t.Fatal(ok, err)
			}
		}
	}
	if hits := 500 - client.trips.Load(); hits > 64 {
		t.Errorf("%d of 500 are kept, of one for each stripe", hits)
	}
}

// TestLocalWithoutItsConnection cuts the connections: nothing is served that was not heard to be whole.
func TestLocalWithoutItsConnection(t *testing.T) {
	server := valkeytest.Start(t)
	client := &counting{Client: server.Client()}
	m := localManager(t, client, session.Config{})
	s, err := m.Create(t.Context(), map[string]int{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		settle(t, client, m, s.Token)
		admin := valkeytest.NewClient(t, server)
		if err := admin.Do(t.Context(), admin.B().Arbitrary("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, client, m, s.Token)
	// The client's own connection may only now be seen to be cut.
	waitFor(t, "a connection to flush by", func() bool { return client.Do(t.Context(), client.B().Flushall().Build()).Error() == nil })
	waitFor(t, "the flush", func() bool { _, ok, err := m.Get(t.Context(), s.Token); return err == nil && !ok })
}

// TestLocalRefused is a server whose user may not use CLIENT TRACKING: every read asks.
func TestLocalRefused(t *testing.T) {
	server := valkeytest.Start(t)
	admin := server.Client()
	if err := admin.Do(t.Context(), admin.B().Arbitrary("ACL", "SETUSER", "default", "-client|tracking").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	plain, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{server.Socket}, DialCtxFn: valkeytest.DialUnix, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plain.Close)
	client := &counting{Client: plain}
	m := localManager(t, client, session.Config{})
	s, err := m.Create(t.Context(), map[string]int{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		client.trips.Store(0)
		if _, ok, err := m.Get(t.Context(), s.Token); err != nil || !ok || client.trips.Load() != 1 {
			t.Errorf("%v, %v, %d round trips", ok, err, client.trips.Load())
		}
	}
}

// TestReadIsShared reads through the middleware with a local tier, from many requests at once.
func TestReadIsShared(t *testing.T) {
	var s *site
	handlers := usual(t, &s)
	s = open(t, valkeytest.Start(t).Client(), session.Config{Local: session.LocalTier{Entries: 100}}, handlers)
	b := s.browser(t)
	s.get(t, b, "/login?user=ann")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				if _, body, _ := s.get(t, b, "/read"); body != "ann true <nil>" {
					t.Errorf("%q", body)
				}
			}
		})
	}
	all.Wait()
	s.get(t, b, "/cart?item=pear")
	if _, body, _ := s.get(t, b, "/whoami"); body != "ann 1" {
		t.Errorf("%q", body)
	}
	s.get(t, b, "/logout")
	if _, body, _ := s.get(t, b, "/read"); body != " false <nil>" {
		t.Errorf("%q", body)
	}
}

// TestJitter holds that idle times are shortened, and by how much at most.
func TestJitter(t *testing.T) {
	m := localManager(t, valkeytest.Start(t).Client(), session.Config{Idle: 100 * time.Second, Jitter: 0.5})
	seen := map[time.Duration]bool{}
	for range 100 {
		s, err := m.Create(t.Context(), map[string]int{})
		if err != nil {
			t.Fatal(err)
		}
		if s.Idle < 50*time.Second || s.Idle > 100*time.Second {
			t.Errorf("idle time %v", s.Idle)
		}
		seen[s.Idle] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different idle times of 100", len(seen))
	}
}

// TestTagSecret holds that tags are another's without the secret, and that all works with it.
func TestTagSecret(t *testing.T) {
	c := valkeytest.Start(t).Client()
	with := localManager(t, c, session.Config{TagSecret: []byte("0123456789abcdef")})
	without := localManager(t, c, session.Config{})
	var tags []string
	for _, m := range []*session.Manager[map[string]int]{with, with, without} {
		s, err := m.Begin(t.Context(), map[string]int{}, session.Terms{User: "ann"})
		if err != nil || !s.OfUser() {
			t.Fatal(s, err)
		}
		tags = append(tags, s.Token[27:])
	}
	if tags[0] != tags[1] || tags[1] == tags[2] {
		t.Error(tags)
	}
	if n, err := with.EndAll(t.Context(), "ann"); err != nil || n != 2 {
		t.Error(n, err)
	}
}

// TestHooks are told what the results don't show.
func TestHooks(t *testing.T) {
	var mu sync.Mutex
	var heard []string
	var read, written []int
	hear := func(what string) func(string) {
		return func(id string) { mu.Lock(); heard = append(heard, what+" "+strconv.Itoa(len(id))); mu.Unlock() }
	}
	m := localManager(t, valkeytest.Start(t).Client(), session.Config{Hooks: session.Hooks{
		Created: hear("created"), Ended: hear("ended"),
		Read: func(bytes int) { read = append(read, bytes) }, Written: func(bytes int) { written = append(written, bytes) },
		Renewed: func(old, id string) { hear("renewed")(old); hear("to")(id) },
	}})
	s, err := m.Create(t.Context(), map[string]int{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Renew(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	s.Value["n"] = 1
	if ok, err := m.Set(t.Context(), s); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if _, ok, err := m.Get(t.Context(), s.Token); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := m.Delete(t.Context(), s.Token); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := m.Get(t.Context(), s.Token); err != nil || ok {
		t.Fatal(ok, err)
	}
	if fmt.Sprint(read, written) != "[84 0] [79 84 1]" {
		t.Errorf("read %d, written %d", read, written)
	}
	if got := strings.Join(heard, ", "); got != "created 22, renewed 22, to 22, ended 22" {
		t.Error(got)
	}
}

// TestMapsOfVisitors holds that a visitor's empty value is one that can be written to.
func TestMapsOfVisitors(t *testing.T) {
	m := localManager(t, valkeytest.Start(t).Client(), session.Config{})
	w := recordWith(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := m.Load(r.Context())
		if err != nil {
			t.Error(err)
			return
		}
		s.Value["n"] = 1
		fmt.Fprint(w, "ok")
	})))
	if w.Header().Get("Set-Cookie") == "" || w.Body.String() != "ok" {
		t.Errorf("%v, %q", w.Header(), w.Body)
	}
}

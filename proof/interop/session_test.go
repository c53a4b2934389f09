package interop

import (
	"reflect"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
)

var sessionLanguages = []language{
	{"node", []string{"node", "node/session.mjs"}, []string{"node", "--input-type=module", "-e", "import './node/node_modules/iovalkey/built/index.js'; import './node/node_modules/express/index.js'"},
		"node 20 with express and iovalkey is missing: cd proof/interop/node && npm ci"},
	{"python", []string{"python3", "python/session.py"}, []string{"python3", "-c", "import redis"},
		"python3 with its client is missing: apt-get install python3-redis, or pip install redis"},
	{"python", []string{"/usr/bin/python3", "python/session.py"}, []string{"/usr/bin/python3", "-c", "import redis"}, ""},
}

// TestSessionVectors holds the recipes against the test vectors. Go's is in package session.
func TestSessionVectors(t *testing.T) {
	for _, l := range installed(t, sessionLanguages) {
		server := valkeytest.Start(t)
		if r := l.run(t.Context(), t, "vectors", server.Socket); r.Keys == 0 || r.Steps == 0 {
			t.Errorf("%s: %d keys, %d steps", l.name, r.Keys, r.Steps)
		}
	}
}

// TestSessionsAreShared lets each language read and change a session of Go's, and Go one of theirs.
func TestSessionsAreShared(t *testing.T) {
	for _, l := range installed(t, sessionLanguages) {
		client := valkeytest.Start(t)
		m, err := session.New[map[string]any](client.Client(), session.Config{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.Begin(t.Context(), map[string]any{"user": "ann", "cart": map[string]any{"pear": 2}, "note": "é <&> \"\n"}, session.Terms{User: "ann", Device: "D"})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.AddFlash("not the recipe's"); err != nil {
			t.Fatal(err)
		}
		if ok, err := m.Set(t.Context(), s); err != nil || !ok {
			t.Fatal(ok, err)
		}
		r := l.run(t.Context(), t, "share", client.Socket, s.Token)
		for token, want := range map[string]map[string]any{
			s.Token: {"user": "ann", "theme": "dark", "note": "é <&> \"\n"},
			r.Token: {"user": "bob", "cart": map[string]any{"fig": 2.0}},
		} {
			got, ok, err := m.Get(t.Context(), token)
			if err != nil || !ok || !reflect.DeepEqual(got.Value, want) {
				t.Errorf("%s: %v, %v, %v; want %v", l.name, got, ok, err, want)
			}
		}
		infos, err := m.List(t.Context(), "bob")
		if err != nil || len(infos) == 0 || !strings.Contains(r.Token, ".") {
			t.Errorf("%s: %v, %v", l.name, infos, err)
		}
		if n, err := m.EndAll(t.Context(), "bob"); err != nil || n != len(infos) {
			t.Errorf("%s: %d, %v", l.name, n, err)
		}
	}
}

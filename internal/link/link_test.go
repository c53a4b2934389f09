package link

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/internal/breaker"
	"github.com/flatrate/flatrate/internal/patience"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

const limit = 20 * time.Second

var echo = script.New("#!lua flags=no-writes\n-- KEYS[1]  any\n-- ARGV[1]  what to answer\n-- reply    ARGV[1]\nlocal _ = KEYS[1]\nreturn ARGV[1]\n")

func newLink(client valkey.Client) *Link {
	l := &Link{Client: client, Wait: patience.Patience{Most: 300 * time.Millisecond}}
	l.Each(func(b *breaker.Breaker) { b.Timeout = 50 * time.Millisecond })
	return l
}

func get(l *Link, key string) valkey.Completed { return l.Client.B().Get().Key(key).Build() }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, limit)
		}
		<-time.After(time.Millisecond)
	}
}

func away(err error) bool { return err != nil && strings.Contains(err.Error(), "the server is away") }

// TestAway holds that one call finds out, that the next ones are not made, and that all is well once the server answers again.
func TestAway(t *testing.T) {
	for name, how := range map[string]struct{ begin, end func(*valkeytest.Server) }{
		"stopped": {(*valkeytest.Server).Pause, (*valkeytest.Server).Resume},
		"killed":  {(*valkeytest.Server).Kill, (*valkeytest.Server).Restart},
	} {
		t.Run(name, func(t *testing.T) {
			s := valkeytest.Start(t)
			l := newLink(s.Client())
			if err := l.Do(t.Context(), "k", get(l, "k")).Error(); !valkey.IsValkeyNil(err) {
				t.Fatal(err)
			}
			how.begin(s)
			if err := l.Do(t.Context(), "k", get(l, "k")).Error(); err == nil || away(err) {
				t.Errorf("the call that finds out: %v", err)
			}
			for _, err := range []error{
				l.Do(t.Context(), "k", get(l, "k")).Error(), l.Exec(t.Context(), echo, []string{"k"}, "a").Error(),
				l.Execs(t.Context(), script.Call{Script: echo, Keys: []string{"k"}, Args: []string{"a"}})[0].Error(),
			} {
				if !away(err) {
					t.Errorf("a call after it: %v", err)
				}
			}
			how.end(s)
			eventually(t, "the server is back", func() bool { return l.Away("k") == nil })
			if v, err := l.Exec(t.Context(), echo, []string{"k"}, "a").ToString(); v != "a" || err != nil {
				t.Errorf("%q, %v", v, err)
			}
		})
	}
}

// TestAnswered holds that what the server refuses, and a caller who goes, do not count as a server that is away.
func TestAnswered(t *testing.T) {
	s := valkeytest.Start(t)
	l := newLink(s.Client())
	if err := l.Do(t.Context(), "k", l.Client.B().Lpush().Key("k").Element("a").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if err := l.Do(t.Context(), "k", get(l, "k")).Error(); err == nil || !Answered(err) {
		t.Errorf("a wrong type: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Do(gone, "k", get(l, "k")).Error(); err == nil || Answered(err) {
		t.Errorf("a caller who has gone: %v", err)
	}
	eventually(t, "the server that answers is not away", func() bool { return l.Away("k") == nil })
	if err := l.Do(t.Context(), "k", get(l, "k")).Error(); away(err) {
		t.Error(err)
	}
}

// TestParts holds that a node of a cluster that is gone keeps no calls from the others.
func TestParts(t *testing.T) {
	nodes := valkeytest.ClusterWith(t, 3, valkeytest.Config{Args: []string{"--cluster-require-full-coverage", "no"}})
	l := newLink(nodes.Client())
	var gone, there string
	for _, key := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
		cmd := get(l, key)
		switch slot := cmd.Slot(); {
		case slot < 5<<10: // of the first node, and of no part that the second one has some of
			gone = key
		case slot > 12<<10:
			there = key
		}
	}
	for _, key := range []string{gone, there} {
		if v, err := l.Exec(t.Context(), echo, []string{key}, key).ToString(); v != key || err != nil {
			t.Fatalf("%q, %v", v, err)
		}
	}
	nodes.Servers[0].Kill()
	eventually(t, "its part is away", func() bool {
		_ = l.Do(t.Context(), gone, get(l, gone)).Error()
		return l.Away(gone) != nil
	})
	eventually(t, "the others answer", func() bool {
		results := l.Execs(t.Context(), script.Call{Script: echo, Keys: []string{gone}, Args: []string{"a"}},
			script.Call{Script: echo, Keys: []string{there}, Args: []string{"b"}})
		v, err := results[1].ToString()
		return results[0].Error() != nil && v == "b" && err == nil
	})
	nodes.Servers[0].Restart()
	eventually(t, "its part is back", func() bool {
		return l.Away(gone) == nil && Answered(l.Do(t.Context(), gone, get(l, gone)).Error())
	})
}

package session_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
)

// TestStore is what scs and gorilla ask of it; they themselves are in proof and contrib.
func TestStore(t *testing.T) {
	t.Parallel()
	valkeytest.Each(t, func(t *testing.T, env valkeytest.Env) {
		s, err := session.NewStore(env.Client, session.StoreConfig{Prefix: valkeytest.Prefix(t), Timeout: patient})
		if err != nil {
			t.Fatal(err)
		}
		find := func(token, want string, there bool) {
			t.Helper()
			if b, ok, err := s.Find(token); err != nil || ok != there || string(b) != want {
				t.Errorf("Find(%.30s) = %q, %v, %v; want %q, %v", token, b, ok, err, want, there)
			}
		}
		commit := func(token, text string, left time.Duration) {
			t.Helper()
			if err := s.Commit(token, []byte(text), time.Now().Add(left)); err != nil {
				t.Error(err)
			}
		}
		find("one", "", false)
		commit("one", "1\x00", time.Minute)
		commit("one", "-", time.Minute)
		commit("", "", time.Minute)
		find("one", "-", true)
		find("", "", true)
		commit("short", "x", 20*time.Millisecond)
		env.Advance(21 * time.Millisecond)
		find("short", "", false)
		all, err := s.All()
		if err != nil || len(all) != 2 {
			t.Fatalf("%q, %v", all, err)
		}
		for name, b := range all {
			find(name, string(b), true)
			if other, err := session.NewStore(env.Client, session.StoreConfig{}); err != nil {
				t.Error(err)
			} else if _, ok, err := other.Find(name); ok || err != nil {
				t.Errorf("another process takes the name: %v, %v", ok, err)
			}
			find(name[:len(name)-1], "", false)
			if err := s.Delete(name); err != nil {
				t.Error(err)
			}
		}
		find("one", "", false)
		commit("one", "back", time.Minute) // of a request that was under way
		find("one", "", false)
		if err := s.Delete("never there"); err != nil {
			t.Error(err)
		}
		commit("never there", "x", time.Minute)
		find("never there", "", false)
		commit("past", "x", time.Minute)
		commit("past", "x", -time.Minute)
		find("past", "", false)
		if err := s.Commit("big", make([]byte, 1<<20), time.Now().Add(time.Minute)); !errors.Is(err, session.ErrTooLarge) {
			t.Error(err)
		}
		if all, err := s.All(); err != nil || len(all) != 0 {
			t.Errorf("%q, %v", all, err)
		}
		var both sync.WaitGroup
		for range 50 {
			commit("raced"+t.Name(), "x", time.Minute)
			both.Go(func() { commit("raced"+t.Name(), "y", time.Minute) })
			both.Go(func() {
				if err := s.Delete("raced" + t.Name()); err != nil {
					t.Error(err)
				}
			})
			both.Wait()
			find("raced"+t.Name(), "", false)
		}
	})
}

func TestNewStoreNamesTheField(t *testing.T) {
	c := valkeytest.Start(t).Client()
	for want, cfg := range map[string]session.StoreConfig{
		"StoreConfig.Prefix": {Prefix: "{"}, "StoreConfig.Remember": {Remember: 1}, "StoreConfig.MaxBytes": {MaxBytes: 1}, "StoreConfig.Timeout": {Timeout: 1},
	} {
		if _, err := session.NewStore(c, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if _, err := session.NewStore(nil, session.StoreConfig{}); err == nil {
		t.Error("a nil client was accepted")
	}
}

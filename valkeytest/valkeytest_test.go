package valkeytest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

func TestEachAnswers(t *testing.T) {
	valkeytest.Each(t, func(t *testing.T, env valkeytest.Env) {
		ctx := t.Context()
		c, key := env.Client, valkeytest.Prefix(t)
		if err := c.Do(ctx, c.B().Set().Key(key).Value("1").Px(50*time.Millisecond).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		env.Advance(51 * time.Millisecond)
		if n, err := c.Do(ctx, c.B().Exists().Key(key).Build()).AsInt64(); err != nil || n != 0 {
			t.Fatalf("the key outlived its 50 ms on the server's clock: %d, %v", n, err)
		}
	})
}

func TestRestartKeepsTheFolder(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})
	ctx, c := t.Context(), s.Client()
	if err := c.Do(ctx, c.B().Set().Key("k").Value("kept").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	before := s.Pid()
	s.Restart()
	if s.Pid() == before {
		t.Fatal("still the same process")
	}
	if v, err := c.Do(ctx, c.B().Get().Key("k").Build()).ToString(); err != nil || v != "kept" {
		t.Fatalf("after the restart: %q, %v", v, err)
	}
}

func TestPauseAnswersNothing(t *testing.T) {
	s := valkeytest.Start(t)
	c := s.Client()
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Do(ctx, c.B().Ping().Build()).Error(); err == nil {
		t.Fatal("a stopped server answered")
	}
	s.Resume()
	if err := c.Do(t.Context(), c.B().Ping().Build()).Error(); err != nil {
		t.Fatalf("after the stop: %v", err)
	}
}

func TestTLSAndPassword(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TLS: true, Password: "secret"})
	if s.CAFile == "" || !strings.HasPrefix(s.Addr, "127.0.0.1:") {
		t.Fatalf("ca %q, addr %q", s.CAFile, s.Addr)
	}
	if err := s.Client().Do(t.Context(), s.Client().B().Ping().Build()).Error(); err != nil {
		t.Fatal(err)
	}
}

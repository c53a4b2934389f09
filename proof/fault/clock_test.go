package fault

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
)

// shifted starts a server whose wall clock is ahead of ours by shift; step sets it to another one while
// the server runs. The test is skipped where that can't be done.
func shifted(t *testing.T, binaryName string, shift time.Duration, args ...string) (s *valkeytest.Server, step func(time.Duration)) {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("no gcc on the PATH: a server's clock can't be shifted without it")
	}
	dir := t.TempDir()
	library := filepath.Join(dir, "clock.so")
	out, err := exec.Command("gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, "testdata/clock.c").CombinedOutput()
	if err != nil {
		t.Fatalf("compile testdata/clock.c: %v\n%s", err, out)
	}
	file := filepath.Join(dir, "shift")
	step = func(shift time.Duration) {
		var b [8]byte
		binary.NativeEndian.PutUint64(b[:], uint64(shift.Microseconds()))
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)
		if err == nil {
			_, err = f.WriteAt(b[:], 0)
			_ = f.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}
	step(shift)
	program := filepath.Join(dir, binaryName)
	script := fmt.Sprintf("#!/bin/sh\nCLOCK_SHIFT='%s' LD_PRELOAD='%s' exec %s \"$@\"\n", file, library, binaryName)
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s = valkeytest.StartWith(t, valkeytest.Config{Binary: program, Args: args})
	mustBeOff(t, s, shift)
	return s, step
}

// mustBeOff fails the test unless the server's clock is ahead by about shift: a shim that does nothing
// would let every test pass.
func mustBeOff(t *testing.T, s *valkeytest.Server, shift time.Duration) {
	t.Helper()
	c := s.Client()
	now, err := c.Do(t.Context(), c.B().Time().Build()).AsIntSlice()
	if err != nil {
		t.Fatal(err)
	}
	if off := time.Until(time.Unix(now[0], now[1]*1000)); off < shift-10*time.Second || off > shift+10*time.Second {
		t.Fatalf("the server's clock is off by %v, not by %v", off, shift)
	}
}

var aof = []string{"--appendonly", "yes", "--appendfsync", "always"}

// TestClockOffset runs holders that are cut off, and a server that is stopped and killed, whose clock is
// a minute ahead of theirs, or behind.
func TestClockOffset(t *testing.T) {
	if os.Getenv("FLATRATE_FAULT") == "" {
		t.Skip("a part of make fault")
	}
	for _, program := range []string{valkeytest.Valkey, valkeytest.Redis} {
		for _, shift := range []time.Duration{time.Minute, -time.Minute} {
			t.Run(fmt.Sprint(program, shift), func(t *testing.T) {
				server, _ := shifted(t, program, shift, aof...)
				c := campaign{server: server, locker: flatrateLock, ttl: time.Second, faults: 150, serverFaults: true}
				all, seen := c.run(t)
				mustBeOff(t, server, shift)
				all.mustExclude(t)
				if seen.stuck+seen.passedOver != 0 {
					t.Errorf("waits of more than %v: %d", patience, seen.stuck+seen.passedOver)
				}
			})
		}
	}
}

// TestClientClockDoesNotCount is the third defect of the anchors: one sends the time of day at which its
// lock ends, so that a server whose clock is ahead gives it to everybody.
func TestClientClockDoesNotCount(t *testing.T) {
	for _, shift := range []time.Duration{10 * time.Second, time.Minute, -time.Minute} {
		server, _ := shifted(t, valkeytest.Valkey, shift)
		l, err := lock.New(server.Client(), lock.Config{TTL: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		held, ok, err := l.TryAcquire(t.Context(), "one")
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		if _, ok, err := l.TryAcquire(t.Context(), "one"); ok || err != nil {
			t.Errorf("clock off by %v: a second holder: %v, %v", shift, ok, err)
		}
		if err := held.Extend(t.Context(), 0); err != nil {
			t.Errorf("clock off by %v: extend: %v", shift, err)
		}
		c := server.Client()
		left, err := c.Do(t.Context(), c.B().Arbitrary("PTTL").Keys("fr:lock:{474}:own:one").Build()).AsInt64()
		if err != nil || left <= 0 || left > 5000 {
			t.Errorf("clock off by %v: the lock ends in %d ms, not in 5 s; %v", shift, left, err)
		}
		if err := held.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func atoi(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

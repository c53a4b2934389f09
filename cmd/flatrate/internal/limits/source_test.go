package limits_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/limits"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
)

const (
	basic = "  basic: {limits: [{limit: %d, window: 1h}]}\n"
	other = "  other: {quota: {limit: 3, period: DAY}}\n"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestReload changes a file by hand, with a real server behind the plans.
func TestReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plans.yaml")
	var changed [][]string
	var failed []error
	var log bytes.Buffer
	cfg := limits.Config{
		Client: valkeytest.Start(t).Client(), Prefix: valkeytest.Prefix(t),
		Changed: func(names []string) { changed = append(changed, names) },
		Failed:  func(err error) { failed = append(failed, err) },
		Logger:  slog.New(slog.NewTextHandler(&log, nil)),
	}
	if _, err := limits.Open(path, cfg); !os.IsNotExist(err) {
		t.Errorf("without a file: %v", err)
	}
	write(t, path, "plans: {}")
	if _, err := limits.Open(path, cfg); err == nil || !strings.Contains(err.Error(), "plans.yaml:1:8: there is no plan") {
		t.Errorf("without a plan: %v", err)
	}
	write(t, path, "plans:\n"+fmt.Sprintf(basic, 2)+other)
	s, err := limits.Open(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	allow := func(plan string, want bool) *ratelimit.Limiter {
		t.Helper()
		l, ok := s.Plan(plan)
		if !ok {
			t.Fatalf("no plan %s", plan)
		}
		if r, err := l.Allow(t.Context(), "anna"); err != nil || r.Allowed != want {
			t.Errorf("%s: %+v %v, want %v", plan, r, err, want)
		}
		return l
	}
	allow("basic", true)
	first := allow("basic", true)
	allow("basic", false)
	kept := allow("other", true)

	write(t, path, "plans:\n"+fmt.Sprintf(basic, 3)+other)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if allow("basic", true) == first { // what was counted still counts
		t.Error("the limiter is the old one")
	}
	allow("basic", false)
	if allow("other", true) != kept {
		t.Error("a plan that did not change has a new limiter")
	}

	for _, bad := range []string{"plans:\n  basic: {limits: [{limit: 0, window: 1h}]}\n", "", "plans: ["} {
		write(t, path, bad)
		if err := s.Reload(); err == nil || s.Err() == nil || s.Err().Error() != err.Error() {
			t.Errorf("%q: %v, then %v", bad, err, s.Err())
		}
		allow("basic", false)
	}
	os.Remove(path)
	if err := s.Reload(); !os.IsNotExist(err) || !os.IsNotExist(s.Err()) {
		t.Errorf("%v, %v", err, s.Err())
	}

	write(t, path, "plans:\n"+other+"  new: {quota: {limit: 1, period: DAY}}\n")
	if err := s.Reload(); err != nil || s.Err() != nil {
		t.Errorf("%v, %v", err, s.Err())
	}
	if _, ok := s.Plan("basic"); ok || !slices.Equal(s.Names(), []string{"new", "other"}) {
		t.Errorf("%v", s.Names())
	}
	want := [][]string{{"basic"}, {"basic", "new"}}
	if len(failed) != 4 || !slices.EqualFunc(changed, want, slices.Equal) {
		t.Errorf("%d failures, changes %v", len(failed), changed)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 4 || strings.Count(log.String(), "level=INFO") != 2 {
		t.Errorf("%d errors in\n%s", n, log.String())
	}
}

// TestChangeUnderLoad changes the file again and again while callers use the plan: no caller is without one, each
// file that is in force is one that was written whole, and bad ones in between change nothing.
func TestChangeUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plans.yaml")
	write(t, path, "plans:\n"+fmt.Sprintf(basic, 1_000_001))
	failures := make(chan error, 100)
	changes := make(chan []string, 100)
	s, err := limits.Open(path, limits.Config{
		Client: valkeytest.Start(t).Client(), Prefix: valkeytest.Prefix(t), Poll: 2 * time.Millisecond,
		Failed: func(err error) { failures <- err }, Changed: func(names []string) { changes <- names },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { s.Run(ctx) })
	var asked atomic.Int64
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				l, ok := s.Plan("basic")
				if !ok {
					t.Error("no plan")
					return
				}
				if n := l.Limits()[0].Limit; n < 1_000_001 || n > 1_000_010 {
					t.Errorf("a limit of %d was never written", n)
				}
				if r, err := l.Allow(ctx, "anna"); ctx.Err() == nil && err == nil && !r.Allowed {
					t.Errorf("%+v %v", r, err)
				}
				asked.Add(1)
			}
		})
	}
	// Written beside and renamed: what is written in place could be seen half-written twice on a slow machine.
	replace := func(text string) {
		write(t, path+".new", text)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	for i := 2; i <= 10; i++ {
		replace("plans:\n  basic: {limits: [{limit: oops")
		if err := <-failures; !strings.Contains(err.Error(), "no valid YAML") {
			t.Error(err)
		}
		if s.Err() == nil {
			t.Error("the failure is forgotten")
		}
		replace("plans:\n" + fmt.Sprintf(basic, 1_000_000+i))
		if names := <-changes; !slices.Equal(names, []string{"basic"}) {
			t.Error(names)
		}
		if l, _ := s.Plan("basic"); l.Limits()[0].Limit != int64(1_000_000+i) || s.Err() != nil {
			t.Errorf("limit %d, error %v", l.Limits()[0].Limit, s.Err())
		}
	}
	cancel()
	all.Wait()
	t.Logf("%d decisions over 9 reloads", asked.Load())
	if asked.Load() == 0 {
		t.Error("no load")
	}
}

func TestOpenNamesTheField(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plans.yaml")
	write(t, path, "plans:\n"+other)
	client := valkeytest.Start(t).Client()
	for want, cfg := range map[string]limits.Config{
		"Config.Client": {},
		"Config.Poll":   {Client: client, Poll: 1},
		"Config.Prefix": {Client: client, Prefix: "a b"},
	} {
		if _, err := limits.Open(path, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

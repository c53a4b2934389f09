package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

const forever = 10 * 365 * 24 * time.Hour

func testConfig(prefix string) Config {
	return Config{
		Limit: 20, Window: forever, Idle: forever, TTL: forever, BodyMax: 100, SessionBytes: 64, Prefix: prefix, Workers: 8,
	}
}

func sampleLog(t *testing.T, lines int) *bytes.Buffer {
	t.Helper()
	var log bytes.Buffer
	if err := usage.Sample(&log, 6, lines); err != nil {
		t.Fatal(err)
	}
	return &log
}

// TestCompressed runs on every kind of server: what needs no clock is exact, and no key is left.
func TestCompressed(t *testing.T) {
	const lines = 2000
	used := map[string]int64{}
	browsers := map[browser]bool{}
	var want Counts
	for entry, err := range usage.ReadLog(sampleLog(t, lines)) {
		if err != nil {
			t.Fatal(err)
		}
		if used[entry.Address]++; used[entry.Address] > 20 {
			want.Denied++
			continue
		}
		want.Allowed++
		want.Reads++
		if who := (browser{entry.Address, entry.UserAgent}); !browsers[who] {
			browsers[who] = true
			want.Created++
		}
		if entry.Method == "GET" || entry.Method == "HEAD" {
			want.Lookups++
		}
	}
	valkeytest.Each(t, func(t *testing.T, env valkeytest.Env) {
		ctx, client, prefix := t.Context(), env.Client, valkeytest.Prefix(t)
		if err := client.Do(ctx, client.B().Set().Key(prefix+"other").Value("stays").Build()).Error(); err != nil {
			t.Fatal(err)
		}
		before, err := UsedMemory(ctx, client)
		if err != nil || before <= 0 {
			t.Fatalf("used_memory %d, %v", before, err)
		}
		out, err := Run(ctx, client, testConfig(prefix), usage.ReadLog(sampleLog(t, lines)))
		if err != nil {
			t.Fatal(err)
		}
		got := out.Counts
		if got.Hits+got.Misses != got.Lookups || got.Hits == 0 || got.Misses == 0 {
			t.Errorf("%d hits and %d misses of %d look-ups", got.Hits, got.Misses, got.Lookups)
		}
		got.Hits, got.Misses = 0, 0
		if got != want {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if out.Requests != lines || out.Commands < lines || out.Elapsed <= 0 || out.Latency.P50 <= 0 || out.Latency.P99 < out.Latency.P50 {
			t.Errorf("%+v", out)
		}
		if n := keys(t, client); n < 100 {
			t.Errorf("only %d keys after the replay", n)
		}
		if err := RemoveKeys(ctx, client, prefix); err != nil {
			t.Fatal(err)
		}
		if n := keys(t, client); n != 1 {
			t.Errorf("%d keys are left, want the one of somebody else", n)
		}
	})
}

// keys counts the keys of all masters.
func keys(t *testing.T, client valkey.Client) (n int64) {
	t.Helper()
	err := eachMaster(t.Context(), client, func(node valkey.Client) error {
		size, err := node.Do(t.Context(), node.B().Dbsize().Build()).AsInt64()
		n += size
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestServerFails replays against clients that stop answering: the error comes back, and nothing hangs.
func TestServerFails(t *testing.T) {
	client := valkeytest.Start(t).Client()
	gone := errors.New("the server is gone")
	for _, after := range []int64{0, 1, 500, 1001} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			failing := &failing{Client: client, err: gone}
			failing.set(after)
			_, err := Run(t.Context(), failing, testConfig(valkeytest.Prefix(t)), usage.ReadLog(sampleLog(t, 1000)))
			if !errors.Is(err, gone) {
				t.Errorf("%v", err)
			}
			cfg := testConfig(valkeytest.Prefix(t))
			cfg.Advance = func(time.Time) {}
			failing.set(after)
			if _, err = Run(t.Context(), failing, cfg, usage.ReadLog(sampleLog(t, 1000))); !errors.Is(err, gone) {
				t.Errorf("in log time: %v", err)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	client := valkeytest.Start(t).Client()
	for _, inLogTime := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		log := func(yield func(usage.Entry, error) bool) {
			for entry, err := range usage.ReadLog(sampleLog(t, 1000)) {
				if n++; n == 300 {
					cancel()
				}
				if !yield(entry, err) {
					return
				}
			}
		}
		cfg := testConfig(valkeytest.Prefix(t))
		if inLogTime {
			cfg.Advance = func(time.Time) {}
		}
		out, err := Run(ctx, client, cfg, log)
		if !errors.Is(err, context.Canceled) || out.Requests >= 300 {
			t.Errorf("after %d requests: %v", out.Requests, err)
		}
	}
}

// TestErrorsAreNamedOnce lets each command of a replay fail in turn: no error says twice where it comes from.
func TestErrorsAreNamedOnce(t *testing.T) {
	client := &failing{Client: valkeytest.Start(t).Client(), err: errors.New("the wire is cut")}
	ofCache := 0
	for left := range int64(12) {
		cfg := testConfig(valkeytest.Prefix(t))
		cfg.Workers = 1
		client.set(left)
		_, err := Run(t.Context(), client, cfg, usage.ReadLog(sampleLog(t, 50)))
		if err == nil || strings.Count(err.Error(), ":") != 2 && !strings.HasPrefix(err.Error(), "ratelimit: ") {
			t.Errorf("command %d: %v", left, err)
		}
		if err != nil && strings.HasPrefix(err.Error(), "cache: ") {
			ofCache++
		}
	}
	if ofCache < 2 {
		t.Errorf("%d errors of the cache", ofCache)
	}
}

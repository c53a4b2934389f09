package valkeytest

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"
)

// Env is one kind of server that a conformance suite runs against.
type Env struct {
	Client valkey.Client
	// Advance returns when d has passed on the server's clock: a real server is waited for, an
	// embedded engine is driven.
	Advance func(d time.Duration)
	// Embedded is set for an in-process engine that lacks some commands: blocks must do without them.
	Embedded bool
}

// Each runs a suite as parallel subtests: on Valkey, on Redis, on a cluster of one node (which
// rejects keys of different slots in one call) and on one of three (which redirects).
func Each(t *testing.T, suite func(t *testing.T, env Env)) {
	t.Helper()
	kinds := []struct {
		name  string
		start func(t *testing.T) valkey.Client
	}{
		{"valkey", func(t *testing.T) valkey.Client { return Start(t).Client() }},
		{"redis", func(t *testing.T) valkey.Client { return StartWith(t, Config{Binary: Redis}).Client() }},
		{"cluster1", func(t *testing.T) valkey.Client { return Cluster(t, 1).Client() }},
		{"cluster3", func(t *testing.T) valkey.Client { return Cluster(t, 3).Client() }},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			client := kind.start(t)
			suite(t, Env{Client: client, Advance: func(d time.Duration) { advance(t, client, d) }})
		})
	}
}

// Prefix returns a key prefix that no other test uses.
func Prefix(tb testing.TB) string {
	tb.Helper()
	return "test-" + rand.Text()[:10]
}

// advance waits until d has passed on the clock of every node.
func advance(tb testing.TB, client valkey.Client, d time.Duration) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d+startTimeout)
	defer cancel()
	begin := map[string]time.Time{}
	for addr, node := range client.Nodes() {
		begin[addr] = serverTime(ctx, tb, node)
	}
	for addr, node := range client.Nodes() {
		for {
			left := d - serverTime(ctx, tb, node).Sub(begin[addr])
			if left <= 0 {
				break
			}
			select {
			case <-time.After(left):
			case <-ctx.Done():
				tb.Fatalf("valkeytest: the server's clock did not move by %v", d)
			}
		}
	}
}

func serverTime(ctx context.Context, tb testing.TB, client valkey.Client) time.Time {
	tb.Helper()
	parts, err := client.Do(ctx, client.B().Time().Build()).AsIntSlice()
	if err != nil || len(parts) != 2 {
		tb.Fatalf("valkeytest: TIME: %v %v", parts, err)
	}
	return time.Unix(parts[0], parts[1]*1000)
}

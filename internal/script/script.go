// Package script runs the Lua scripts that the building blocks embed.
//
// Every script begins with a #!lua line and names its KEYS, its ARGV and its reply in the comments
// below it; [Check] holds it to that. docs/adr/0004-lua-shebang.md says why.
package script

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"
)

// patience bounds the loading of a script for callers whose context does not.
const patience = 2 * time.Second

// Script is one embedded script. It is safe for concurrent use, with any number of clients.
type Script struct {
	source string
	// sha is the script's SHA-1 as a server computed it, so that a program restricted to FIPS algorithms
	// can import the blocks. It is the same on all servers: no call waits for another one to learn it, since
	// that one's server may be away.
	sha atomic.Pointer[string]
}

// New makes a Script of its source. Nothing is sent until the first Exec.
func New(source string) *Script { return &Script{source: source} }

// Exec runs the script: one round trip, after a first one per process that loads it, and one more
// wherever a server (after a restart, or another node of a cluster) doesn't have it yet. It is never
// sent twice to a server that may have run it. The loading ends with ctx, and after 2 s at most.
func (s *Script) Exec(ctx context.Context, client valkey.Client, keys []string, args ...string) valkey.ValkeyResult {
	sha := s.sha.Load()
	if sha == nil {
		var err error
		if sha, err = s.load(ctx, client); err != nil {
			return valkey.NewErrorResult(err)
		}
	}
	run := client.B().Evalsha().Sha1(*sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	result := client.Do(ctx, run)
	if err, ok := valkey.IsValkeyErr(result.Error()); ok && err.IsNoScript() {
		return s.Eval(ctx, client, keys, args...)
	}
	return result
}

func (s *Script) load(ctx context.Context, client valkey.Client) (*string, error) {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	load := client.B().ScriptLoad().Script(s.source).Build()
	if client.Mode() == valkey.ClientModeCluster {
		load = load.ToRetryable() // any node will do, also when the first one asked is gone
	}
	sha, err := client.Do(bounded, load).ToString()
	switch {
	case err == nil:
		s.sha.Store(&sha)
		return &sha, nil
	case bounded.Err() != nil && ctx.Err() == nil:
		return nil, fmt.Errorf("the script was not loaded within %v: %w", patience, err)
	}
	return nil, err
}

// Eval runs the script in one round trip, in which the whole script is sent: for one connection.
func (s *Script) Eval(ctx context.Context, conn valkey.CoreClient, keys []string, args ...string) valkey.ValkeyResult {
	return conn.Do(ctx, conn.B().Eval().Script(s.source).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build())
}

// ExecOn runs the script on one connection of client, as Exec does on client.
func (s *Script) ExecOn(ctx context.Context, client valkey.Client, conn valkey.CoreClient, keys []string, args ...string) valkey.ValkeyResult {
	sha := s.sha.Load()
	if sha == nil {
		var err error
		if sha, err = s.load(ctx, client); err != nil {
			return valkey.NewErrorResult(err)
		}
	}
	run := conn.B().Evalsha().Sha1(*sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	result := conn.Do(ctx, run)
	if err, ok := valkey.IsValkeyErr(result.Error()); ok && err.IsNoScript() {
		return s.Eval(ctx, conn, keys, args...)
	}
	return result
}

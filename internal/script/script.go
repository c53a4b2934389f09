// Package script runs the Lua scripts that the building blocks embed.
//
// Every script begins with a #!lua line and names its KEYS, its ARGV and its reply in the comments
// below it; [Check] holds it to that. docs/adr/0004-lua-shebang.md says why.
package script

import (
	"context"
	"sync/atomic"

	"github.com/valkey-io/valkey-go"
)

// Script is one embedded script. It is safe for concurrent use.
type Script struct {
	source string
	lua    *valkey.Lua
	loaded atomic.Bool
	// loading is held by the one call that loads the script: valkey.Lua would queue the others on a
	// mutex, where a server that doesn't answer keeps them past their context.
	loading chan struct{}
}

// New makes a Script of its source. Nothing is sent and nothing is hashed until the first Exec: the
// server computes the SHA-1, so that a program restricted to FIPS algorithms can import the blocks.
func New(source string) *Script {
	return &Script{
		source:  source,
		lua:     valkey.NewLuaScript(source, valkey.WithLoadSHA1(true)),
		loading: make(chan struct{}, 1),
	}
}

// Exec runs the script: one round trip, after a first one per process that loads it, and one more
// wherever a server (after a restart, or another node of a cluster) doesn't have it yet. It is never
// sent twice to a server that may have run it.
func (s *Script) Exec(ctx context.Context, client valkey.Client, keys []string, args ...string) valkey.ValkeyResult {
	if !s.loaded.Load() {
		select {
		case s.loading <- struct{}{}:
		case <-ctx.Done():
			return valkey.NewErrorResult(ctx.Err())
		}
		if !s.loaded.Load() {
			defer func() { <-s.loading }()
			result := s.lua.Exec(ctx, client, keys, args)
			if err := result.Error(); err == nil || valkey.IsValkeyNil(err) {
				s.loaded.Store(true)
			}
			return result
		}
		<-s.loading
	}
	return s.lua.Exec(ctx, client, keys, args)
}

// Eval runs the script in one round trip, in which the whole script is sent: for one connection, and
// for a call that must not wait until another one has loaded the script.
func (s *Script) Eval(ctx context.Context, conn valkey.CoreClient, keys []string, args ...string) valkey.ValkeyResult {
	return conn.Do(ctx, conn.B().Eval().Script(s.source).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build())
}

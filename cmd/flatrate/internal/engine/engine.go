// Package engine runs an embedded server inside the process, on a clock that the caller drives. It is for trying things out and
// for replaying logs in their own time: nothing is kept. It prints nothing.
package engine

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/valkey-io/valkey-go"
)

// Engine is an embedded server with one client.
type Engine struct {
	server *miniredis.Miniredis
	client valkey.Client
	now    time.Time // zero until the first Advance: the server then runs on the wall clock
}

// New starts an engine. It listens on no port.
func New() (*Engine, error) {
	embedded := miniredis.NewMiniRedis()
	started, err := embedded.Dial() // there is no server to hook into before somebody dials
	if err != nil {
		return nil, fmt.Errorf("embedded engine: %w", err)
	}
	embedded.Server().SetPreHook(hideShebang)
	_ = started.Close()

	client, err := valkey.NewClient(valkey.ClientOption{
		InitAddress:       []string{"embedded"},
		DisableCache:      true, // no CLIENT TRACKING
		ForceSingleClient: true, // no CLUSTER SLOTS
		DialCtxFn: func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
			return embedded.Dial()
		},
	})
	if err != nil {
		embedded.Close()
		return nil, fmt.Errorf("embedded engine: %w", err)
	}
	return &Engine{server: embedded, client: client}, nil
}

// Client returns the engine's client. Close closes it.
func (e *Engine) Client() valkey.Client { return e.client }

// Advance moves the clock to an instant: TIME answers it, and what expires until then is gone. The clock never goes back, so an
// earlier instant changes nothing. It costs time in proportion to the keys, so don't call it for less than a log can tell apart.
func (e *Engine) Advance(to time.Time) {
	if !e.now.IsZero() && !to.After(e.now) {
		return
	}
	e.server.SetTime(to)
	if !e.now.IsZero() {
		e.server.FastForward(to.Sub(e.now))
	}
	e.now = to
}

// Close ends the client and the server.
func (e *Engine) Close() {
	e.client.Close()
	e.server.Close()
}

// hideShebang comments out the first line of scripts that start with #!lua, which the embedded server can't read. Scripts keep
// their line numbers; their SHA is another one, as SCRIPT LOAD answers.
func hideShebang(_ *server.Peer, command string, args ...string) bool {
	script := -1
	switch strings.ToUpper(command) {
	case "EVAL", "EVAL_RO":
		script = 0
	case "SCRIPT":
		if len(args) > 0 && strings.EqualFold(args[0], "load") {
			script = 1
		}
	}
	if script >= 0 && script < len(args) && strings.HasPrefix(args[script], "#!lua") {
		args[script] = "--" + args[script]
	}
	return false // the command still has to run
}

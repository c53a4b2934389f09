// Package engine runs an embedded server inside the process, on a clock that the caller drives. It is for trying things out and
// for replaying logs in their own time: nothing is kept. It prints nothing.
package engine

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/valkey-io/valkey-go"
)

// Engine is an embedded server with one client.
type Engine struct {
	server  *miniredis.Miniredis
	client  valkey.Client
	clients sync.Map                    // the connections: a script's calls come from others
	running atomic.Pointer[server.Peer] // whose command the hook runs

	mu     sync.Mutex // held while a command runs, or the clock moves
	now    time.Time  // zero until the first Advance: the server then runs on the wall clock
	expiry *expiry
}

// New starts an engine. It listens on no port.
func New() (*Engine, error) {
	embedded := miniredis.NewMiniRedis()
	started, err := embedded.Dial() // there is no server to hook into before somebody dials
	if err != nil {
		return nil, fmt.Errorf("embedded engine: %w", err)
	}
	e := &Engine{server: embedded, expiry: newExpiry(embedded)}
	embedded.Server().SetPreHook(e.hook)
	_ = started.Close()

	e.client, err = valkey.NewClient(valkey.ClientOption{
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
	return e, nil
}

// Client returns the engine's client. Close closes it.
func (e *Engine) Client() valkey.Client { return e.client }

// Advance moves the clock to an instant: TIME answers it, and what expires until then is gone. The clock never goes back, so an
// earlier instant changes nothing. It costs time in proportion to the keys that expire.
func (e *Engine) Advance(to time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.now.IsZero() && !to.After(e.now) {
		return
	}
	e.server.SetTime(to)
	if !e.now.IsZero() {
		e.expiry.pass(to.Sub(e.now))
	}
	e.now = to
}

// Close ends the client and the server.
func (e *Engine) Close() {
	e.client.Close()
	e.server.Close()
}

// hook runs a command between telling the server what is left of the TTLs of the keys that it names, and learning what it made of
// them. Any word may be a key; scripts name theirs, as a cluster demands.
func (e *Engine) hook(c *server.Peer, command string, args ...string) (done bool) {
	hideShebang(command, args)
	if command == "HELLO" { // which the client says first on each connection, and a script can't
		if _, again := e.clients.LoadOrStore(c, true); !again {
			c.OnDisconnect(func() { e.clients.Delete(c) })
		}
	}
	_, outside := e.clients.Load(c)
	if !outside && fieldTTL[command] { // in a script, under whose lock this is
		e.expiry.fields = true
	}
	if !outside || e.running.Load() == c || waits[command] {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running.Store(c)
	defer e.running.Store(nil)
	tell, learn := func() { each(args, e.expiry.tell) }, func() { each(args, e.expiry.learn) }
	switch command {
	case "EXEC", "FLUSHALL", "FLUSHDB": // what they touch stands elsewhere
		tell, learn = e.expiry.tellAll, e.expiry.learnAll
	case "SELECT", "MOVE", "SWAPDB":
		c.WriteError("ERR the embedded engine has one database")
		return true
	}
	e.expiry.fields = e.expiry.fields || fieldTTL[command]
	tell()
	e.server.Server().Dispatch(c, append([]string{command}, args...))
	learn()
	return true
}

// waits has the commands that may wait for others, and so can't keep them out. None of them changes a TTL.
var waits = map[string]bool{
	"BLPOP": true, "BRPOP": true, "BLMOVE": true, "BRPOPLPUSH": true, "BLMPOP": true, "BZPOPMIN": true, "BZPOPMAX": true,
	"BZMPOP": true, "XREAD": true, "XREADGROUP": true, "WAIT": true,
	"PUBLISH": true, "SPUBLISH": true, "SUBSCRIBE": true, "PSUBSCRIBE": true, "SSUBSCRIBE": true,
}

// fieldTTL has the commands that give a TTL to a field of a hash: the embedded server's, and those that it may get.
var fieldTTL = map[string]bool{
	"HEXPIRE": true, "HPEXPIRE": true, "HEXPIREAT": true, "HPEXPIREAT": true, "HSETEX": true, "HGETEX": true,
}

func each(words []string, do func(string)) {
	for _, word := range words {
		do(word)
	}
}

// hideShebang comments out the first line of scripts that start with #!lua, which the embedded server can't read. Scripts keep
// their line numbers; their SHA is another one, as SCRIPT LOAD answers.
func hideShebang(command string, args []string) {
	script := -1
	switch command {
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
}

package flatrate

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valkey-io/valkey-go"
)

const (
	firstRedial = 4 * time.Millisecond
	lastRedial  = 250 * time.Millisecond
)

// dial connects to host:port, or to a socket if addr is a path.
func dial(ctx context.Context, addr string, d *net.Dialer, cfg *tls.Config) (net.Conn, error) {
	if strings.HasPrefix(addr, "/") {
		return d.DialContext(ctx, "unix", addr)
	}
	if cfg == nil {
		return d.DialContext(ctx, "tcp", addr)
	}
	return (&tls.Dialer{NetDialer: d, Config: cfg}).DialContext(ctx, "tcp", addr)
}

// dialer opens the connections of one client. Until the client is live, all of them end with
// Connect's context: valkey.NewClient has none of its own. After that it keeps the calls of a busy
// process from dialling a dead server at full speed: between two failed attempts there is a pause,
// in which calls fail at once.
type dialer struct {
	live atomic.Bool

	mu   sync.Mutex
	dead map[string]failure
}

type failure struct {
	err   error
	times int
	until time.Time
}

// newDialer puts a dialer around the one that opt has.
func newDialer(connect context.Context, opt *valkey.ClientOption) *dialer {
	d := &dialer{dead: map[string]failure{}}
	next := opt.DialCtxFn
	if next == nil {
		next = dial
	}
	whileConnecting := func(cut func()) (stop func() bool) {
		return context.AfterFunc(connect, func() {
			if !d.live.Load() {
				cut()
			}
		})
	}
	opt.DialCtxFn = func(ctx context.Context, addr string, nd *net.Dialer, cfg *tls.Config) (net.Conn, error) {
		if err := d.pausing(addr); err != nil {
			return nil, err
		}
		dialing, cancel := context.WithCancel(ctx)
		defer cancel()
		defer whileConnecting(cancel)()
		conn, err := next(dialing, addr, nd, cfg)
		if ctx.Err() == nil { // else it says nothing about the server
			d.note(addr, err)
		}
		if err != nil {
			return nil, err
		}
		whileConnecting(func() { _ = conn.Close() })
		return &yielding{Conn: conn}, nil
	}
	return d
}

// pausing returns the last attempt's error if it is too early for the next one.
func (d *dialer) pausing(addr string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.dead[addr]; d.live.Load() && time.Now().Before(f.until) {
		return f.err
	}
	return nil
}

func (d *dialer) note(addr string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		delete(d.dead, addr)
		return
	}
	n := d.dead[addr].times
	d.dead[addr] = failure{err: err, times: n + 1, until: time.Now().Add(backoff(n, firstRedial, lastRedial))}
}

// yielding lets the other goroutines run after each write, so that the calls they are about to make
// leave in one next write: under load the system calls are what a command costs, here and in the
// server. Unlike a delay (valkey-go's MaxFlushDelay) it costs nothing when there is nobody to wait
// for; a sleep of 20 us lasts up to a millisecond in an idle process.
//
// A connection that one caller uses is written and read in turns, by the caller itself; there a
// yield would be in the way. The first write during a read shows that calls are pipelined, from then on.
type yielding struct {
	net.Conn
	reading, pipelined atomic.Bool
}

func (c *yielding) Read(b []byte) (int, error) {
	if c.pipelined.Load() {
		return c.Conn.Read(b)
	}
	c.reading.Store(true)
	defer c.reading.Store(false)
	return c.Conn.Read(b)
}

func (c *yielding) Write(b []byte) (int, error) {
	pipelined := c.pipelined.Load() || c.reading.Load()
	n, err := c.Conn.Write(b)
	if pipelined {
		c.pipelined.Store(true)
		runtime.Gosched()
	}
	return n, err
}

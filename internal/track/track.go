// Package track hears from the servers which keys have changed (CLIENT TRACKING in broadcast mode): what the local
// tiers of the blocks stand on.
package track

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"
)

const (
	beat      = 250 * time.Millisecond // between two questions whether a connection still stands
	beatLimit = 400 * time.Millisecond // for the answer: with beat, what a lost connection costs
	again     = 50 * time.Millisecond  // before the next attempt to connect, doubling ...
	lastAgain = 400 * time.Millisecond // ... up to this: whole within a second
)

// ErrRefused is what Standing gets where a server will never tell.
var ErrRefused = errors.New("the server refuses CLIENT TRACKING")

// Tracker hears from every node what changes under some prefixes, each on a connection of its own. While
// one is missing it is deaf. All fields are set before Start.
type Tracker struct {
	Client   valkey.Client
	Prefixes []string
	Log      *slog.Logger
	Block    string // begins the lines of the log
	Changed  func(keys []string)
	Doubt    func()                      // nobody knows what has changed: FLUSHALL, or the connection has ended
	Clear    func()                      // all changes are heard from now on
	Standing func(whole bool, err error) // ErrRefused: never

	ctx  context.Context //nolint:containedctx // it ends what New began
	quit context.CancelFunc
	all  sync.WaitGroup

	mu    sync.Mutex
	nodes map[string]*node
}

// node is one connection.
type node struct {
	quit   context.CancelFunc
	stands bool
}

// Start begins to listen.
func (t *Tracker) Start() {
	t.ctx, t.quit = context.WithCancel(context.Background())
	t.nodes = map[string]*node{}
	t.look()
	t.all.Go(func() {
		ticker := time.NewTicker(beat)
		defer ticker.Stop()
		for {
			select {
			case <-t.ctx.Done():
				return
			case <-ticker.C:
				t.look()
			}
		}
	})
}

// Close ends what Start began, and waits for it.
func (t *Tracker) Close() {
	t.quit()
	t.all.Wait()
}

// look follows the nodes that there are.
func (t *Tracker) look() {
	there := t.Client.Nodes()
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, client := range there {
		if t.nodes[addr] == nil {
			ctx, quit := context.WithCancel(t.ctx)
			n := &node{quit: quit}
			t.nodes[addr] = n
			t.all.Go(func() { t.follow(ctx, addr, n, client) })
		}
	}
	for addr, n := range t.nodes {
		if there[addr] == nil {
			n.quit()
			delete(t.nodes, addr)
		}
	}
	t.tell(nil)
}

// tell says whether all nodes are heard. The caller has the mutex.
func (t *Tracker) tell(err error) {
	whole := len(t.nodes) > 0
	for _, n := range t.nodes {
		whole = whole && n.stands
	}
	t.Standing(whole, err)
}

func (t *Tracker) set(n *node, stands bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.stands = stands
	t.tell(err)
}

// follow keeps the connection to one node.
func (t *Tracker) follow(ctx context.Context, addr string, n *node, client valkey.Client) {
	pause := again
	for ctx.Err() == nil {
		stood, err := t.listen(ctx, n, client)
		if ctx.Err() != nil {
			return
		}
		t.Doubt()
		t.set(n, false, err)
		t.Log.Warn(t.Block+": changes are not heard", "node", addr, "err", err)
		if errors.Is(err, ErrRefused) {
			return
		}
		if stood {
			pause = again
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, lastAgain)
	}
}

// listen is deaf no longer once it has told so, until the connection ends or does not answer.
func (t *Tracker) listen(ctx context.Context, n *node, client valkey.Client) (stood bool, err error) {
	conn, release := client.Dedicate()
	// What is tracked belongs to the connection: nobody else may get it.
	defer release()
	defer conn.Close()
	// The callback must not send anything: it runs where the answers are read.
	ended := conn.SetOnInvalidations(t.heard)
	tracking := []string{"TRACKING", "ON", "BCAST"}
	for _, prefix := range t.Prefixes {
		tracking = append(tracking, "PREFIX", prefix)
	}
	if err := t.ask(ctx, conn, "TRACKING", "OFF"); err != nil { // of what the client may have asked for
		return false, err
	}
	if err := t.ask(ctx, conn, tracking...); err != nil {
		return false, err
	}
	t.Clear() // what has changed meanwhile was not heard
	t.set(n, true, nil)
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case err = <-ended:
			if err == nil {
				err = errors.New("the connection has ended")
			}
			return true, err
		case <-ctx.Done():
			return true, ctx.Err()
		case <-ticker.C:
			bounded, cancel := context.WithTimeout(ctx, beatLimit)
			err := conn.Do(bounded, conn.B().Ping().Build()).Error()
			cancel()
			if _, said := valkey.IsValkeyErr(err); err != nil && !said {
				return true, err
			}
		}
	}
}

func (t *Tracker) ask(ctx context.Context, conn valkey.DedicatedClient, words ...string) error {
	ctx, cancel := context.WithTimeout(ctx, beatLimit)
	defer cancel()
	err := conn.Do(ctx, conn.B().Arbitrary("CLIENT").Args(words...).Build()).Error()
	if refused, ok := valkey.IsValkeyErr(err); ok && !strings.HasPrefix(refused.Error(), "LOADING") {
		return errors.Join(ErrRefused, err)
	}
	return err
}

// heard gets the keys that have changed.
func (t *Tracker) heard(messages []valkey.ValkeyMessage) {
	if messages == nil { // FLUSHALL, or the connection has ended
		t.Doubt()
		return
	}
	keys := make([]string, 0, len(messages))
	for _, m := range messages {
		name, err := m.ToString()
		if err != nil {
			t.Doubt()
			return
		}
		keys = append(keys, name)
	}
	t.Changed(keys)
}

package cache

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

var errRefused = errors.New("the server refuses CLIENT TRACKING")

// tracker hears from every node what changes under some prefixes, each on a connection of its own. While
// one is missing it is deaf.
type tracker struct {
	client   valkey.Client
	prefixes []string
	log      *slog.Logger
	changed  func(keys []string)
	doubt    func()                      // nobody knows what has changed: FLUSHALL, or the connection has ended
	clear    func()                      // all changes are heard from now on
	standing func(whole bool, err error) // errRefused: never

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

func (t *tracker) start() {
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

func (t *tracker) close() {
	t.quit()
	t.all.Wait()
}

// look follows the nodes that there are.
func (t *tracker) look() {
	there := t.client.Nodes()
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
func (t *tracker) tell(err error) {
	whole := len(t.nodes) > 0
	for _, n := range t.nodes {
		whole = whole && n.stands
	}
	t.standing(whole, err)
}

func (t *tracker) set(n *node, stands bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.stands = stands
	t.tell(err)
}

// follow keeps the connection to one node.
func (t *tracker) follow(ctx context.Context, addr string, n *node, client valkey.Client) {
	pause := again
	for ctx.Err() == nil {
		stood, err := t.listen(ctx, n, client)
		if ctx.Err() != nil {
			return
		}
		t.doubt()
		t.set(n, false, err)
		t.log.Warn("cache: changes are not heard", "node", addr, "err", err)
		if errors.Is(err, errRefused) {
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
func (t *tracker) listen(ctx context.Context, n *node, client valkey.Client) (stood bool, err error) {
	conn, release := client.Dedicate()
	// What is tracked belongs to the connection: nobody else may get it.
	defer release()
	defer conn.Close()
	// The callback must not send anything: it runs where the answers are read.
	ended := conn.SetOnInvalidations(t.heard)
	tracking := []string{"TRACKING", "ON", "BCAST"}
	for _, prefix := range t.prefixes {
		tracking = append(tracking, "PREFIX", prefix)
	}
	if err := t.ask(ctx, conn, "TRACKING", "OFF"); err != nil { // of what the client may have asked for
		return false, err
	}
	if err := t.ask(ctx, conn, tracking...); err != nil {
		return false, err
	}
	t.clear() // what has changed meanwhile was not heard
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
			if !answered(err) {
				return true, err
			}
		}
	}
}

func (t *tracker) ask(ctx context.Context, conn valkey.DedicatedClient, words ...string) error {
	ctx, cancel := context.WithTimeout(ctx, beatLimit)
	defer cancel()
	err := conn.Do(ctx, conn.B().Arbitrary("CLIENT").Args(words...).Build()).Error()
	if refused, ok := valkey.IsValkeyErr(err); ok && !strings.HasPrefix(refused.Error(), "LOADING") {
		return errors.Join(errRefused, err)
	}
	return err
}

// heard gets the keys that have changed.
func (t *tracker) heard(messages []valkey.ValkeyMessage) {
	if messages == nil { // FLUSHALL, or the connection has ended
		t.doubt()
		return
	}
	keys := make([]string, 0, len(messages))
	for _, m := range messages {
		name, err := m.ToString()
		if err != nil {
			t.doubt()
			return
		}
		keys = append(keys, name)
	}
	t.changed(keys)
}

// listenToChanges begins to keep the local tier coherent.
func (c *Cache[V]) listenToChanges() {
	entries, tags := c.keys.entries.Head(), c.keys.tags.Head()
	if c.client.Mode() != valkey.ClientModeCluster {
		c.breakers[0].Opened = func(error) { c.local.down.Store(!c.closed.Load()) }
		c.breakers[0].Closed = func() { c.local.down.Store(false); c.returned() }
	}
	c.tracker = &tracker{
		client: c.client, log: c.cfg.Logger, prefixes: []string{entries, tags},
		doubt: c.local.doubt, clear: c.local.clear,
		changed: func(names []string) {
			for _, name := range names {
				if entry, ok := strings.CutPrefix(name, entries); ok {
					c.local.drop(strings.TrimSuffix(entry, "}"))
				} else if tag, ok := strings.CutPrefix(name, tags); ok {
					c.local.dropTag(strings.TrimSuffix(tag, "}"))
				}
			}
		},
		standing: func(whole bool, err error) {
			switch {
			case errors.Is(err, errRefused):
				c.local.limit.Store(int64(pollEvery))
				c.polls.Store(true)
			case err != nil && !whole && c.client.Mode() != valkey.ClientModeCluster:
				// The first to notice that the server is away: no call has to.
				c.breakers[0].Open(err, c.probe(c.keys.late))
			}
			c.local.whole.Store(whole || c.polls.Load())
		},
	}
	c.tracker.start()
}

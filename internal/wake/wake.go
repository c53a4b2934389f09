// Package wake tells the waiters of this process that what they wait for has happened: one
// subscription per client, however many wait.
//
// A message may be lost, as when the connection breaks. So a wake-up says "ask again", and every waiter asks
// again by itself after [Waiter.Fallback]. What its own process knows for sure it is told by [Tell].
package wake

import (
	"context"
	"crypto/rand"
	"reflect"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"
)

const (
	linger    = 10 * time.Second      // how long an unused subscription is kept
	asking    = time.Second           // the fallback of a waiter that would be told
	deaf      = 20 * time.Millisecond // and of one that would not, doubling ...
	deafest   = 80 * time.Millisecond // ... up to this: a grant waits for 100 ms
	firstWait = 5 * time.Millisecond  // between two attempts to subscribe, doubling ...
	lastWait  = time.Second           // ... up to this
)

// Grant is what a waiter may be told by its own process. The zero value says: ask again.
type Grant struct {
	Fence uint64
	Sent  time.Time // of the call that the server granted it in
}

// Waiter is one who waits. It is not safe for concurrent use.
type Waiter struct {
	// Woken receives when the id was published, when the subscription broke or stood again, and what
	// [Tell] has for the id.
	Woken <-chan Grant

	hub  *hub
	id   string
	deaf time.Duration // the last fallback while the subscription does not stand
}

// hub is the subscription of one client. It is there while somebody waits, and a little longer.
type hub struct {
	place
	channel string
	quit    context.CancelFunc
	first   chan struct{} // closed once the subscription stands, or could not be made

	mu      sync.Mutex
	waiters map[string]chan Grant
	heard   bool // the subscription stands
	idle    *time.Timer
}

var (
	mu   sync.RWMutex // taken before a hub's
	hubs = map[place]*hub{}
)

// place is where a subscription is: blocks with their own prefix have their own channel.
type place struct {
	client valkey.Client
	prefix string
}

// Join registers a waiter under an id that nobody else has. It returns once the subscription stands
// or could not be made, or ctx has ended. The waiter calls Leave when it waits no longer.
//
// A client whose value is not comparable gets a subscription for each waiter.
func Join(ctx context.Context, client valkey.Client, prefix, id string) *Waiter {
	h, woken := join(place{client, prefix}, id)
	select {
	case <-h.first:
	case <-ctx.Done():
	}
	return &Waiter{Woken: woken, hub: h, id: id}
}

// Channel is where the id has to be published.
func (w *Waiter) Channel() string { return w.hub.channel }

// Fallback is how long to sleep at most before asking again.
func (w *Waiter) Fallback() time.Duration {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	if w.hub.heard {
		w.deaf = 0
		return asking
	}
	w.deaf = min(max(deaf, 2*w.deaf), deafest)
	return w.deaf
}

// Leave ends the wait.
func (w *Waiter) Leave() {
	h := w.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waiters, w.id)
	if len(h.waiters) == 0 {
		h.idle = time.AfterFunc(linger, h.stop)
	}
}

func join(at place, id string) (*hub, <-chan Grant) {
	mu.Lock()
	defer mu.Unlock()
	shared := comparable(at.client)
	var h *hub
	if shared {
		h = hubs[at]
	}
	if h == nil {
		running, quit := context.WithCancel(context.Background())
		h = &hub{
			place:   at,
			channel: at.prefix + ":wake:" + rand.Text()[:16],
			quit:    quit,
			first:   make(chan struct{}),
			waiters: map[string]chan Grant{},
		}
		if shared {
			hubs[at] = h
		}
		go h.run(running)
	}
	woken := make(chan Grant, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiters[id] = woken
	if h.idle != nil {
		h.idle.Stop()
		h.idle = nil
	}
	return h, woken
}

// stop ends the subscription unless somebody has joined since.
func (h *hub) stop() {
	mu.Lock()
	defer mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiters) > 0 {
		return
	}
	h.quit()
	if comparable(h.client) && hubs[h.place] == h {
		delete(hubs, h.place)
	}
}

func (h *hub) run(ctx context.Context) {
	wait := firstWait
	for ctx.Err() == nil {
		if h.subscribe(ctx) {
			wait = firstWait
		}
		h.broken()
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, lastWait)
	}
}

// subscribe keeps the subscription until it breaks or ctx ends; stood says whether it ever stood.
func (h *hub) subscribe(ctx context.Context) (stood bool) {
	conn, release := h.client.Dedicate()
	defer release()
	standing := make(chan struct{})
	var once sync.Once
	ended := conn.SetPubSubHooks(valkey.PubSubHooks{
		OnMessage:      func(m valkey.PubSubMessage) { h.wake(m.Message) },
		OnSubscription: func(valkey.PubSubSubscription) { once.Do(func() { close(standing) }) },
	})
	if conn.Do(ctx, conn.B().Subscribe().Channel(h.channel).Build()).Error() != nil {
		return false
	}
	select {
	case <-standing:
	case <-ended: //nolint:errcheck // whatever ended it, it is made anew
		return false
	case <-ctx.Done():
		return false
	}
	h.stands()
	select {
	case <-ended: //nolint:errcheck // as above
	case <-ctx.Done():
	}
	return true
}

func (h *hub) stands() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard = true
	h.release()
	h.wakeAll() // who joined while it did not stand may have missed a message
}

func (h *hub) broken() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard = false
	h.release()
	h.wakeAll()
}

// release lets those go on that wait for the first attempt.
func (h *hub) release() {
	select {
	case <-h.first:
	default:
		close(h.first)
	}
}

func (h *hub) wakeAll() {
	for _, c := range h.waiters {
		poke(c)
	}
}

func (h *hub) wake(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c, ok := h.waiters[id]; ok {
		poke(c)
	}
}

func poke(c chan Grant) {
	select {
	case c <- Grant{}:
	default: // it has not heard the last one yet
	}
}

// Channel is where the waiters of client are woken; "" if it has none, or a value that is not comparable.
func Channel(client valkey.Client, prefix string) string {
	if h := find(client, prefix); h != nil {
		return h.channel
	}
	return ""
}

// Tell tells the waiter of an id, if it still waits, what the server answered to somebody else.
func Tell(client valkey.Client, prefix, id string, what Grant) {
	h := find(client, prefix)
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.waiters[id]
	if !ok {
		return
	}
	select {
	case <-c: // it knows more now than that it should ask
	default:
	}
	c <- what
}

// All tells all waiters of client to ask again.
func All(client valkey.Client, prefix string) {
	if h := find(client, prefix); h != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.wakeAll()
	}
}

func find(client valkey.Client, prefix string) *hub {
	if !comparable(client) {
		return nil
	}
	mu.RLock()
	defer mu.RUnlock()
	return hubs[place{client, prefix}]
}

// comparable tells whether a client can be a key: a caller's own wrapper of one may not.
func comparable(client valkey.Client) bool { return reflect.ValueOf(client).Comparable() }

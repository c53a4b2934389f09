package engine

import (
	"container/heap"
	"math"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// expiry ends keys when their time has come. The embedded server knows what is left of each TTL, and its own way to pass time is
// to walk all keys; here time passes for the keys that end. The other TTLs are brought up to date when a command names their key.
type expiry struct {
	server *miniredis.Miniredis
	now    time.Duration // since the clock's first instant
	keys   map[string]*deadline
	queue  queue
	fields bool // fields of hashes may have TTLs too: then time passes by walking
}

// deadline is when a key ends.
type deadline struct {
	key   string
	at    time.Duration
	told  time.Duration // the now to which the server's TTL refers
	index int           // in the queue
}

func newExpiry(server *miniredis.Miniredis) *expiry {
	return &expiry{server: server, keys: map[string]*deadline{}}
}

// tell brings the server's TTL of a key up to date. What is no key has no deadline.
func (e *expiry) tell(key string) {
	d := e.keys[key]
	if d == nil || d.told == e.now {
		return
	}
	if e.server.TTL(key) == 0 { // a command that waits has emptied it, or made it anew
		e.forget(d)
		return
	}
	e.server.SetTTL(key, d.at-e.now)
	d.told = e.now
}

// learn reads the TTL that a command may have left behind.
func (e *expiry) learn(key string) {
	ttl, d := e.server.TTL(key), e.keys[key]
	switch {
	case ttl == 0 && d == nil:
		return
	case ttl == 0:
		e.forget(d)
		return
	case d == nil:
		d = &deadline{key: key}
		e.keys[key] = d
		heap.Push(&e.queue, d)
	}
	d.at, d.told = later(e.now, ttl), e.now
	heap.Fix(&e.queue, d.index)
}

func (e *expiry) tellAll() {
	for key := range e.keys {
		e.tell(key)
	}
}

func (e *expiry) learnAll() {
	for key := range e.keys {
		e.learn(key)
	}
	for _, key := range e.server.Keys() {
		e.learn(key)
	}
}

func (e *expiry) forget(d *deadline) {
	delete(e.keys, d.key)
	heap.Remove(&e.queue, d.index)
}

// pass lets time pass.
func (e *expiry) pass(by time.Duration) {
	if e.fields {
		e.tellAll()
		e.server.FastForward(by)
	}
	e.now = later(e.now, by)
	for len(e.queue) > 0 && e.queue[0].at <= e.now {
		d := e.queue[0]
		e.forget(d)
		if e.server.TTL(d.key) != 0 { // else as in tell
			e.server.Del(d.key)
		}
	}
	if e.fields {
		for _, d := range e.keys {
			d.told = e.now
		}
	}
}

// later adds without passing the end of time.
func later(at, by time.Duration) time.Duration {
	if by > 0 && at > math.MaxInt64-by {
		return math.MaxInt64
	}
	return at + by
}

// queue is a heap whose first deadline is the next one.
type queue []*deadline

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at < q[j].at }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push is for container/heap.
func (q *queue) Push(x any) {
	d := x.(*deadline) //nolint:forcetypeassert // nothing else is pushed
	d.index = len(*q)
	*q = append(*q, d)
}

// Pop is for container/heap.
func (q *queue) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return d
}

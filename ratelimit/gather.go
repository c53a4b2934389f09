package ratelimit

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"
)

const (
	maxGathered = 64 // items in one call, so that no script keeps a server for long
	shards      = 64
)

// item is what one caller asks for, and what it is told.
type item struct {
	key string
	run
	single bool  // count is 1: such items of a key are asked for together
	before run   // a refund that goes before it, if its cost is not zero
	extra  int64 // units to take with it, as many as there are

	done   chan struct{} // receives once all below is set
	now    int64
	answer answer // of the run that this item was part of
	behind int64  // how many in the run were granted after this one
	taken  int64  // of the extra units
	full   bool   // the server had no memory to count
	err    error
}

var items = sync.Pool{New: func() any { return &item{done: make(chan struct{}, 1)} }}

func newItem(key string, r run) *item {
	it := items.Get().(*item)
	*it = item{key: key, run: r, single: r.count == 1, done: it.done}
	return it
}

// gatherer sends what callers ask at the same time in one call. Nobody waits for others to come: the
// first caller lets those run that are ready to, and takes along what they ask. So callers of a busy
// process share calls, and a lone caller does not wait.
//
// A server that is no cluster takes all subjects in one call; a node of a cluster takes those of one slot,
// so there only callers of the same subject share.
type gatherer struct {
	together queue
	apart    [shards]struct {
		sync.Mutex
		queues map[string]*queue
	}
}

// queue is what waits to be sent.
type queue struct {
	mu      sync.Mutex
	waiting []*item
	led     bool // somebody is about to send it
}

// join adds an item. lead is true for who has to send.
func (q *queue) join(it *item) (lead bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, it)
	lead = !q.led
	q.led = true
	return lead
}

// grow lets others run who are ready to, for as long as that makes the queue longer.
func (q *queue) grow() {
	for before, now := 0, 1; now > before && now < maxGathered; {
		runtime.Gosched()
		q.mu.Lock()
		before, now = now, len(q.waiting)
		q.mu.Unlock()
	}
}

// take returns what waits; who comes now leads the next call.
func (q *queue) take() []*item {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.waiting
	q.waiting, q.led = nil, false
	return batch
}

// collect returns what its caller has to send, if it leads.
func (g *gatherer) collect(it *item, cluster bool) []*item {
	if !cluster {
		if !g.together.join(it) {
			return nil
		}
		g.together.grow()
		return g.together.take()
	}
	shard := &g.apart[shardOf(it.key)]
	shard.Lock()
	q := shard.queues[it.key]
	if q == nil {
		if shard.queues == nil {
			shard.queues = map[string]*queue{}
		}
		q = &queue{}
		shard.queues[it.key] = q
	}
	lead := q.join(it)
	shard.Unlock()
	if !lead {
		return nil
	}
	q.grow()
	shard.Lock()
	defer shard.Unlock()
	delete(shard.queues, it.key)
	return q.take()
}

func shardOf(key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return h % shards
}

// gather has an item sent, beside those of others, and waits for it. If ctx ends first, it may still
// be sent, and count; then the item is not the caller's any more.
func (l *Limiter) gather(ctx context.Context, it *item) error {
	batch := l.gathered.collect(it, l.cluster.Load())
	if len(batch) == 1 { // nobody else: the caller's own context counts
		l.sendAll(ctx, l.until(), batch)
		<-it.done
		return it.err
	}
	until := l.until()
	for part := range slices.Chunk(batch, maxGathered) {
		go l.sendAll(context.Background(), until, part)
	}
	select {
	case <-it.done:
		return it.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call is what one call asks for.
type call struct {
	keys  []string
	runs  []run
	whose []whose
}

// whose says whom the answer to a run is for: callers that asked for one each, or one whose part it is.
type whose struct {
	callers []*item
	part    byte // 0 what was asked for, 'b' before it, 'x' extra
}

func (c *call) add(key string, r run, it *item, part byte) {
	c.keys = append(c.keys, key)
	c.runs = append(c.runs, r)
	c.whose = append(c.whose, whose{[]*item{it}, part})
}

// merge puts items in one call, in their order for each key.
func merge(items []*item) *call {
	c := &call{
		keys: make([]string, 0, len(items)), runs: make([]run, 0, len(items)), whose: make([]whose, 0, len(items)),
	}
	var last map[string]int // of a key, the run that singles may join
	if len(items) > 1 {
		last = make(map[string]int, len(items))
	}
	for _, it := range items {
		if i, ok := last[it.key]; ok && it.single && it.before.cost == 0 && c.runs[i].cost == it.cost {
			c.runs[i].count++
			c.whose[i].callers = append(c.whose[i].callers, it)
			if it.extra > 0 {
				c.add(it.key, run{1, it.extra}, it, 'x')
				delete(last, it.key)
			}
			continue
		}
		delete(last, it.key)
		if it.before.cost > 0 {
			c.add(it.key, it.before, it, 'b')
		}
		if it.single && it.extra == 0 && last != nil {
			last[it.key] = len(c.runs)
		}
		c.add(it.key, it.run, it, 0)
		if it.extra > 0 {
			c.add(it.key, run{1, it.extra}, it, 'x')
		}
	}
	return c
}

// sendAll sends items in one call and tells each its answer, the one that it would have got in its turn.
func (l *Limiter) sendAll(ctx context.Context, until time.Time, items []*item) {
	c := merge(items)
	now, answers, err := l.exec(ctx, until, c.keys, "", c.runs)
	full := isFull(err)
	switch {
	case isCrossSlot(err) && len(items) > 1:
		l.cluster.Store(true)
		l.sendApart(ctx, until, items)
		return
	case full:
		now, answers, err = l.deny(ctx, until, c, err)
	}
	for i, w := range c.whose {
		for j, it := range w.callers {
			it.now, it.err, it.full = now, err, full
			switch {
			case err != nil:
			case w.part == 'x':
				it.taken = answers[i].granted
			case w.part == 0 && answers[i].err != nil:
				it.err = answers[i].err
			case w.part == 0:
				it.answer = answers[i]
				if it.single { // the first ones of a run are granted
					it.behind = max(0, answers[i].granted-1-int64(j))
					it.answer.granted = min(1, max(0, answers[i].granted-int64(j)))
				}
			}
		}
	}
	for _, it := range items {
		it.done <- struct{}{}
	}
}

// sendApart sends items in a call for each.
func (l *Limiter) sendApart(ctx context.Context, until time.Time, items []*item) {
	var all sync.WaitGroup
	for i := range items {
		all.Go(func() { l.sendAll(ctx, until, items[i:i+1]) })
	}
	all.Wait()
}

// deny answers for a full server what can be answered without writing: denials.
func (l *Limiter) deny(ctx context.Context, until time.Time, c *call, full error) (now int64, answers []answer, err error) {
	looks := make([]run, len(c.runs))
	for i, r := range c.runs {
		looks[i].cost = r.cost
	}
	now, answers, err = l.exec(ctx, until, c.keys, "", looks)
	if err != nil {
		return 0, nil, err
	}
	for i := range answers {
		if c.whose[i].part == 0 && !slices.ContainsFunc(answers[i].states, func(s state) bool { return s.this != 0 }) {
			answers[i].err = full
		}
	}
	return now, answers, nil
}

// isCluster says whether a client sends keys of different slots to different nodes.
func isCluster(client valkey.Client) bool { return client.Mode() == valkey.ClientModeCluster }

// isCrossSlot says that a server is a cluster's although the client is not; it has run nothing.
func isCrossSlot(err error) bool {
	reply, ok := valkey.IsValkeyErr(err)
	return ok && strings.HasPrefix(reply.Error(), "CROSSSLOT")
}

// isFull says that a server has no memory for a script that may write; it has run nothing.
func isFull(err error) bool {
	reply, ok := valkey.IsValkeyErr(err)
	return ok && strings.HasPrefix(reply.Error(), "OOM")
}

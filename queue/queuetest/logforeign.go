package queuetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// logForeign has others work on the stream: with commands of their own, another consumer that has died, entries that are none, and
// a trim that takes what nobody has read.
func logForeign(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{})
	missed := make(chan int, 10)
	l2 := NewLog(t, env, queue.LogConfig{Prefix: queue.LogPrefixOf(l), Hooks: queue.Hooks{Missed: func(n int) { missed <- n }}})
	g := group(t, l2, queue.GroupConfig{})
	appendText(t, l, "k", "a", "b")
	c, key := env.Client, queue.LogPrefixOf(l)+":log:{l:0}:log"
	do := func(words ...string) {
		t.Helper()
		cmd := c.B().Arbitrary(words[0])
		for i, word := range words[1:] {
			if word == key {
				cmd = cmd.Keys(word)
				continue
			}
			_ = i
			cmd = cmd.Args(word)
		}
		if err := c.Do(t.Context(), cmd.Build()).Error(); err != nil {
			t.Fatalf("%q: %v", words, err)
		}
	}
	if err := c.Do(t.Context(), c.B().Xreadgroup().Group("g", "dead").Count(1).Streams().Key(key).Id(">").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	d := read(t, g, "a")[0]
	if d.Receives != 2 {
		t.Errorf("%+v", d)
	}
	done(t, g, d)
	done(t, g, read(t, g, "b")...)
	if s := groupStats(t, g); s.Consumers != 1 {
		t.Errorf("%+v", s)
	}
	do("XADD", key, "*", "something", "else")
	appendText(t, l, "", "c")
	done(t, g, read(t, g, "c")...)
	until(t, "what is no entry is dead", func() bool {
		nothing(t, g)
		dead, err := g.Dead(t.Context(), 10)
		return err == nil && len(dead) == 1 && dead[0].Dead.Reason == "the entry is not in the layout"
	})
	closeGroup(t, g)
	appendText(t, l, "", "d", "e", "f")
	do("XTRIM", key, "MAXLEN", "1")
	done(t, g, read(t, g, "f")...)
	if env.Embedded {
		return // a new owner's first read knows of no number before
	}
	d = func() *queue.Delivery { appendText(t, l, "", "g"); return read(t, g, "g")[0] }()
	done(t, g, d)
	appendText(t, l, "", "h")
	done(t, g, read(t, g, "h")...)
}

// logModel drives two groups by a random schedule, beside what should have become of each entry: keys in order, counts of deliveries, dead
// letters, and nothing lost or doubled.
func logModel(t *testing.T, env valkeytest.Env) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	m := &modelLog{t: t, random: rand.New(rand.NewPCG(seed, 0))}
	m.log = NewLog(t, env, queue.LogConfig{Partitions: 1 + m.random.IntN(3), Retention: time.Second})
	for i := range 2 {
		m.groups = append(m.groups, &modelGroup{m: m, name: fmt.Sprint("g", i), entries: map[string]*modelEntry{}, keys: map[string][]*modelEntry{}, out: map[string]*queue.Delivery{}})
		m.groups[i].join()
	}
	for range 400 {
		g := m.groups[m.random.IntN(2)]
		switch m.random.IntN(12) {
		case 0, 1, 2:
			m.append()
		case 3, 4, 5:
			g.receive(queue.ReceiveOptions{Max: 1 + m.random.IntN(5), Visibility: time.Hour})
		case 6, 7, 8:
			g.settle("ack")
		case 9:
			g.settle([]string{"nack", "reject", "back"}[m.random.IntN(3)])
		case 10:
			if m.random.IntN(4) == 0 {
				g.handover()
			}
		case 11:
			if _, err := m.log.Trim(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, g := range m.groups {
		g.drain()
	}
}

type modelLog struct {
	t      *testing.T
	random *rand.Rand
	log    *queue.Log
	groups []*modelGroup
	n      int
}

type modelEntry struct {
	id, key  string
	receives int
	out      bool
}

type modelGroup struct {
	m       *modelLog
	name    string
	group   *queue.Group
	entries map[string]*modelEntry // not done
	keys    map[string][]*modelEntry
	out     map[string]*queue.Delivery
	dead    int
}

const modelMost = 3 // receives

func (g *modelGroup) join() {
	g.group = group(g.m.t, g.m.log, queue.GroupConfig{Name: g.name, MaxReceives: modelMost})
}

func (m *modelLog) append() {
	n := 1 + m.random.IntN(4)
	batch := make([]queue.Message, n)
	for i := range batch {
		m.n++
		batch[i] = queue.Message{Body: []byte(fmt.Sprint(m.n))}
		if k := m.random.IntN(4); k > 0 {
			batch[i].Group = fmt.Sprint("k", k)
		}
	}
	sent, err := m.log.AppendBatch(m.t.Context(), batch)
	if err != nil {
		m.t.Fatal(err)
	}
	for i, s := range sent {
		for _, g := range m.groups {
			e := &modelEntry{id: s.ID, key: batch[i].Group}
			g.entries[s.ID] = e
			if e.key != "" {
				g.keys[e.key] = append(g.keys[e.key], e)
			}
		}
	}
}

func (g *modelGroup) receive(o queue.ReceiveOptions) int {
	t := g.m.t
	ds, err := g.group.Receive(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range ds {
		e := g.entries[d.ID]
		switch {
		case e == nil:
			t.Fatalf("%s got %s, which is done", g.name, d.ID)
		case e.out:
			t.Fatalf("%s got %s, which is out", g.name, d.ID)
		case e.key != "" && g.keys[e.key][0] != e:
			t.Fatalf("%s got %s of %s before %s", g.name, d.ID, e.key, g.keys[e.key][0].id)
		}
		e.receives++
		if d.Receives != e.receives || d.Group != e.key {
			t.Fatalf("%s got %s with %d receives, not %d", g.name, d.ID, d.Receives, e.receives)
		}
		e.out = true
		g.out[d.ID] = d
	}
	return len(ds)
}

// settle settles one of those that are out.
func (g *modelGroup) settle(how string) {
	t := g.m.t
	for id, d := range g.out {
		e := g.entries[id]
		var err error
		over := true
		switch how {
		case "ack":
			err = g.group.Ack(t.Context(), d.Receipt)
		case "nack":
			err = g.group.Nack(t.Context(), d.Receipt, 0, "nack")
			if over = e.receives >= modelMost; over {
				g.dead++
			}
		case "reject":
			err = g.group.Reject(t.Context(), d.Receipt, "reject")
			g.dead++
		case "back":
			err = g.group.Extend(t.Context(), d.Receipt, 0)
			e.receives--
			over = false
		}
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		e.out = false
		delete(g.out, id)
		if over {
			g.over(e)
		}
		return
	}
}

func (g *modelGroup) over(e *modelEntry) {
	delete(g.entries, e.id)
	if e.key != "" {
		g.keys[e.key] = g.keys[e.key][1:]
	}
}

// handover has another process take over: what was out comes again, and what was delivered too often is dead.
func (g *modelGroup) handover() {
	closeGroup(g.m.t, g.group)
	for id, d := range g.out {
		if err := g.group.Ack(g.m.t.Context(), d.Receipt); !errors.Is(err, queue.ErrNotHeld) {
			g.m.t.Fatalf("a receipt of before: %v", err)
		}
		e := g.entries[id]
		e.out = false
		if e.receives >= modelMost {
			g.dead++
			g.over(e)
		}
		delete(g.out, id)
	}
	g.join()
}

func (g *modelGroup) drain() {
	t := g.m.t
	until(t, "all are done", func() bool {
		for len(g.out) > 0 {
			g.settle("ack")
		}
		if len(g.entries) > 0 {
			g.receive(queue.ReceiveOptions{Max: 10, Wait: 10 * time.Millisecond, Visibility: time.Hour})
		}
		return len(g.entries) == 0
	})
	nothing(t, g.group)
	s := groupStats(t, g.group)
	if s.Pending+s.Aside+s.Lag != 0 || s.Dead != int64(g.dead) {
		t.Errorf("%+v, want %d dead", s, g.dead)
	}
}

// logSweep has somebody else read in the group while a process of it has the partition, and die: the process finds what was left.
func logSweep(t *testing.T, env valkeytest.Env) {
	l := NewLog(t, env, queue.LogConfig{})
	g := group(t, l, queue.GroupConfig{Aside: 20 * time.Millisecond})
	nothing(t, g)
	c, key := env.Client, queue.LogPrefixOf(l)+":log:{l:0}:log"
	appended, stolen := 0, 0
	for stolen < 3 {
		if appended++; appended > 5000 {
			t.Fatal("the thief gets nothing")
		}
		appendText(t, l, "", fmt.Sprint(appended))
		got, err := c.Do(t.Context(), c.B().Xreadgroup().Group("g", "thief").Count(1).Streams().Key(key).Id(">").Build()).AsXRead()
		if err == nil {
			stolen += len(got[key])
		}
	}
	seen := map[string]bool{}
	until(t, "all have come", func() bool {
		env.Advance(10 * time.Millisecond) // which an embedded engine's clock needs
		ds, err := g.Receive(t.Context(), queue.ReceiveOptions{Max: 100, Wait: 10 * time.Millisecond, Visibility: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			seen[string(d.Body)] = true
		}
		done(t, g, ds...)
		return len(seen) == appended
	})
	until(t, "nothing is left", func() bool { s := groupStats(t, g); return s.Pending+s.Aside+s.Lag == 0 })
}

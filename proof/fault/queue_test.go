package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// checkFiles compares what producers and consumers told.
func checkFiles(t *testing.T, sent, came string, fifo bool) *count {
	t.Helper()
	c := &count{}
	acknowledged, seen, last := map[string]bool{}, map[string]int{}, map[string]int{}
	key := func(group string, n int) string { return fmt.Sprintf("%s %d", group, n) }
	eachLine(t, sent, func(group string, n int) { acknowledged[key(group, n)] = true })
	eachLine(t, came, func(group string, n int) {
		k := key(group, n)
		seen[k]++
		c.came++
		if seen[k] > 1 {
			c.twice++
		}
		if fifo && n < last[group] {
			c.order++
		}
		last[group] = n
	})
	for k := range seen {
		if !acknowledged[k] {
			c.unknown++ // its producer was killed before it could tell
		}
	}
	for k := range acknowledged {
		if seen[k] == 0 {
			c.lost++
		}
	}
	c.sent = len(acknowledged)
	return c
}

// TestQueueMembersKilled kills producers and consumers with SIGKILL while a million messages pass. The server lives.
func TestQueueMembersKilled(t *testing.T) {
	messages := 20_000
	if os.Getenv("FLATRATE_FAULT") != "" {
		messages = 1_000_000
	}
	for _, fifo := range []bool{false, true} {
		t.Run(map[bool]string{false: "standard", true: "fifo"}[fifo], func(t *testing.T) { membersKilled(t, fifo, messages) })
	}
}

func membersKilled(t *testing.T, fifo bool, messages int) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	server := valkeytest.Start(t)
	dir := t.TempDir()
	member := queueMember{URL: "unix://" + server.Socket, FIFO: fifo, Workers: 16}
	sent, came := filepath.Join(dir, "sent"), filepath.Join(dir, "came")
	spawn := func(i, begin int) *exec.Cmd {
		m := member
		m.Number, m.Begin, m.File = i, begin, sent
		if m.Consumer = i >= 2; m.Consumer {
			m.File = came
		}
		return spawnMember(t, m)
	}
	members := make([]*exec.Cmd, 5) // two producers, three consumers
	for i := range members {
		members[i] = spawn(i, 1)
	}
	kill := func(i int) {
		_ = members[i].Process.Kill()
		_ = members[i].Wait()
	}
	defer func() {
		for i := range members {
			kill(i)
		}
	}()
	q, err := queue.New(server.Client(), queue.Config{Name: "q", FIFO: fifo})
	if err == nil {
		err = q.Open(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	stats := func() queue.Stats {
		s, err := q.Stats(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	kills := map[string]int{}
	begin, deadline := 1, time.Now().Add(40*time.Minute)
	for s := stats(); s.Sent < int64(messages); s = stats() {
		if time.Now().After(deadline) {
			t.Fatalf("no end in sight: %+v", s)
		}
		<-time.After(time.Duration(100+random.IntN(400)) * time.Millisecond)
		i := random.IntN(len(members))
		if s.Visible > 50_000 && i < 2 { // consumers catch up
			i += 2
		}
		kill(i)
		kills[map[bool]string{true: "producers", false: "consumers"}[i < 2]]++
		begin += 10_000_000 // what a new producer sends comes after all that the old one has
		members[i] = spawn(i, begin)
	}
	for i := range 2 {
		kill(i)
	}
	for s := stats(); s.Visible+s.InFlight+s.Delayed > 0; s = stats() {
		if time.Now().After(deadline) {
			t.Fatalf("messages are stuck: %+v", s)
		}
		<-time.After(10 * time.Millisecond)
	}
	for i := range members {
		kill(i)
	}
	c := checkFiles(t, sent, came, fifo)
	t.Logf("killed: %v; %v", kills, c)
	inFlight := kills["consumers"] * member.Workers * 10
	if c.lost > 0 || c.order > 0 || c.twice > inFlight {
		t.Errorf("lost %d, out of order %d, twice %d (in flight at the kills: at most %d)", c.lost, c.order, c.twice, inFlight)
	}
}

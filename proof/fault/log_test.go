package fault

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// logVariable makes this program a consumer of a log.
const logVariable = "FLATRATE_LOG_MEMBER"

const (
	logKeys  = 256
	logLease = time.Second
)

// logMember is a process of a group.
type logMember struct {
	URL, Group, File string
	Workers          int
	Hangs            bool // it never finishes
}

// logMain is the whole life of a member. It returns in other processes.
func logMain() {
	text := os.Getenv(logVariable)
	if text == "" {
		return
	}
	var m logMember
	err := json.Unmarshal([]byte(text), &m)
	if err == nil {
		err = m.run(context.Background())
	}
	fmt.Fprintln(os.Stderr, "log member:", err)
	os.Exit(1)
}

// run tells what has come, and then acknowledges it.
func (m logMember) run(ctx context.Context) error {
	client, err := flatrate.Connect(ctx, m.URL)
	if err != nil {
		return err
	}
	l, err := queue.NewLog(client, queue.LogConfig{Name: "l"})
	if err != nil {
		return err
	}
	g, err := l.Group(queue.GroupConfig{Name: m.Group, Lease: logLease, MaxReceives: queue.NoLimit})
	if err != nil {
		return err
	}
	file, err := os.OpenFile(m.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	c, err := queue.NewConsumer(g, queue.ConsumerConfig{Concurrency: m.Workers, BatchSize: 20, Batch: func(ctx context.Context, ds []*queue.Delivery) []error {
		if m.Hangs {
			<-ctx.Done()
		}
		var lines strings.Builder
		for _, d := range ds {
			lines.WriteString("\n" + string(d.Body))
		}
		if _, err := file.WriteString(lines.String()[1:] + "\n"); err != nil {
			errs := make([]error, len(ds))
			for i := range errs {
				errs[i] = err
			}
			return errs
		}
		return nil
	}})
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

func spawnLogMember(t *testing.T, m logMember) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), logVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// TestLogMembersKilled appends a million entries of 256 keys for three groups of two processes each, and kills one of these with SIGKILL
// every 100 to 500 ms. A checker outside the library counts, for each group, what was lost, what came twice, and what came before
// its predecessor had: an entry may come again, but none of its key behind it may have come before it first did.
func TestLogMembersKilled(t *testing.T) {
	entries := 20_000
	if os.Getenv("FLATRATE_FAULT") != "" {
		entries = 1_000_000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	server := valkeytest.Start(t)
	dir := t.TempDir()
	l, err := queue.NewLog(server.Client(), queue.LogConfig{Name: "l", Partitions: 4, Retention: time.Second, MaxEntries: 200_000})
	if err != nil {
		t.Fatal(err)
	}
	groups := []string{"a", "b", "c"}
	for _, name := range groups {
		g, err := l.Group(queue.GroupConfig{Name: name})
		if err == nil {
			err = g.Open(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	spawn := func(i int) *exec.Cmd {
		name := groups[i%len(groups)]
		return spawnLogMember(t, logMember{URL: "unix://" + server.Socket, Group: name, File: filepath.Join(dir, name), Workers: 16})
	}
	members := make([]*exec.Cmd, 2*len(groups))
	for i := range members {
		members[i] = spawn(i)
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
	appended := make(chan error, 1)
	go func() { appended <- appendAll(t.Context(), l, entries) }()
	kills, deadline := 0, time.Now().Add(40*time.Minute)
	for done := false; !done; {
		select {
		case err := <-appended:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		case <-time.After(time.Duration(100+random.IntN(400)) * time.Millisecond):
		}
		i := random.IntN(len(members))
		kill(i)
		kills++
		members[i] = spawn(i)
	}
	for left := int64(1); left > 0; {
		st, err := l.Stats(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		left = 0
		for _, g := range st.Groups {
			left += g.Lag + g.Pending + g.Aside
		}
		if time.Now().After(deadline) {
			t.Fatalf("no end in sight: %+v", st)
		}
		<-time.After(20 * time.Millisecond)
	}
	for i := range members {
		kill(i)
	}
	for _, name := range groups {
		c := checkLog(t, filepath.Join(dir, name), entries)
		t.Logf("group %s, %d kills of all groups: %v", name, kills, c)
		// A process that dies leaves what its handlers had, and what they had done and not said yet: 16 batches of 20, twice.
		if c.lost > 0 || c.order > 0 || c.twice > kills*16*20*2 {
			t.Errorf("group %s: %v", name, c)
		}
	}
}

// appendAll appends "KEY NUMBER" in batches, and waits where the log is full.
func appendAll(ctx context.Context, l *queue.Log, entries int) error {
	next := make([]int, logKeys)
	for n := 0; n < entries; {
		batch := make([]queue.Message, 100)
		for i := range batch {
			k := (n + i) % logKeys
			next[k]++
			key := strconv.Itoa(k)
			batch[i] = queue.Message{Body: []byte(key + " " + strconv.Itoa(next[k])), Group: key}
		}
		n += len(batch)
		for len(batch) > 0 {
			sent, err := l.AppendBatch(ctx, batch)
			if err == nil {
				break
			}
			var rest []queue.Message
			for i, s := range sent {
				if s.Err != nil && s.Err != queue.ErrFull { //nolint:errorlint // it is returned as it is
					return s.Err
				}
				if s.Err != nil {
					rest = append(rest, batch[i])
				}
			}
			batch = rest
			<-time.After(5 * time.Millisecond)
		}
	}
	return nil
}

// checkLog reads what the processes of a group told. Each key was appended as 1, 2, 3 and so on.
func checkLog(t *testing.T, path string, entries int) *count {
	t.Helper()
	c := &count{sent: entries}
	last := map[string]int{}
	seen := map[string]map[int]bool{}
	eachLogLine(t, path, func(key string, n int) {
		c.came++
		if seen[key] == nil {
			seen[key] = map[int]bool{}
		}
		switch {
		case seen[key][n]:
			c.twice++
		case n != last[key]+1:
			c.order++
			last[key] = max(last[key], n)
		default:
			last[key] = n
		}
		seen[key][n] = true
	})
	distinct := 0
	for _, numbers := range seen {
		distinct += len(numbers)
	}
	c.lost = entries - distinct
	return c
}

// eachLogLine is eachLine, past a last line that a kill has cut.
func eachLogLine(t *testing.T, path string, do func(key string, n int)) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	scan := bufio.NewScanner(file)
	for scan.Scan() {
		key, text, _ := strings.Cut(scan.Text(), " ")
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("%s: %q", path, scan.Text())
		}
		do(key, n)
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
}

// TestLogRedelivery kills the process that has an entry with SIGKILL, and measures when another one has it: from when the lease that the
// dead one had last ends, by the server.
func TestLogRedelivery(t *testing.T) {
	rounds := 5
	if os.Getenv("FLATRATE_FAULT") != "" {
		rounds = 100
	}
	server := valkeytest.Start(t)
	l, err := queue.NewLog(server.Client(), queue.LogConfig{Name: "l"})
	if err != nil {
		t.Fatal(err)
	}
	var late, since []time.Duration
	for round := range rounds {
		name := fmt.Sprint("g", round)
		g, err := l.Group(queue.GroupConfig{Name: name, Lease: logLease, Start: queue.Position{End: true}})
		if err == nil {
			err = g.Open(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		member := spawnLogMember(t, logMember{URL: "unix://" + server.Socket, Group: name, File: filepath.Join(t.TempDir(), "came"), Workers: 1, Hangs: true})
		stop := func() { _ = member.Process.Kill(); _ = member.Wait() }
		defer stop()
		if _, err := l.Append(t.Context(), queue.Message{Body: []byte("k 1")}); err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); ; <-time.After(5 * time.Millisecond) {
			if st, err := g.Stats(t.Context()); err == nil && st.Pending == 1 {
				break
			}
			if time.Since(begin) > time.Minute {
				t.Fatal("nobody has the entry")
			}
		}
		got := make(chan time.Time, 1)
		go func() {
			ds, err := g.Receive(context.Background(), queue.ReceiveOptions{Wait: 30 * time.Second})
			if err == nil && len(ds) == 1 && ds[0].Receives == 2 {
				got <- time.Now()
			}
			close(got)
		}()
		<-time.After(time.Duration(rand.IntN(1000)) * time.Millisecond) // anywhere between two renewals
		stop()
		killed := time.Now()
		left, err := server.Client().Do(t.Context(), server.Client().B().Pttl().Key("fr:log:{l:0}:own:"+name).Build()).AsInt64()
		if err != nil || left < 0 {
			t.Fatalf("the dead one has no lease: %d, %v", left, err)
		}
		ends := time.Now().Add(time.Duration(left) * time.Millisecond)
		at, ok := <-got
		if !ok {
			t.Fatal("it did not come again")
		}
		late, since = append(late, at.Sub(ends)), append(since, at.Sub(killed))
		if err := g.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := g.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(late)
	slices.Sort(since)
	p := func(all []time.Duration, of int) time.Duration {
		return all[min(len(all)-1, len(all)*of/100)].Round(100 * time.Microsecond)
	}
	t.Logf("%d kills, leases of %v: after the lease's end p50 %v, p99 %v; after the kill p50 %v, p99 %v", rounds, logLease, p(late, 50), p(late, 99), p(since, 50), p(since, 99))
}

package doctor

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// binaries are the servers at hand; FLATRATE_DOCTOR_SERVERS adds more, as paths.
func binaries() []string {
	list := []string{valkeytest.Valkey, valkeytest.Redis}
	if more := os.Getenv("FLATRATE_DOCTOR_SERVERS"); more != "" {
		list = append(list, strings.Split(more, ",")...)
	}
	return list
}

// write sends commands in batches, and fails on the first error.
func write(t testing.TB, c valkey.Client, n int, build func(i int) []string) {
	t.Helper()
	for from := 0; from < n; from += 1000 {
		cmds := make([]valkey.Completed, 0, 1000)
		for i := from; i < min(n, from+1000); i++ {
			cmds = append(cmds, c.B().Arbitrary(build(i)...).Build())
		}
		for _, r := range c.DoMulti(t.Context(), cmds...) {
			if err := r.Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func do(t testing.TB, c valkey.Client, words ...string) valkey.ValkeyMessage {
	t.Helper()
	m, err := c.Do(context.WithoutCancel(t.Context()), c.B().Arbitrary(words...).Build()).ToMessage()
	if err != nil {
		t.Fatalf("%v: %v", words, err)
	}
	return m
}

// usedMemory is used_memory once it has come to rest: buffers of clients shrink, and tables finish their move.
func usedMemory(t testing.TB, c valkey.Client) float64 {
	t.Helper()
	last, same := int64(-1), 0
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(110 * time.Millisecond) {
		m := do(t, c, "INFO", "memory")
		text, err := m.ToString()
		if err != nil {
			t.Fatal(err)
		}
		h := health{info: map[string]string{}, replication: map[string]string{}}
		h.read(text)
		now := h.number("used_memory")
		if same++; now != last {
			same = 0
		}
		if same == 3 || time.Now().After(end) {
			return float64(now)
		}
		last = now
	}
}

type shape struct {
	name  string
	build func(i int) []string
}

// shapes are the five of docs/doctor.md.
var shapes = []shape{
	{"five-field user as JSON string", func(i int) []string { return []string{"SET", userKey(i), userJSON(i)} }},
	{"the same, with TTL", func(i int) []string { return []string{"SET", userKey(i), userJSON(i), "EX", "86400"} }},
	{"the same as HASH", func(i int) []string {
		return []string{"HSET", userKey(i), "id", fmt.Sprint(100000 + i), "name", "Jane Doe", "email", fmt.Sprintf("jane%06d@example.com", i), "plan", "premium", "active", "true"}
	}},
	{"counter with TTL", func(i int) []string {
		return []string{"SET", fmt.Sprintf("rate:%08d", i), fmt.Sprint(20000 + i), "EX", "3600"}
	}},
	{"2 KB session with TTL", func(i int) []string {
		return []string{"SET", fmt.Sprintf("session:%032x", i), strings.Repeat("s", 2048), "EX", "86400"}
	}},
}

func userKey(i int) string { return fmt.Sprintf("user:%06d", i) }

func userJSON(i int) string {
	return fmt.Sprintf(`{"id":%d,"name":"Jane Doe","email":"jane%06d@example.com","plan":"premium","active":true}`, 100000+i, i)
}

func within(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	off := 100 * (got - want) / want
	t.Logf("%-55s %12.0f of %12.0f: %+.2f%%", what, got, want, off)
	if math.Abs(off) > tolerance {
		t.Errorf("%s: %+.2f%%, over %.1f%%", what, off, tolerance)
	}
}

// TestMemory holds the sizes of a live scan, and of the snapshot, against the change of used_memory.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures, and waits for the server to settle")
	}
	for _, binary := range binaries() {
		t.Run(filepath.Base(filepath.Dir(filepath.Dir(binary)))+"-"+filepath.Base(binary), func(t *testing.T) {
			t.Parallel()
			s := valkeytest.StartWith(t, valkeytest.Config{Binary: binary, Args: []string{"--save", ""}})
			for _, sh := range shapes {
				measure(t, s, sh, keysOfAShape())
			}
		})
	}
}

// keysOfAShape is few in the gate; FLATRATE_DOCTOR_KEYS sets another number.
func keysOfAShape() int {
	if n, err := strconv.Atoi(os.Getenv("FLATRATE_DOCTOR_KEYS")); err == nil && n > 0 {
		return n
	}
	return 12_000
}

func measure(t *testing.T, s *valkeytest.Server, sh shape, n int) {
	t.Helper()
	c := s.Client()
	do(t, c, "FLUSHALL", "SYNC")
	before := usedMemory(t, c)
	write(t, c, n, sh.build)
	delta := usedMemory(t, c) - before
	r, err := Scan(t.Context(), c, Config{MaxOps: -1})
	if err != nil {
		t.Fatal(err)
	}
	if r.Keys != int64(n) {
		t.Errorf("%s: %d keys", sh.name, r.Keys)
	}
	within(t, r.Server.Kind+" "+r.Server.Version+" "+sh.name, r.Bytes, delta, 3)
	do(t, c, "SAVE")
	file, err := os.Open(filepath.Join(s.Dir, "dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fromFile, err := ReadRDB(t.Context(), file, Config{Quantum: r.Server.Quantum})
	if err != nil {
		t.Fatal(err)
	}
	within(t, "  its RDB file", fromFile.Bytes, delta, 3)
}

package object

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// shape is a struct with a value, as the test of the advice needs it.
type shape struct {
	name   string
	text   string   // as JSON
	words  []string // as a hash
	ttl    bool
	advise func(Server, string, bool) (Advice, error)
}

func shapeOf[T any](t *testing.T, name string, ttl bool, value T) shape {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPlan(reflect.TypeFor[T]())
	if err != nil {
		t.Fatal(err)
	}
	words, err := p.encodeAll(reflect.ValueOf(&value).Elem())
	if err != nil {
		t.Fatal(err)
	}
	return shape{name, string(text), words, ttl, func(s Server, key string, ttl bool) (Advice, error) { return Advise(s, key, ttl, value) }}
}

func shapes(t *testing.T) []shape {
	type user struct {
		ID     int    `cache:"id" json:"id"`
		Name   string `cache:"name" json:"name"`
		Email  string `cache:"email" json:"email"`
		Plan   string `cache:"plan" json:"plan"`
		Active bool   `cache:"active" json:"active"`
	}
	type ints struct{ A, B, C, D, E int }
	type position struct{ Lat, Lon float64 }
	type flags struct{ A, B, C, D, E, F, G, H bool }
	type one struct{ Name string }
	type numbers struct{ A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P int64 }
	type words struct{ A, B, C, D, E string }
	type verbose struct{ CustomerDisplayName, CustomerEmailAddress, CustomerPhoneNumber, CustomerPreferredLanguage string }
	type list struct {
		ID   int
		Tags []string
	}
	type nested struct {
		ID    int
		Inner struct{ X, Y, Z int }
		Attrs map[string]string
	}
	type session struct {
		User    int
		Created time.Time
		Data    string
	}
	type sparse struct {
		ID         int
		A, B, C, D string `cache:",omitempty" json:",omitempty"`
	}
	type wide struct {
		F00, F01, F02, F03, F04, F05, F06, F07, F08, F09, F10, F11, F12, F13, F14, F15, F16, F17, F18, F19 string
	}
	x := func(n int) string { return strings.Repeat("x", n) }
	ann := user{42, "Ann Example", "ann@example.com", "pro", true}
	w := wide{}
	for i := range 20 {
		reflect.ValueOf(&w).Elem().Field(i).SetString(x(i % 12))
	}
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var n nested
	n.ID, n.Inner.X, n.Attrs = 7, 1000, map[string]string{"color": "red", "size": "L"}
	return []shape{
		shapeOf(t, "user of five fields", false, ann),
		shapeOf(t, "the same, with a TTL", true, ann),
		shapeOf(t, "five small numbers", false, ints{1, 22, 333, 4444, 55555}),
		shapeOf(t, "five large numbers", false, ints{1 << 40, 1 << 41, 1 << 42, 1 << 43, 1 << 44}),
		shapeOf(t, "two coordinates", false, position{52.520008, 13.404954}),
		shapeOf(t, "the same, with a TTL", true, position{52.520008, 13.404954}),
		shapeOf(t, "eight flags", false, flags{A: true, C: true}),
		shapeOf(t, "one short text", false, one{"ann"}),
		shapeOf(t, "one text of 60 B", false, one{x(60)}),
		shapeOf(t, "one text of 1 KB", false, one{x(1000)}),
		shapeOf(t, "sixteen numbers", false, numbers{1, 20, 300, 4000, 50000, 600000, 7000000, 80000000, 9, 10, 11, 12, 13, 14, 15, 16}),
		shapeOf(t, "five texts of 18 B", false, words{x(18), x(18), x(18), x(18), x(18)}),
		shapeOf(t, "five texts of 60 B", false, words{x(60), x(60), x(60), x(60), x(60)}),
		shapeOf(t, "five texts, one of 65 B", false, words{x(65), x(18), x(18), x(18), x(18)}),
		shapeOf(t, "five texts of 200 B", false, words{x(200), x(200), x(200), x(200), x(200)}),
		shapeOf(t, "long names, short texts", false, verbose{"Ann", "a@b.c", "123", "en"}),
		shapeOf(t, "a list in JSON", false, list{7, []string{"red", "green", "blue"}}),
		shapeOf(t, "nested, and a map", false, n),
		shapeOf(t, "session of 2 KB, with a TTL", true, session{42, when, x(2000)}),
		shapeOf(t, "mostly empty, omitempty", false, sparse{ID: 7, B: "b"}),
		shapeOf(t, "twenty short texts", false, w),
	}
}

// TestAdvice holds the arithmetic against used_memory, on each server at hand: both forms of each shape.
// FLATRATE_ADVICE=1 prints the table of docs/objects.md.
func TestAdvice(t *testing.T) {
	for _, binary := range []string{valkeytest.Valkey, valkeytest.Redis} {
		t.Run(binary, func(t *testing.T) {
			t.Parallel()
			adviceOn(t, valkeytest.StartWith(t, valkeytest.Config{Binary: binary}))
		})
	}
}

func adviceOn(t *testing.T, server *valkeytest.Server) {
	client, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{server.Socket}, DialCtxFn: valkeytest.DialUnix, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	kind, err := ServerOf(t.Context(), client)
	client.Close()
	if err != nil {
		t.Fatal(err)
	}
	m, err := kind.machine()
	if err != nil {
		t.Fatal(err)
	}
	const n = 1000
	table := 8.0 * 1024 / n
	if m.generation >= keyInObject {
		table = 64.0 * 256 / n
	}
	if allocator := ask(t, server, "INFO memory"); !strings.Contains(allocator, "mem_allocator:jemalloc") {
		t.Skip("the arithmetic is of jemalloc, and this server has another allocator")
	}
	kind.Quantum = quantumOf(t, server, m)
	t.Logf("small sizes are %d bytes apart", kind.Quantum)
	wrong := t.Errorf
	if kind.Quantum != 16 { // docs/objects.md: measured are those of 16
		wrong = t.Logf
	}
	worst, sum := 0.0, 0.0
	all := shapes(t)
	measure(t, server, n, false, strconv.Itoa, func(c valkey.Client, key string) valkey.Commands { // what a server allocates at the first call of each command
		return valkey.Commands{
			c.B().Set().Key("s" + key).Value("v").Build(), c.B().Hset().Key(key).FieldValue().FieldValue("f", "v").Build(),
			c.B().Hget().Key(key).Field("f").Build(), c.B().Pexpire().Key(key).Milliseconds(3_600_000).Build(),
		}
	})
	for _, s := range all {
		key := func(i int) string { return fmt.Sprintf("fr:obj:default:{%06d}", i) }
		advice, err := s.advise(kind, key(0), s.ttl)
		if err != nil {
			t.Fatal(err)
		}
		tables := 1.0
		if s.ttl {
			tables = 2
		}
		write := func(c valkey.Client, name string, words ...string) valkey.Commands {
			cmds := valkey.Commands{c.B().Arbitrary(name).Keys(words[0]).Args(words[1:]...).Build()}
			if s.ttl {
				cmds = append(cmds, c.B().Pexpire().Key(words[0]).Milliseconds(3_600_000).Build())
			}
			return cmds
		}
		text := measure(t, server, n, s.ttl, key, func(c valkey.Client, key string) valkey.Commands { return write(c, "SET", key, s.text) })
		hash := measure(t, server, n, s.ttl, key, func(c valkey.Client, key string) valkey.Commands {
			cmds := write(c, "HSET", append([]string{key}, s.words...)...)
			for range 2 * len(s.words) * map[bool]int{true: 0, false: 1}[advice.Listpack] { // as reading does: a table that grows is moved step by step
				cmds = append(cmds, c.B().Hget().Key(key).Field("none").Build())
			}
			return cmds
		})
		exact := tables * (table - m.table())
		for form, pair := range map[string][2]float64{"string": {advice.String + exact, text}, "hash": {advice.Hash + exact, hash}} {
			off := math.Abs(pair[0]-pair[1]) / pair[1]
			worst, sum = max(worst, off), sum+off
			if off > 0.03 {
				wrong("%s as a %s: %.1f bytes, predicted %.1f", s.name, form, pair[1], pair[0])
			}
		}
		if smaller := AsString; hash < text-2 != (advice.Smaller == AsHash) && math.Abs(hash-text) > 2 {
			wrong("%s: the advice is %s, a string has %.1f bytes and a hash %.1f (%v)", s.name, advice.Smaller, text, hash, smaller)
		}
		if os.Getenv("FLATRATE_ADVICE") != "" {
			fmt.Printf("| %s %d.%d | %s | %.0f | %.0f | %+.0f%% | %+.0f%% |\n", kind.Kind, kind.Major, kind.Minor, s.name, text, hash,
				100*(hash-text)/text, 100*(advice.Hash-advice.String)/advice.String)
		}
	}
	t.Logf("%s %d.%d: %d shapes in two forms, off by %.1f%% on average, %.1f%% at most", kind.Kind, kind.Major, kind.Minor, len(all), 100*sum/float64(2*len(all)), 100*worst)
}

// quantumOf tells a jemalloc that has a size of 40 bytes from one that has not, by hashes that need 34.
func quantumOf(t *testing.T, server *valkeytest.Server, m machine) int {
	t.Helper()
	key := func(i int) string { return fmt.Sprintf("%0100d", i) }
	got := measure(t, server, 4000, false, key, func(c valkey.Client, key string) valkey.Commands {
		return valkey.Commands{c.B().Hset().Key(key).FieldValue().FieldValue("f", strings.Repeat("x", 22)).Build()}
	})
	words := []string{"f", strings.Repeat("x", 22)} // 7 + 3 + 24: 40 bytes, or 48
	best, least := 0, math.Inf(1)
	for _, quantum := range []int{16, 8} {
		m.quantum = quantum
		bytes, _, _ := m.hashBytes(100, words, false)
		table := 8.0 * 4096 / 4000
		if m.generation >= keyInObject {
			table = 64.0 * 1024 / 4000
		}
		if off := math.Abs(float64(bytes) + table - got); off < least {
			best, least = quantum, off
		}
	}
	return best
}

// measure returns what each of n keys adds to used_memory. Nobody else is connected: buffers of clients come and go.
func measure(t *testing.T, server *valkeytest.Server, n int, ttl bool, key func(int) string, write func(valkey.Client, string) valkey.Commands) float64 {
	t.Helper()
	ask(t, server, "FLUSHALL SYNC")
	before := settled(t, server, false)
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{server.Socket}, DialCtxFn: valkeytest.DialUnix, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send := func(cmds valkey.Commands) {
		for _, reply := range c.DoMulti(t.Context(), cmds...) {
			if err := reply.Error(); err != nil && !valkey.IsValkeyNil(err) {
				t.Fatal(err)
			}
		}
	}
	for i := 0; i < n; {
		var cmds valkey.Commands
		for ; i < n && len(cmds) < 200; i++ {
			cmds = append(cmds, write(c, key(i))...)
		}
		send(cmds)
	}
	var reads valkey.Commands
	for i := range 2 * n { // a table that has grown is moved step by step
		reads = append(reads, c.B().Exists().Key(key(i)).Build())
	}
	send(reads)
	c.Close()
	return float64(settled(t, server, ttl)-before) / float64(n)
}

// settled is used_memory once it stays the same, and this is the only client. A table of TTLs is moved in the background
// only, ten times a second.
func settled(t *testing.T, server *valkeytest.Server, ttl bool) (used int) {
	t.Helper()
	enough := map[bool]int{true: 40, false: 4}[ttl]
	for same, deadline := 0, time.Now().Add(time.Minute); same < enough; <-time.After(5 * time.Millisecond) {
		text := ask(t, server, "INFO all")
		now := number(t, text, "used_memory")
		if same++; now != used || number(t, text, "connected_clients") != 1 {
			used, same = now, 0
		}
		if time.Now().After(deadline) {
			t.Fatal("used_memory does not settle")
		}
	}
	return used
}

func number(t *testing.T, info, field string) int {
	t.Helper()
	_, rest, _ := strings.Cut(info, "\r\n"+field+":")
	digits, _, _ := strings.Cut(rest, "\r\n")
	n, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatalf("INFO: %s: %v", field, err)
	}
	return n
}

// ask sends a line on a connection of its own, which has the same buffers each time, and returns the answer.
func ask(t *testing.T, server *valkeytest.Server, line string) string {
	t.Helper()
	conn, err := net.Dial("unix", server.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s\r\nQUIT\r\n", line); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestAdviceNamesWhatIsWrong(t *testing.T) {
	type row struct{ A int }
	for _, test := range []struct {
		server Server
		want   string
	}{
		{Server{Kind: "redis", Major: 6}, "redis 6.0"}, {Server{Kind: "keydb", Major: 7}, "keydb"}, {Server{}, "nothing is known"},
		{Server{Kind: "valkey", Major: 8, Quantum: 4}, "Quantum"},
	} {
		if _, err := Advise(test.server, "k", false, row{}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test.server, err)
		}
	}
	good := Server{Kind: "valkey", Major: 8}
	if _, err := Advise[row](good, "k", false); err == nil {
		t.Error("no samples were accepted")
	}
	if _, err := Advise(good, "k", false, 7); err == nil {
		t.Error("a number was accepted")
	}
	if _, err := Advise(good, "k", false, struct{ C chan int }{}); err == nil {
		t.Error("a channel was accepted")
	}
}

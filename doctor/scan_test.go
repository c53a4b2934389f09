package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

func ids(r Report) []string {
	var list []string
	for _, f := range r.Findings {
		list = append(list, f.ID)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func TestScanEverywhere(t *testing.T) {
	valkeytest.Each(t, func(t *testing.T, env valkeytest.Env) {
		write(t, env.Client, 5000, func(i int) []string { return []string{"SET", fmt.Sprintf("user:%d:profile", i), "value", "EX", "1000"} })
		write(t, env.Client, 500, func(i int) []string { return []string{"HSET", fmt.Sprintf("hash:%d", i), "a", "1"} })
		var seen int64
		r, err := Scan(t.Context(), env.Client, Config{Progress: func(done, total int64) {
			if done < seen || total < 5500 {
				t.Errorf("%d of %d after %d", done, total, seen)
			}
			seen = done
		}})
		if err != nil || !r.Complete || r.Keys != 5500 || r.NoTTL != 500 || seen != 5500 {
			t.Errorf("%d keys, %d without TTL, complete %v, progress %d, %v", r.Keys, r.NoTTL, r.Complete, seen, err)
		}
		var names []string
		for _, p := range r.Prefixes {
			names = append(names, p.Pattern)
		}
		if !slices.Contains(names, "user:*:profile") || !slices.Contains(names, "hash:*") {
			t.Errorf("prefixes %v", names)
		}
		sample, err := Scan(t.Context(), env.Client, Config{Sample: 2000})
		if err != nil || sample.Source != "sample" || sample.Sampled < 1900 || sample.Keys != 5500 || sample.Bytes < 0.9*r.Bytes || sample.Bytes > 1.1*r.Bytes {
			t.Errorf("a sample of %d: %d keys, %.0f of %.0f bytes, %v", sample.Sampled, sample.Keys, sample.Bytes, r.Bytes, err)
		}
	})
}

// as signs in as a user who may do what rules say.
func as(t *testing.T, s *valkeytest.Server, rules ...string) valkey.Client {
	t.Helper()
	do(t, s.Client(), append([]string{"ACL", "SETUSER", "doctor", "on", ">secret", "resetkeys", "-@all"}, rules...)...)
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.Socket}, DialCtxFn: valkeytest.DialUnix, Username: "doctor", Password: "secret", DisableCache: true, ClientSetInfo: valkey.DisableClientSetInfo})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestScanWhereCommandsAreRefused takes command after command away.
func TestScanWhereCommandsAreRefused(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", ""}})
	populate(t, s.Client())
	whole, err := Scan(t.Context(), s.Client(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"~*", "+@read", "+scan", "+ping", "+hello", "+dbsize", "+info", "+slowlog", "+client", "+acl", "+memory", "+command", "+cluster"}
	for _, gone := range []string{"-info", "-memory", "-object", "-pexpiretime", "-pttl -pexpiretime", "-slowlog -client -acl -command", "-type", "-getrange", "-dbsize", "-info -memory -object -pttl -pexpiretime -slowlog -client -acl -dbsize -getrange"} {
		c := as(t, s, append(slices.Clone(all), strings.Fields(gone)...)...)
		r, err := Scan(t.Context(), c, Config{})
		if err != nil || r.Keys != whole.Keys || !r.Complete || len(r.Refused) == 0 {
			t.Errorf("%s: %d of %d keys, refused %v, %v", gone, r.Keys, whole.Keys, r.Refused, err)
			continue
		}
		if !slices.Contains(ids(r), "refused") {
			t.Errorf("%s: %v", gone, ids(r))
		}
		if off := r.Bytes / whole.Bytes; off < 0.3 || off > 3 {
			t.Errorf("%s: %.0f of %.0f bytes", gone, r.Bytes, whole.Bytes)
		}
	}
	if _, err := Scan(t.Context(), as(t, s, append(slices.Clone(all), "-scan")...), Config{}); err == nil || !strings.Contains(err.Error(), "SCAN") {
		t.Errorf("without SCAN: %v", err)
	}
	r, err := Scan(t.Context(), as(t, s, append(slices.Clone(all), "-randomkey")...), Config{Sample: 10})
	if err != nil || r.Sampled == 0 || !slices.Contains(r.Refused, "RANDOMKEY") {
		t.Errorf("without RANDOMKEY: %d, %v, %v", r.Sampled, r.Refused, err)
	}
	hidden := as(t, s, append([]string{"~s:*"}, all[1:]...)...)
	r, err = Scan(t.Context(), hidden, Config{})
	if err != nil || r.Keys+r.Hidden != whole.Keys || r.Hidden == 0 || len(r.Refused) != 0 {
		t.Errorf("a user of s:*: %d keys, %d hidden, refused %v, %v", r.Keys, r.Hidden, r.Refused, err)
	}
}

// TestScanOnlyReads holds it against what the server counts: no write, no CONFIG, no DEBUG.
func TestScanOnlyReads(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", "", "--maxmemory-policy", "allkeys-lfu"}})
	populate(t, s.Client())
	before := usedCommands(t, s.Client())
	if _, err := Scan(t.Context(), s.Client(), Config{}); err != nil {
		t.Fatal(err)
	}
	allowed := " scan pexpiretime type object|encoding object|freq memory|usage memory|stats memory|malloc-stats info dbsize slowlog|get client|list acl|whoami getrange xlen llen scard hlen zcard command|info command client|tracking hello client|setinfo "
	for name, n := range usedCommands(t, s.Client()) {
		if n > before[name] && !strings.Contains(allowed, " "+name+" ") {
			t.Errorf("%s was called %d times", name, n-before[name])
		}
	}
}

func usedCommands(t *testing.T, c valkey.Client) map[string]int64 {
	t.Helper()
	m := do(t, c, "INFO", "commandstats")
	text, _ := m.ToString()
	calls := map[string]int64{}
	for line := range strings.Lines(text) {
		if name, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":"); ok {
			var n int64
			_, _ = fmt.Sscanf(rest, "calls=%d", &n)
			calls[name] = n
		}
	}
	return calls
}

// TestScanOverACutConnection cuts every connection after it has carried a while.
func TestScanOverACutConnection(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", ""}})
	write(t, s.Client(), 20_000, func(i int) []string { return []string{"SET", fmt.Sprintf("k:%d", i), "v"} })
	var cuts atomic.Int64
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.Socket}, DisableCache: true, ForceSingleClient: true,
		DialCtxFn: func(ctx context.Context, path string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			conn, err := d.DialContext(ctx, "unix", path)
			return &cutting{Conn: conn, left: 60_000, cuts: &cuts}, err
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := Scan(t.Context(), c, Config{})
	if err != nil || r.Keys != 20_000 {
		t.Errorf("%d keys, %v", r.Keys, err)
	}
	if cuts.Load() < 3 {
		t.Errorf("%d connections were cut", cuts.Load())
	}
}

// cutting is a connection that breaks after it has carried some bytes.
type cutting struct {
	net.Conn
	left int
	cuts *atomic.Int64
}

func (c *cutting) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.left -= n; c.left < 0 && err == nil {
		c.cuts.Add(1)
		_ = c.Close()
		return 0, errors.New("cut")
	}
	return n, err
}

func TestScanOfASilentServerEnds(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", ""}})
	write(t, s.Client(), 3000, func(i int) []string { return []string{"SET", fmt.Sprintf("k:%d", i), "v"} })
	dead := false
	_, err := Scan(t.Context(), s.Client(), Config{Patience: 50 * time.Millisecond, Progress: func(int64, int64) {
		if !dead {
			dead = true
			s.Kill()
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v", err)
	}
}

// TestResume ends a scan in the middle, and goes on: the report is that of one that was not ended.
func TestResume(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", ""}})
	c := s.Client()
	write(t, c, 30_000, func(i int) []string { return []string{"SET", fmt.Sprintf("k:%d", i), strings.Repeat("v", i%70)} })
	whole, err := Scan(t.Context(), c, Config{})
	if err != nil {
		t.Fatal(err)
	}
	var state []byte
	checkpoint := func(b []byte) error { state = b; return nil }
	ctx, cancel := context.WithCancel(t.Context())
	part, err := Scan(ctx, c, Config{Checkpoint: checkpoint, Progress: func(done, _ int64) {
		if done >= 10_000 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || part.Complete || part.Keys < 10_000 || part.Keys >= 30_000 || state == nil {
		t.Fatalf("%d keys, complete %v, %v", part.Keys, part.Complete, err)
	}
	rest, err := Scan(t.Context(), c, Config{Resume: state, Checkpoint: checkpoint})
	if err != nil || rest.Keys != whole.Keys || fmt.Sprint(rest.Forms) != fmt.Sprint(whole.Forms) || fmt.Sprint(rest.Prefixes) != fmt.Sprint(whole.Prefixes) || fmt.Sprint(rest.Big) != fmt.Sprint(whole.Big) {
		t.Errorf("%d keys, %v\n%v\n%v", rest.Keys, err, rest.Forms, whole.Forms)
	}
	if _, err := Scan(t.Context(), c, Config{Resume: []byte("nonsense")}); !errors.Is(err, ErrConfig) {
		t.Errorf("a damaged state: %v", err)
	}
	other := valkeytest.Start(t).Client()
	if _, err := Scan(t.Context(), other, Config{Resume: state}); !errors.Is(err, ErrConfig) {
		t.Errorf("the state of another server: %v", err)
	}
}

// TestReshard moves slots while they are scanned: no error, and no key twice on one side.
func TestReshard(t *testing.T) {
	nodes := valkeytest.Cluster(t, 3)
	c := nodes.Client()
	write(t, c, 6000, func(i int) []string { return []string{"SET", fmt.Sprintf("k:%d", i), "v"} })
	moved := false
	r, err := Scan(t.Context(), c, Config{Progress: func(int64, int64) {
		if !moved {
			moved = true
			moveSlots(t, nodes)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Keys < 3000 || r.Keys+r.Moved > 12_000 {
		t.Errorf("%d keys, %d moved", r.Keys, r.Moved)
	}
	if r.Complete != (r.Moved == 0) {
		t.Errorf("complete %v, %d moved", r.Complete, r.Moved)
	}
}

// moveSlots gives a hundred slots of the first node to the second, with their keys.
func moveSlots(t *testing.T, nodes *valkeytest.Nodes) {
	t.Helper()
	from, to := nodes.Servers[0].Client(), nodes.Servers[1].Client()
	id := func(c valkey.Client) string {
		m := do(t, c, "CLUSTER", "MYID")
		name, _ := m.ToString()
		return name
	}
	host, port, err := net.SplitHostPort(nodes.Addrs()[1])
	if err != nil {
		t.Fatal(err)
	}
	for slot := range 100 {
		n := fmt.Sprint(slot)
		do(t, to, "CLUSTER", "SETSLOT", n, "IMPORTING", id(from))
		do(t, from, "CLUSTER", "SETSLOT", n, "MIGRATING", id(to))
		m := do(t, from, "CLUSTER", "GETKEYSINSLOT", n, "1000")
		if keys, _ := m.AsStrSlice(); len(keys) > 0 {
			do(t, from, append([]string{"MIGRATE", host, port, "", "0", "5000", "KEYS"}, keys...)...)
		}
		for _, c := range []valkey.Client{to, from, nodes.Servers[2].Client()} {
			do(t, c, "CLUSTER", "SETSLOT", n, "NODE", id(to))
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for want, cfg := range map[string]Config{
		"Prefixes": {Prefixes: []string{"a b"}}, "Sample": {Sample: -1}, "Top": {Top: 1001}, "Quantum": {Quantum: 4}, "Patience": {Patience: 1}, "Node": {Node: "cache.none"},
	} {
		if _, err := ReadRDB(t.Context(), strings.NewReader(""), cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if _, err := Scan(t.Context(), nil, Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("%v", err)
	}
}

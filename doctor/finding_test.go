package doctor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

// TestPolicies holds the findings about a database that mixes all blocks, under each policy: those that should come, and no others.
func TestPolicies(t *testing.T) {
	always := []string{"no-replica", "not-durable"} // of queues on a single server without a log
	for policy, want := range map[string][]string{
		"noeviction":      {"full-cache"},
		"allkeys-lru":     {"evicts-data", "evicts-state"},
		"allkeys-lfu":     {"evicts-data", "evicts-state"},
		"allkeys-random":  {"evicts-data", "evicts-state"},
		"volatile-lru":    {"evicts-state"},
		"volatile-lfu":    {"evicts-state"},
		"volatile-random": {"evicts-state"},
		"volatile-ttl":    {"evicts-state"},
	} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", "", "--slowlog-log-slower-than", "-1", "--maxmemory", "512mb"}})
			mix(t, s.Client()) // blocks turn some policies away, so that it is changed behind their back
			do(t, s.Client(), "CONFIG", "SET", "maxmemory-policy", policy)
			r, err := Scan(t.Context(), s.Client(), Config{})
			if err != nil {
				t.Fatal(err)
			}
			want := slices.Sorted(slices.Values(append(slices.Clone(always), want...)))
			if got := ids(r); !slices.Equal(got, want) {
				t.Errorf("findings %v, want %v\n%+v", got, want, r.Findings)
			}
			for _, f := range r.Findings {
				if f.Evidence == "" || f.Fix == "" || f.Where == "" || f.What == "" {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// TestCacheAlone has nothing to complain about.
func TestCacheAlone(t *testing.T) {
	for policy, want := range map[string][]string{"allkeys-lru": nil, "allkeys-lfu": nil, "volatile-lru": nil, "noeviction": {"full-cache"}} {
		s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", "", "--slowlog-log-slower-than", "-1", "--maxmemory", "512mb", "--maxmemory-policy", policy}})
		write(t, s.Client(), 2000, func(i int) []string {
			return []string{"SET", fmt.Sprintf("page:%d", i), "x", "EX", fmt.Sprint(300 + i)}
		})
		r, err := Scan(t.Context(), s.Client(), Config{})
		if err != nil || !slices.Equal(ids(r), want) {
			t.Errorf("%s: %v, %v", policy, ids(r), err)
		}
	}
}

// only returns the findings of one kind.
func only(r Report, id string) []Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return f.ID != id })
}

func TestFindingsAboutKeys(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", "", "--maxmemory", "200mb", "--maxmemory-policy", "allkeys-lfu", "--lfu-log-factor", "0", "--enable-debug-command", "local"}})
	c := s.Client()
	at := time.Now().Add(time.Hour).Unix()
	write(t, c, 2000, func(i int) []string { return []string{"SET", fmt.Sprintf("storm:%d", i), "v", "EXAT", fmt.Sprint(at)} })
	write(t, c, 1000, func(i int) []string {
		return []string{"SET", fmt.Sprintf("page:%d", i), "v", "EX", fmt.Sprint(300 + i)}
	})
	write(t, c, 50, func(i int) []string { return []string{"SET", fmt.Sprintf("page:forgotten%d", 1000+i), "v"} })
	write(t, c, 300, func(int) []string { return []string{"GET", "page:7"} })
	do(t, c, "SET", "big", strings.Repeat("x", 11<<20))
	do(t, c, "DEBUG", "SLEEP", "0.11")
	r, err := Scan(t.Context(), c, Config{})
	if err != nil {
		t.Fatal(err)
	}
	for id, where := range map[string]string{"expiry-storm": time.Unix(at, 0).UTC().Format(time.RFC3339), "no-ttl": "page:*", "big-key": "big", "hot-key": "page:7", "slow-commands": s.Socket} {
		if got := only(r, id); len(got) != 1 || got[0].Where != where {
			t.Errorf("%s: %+v", id, got)
		}
	}
	if f := only(r, "slow-commands"); len(f) == 1 && strings.Contains(f[0].Evidence, "SLEEP") {
		t.Errorf("an argument is shown: %+v", f)
	}
}

func TestHeadroomAndEvictions(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", "", "--maxmemory", "6mb", "--maxmemory-policy", "allkeys-random"}})
	write(t, s.Client(), 5000, func(i int) []string { return []string{"SET", fmt.Sprintf("page:%d", i), strings.Repeat("x", 2000)} })
	r, err := Scan(t.Context(), s.Client(), Config{Remote: true, Plaintext: true, Anonymous: true})
	if err != nil || len(only(r, "headroom")) != 1 || len(only(r, "evictions")) != 1 || len(only(r, "no-tls")) != 1 || len(only(r, "no-password")) != 1 {
		t.Errorf("%v, %+v", err, r.Findings)
	}
	if list := r.Worst(High); len(list) == 0 || len(list) == len(r.Findings) {
		t.Errorf("%d of %d are high", len(list), len(r.Findings))
	}
	none := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", ""}})
	if r, err = Scan(t.Context(), none.Client(), Config{}); err != nil || !slices.Equal(ids(r), []string{"no-maxmemory"}) {
		t.Errorf("an empty server: %v, %v", ids(r), err)
	}
}

func TestObjectsAndGrowth(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", "", "--maxmemory", "32mb", "--maxmemory-policy", "allkeys-lru"}})
	c := s.Client()
	now := time.Now()
	cfg := Config{now: func() time.Time { return now }}
	first, err := Scan(t.Context(), c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, 20_000, func(i int) []string { return []string{"SET", userKey(i), userJSON(i), "EX", fmt.Sprint(9000 + i)} })
	now = now.Add(24 * time.Hour)
	cfg.Since = &first
	second, err := Scan(t.Context(), c, cfg)
	if err != nil || second.Growth == nil || second.Growth.Keys != 20_000 || len(second.Growth.Prefixes) != 1 || len(only(second, "growth")) != 1 {
		t.Fatalf("%v, %+v, %v", err, second.Growth, ids(second))
	}
	if len(second.Objects) != 1 || second.Objects[0].Samples < 100 {
		t.Fatalf("%+v", second.Objects)
	}
	// The hash that is foretold is the hash that is.
	o := second.Objects[0]
	do(t, c, "FLUSHALL", "SYNC")
	write(t, c, 1000, func(i int) []string { return shapes[2].build(i) })
	hashes, err := Scan(t.Context(), c, Config{})
	if err != nil {
		t.Fatal(err)
	}
	got := hashes.Bytes / 1000
	if off := o.HashBytes/got - 1; off < -0.1 || off > 0.1 {
		t.Errorf("a hash is foretold to take %.0f bytes, and takes about %.0f", o.HashBytes, got)
	}
}

// TestGrowthSinceTheWrongReport holds that what can't be compared is not.
func TestGrowthSinceTheWrongReport(t *testing.T) {
	now := time.Now()
	r := Report{Taken: now, Complete: true, Server: Server{Kind: "valkey", MaxMemory: 2000, Used: 1900}, Sum: Sum{Bytes: 1000}}
	prefix := func(name string, bytes float64) Prefix { return Prefix{Pattern: name, Sum: Sum{Bytes: bytes}} }
	r.Prefixes = []Prefix{prefix("new:*", 500), prefix("same:*", 400), prefix("small:*", 100)}
	good := Report{Taken: now.Add(-time.Hour), Complete: true, Server: Server{Kind: "valkey"}, Sum: Sum{Bytes: 900}, Prefixes: []Prefix{prefix("same:*", 400), prefix("b:*", 90), prefix("a:*", 90)}}
	conclude(&r, Config{Since: &good, Top: 3}, newTally(Config{}, now), nil)
	if r.Growth == nil || len(r.Growth.Prefixes) != 1 || r.Growth.Prefixes[0].Pattern != "new:*" {
		t.Errorf("%+v: small:* was there, and too small for the list", r.Growth)
	}
	if len(only(r, "growth")) != 1 {
		t.Errorf("%v", ids(r))
	}
	sample := r
	sample.Margin = 150
	conclude(&sample, Config{Since: &good, Top: 3}, newTally(Config{}, now), nil)
	if len(only(sample, "growth")) != 0 {
		t.Errorf("growth within the margin of a sample: %v", ids(sample))
	}
	for want, change := range map[string]func(old, r *Report){
		"before":       func(old, _ *Report) { old.Taken = now.Add(time.Hour) },
		"the earlier":  func(old, _ *Report) { old.Complete = false },
		"this report":  func(_, r *Report) { r.Complete = false },
		"another kind": func(old, _ *Report) { old.Server.Kind = "redis" },
	} {
		old, r := good, r
		r.Growth, r.Notes = nil, nil
		change(&old, &r)
		conclude(&r, Config{Since: &old, Top: 3}, newTally(Config{}, now), nil)
		if r.Growth != nil || len(only(r, "growth")) > 0 || !strings.Contains(strings.Join(r.Notes, ""), want) {
			t.Errorf("%s: %+v, %v", want, r.Growth, r.Notes)
		}
	}
}

// TestGrowthIsInOrder has many prefixes that have grown by the same.
func TestGrowthIsInOrder(t *testing.T) {
	now := time.Now()
	r := Report{Taken: now, Complete: true, Server: Server{Kind: "valkey"}}
	for i := range 40 {
		r.Prefixes = append(r.Prefixes, Prefix{Pattern: fmt.Sprintf("%02d:*", (i*7)%40), Sum: Sum{Keys: 1, Bytes: 10}})
	}
	old := Report{Taken: now.Add(-time.Hour), Complete: true, Server: Server{Kind: "valkey"}}
	conclude(&r, Config{Since: &old}, newTally(Config{}, now), nil)
	for i, p := range r.Growth.Prefixes {
		if p.Pattern != fmt.Sprintf("%02d:*", i) {
			t.Fatalf("%d: %s", i, p.Pattern)
		}
	}
}

// TestFindingsOfInfo gives each rule about a node what INFO, CLIENT LIST and the keys say, and what is just not enough.
func TestFindingsOfInfo(t *testing.T) {
	const primary = "# Replication\r\nrole:master\r\nmaster_repl_offset:20000000\r\n"
	queue := Block{Role{"queue", "ready", Destroy}, Sum{Keys: 1, Bytes: 100}}
	for _, c := range []struct {
		name    string
		info    string
		clients string
		policy  string
		block   bool
		other   map[string]Sum
		sum     Sum
		want    string
	}{
		{name: "fragmentation", info: "# Memory\r\nused_memory:200000000\r\nused_memory_rss:310000000\r\nmaxmemory:1000000000\r\n", want: "fragmentation"},
		{name: "a small server", info: "# Memory\r\nused_memory:2000000\r\nused_memory_rss:31000000\r\nmaxmemory:1000000000\r\n"},
		{name: "swapping", info: "# Memory\r\nused_memory:200000000\r\nused_memory_rss:170000000\r\nmaxmemory:1000000000\r\n", want: "swapping"},
		{name: "neither", info: "# Memory\r\nused_memory:200000000\r\nused_memory_rss:220000000\r\nmaxmemory:1000000000\r\n"},
		{name: "buffers", clients: "id=1 omem=10000000 cmd=lrange user=a\nid=2 omem=9000000 cmd=get user=a\n", want: "client-buffers"},
		{name: "small buffers", clients: "id=1 omem=10000000 cmd=lrange\nid=2 omem=0 cmd=get\n"},
		{name: "connections", info: "# Clients\r\nconnected_clients:80\r\nmaxclients:100\r\n", want: "connections"},
		{name: "few connections", info: "# Clients\r\nconnected_clients:79\r\nmaxclients:100\r\n"},
		{name: "behind by bytes", info: primary + "slave0:ip=10.0.0.2,port=6379,state=online,offset=18000000,lag=0\r\n", want: "replica-lag"},
		{name: "behind by time", info: primary + "slave0:ip=10.0.0.2,port=6379,state=online,offset=20000000,lag=11\r\n", want: "replica-lag"},
		{name: "up to date", info: primary + "slave0:ip=10.0.0.2,port=6379,state=online,offset=19999000,lag=1\r\n"},
		{name: "cut off", info: "# Replication\r\nrole:slave\r\nmaster_link_status:down\r\n", want: "replica-cut-off"},
		{name: "no replica of a queue", info: primary, block: true, want: "no-replica"},
		{name: "no replica of a cache", info: primary},
		{name: "snapshot", info: "# Persistence\r\naof_enabled:0\r\nrdb_last_bgsave_status:err\r\n", want: "snapshot-fails"},
		{name: "log", info: "# Persistence\r\naof_enabled:1\r\naof_last_write_status:err\r\n", want: "log-fails"},
		{name: "a log that is off", info: "# Persistence\r\naof_enabled:0\r\naof_last_write_status:err\r\n"},
		{name: "not durable", info: "# Persistence\r\naof_enabled:0\r\n", block: true, want: "not-durable"},
		{name: "durable", info: "# Persistence\r\naof_enabled:1\r\n", block: true},
		{name: "queues", policy: "allkeys-lru", other: map[string]Sum{"list": {Keys: 3, Bytes: 300, NoTTL: 3}}, want: "evicts-queues"},
		{name: "lists that end", policy: "allkeys-lru", other: map[string]Sum{"list": {Keys: 3, Bytes: 300}}},
		{name: "nothing to evict", policy: "volatile-lru", sum: Sum{Keys: 200, Bytes: 1000, NoTTL: 190, NoTTLBytes: 950}, want: "nothing-to-evict"},
		{name: "something", policy: "volatile-lru", sum: Sum{Keys: 200, Bytes: 1000, NoTTL: 100, NoTTLBytes: 500}},
	} {
		h := health{addr: "node", info: map[string]string{}, replication: map[string]string{}}
		h.read(c.info)
		h.clients(c.clients)
		r := Report{Server: Server{Policy: c.policy, MaxMemory: 1 << 30}, Sum: c.sum}
		if c.block {
			r.Blocks = []Block{queue}
		}
		tally := newTally(Config{}, time.Now())
		tally.Other = c.other
		conclude(&r, Config{}, tally, &healths{[]health{h}, []health{h}})
		if got := strings.Join(ids(r), " "); got != c.want {
			t.Errorf("%s: findings %q, want %q: %+v", c.name, got, c.want, r.Findings)
		}
	}
}

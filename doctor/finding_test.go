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

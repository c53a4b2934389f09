package policy

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"
)

// Claim is a sentence about memory that is often read, and what a server says to it.
type Claim struct {
	Claim    string `json:"claim"`
	Measured string `json:"measured"`
	Holds    string `json:"holds"` // yes, no or partly
}

const (
	claimKeys     = 20_000
	claimSessions = 50_000
)

// bench is the server that claims are held against.
type bench struct {
	*server
	ctx    context.Context
	claims []Claim
}

// Claims holds each claim against a local server, which takes about half a minute. It also says which server that was.
func Claims(ctx context.Context, program string) ([]Claim, string, error) {
	s, err := start(ctx, program)
	if err != nil {
		return nil, "", err
	}
	defer s.close()
	b := &bench{server: s, ctx: ctx}
	info, err := s.stats(ctx)
	if err != nil {
		return nil, "", err
	}
	name := "Redis " + info["redis_version"]
	if v := info["valkey_version"]; v != "" {
		name = "Valkey " + v
	}
	for _, check := range []func() error{b.objects, b.encodings, b.usage, b.sessions} {
		if err := check(); err != nil {
			return b.claims, name, err
		}
	}
	for _, check := range []func(context.Context, string) ([]Claim, error){policyClaims, stormClaims} {
		more, err := check(ctx, program)
		b.claims = append(b.claims, more...)
		if err != nil {
			return b.claims, name, err
		}
	}
	return b.claims, name, nil
}

func (b *bench) add(claim, holds, format string, args ...any) {
	b.claims = append(b.claims, Claim{claim, fmt.Sprintf(format, args...), holds})
}

func yesNo(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}

// each is by how much used_memory grows for each of n keys.
func (b *bench) each(n int, write func(i int) valkey.Completed) (float64, error) {
	if err := b.client.Do(b.ctx, b.client.B().Flushall().Sync().Build()).Error(); err != nil {
		return 0, err
	}
	before, err := b.used()
	if err != nil {
		return 0, err
	}
	for from := 0; from < n; from += 1000 {
		cmds := make([]valkey.Completed, 0, 1000)
		for i := from; i < min(n, from+1000); i++ {
			cmds = append(cmds, write(i))
		}
		for _, r := range b.client.DoMulti(b.ctx, cmds...) {
			if err := r.Error(); err != nil {
				return 0, err
			}
		}
	}
	after, err := b.used()
	return (after - before) / float64(n), err
}

// used is used_memory when it has come to rest: tables move to their new size in the background.
func (b *bench) used() (float64, error) {
	last := ""
	for range 50 {
		info, err := b.stats(b.ctx)
		if err != nil {
			return 0, err
		}
		if info["used_memory"] == last {
			break
		}
		last = info["used_memory"]
		select {
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
	return strconv.ParseFloat(last, 64)
}

func user(i int) string {
	return fmt.Sprintf(`{"id":%d,"name":"Jane Doe","email":"jane%06d@example.com","plan":"premium","active":true}`, 100000+i, i)
}

func (b *bench) objects() error {
	asString, err := b.each(claimKeys, func(i int) valkey.Completed {
		return b.client.B().Set().Key(fmt.Sprintf("user:%06d", i)).Value(user(i)).Build()
	})
	if err != nil {
		return err
	}
	asHash, err := b.each(claimKeys, func(i int) valkey.Completed {
		return b.client.B().Hset().Key(fmt.Sprintf("user:%06d", i)).FieldValue().FieldValue("id", strconv.Itoa(100000+i)).FieldValue("name", "Jane Doe").
			FieldValue("email", fmt.Sprintf("jane%06d@example.com", i)).FieldValue("plan", "premium").FieldValue("active", "true").Build()
	})
	if err != nil {
		return err
	}
	saves := 100 * (1 - asHash/asString)
	b.add("A hash in place of a JSON string saves 40 to 70% for small objects", yesNo(saves >= 40), "five fields: %.0f B as a string, %.0f B as a hash: %.0f%%", asString, asHash, saves)
	b.add("A small object is about 100 bytes as JSON, about 60 as a hash", yesNo(asString < 120 && asHash < 75), "%.0f B and %.0f B, with key and table", asString, asHash)
	return nil
}

func (b *bench) encoding(fields, size int) (string, error) {
	key := fmt.Sprintf("h:%d:%d", fields, size)
	for i := range fields {
		if err := b.client.Do(b.ctx, b.client.B().Hset().Key(key).FieldValue().FieldValue(fmt.Sprintf("f%d", i), strings.Repeat("v", size)).Build()).Error(); err != nil {
			return "", err
		}
	}
	return b.client.Do(b.ctx, b.client.B().ObjectEncoding().Key(key).Build()).ToString()
}

func (b *bench) encodings() error {
	var got []string
	for _, h := range [][2]int{{127, 8}, {512, 8}, {513, 8}, {5, 64}, {5, 65}} {
		e, err := b.encoding(h[0], h[1])
		if err != nil {
			return err
		}
		got = append(got, e)
	}
	b.add("The compact encoding of a hash is called ziplist", yesNo(got[0] == "ziplist"), "OBJECT ENCODING: %s", got[0])
	b.add("It holds for fewer than 128 fields", yesNo(got[1] != got[0]), "512 fields: %s, 513: %s", got[1], got[2])
	holds := "no"
	if got[3] == got[0] && got[4] != got[0] {
		holds = "partly"
	}
	b.add("It holds for values under 64 bytes", holds, "64 bytes: %s, 65: %s", got[3], got[4])
	return nil
}

func (b *bench) usage() error {
	real, err := b.each(claimKeys, func(i int) valkey.Completed {
		return b.client.B().Set().Key(fmt.Sprintf("rate:%08d", i)).Value(strconv.Itoa(20000 + i)).ExSeconds(3600).Build()
	})
	if err != nil {
		return err
	}
	said, err := b.client.Do(b.ctx, b.client.B().MemoryUsage().Key("rate:00000001").Build()).AsInt64()
	b.add("MEMORY USAGE is the memory that a key takes", yesNo(float64(said) > 0.97*real), "a counter with a TTL: MEMORY USAGE %d B, used_memory %.0f B: %.0f%% is left out", said, real, 100*(1-float64(said)/real))
	return err
}

func (b *bench) sessions() error {
	value := strings.Repeat("s", 2048)
	each, err := b.each(claimSessions, func(i int) valkey.Completed {
		return b.client.B().Set().Key(fmt.Sprintf("session:%032x", i)).Value(value).ExSeconds(86400).Build()
	})
	b.add("50,000 sessions of 2 KB are 100 MB, and fit 1.37 GB", "partly", "%.0f MB: %.0f%% more than their values; they fit", each*claimSessions/1e6, 100*(each/2000-1))
	return err
}

// policyClaims fill servers of 8 MB with all kinds of keys.
func policyClaims(ctx context.Context, program string) ([]Claim, error) {
	var claims []Claim
	for _, c := range []struct{ policy, claim string }{
		{"noeviction", claim0},
		{"volatile-lru", claim1},
		{"volatile-lru", claim2},
		{"allkeys-lru", claim3},
	} {
		config, locks, refused, err := fill(ctx, program, c.policy)
		if err != nil {
			return claims, err
		}
		measured := fmt.Sprintf("after writing three times the memory: %d of 100 settings and %d of 100 locks are left, %d writes refused", config, locks, refused)
		holds := map[string]bool{claim0: refused > 0, claim1: config == 100, claim2: locks == 100, claim3: config < 100}[c.claim]
		claims = append(claims, Claim{c.claim, measured, yesNo(holds)})
	}
	return claims, nil
}

const (
	claim0 = "noeviction answers with an error when memory is full"
	claim1 = "volatile-lru never evicts configuration without a TTL"
	claim2 = "Sessions, limits and locks carry a TTL, so that volatile-lru keeps what matters"
	claim3 = "allkeys-lru may evict important keys"
)

func fill(ctx context.Context, program, policy string) (config, locks int64, refused int, err error) {
	s, err := start(ctx, program, "--maxmemory", "8mb", "--maxmemory-policy", policy)
	if err != nil {
		return 0, 0, 0, err
	}
	defer s.close()
	for i := range 100 {
		for _, cmd := range []valkey.Completed{
			s.client.B().Set().Key(fmt.Sprintf("config:%d", i)).Value("on").Build(),
			s.client.B().Set().Key(fmt.Sprintf("lock:%d", i)).Value("owner").ExSeconds(3600).Build(),
		} {
			if err := s.client.Do(ctx, cmd).Error(); err != nil {
				return 0, 0, 0, err
			}
		}
	}
	value := strings.Repeat("v", 2048)
	for i := range 12_000 {
		err := s.client.Do(ctx, s.client.B().Set().Key(fmt.Sprintf("page:%d", i)).Value(value).ExSeconds(3600).Build()).Error()
		if outOfMemory(err) {
			refused++
		} else if err != nil {
			return 0, 0, 0, err
		}
	}
	for i := range 100 {
		for name, n := range map[string]*int64{"config": &config, "lock": &locks} {
			there, err := s.client.Do(ctx, s.client.B().Exists().Key(fmt.Sprintf("%s:%d", name, i)).Build()).AsInt64()
			if err != nil {
				return 0, 0, 0, err
			}
			*n += there
		}
	}
	return config, locks, refused, nil
}

func stormClaims(ctx context.Context, program string) ([]Claim, error) {
	all, err := Storms(ctx, program)
	if err != nil {
		return nil, err
	}
	text := func(s Storm) string { return fmt.Sprintf("%v", s.P99.Round(10*time.Microsecond)) }
	lazy := fmt.Sprintf("p99: %s without, %s with it, and %d of %d writes refused because memory was not free yet", text(all[1]), text(all[2]), all[2].Refused, stormWrites)
	holds := yesNo(all[2].P99 < all[1].P99)
	if holds == "yes" && all[2].Refused > 0 {
		holds = "partly"
	}
	return []Claim{
		{"20% of headroom avoids eviction storms", fmt.Sprintf("p99 of %d writes: %s with 20%% free, %s when they have to evict large hashes", stormWrites, text(all[0]), text(all[1])), yesNo(all[0].P99 < all[1].P99)},
		{"lazyfree-lazy-eviction shortens them", lazy, holds},
	}, nil
}

package policy

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"
)

// Storm is how long writes took in one situation.
type Storm struct {
	Name    string `json:"name"`
	Writes  int    `json:"writes"`
	Evicted int64  `json:"evicted_keys"`
	// Refused are writes that found memory still full: what is freed lazily is not free yet.
	Refused int           `json:"refused_writes"`
	P50     time.Duration `json:"p50_ns"`
	P99     time.Duration `json:"p99_ns"`
	Max     time.Duration `json:"max_ns"`
}

const (
	stormFields = 20_000 // of each large hash, about 1.5 MB
	stormWrites = 1_000
	stormValue  = 64 << 10
)

// Storms writes to a server that has to evict large hashes for it: with a fifth of the memory free, without, and without
// but with lazy freeing.
func Storms(ctx context.Context, program string) ([]Storm, error) {
	var all []Storm
	for _, c := range []struct {
		name string
		free bool
		lazy string
	}{{"20% free", true, "no"}, {"full", false, "no"}, {"full, lazyfree-lazy-eviction yes", false, "yes"}} {
		s, err := storm(ctx, program, c.name, c.free, c.lazy)
		if err != nil {
			return all, fmt.Errorf("%s: %w", c.name, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func storm(ctx context.Context, program, name string, free bool, lazy string) (Storm, error) {
	s, err := start(ctx, program, "--maxmemory", "0", "--maxmemory-policy", "allkeys-lru", "--lazyfree-lazy-eviction", lazy)
	if err != nil {
		return Storm{}, err
	}
	defer s.close()
	for i := range 60 {
		if err := fillHash(ctx, s.client, fmt.Sprintf("old:%d", i)); err != nil {
			return Storm{}, err
		}
	}
	info, err := s.stats(ctx)
	if err != nil {
		return Storm{}, err
	}
	used, err := strconv.ParseInt(info["used_memory"], 10, 64)
	if err != nil {
		return Storm{}, err
	}
	limit := used + 64<<10 // the next writes evict
	if free {
		limit = (used + stormWrites*stormValue*5/4) * 5 / 4 // what is written below leaves a fifth of it free
	}
	if err := s.client.Do(ctx, s.client.B().ConfigSet().ParameterValue().ParameterValue("maxmemory", strconv.FormatInt(limit, 10)).Build()).Error(); err != nil {
		return Storm{}, err
	}
	refused := 0
	took := make([]time.Duration, stormWrites)
	value := strings.Repeat("v", stormValue)
	for i := range took {
		begin := time.Now()
		err := s.client.Do(ctx, s.client.B().Set().Key(fmt.Sprintf("new:%d", i)).Value(value).Build()).Error()
		took[i] = time.Since(begin)
		if outOfMemory(err) {
			refused++
		} else if err != nil {
			return Storm{}, err
		}
	}
	if info, err = s.stats(ctx); err != nil {
		return Storm{}, err
	}
	evicted, _ := strconv.ParseInt(info["evicted_keys"], 10, 64)
	slices.Sort(took)
	return Storm{name, len(took), evicted, refused, took[len(took)/2], took[len(took)*99/100], took[len(took)-1]}, nil
}

func outOfMemory(err error) bool {
	e, ok := valkey.IsValkeyErr(err)
	return ok && strings.HasPrefix(e.Error(), "OOM")
}

func fillHash(ctx context.Context, c valkey.Client, key string) error {
	for from := 0; from < stormFields; from += 1000 {
		cmd := c.B().Hset().Key(key).FieldValue()
		for i := from; i < from+1000; i++ {
			cmd = cmd.FieldValue(fmt.Sprintf("field:%06d", i), "twenty bytes of data")
		}
		if err := c.Do(ctx, cmd.Build()).Error(); err != nil {
			return err
		}
	}
	return nil
}

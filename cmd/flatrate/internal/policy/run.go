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

// Policies are all that a server has.
var Policies = []string{"noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"}

const batch = 64 // accesses under way at once

// Config says how to play a trace.
type Config struct {
	Program   string
	MaxMemory int64
	Policies  []string
	TTL       time.Duration                    // of each value; the trace runs faster than its clock, so few end by themselves
	Progress  func(done, total int64)          // may be nil
	Warn      func(format string, args ...any) // may be nil
}

// Result is what one policy did.
type Result struct {
	Policy   string  `json:"policy"`
	Accesses int64   `json:"accesses"`
	Hits     int64   `json:"hits"`
	HitRatio float64 `json:"hit_ratio"`
	// First are accesses of keys that had not been seen: no cache has those. Reloads are misses of keys that were there before.
	First   int64 `json:"first"`
	Reloads int64 `json:"reloads"`
	Evicted int64 `json:"evicted_keys"`
	// Refused are writes that failed because memory was full.
	Refused int64 `json:"refused_writes"`
	// Gone is what is missing at the end, by the first word of its name.
	Gone []Gone `json:"gone"`
	Keys int64  `json:"keys_at_end"`
	Used int64  `json:"used_memory"`
}

// Gone is the keys with one first word.
type Gone struct {
	Prefix  string `json:"prefix"`
	Missing int64  `json:"missing"`
	Of      int64  `json:"of"`
}

// Run plays the trace on a server of its own for each policy, the best first. Between equal ones the order of Policies stands.
func Run(ctx context.Context, t *Trace, cfg Config) ([]Result, error) {
	var all []Result
	total := int64(len(t.Accesses)) * int64(len(cfg.Policies))
	for i, policy := range cfg.Policies {
		done := int64(i) * int64(len(t.Accesses))
		r, err := play(ctx, t, cfg, policy, func(n int64) {
			if cfg.Progress != nil {
				cfg.Progress(done+n, total)
			}
		})
		if err != nil {
			return all, fmt.Errorf("%s: %w", policy, err)
		}
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b Result) int { return int(b.Hits - a.Hits) })
	return all, nil
}

func play(ctx context.Context, t *Trace, cfg Config, policy string, progress func(int64)) (Result, error) {
	s, err := start(ctx, cfg.Program, "--maxmemory", strconv.FormatInt(cfg.MaxMemory, 10), "--maxmemory-policy", policy)
	if err != nil {
		return Result{}, err
	}
	defer s.close()
	r := Result{Policy: policy, Accesses: int64(len(t.Accesses))}
	seen := make([]bool, len(t.Keys))
	value := strings.Repeat("v", MaxValue)
	for from := 0; from < len(t.Accesses); from += batch {
		if err := r.batch(ctx, s.client, t, t.Accesses[from:min(len(t.Accesses), from+batch)], seen, value, cfg.TTL); err != nil {
			return r, err
		}
		if from%(batch*64) == 0 {
			progress(int64(from))
		}
	}
	r.HitRatio = float64(r.Hits) / float64(max(1, r.Accesses))
	info, err := s.stats(ctx)
	if err != nil {
		return r, err
	}
	r.Evicted, _ = strconv.ParseInt(info["evicted_keys"], 10, 64)
	r.Used, _ = strconv.ParseInt(info["used_memory"], 10, 64)
	return r, r.gone(ctx, s.client, t)
}

// batch reads some keys, and writes those that are missing. The second access of a key within a batch is a hit.
func (r *Result) batch(ctx context.Context, c valkey.Client, t *Trace, ids []int32, seen []bool, value string, ttl time.Duration) error {
	reads := make([]valkey.Completed, len(ids))
	for i, id := range ids {
		reads[i] = c.B().Get().Key(t.Keys[id]).Build()
	}
	written := map[int32]bool{}
	var writes []valkey.Completed
	for i, reply := range c.DoMulti(ctx, reads...) {
		id := ids[i]
		err := reply.Error()
		switch {
		case err == nil || valkey.IsValkeyNil(err) && written[id]:
			r.Hits++
			continue
		case !valkey.IsValkeyNil(err):
			return err
		case seen[id]:
			r.Reloads++
		default:
			r.First++
		}
		seen[id], written[id] = true, true
		writes = append(writes, c.B().Set().Key(t.Keys[id]).Value(value[:t.Sizes[id]]).Px(ttl).Build())
	}
	for _, reply := range c.DoMulti(ctx, writes...) {
		if err := reply.Error(); err != nil {
			if !outOfMemory(err) {
				return err
			}
			r.Refused++
		}
	}
	return nil
}

// gone says which keys are missing at the end.
func (r *Result) gone(ctx context.Context, c valkey.Client, t *Trace) error {
	groups := map[string]*Gone{}
	for from := 0; from < len(t.Keys); from += 1000 {
		keys := t.Keys[from:min(len(t.Keys), from+1000)]
		cmds := make([]valkey.Completed, len(keys))
		for i, key := range keys {
			cmds[i] = c.B().Exists().Key(key).Build()
		}
		for i, reply := range c.DoMulti(ctx, cmds...) {
			n, err := reply.AsInt64()
			if err != nil {
				return err
			}
			name := firstWord(keys[i])
			if groups[name] == nil {
				if len(groups) >= 1000 {
					name = "*"
				}
				if groups[name] == nil {
					groups[name] = &Gone{Prefix: name}
				}
			}
			groups[name].Of++
			groups[name].Missing += 1 - n
			r.Keys += n
		}
	}
	for _, g := range groups {
		if g.Missing > 0 {
			r.Gone = append(r.Gone, *g)
		}
	}
	slices.SortFunc(r.Gone, func(a, b Gone) int {
		if a.Missing != b.Missing {
			return int(b.Missing - a.Missing)
		}
		return strings.Compare(a.Prefix, b.Prefix)
	})
	r.Gone = r.Gone[:min(5, len(r.Gone))]
	return nil
}

// firstWord is the part of a key, or of a path, that says what it is.
func firstWord(key string) string {
	for i := 1; i < len(key); i++ {
		if strings.IndexByte(":/?.", key[i]) >= 0 {
			return key[:i+1]
		}
	}
	return key
}

package cache_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/valkeytest"
)

// TestNodeGone kills one of three nodes, without replicas: what is local is served without a load, whether the others go on
// answering or call the cluster down; where they answer, changes are seen; and all is whole again once the node is back.
func TestNodeGone(t *testing.T) {
	for name, coverage := range map[string]string{"others answer": "no", "cluster down": "yes"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := valkeytest.ClusterWith(t, 3, valkeytest.Config{Args: []string{"--cluster-require-full-coverage", coverage}})
			var o version
			var local atomic.Int64
			var heard atomic.Value
			c, err := cache.New[int64](nodes.Client(), cache.Config{
				Local: cache.LocalTier{Entries: 1000},
				Hooks: cache.Hooks{
					Hit: func(_ string, tier cache.Tier) {
						if tier == cache.Local {
							local.Add(1)
						}
					},
					Error: func(_ string, err error) { heard.Store(err) },
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			other, err := cache.New[int64](nodes.Client(), cache.Config{})
			if err != nil {
				t.Fatal(err)
			}
			var keys, gone, there []string
			for i := range 30 {
				key := fmt.Sprint("key ", i)
				keys = append(keys, key)
				look := nodes.Client().B().Get().Key(fmt.Sprintf("fr:cache:default:{key%%20%d}", i)).Build()
				if look.Slot() < 16384/3 {
					gone = append(gone, key)
				} else {
					there = append(there, key)
				}
			}
			allLocal := func() bool {
				before := local.Load()
				for _, key := range keys {
					get(t, c, key, &o)
				}
				return local.Load() == before+int64(len(keys))
			}
			eventually(t, "a local tier", allLocal)
			loads := o.loads.Load()
			nodes.Servers[0].Kill()
			for range 5 {
				for _, key := range keys {
					get(t, c, key, &o)
				}
			}
			if coverage == "yes" {
				eventually(t, "a cluster that is down", func() bool {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					one := nodes.Servers[1].Client()
					info, err := one.Do(ctx, one.B().ClusterInfo().Build()).ToString()
					return err == nil && strings.Contains(info, "cluster_state:fail")
				})
				there, gone = nil, keys
			}
			for range 5 {
				for _, key := range keys {
					if n := get(t, c, key, &o); n != 0 {
						t.Fatalf("%s: %d", key, n)
					}
				}
			}
			if n := o.loads.Load(); n != loads {
				t.Errorf("%d loads; heard %v", n-loads, heard.Load())
			}
			o.n.Store(1)
			for _, key := range there {
				eventually(t, "a change at a node that is there", func() bool { return other.Delete(t.Context(), key) == nil })
				// A busy machine may take one that is slow for one that is away, for a moment.
				eventually(t, "the change", func() bool { return get(t, c, key, &o) == 1 })
			}
			nodes.Servers[0].Restart()
			for _, key := range gone {
				eventually(t, "a change", func() bool { return other.Delete(t.Context(), key) == nil })
				eventually(t, "the change", func() bool { return get(t, c, key, &o) == 1 })
			}
			eventually(t, "a local tier again", allLocal)
		})
	}
}

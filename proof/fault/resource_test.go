package fault

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

// resource is what the lock guards: a key on a server of its own, written through the fence checker of
// the recipes. Each write is numbered by its server, so that the checker knows their order.
type resource struct {
	client valkey.Client
	check  string // the script

	mu       sync.Mutex
	accepted []write
	refused  int
}

// write is one that the resource accepted.
type write struct {
	number int64 // its turn
	holder string
}

func newResource(t *testing.T, client valkey.Client) *resource {
	t.Helper()
	source, err := os.ReadFile("../../docs/recipes/lock/fence.lua")
	if err != nil {
		t.Fatal(err)
	}
	if err := script.Check(string(source)); err != nil {
		t.Fatal(err)
	}
	return &resource{client: client, check: string(source)}
}

// write writes for a holder, of a lock on name with this fence.
func (r *resource) write(ctx context.Context, name, holder string, fence uint64) error {
	number, ok, err := r.send(ctx, name, holder, fence)
	if err != nil {
		return err
	}
	r.answered(write{number, name + " " + holder}, ok)
	return nil
}

func (r *resource) send(ctx context.Context, name, holder string, fence uint64) (number int64, ok bool, err error) {
	err = r.client.Dedicated(func(c valkey.DedicatedClient) error {
		key := "resource:" + name
		for _, reply := range c.DoMulti(ctx,
			c.B().Multi().Build(),
			c.B().Eval().Script(r.check).Numkeys(1).Key(key).Arg(strconv.FormatUint(fence, 10), holder, "again").Build(),
			c.B().Incr().Key("turn").Build(),
		) {
			if err := reply.Error(); err != nil {
				return err
			}
		}
		replies, err := c.Do(ctx, c.B().Exec().Build()).AsIntSlice()
		if err == nil {
			ok, number = replies[0] == 1, replies[1]
		}
		return err
	})
	return number, ok, err
}

func (r *resource) answered(w write, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ok {
		r.accepted = append(r.accepted, w)
	} else {
		r.refused++
	}
}

// stale counts accepted writes of a holder after which another's had been accepted already: what a lock
// is to prevent. It looks at no fence.
func (r *resource) stale() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.accepted, func(a, b write) int { return cmp.Compare(a.number, b.number) })
	last, over := map[string]string{}, map[string]bool{} // name -> who wrote last; who was followed by another
	for _, w := range r.accepted {
		var name, holder string
		_, _ = fmt.Sscan(w.holder, &name, &holder)
		if over[w.holder] {
			n++
		}
		if before, ok := last[name]; ok && before != holder {
			over[name+" "+before] = true
		}
		last[name] = holder
	}
	return n
}

// TestResourceCanFail gives the checker a write of a former holder.
func TestResourceCanFail(t *testing.T) {
	r := &resource{}
	for i, holder := range []string{"x 1", "y 1", "x 1", "x 2", "y 1", "x 2"} {
		r.answered(write{int64(i), holder}, true)
	}
	if n := r.stale(); n != 0 {
		t.Errorf("%d stale writes among none", n)
	}
	r.answered(write{99, "x 1"}, true)
	if n := r.stale(); n != 1 {
		t.Errorf("%d stale writes, not 1", n)
	}
}

package interop

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/flatrate/flatrate/valkeytest"
	_ "modernc.org/sqlite" // the driver
)

// checker is a resource that checks the fence; once is for a token that writes once.
type checker func(fence uint64, once bool) (accepted bool, err error)

// mustBehave holds a checker against the rule, with tokens drawn from a few, in any order.
func mustBehave(t *testing.T, check checker) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	// Around 2^53, where a float can't tell them apart; and with one digit more.
	tokens := []uint64{1, 2, 9, 10, 99, 100, 1<<53 - 1, 1 << 53, 1<<53 + 1, 1<<63 - 1}
	newest, accepts := uint64(0), 0
	for i := range 300 {
		// From the smaller ones to the greater, so that many are accepted.
		fence, once := tokens[min(len(tokens)-1, random.IntN(2+i*len(tokens)/300))], random.IntN(2) == 0
		want := fence > newest || fence == newest && !once
		got, err := check(fence, once)
		if err != nil || got != want {
			t.Fatalf("token %d after %d, once %v: %v, %v; want %v", fence, newest, once, got, err, want)
		}
		if got {
			newest = fence
			accepts++
		}
	}
	if accepts < len(tokens) || newest != tokens[len(tokens)-1] {
		t.Errorf("only %d accepted, up to %d", accepts, newest)
	}
}

func fenceScript(t *testing.T) *script.Script {
	t.Helper()
	source, err := os.ReadFile("../../docs/recipes/lock/fence.lua")
	if err != nil {
		t.Fatal(err)
	}
	if err := script.Check(string(source)); err != nil {
		t.Fatal(err)
	}
	return script.New(string(source))
}

func TestFenceScript(t *testing.T) {
	check := fenceScript(t)
	valkeytest.Each(t, func(t *testing.T, env valkeytest.Env) {
		c, key := env.Client, valkeytest.Prefix(t)
		write := func(key string, args ...string) (bool, error) {
			return check.Exec(t.Context(), c, []string{key}, args...).AsBool()
		}
		mustBehave(t, func(fence uint64, once bool) (bool, error) {
			mode := map[bool]string{true: "once", false: "again"}[once]
			ok, err := write(key, strconv.FormatUint(fence, 10), fmt.Sprint("by ", fence), mode)
			if err != nil || !ok {
				return ok, err
			}
			value, err := c.Do(t.Context(), c.B().Hget().Key(key).Field("value").Build()).ToString()
			if value != fmt.Sprint("by ", fence) {
				t.Fatalf("value %q", value)
			}
			return ok, err
		})
		for _, fence := range []string{"", "0", "-1", "1.5", "1e3", "01", " 1", "x", strings.Repeat("9", 21)} {
			if ok, err := write(key, fence, "v", "once"); ok || err == nil || !strings.Contains(err.Error(), "fencing token") {
				t.Errorf("token %q: %v, %v", fence, ok, err)
			}
		}
		if ok, err := write(key, "18446744073709551615", "v", "twice"); ok || err == nil || !strings.Contains(err.Error(), "once nor again") {
			t.Errorf("mode twice: %v, %v", ok, err)
		}
		for what, spoil := range map[string][]string{"WRONGTYPE": {"SET", key + "1", "x"}, "field fence": {"HSET", key + "2", "fence", "x"}} {
			if err := c.Do(t.Context(), c.B().Arbitrary(spoil[0]).Keys(spoil[1]).Args(spoil[2:]...).Build()).Error(); err != nil {
				t.Fatal(err)
			}
			if ok, err := write(spoil[1], "5", "v", "again"); ok || err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("a foreign key: %v, %v; want %s", ok, err, what)
			}
		}
	})
}

// database is a file, opened by so many connections that writers meet.
func database(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "db")+"?_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.ExecContext(t.Context(), `CREATE TABLE invoice (id INTEGER PRIMARY KEY, state TEXT NOT NULL, fence INTEGER NOT NULL DEFAULT 0)`); err != nil {
		t.Fatal(err)
	}
	return db
}

// The conditions of docs/lock.md, and an insert for rows that may not be there yet.
const (
	updateOnce  = `UPDATE invoice SET state = $2, fence = $1 WHERE id = $3 AND fence < $1`
	updateAgain = `UPDATE invoice SET state = $2, fence = $1 WHERE id = $3 AND fence <= $1`
	insertOnce  = `INSERT INTO invoice (fence, state, id) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, fence = excluded.fence WHERE invoice.fence < excluded.fence`
	insertAgain = `INSERT INTO invoice (fence, state, id) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, fence = excluded.fence WHERE invoice.fence <= excluded.fence`
)

func writer(t *testing.T, db *sql.DB, id int, once, again string) checker {
	return func(fence uint64, one bool) (bool, error) {
		condition := again
		if one {
			condition = once
		}
		done, err := db.ExecContext(t.Context(), condition, int64(fence), fmt.Sprint("by ", fence), id)
		if err != nil {
			return false, err
		}
		n, err := done.RowsAffected()
		return n == 1, err
	}
}

func TestFenceSQL(t *testing.T) {
	page, err := os.ReadFile("../../docs/lock.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"fence < $1", "fence <= $1", "ON CONFLICT (id) DO UPDATE"} {
		if !strings.Contains(string(page), part) {
			t.Errorf("docs/lock.md lacks %q, which is what is tested here", part)
		}
	}
	db := database(t)
	if _, err := db.ExecContext(t.Context(), `INSERT INTO invoice (id, state) VALUES (1, 'open')`); err != nil {
		t.Fatal(err)
	}
	mustBehave(t, writer(t, db, 1, updateOnce, updateAgain))
	mustBehave(t, writer(t, db, 2, insertOnce, insertAgain))
}

// TestFenceSQLConcurrent lets tokens race for one row: whatever the order, the newest is what stays.
func TestFenceSQLConcurrent(t *testing.T) {
	db := database(t)
	check := writer(t, db, 1, insertOnce, insertAgain)
	var all sync.WaitGroup
	accepted := make([]bool, 65)
	for fence := 1; fence < len(accepted); fence++ {
		all.Go(func() {
			var err error
			if accepted[fence], err = check(uint64(fence), true); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	var state string
	var newest int
	if err := db.QueryRowContext(t.Context(), `SELECT state, fence FROM invoice WHERE id = 1`).Scan(&state, &newest); err != nil {
		t.Fatal(err)
	}
	if newest != 64 || state != "by 64" || !accepted[64] {
		t.Errorf("token %d, %q; the newest was accepted: %v", newest, state, accepted[64])
	}
}

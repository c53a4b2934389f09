package interop

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/flatrate/flatrate/cache/writebehind/sqlorigin"
	"github.com/flatrate/flatrate/proof/databases"
	"github.com/flatrate/flatrate/valkeytest"
)

// row is a value; its columns have names that need their quotes.
type row struct {
	Owner string
	Cents int64
	Note  sql.NullString
}

// bank is a dialect with its table.
type bank struct {
	dialect sqlorigin.Dialect
	create  string // the table, with a column for deleted rows or without
	start   func(testing.TB) *databases.Database
}

var banks = map[string]bank{
	"PostgreSQL": {sqlorigin.PostgreSQL, `CREATE TABLE "the ""accounts" ("Key" text PRIMARY KEY, "select" text UNIQUE, "Cents, €" bigint NOT NULL CHECK ("Cents, €" >= 0),
		"note" text, %s "version" bigint NOT NULL)`, databases.PostgreSQL},
	"MariaDB": {sqlorigin.MySQL, "CREATE TABLE `the \"accounts` (`Key` varbinary(1024) PRIMARY KEY, `select` varbinary(1100) UNIQUE, `Cents, €` bigint NOT NULL CHECK (`Cents, €` >= 0)," +
		"`note` text, %s `version` bigint NOT NULL) CHARACTER SET utf8mb4", databases.MariaDB},
	"SQLite": {sqlorigin.SQLite, `CREATE TABLE "the ""accounts" ("Key" text PRIMARY KEY, "select" text UNIQUE, "Cents, €" bigint NOT NULL CHECK ("Cents, €" >= 0),
		"note" text, %s "version" bigint NOT NULL)`, databases.SQLite},
}

func (b bank) open(t *testing.T, deleted string) (*sql.DB, writebehind.Origin[row]) {
	t.Helper()
	db := b.start(t).Open()
	column := ""
	if deleted != "" {
		column = deleted + " boolean NOT NULL,"
	}
	if _, err := db.ExecContext(t.Context(), fmt.Sprintf(b.create, column)); err != nil {
		t.Fatal(err)
	}
	origin, err := sqlorigin.New(db, sqlorigin.Table[row]{
		Dialect: b.dialect, Name: `the "accounts`, Key: "Key", Deleted: deleted,
		Columns: []string{"select", "Cents, €", "note"},
		Values: func(a row) ([]any, error) {
			if a.Cents == 13 {
				return nil, errors.New("thirteen")
			}
			return []any{sql.NullString{String: a.Owner, Valid: a.Owner != ""}, a.Cents, a.Note}, nil // deleted rows have no owner: it is unique
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return db, origin
}

// rows reads the whole table.
func (b bank) rows(t *testing.T, db *sql.DB, deleted string) map[string]row {
	t.Helper()
	quoted := func(name string) string {
		if b.dialect == sqlorigin.MySQL {
			return "`" + name + "`"
		}
		return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	}
	where := ""
	if deleted != "" {
		where = " WHERE NOT " + deleted
	}
	all, err := db.QueryContext(t.Context(), "SELECT "+quoted("Key")+","+quoted("select")+","+quoted("Cents, €")+",note FROM "+quoted(`the "accounts`)+where)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	rows := map[string]row{}
	for all.Next() {
		var key string
		var a row
		if err := all.Scan(&key, &a.Owner, &a.Cents, &a.Note); err != nil {
			t.Fatal(err)
		}
		rows[key] = a
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestSQLOrigin drives the origin alone, on each database, with writes that come twice, late and out of order.
func TestSQLOrigin(t *testing.T) {
	for name, b := range banks {
		for _, deleted := range []string{"", "gone"} {
			t.Run(name+" "+deleted, func(t *testing.T) {
				t.Parallel()
				db, origin := b.open(t, deleted)
				write := func(batch ...writebehind.Write[row]) {
					t.Helper()
					if err := origin(t.Context(), batch); err != nil {
						t.Fatal(err)
					}
				}
				at := func(key string, version int64, cents int64) writebehind.Write[row] {
					return writebehind.Write[row]{Key: key, Version: version, Value: row{Owner: "owner of " + key, Cents: cents}}
				}
				keys := []string{"a", "A", "a ", "ü", "", "'; --", `"`, "`", strings.Repeat("x", 1000)}
				for round := range int64(2) { // the second one changes nothing
					for version := range int64(3) {
						var batch []writebehind.Write[row]
						for i, key := range keys {
							batch = append(batch, at(key, 10+version, 100*version+int64(i)))
						}
						write(batch...)
					}
					got := b.rows(t, db, deleted)
					for i, key := range keys {
						if got[key].Cents != 200+int64(i) || got[key].Owner != "owner of "+key || got[key].Note.Valid {
							t.Errorf("round %d: %q: %+v", round, key, got[key])
						}
					}
				}
				write(at("a", 5, 5)) // older
				write(writebehind.Write[row]{Key: "A", Version: 11, Deleted: true})
				if got := b.rows(t, db, deleted); got["a"].Cents != 200 || got["A"].Cents != 201 {
					t.Errorf("older writes: %+v", got)
				}
				write(writebehind.Write[row]{Key: "A", Version: 20, Deleted: true}, at("new", 20, 7),
					writebehind.Write[row]{Key: "never there", Version: 20, Deleted: true})
				if deleted != "" { // a row that stays knows that it is newer
					write(at("A", 19, 1), at("never there", 19, 1))
				}
				got := b.rows(t, db, deleted)
				if _, back := got["A"]; back || len(got) != len(keys) || got["new"].Cents != 7 {
					t.Errorf("%d rows, A %v", len(got), back)
				}
				write(at("A", 21, 1))
				if got := b.rows(t, db, deleted); got["A"].Cents != 1 {
					t.Errorf("written after its deletion: %+v", got["A"])
				}
				refuses(t, origin, at)
			})
		}
	}
}

// refuses writes what the database or the caller's func won't have.
func refuses(t *testing.T, origin writebehind.Origin[row], at func(string, int64, int64) writebehind.Write[row]) {
	t.Helper()
	var rejected writebehind.Rejected
	if err := origin(t.Context(), []writebehind.Write[row]{at("less", 30, -1)}); !errors.As(err, &rejected) || rejected[0] == nil {
		t.Errorf("less than zero: %v", err)
	}
	if err := origin(t.Context(), []writebehind.Write[row]{at("less", 30, -1), at("a", 30, 30)}); err == nil || errors.As(err, &rejected) {
		t.Errorf("among others: %v", err)
	}
	taken := at("thief", 30, 1)
	taken.Value.Owner = "owner of a" // another row's, by a unique index
	if err := origin(t.Context(), []writebehind.Write[row]{taken}); !errors.As(err, &rejected) {
		t.Errorf("another's unique column: %v", err)
	}
	err := origin(t.Context(), []writebehind.Write[row]{at("a", 31, 31), at("thirteen", 31, 13)})
	if !errors.As(err, &rejected) || rejected[1] == nil || rejected[0] != nil {
		t.Errorf("Values refuses: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := origin(ended, []writebehind.Write[row]{at("a", 40, 40)}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

// TestSQLOriginRace lets several write the same keys at once, in batches of random versions: the highest stays.
func TestSQLOriginRace(t *testing.T) {
	for name, b := range banks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			db, origin := b.open(t, "gone")
			highest := map[string]int64{}
			var mu sync.Mutex
			var writers sync.WaitGroup
			for n := range 4 {
				random := rand.New(rand.NewPCG(seed, uint64(n)))
				writers.Go(func() {
					for range 30 {
						var batch []writebehind.Write[row]
						for _, k := range random.Perm(20)[:10] {
							version := random.Int64N(1_000_000) + 1
							batch = append(batch, writebehind.Write[row]{Key: strconv.Itoa(k), Version: version, Value: row{Owner: strconv.Itoa(k), Cents: 100 * version}})
						}
						for origin(t.Context(), batch) != nil { // a deadlock, or a database that is busy
							if t.Context().Err() != nil {
								return
							}
						}
						mu.Lock()
						for _, w := range batch {
							highest[w.Key] = max(highest[w.Key], w.Version)
						}
						mu.Unlock()
					}
				})
			}
			writers.Wait()
			for key, a := range b.rows(t, db, "gone") {
				if a.Cents != 100*highest[key] {
					t.Errorf("%s: %d, want version %d", key, a.Cents, highest[key])
				}
			}
		})
	}
}

// TestSQLOriginDrained puts a store before each database, with a write that it refuses.
func TestSQLOriginDrained(t *testing.T) {
	for name, b := range banks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, origin := b.open(t, "gone")
			s, err := writebehind.New(valkeytest.Start(t).Client(), writebehind.Config[row]{
				Origin: origin, Window: 20 * time.Millisecond, Partitions: 2, Attempts: 2, Backoff: 10 * time.Millisecond,
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			for k := range 200 {
				a := row{Owner: strconv.Itoa(k), Cents: int64(k) - 1, Note: sql.NullString{String: "n", Valid: k%2 == 0}}
				if err := s.Put(t.Context(), strconv.Itoa(k), a); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Delete(t.Context(), "100"); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
				all, err := s.Stats(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if all.Waiting == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%+v", all)
				}
			}
			got := b.rows(t, db, "gone")
			if len(got) != 197 || got["199"].Cents != 198 || !got["198"].Note.Valid {
				t.Errorf("%d rows, %+v", len(got), got["199"])
			}
			var reasons []string
			for l, err := range s.DeadLetters(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				reasons = append(reasons, l.Key+": "+l.Reason)
			}
			if len(reasons) != 2 {
				t.Errorf("%q", reasons)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

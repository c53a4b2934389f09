// Package sqlorigin is an origin for package writebehind that writes rows with database/sql: PostgreSQL, MySQL and
// MariaDB, SQLite. It brings no driver.
//
// Each row keeps the version of its last write, and a write changes nothing unless its version is higher: one that
// comes twice, or late, does no harm.
package sqlorigin

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flatrate/flatrate/cache/writebehind"
)

// Dialect is the database's.
type Dialect int

// The dialects. There is no default.
const (
	PostgreSQL Dialect = iota + 1 // 9.5 and above
	MySQL                         // 5.7 and above, and MariaDB
	SQLite                        // 3.24 and above
)

// DefaultVersion is the default of [Table.Version].
const DefaultVersion = "version"

// params is how many parameters a statement has at most, which is what the strictest dialect allows.
const params = 32_000

// Table says where values of type V go. Names are quoted: any name that the database takes is fine, and case counts.
type Table[V any] struct {
	Dialect Dialect
	// Schema is the schema, or MySQL's database. Empty means that of the connection.
	Schema string
	// Name is the table.
	Name string
	// Key is the column of the key. It has to be the primary key, or a unique one, and to tell keys apart as bytes
	// do: in MySQL VARBINARY, or a _bin collation.
	Key string
	// Version is the column of the version: BIGINT NOT NULL. Default "version".
	Version string
	// Deleted is a column, BOOLEAN NOT NULL, that is true in the rows of deleted keys; their other columns get what
	// Values returns for the zero V: NULL where they are unique. Empty means that such rows are removed: then a write from before the deletion that comes after it
	// makes the row again. That takes a drainer that was stopped for longer than its lease, during a call.
	Deleted string
	// Columns are those of a value, and Values returns what goes into them, in the same order: whatever the driver
	// takes. It is called from several goroutines.
	Columns []string
	Values  func(V) ([]any, error)
	// KeyOf returns what goes into the column of the key. Nil means the key, as a string.
	KeyOf func(key string) (any, error)
}

// New returns an Origin that writes into a table of db, each batch in a transaction of its own. It sends nothing. The error
// names the field of t that is wrong.
//
// Where the database refuses a single write and still answers, the Origin returns [writebehind.Rejected]; an error
// of Values or KeyOf is one for ever.
func New[V any](db *sql.DB, t Table[V]) (writebehind.Origin[V], error) {
	if db == nil {
		return nil, errors.New("sqlorigin: db is nil")
	}
	if t.Version == "" {
		t.Version = DefaultVersion
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	o := &origin[V]{db: db, t: t, sql: newSyntax(t.Dialect, t.Schema, t.Name)}
	o.columns = append(slices.Clone(t.Columns), t.Version)
	if t.Deleted != "" {
		o.columns = append(o.columns[:len(o.columns)-1], t.Deleted, t.Version)
	}
	return o.write, nil
}

func (t *Table[V]) check() error {
	if t.Dialect < PostgreSQL || t.Dialect > SQLite {
		return fmt.Errorf("sqlorigin: Table.Dialect is %d, none of the dialects", t.Dialect)
	}
	if t.Values == nil {
		return errors.New("sqlorigin: Table.Values is nil")
	}
	if len(t.Columns) > 1000 {
		return errors.New("sqlorigin: Table.Columns are more than 1,000")
	}
	seen := map[string]string{}
	names := []struct{ field, name string }{{"Name", t.Name}, {"Key", t.Key}, {"Version", t.Version}}
	for field, name := range map[string]string{"Schema": t.Schema, "Deleted": t.Deleted} {
		if name != "" {
			names = append(names, struct{ field, name string }{field, name})
		}
	}
	for _, name := range t.Columns {
		names = append(names, struct{ field, name string }{"Columns", name})
	}
	for _, n := range names {
		if err := checkName(t.Dialect, n.name); err != nil {
			return fmt.Errorf("sqlorigin: Table.%s: %w", n.field, err)
		}
		if n.field == "Name" || n.field == "Schema" {
			continue
		}
		folded := strings.ToLower(n.name) // which MySQL and SQLite take for the same
		if other, twice := seen[folded]; twice {
			return fmt.Errorf("sqlorigin: Table.%s: %q is also in Table.%s", n.field, n.name, other)
		}
		seen[folded] = n.field
	}
	return nil
}

type origin[V any] struct {
	db      *sql.DB
	t       Table[V]
	sql     syntax
	columns []string // beside the key; the version is the last
}

// row is one write as the database gets it.
type row struct {
	key     string // in whose order rows are locked
	column  any
	values  []any // of columns; nil for a row that is removed
	version int64
}

func (o *origin[V]) write(ctx context.Context, batch []writebehind.Write[V]) error {
	rows := make([]row, 0, len(batch))
	bad := writebehind.Rejected{}
	for i, w := range batch {
		r, err := o.row(w)
		if err != nil {
			bad[i] = writebehind.Permanent(fmt.Errorf("sqlorigin: %w", err))
			continue
		}
		rows = append(rows, r)
	}
	// Two drainers, and other programs, lock rows in the same order, as far as that is up to this one.
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.key, b.key) })
	if err := o.transact(ctx, rows); err != nil {
		err = fmt.Errorf("sqlorigin: %w", err)
		if len(batch) == 1 && ctx.Err() == nil && o.db.PingContext(ctx) == nil {
			return writebehind.Rejected{0: err} // it is well, and refuses this one
		}
		return err
	}
	if len(bad) > 0 {
		return bad
	}
	return nil
}

// row asks the caller's funcs for what goes into a row.
func (o *origin[V]) row(w writebehind.Write[V]) (r row, err error) {
	r = row{key: w.Key, column: w.Key, version: w.Version}
	if o.t.KeyOf != nil {
		if r.column, err = o.t.KeyOf(w.Key); err != nil {
			return r, err
		}
	}
	if w.Deleted && o.t.Deleted == "" {
		return r, nil
	}
	values, err := o.t.Values(w.Value)
	if err != nil {
		return r, err
	}
	if len(values) != len(o.t.Columns) {
		return r, fmt.Errorf("Table.Values returned %d values for %d columns", len(values), len(o.t.Columns))
	}
	r.values = append(make([]any, 0, len(o.columns)), values...)
	if o.t.Deleted != "" {
		r.values = append(r.values, w.Deleted)
	}
	r.values = append(r.values, w.Version)
	return r, nil
}

func (o *origin[V]) transact(ctx context.Context, rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	tx, err := o.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	for part := range slices.Chunk(slices.DeleteFunc(slices.Clone(rows), row.removed), params/(1+len(o.columns))) {
		if err := o.upsert(ctx, tx, part); err != nil {
			return err
		}
	}
	for _, r := range rows {
		if r.removed() {
			if _, err := tx.ExecContext(ctx, o.sql.remove(o.t.Key, o.t.Version), r.column, r.version); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}

func (r row) removed() bool { return r.values == nil }

func (o *origin[V]) upsert(ctx context.Context, tx *sql.Tx, rows []row) error {
	args := make([]any, 0, len(rows)*(1+len(o.columns)))
	keys := make([]any, 0, 2*len(rows))
	for _, r := range rows {
		args = append(append(args, r.column), r.values...)
		keys = append(keys, r.column)
	}
	if _, err := tx.ExecContext(ctx, o.sql.upsert(o.t.Key, o.columns, len(rows)), args...); err != nil {
		return err
	}
	if o.t.Dialect != MySQL {
		return nil
	}
	var there int
	if err := tx.QueryRowContext(ctx, o.sql.there(o.t.Key, len(rows)), append(keys, keys...)...).Scan(&there); err != nil {
		return err
	}
	if there != len(rows) {
		return fmt.Errorf("%d of %d rows met another one, by a unique index beside the key or by the key's collation", len(rows)-there, len(rows))
	}
	return nil
}

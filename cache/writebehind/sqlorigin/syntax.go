package sqlorigin

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// syntax writes the statements of a dialect.
type syntax struct {
	dialect Dialect
	table   string // quoted
}

func newSyntax(d Dialect, schema, table string) syntax {
	s := syntax{dialect: d}
	s.table = s.quote(table)
	if schema != "" {
		s.table = s.quote(schema) + "." + s.table
	}
	return s
}

// checkName refuses what no quotes make a name.
func checkName(d Dialect, name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case !utf8.ValidString(name):
		return fmt.Errorf("%q is no UTF-8", name)
	case strings.ContainsRune(name, 0):
		return fmt.Errorf("%q has a zero byte", name)
	case d == PostgreSQL && len(name) > 63: // which it would cut, and so take for another one
		return fmt.Errorf("%q is over 63 bytes", name)
	case d == MySQL && utf8.RuneCountInString(name) > 64:
		return fmt.Errorf("%q is over 64 characters", name)
	case d == MySQL && strings.HasSuffix(name, " "):
		return fmt.Errorf("%q ends in a space", name)
	}
	return nil
}

func (s syntax) quote(name string) string {
	mark := `"`
	if s.dialect == MySQL {
		mark = "`"
	}
	return mark + strings.ReplaceAll(name, mark, mark+mark) + mark
}

// place is the n-th parameter, from 1.
func (s syntax) place(n int) string {
	if s.dialect == PostgreSQL {
		return "$" + strconv.Itoa(n)
	}
	return "?"
}

// list is so many parameters in parentheses, the first one the n-th.
func (s syntax) list(n, count int) string {
	var b strings.Builder
	for i := range count {
		b.WriteString(map[bool]string{true: "(", false: ", "}[i == 0] + s.place(n+i))
	}
	return b.String() + ")"
}

// upsert writes rows of a key and columns, of which the last is the version, unless they have that version or a higher one.
func (s syntax) upsert(key string, columns []string, rows int) string {
	var b strings.Builder
	b.WriteString("INSERT INTO " + s.table + " (" + s.quote(key))
	for _, c := range columns {
		b.WriteString(", " + s.quote(c))
	}
	b.WriteString(") VALUES ")
	for i := range rows {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(s.list(1+i*(1+len(columns)), 1+len(columns)))
	}
	version := s.quote(columns[len(columns)-1])
	if s.dialect == MySQL {
		// Any unique index may be met here. What is not the key's row stays as it is, and is missed afterwards. The
		// assignments are made in this order, so the version comes last.
		k := s.quote(key)
		newer := "VALUES(" + version + ") > " + version + " AND BINARY VALUES(" + k + ") = BINARY " + k
		b.WriteString(" ON DUPLICATE KEY UPDATE ")
		for i, c := range columns {
			if i > 0 {
				b.WriteString(", ")
			}
			c = s.quote(c)
			b.WriteString(c + " = IF(" + newer + ", VALUES(" + c + "), " + c + ")")
		}
		return b.String()
	}
	b.WriteString(" ON CONFLICT (" + s.quote(key) + ") DO UPDATE SET ")
	for i, c := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(s.quote(c) + " = excluded." + s.quote(c))
	}
	b.WriteString(" WHERE " + s.table + "." + version + " < excluded." + version)
	return b.String()
}

// remove removes a row of a lower version.
func (s syntax) remove(key, version string) string {
	return "DELETE FROM " + s.table + " WHERE " + s.quote(key) + " = " + s.place(1) + " AND " + s.quote(version) + " < " + s.place(2)
}

// there counts the rows of so many keys, each of which is given twice.
func (s syntax) there(key string, keys int) string {
	k := s.quote(key)
	return "SELECT COUNT(*) FROM " + s.table + " WHERE " + k + " IN " + s.list(1, keys) + " AND BINARY " + k + " IN " + s.list(1+keys, keys)
}

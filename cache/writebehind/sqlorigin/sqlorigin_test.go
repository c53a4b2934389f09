package sqlorigin

import (
	"database/sql"
	"strings"
	"testing"
)

func TestStatements(t *testing.T) {
	for d, want := range map[Dialect][3]string{
		PostgreSQL: {
			`INSERT INTO "s"."t""x" ("k", "a", "version") VALUES ($1, $2, $3), ($4, $5, $6) ON CONFLICT ("k") DO UPDATE SET "a" = excluded."a", ` +
				`"version" = excluded."version" WHERE "s"."t""x"."version" < excluded."version"`,
			`DELETE FROM "s"."t""x" WHERE "k" = $1 AND "version" < $2`,
			"",
		},
		SQLite: {
			`INSERT INTO "s"."t""x" ("k", "a", "version") VALUES (?, ?, ?), (?, ?, ?) ON CONFLICT ("k") DO UPDATE SET "a" = excluded."a", ` +
				`"version" = excluded."version" WHERE "s"."t""x"."version" < excluded."version"`,
			`DELETE FROM "s"."t""x" WHERE "k" = ? AND "version" < ?`,
			"",
		},
		MySQL: {
			"INSERT INTO `s`.`t\"x` (`k`, `a`, `version`) VALUES (?, ?, ?), (?, ?, ?) ON DUPLICATE KEY UPDATE " +
				"`a` = IF(VALUES(`version`) > `version` AND BINARY VALUES(`k`) = BINARY `k`, VALUES(`a`), `a`), " +
				"`version` = IF(VALUES(`version`) > `version` AND BINARY VALUES(`k`) = BINARY `k`, VALUES(`version`), `version`)",
			"DELETE FROM `s`.`t\"x` WHERE `k` = ? AND `version` < ?",
			"SELECT COUNT(*) FROM `s`.`t\"x` WHERE `k` IN (?, ?) AND BINARY `k` IN (?, ?)",
		},
	} {
		s := newSyntax(d, "s", `t"x`)
		if got := s.upsert("k", []string{"a", "version"}, 2); got != want[0] {
			t.Errorf("%d:\n%s, want\n%s", d, got, want[0])
		}
		if got := s.remove("k", "version"); got != want[1] {
			t.Errorf("%d: %s", d, got)
		}
		if got := s.there("k", 2); want[2] != "" && got != want[2] {
			t.Errorf("%d: %s", d, got)
		}
	}
}

func TestNewNamesTheField(t *testing.T) {
	values := func(int) ([]any, error) { return nil, nil }
	good := Table[int]{Dialect: PostgreSQL, Name: "t", Key: "k", Columns: []string{"a", "b c"}, Values: values}
	for want, change := range map[string]func(*Table[int]){
		"Table.Dialect":                      func(t *Table[int]) { t.Dialect = 0 },
		"Table.Name: is empty":               func(t *Table[int]) { t.Name = "" },
		"Table.Key: is empty":                func(t *Table[int]) { t.Key = "" },
		"Table.Key: \"a\\x00\"":              func(t *Table[int]) { t.Key = "a\x00" },
		"Table.Schema: \"\\xff\"":            func(t *Table[int]) { t.Schema = "\xff" },
		"Table.Name: \"xxxxx":                func(t *Table[int]) { t.Name = strings.Repeat("x", 64) },
		"Table.Values":                       func(t *Table[int]) { t.Values = nil },
		"Table.Columns: \"K\" is also in":    func(t *Table[int]) { t.Columns = []string{"a", "K"} },
		"Table.Columns: \"a\" is also in":    func(t *Table[int]) { t.Columns = []string{"a", "a"} },
		"is also in Table.":                  func(t *Table[int]) { t.Deleted = "version" },
		"Table.Columns are more than":        func(t *Table[int]) { t.Columns = make([]string, 1001) },
		"Table.Columns: is empty":            func(t *Table[int]) { t.Columns = []string{""} },
		"Table.Name: \"x \" ends in a space": func(t *Table[int]) { t.Dialect, t.Name = MySQL, "x " },
		"over 64 characters":                 func(t *Table[int]) { t.Dialect, t.Name = MySQL, strings.Repeat("ü", 65) },
	} {
		bad := good
		change(&bad)
		if _, err := New(&sql.DB{}, bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %s", err, want)
		}
	}
	if _, err := New(&sql.DB{}, good); err != nil {
		t.Error(err)
	}
	if _, err := New(nil, good); err == nil {
		t.Error("a nil db was accepted")
	}
}

// FuzzQuote holds that no name ends its quotes.
func FuzzQuote(f *testing.F) {
	f.Add("a`b\"c'; DROP TABLE x; --")
	f.Fuzz(func(t *testing.T, name string) {
		for d, mark := range map[Dialect]string{PostgreSQL: `"`, MySQL: "`", SQLite: `"`} {
			got := syntax{dialect: d}.quote(name)
			inside := got[1 : len(got)-1]
			if strings.Contains(strings.ReplaceAll(inside, mark+mark, ""), mark) || strings.ReplaceAll(inside, mark+mark, mark) != name {
				t.Errorf("%d: %s of %q", d, got, name)
			}
		}
	})
}

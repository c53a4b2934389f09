// Package report is how results look: tables, numbers for people, and a progress bar.
package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Table is rows of a name, a value and a remark under headings. Names stand on the left, values on the right below each other
// through all groups, which text/tabwriter can't do.
type Table struct{ rows []row }

type row struct{ heading, name, value, remark string }

// Heading starts a group of rows.
func (t *Table) Heading(title string) { t.rows = append(t.rows, row{heading: title}) }

// Row adds a row; its remark may be empty.
func (t *Table) Row(name, value, remark string) {
	t.rows = append(t.rows, row{name: name, value: value, remark: remark})
}

// Write writes the table to w.
func (t *Table) Write(w io.Writer) error {
	var names, values int
	for _, row := range t.rows {
		names = max(names, utf8.RuneCountInString(row.name))
		values = max(values, utf8.RuneCountInString(row.value))
	}
	var out strings.Builder
	for i, row := range t.rows {
		var line string
		switch {
		case row.heading == "":
			line = fmt.Sprintf("  %-*s  %*s  %s", names, row.name, values, row.value, row.remark)
		case i > 0:
			line = "\n" + row.heading
		default:
			line = row.heading
		}
		out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

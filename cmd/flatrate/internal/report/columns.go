package report

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Columns is rows below a heading. What is in a cell may be anybody's: it is made printable.
type Columns struct {
	heading []string
	right   []bool
	rows    [][]string
}

// NewColumns makes one. A heading that begins with ">" has its column on the right.
func NewColumns(heading ...string) *Columns {
	c := &Columns{heading: make([]string, len(heading)), right: make([]bool, len(heading))}
	for i, h := range heading {
		c.heading[i], c.right[i] = strings.CutPrefix(h, ">")
	}
	return c
}

// Row adds a row of as many cells.
func (c *Columns) Row(cells ...string) {
	row := make([]string, len(c.heading))
	for i := range row {
		row[i] = Printable(cells[i])
	}
	c.rows = append(c.rows, row)
}

// Write writes them, without the columns in which there is nothing.
func (c *Columns) Write(w io.Writer) error {
	widths := make([]int, len(c.heading))
	for _, row := range c.rows {
		for i, cell := range row {
			if cell != "" {
				widths[i] = max(widths[i], utf8.RuneCountInString(cell), utf8.RuneCountInString(c.heading[i]))
			}
		}
	}
	var out strings.Builder
	for _, row := range append([][]string{c.heading}, c.rows...) {
		var line strings.Builder
		for i, cell := range row {
			if widths[i] == 0 {
				continue
			}
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if c.right[i] {
				line.WriteString(space + cell + "  ")
			} else {
				line.WriteString(cell + space + "  ")
			}
		}
		out.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

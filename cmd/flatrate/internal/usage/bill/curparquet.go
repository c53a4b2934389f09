package bill

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// IsParquet says whether a file begins as Parquet does.
func IsParquet(r io.ReaderAt) bool {
	var magic [4]byte
	_, err := r.ReadAt(magic[:], 0)
	return err == nil && string(magic[:]) == "PAR1"
}

// ReadParquet adds a file to the report. Only the columns that count are read, a page of each at a time. Errors have the file and
// the row.
func (c *Report) ReadParquet(file string, r io.ReaderAt, size int64) (err error) {
	row := int64(0)
	defer func() {
		if broken := recover(); broken != nil { // the decoder indexes what a damaged file says
			err = fmt.Errorf("%s: row %d: not a whole Parquet file: %v", file, row+1, broken)
		}
	}()
	f, err := parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true), parquet.ReadBufferSize(64<<10))
	if err != nil {
		return fmt.Errorf("%s: not a whole Parquet file: %w", file, err)
	}
	leaves, err := leavesOf(f.Schema())
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, group := range f.RowGroups() {
		if err := c.group(file, group, leaves, &row); err != nil {
			return err
		}
	}
	if row != f.NumRows() {
		return fmt.Errorf("%s: row %d: the file has %d rows", file, row+1, f.NumRows())
	}
	return nil
}

// leaf is a column of a schema.
type leaf struct {
	index int
	unit  time.Duration // of a time that is a number
}

func leavesOf(schema *parquet.Schema) (at [columns]*leaf, err error) {
	var names []string
	for _, f := range schema.Fields() {
		names = append(names, f.Name())
	}
	found, err := locate(names)
	if err != nil {
		return at, err
	}
	for c, i := range found {
		if i < 0 {
			continue
		}
		column, ok := schema.Lookup(names[i])
		if !ok || column.MaxRepetitionLevel > 0 {
			return at, fmt.Errorf("column %s is no plain column", names[i])
		}
		at[c] = &leaf{index: column.ColumnIndex, unit: unitOf(column.Node)}
	}
	return at, nil
}

// unitOf is what one stands for in a timestamp.
func unitOf(node parquet.Node) time.Duration {
	if logical := node.Type().LogicalType(); logical != nil {
		if stamp, ok := logical.Value.(*format.TimestampType); ok && stamp.Unit.Value != nil {
			return stamp.Unit.Value.Duration()
		}
	}
	return time.Millisecond
}

// group adds one row group.
func (c *Report) group(file string, group parquet.RowGroup, leaves [columns]*leaf, row *int64) error {
	var cursors [columns]*cursor
	chunks := group.ColumnChunks()
	for i, l := range leaves {
		if l == nil {
			continue
		}
		cursors[i] = &cursor{pages: chunks[l.index].Pages(), unit: l.unit}
		defer cursors[i].pages.Close()
	}
	for range group.NumRows() {
		var l line
		for i, cur := range cursors {
			if cur == nil {
				continue
			}
			v, err := cur.next()
			if err == nil {
				err = l.set(column(i), v, cur.unit)
			}
			if err != nil {
				return fmt.Errorf("%s: row %d: %s: %w", file, *row+1, layouts[0].names[i], err)
			}
		}
		l.parsed = l.text[start] == "" && l.text[end] == "" && l.text[amount] == "" && l.text[charged] == ""
		if err := l.complete(); err != nil {
			return fmt.Errorf("%s: row %d: %w", file, *row+1, err)
		}
		if err := c.report.add(&l); err != nil {
			return fmt.Errorf("%s: row %d: %w", file, *row+1, err)
		}
		*row++
	}
	return nil
}

// set takes a value as it comes.
func (l *line) set(c column, v parquet.Value, unit time.Duration) error {
	if v.IsNull() {
		return nil
	}
	k := v.Kind()
	switch c {
	case amount, charged:
		to := &l.amount
		if c == charged {
			to = &l.cost
		}
		switch k {
		case parquet.Double:
			*to = v.Double()
		case parquet.Float:
			*to = float64(v.Float())
		case parquet.ByteArray:
			l.text[c] = v.String()
		default:
			return fmt.Errorf("a %v is no number", k)
		}
	case start, end:
		to := &l.start
		if c == end {
			to = &l.end
		}
		switch k {
		case parquet.Int64:
			*to = time.Unix(0, 0).Add(time.Duration(v.Int64()) * unit)
		case parquet.Int96:
			*to = int96(v.Int96())
		case parquet.ByteArray:
			l.text[c] = v.String()
		default:
			return fmt.Errorf("a %v is no time", k)
		}
	default:
		if k != parquet.ByteArray {
			return fmt.Errorf("a %v is no text", k)
		}
		l.text[c] = strings.Clone(v.String())
	}
	return nil
}

// int96 is nanoseconds of a day and the Julian day, as Spark and Impala write times.
func int96(v [3]uint32) time.Time {
	const epoch = 2440588
	nanos := int64(v[0]) | int64(v[1])<<32
	return time.Unix((int64(v[2])-epoch)*86400, nanos)
}

// complete parses what a report has as text although most have it as numbers or times.
func (l *line) complete() (err error) {
	if l.parsed {
		return nil
	}
	if l.text[start] != "" || l.text[end] != "" {
		if err := l.times(); err != nil {
			return err
		}
	}
	if l.text[amount] != "" {
		if l.amount, err = parseNumber("usage amount", l.text[amount]); err != nil {
			return err
		}
	}
	if l.text[charged] != "" {
		if l.cost, err = parseNumber("cost", l.text[charged]); err != nil {
			return err
		}
	}
	l.parsed = true
	return nil
}

// cursor yields the values of a column, one for each row.
type cursor struct {
	pages  parquet.Pages
	page   parquet.Page
	values parquet.ValueReader
	buffer [512]parquet.Value
	have   []parquet.Value
	unit   time.Duration
}

func (c *cursor) next() (parquet.Value, error) {
	for len(c.have) == 0 {
		if c.values == nil {
			page, err := c.pages.ReadPage()
			if errors.Is(err, io.EOF) {
				return parquet.Value{}, io.ErrUnexpectedEOF
			}
			if err != nil {
				return parquet.Value{}, err
			}
			parquet.Release(c.page)
			c.page, c.values = page, page.Values()
		}
		n, err := c.values.ReadValues(c.buffer[:])
		c.have = c.buffer[:n]
		switch {
		case errors.Is(err, io.EOF):
			c.values = nil
		case err != nil:
			return parquet.Value{}, err
		}
	}
	v := c.have[0]
	c.have = c.have[1:]
	return v, nil
}

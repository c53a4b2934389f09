package bill

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/rows"
)

// Report reads Cost and Usage Reports, as CSV, gzip or Parquet, one file after the other: one report may be several files. Memory does not
// grow with their length.
type Report struct{ report *report }

// NewReport begins a report of no files.
func NewReport(opt Options) *Report { return &Report{newReport(opt)} }

// Read adds a file of CSV, plain or gzip. Errors have the file and the line.
func (c *Report) Read(file string, r io.Reader) error {
	in := bufio.NewReaderSize(r, 256<<10)
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
		unzipped, err := gzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		in = bufio.NewReaderSize(unzipped, 256<<10)
	}
	rows := rows.New(in)
	rows.ReuseRecord = true
	header, err := rows.Read()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s:1: the file is empty", file)
	}
	if err != nil {
		return curError(file, 1, err)
	}
	at, err := locate(header)
	if err != nil {
		return fmt.Errorf("%s:1: %w", file, err)
	}
	last := 1
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return curError(file, last+1, err)
		}
		last, _ = rows.FieldPos(0)
		var l line
		for c, i := range at {
			if i >= 0 {
				l.text[c] = row[i]
			}
		}
		if err := c.report.add(&l); err != nil {
			return fmt.Errorf("%s:%d: %w", file, last, err)
		}
	}
}

// curError puts the file and the line before what the reader says.
func curError(file string, line int, err error) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("%s:%d: %w", file, parse.Line, parse.Err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s:%d: the file is cut short: %w", file, line, err)
	}
	return fmt.Errorf("%s:%d: %w", file, line, err)
}

// Found is what all files together say.
func (c *Report) Found() (Found, error) { return c.report.found() }

func parseNumber(what, text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) {
		return 0, fmt.Errorf("%s: %s is not a number", what, short(text))
	}
	return v, nil
}

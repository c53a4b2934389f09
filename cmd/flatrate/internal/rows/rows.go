// Package rows reads CSV in bounded memory: encoding/csv holds a row whole, however long it is.
package rows

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
)

// Max is the longest row in bytes. Those of a Cost and Usage Report or a price list have some kilobytes.
const Max = 4 << 20

// ErrTooLong is a row of more than [Max] bytes.
var ErrTooLong = errors.New("a row is too long")

// Reader is a csv.Reader that ends with ErrTooLong at a row that is too long.
type Reader struct {
	*csv.Reader
	in *limited
}

// New reads CSV from r.
func New(r io.Reader) *Reader {
	in := &limited{Reader: r}
	return &Reader{csv.NewReader(in), in}
}

// Read is csv.Reader's.
func (r *Reader) Read() ([]string, error) {
	row, err := r.Reader.Read()
	r.in.from = r.InputOffset()
	if r.in.over {
		return nil, fmt.Errorf("%w: over %d bytes", ErrTooLong, Max)
	}
	return row, err
}

// limited counts what was read since the last whole row, what the csv.Reader has read ahead among it.
type limited struct {
	io.Reader
	n, from int64
	over    bool
}

func (l *limited) Read(p []byte) (int, error) {
	if l.n-l.from > Max {
		l.over = true
		return 0, ErrTooLong
	}
	n, err := l.Reader.Read(p)
	l.n += int64(n)
	return n, err
}

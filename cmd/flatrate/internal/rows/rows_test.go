package rows

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// endless is a text again and again, and counts what is taken of it.
type endless struct {
	text string
	n    int
}

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e.text)
	}
	e.n += n
	return n, nil
}

// A row without an end is an error, before it fills the memory.
func TestRowsWithoutAnEnd(t *testing.T) {
	for _, text := range []string{"a", "a,", `""`, "\"\n"} {
		in := &endless{text: text}
		r := New(io.MultiReader(strings.NewReader("a,b\n\""), in))
		if _, err := r.Read(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(); err == nil || in.n > 2*Max {
			t.Errorf("%q: %v after %d bytes", text, err, in.n)
		}
	}
	in := &endless{text: "abc"}
	if _, err := New(in).Read(); !errors.Is(err, ErrTooLong) || in.n > 2*Max {
		t.Errorf("%v after %d bytes", err, in.n)
	}
}

// A long text of short rows, and one row just short of the limit, are whole.
func TestRowsOfAnyNumber(t *testing.T) {
	long := strings.Repeat("x", Max-1<<16)
	text := strings.Repeat("1,\"2\n3\",4\n", Max/4) + long + ",b,c\n"
	r := New(strings.NewReader(text))
	n := 0
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n++; n > Max/4 && len(row[0]) != len(long) {
			t.Errorf("%d bytes", len(row[0]))
		}
	}
	if n != Max/4+1 {
		t.Errorf("%d rows", n)
	}
}

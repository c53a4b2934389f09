package report

import (
	"bytes"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

func TestNumbers(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{Count(0), "0"}, {Count(999), "999"}, {Count(1000), "1,000"}, {Count(1234567), "1,234,567"}, {Count(-1000), "-1,000"},
		{Count(math.MaxInt64), "9,223,372,036,854,775,807"}, {Count(math.MinInt64), "-9,223,372,036,854,775,808"},
		{Share(1, 3), "33.3%"}, {Share(0, 0), ""}, {Share(5, 5), "100.0%"},
		{USD(0), "$0.00"}, {USD(1234.567), "$1,234.57"}, {USD(-0.5), "-$0.50"}, {USD(-0.001), "$0.00"}, {USD(0.999), "$1.00"},
		{Bytes(0), "0 B"}, {Bytes(1023), "1023 B"}, {Bytes(1536), "1.5 KiB"}, {Bytes(-3 << 20), "-3.0 MiB"}, {Bytes(math.MaxInt64), "8.0 EiB"},
		{Span(0), "0s"}, {Span(1500 * time.Millisecond), "1.5s"}, {Span(90 * time.Second), "1 min 30 s"},
		{Span(25 * time.Hour), "1 d 1 h"}, {Span(2*time.Hour + 3*time.Minute), "2 h 3 min"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestTable(t *testing.T) {
	var table Table
	table.Heading("limit")
	table.Row("allowed", "9,940", "99.4%")
	table.Row("denied", "60", "")
	table.Heading("cache")
	table.Row("look-ups", "1", "0.0%")
	var out strings.Builder
	if err := table.Write(&out); err != nil {
		t.Fatal(err)
	}
	want := `limit
  allowed   9,940  99.4%
  denied       60

cache
  look-ups      1  0.0%
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNoProgressInAPipe(t *testing.T) {
	var out bytes.Buffer
	in := strings.NewReader("four")
	counted, done := Progress(&out, in, 4)
	if data, err := io.ReadAll(counted); err != nil || string(data) != "four" {
		t.Errorf("%q, %v", data, err)
	}
	done()
	if out.Len() > 0 {
		t.Errorf("drew %q", out.String())
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "plain text, é 日本 \\ \"": "plain text, é 日本 \\ \"",
		"a\x1b[31m\nb\r\t\x00\x7f": `a\x1b[31m\nb\r\t\x00\x7f`,
		"\xff\u202e\u009b\ufffd":   `\xff\u202e\u009b` + "\ufffd",
	} {
		if got := Printable(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestColumns(t *testing.T) {
	c := NewColumns("name", ">count", "nothing", "last")
	c.Row("a\x1bé", "1", "", "x")
	c.Row("long name", "1,000", "", "")
	var out strings.Builder
	if err := c.Write(&out); err != nil {
		t.Fatal(err)
	}
	want := `name       count  last
a\x1bé         1  x
long name  1,000
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestJSON(t *testing.T) {
	var out strings.Builder
	if err := JSON(&out, map[string]string{"a<": "é\x1b\x7f\u009b\u202e\n\U000e0001"}, " "); err != nil {
		t.Fatal(err)
	}
	want := "{\n \"a<\": \"é\\u001b\\u007f\\u009b\\u202e\\n\\udb40\\udc01\"\n}\n"
	if out.String() != want {
		t.Errorf("got %s, want %s", out.String(), want)
	}
}

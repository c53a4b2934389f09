package usage

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
)

const good = `192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 200 1`

// read returns the line numbers of entries and skips, and what ended the log.
func read(r io.Reader) (entries, skips []int64, reasons []string, end error) {
	for entry, err := range ReadLog(r) {
		var bad *LineError
		switch {
		case errors.As(err, &bad):
			skips, reasons = append(skips, bad.Line), append(reasons, bad.Reason)
		case err != nil:
			end = err
		default:
			entries = append(entries, entry.Line)
		}
	}
	return entries, skips, reasons, end
}

func zip(parts ...string) []byte {
	var out bytes.Buffer
	for _, part := range parts {
		w := gzip.NewWriter(&out)
		_, _ = w.Write([]byte(part))
		_ = w.Close()
	}
	return out.Bytes()
}

func TestReadLog(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	target := func(n int) string { // a good line of n bytes
		line := strings.Replace(good, "GET /", "GET /"+strings.Repeat("x", n-len(good)), 1)
		return line
	}
	for name, test := range map[string]struct{ log, want string }{
		"empty":                    {"", "[] [] the log is empty"},
		"only blank lines":         {"\n \r\n\t\n", "[] [] the log is empty"},
		"one line":                 {good + "\n", "[1] [] <nil>"},
		"no end of line":           {good + "\n" + good, "[1 2] [] <nil>"},
		"CRLF":                     {good + "\r\n" + good + "\r\n", "[1 2] [] <nil>"},
		"byte order mark":          {"\ufeff" + good + "\n", "[1] [] <nil>"},
		"bad lines end nothing":    {"x\n" + good + "\ny\n" + good + "\nz", "[2 4] [1 3 5] <nil>"},
		"blank lines inside":       {good + "\n\n \t\n" + good + "\n", "[1 4] [2 3] <nil>"},
		"blank lines at the end":   {good + "\n\n\r\n \n", "[1] [] <nil>"},
		"blank before a bad line":  {good + "\n\nx\n", "[1] [2 3] <nil>"},
		"text":                     {"x\ny\n", "[] [1 2] no line is in common or combined log format"},
		"binary":                   {"\x7fELF\x00\x01\xff", "[] [1] no line is in common or combined log format"},
		"a line of 1 MiB":          {target(MaxLine) + "\n" + good, "[1 2] [] <nil>"},
		"a line of 1 MiB, CRLF":    {target(MaxLine) + "\r\n" + good, "[1 2] [] <nil>"},
		"a byte more":              {target(MaxLine+1) + "\n" + good, "[2] [1] <nil>"},
		"two bytes more":           {target(MaxLine+2) + "\n" + good, "[2] [1] <nil>"},
		"much more":                {good + "\n" + long + long + long + "\n" + good, "[1 3] [2] <nil>"},
		"much more at the end":     {good + "\n" + long + long, "[1] [2] <nil>"},
		"blank before a long line": {good + "\n\n" + long + long + "\n" + good, "[1 4] [2 3] <nil>"},
	} {
		for form, r := range map[string]io.Reader{
			"plain":        strings.NewReader(test.log),
			"gzip":         bytes.NewReader(zip(test.log)),
			"gzip, zeros":  bytes.NewReader(append(zip(test.log), make([]byte, 100_000)...)),
			"gzip members": bytes.NewReader(zip(test.log[:len(test.log)/2], test.log[len(test.log)/2:])),
			"small reads":  iotest.HalfReader(strings.NewReader(test.log)),
		} {
			entries, skips, _, err := read(r)
			if got := fmt.Sprint(entries, skips, err); got != test.want {
				t.Errorf("%s, %s: %s, want %s", name, form, got, test.want)
			}
		}
	}
}

// TestCutGzip cuts a log at each byte: the reading must end in an error, with nothing but whole lines before it.
func TestCutGzip(t *testing.T) {
	whole := zip(strings.Repeat(good+"\n", 300))
	most := 0
	for cut := 2; cut < len(whole); cut++ {
		entries, skips, reasons, err := read(bytes.NewReader(whole[:cut]))
		if err == nil || !strings.Contains(err.Error(), "the gzip data is cut short") {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if len(skips) > 0 {
			t.Fatalf("cut at %d: a skip: %v", cut, reasons)
		}
		most = max(most, len(entries))
	}
	if most != 300 {
		t.Errorf("%d lines before the cut, want all 300 when only the checksum is missing", most)
	}
}

func TestDamagedGzip(t *testing.T) {
	whole := zip(good + "\n")
	whole[len(whole)-6] ^= 1 // in the checksum
	entries, _, _, err := read(bytes.NewReader(whole))
	if len(entries) != 1 || err == nil || !strings.Contains(err.Error(), "after line 1: the gzip data is damaged") {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestGarbageBehindGzip holds that what follows a gzip file is neither read as a log nor passed over.
func TestGarbageBehindGzip(t *testing.T) {
	for name, garbage := range map[string]string{"text": good + "\n", "zeros and text": "\x00\x00x", "half a header": "\x1f\x8b\x08"} {
		entries, _, _, err := read(bytes.NewReader(append(zip(good+"\n"), garbage...)))
		if len(entries) != 1 || err == nil || !strings.Contains(err.Error(), "after line 1: the gzip data is ") {
			t.Errorf("%s: %v, %v", name, entries, err)
		}
	}
}

func TestReadError(t *testing.T) {
	cause := errors.New("the disk is gone")
	broken := io.MultiReader(strings.NewReader(good+"\n"+good+"\n"+good[:30]), iotest.ErrReader(cause))
	entries, skips, _, err := read(broken)
	if fmt.Sprint(entries, skips) != "[1 2] []" || !errors.Is(err, cause) || err.Error() != "after line 2: the disk is gone" {
		t.Errorf("%v, %v, %v", entries, skips, err)
	}
}

func TestLineError(t *testing.T) {
	log := "{\x1b[31m\"" + strings.Repeat("é", 50) + "\n"
	for _, err := range ReadLog(strings.NewReader(log)) {
		want := `line 1: no time: "{\x1b[31m\"` + strings.Repeat(`\u00e9`, 26) + `"...`
		if err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
		break // stopping early must be possible
	}
}

// TestAllocations holds the reader to one allocation a line.
func TestAllocations(t *testing.T) {
	const lines = 20_000
	log := []byte(strings.Repeat(good+` "-" "agent"`+"\n", lines))
	perRun := testing.AllocsPerRun(3, func() {
		for _, err := range ReadLog(bytes.NewReader(log)) {
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	if perRun > lines*1.01 {
		t.Errorf("%.2f allocations a line", perRun/lines)
	}
}

func FuzzReadLog(f *testing.F) {
	f.Add([]byte(good+"\n\n"+good), byte(7))
	f.Add([]byte("\ufeffx\r\n"+good+"\n \n"), byte(1))
	f.Add(zip(good+"\n", good+"\n"), byte(60))
	f.Add(zip(good + "\n")[:40], byte(3))
	f.Fuzz(func(t *testing.T, log []byte, chunk byte) {
		last := int64(0)
		ended := false
		for entry, err := range ReadLog(&chunked{log, int(chunk) + 1}) {
			if ended {
				t.Fatal("something after the end")
			}
			line := entry.Line
			var bad *LineError
			if errors.As(err, &bad) {
				line = bad.Line
			} else if err != nil {
				ended = true
				continue
			}
			if line != last+1 {
				t.Fatalf("line %d after %d", line, last)
			}
			last = line
		}
		// Nothing may be lost: plain text has as many lines as it has, less blank ones at the end.
		if bytes.HasPrefix(log, []byte("\x1f\x8b")) || ended && last == 0 {
			return
		}
		text := bytes.TrimPrefix(log, []byte("\ufeff"))
		want := int64(bytes.Count(bytes.TrimRightFunc(text, unicode.IsSpace), []byte("\n"))) + 1
		if last != want {
			t.Errorf("%d lines, want %d", last, want)
		}
	})
}

// chunked reads a few bytes at a time.
type chunked struct {
	data []byte
	n    int
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.n)], c.data)
	c.data = c.data[n:]
	return n, nil
}

func BenchmarkReadLog(b *testing.B) {
	var log bytes.Buffer
	if err := Sample(&log, 1, 10_000); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(log.Len()))
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range ReadLog(bytes.NewReader(log.Bytes())) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

package policy

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage"
)

func TestReadMonitor(t *testing.T) {
	huge := strings.Repeat("v", 3<<20)
	for name, c := range map[string]struct {
		line string
		key  string
		size int32
	}{
		"get":                {`1700000000.000001 [0 127.0.0.1:50000] "get" "user:1"`, "user:1", 100},
		"a raw line":         {`+1700000000.000001 [0 127.0.0.1:50000] "GET" "user:1"`, "user:1", 100},
		"set":                {`1700000000.000001 [0 [::1]:50000] "set" "k" "12345" "EX" "60"`, "k", 5},
		"bytes":              {`1700000000.000001 [0 lua] "set" "\x00\xff\"\\\n" "\x00\x01"`, "\x00\xff\"\\\n", 2},
		"a unix socket":      {`1700000000.000001 [0 unix:/tmp/s] "set" "k" "1"`, "k", 1},
		"longer than a line": {`1700000000.000001 [0 127.0.0.1:1] "set" "k" "` + huge + `"`, "k", MaxValue},
		"long and binary":    {`1700000000.000001 [0 127.0.0.1:1] "set" "k" "` + strings.Repeat(`\x00`, 400_000) + `"`, "k", 400_000},
		"a long key":         {`1700000000.000001 [0 127.0.0.1:1] "get" "` + huge[:2000] + `"`, huge[:MaxKey], 100},
	} {
		tr, err := ReadMonitor(strings.NewReader(c.line + "\r\n"))
		if err != nil || len(tr.Keys) != 1 || tr.Keys[0] != c.key || max(c.size-tr.Sizes[0], tr.Sizes[0]-c.size) > c.size/1000 {
			t.Errorf("%s: %v, %.100v", name, err, tr)
			if tr != nil && len(tr.Keys) > 0 {
				t.Errorf("%.50q of %d bytes", tr.Keys[0], tr.Sizes[0])
			}
		}
	}
	for _, line := range []string{"", "OK", `1.1 [0 a] "auth" "secret"`, `1.1 [0 a] "get"`, `1.1 [0 a] get k`, `1.1 [0 a] "get" "k`, `1.1 [0 a] "" "k"`, `1.1 [0 a] "get set" "k"`, `1.1 [0 a] "get" ""`} {
		if tr, err := ReadMonitor(strings.NewReader(line)); !errors.Is(err, ErrEmpty) {
			t.Errorf("%q: %v, %v", line, tr.Keys, err)
		}
	}
}

// FuzzReadMonitor holds the bounds, and that a command that is written as the server does is read as it was.
func FuzzReadMonitor(f *testing.F) {
	f.Add("1700000000.000001 [0 127.0.0.1:50000] \"get\" \"user:1\"\n", "key", "value")
	f.Add("+OK\r\n1.1 [0 lua] \"set\" \"\\x00\\\"\" \"v\"\r\n", "\x00\xff\"\\", "\n\r\t\a\b")
	f.Add("1.1 [0 a] \"set\" \"k", "'", "")
	f.Fuzz(func(t *testing.T, text, key, value string) {
		tr, err := ReadMonitor(strings.NewReader(text))
		if err != nil && !errors.Is(err, ErrEmpty) {
			t.Fatal(err)
		}
		if lines := strings.Count(text, "\n") + 1; len(tr.Accesses) > lines || len(tr.Keys) != len(tr.Sizes) || len(tr.Keys) > len(tr.Accesses) {
			t.Errorf("%d accesses, %d keys and %d sizes of %d lines", len(tr.Accesses), len(tr.Keys), len(tr.Sizes), lines)
		}
		for i, k := range tr.Keys {
			if k == "" || len(k) > MaxKey || tr.Sizes[i] < 1 || tr.Sizes[i] > MaxValue {
				t.Errorf("%q of %d bytes", k, tr.Sizes[i])
			}
		}
		if key == "" || len(key) > MaxKey || len(value) > MaxValue {
			return
		}
		line := `1.1 [0 127.0.0.1:1] "set" ` + represent(key) + " " + represent(value) + "\r\n"
		if len(line) > usage.MaxLine {
			return
		}
		want := int32(len(value))
		if want == 0 {
			want = 100
		}
		if tr, err = ReadMonitor(strings.NewReader(line)); err != nil || len(tr.Keys) != 1 || tr.Keys[0] != key || tr.Sizes[0] != want {
			t.Errorf("%s: %v, %+v", line, err, tr)
		}
	})
}

// represent writes a string as MONITOR does (sdscatrepr).
func represent(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\\' || c == '"':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\a':
			b.WriteString(`\a`)
		case c == '\b':
			b.WriteString(`\b`)
		case c >= ' ' && c <= '~':
			b.WriteByte(c)
		default:
			b.WriteString(`\x`)
			if c < 16 {
				b.WriteByte('0')
			}
			b.WriteString(strconv.FormatUint(uint64(c), 16))
		}
	}
	b.WriteByte('"')
	return b.String()
}

package usage

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const stamp = "[17/May/2015:10:05:03 +0000]"

func TestParseEntry(t *testing.T) {
	at := time.Date(2015, 5, 17, 10, 5, 3, 0, time.UTC)
	for name, test := range map[string]struct {
		line string
		want Entry
	}{
		"common": {
			`192.0.2.1 - - ` + stamp + ` "GET /a?b=c HTTP/1.1" 200 42`,
			Entry{Address: "192.0.2.1", Method: "GET", Target: "/a?b=c", Status: 200, Size: 42}},
		"combined": {
			`::1 - bob ` + stamp + ` "HEAD / HTTP/2.0" 304 - "https://a.example/" "agent/1.0 (x)"`,
			Entry{Address: "::1", Method: "HEAD", Target: "/", Status: 304, UserAgent: "agent/1.0 (x)"}},
		"a host name, more fields": {
			`host.example - - ` + stamp + ` "GET / HTTP/1.1" 200 1 "-" "agent" "10.0.0.1" 0.001`,
			Entry{Address: "host.example", Method: "GET", Target: "/", Status: 200, Size: 1, UserAgent: "agent"}},
		"a user with spaces and quotes": {
			`192.0.2.1 - mary "ann" b ` + stamp + ` "GET / HTTP/1.1" 200 1`,
			Entry{Address: "192.0.2.1", Method: "GET", Target: "/", Status: 200, Size: 1}},
		"a target with spaces and quotes": {
			`192.0.2.1 - - ` + stamp + ` "GET /a b \"c\" HTTP/1.1 HTTP/1.0" 200 1`,
			Entry{Address: "192.0.2.1", Method: "GET", Target: `/a b \"c\" HTTP/1.1`, Status: 200, Size: 1}},
		"HTTP/0.9": {
			`192.0.2.1 - - ` + stamp + ` "GET /a" 200 1`,
			Entry{Address: "192.0.2.1", Method: "GET", Target: "/a", Status: 200, Size: 1}},
		"HTTP/2": {
			`192.0.2.1 - - ` + stamp + ` "GET /a HTTP/2" 200 1`,
			Entry{Address: "192.0.2.1", Method: "GET", Target: "/a", Status: 200, Size: 1}},
		"no request": {
			`192.0.2.1 - - ` + stamp + ` "-" 408 -`,
			Entry{Address: "192.0.2.1", Status: 408}},
		"TLS": {
			`192.0.2.1 - - ` + stamp + ` "\x16\x03\x01 \x02" 400 226 "-" "-"`,
			Entry{Address: "192.0.2.1", Status: 400, Size: 226, UserAgent: "-"}},
		"an empty request": {
			`192.0.2.1 - - ` + stamp + ` "" 400 0`,
			Entry{Address: "192.0.2.1", Status: 400}},
		"an agent with escapes, braces, bad UTF-8 and NUL": {
			`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 200 1 "\"" "a \"b\" {c} \\` + "\xff\x00" + `"`,
			Entry{Address: "192.0.2.1", Method: "GET", Target: "/", Status: 200, Size: 1, UserAgent: `a \"b\" {c} \\` + "\xff\x00"}},
		"a cut agent": {
			`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 200 1 "-" "Mozilla/5.0 (Win`,
			Entry{Address: "192.0.2.1", Method: "GET", Target: "/", Status: 200, Size: 1, UserAgent: "Mozilla/5.0 (Win"}},
		"cut after a backslash": {
			`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 200 1 "-" "Mozilla\`,
			Entry{Address: "192.0.2.1", Method: "GET", Target: "/", Status: 200, Size: 1, UserAgent: `Mozilla\`}},
		"a cut referer": {
			`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 200 1 "https://a.exa`,
			Entry{Address: "192.0.2.1", Method: "GET", Target: "/", Status: 200, Size: 1}},
		"a virtual host": {
			`www.example.com:443 192.0.2.1 - bob ` + stamp + ` "GET / HTTP/1.1" 200 1 "-" "agent"`,
			Entry{Host: "www.example.com:443", Address: "192.0.2.1", Method: "GET", Target: "/", Status: 200, Size: 1, UserAgent: "agent"}},
		"a virtual host without a port": {
			`www 2001:db8::1 - - ` + stamp + ` "GET / HTTP/1.1" 200 1`,
			Entry{Host: "www", Address: "2001:db8::1", Method: "GET", Target: "/", Status: 200, Size: 1}},
		"a virtual host and a host name": {
			`www.example.com:80 client.example - a user ` + stamp + ` "GET / HTTP/1.1" 200 1`,
			Entry{Host: "www.example.com:80", Address: "client.example", Method: "GET", Target: "/", Status: 200, Size: 1}},
		"a virtual host that is an address": {
			`[::1]:8080 ::1 - - ` + stamp + ` "GET / HTTP/1.1" 200 1`,
			Entry{Host: "[::1]:8080", Address: "::1", Method: "GET", Target: "/", Status: 200, Size: 1}},
		"an address with a port": {
			`192.0.2.1:5000 - - ` + stamp + ` "GET / HTTP/1.1" 200 1`,
			Entry{Address: "192.0.2.1:5000", Method: "GET", Target: "/", Status: 200, Size: 1}},
		"an ident": {
			`::1 ann - ` + stamp + ` "GET / HTTP/1.1" 200 1`,
			Entry{Address: "::1", Method: "GET", Target: "/", Status: 200, Size: 1}},
		"an address as the ident": {
			`192.0.2.1 10.0.0.1 - ` + stamp + ` "GET / HTTP/1.1" 200 1`,
			Entry{Address: "192.0.2.1", Method: "GET", Target: "/", Status: 200, Size: 1}},
		"the largest size": {
			`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 999 9223372036854775807`,
			Entry{Address: "192.0.2.1", Method: "GET", Target: "/", Status: 999, Size: 1<<63 - 1}},
	} {
		test.want.Time = at
		got, reason := parseEntry(test.line)
		if reason != "" || got != test.want {
			t.Errorf("%s: got %+v, %q\nwant %+v", name, got, reason, test.want)
		}
	}
}

func TestParseEntrySkips(t *testing.T) {
	const tail = ` "GET / HTTP/1.1" 200 1`
	for line, want := range map[string]string{
		``:                             "no address",
		`www:80 192.0.2.1`:             "no time",
		` - - ` + stamp + tail:         "no address",
		`192.0.2.1`:                    "no time",
		`192.0.2.1 - -` + tail:         "no time",
		`192.0.2.1 - - [x` + tail:      "no time",
		`192.0.2.1 - - [yesterday] ""`: "no time like 02/Jan/2006:15:04:05 -0700",
		`192.0.2.1 - - [17/may/2015:10:05:03 +0000]` + tail:                     "no time like 02/Jan/2006:15:04:05 -0700",
		`192.0.2.1 - - [17/anF/2015:10:05:03 +0000]` + tail:                     "no time like 02/Jan/2006:15:04:05 -0700",
		`192.0.2.1 - - [17/May/2015:24:05:03 +0000]` + tail:                     "no time like 02/Jan/2006:15:04:05 -0700",
		`192.0.2.1 - - [17/May/2015:10:05:03 *0000]` + tail:                     "no time like 02/Jan/2006:15:04:05 -0700",
		`192.0.2.1 - - [17/May/2015:10:05:03 +0060]` + tail:                     "no time like 02/Jan/2006:15:04:05 -0700",
		`192.0.2.1 - - [1 /May/2015:10:05:03 +0000]` + tail:                     "no time like 02/Jan/2006:15:04:05 -0700",
		`192.0.2.1 - - [31/Feb/2015:10:05:03 +0000]` + tail:                     "no such day",
		`192.0.2.1 - - [00/May/2015:10:05:03 +0000]` + tail:                     "no such day",
		`192.0.2.1 - - [31/Dec/1969:23:59:59 +0000]` + tail:                     "a year outside 1970 to 2261",
		`192.0.2.1 - - [01/Jan/1970:00:30:00 +0100]` + tail:                     "a year outside 1970 to 2261",
		`192.0.2.1 - - [01/Jan/2262:00:00:00 +0000]` + tail:                     "a year outside 1970 to 2261",
		`192.0.2.1 - - ` + stamp:                                                "no time",
		`192.0.2.1 - - ` + stamp + ` GET / 200 1`:                               "no request in quotes",
		`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1`:                           "no request in quotes",
		`192.0.2.1 - - ` + stamp + ` "GET /\"`:                                  "no request in quotes",
		`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1"`:                          "no status",
		`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1"200 1`:                     "no status",
		`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" - 1`:                      "no status",
		`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 099 1`:                    "no status",
		`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 2000 1`:                   "no status",
		`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 200`:                      "no size",
		`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 200 -1`:                   "no size",
		`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 200 +1`:                   "no size",
		`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 200 1k`:                   "no size",
		`192.0.2.1 - - ` + stamp + ` "GET / HTTP/1.1" 200 99999999999999999999`: "no size",
	} {
		if got, reason := parseEntry(line); reason != want {
			t.Errorf("%q: %q, %+v; want %q", line, reason, got, want)
		}
	}
}

// TestTime compares with time.Parse, in all zones and at the ends.
func TestTime(t *testing.T) {
	const layout = "02/Jan/2006:15:04:05 -0700"
	for _, s := range []string{
		"01/Jan/1970:00:00:00 +0000", "31/Dec/2099:23:59:59 +0000", "29/Feb/2024:12:00:00 -0330", "17/May/2015:10:05:03 +1400",
		"31/Dec/2261:23:59:59 +0000", "31/Dec/1999:23:59:59 -1200",
	} {
		want, err := time.Parse(layout, s)
		if err != nil {
			t.Fatal(err)
		}
		if got, reason := parseTime(s); reason != "" || !got.Equal(want) {
			t.Errorf("%s: %v, %q; want %v", s, got, reason, want)
		}
	}
}

// oracle reads a line in another way.
var oracle = regexp.MustCompile(`^(\S+) .*? \[(\S+ \S+)\] "((?:[^"\\]|\\.)*)" (\d{3}) (\d+|-)(?: "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)")?$`)

func TestOracle(t *testing.T) {
	const seed, lines = 3, 5000
	var sample bytes.Buffer
	if err := Sample(&sample, seed, lines); err != nil {
		t.Fatal(err)
	}
	all := strings.Split(strings.TrimSuffix(sample.String(), "\n"), "\n")
	n := 0
	for got, err := range ReadLog(&sample) {
		if err != nil {
			t.Fatal(err)
		}
		fields := oracle.FindStringSubmatch(all[n])
		if fields == nil {
			t.Fatalf("seed %d: the oracle can't read %q", seed, all[n])
		}
		n++
		at, err := time.Parse("02/Jan/2006:15:04:05 -0700", fields[2])
		if err != nil {
			t.Fatal(err)
		}
		status, _ := strconv.Atoi(fields[4])
		size, _ := strconv.ParseInt(fields[5], 10, 64)
		want := Entry{Line: int64(n), Address: fields[1], Time: at.UTC(), Status: status, Size: size, UserAgent: fields[7]}
		if words := strings.Fields(fields[3]); len(words) == 3 {
			want.Method, want.Target = words[0], words[1]
		}
		if got != want {
			t.Fatalf("seed %d: got %+v\nwant %+v", seed, got, want)
		}
	}
	if n != lines {
		t.Errorf("%d entries, want %d", n, lines)
	}
}

func FuzzParseLine(f *testing.F) {
	for _, seed := range []string{
		"", " ", `a:1 192.0.2.1 - - ` + stamp + ` "-" 408 -`, `192.0.2.1 - - ` + stamp + ` "GET /a?b=c HTTP/1.1" 200 42 "-" "a \"b\" {c}"`,
		`::1 - a b ` + stamp + ` "-" 408 -`, `a [`, `a [] "`, `192.0.2.1 - - ` + stamp + ` "GET /\`,
		"192.0.2.1 - - " + stamp + " \"\x16\x03\x01\" 400 0 \"\xff\" \"\x00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		entry, reason := parseEntry(line)
		if reason != "" {
			return
		}
		switch {
		case entry.Address == "" || !strings.HasPrefix(strings.TrimPrefix(line, entry.Host+" "), entry.Address+" "):
			t.Errorf("address %q", entry.Address)
		case entry.Time.Unix() < 0 || entry.Time.Year() > lastYear:
			t.Errorf("time %v", entry.Time)
		case entry.Status < 100 || entry.Status > 999 || entry.Size < 0:
			t.Errorf("status %d, size %d", entry.Status, entry.Size)
		case !strings.Contains(line, entry.Method+" "+entry.Target) && entry.Method != "":
			t.Errorf("method %q, target %q", entry.Method, entry.Target)
		case !strings.Contains(line, entry.UserAgent):
			t.Errorf("agent %q", entry.UserAgent)
		}
		if again, reason := parseEntry(line + ` x`); reason != "" && !strings.HasSuffix(line, "-") {
			t.Errorf("with more behind it: %q, %+v", reason, again)
		}
	})
}

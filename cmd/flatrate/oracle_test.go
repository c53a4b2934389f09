package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage"
)

// settings are the flags that decide.
type settings struct {
	limit             int64
	window, idle, ttl time.Duration
}

func (s settings) flags() []string {
	return []string{"--limit", fmt.Sprint(s.limit), "--window", s.window.String(), "--idle", s.idle.String(), "--ttl", s.ttl.String()}
}

// counts is what the oracle and the command must agree on.
type counts struct {
	Complete    bool
	Requests    int64
	Skipped     int64
	Late        int64
	SpanSeconds int64 `json:"span_seconds"`
	Limit       struct{ Allowed, Denied int64 }
	Session     struct{ Created, Reads int64 }
	Cache       struct{ Lookups, Hits, Misses int64 }
}

var (
	oracleLine  = regexp.MustCompile(`(?s)^([^ ]+)(?: .*?)? \[([^\]]*)\] "((?:[^"\\]|\\.)*)" ([1-9][0-9][0-9]) ([0-9]+|-)(?: (.*))?$`)
	oracleAgent = regexp.MustCompile(`(?s)^"(?:[^"\\]|\\.)*" "((?:[^"\\]|\\.)*\\?)`)
	oracleHTTP  = regexp.MustCompile(`(?s)^([A-Za-z_-]+) (.*?)(?: HTTP/[0-9]+(?:\.[0-9]+)?)?$`)
)

// count is the oracle: plain maps, and no code that replay uses.
func count(t *testing.T, log io.Reader, s settings) counts {
	t.Helper()
	type client struct{ address, agent string }
	c := counts{Complete: true}
	used := map[string]int64{}
	seen := map[client]time.Time{}
	stored := map[string]time.Time{}
	var first, clock time.Time
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		m := oracleLine.FindStringSubmatch(lines.Text())
		if m == nil {
			c.Skipped++
			continue
		}
		at, err := time.Parse("02/Jan/2006:15:04:05 -0700", m[2])
		_, sizeErr := strconv.ParseInt(strings.Replace(m[5], "-", "0", 1), 10, 64)
		if err != nil || sizeErr != nil || at.Year() < 1970 || at.Unix() < 0 {
			c.Skipped++
			continue
		}
		if c.Requests++; c.Requests == 1 {
			first, clock = at, at
		} else if at.Before(clock) {
			c.Late++
		} else {
			clock = at
		}
		window := fmt.Sprint(m[1], " ", clock.UnixMilli()/s.window.Milliseconds())
		if used[window] >= s.limit {
			c.Limit.Denied++
			continue
		}
		used[window]++
		c.Limit.Allowed++

		agent := ""
		if ua := oracleAgent.FindStringSubmatch(m[6]); ua != nil {
			agent = ua[1]
		}
		who := client{m[1], agent}
		last, known := seen[who]
		if !known || clock.Sub(last) >= s.idle {
			c.Session.Created++
			seen[who] = clock
		} else if clock.Sub(last) >= (s.idle+19*time.Millisecond)/20 { // extended no more often than that
			seen[who] = clock
		}
		c.Session.Reads++

		request := oracleHTTP.FindStringSubmatch(m[3])
		if request == nil || request[1] != "GET" && request[1] != "HEAD" {
			continue
		}
		c.Cache.Lookups++
		if at, there := stored[request[2]]; there && clock.Sub(at) < s.ttl {
			c.Cache.Hits++
		} else {
			c.Cache.Misses++
			stored[request[2]] = clock
		}
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	c.SpanSeconds = int64(clock.Sub(first) / time.Second)
	return c
}

// replayed runs the command on a log.
func replayed(t *testing.T, log io.Reader, flags ...string) counts {
	t.Helper()
	var out, problems bytes.Buffer
	args := append([]string{"replay", "--output", "json", "--jitter", "0", "-"}, flags...)
	if code := run(context.Background(), args, stdio{log, &out, &problems}); code != 0 {
		t.Fatalf("exit code %d: %s", code, problems.String())
	}
	var c counts
	if err := json.Unmarshal(out.Bytes(), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

var oracleSettings = []settings{
	{60, time.Minute, 30 * time.Minute, 5 * time.Minute},
	{1, time.Second, time.Second, time.Second},
	{1, 87600 * time.Hour, 2 * time.Second, time.Millisecond},
	{3, 1500 * time.Millisecond, 7 * time.Second, 3 * time.Second},
	{5, 7 * time.Second, time.Minute, time.Hour},
}

// TestOracle holds the counts of replay to those of the oracle, on generated logs.
func TestOracle(t *testing.T) {
	for i, s := range oracleSettings {
		seed := uint64(100 + i)
		for name, log := range map[string][]byte{"sample": sampleLog(t, seed, 1000), "hostile": hostileLog(seed, 1000)} {
			t.Run(fmt.Sprintf("%s, seed %d, %+v", name, seed, s), func(t *testing.T) {
				t.Parallel()
				want := count(t, bytes.NewReader(log), s)
				if got := replayed(t, bytes.NewReader(log), s.flags()...); got != want {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
				if want.Limit.Allowed == 0 || want.Cache.Lookups == 0 {
					t.Errorf("the log asks for too little: %+v", want)
				}
			})
		}
	}
}

// TestOracleOnFile does the same for a log of your own: FLATRATE_REPLAY_LOG=access.log.gz
func TestOracleOnFile(t *testing.T) {
	path := os.Getenv("FLATRATE_REPLAY_LOG")
	if path == "" {
		t.Skip("FLATRATE_REPLAY_LOG names no log")
	}
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.HasPrefix(log, []byte("\x1f\x8b")) {
		unzipped, err := gzip.NewReader(bytes.NewReader(log))
		if err != nil {
			t.Fatal(err)
		}
		if log, err = io.ReadAll(unzipped); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []settings{oracleSettings[0], oracleSettings[4]} {
		want := count(t, bytes.NewReader(log), s)
		got := replayed(t, bytes.NewReader(log), s.flags()...)
		if got != want {
			t.Errorf("%+v:\ngot  %+v\nwant %+v", s, got, want)
		}
		t.Logf("%+v: %+v", s, got)
	}
}

func sampleLog(t testing.TB, seed uint64, lines int) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := usage.Sample(&out, seed, lines); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// hostileLog is few clients with much variety: odd bytes, all zones, leaps and steps back in time, lines that don't count.
func hostileLog(seed uint64, lines int) []byte {
	r := rand.New(rand.NewPCG(seed, 99))
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	var out bytes.Buffer
	at := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range lines {
		switch {
		case i == lines/2:
			at = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
		case r.IntN(50) == 0:
			at = at.Add(time.Duration(r.IntN(7200)) * time.Second)
		case r.IntN(2) == 0:
			at = at.Add(time.Duration(r.IntN(4)) * time.Second)
		}
		stamp := at
		if r.IntN(8) == 0 {
			stamp = at.Add(-time.Duration(r.IntN(600)) * time.Second) // before 1970 at first: skipped
		}
		zone := time.FixedZone("", (r.IntN(27)-12)*3600+r.IntN(2)*1800)
		if stamp.Unix() >= 0 && stamp.In(zone).Year() < 1970 {
			zone = time.UTC
		}
		fmt.Fprintf(&out, "%s - %s [%s] \"%s\" %s %s%s%s",
			pick("192.0.2.1", "192.0.2.2", "2001:db8::1", "host{a}.example", "*", "%", "192.0.2.1\x00"),
			pick("-", "a b", `"q"`, "\xff"),
			stamp.In(zone).Format("02/Jan/2006:15:04:05 -0700"),
			pick("GET / HTTP/1.1", "GET /{a} HTTP/1.1", "GET /%7Ba%7D HTTP/2", "HEAD /a b HTTP/1.0", "GET /*", "POST / HTTP/1.1",
				"-", "", `\x16\x03 \x01`, "get / HTTP/1.1", "GET /\xff\x00 HTTP/1.1", "GET  HTTP/1.1", `GET /\"q\" HTTP/1.1`,
				"GET /"+strings.Repeat("l", 600)+" HTTP/1.1", "GET / HTTP/1.1 HTTP/1.1", "GET /%", "GET"),
			pick("200", "304", "999", "200", "404", "99", "2000", "-"),
			pick("0", "-", "20000", "9223372036854775807", "9223372036854775808", "-1", "1"),
			pick("", ` "-" "a"`, ` "-" "a \"b\" {c}"`, ` "-" "`+"\xff\x00"+`"`, ` "-" "cut`, ` "cut`, ` "-"`, ` "\"" "" "more"`),
			pick("\n", "\n", "\n", "\r\n", "\nnonsense\n", "\n\n"))
	}
	out.WriteString("192.0.2.1 - - [01/Jan/2099:00:00:00 +0000] \"GET / HTTP/1.1\" 200 1") // no end of line, none blank before
	return out.Bytes()
}

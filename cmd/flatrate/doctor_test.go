package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/policy"
	"github.com/flatrate/flatrate/doctor"
	"github.com/flatrate/flatrate/valkeytest"
)

// doctorRun runs the command line.
func doctorRun(t *testing.T, args ...string) (code int, out, notes string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), append([]string{"doctor"}, args...), stdio{strings.NewReader(""), &o, &e})
	return code, o.String(), e.String()
}

func TestDoctor(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", "", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"}})
	c := s.Client()
	for _, words := range [][]string{{"SET", "page:1", "<b>x</b>|y", "EX", "900"}, {"RPUSH", "fr:queue:{mail:0}:ready", "a"}, {"SET", "evil\x1b[31m<script>", "v"}, {"SAVE"}} {
		if err := c.Do(t.Context(), c.B().Arbitrary(words...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	url, file := "unix://"+s.Socket, filepath.Join(s.Dir, "dump.rdb")
	for output, want := range map[string]string{"table": "evicts-data", "markdown": "| high | evicts-data", "html": "<td class=\"left\">evicts-data", "json": `"id": "evicts-data"`} {
		code, out, notes := doctorRun(t, url, "--output", output)
		if code != 0 || !strings.Contains(out, want) || strings.ContainsRune(out, '\x1b') || output == "html" && strings.Contains(out, "<script>") {
			t.Errorf("%s: exit %d, %s\n%s", output, code, notes, out)
		}
	}
	for least, want := range map[string]int{"none": 0, "info": 3, "medium": 3, "high": 3} {
		if code, _, notes := doctorRun(t, url, "--fail-on", least); code != want {
			t.Errorf("--fail-on %s: exit %d: %s", least, code, notes)
		}
	}
	if code, out, notes := doctorRun(t, file, "--fail-on", "high"); code != 0 || !strings.Contains(out, "fr:queue:{mail:*}:ready") {
		t.Errorf("exit %d: %s\n%s", code, notes, out)
	}
	// A report is what the next one is compared with.
	_, out, _ := doctorRun(t, url, "--output", "json")
	since := filepath.Join(t.TempDir(), "since.json")
	if err := os.WriteFile(since, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "state")
	if code, out, notes := doctorRun(t, url, "--since", since, "--state", state); code != 0 || !strings.Contains(out, "Growth since") {
		t.Errorf("exit %d: %s\n%s", code, notes, out)
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("the state of a scan that is done is left")
	}
	var r doctor.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Keys != 3 || len(r.Findings) == 0 {
		t.Errorf("%d keys, %v", r.Keys, err)
	}
}

func TestDoctorUsage(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("REDIS0011\x00\x03key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"", 2, "doctor needs a server's URL or an RDB file"},
		{"ftp://x", 2, "it has to begin with valkey://"},
		{broken, 1, "at byte 14: the file ends in the middle"},
		{filepath.Join(dir, "none.rdb"), 1, "no such file"},
		{broken + " --sample 5", 2, "--sample is for servers"},
		{broken + " --state x", 2, "--state is for servers"},
		{"unix:///none --state x --sample 5", 2, "--state is for a scan of all keys"},
		{broken + " --top 0", 2, "--top must be"},
		{broken + " --allocator 4", 2, "--allocator must be"},
		{broken + " --max-ops=-1", 2, "--max-ops must not"},
		{broken + " --since " + broken, 2, "no report of doctor"},
		{broken + " --node cache.none", 2, "Node"},
		{broken + " --prefix {x}", 2, "Prefixes"},
		{broken + " --fail-on bad", 2, "--fail-on"},
		{"policy", 2, "doctor policy needs one of"},
		{"policy --sample --maxmemory 1kb", 2, "--maxmemory"},
		{"policy --sample --policies lru", 2, "there is no policy \"lru\""},
		{"policy --monitor unix:///x", 2, "--consent"},
		{"policy --sample --for 2m", 2, "--for must be"},
		{"policy --sample --ttl 1ms", 2, "--ttl must be"},
		{"policy --sample --server no-such-server", 1, "no-such-server: not found"},
		{"policy " + broken, 1, "broken"},
		{"claims --server no-such-server", 1, "not found"},
	} {
		code, _, notes := doctorRun(t, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(notes, c.want) {
			t.Errorf("doctor %s: exit %d, %q; want %d, %q", c.args, code, notes, c.code, c.want)
		}
	}
}

// TestDoctorState goes on in the database that the state is of, and in no other.
func TestDoctorState(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", ""}})
	c := s.Client()
	for i := range 1000 {
		if err := c.Do(t.Context(), c.B().Set().Key(fmt.Sprint("k:", i)).Value("v").Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	state := filepath.Join(t.TempDir(), "state")
	url := "unix://" + s.Socket
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := doctor.Scan(ctx, c, doctor.Config{Progress: func(int64, int64) { cancel() }, Checkpoint: func(b []byte) error {
		return os.WriteFile(state, append([]byte(url+"\n"), b...), 0o600)
	}}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for _, other := range []string{url + "?db=1", "unix:///other"} {
		if code, _, notes := doctorRun(t, other, "--state", state); code == 0 {
			t.Errorf("%s: exit %d, %s", other, code, notes)
		}
	}
	if code, out, notes := doctorRun(t, url, "--state", state); code != 0 || !strings.Contains(out, "1,000 keys take") {
		t.Errorf("exit %d, %s\n%s", code, notes, out)
	}
	if code, _, notes := doctorRun(t, url, "--state", s.Socket+".none"); code != 0 {
		t.Errorf("exit %d, %s", code, notes)
	}
}

func TestDoctorPassword(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Password: "geheim", Args: []string{"--save", ""}})
	code, out, notes := doctorRun(t, "valkey://:wrong@"+s.Addr)
	if code != 1 || strings.Contains(out+notes, "wrong@") || !strings.Contains(notes, "password") {
		t.Errorf("exit %d: %s", code, notes)
	}
	code, out, notes = doctorRun(t, "valkey://:geheim@"+s.Addr)
	if code != 0 || strings.Contains(out+notes, "geheim") || !strings.Contains(notes, "process list") {
		t.Errorf("exit %d: %s\n%s", code, notes, out)
	}
}

func TestConnection(t *testing.T) {
	for url, want := range map[string][3]bool{
		"unix:///run/x.sock":                           {false, false, false},
		"valkey://localhost:6379":                      {true, false, true},
		"valkey://[::1]:6379":                          {true, false, true},
		"valkey://u:p@10.0.0.1,127.0.0.1":              {true, true, false},
		"valkeys://host/1?password_file=/run/p":        {false, true, false},
		"rediss://a.example:6380":                      {false, true, true},
		"redis://127.0.0.1:7000,127.0.0.1:7001/?ca=x@": {true, false, true},
	} {
		plain, remote, anonymous := connection(url)
		if got := [3]bool{plain, remote, anonymous}; got != want {
			t.Errorf("%s: %v, want %v", url, got, want)
		}
	}
}

func TestDoctorPolicy(t *testing.T) {
	code, out, notes := doctorRun(t, "policy", "--sample", "--lines", "3000", "--maxmemory", "4mb", "--policies", "allkeys-lfu,noeviction", "--output", "json")
	var r policyReport
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil || len(r.Policies) != 2 {
		t.Fatalf("exit %d, %v: %s\n%s", code, err, notes, out)
	}
	for _, p := range r.Policies {
		if p.Hits+p.First+p.Reloads != int64(r.Accesses) || p.First != int64(r.Keys) {
			t.Errorf("%+v of %d accesses of %d keys", p, r.Accesses, r.Keys)
		}
		if p.Policy == "noeviction" && (p.Evicted != 0 || p.Refused == 0) || p.Policy == "allkeys-lfu" && (p.Evicted == 0 || p.Refused != 0) {
			t.Errorf("%+v", p)
		}
	}
	monitored := "+1700000000.000001 [0 127.0.0.1:5] \"GET\" \"user:1\"\n1700000000.1 [0 lua] \"set\" \"user:2\" \"four\"\nnonsense\n1.0 [0 x] \"PING\"\n1.0 [0 x] \"get\" \"user:1\"\n"
	trace, err := policy.ReadMonitor(strings.NewReader(monitored))
	if err != nil || len(trace.Accesses) != 3 || len(trace.Keys) != 2 || trace.Sizes[1] != 4 || trace.Skipped != 2 {
		t.Errorf("%+v, %v", trace, err)
	}
}

// TestDoctorMonitor watches a server that is in use.
func TestDoctorMonitor(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Password: "geheim"})
	c := s.Client()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = c.Do(t.Context(), c.B().Get().Key("user:1").Build()).Error()
			}
		}
	}()
	code, out, notes := doctorRun(t, "policy", "--monitor", "valkey://:geheim@"+s.Addr, "--consent", "--for", "1s", "--policies", "allkeys-lru", "--output", "json")
	close(stop)
	<-done
	if code != 0 || !strings.Contains(out, `"keys": 1`) {
		t.Errorf("exit %d: %s\n%s", code, notes, out)
	}
}

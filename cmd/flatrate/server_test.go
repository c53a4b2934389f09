package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// onServer runs replay on a server, and returns what it printed.
func onServer(ctx context.Context, t *testing.T, url string, log io.Reader, flags ...string) (code int, out, problems string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(ctx, append([]string{"replay", "--valkey", url, "-"}, flags...), stdio{log, &stdout, &stderr})
	return code, stdout.String(), stderr.String()
}

func size(t *testing.T, client valkey.Client) int64 {
	t.Helper()
	n, err := client.Do(t.Context(), client.B().Dbsize().Build()).AsInt64()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestReplayOnServer compares with the oracle where time plays no part: windows and lives of ten years.
func TestReplayOnServer(t *testing.T) {
	server := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	const years = 87600 * time.Hour
	for name, test := range map[string]struct {
		log []byte
		settings
	}{
		"sample":  {sampleLog(t, 7, 3000), settings{40, years, years, years}},
		"hostile": {hostileLog(7, 3000), settings{1 << 53, years, years, years}}, // it spans more than one window
	} {
		t.Run(name, func(t *testing.T) {
			flags := append(test.flags(), "--output", "json")
			code, out, problems := onServer(t.Context(), t, "valkey://"+server.Addr, bytes.NewReader(test.log), flags...)
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, problems)
			}
			var got counts
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatal(err)
			}
			if got.Cache.Hits+got.Cache.Misses != got.Cache.Lookups || got.Cache.Hits == 0 || got.Cache.Misses == 0 {
				t.Errorf("%+v", got.Cache)
			}
			want := count(t, bytes.NewReader(test.log), test.settings)
			got.Cache.Hits, got.Cache.Misses = want.Cache.Hits, want.Cache.Misses // who loads first is left to chance
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			checkMeasured(t, out)
			if n := size(t, server.Client()); n != 0 {
				t.Errorf("%d keys are left", n)
			}
		})
	}
}

func checkMeasured(t *testing.T, out string) {
	t.Helper()
	var got struct {
		Engine, Time   string
		Commands       int64
		LinesPerSecond int64                         `json:"lines_per_second"`
		Latency        struct{ P50, P95, P99 int64 } `json:"latency_us"`
		Memory         *int64                        `json:"used_memory_delta_bytes"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Engine != "valkey" || got.Time != "compressed" || got.Commands < 3000 || got.LinesPerSecond < 1 || got.Memory == nil ||
		got.Latency.P50 < 1 || got.Latency.P99 < got.Latency.P95 || got.Latency.P95 < got.Latency.P50 {
		t.Errorf("%+v", got)
	}
}

func TestReplayKeepsKeys(t *testing.T) {
	server := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	code, out, problems := onServer(t.Context(), t, "valkey://"+server.Addr, bytes.NewReader(sampleLog(t, 7, 200)), "--keep")
	if code != 0 || !strings.Contains(problems, ":* are left on the server") || !strings.Contains(out, "ompressed time") {
		t.Fatalf("exit code %d: %s%s", code, problems, out)
	}
	if n := size(t, server.Client()); n < 100 {
		t.Errorf("only %d keys are left", n)
	}
}

// TestReplayServerDies kills the server in the middle of the log.
func TestReplayServerDies(t *testing.T) {
	server := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	log := io.MultiReader(bytes.NewReader(sampleLog(t, 7, 2000)), onRead(server.Kill), bytes.NewReader(sampleLog(t, 8, 20_000)))
	start := time.Now()
	code, out, problems := onServer(t.Context(), t, "valkey://"+server.Addr, log)
	if code != exitError || out != "" || !strings.Contains(problems, "may be left on the server") {
		t.Errorf("exit code %d: %s%s", code, problems, out)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v to notice", took)
	}
}

// TestInterrupt cancels in the middle of the log, as Ctrl-C does: it ends cleanly, with its keys removed.
func TestInterrupt(t *testing.T) {
	server := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	for _, url := range []string{"valkey://" + server.Addr, ""} {
		ctx, cancel := context.WithCancel(t.Context())
		silent, _ := io.Pipe() // the log goes on, but nothing comes
		log := io.MultiReader(bytes.NewReader(sampleLog(t, 7, 200)), onRead(cancel), silent)
		code, out, problems := onServer(ctx, t, url, log)
		if code != exitInterrupted || out != "" || !strings.HasSuffix(problems, "flatrate: interrupted\n") {
			t.Errorf("exit code %d: %s%s", code, problems, out)
		}
	}
	if n := size(t, server.Client()); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

// onRead is an empty reader that does something when it is reached.
type onRead func()

func (f onRead) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

func TestHasPassword(t *testing.T) {
	for url, want := range map[string]bool{
		"valkey://host:6379":                  false,
		"valkey://user@host":                  false,
		"valkey://user:@host":                 false,
		"valkey://:secret@host":               true,
		"valkeys://user:se:cr@et@host,host/0": true,
		"redis://u:%zz@host":                  true,
		"unix:///tmp/s?password_file=/p":      false,
		"user:secret@host":                    true,
		"host:6379":                           false,
		"":                                    false,
	} {
		if got := hasPassword(url); got != want {
			t.Errorf("%s: %v", url, got)
		}
	}
}

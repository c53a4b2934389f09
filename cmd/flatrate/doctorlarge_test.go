//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flatrate/flatrate/doctor"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// TestDoctorMillion looks at many keys beside valkey-cli --memkeys, as a sample and as a file, in processes of their own, and
// prints how long each takes. That all say the same is held; how fast they are is printed.
func TestDoctorMillion(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("FLATRATE_DOCTOR_MILLION"))
	if err != nil {
		t.Skip("FLATRATE_DOCTOR_MILLION is not set; make doctor runs it")
	}
	s := valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--save", "", "--maxmemory", "4gb"}})
	fillMillion(t, s.Client(), n)
	program := filepath.Join(t.TempDir(), "flatrate")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var memkeys, whole time.Duration
	var said int64
	var sampled string
	var live doctor.Report
	for range 3 { // the best of three, in turns
		out, took, _ := timed(t, "valkey-cli", "-s", s.Socket, "--memkeys")
		memkeys = least(memkeys, took)
		said = 0
		sampled = regexp.MustCompile(`Sampled (\d+) keys`).FindString(out)
		for _, m := range regexp.MustCompile(`(?m)^\d+ \w+ with (\d+) bytes`).FindAllStringSubmatch(out, -1) {
			v, _ := strconv.ParseInt(m[1], 10, 64)
			said += v
		}
		live, took, _ = timedReport(t, program, "unix://"+s.Socket, "--max-ops", "0")
		whole = least(whole, took)
	}
	t.Logf("%d keys: --memkeys %v, flatrate doctor %v: %.1f times as fast", n, memkeys, whole, memkeys.Seconds()/whole.Seconds())
	if live.Keys != int64(n) || live.Reported != said {
		t.Errorf("%d keys, %d bytes by MEMORY USAGE; --memkeys says %q, %d bytes", live.Keys, live.Reported, sampled, said)
	}
	sample, took, _ := timedReport(t, program, "unix://"+s.Socket, "--sample", "20000")
	off := 100 * (sample.Bytes/live.Bytes - 1)
	t.Logf("a sample of 20,000: %v, off by %+.2f%%, margin %.2f%%", took, off, 100*sample.Margin/live.Bytes)
	if math.Abs(off) > 5 {
		t.Errorf("the sample is off by %.2f%%", off)
	}
	c := s.Client()
	if err := c.Do(t.Context(), c.B().Arbitrary("SAVE").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	file, took, peak := timedReport(t, program, filepath.Join(s.Dir, "dump.rdb"))
	t.Logf("its RDB file: %v, %d MB at most, %+.3f%% of live", took, peak>>10, 100*(file.Bytes/live.Bytes-1))
	if file.Keys != live.Keys || math.Abs(file.Bytes/live.Bytes-1) > 0.01 || len(file.Prefixes) != len(live.Prefixes) {
		t.Errorf("the file has %d keys of %.0f bytes, live are %d of %.0f", file.Keys, file.Bytes, live.Keys, live.Bytes)
	}
	for i, p := range live.Prefixes {
		if f := file.Prefixes[i]; f.Pattern != p.Pattern || f.Keys != p.Keys || math.Abs(f.Bytes/p.Bytes-1) > 0.02 {
			t.Errorf("prefix %+v in the file, %+v live", f, p)
		}
	}
}

func least(a, b time.Duration) time.Duration {
	if a == 0 {
		return b
	}
	return min(a, b)
}

func fillMillion(t *testing.T, c valkey.Client, n int) {
	t.Helper()
	for from := 0; from < n; from += 1000 {
		var cmds []valkey.Completed
		for i := from; i < min(n, from+1000); i++ {
			var words []string
			switch k := i % 10; {
			case k < 5:
				words = []string{"SET", fmt.Sprintf("user:%07d", i), fmt.Sprintf(`{"id":%d,"name":"Jane Doe","email":"jane%06d@example.com"}`, i, i)}
			case k < 7:
				words = []string{"SET", fmt.Sprintf("rate:%07d", i), fmt.Sprint(20000 + i), "EX", fmt.Sprint(7200 + i%3600)}
			case k < 8:
				words = []string{"HSET", fmt.Sprintf("obj:%07d", i), "a", "1", "b", "hello", "c", "world"}
			case k < 9:
				words = []string{"SET", fmt.Sprintf("session:%032x", i), strings.Repeat("s", 200+i%400), "EX", fmt.Sprint(86400 + i%50000)}
			default:
				words = []string{"RPUSH", fmt.Sprintf("list:%07d", i), "a", "b", "c"}
			}
			cmds = append(cmds, c.B().Arbitrary(words...).Build())
		}
		for _, r := range c.DoMulti(t.Context(), cmds...) {
			if err := r.Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// timed runs a program; peak is in KiB.
func timed(t *testing.T, program string, args ...string) (out string, took time.Duration, peak int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	begin := time.Now()
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	took = time.Since(begin)
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal("no usage of the process")
	}
	return string(b), took, usage.Maxrss
}

func timedReport(t *testing.T, program string, args ...string) (r doctor.Report, took time.Duration, peak int64) {
	t.Helper()
	out, took, peak := timed(t, program, append([]string{"doctor", "--output", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	return r, took, peak
}

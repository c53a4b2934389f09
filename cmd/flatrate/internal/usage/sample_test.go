package usage

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func generated(t *testing.T, seed uint64, lines int) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Sample(&out, seed, lines); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestSample pins the bytes: whoever compares two versions of flatrate on a sample needs the same one.
func TestSample(t *testing.T) {
	long := generated(t, 1, 20_000)
	const want = "4194bb993def99a2"
	if got := fmt.Sprintf("%x", sha256.Sum256(long))[:16]; got != want {
		t.Errorf("seed 1 gives another log: %s, not %s", got, want)
	}
	if short := generated(t, 1, 100); !bytes.HasPrefix(long, short) {
		t.Error("a longer log does not begin with the shorter one")
	}
	if bytes.HasPrefix(long, generated(t, 2, 10)) {
		t.Error("another seed gives the same log")
	}
}

// TestSampleIsRich asks for all that a replay should meet.
func TestSampleIsRich(t *testing.T) {
	log := string(generated(t, 5, 20_000))
	for _, what := range []string{`"HEAD `, `"POST `, `" 304 - `, `" 404 `, `"-" 408`, `\x16`, `2001:db8:`, `mary ann`, `\"Pixel`, `{app`} {
		if !strings.Contains(log, what) {
			t.Errorf("no %s in 20,000 lines", what)
		}
	}
	perMinute := map[string]int{}
	late, most := 0, 0
	var latest int64
	for entry, err := range ReadLog(strings.NewReader(log)) {
		if err != nil {
			t.Fatal(err)
		}
		if entry.Time.Unix() < latest {
			late++
		}
		latest = max(latest, entry.Time.Unix())
		key := fmt.Sprint(entry.Address, latest/60)
		perMinute[key]++
		most = max(most, perMinute[key])
	}
	if days := float64(latest-sampleStart.Unix()) / 86400; days < 0.5 || days > 2 {
		t.Errorf("20,000 lines span %.1f days", days)
	}
	if late == 0 || late > 2000 || most < 61 {
		t.Errorf("%d late lines, at most %d requests a minute", late, most)
	}
}

type full struct{}

var errFull = errors.New("disk full")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestSampleWriteError(t *testing.T) {
	if err := Sample(full{}, 1, 10); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
}

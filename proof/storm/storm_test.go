package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

// TestStorm runs a small one. What it holds is of counts: times are for the long run.
func TestStorm(t *testing.T) {
	valkeytest.Start(t) // skips where there is no server
	p := plan{Keys: 200, Every: 100 * time.Millisecond, TTL: 400 * time.Millisecond, Load: 10 * time.Millisecond, Bucket: 50 * time.Millisecond}
	file := filepath.Join(t.TempDir(), "storm.svg")
	var report strings.Builder
	if err := storm(t.Context(), p, file, &report); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + report.String())
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(string(b))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(string(b), "<polyline"); n != 7 { // nothing expires: no line of loads
		t.Errorf("%d lines", n)
	}
}

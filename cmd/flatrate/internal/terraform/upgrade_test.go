package terraform

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the golden files anew: read the difference before it is committed")

// TestUpgrade upgrades varied configurations. What comes out parses, stays formatted if it was, keeps every line that it has no business
// with, and does not change the second time.
func TestUpgrade(t *testing.T) {
	files, err := filepath.Glob("testdata/upgrade/*.txtar")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		before := archive.Files[0].Data
		u, err := Upgrade("main.tf", before, "8.0")
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		said := strings.Join(append(append([]string{}, u.Changes...), u.Notes...), "\n") + "\n"
		if *update {
			archive.Files = []txtar.File{{Name: "before.tf", Data: before}, {Name: "after.tf", Data: u.Text}, {Name: "said", Data: []byte(said)}}
			if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if len(archive.Files) != 3 || !bytes.Equal(archive.Files[1].Data, u.Text) || string(archive.Files[2].Data) != said {
			t.Errorf("%s: go test -run TestUpgrade -update writes what comes out:\n%s%s", file, u.Text, said)
		}
		if bytes.Equal(hclwrite.Format(before), before) && !bytes.Equal(hclwrite.Format(u.Text), u.Text) {
			t.Errorf("%s: no longer formatted", file)
		}
		keepsTheRest(t, file, before, u.Text)
		again, err := Upgrade("main.tf", u.Text, "8.0")
		if err != nil || !bytes.Equal(again.Text, u.Text) || len(again.Changes) > 0 {
			t.Errorf("%s: the second time: %v\n%s%v", file, err, again.Text, again.Changes)
		}
	}
}

// keepsTheRest holds that every line which is gone was about the engine, and that no comment is.
func keepsTheRest(t *testing.T, file string, before, after []byte) {
	t.Helper()
	squeeze := func(line string) string { return strings.Join(strings.Fields(line), " ") }
	left := map[string]int{}
	for line := range strings.Lines(string(after)) {
		left[squeeze(line)]++
	}
	gone := 0
	for line := range strings.Lines(string(before)) {
		if line = squeeze(line); left[line] > 0 {
			left[line]--
			continue
		}
		gone++
		about := false
		for _, word := range []string{"engine", "major_engine_version", "family", "name", "value", "parameter", "create_before_destroy", "}"} {
			about = about || strings.HasPrefix(strings.TrimPrefix(line, "/* a group of somebody else */ "), word)
		}
		if _, comment, ok := strings.Cut(line, "#"); !about && line != "" || ok && !bytes.Contains(after, []byte(comment)) {
			t.Errorf("%s: gone: %s", file, line)
		}
	}
	if gone > 12 {
		t.Errorf("%s: %d lines are gone", file, gone)
	}
}

// TestUpgradeVersions takes the newest family where it is asked for, and keeps what that one has.
func TestUpgradeVersions(t *testing.T) {
	const text = "resource \"aws_elasticache_parameter_group\" \"p\" {\n  name   = \"p\"\n  family = \"redis7\"\n\n  parameter {\n    name  = \"lazyfree-lazy-expire\"\n    value = \"yes\"\n  }\n}\n"
	for version, want := range map[string]string{"7.2": "valkey7", "8.2": "valkey8", "9.0": "valkey9"} {
		u, err := Upgrade("main.tf", []byte(text), version)
		if err != nil || !bytes.Contains(u.Text, []byte(`family = "`+want+`"`)) || bytes.Contains(u.Text, []byte("lazyfree")) != (version == "7.2") {
			t.Errorf("%s: %v\n%s", version, err, u.Text)
		}
	}
	if err := CheckVersion("7.1"); err == nil {
		t.Error("7.1 is a version")
	}
}

// FuzzUpgrade holds that whatever parses can be linted and upgraded, and that the result parses and is the same the second time.
func FuzzUpgrade(f *testing.F) {
	files, err := filepath.Glob("testdata/upgrade/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data)
	}
	f.Add([]byte(sound))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxFile {
			return
		}
		file := filepath.Join(t.TempDir(), "main.tf")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, lintErr := Lint(file)
		u, err := Upgrade("main.tf", data, "8.0")
		if err != nil {
			if strings.Contains(err.Error(), "result can't be read") {
				t.Fatalf("%v\n%s", err, data)
			}
			return
		}
		if lintErr != nil {
			t.Fatalf("upgraded, but not linted: %v", lintErr)
		}
		again, err := Upgrade("main.tf", u.Text, "8.0")
		if err != nil || !bytes.Equal(again.Text, u.Text) {
			t.Fatalf("the second time: %v\n%q\n%q", err, u.Text, again.Text)
		}
	})
}

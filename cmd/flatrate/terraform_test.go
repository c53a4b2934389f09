package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/terraform"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the golden files anew: read the difference before it is committed")

// TestTerraformGolden holds what is generated for every preset and kind. The first line of each file has the arguments.
func TestTerraformGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/terraform/*.golden.txtar")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d golden files: %v", len(files), err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		args := strings.Fields(string(archive.Comment))
		var out, problems bytes.Buffer
		if code := run(t.Context(), append([]string{"terraform", "--shipped-prices"}, args...), stdio{nil, &out, &problems}); code != 0 {
			t.Fatalf("%s: %s", file, problems.String())
		}
		if *update {
			archive.Files = []txtar.File{{Name: "main.tf", Data: out.Bytes()}}
			if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if len(archive.Files) != 1 || !bytes.Equal(archive.Files[0].Data, out.Bytes()) {
			t.Errorf("%s: another configuration than the golden one; go test -run TestTerraformGolden -update . writes it", file)
		}
		if !bytes.Equal(hclwrite.Format(out.Bytes()), out.Bytes()) {
			t.Errorf("%s: not formatted", file)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "main.tf"), out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		report, err := terraform.Lint(dir)
		if err != nil || len(report.Findings) > 0 {
			t.Errorf("%s: lint: %v %v", file, report.Findings, err)
		}
	}
}

// TestTerraformHeaderAddsUp holds the header's sums against flatrate cost's price of the same nodes.
func TestTerraformHeaderAddsUp(t *testing.T) {
	var out, problems bytes.Buffer
	code := run(t.Context(), []string{"terraform", "--shipped-prices", "--preset", "sessions", "--users", "50000", "--node", "cache.t4g.small"}, stdio{nil, &out, &problems})
	if code != 0 || !strings.Contains(out.String(), "# It costs $37.38 a month:\n") {
		t.Errorf("%d %s%.300s", code, problems.String(), out.String())
	}
}

// TestTerraformWritesCarefully does not replace what is no file, nor a file that somebody else has changed, and keeps its mode.
func TestTerraformWritesCarefully(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "main.tf"), filepath.Join(dir, "null")
	if err := os.WriteFile(file, []byte("now"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := rewrite(file, []byte("before"), []byte("after")); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("a changed file: %v", err)
	}
	if err := rewrite(file, []byte("now"), []byte("after")); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if err := os.Symlink(os.DevNull, link); err != nil {
		t.Fatal(err)
	}
	var out, problems bytes.Buffer
	code := run(t.Context(), []string{"terraform", "--shipped-prices", "--preset", "sessions", "--out", link}, stdio{nil, &out, &problems})
	if target, err := os.Readlink(link); code != 1 || err != nil || target != os.DevNull {
		t.Errorf("%d %q %s %v", code, target, problems.String(), err)
	}
}

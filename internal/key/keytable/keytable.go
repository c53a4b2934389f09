// Package keytable holds the key layout of a block against the places that document it.
package keytable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Check fails the test unless each key stands in a Go file of the current package and in
// docs/keys.md. The keys are built by the block from names in capitals, as in fr:lock:{NAME}, so that
// the table is the golden file.
func Check(t *testing.T, keys ...string) {
	t.Helper()
	page, err := os.ReadFile("../docs/keys.md")
	if errors.Is(err, fs.ErrNotExist) { // a package in a block's folder
		page, err = os.ReadFile("../../docs/keys.md")
	}
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		b, err := fs.ReadFile(os.DirFS("."), file)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	for _, key := range keys {
		if !strings.Contains(string(page), "`"+key+"`") {
			t.Errorf("docs/keys.md does not list %s", key)
		}
		if !strings.Contains(source.String(), "//\t"+key+"  ") {
			t.Errorf("the package doc does not list %s", key)
		}
	}
}

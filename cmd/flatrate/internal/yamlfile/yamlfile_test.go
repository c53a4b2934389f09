package yamlfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/yamlfile"
)

func parse(t *testing.T, text string) (*yamlfile.Document, yamlfile.Value) {
	t.Helper()
	doc, root, err := yamlfile.Parse("a.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc, root
}

func TestValues(t *testing.T) {
	doc, root := parse(t, "n: 10_000\nd: 1d2h\nshort: 250ms\nword: b\ntext: 'x y'\nnothing: ~\nlist: [1, -2]\nplain: 1.50\n")
	m, ok := root.Keys("n", "d", "short", "word", "text", "nothing", "list", "plain")
	if !ok {
		t.Fatal(doc.Err())
	}
	get := func(name string) yamlfile.Value {
		v, ok := m.Get(name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		return v
	}
	if n, ok := get("n").Int(); n != 10_000 || !ok {
		t.Error(n)
	}
	if d := get("d").Duration(); d != 26*time.Hour {
		t.Error(d)
	}
	if d := get("short").Duration(); d != 250*time.Millisecond {
		t.Error(d)
	}
	if i := get("word").Word("a", "b"); i != 1 {
		t.Error(i)
	}
	if s := get("text").Text(); s != "x y" {
		t.Error(s)
	}
	if _, ok := m.Get("nothing"); ok {
		t.Error("null is a value")
	}
	if list := get("list").List(); len(list) != 2 {
		t.Error(list)
	} else if n, ok := list[1].Int(); n != -2 || !ok {
		t.Error(n)
	}
	if s := get("plain").Plain(); s != "1.50" {
		t.Error(s)
	}
	if err := doc.Err(); err != nil {
		t.Error(err)
	}
}

// TestProblems holds the position and the words of each problem.
func TestProblems(t *testing.T) {
	read := map[string]func(yamlfile.Value){
		"int":  func(v yamlfile.Value) { v.Int() },
		"dur":  func(v yamlfile.Value) { v.Duration() },
		"word": func(v yamlfile.Value) { v.Word("a", "b") },
		"text": func(v yamlfile.Value) { v.Text() },
		"list": func(v yamlfile.Value) { v.List() },
		"map":  func(v yamlfile.Value) { v.Map() },
		"keys": func(v yamlfile.Value) { v.Keys("burstLimit", "rateLimit") },
	}
	for _, c := range []struct{ kind, text, want string }{
		{"int", "1.5", "a.yaml:1:1: not a whole number"},
		{"int", "'1'", "a.yaml:1:1: not a whole number"},
		{"int", "010", "a.yaml:1:1: not a whole number"},
		{"int", "0x10", "a.yaml:1:1: not a whole number"},
		{"int", "1_0", "a.yaml:1:1: not a whole number"},
		{"int", "[1]", "a.yaml:1:1: not a whole number"},
		{"int", "9223372036854775808", "a.yaml:1:1: 9223372036854775808 is out of range"},
		{"dur", "\n 5", "a.yaml:2:2: not a duration such as 250ms, 1m30s or 30d"},
		{"dur", "1d-1h", "a.yaml:1:1: not a duration such as 250ms, 1m30s or 30d"},
		{"dur", "99999d2562000h", "a.yaml:1:1: not a duration such as 250ms, 1m30s or 30d"},
		{"dur", "100000d", "a.yaml:1:1: not a duration such as 250ms, 1m30s or 30d"},
		{"dur", "{}", "a.yaml:1:1: not a duration such as 250ms, 1m30s or 30d"},
		{"word", "c", "a.yaml:1:1: not one of a, b"},
		{"word", "[a]", "a.yaml:1:1: not one of a, b"},
		{"text", "5", "a.yaml:1:1: not a text"},
		{"list", "a: b", "a.yaml:1:1: not a list"},
		{"map", "- a", "a.yaml:1:1: not a mapping (key: value)"},
		{"map", "a: 1\n\nb: 2\na: 3", "a.yaml:4:1: key \"a\" again: it is in line 1 already"},
		{"map", "'': 1", "a.yaml:1:1: not a name"},
		{"map", "? [a]\n: 1", "a.yaml:1:3: not a name"},
		{"map", "~: 1", "a.yaml:1:1: not a name"},
		{"keys", "burstlimit: 1", "a.yaml:1:1: unknown key \"burstlimit\": \"burstLimit\"?"},
		{"keys", "rateLimt: 1", "a.yaml:1:1: unknown key \"rateLimt\": \"rateLimit\"?"},
		{"keys", "colour: 1", "a.yaml:1:1: unknown key \"colour\": not one of burstLimit, rateLimit"},
	} {
		doc, root := parse(t, c.text)
		read[c.kind](root)
		if err := doc.Err(); err == nil || err.Error() != c.want {
			t.Errorf("%s of %q: %v, want %s", c.kind, c.text, err, c.want)
		}
	}
}

func TestFilesThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "a.yaml:1:1: the file is empty",
		"# only a comment":               "a.yaml:1:1: the file is empty",
		"a: [1":                          "no valid YAML: ",
		"a: b: c":                        "a.yaml:1:5: no valid YAML: ",
		"a:\n\tb: 1":                     "a.yaml:2:",
		"a: 1\n---\nb: 2":                "a second document",
		"a: &x 1\nb: *x":                 "a.yaml:1:4: anchors and aliases are not supported",
		"a: \xff":                        "no valid YAML: ",
		strings.Repeat("[", 20_000):      "no valid YAML: ",
		strings.Repeat("a", 1<<20) + "b": "a.yaml:1:1: over 1048576 bytes",
	} {
		_, _, err := yamlfile.Parse("a.yaml", []byte(text))
		var list *yamlfile.Error
		if !errors.As(err, &list) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
}

func TestManyProblems(t *testing.T) {
	doc, root := parse(t, strings.Repeat("- x\n", 100))
	for _, v := range root.List() {
		v.Int()
	}
	err := doc.Err()
	if n := strings.Count(err.Error(), "\n"); n != 20 || !strings.HasSuffix(err.Error(), ":1: there are more problems") && !strings.Contains(err.Error(), "there are more problems") {
		t.Errorf("%d lines: %v", n+1, err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	for size, fits := range map[int]bool{yamlfile.MaxBytes: true, yamlfile.MaxBytes + 1: false} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if data, err := yamlfile.Read(path); (err == nil) != fits || fits && len(data) != size {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if _, err := yamlfile.Read(dir); err == nil {
		t.Error("a folder was read")
	}
	if _, err := yamlfile.Read(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

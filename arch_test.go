package flatrate_test

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/flatrate/flatrate"

var blocks = []string{"cache", "lock", "queue", "ratelimit", "session"}

// imports returns what each package below dir imports, tests left out.
func imports(t *testing.T, dir string) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list in %s: %v", dir, err)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		all[words[0]] = words[1:]
	}
	return all
}

// TestDirection holds the arrows of ARCHITECTURE.md.
func TestDirection(t *testing.T) {
	for pkg, imported := range imports(t, ".") {
		pkg := strings.TrimPrefix(strings.TrimPrefix(pkg, module), "/")
		for _, dep := range imported {
			dep, ours := strings.CutPrefix(dep, module+"/")
			suite := strings.HasSuffix(pkg, "test") // a conformance suite, or valkeytest
			switch {
			case !ours:
				std := !strings.Contains(strings.Split(dep, "/")[0], ".")
				local := pkg == "cache" && dep == "github.com/maypok86/otter/v2" // its in-process tier
				if !std && !local && (pkg == "cost" || !strings.HasPrefix(dep, "github.com/valkey-io/valkey-go")) {
					t.Errorf("%s imports %s", pkg, dep)
				}
				if dep == "testing" && !suite && pkg != "internal/key/keytable" {
					t.Errorf("%s imports testing, and is no test helper", pkg)
				}
			case slices.Contains(blocks, dep) && !strings.HasPrefix(pkg, dep+"/") && pkg != "meter":
				t.Errorf("%s imports the block %s", pkg, dep)
			case strings.HasSuffix(dep, "test") && !suite:
				t.Errorf("%s imports the test helper %s", pkg, dep)
			case pkg == "cost":
				t.Errorf("cost imports %s", dep)
			}
		}
	}
}

// TestLockDependsOnLittle holds what a user of lock inherits.
func TestLockDependsOnLittle(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./lock").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{module + "/lock", module + "/internal/", "github.com/valkey-io/valkey-go", "golang.org/x/sys/"}
	for dep := range strings.FieldsSeq(string(out)) {
		if !slices.ContainsFunc(allowed, func(prefix string) bool { return strings.HasPrefix(dep, prefix) }) {
			t.Errorf("lock brings %s", dep)
		}
	}
}

// TestBinaryIsAUser holds that the binary uses the public packages, and its own ones as drawn.
func TestBinaryIsAUser(t *testing.T) {
	const binary = module + "/cmd/flatrate"
	for pkg, imported := range imports(t, "cmd/flatrate") {
		for _, dep := range imported {
			if strings.HasPrefix(dep, module+"/internal/") {
				t.Errorf("%s imports %s", pkg, dep)
			}
			own, isOwn := strings.CutPrefix(dep, binary+"/internal/")
			inside := strings.HasPrefix(dep, pkg+"/") // a part of the package that imports it
			if isOwn && pkg != binary && !inside && own != "usage" && own != "report" && own != "yamlfile" && own != "rows" {
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
}

// TestContribIsAUser holds that the adapters use the public packages.
func TestContribIsAUser(t *testing.T) {
	modules, err := filepath.Glob("contrib/*/go.mod")
	if err != nil || len(modules) == 0 || len(modules) > 4 {
		t.Fatalf("%d modules in contrib: %v", len(modules), err)
	}
	for _, file := range modules {
		for pkg, imported := range imports(t, filepath.Dir(file)) {
			for _, dep := range imported {
				if strings.HasPrefix(dep, module+"/internal/") || strings.HasPrefix(dep, module+"/cmd/") {
					t.Errorf("%s imports %s", pkg, dep)
				}
			}
		}
	}
}

// TestBlocksStartUnderFIPS starts a program that imports the blocks where only FIPS algorithms are
// allowed: hashing a script with SHA-1 when its package is initialised would panic there.
func TestBlocksStartUnderFIPS(t *testing.T) {
	for _, block := range blocks {
		cmd := exec.Command("go", "test", "-run", "^TestKeyTable$", "./"+block)
		cmd.Env = append(cmd.Environ(), "GODEBUG=fips140=only")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", block, err, out)
		}
	}
}

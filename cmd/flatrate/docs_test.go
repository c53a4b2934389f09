package main

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/terraform"
)

// TestPageShowsWhatRuns runs the example of docs/cli.md.
func TestPageShowsWhatRuns(t *testing.T) {
	var out, problems bytes.Buffer
	args := []string{"replay", "--sample", "--sample-lines", "3000"}
	if code := run(t.Context(), args, stdio{nil, &out, &problems}); code != 0 {
		t.Fatal(problems.String())
	}
	want := "    flatrate " + strings.Join(args, " ") + "\n\n" +
		regexp.MustCompile(`(?m)^(.+)$`).ReplaceAllString(out.String(), "    $1")
	if !strings.Contains(page(t), want) {
		t.Errorf("docs/cli.md shows something else than\n%s", want)
	}
}

// TestPageNamesEveryFlag compares the page with the help, both ways: flags of one command have their own table.
func TestPageNamesEveryFlag(t *testing.T) {
	text := page(t)
	flag := regexp.MustCompile(`--[a-z-]+`)
	known := map[string]bool{"--help": true, "--lines": true}
	for _, command := range []struct {
		words string
		least int
	}{
		{"replay", 15}, {"queue ls", 3}, {"queue stats", 3}, {"queue peek", 5}, {"queue send", 12}, {"queue redrive", 6},
		{"queue purge", 4}, {"queue pause", 3}, {"queue resume", 3},
	} {
		var out, problems bytes.Buffer
		if code := run(t.Context(), append(strings.Fields(command.words), "--help"), stdio{nil, &out, &problems}); code != 0 {
			t.Fatal(problems.String())
		}
		flags := flag.FindAllString(out.String(), -1)
		if len(flags) < command.least {
			t.Fatalf("the help of %s names only %v", command.words, flags)
		}
		if first, _, _ := strings.Cut(command.words, " "); first == "queue" && !strings.Contains(text, "`"+command.words) {
			t.Errorf("docs/cli.md does not name %s", command.words)
		}
		for _, name := range flags {
			known[name] = true
			if name != "--help" && !strings.Contains(text, "`"+name) {
				t.Errorf("docs/cli.md does not name %s of %s", name, command.words)
			}
		}
	}
	for _, name := range flag.FindAllString(text, -1) {
		if !known[name] && name != "--" && strings.Trim(name, "-") != "" {
			t.Errorf("docs/cli.md names %s, which there is not", name)
		}
	}
}

func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestServePageNamesEveryFlag compares docs/serve.md with the help, both ways.
func TestServePageNamesEveryFlag(t *testing.T) {
	var out, problems bytes.Buffer
	if code := run(t.Context(), []string{"serve", "--help"}, stdio{nil, &out, &problems}); code != 0 {
		t.Fatal(problems.String())
	}
	text, err := os.ReadFile("../../docs/serve.md")
	if err != nil {
		t.Fatal(err)
	}
	flag := regexp.MustCompile(`--[a-z][a-z-]*`)
	helped := flag.FindAllString(out.String(), -1)
	if len(helped) < 20 {
		t.Fatalf("the help names only %v", helped)
	}
	for _, name := range helped {
		if name != "--help" && !strings.Contains(string(text), "`"+name) {
			t.Errorf("docs/serve.md does not name %s", name)
		}
	}
	for _, name := range flag.FindAllString(string(text), -1) {
		if !strings.Contains(out.String(), name) {
			t.Errorf("docs/serve.md names %s, which there is not", name)
		}
	}
}

// TestCostPageShowsWhatRuns runs the example of docs/cost.md.
func TestCostPageShowsWhatRuns(t *testing.T) {
	code, out, problems := runCost(t, "--preset", "sessions", "--users", "50000")
	if code != 0 {
		t.Fatal(problems)
	}
	text, err := os.ReadFile("../../docs/cost.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := regexp.MustCompile(`(?m)^(.+)$`).ReplaceAllString(out, "    $1"); !strings.Contains(string(text), want) {
		t.Errorf("docs/cost.md shows something else than\n%s", want)
	}
}

// TestCostPageNamesEveryFlag compares docs/cost.md with the help, both ways.
func TestCostPageNamesEveryFlag(t *testing.T) {
	text, err := os.ReadFile("../../docs/cost.md")
	if err != nil {
		t.Fatal(err)
	}
	flag := regexp.MustCompile(`--[a-z][a-z-]*`)
	helped := map[string]bool{"--output": true} // of replay
	for _, args := range [][]string{{"cost"}, {"prices", "list"}, {"prices", "update"}} {
		var out, problems bytes.Buffer
		if code := run(t.Context(), append(args, "--help"), stdio{nil, &out, &problems}); code != 0 {
			t.Fatal(problems.String())
		}
		for _, name := range flag.FindAllString(out.String(), -1) {
			helped[name] = true
			if name != "--help" && !strings.Contains(string(text), "`"+name) {
				t.Errorf("docs/cost.md does not name %s", name)
			}
		}
	}
	if len(helped) < 45 {
		t.Fatalf("the help names only %v", helped)
	}
	for _, name := range flag.FindAllString(string(text), -1) {
		if !helped[name] {
			t.Errorf("docs/cost.md names %s, which there is not", name)
		}
	}
}

// TestTerraformPageNamesEveryFlag compares docs/terraform.md with the help, both ways: what cost has too is told there.
func TestTerraformPageNamesEveryFlag(t *testing.T) {
	text, err := os.ReadFile("../../docs/terraform.md")
	if err != nil {
		t.Fatal(err)
	}
	flag := regexp.MustCompile(`--[a-z][a-z-]*`)
	help := func(args ...string) []string {
		var out, problems bytes.Buffer
		if code := run(t.Context(), append(args, "--help"), stdio{nil, &out, &problems}); code != 0 {
			t.Fatal(problems.String())
		}
		return flag.FindAllString(out.String(), -1)
	}
	known := append(help("cost"), help("terraform", "lint")...)
	for _, args := range [][]string{{"terraform", "generate"}, {"terraform", "lint"}, {"terraform", "upgrade"}} {
		names := help(args...)
		known = append(known, names...)
		for _, name := range names {
			if !slices.Contains(help("cost"), name) && !strings.Contains(string(text), name) {
				t.Errorf("docs/terraform.md does not name %s", name)
			}
		}
	}
	if len(known) < 90 {
		t.Fatalf("the help names only %v", known)
	}
	for _, name := range flag.FindAllString(string(text), -1) {
		if !slices.Contains(known, name) {
			t.Errorf("docs/terraform.md names %s, which there is not", name)
		}
	}
	for _, rule := range terraform.Rules {
		if !strings.Contains(string(text), "| `"+rule.Name+"` |") {
			t.Errorf("docs/terraform.md does not name the rule %s", rule.Name)
		}
	}
	for _, b := range terraform.Blocks {
		if !strings.Contains(string(text), "| "+b.Name+" | "+map[bool]string{true: "yes", false: "no"}[b.Expendable]+" | "+b.Evicted+" |\n") {
			t.Errorf("docs/terraform.md says something else of %s than the header: %s", b.Name, b.Evicted)
		}
	}
}

// TestDeployIsValid checks the configuration of the deploy folder.
func TestDeployIsValid(t *testing.T) {
	t.Chdir("../../deploy")
	var out, problems bytes.Buffer
	if code := run(t.Context(), []string{"config", "validate", "--config", "serve.yaml"}, stdio{nil, &out, &problems}); code != 0 || problems.Len() > 0 {
		t.Errorf("exit code %d: %s", code, problems.String())
	}
}

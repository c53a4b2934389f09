package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
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

// TestPageNamesEveryFlag compares the page with the help.
func TestPageNamesEveryFlag(t *testing.T) {
	var out, problems bytes.Buffer
	if code := run(t.Context(), []string{"replay", "--help"}, stdio{nil, &out, &problems}); code != 0 {
		t.Fatal(problems.String())
	}
	text := page(t)
	flags := regexp.MustCompile(`--[a-z-]+`).FindAllString(out.String(), -1)
	if len(flags) < 15 {
		t.Fatalf("the help names only %v", flags)
	}
	for _, flag := range flags {
		if flag != "--help" && !strings.Contains(text, "`"+flag) {
			t.Errorf("docs/cli.md does not name %s", flag)
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

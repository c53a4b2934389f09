package cost

import (
	"fmt"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// The page shows the example's output and the shipped prices, not a memory of them.
func TestPageShowsWhatRuns(t *testing.T) {
	page, err := os.ReadFile("../docs/cost.md")
	if err != nil {
		t.Fatal(err)
	}
	has := func(text string) {
		t.Helper()
		if !strings.Contains(string(page), text) {
			t.Errorf("docs/cost.md lacks\n%s", text)
		}
	}

	file, err := parser.ParseFile(token.NewFileSet(), "example_test.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, e := range doc.Examples(file) {
		if e.Name == "_sessions" {
			has("```\n" + e.Output + "```\n")
			shown++
		}
	}
	if shown != 1 {
		t.Errorf("Example_sessions found %d times", shown)
	}

	p := listPrices(t)
	for _, r := range p.Rates() {
		has(fmt.Sprintf("| %s | %s | %s | %v | %s | %s |", r.Service, r.Unit, grouped(int64(r.Above)), r.USD, grouped(int64(r.Per)), r.Source))
	}
	has(fmt.Sprintf("has %d node types", len(p.Nodes())))
	for _, name := range []string{"cache.t4g.micro", "cache.t4g.small", "cache.t4g.medium", "cache.r7g.large", "cache.r8g.large"} {
		n, err := p.Node(name)
		if err != nil {
			t.Fatal(err)
		}
		redis := "not sold"
		if n.redis != 0 {
			redis = fmt.Sprint(n.redis)
		}
		has(fmt.Sprintf("| %s | %v | %s | %s | %s |", n.Type, n.valkey, redis, grouped(n.MaxMemoryBytes), grouped(n.UsableBytes())))
		has("read " + n.Source.Read)
	}
}

// grouped is 1234567 as 1,234,567.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

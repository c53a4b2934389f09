package interop

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/cost"
)

// TestRedlockPrice holds the prices in docs/lock.md against the table that cost ships.
func TestRedlockPrice(t *testing.T) {
	const hours = 730
	page, err := os.ReadFile("../../docs/lock.md")
	if err != nil {
		t.Fatal(err)
	}
	prices, err := cost.ListPrices("us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	month := func(nodes int, kind string) string {
		n, err := prices.Node(kind)
		if err != nil {
			t.Fatal(err)
		}
		hourly, err := n.USDPerHour(cost.Valkey)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("$%.2f", float64(nodes)*hourly*hours)
	}
	kinds := []string{"cache.t4g.micro", "cache.t4g.small", "cache.t4g.medium", "cache.r7g.large"}
	for _, row := range []struct {
		nodes int
		what  string
	}{{2, "a primary and a replica, for `lock.New`"}, {3, "3 for Redlock"}, {5, "5 for Redlock"}} {
		line := "| " + row.what
		for _, kind := range kinds {
			line += " | " + month(row.nodes, kind)
		}
		if !strings.Contains(string(page), line+" |\n") {
			t.Errorf("docs/lock.md lacks\n%s |", line)
		}
	}
	if !strings.Contains(string(page), "| nodes | "+strings.Join(kinds, " | ")+" |\n") {
		t.Error("docs/lock.md lacks the head of that table")
	}
	node, err := prices.Node(kinds[0])
	if err != nil || !strings.Contains(string(page), node.Source.String()) {
		t.Errorf("docs/lock.md does not name the source %s; %v", node.Source, err)
	}
	// A lock and its release are two conditional writes of an item of up to 1 KB.
	usage, err := prices.Bill(cost.Usage{DynamoDB: cost.DynamoDB{Writes: []cost.ItemWrites{{Count: 2e6, ItemBytes: 1000}}}}, cost.Flat{})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("$%.2f a million", usage.MeteredUSD); !strings.Contains(string(page), want) {
		t.Errorf("docs/lock.md lacks %q", want)
	}
}

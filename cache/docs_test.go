package cache_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
)

// TestArithmetic holds the table of docs/cache.md against its formulas.
func TestArithmetic(t *testing.T) {
	page, err := os.ReadFile("../docs/cache.md")
	if err != nil {
		t.Fatal(err)
	}
	const c, o = 0.5, 20.0
	rows := regexp.MustCompile(`(?m)^\| ([\d.]+)% \| ([\d.]+) ms \| ([\d.]+)% \| ([\d.]+)% \|$`).FindAllStringSubmatch(string(page), -1)
	if len(rows) != 6 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		h, err := strconv.ParseFloat(row[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		h /= 100
		mean := c*(3-2*h) + (1-h)*o
		want := []string{fmt.Sprintf("%.2f", mean), fmt.Sprintf("%.1f", 100*mean/o), strconv.FormatFloat(float64(int(1000*(1-h)+0.5))/10, 'f', -1, 64)}
		for i, text := range want {
			if row[2+i] != text {
				t.Errorf("%s%%: the page has %s, the formula %s", row[1], row[2+i], text)
			}
		}
	}
	if even, third := 3*c/(o+2*c), (o*(1-1.0/3)+3*c)/(o+2*c); fmt.Sprintf("%.1f %.1f", 100*even, 100*third) != "7.1 70.6" {
		t.Errorf("even at %v, a third at %v", even, third)
	}
	if hits := 37.38 / 0.125; fmt.Sprintf("%.0f %.0f %.0f", hits, hits/0.7, hits/0.9) != "299 427 332" {
		t.Errorf("%v million hits", hits)
	}
}

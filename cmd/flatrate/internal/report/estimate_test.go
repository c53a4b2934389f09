package report

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/flatrate/flatrate/cost"
)

// all of them take a while to price: once is enough.
var once sync.Once
var priced map[string]cost.Estimate

// estimates are one of each kind: a preset, the article's, measured ones with names that nobody should trust.
func estimates(t *testing.T) map[string]cost.Estimate {
	t.Helper()
	once.Do(func() { priced = priceAll(t) })
	return priced
}

func priceAll(t *testing.T) map[string]cost.Estimate {
	t.Helper()
	prices, err := cost.ListPrices("us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	sizing := cost.Sizing{Headroom: .2, Peak: 5}
	all := map[string]cost.Estimate{}
	add := func(name string, m cost.Model) cost.Estimate {
		e, err := prices.Estimate(m)
		if err != nil {
			t.Fatal(name, err)
		}
		all[name] = e
		return e
	}
	for _, name := range cost.PresetNames {
		p := cost.Preset{Name: name, Users: 100_000, Sizing: sizing}
		m, err := p.Model()
		if err != nil {
			t.Fatal(err)
		}
		e := add(name, m)
		if all["as "+name], err = prices.AsArticle(p, e); err != nil {
			t.Fatal(err)
		}
	}
	calls := cost.Usage{APIGateway: cost.APIGateway{HTTPRequests: 1e9}}
	add("hostile", cost.Measured([]cost.Workload{{Name: "<script>alert(1)</script>|*_`\x1b[31m", Usage: calls, Note: "</li><img src=x>"}}, cost.Flat{}, sizing, .25))
	add("kept", cost.Measured([]cost.Workload{{Name: "api", Usage: calls, KeepsGateway: true}}, cost.Flat{}, sizing, 0))
	add("nothing", cost.Measured([]cost.Workload{{Name: "idle"}}, cost.Flat{Kind: cost.Serverless}, sizing, 0))
	add("instance", cost.Measured([]cost.Workload{{Name: "cache", Usage: cost.Usage{Database: cost.Database{Reads: 1e6, HitRate: .5, InstanceUSD: 500}}}}, cost.Flat{}, sizing, 0))
	large := cost.Usage{DynamoDB: cost.DynamoDB{StoredBytes: 5e12, StoredItems: 5e9, RRU: 1e12}}
	add("large", cost.Measured([]cost.Workload{{Name: "large", Usage: large}}, cost.Flat{}, sizing, .25))
	return all
}

// TestPageLoadsNothing holds that a page is whole by itself, and that nothing in it runs.
func TestPageLoadsNothing(t *testing.T) {
	outside := regexp.MustCompile(`(?i)https?://|<script|<img|<link|@import|url\(|<[a-z][^>]*\ssrc=|NaN|\bInf\b|%!|<no value>|ZgotmplZ`)
	for name, e := range estimates(t) {
		var b strings.Builder
		if err := EstimateHTML(&b, e); err != nil {
			t.Fatal(name, err)
		}
		if found := outside.FindString(b.String()); found != "" {
			at := strings.Index(b.String(), found)
			t.Errorf("%s: the page has %q: %s", name, found, b.String()[max(0, at-80):min(b.Len(), at+80)])
		}
		for _, part := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(b.String(), -1) {
			if err := wellFormed(part); err != nil {
				t.Errorf("%s: %v in %s", name, err, part)
			}
		}
	}
}

func wellFormed(text string) error {
	in := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := in.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// TestChartsStayInside holds that no text or line lies outside of its picture.
func TestChartsStayInside(t *testing.T) {
	number := regexp.MustCompile(` (x|y|x1|x2|y1|y2|cx|cy)="(-?[0-9.]+|NaN|[+-]Inf)"`)
	size := regexp.MustCompile(`viewBox="0 0 ([0-9.]+) ([0-9.]+)"`)
	for name, e := range estimates(t) {
		var b strings.Builder
		if err := EstimateHTML(&b, e); err != nil {
			t.Fatal(err)
		}
		charts := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(b.String(), -1)
		if len(charts) == 0 && name != "nothing" && !strings.HasPrefix(name, "as ") {
			t.Errorf("%s: no charts", name)
		}
		for _, chart := range charts {
			box := size.FindStringSubmatch(chart)
			for _, m := range number.FindAllStringSubmatch(chart, -1) {
				most := parse(box[1])
				if strings.Contains(m[1], "y") {
					most = parse(box[2])
				}
				if v := parse(m[2]); !(v >= 0 && v <= most) {
					t.Errorf("%s: %s is outside of %s: %.120s", name, m[0], box[0], chart)
				}
			}
		}
	}
}

func parse(text string) float64 {
	var v float64
	var scale float64
	for _, r := range text {
		switch {
		case r >= '0' && r <= '9' && scale == 0:
			v = v*10 + float64(r-'0')
		case r >= '0' && r <= '9':
			v += float64(r-'0') * scale
			scale /= 10
		case r == '.':
			scale = .1
		default:
			return math.NaN()
		}
	}
	return v
}

func TestTableAndMarkdown(t *testing.T) {
	for name, e := range estimates(t) {
		var table, markdown strings.Builder
		if err := EstimateTable(&table, e); err != nil {
			t.Fatal(err)
		}
		if err := EstimateMarkdown(&markdown, e); err != nil {
			t.Fatal(err)
		}
		for kind, text := range map[string]string{"table": table.String(), "markdown": markdown.String()} {
			if strings.ContainsAny(text, "\x1b\x00") || strings.Contains(text, "NaN") || strings.Contains(text, "%!") {
				t.Errorf("%s, %s:\n%s", name, kind, text)
			}
		}
		if strings.Contains(markdown.String(), "<script>") {
			t.Errorf("%s: %s", name, markdown.String())
		}
		columns := 0
		for line := range strings.Lines(markdown.String()) { // every row of a table has as many cells as its head
			n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
			if n > 0 && columns > 0 && n != columns {
				t.Errorf("%s: %d cells of %d: %s", name, n, columns, line)
			}
			columns = n
		}
	}
}

func TestAmounts(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 1: "1", 12: "12", 999: "999", 1234567: "1,234,567", 0.0954: "0.0954", 0.0000279: "0.0000279", 1.5: "1.50", 123.4: "123", 7465753.4: "7,465,753"} {
		if got := Amount(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
	if got := apart([]float64{10, 12, 11, 100}, 16); got[0] >= got[2] || got[2] >= got[1] || got[1]-got[2] < 15 || got[2]-got[0] < 15 || got[3] != 100 {
		t.Errorf("labels at %v", got)
	}
}

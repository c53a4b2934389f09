package cost

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestTableSurvivesAFile(t *testing.T) {
	shipped, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := shipped.Write(&text); err != nil {
		t.Fatal(err)
	}
	read, err := ReadTable(bytes.NewReader(text.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(read.Quotes(), shipped.Quotes()) || !reflect.DeepEqual(read.terms, shipped.terms) || len(read.nodes) != len(shipped.nodes) {
		t.Error("the table that was read is another one")
	}
	for what, change := range map[string]func(string) string{
		"cut":     func(s string) string { return s[:len(s)/2] },
		"format":  func(s string) string { return strings.Replace(s, `"format": 1`, `"format": 2`, 1) },
		"unknown": func(s string) string { return strings.Replace(s, `"format": 1`, `"format": 1, "more": 0`, 1) },
		"zero":    func(s string) string { return strings.Replace(s, `"usd": 0.125`, `"usd": 0`, 1) },
		"minus":   func(s string) string { return strings.Replace(s, `"usd": 0.125`, `"usd": -1`, 1) },
		"source":  func(s string) string { return strings.Replace(s, `"name": "AWS Price List"`, `"name": ""`, 1) },
		"tier":    func(s string) string { return strings.Replace(s, `"above": 0`, `"above": 7`, 1) },
		"memory": func(s string) string {
			return strings.Replace(s, `"maxmemory_bytes": 536870912`, `"maxmemory_bytes": -1`, 1)
		},
		"term":  func(s string) string { return strings.Replace(s, `"term": "free"`, `"term": "gift"`, 1) },
		"empty": func(string) string { return "" },
	} {
		changed := change(text.String())
		if changed == text.String() {
			t.Fatalf("%s: nothing was changed", what)
		}
		if got, err := ReadTable(strings.NewReader(changed)); !errors.Is(err, ErrInvalid) || len(got.Quotes()) != 0 {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestReplace(t *testing.T) {
	shipped, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	from := Source{"AWS Price List", "2026-11-01"}
	next, err := shipped.Replace([]Quote{
		{"us-east-1", "dynamodb", "RRU", 0, .1, 1e6, from},
		{"us-east-1", "sqs", "standard request", 0, .4, 1e6, from},
		{"us-east-1", "sqs", "standard request", 1e11, .3, 1e6, from},
		{"us-east-1", "elasticache", "cache.t4g.small valkey", 0, .02, 1, from},
		{"us-east-1", "memorydb", "db.t4g.small valkey", 0, .03, 1, from},
		{"eu-west-1", "dynamodb", "RRU", 0, .14, 1e6, from},
		{"eu-west-1", "elasticache", "cache.t4g.small valkey", 0, .03, 1, from},
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := next.Region("us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Bill(Usage{DynamoDB: DynamoDB{RRU: 1e6, WRU: 1e6}, SQS: SQS{StandardRequests: 1e6 + 2e11}}, Flat{})
	if err != nil || !near(b.MeteredUSD, .1+.625+4e4+3e4, 1e-9) || !near(b.FlatUSD, 2*730*.02, 1e-9) {
		t.Errorf("%+v, %v", b, err)
	}
	if b, err := p.Bill(Usage{}, Flat{Kind: MemoryDB, Node: "db.t4g.small"}); err != nil || !near(b.FlatUSD, 2*730*.03, 1e-9) {
		t.Errorf("%+v, %v", b, err)
	}
	west, err := next.Region("eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := west.Bill(Usage{DynamoDB: DynamoDB{RRU: 1}}, Flat{}); err != nil {
		t.Error(err)
	}
	if _, err := west.Bill(Usage{DynamoDB: DynamoDB{WRU: 1}}, Flat{}); !errors.Is(err, ErrNoPrice) {
		t.Errorf("a price that is not there: %v", err)
	}
	if was, _ := shipped.Region("us-east-1"); !reflect.DeepEqual(was, listPrices(t)) {
		t.Error("the table that was replaced has changed")
	}
	for what, q := range map[string]Quote{
		"memory is not known": {"us-east-1", "elasticache", "cache.z1.large valkey", 0, 1, 1, from},
		"zero":                {"us-east-1", "dynamodb", "RRU", 0, 0, 1e6, from},
		"begins at 5":         {"us-east-1", "dynamodb", "RRU", 5, 1, 1e6, from},
		"is missing":          {"", "dynamodb", "RRU", 0, 1, 1e6, from},
		"date":                {"us-east-1", "dynamodb", "RRU", 0, 1, 1e6, Source{"x", "soon"}},
	} {
		if _, err := shipped.Replace([]Quote{q}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), what) {
			t.Errorf("%+v: %v, want %s", q, err, what)
		}
	}
}

// Whatever reads as a table can be priced with.
func FuzzReadTable(f *testing.F) {
	shipped, err := Shipped()
	if err != nil {
		f.Fatal(err)
	}
	var text bytes.Buffer
	if err := shipped.Write(&text); err != nil {
		f.Fatal(err)
	}
	f.Add(text.String())
	f.Add(`{"format":1,"prices":[{"region":"r","service":"elasticache","unit":"cache.a valkey","usd":1,"per":1,"source":{"name":"x","read":"2026"}}],"memory":[{"region":"r","type":"cache.a","maxmemory_bytes":5}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		table, err := ReadTable(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, q := range table.Quotes() {
			if !(q.USD > 0) || !(q.Per > 0) || q.Source.Name == "" {
				t.Fatalf("accepted %+v", q)
			}
		}
		for _, region := range table.Regions() {
			if p, err := table.Region(region); err == nil {
				_, _ = p.Bill(full(), Flat{})
			}
		}
	})
}

package cost

import (
	"encoding/csv"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	rateColumns = []string{"region", "service", "unit", "above", "usd", "per", "source", "read"}
	nodeColumns = []string{"region", "node_type", "valkey_usd_per_hour", "redis_usd_per_hour", "maxmemory_bytes",
		"source", "read"}
	termColumns = []string{"region", "service", "unit", "term", "amount", "source", "read"}
)

// parseRates reads prices.csv. It accepts a row only if it is complete: a positive price, a source, a date,
// and a tier that continues the one before.
func parseRates(text string) ([]Rate, error) {
	var rates []Rate
	err := eachRow(text, rateColumns, func(f []string) error {
		r := Rate{Region: f[0], Service: f[1], Unit: f[2]}
		if r.Region == "" || r.Service == "" || r.Unit == "" {
			return fmt.Errorf("region, service or unit is missing")
		}
		above, err := number("above", f[3])
		if err != nil {
			return err
		}
		r.Above = above
		if r.USD, err = positive("usd", f[4]); err != nil {
			return err
		}
		if r.Per, err = positive("per", f[5]); err != nil {
			return err
		}
		if r.Source, err = source(f[6], f[7]); err != nil {
			return err
		}
		if err := continues(rates, r); err != nil {
			return err
		}
		rates = append(rates, r)
		return nil
	})
	return rates, err
}

// continues checks that the tiers of a unit begin at zero and ascend.
func continues(rates []Rate, r Rate) error {
	last := -1.0
	for _, b := range rates {
		if b.Region == r.Region && b.Service == r.Service && b.Unit == r.Unit {
			last = b.Above
		}
	}
	switch {
	case last < 0 && r.Above != 0:
		return fmt.Errorf("above: the first tier of %s %s begins at %v, not at 0", r.Service, r.Unit, r.Above)
	case r.Above <= last:
		return fmt.Errorf("above: %v does not continue %v", r.Above, last)
	}
	return nil
}

// parseNodes reads nodes.csv. Only the Redis price may be empty: newer nodes are sold with Valkey alone.
func parseNodes(text string) ([]Node, error) {
	var nodes []Node
	err := eachRow(text, nodeColumns, func(f []string) error {
		n := Node{Region: f[0], Type: f[1]}
		if n.Region == "" || n.Type == "" {
			return fmt.Errorf("region or node_type is missing")
		}
		if slices.ContainsFunc(nodes, func(o Node) bool { return o.Region == n.Region && o.Type == n.Type }) {
			return fmt.Errorf("%s is listed twice", n.Type)
		}
		var err error
		if n.valkey, err = positive("valkey_usd_per_hour", f[2]); err != nil {
			return err
		}
		if f[3] != "" {
			if n.redis, err = positive("redis_usd_per_hour", f[3]); err != nil {
				return err
			}
		}
		if n.MaxMemoryBytes, err = strconv.ParseInt(f[4], 10, 64); err != nil || n.MaxMemoryBytes <= 0 {
			return fmt.Errorf("maxmemory_bytes: %q is not a positive whole number", f[4])
		}
		if n.Source, err = source(f[5], f[6]); err != nil {
			return err
		}
		nodes = append(nodes, n)
		return nil
	})
	return nodes, err
}

// parseTerms reads terms.csv.
func parseTerms(text string) ([]Condition, error) {
	var terms []Condition
	err := eachRow(text, termColumns, func(f []string) error {
		c := Condition{Region: f[0], Service: f[1], Unit: f[2], Term: f[3]}
		var err error
		if c.Amount, err = positive("amount", f[4]); err != nil {
			return err
		}
		if c.Source, err = source(f[5], f[6]); err != nil {
			return err
		}
		if err := c.validate(terms); err != nil {
			return err
		}
		terms = append(terms, c)
		return nil
	})
	return terms, err
}

func (c Condition) validate(before []Condition) error {
	switch {
	case c.Region == "" || c.Service == "" || c.Unit == "":
		return fmt.Errorf("region, service or unit is missing")
	case c.Term != "free" && c.Term != "minimum" && c.Term != "discount":
		return fmt.Errorf("term: %q is none of free, minimum, discount", c.Term)
	case c.Term == "discount" && c.Amount >= 1:
		return fmt.Errorf("amount: a discount of %v leaves nothing", c.Amount)
	}
	for _, b := range before {
		if b.Region == c.Region && b.Service == c.Service && b.Unit == c.Unit && b.Term == c.Term {
			return fmt.Errorf("%s %s %s is listed twice", c.Service, c.Unit, c.Term)
		}
	}
	return nil
}

// eachRow calls do with every row below a header that must be exactly columns.
func eachRow(text string, columns []string, do func([]string) error) error {
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		return err
	}
	if len(rows) == 0 || !slices.Equal(rows[0], columns) {
		return fmt.Errorf("the header is not %s", strings.Join(columns, ","))
	}
	for i, row := range rows[1:] {
		if err := do(row); err != nil {
			return fmt.Errorf("row %d: %w", i+2, err)
		}
	}
	return nil
}

func number(column, s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return 0, fmt.Errorf("%s: %q is not a number of 0 or more", column, s)
	}
	return v, nil
}

func positive(column, s string) (float64, error) {
	v, err := number(column, s)
	if err == nil && v == 0 {
		err = fmt.Errorf("%s: a price of zero is not a price", column)
	}
	return v, err
}

func source(name, read string) (Source, error) {
	if name == "" {
		return Source{}, fmt.Errorf("source is missing")
	}
	for _, layout := range []string{"2006-01-02", "2006-01", "2006"} {
		if _, err := time.Parse(layout, read); err == nil {
			return Source{Name: name, Read: read}, nil
		}
	}
	return Source{}, fmt.Errorf("read: %q is not a date", read)
}

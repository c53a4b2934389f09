package cost

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
)

// Table is the price lists of any number of regions. The zero value is empty.
type Table struct {
	rates []Rate
	nodes []Node
	terms []Condition
}

// shipped is parsed once; a test parses it too, so the error is for those who edit the files.
var shipped = sync.OnceValues(func() (t Table, err error) {
	if t.rates, err = parseRates(pricesCSV); err != nil {
		return Table{}, fmt.Errorf("cost: prices.csv: %w", err)
	}
	if t.nodes, err = parseNodes(nodesCSV); err != nil {
		return Table{}, fmt.Errorf("cost: nodes.csv: %w", err)
	}
	if t.terms, err = parseTerms(termsCSV); err != nil {
		return Table{}, fmt.Errorf("cost: terms.csv: %w", err)
	}
	return t, nil
})

// Shipped is the table that the program carries.
func Shipped() (Table, error) { return shipped() }

// Region returns the prices of one region, or an [ErrNoPrice].
func (t Table) Region(region string) (Prices, error) {
	p := Prices{region: region}
	for _, r := range t.rates {
		if r.Region == region {
			p.rates = append(p.rates, r)
		}
	}
	for _, n := range t.nodes {
		if n.Region == region {
			p.nodes = append(p.nodes, n)
		}
	}
	for _, c := range t.terms {
		if c.Region == region {
			p.terms = append(p.terms, c)
		}
	}
	if len(p.rates) == 0 || len(p.nodes) == 0 {
		return Prices{}, fmt.Errorf("%w: region %q: known are %v", ErrNoPrice, region, t.Regions())
	}
	return p, nil
}

// Regions are the names of all that have prices.
func (t Table) Regions() []string {
	var list []string
	for _, r := range t.rates {
		if !slices.Contains(list, r.Region) {
			list = append(list, r.Region)
		}
	}
	slices.Sort(list)
	return list
}

// Quote is one price as a table lists it, for updates: a tier of a rate, or the hour of a node with an engine.
type Quote struct {
	Region  string  `json:"region"`
	Service string  `json:"service"`
	Unit    string  `json:"unit"` // of a node: its type, a space, its engine
	Above   float64 `json:"above"`
	USD     float64 `json:"usd"`
	Per     float64 `json:"per"`
	Source  Source  `json:"source"`
}

// Quotes lists all prices of the table: first the rates, then two for each node that is sold with both engines.
func (t Table) Quotes() []Quote {
	var list []Quote
	for _, r := range t.rates {
		list = append(list, Quote(r))
	}
	for _, n := range t.nodes {
		for _, e := range []Engine{Valkey, Redis} {
			if usd, err := n.USDPerHour(e); err == nil {
				list = append(list, Quote{n.Region, n.service(), n.Type + " " + string(e), 0, usd, 1, n.Source})
			}
		}
	}
	return list
}

// Replace returns the table with the prices in quotes replaced, and the others as they are. A rate is replaced with all its
// tiers. A price of a unit or node that the table doesn't have in another region is an [ErrInvalid]: nobody knows what to
// do with it.
func (t Table) Replace(quotes []Quote) (Table, error) {
	next := Table{slices.Clone(t.rates), slices.Clone(t.nodes), slices.Clone(t.terms)}
	fresh := map[[3]string]bool{}
	for _, q := range quotes {
		if err := q.validate(); err != nil {
			return Table{}, err
		}
		var err error
		if unit := [3]string{q.Region, q.Service, q.Unit}; q.isNode() {
			err = next.replaceNode(q)
		} else {
			if !fresh[unit] {
				next.rates = slices.DeleteFunc(next.rates, func(r Rate) bool { return [3]string{r.Region, r.Service, r.Unit} == unit })
				fresh[unit] = true
			}
			next.rates = append(next.rates, Rate(q))
		}
		if err != nil {
			return Table{}, err
		}
	}
	next.conditions()
	slices.SortStableFunc(next.rates, func(a, b Rate) int { return compareRates(a, b) })
	return next, next.validate()
}

// conditions gives a region that is new what holds in all of them: what is free and the least that is charged.
func (t *Table) conditions() {
	known := map[string]bool{}
	for _, c := range t.terms {
		known[c.Region] = true
	}
	all := slices.Clone(t.terms)
	for _, region := range t.Regions() {
		if known[region] {
			continue
		}
		for _, c := range all {
			if c.Region == termsRegion && c.Term != "discount" {
				c.Region = region
				t.terms = append(t.terms, c)
			}
		}
	}
}

func (t *Table) replaceNode(q Quote) error {
	name, engine, _ := cutLast(q.Unit)
	i := slices.IndexFunc(t.nodes, func(n Node) bool { return n.Region == q.Region && n.Type == name })
	if i < 0 {
		like := slices.IndexFunc(t.nodes, func(n Node) bool { return n.Type == name || "db."+trimService(n.Type) == name })
		if like < 0 {
			return fmt.Errorf("%w: node type %q: its memory is not known", ErrInvalid, name)
		}
		t.nodes = append(t.nodes, Node{Region: q.Region, Type: name, MaxMemoryBytes: t.nodes[like].MaxMemoryBytes})
		i = len(t.nodes) - 1
	}
	n := &t.nodes[i]
	n.Source = q.Source
	switch Engine(engine) {
	case Valkey:
		n.valkey = q.USD
	case Redis:
		n.redis = q.USD
	default:
		return fmt.Errorf("%w: %q: an engine that is neither valkey nor redis", ErrInvalid, q.Unit)
	}
	return nil
}

// tableJSON is a table as a file. Format changes when the rest does.
type tableJSON struct {
	Format int         `json:"format"`
	Quotes []Quote     `json:"prices"`
	Memory []memory    `json:"memory"`
	Terms  []Condition `json:"terms"`
}

type memory struct {
	Region string `json:"region"`
	Type   string `json:"type"`
	Bytes  int64  `json:"maxmemory_bytes"`
}

const (
	tableFormat = 1
	termsRegion = "us-east-1" // whose conditions hold everywhere
)

// Write writes the table as JSON, which [ReadTable] reads.
func (t Table) Write(w io.Writer) error {
	f := tableJSON{Format: tableFormat, Quotes: t.Quotes(), Terms: t.terms}
	for _, n := range t.nodes {
		f.Memory = append(f.Memory, memory{n.Region, n.Type, n.MaxMemoryBytes})
	}
	out := json.NewEncoder(w)
	out.SetIndent("", " ")
	return out.Encode(f)
}

// ReadTable reads what [Table.Write] has written. Unless the whole of it is right, the error is an [ErrInvalid] and
// the table empty.
func ReadTable(r io.Reader) (Table, error) {
	var f tableJSON
	in := json.NewDecoder(r)
	in.DisallowUnknownFields()
	if err := in.Decode(&f); err != nil {
		return Table{}, fmt.Errorf("%w: price table: %w", ErrInvalid, err)
	}
	if f.Format != tableFormat {
		return Table{}, fmt.Errorf("%w: price table: format %d is not %d", ErrInvalid, f.Format, tableFormat)
	}
	t := Table{terms: f.Terms}
	for _, m := range f.Memory {
		t.nodes = append(t.nodes, Node{Region: m.Region, Type: m.Type, MaxMemoryBytes: m.Bytes})
	}
	for _, q := range f.Quotes {
		if err := q.validate(); err != nil {
			return Table{}, err
		}
		if !q.isNode() {
			t.rates = append(t.rates, Rate(q))
		} else if err := t.replaceNode(q); err != nil {
			return Table{}, err
		}
	}
	if err := t.validate(); err != nil {
		return Table{}, err
	}
	return t, nil
}

// validate holds a table that was put together to the rules of the shipped one.
func (t Table) validate() error {
	wrong := func(what string, err error) error {
		return fmt.Errorf("%w: price table: %s: %w", ErrInvalid, what, err)
	}
	for i, r := range t.rates {
		if err := continues(t.rates[:i], r); err != nil {
			return wrong(r.Service+" "+r.Unit, err)
		}
	}
	for i, n := range t.nodes {
		switch {
		case n.Region == "" || n.Type == "" || n.MaxMemoryBytes <= 0 || n.valkey == 0 && n.redis == 0:
			return wrong("node "+n.Type, fmt.Errorf("its region, memory or price is missing"))
		case slices.ContainsFunc(t.nodes[:i], func(o Node) bool { return o.Region == n.Region && o.Type == n.Type }):
			return wrong("node "+n.Type, fmt.Errorf("listed twice"))
		}
	}
	for i, c := range t.terms {
		if _, err := positive("amount", strconv.FormatFloat(c.Amount, 'g', -1, 64)); err != nil {
			return wrong(c.Service+" "+c.Unit, err)
		}
		if err := c.validate(t.terms[:i]); err != nil {
			return wrong(c.Service+" "+c.Unit, err)
		}
	}
	return nil
}

func (q Quote) isNode() bool {
	_, engine, _ := cutLast(q.Unit)
	return nodeService[q.Service] && (engine == string(Valkey) || engine == string(Redis))
}

func (q Quote) validate() error {
	for name, v := range map[string]float64{"usd": q.USD, "per": q.Per} {
		if _, err := positive(name, strconv.FormatFloat(v, 'g', -1, 64)); err != nil {
			return fmt.Errorf("%w: price of %s %s: %w", ErrInvalid, q.Service, q.Unit, err)
		}
	}
	if q.Region == "" || q.Service == "" || q.Unit == "" {
		return fmt.Errorf("%w: price of %s %s: region, service or unit is missing", ErrInvalid, q.Service, q.Unit)
	}
	if _, err := number("above", strconv.FormatFloat(q.Above, 'g', -1, 64)); err != nil {
		return fmt.Errorf("%w: price of %s %s: %w", ErrInvalid, q.Service, q.Unit, err)
	}
	if _, err := source(q.Source.Name, q.Source.Read); err != nil {
		return fmt.Errorf("%w: price of %s %s: %w", ErrInvalid, q.Service, q.Unit, err)
	}
	return nil
}

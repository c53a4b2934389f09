package cost

import (
	_ "embed" // the price table is part of the program: offline is the default
	"fmt"
	"slices"
	"strings"
)

//go:embed prices.csv
var pricesCSV string

//go:embed nodes.csv
var nodesCSV string

//go:embed terms.csv
var termsCSV string

// Prices are the list prices of one region. The zero value knows none, so every bill from it is an
// [ErrNoPrice]. Prices don't change once made and may be shared between goroutines.
type Prices struct {
	region string
	rates  []Rate
	nodes  []Node
	terms  []Condition
}

// Rate is what one unit of a metered service costs, from one tier upwards.
type Rate struct {
	Region  string `json:"region"`
	Service string `json:"service"` // "dynamodb", "sqs", "api_gateway" and so on
	Unit    string `json:"unit"`    // "RRU", "standard request", "GB-month" and so on
	// Above is where the tier begins: units of the month beyond it cost this much, until the next tier.
	Above  float64 `json:"above"`
	USD    float64 `json:"usd"` // for Per units; never zero
	Per    float64 `json:"per"`
	Source Source  `json:"source"`
}

// Condition is what a price comes with beside tiers: units that are free, the least that is charged, a discount.
type Condition struct {
	Region  string `json:"region"`
	Service string `json:"service"`
	Unit    string `json:"unit"`
	// Term is "free" or "minimum", in units of the month and units at any time, or "discount", a part of 1.
	Term   string  `json:"term"`
	Amount float64 `json:"amount"`
	Source Source  `json:"source"`
}

// Node is an ElastiCache node type, a MemoryDB node ("db." before it) or an EC2 machine. [Node.USDPerHour] has its price.
type Node struct {
	Region string `json:"region"`
	Type   string `json:"type"` // "cache.t4g.small", "t4g.small"
	// MaxMemoryBytes is the node's maxmemory before the reserve, from the ElastiCache documentation; of an EC2
	// machine its memory.
	MaxMemoryBytes int64  `json:"maxmemory_bytes"`
	Source         Source `json:"source"`

	valkey, redis float64 // USD per hour; zero where not sold, which only USDPerHour may see
}

// Engine is what runs on a node. Empty means [Valkey].
type Engine string

// The engines that ElastiCache sells node by node.
const (
	Valkey Engine = "valkey"
	Redis  Engine = "redis" // Redis OSS
)

// Source says where a price comes from, and when it was read there.
type Source struct {
	Name string `json:"name"`
	// Read is a date, as exact as it is known: 2026-10-02, 2026-10 or 2026.
	Read string `json:"read"`
}

// String is "AWS Price List, read 2026-10-02".
func (s Source) String() string { return s.Name + ", read " + s.Read }

// ListPrices returns the shipped on-demand list prices of a region, "us-east-1" being the only one so
// far. Any other is an [ErrNoPrice], the empty one too: no region is assumed.
func ListPrices(region string) (Prices, error) {
	all, err := Shipped()
	if err != nil {
		return Prices{}, err
	}
	return all.Region(region)
}

// Region is where the prices hold.
func (p Prices) Region() string { return p.region }

// Rates returns a copy of the metered prices, the tiers of a unit in ascending order.
func (p Prices) Rates() []Rate { return slices.Clone(p.rates) }

// Nodes returns a copy of the node table.
func (p Prices) Nodes() []Node { return slices.Clone(p.nodes) }

// Conditions returns a copy of what the prices come with.
func (p Prices) Conditions() []Condition { return slices.Clone(p.terms) }

// condition returns the amount of a term, and whether there is one.
func (p Prices) condition(service, unit, term string) (float64, bool) {
	for _, c := range p.terms {
		if c.Service == service && c.Unit == unit && c.Term == term {
			return c.Amount, true
		}
	}
	return 0, false
}

// Node returns one node type, "cache.t4g.small" say, or an [ErrNoPrice].
func (p Prices) Node(nodeType string) (Node, error) {
	for _, n := range p.nodes {
		if n.Type == nodeType {
			return n, nil
		}
	}
	return Node{}, fmt.Errorf("%w: node type %q in region %q", ErrNoPrice, nodeType, p.region)
}

// Sources returns every distinct source of these prices with its date.
func (p Prices) Sources() []Source {
	var list []Source
	add := func(s Source) {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	for _, r := range p.rates {
		add(r.Source)
	}
	for _, n := range p.nodes {
		add(n.Source)
	}
	for _, c := range p.terms {
		add(c.Source)
	}
	return list
}

// String is one line for the foot of a report: the region, the sources and their dates.
func (p Prices) String() string {
	var parts []string
	for _, s := range p.Sources() {
		parts = append(parts, s.String())
	}
	return p.region + " list prices: " + strings.Join(parts, "; ")
}

// USDPerHour is the on-demand price of one node. An engine that the node isn't sold with (Redis OSS on
// generation 8) is an [ErrNoPrice], one that doesn't exist an [ErrInvalid]. Empty means [Valkey].
func (n Node) USDPerHour(e Engine) (float64, error) {
	var usd float64
	switch e {
	case Valkey, "":
		usd = n.valkey
	case Redis:
		usd = n.redis
	default:
		return 0, fmt.Errorf("%w: flat.engine: %q is neither valkey nor redis", ErrInvalid, e)
	}
	if usd == 0 {
		return 0, fmt.Errorf("%w: %s with engine %s", ErrNoPrice, n.Type, e)
	}
	return usd, nil
}

// UsableBytes is the memory for data: 75% of maxmemory, since ElastiCache keeps reserved-memory-percent 25
// back by default.
func (n Node) UsableBytes() int64 { return n.MaxMemoryBytes - (n.MaxMemoryBytes+3)/4 }

// tiers returns the rates of one unit in ascending order, or an ErrNoPrice.
func (p Prices) tiers(service, unit string) ([]Rate, error) {
	var tiers []Rate
	for _, r := range p.rates {
		if r.Service == service && r.Unit == unit {
			tiers = append(tiers, r)
		}
	}
	if len(tiers) == 0 {
		return nil, fmt.Errorf("%w: %s %s in region %q", ErrNoPrice, service, unit, p.region)
	}
	return tiers, nil
}

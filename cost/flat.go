package cost

import (
	"fmt"
	"math"
)

const (
	defaultNode     = "cache.t4g.small"
	defaultCount    = 2
	redlockNode     = "cache.t4g.micro"
	maxNodes        = 1000
	maxShards       = 500
	secondsPerMonth = DaysPerMonth * 24 * 3600
	// decimalGB is the gigabyte of ElastiCache Serverless, MemoryDB and transfer: the dearer reading of "GB".
	decimalGB = 1e9
)

// Kind is what a flat side runs on. Empty means [Nodes].
type Kind string

// The kinds of flat sides.
const (
	Nodes      Kind = "nodes"      // ElastiCache nodes
	Serverless Kind = "serverless" // ElastiCache Serverless: metered too, by memory and commands
	MemoryDB   Kind = "memorydb"   // nodes with a durable log
	SelfHosted Kind = "ec2"        // EC2 machines that you look after
)

// Term is how nodes are paid for. Empty means [OnDemand].
type Term string

// The terms.
const (
	OnDemand Term = "on-demand"
	OneYear  Term = "1y-no-upfront" // reserved for a year, nothing in advance
)

// Flat is the side with the flat rate. The zero value is the default pair, two cache.t4g.small with Valkey.
type Flat struct {
	Kind   Kind   `json:"kind"`
	Node   string `json:"node"`   // empty means cache.t4g.small in a bill, and the smallest that is enough in an estimate
	Count  int    `json:"count"`  // nodes of each shard that hold the same data, at most 1,000; zero means 2
	Shards int    `json:"shards"` // zero means 1 in a bill, and as many as needed in an estimate; at most 500
	Engine Engine `json:"engine"` // empty means [Valkey]
	Term   Term   `json:"term"`
	// Redlock is how many independent nodes stand beside these for locks on a majority, of type RedlockNode
	// (cache.t4g.micro if empty). Zero means none.
	Redlock     int    `json:"redlock,omitempty"`
	RedlockNode string `json:"redlock_node,omitempty"`
	// NodeUSDPerHour is your price of a node, in place of the table's and of any discount. Zero means the table's.
	NodeUSDPerHour float64 `json:"node_usd_per_hour,omitempty"`
	// CrossAZ is the part of the clients' traffic that crosses availability zones, 0 to 1. It is charged where the
	// clients are. Zero leaves it out.
	CrossAZ float64 `json:"cross_az,omitempty"`
	// LoadBalancer counts one Application Load Balancer, without its traffic: where API Gateway is removed.
	LoadBalancer bool `json:"load_balancer,omitempty"`
}

// FlatSide is a [Flat] with its defaults filled in and its prices looked up.
type FlatSide struct {
	Flat
	USDPerHour  float64 `json:"usd_per_hour"` // of one node, with its term; zero for Serverless
	UsableBytes int64   `json:"usable_bytes"` // of all shards; of Serverless what is needed
	// Fits is false if the memory that the usage needs is over UsableBytes; then the flat side is too small, and the
	// difference means nothing.
	Fits  bool    `json:"fits"`
	USD   float64 `json:"usd"` // a month, the sum of Lines
	Lines []Line  `json:"lines"`

	commands float64 // a second that it keeps up; zero is not known
}

// Total is the number of nodes, those of Redlock left out.
func (f FlatSide) Total() int {
	if f.Kind == Serverless {
		return 0
	}
	return f.Count * f.Shards
}

func (f *FlatSide) line(unit string, units, price, per float64) {
	if units == 0 {
		return
	}
	l := Line{Unit: unit, Units: units, PriceUSD: price, Per: per, USD: units * price / per}
	f.Lines = append(f.Lines, l)
	f.USD += l.USD
}

func (f Flat) validate() error {
	wrong := func(field string, format string, args ...any) error {
		return fmt.Errorf("%w: flat.%s: %s", ErrInvalid, field, fmt.Sprintf(format, args...))
	}
	switch {
	case f.Count < 0 || f.Count > maxNodes:
		return wrong("count", "%d is not between 0 and %d", f.Count, maxNodes)
	case f.Shards < 0 || f.Shards > maxShards:
		return wrong("shards", "%d is not between 0 and %d", f.Shards, maxShards)
	case f.Redlock < 0 || f.Redlock > maxNodes:
		return wrong("redlock", "%d is not between 0 and %d", f.Redlock, maxNodes)
	case f.Kind != "" && f.Kind != Nodes && f.Kind != Serverless && f.Kind != MemoryDB && f.Kind != SelfHosted:
		return wrong("kind", "%q is none of nodes, serverless, memorydb, ec2", f.Kind)
	case f.Engine != "" && f.Engine != Valkey && f.Engine != Redis:
		return wrong("engine", "%q is neither valkey nor redis", f.Engine)
	}
	if err := within("flat.cross_az", f.CrossAZ, 1); err != nil {
		return err
	}
	return within("flat.node_usd_per_hour", f.NodeUSDPerHour, maxUSD)
}

func (f Flat) defaults() Flat {
	if f.Kind == "" {
		f.Kind = Nodes
	}
	if f.Engine == "" {
		f.Engine = Valkey
	}
	if f.Term == "" {
		f.Term = OnDemand
	}
	if f.Kind == Serverless {
		f.Node, f.Count, f.Shards = "", 0, 0
		return f
	}
	if f.Node == "" {
		f.Node = defaultNode
	}
	if f.Count == 0 {
		f.Count = defaultCount
	}
	if f.Shards == 0 {
		f.Shards = 1
	}
	return f
}

// flatSide prices f for what is needed of it.
func (p Prices) flatSide(f Flat, need Need) (FlatSide, error) {
	if err := f.validate(); err != nil {
		return FlatSide{}, err
	}
	side := FlatSide{Flat: f.defaults()}
	err := p.priceKind(&side, need)
	if err == nil {
		err = p.priceRest(&side, need)
	}
	if err != nil {
		return FlatSide{}, err
	}
	side.Fits = need.Bytes <= float64(side.UsableBytes)
	return side, nil
}

func (p Prices) priceKind(side *FlatSide, need Need) error {
	if side.Kind == Serverless {
		return p.serverless(side, need)
	}
	node, usd, err := p.nodeHour(side.Flat)
	if err != nil {
		return err
	}
	side.USDPerHour = usd
	side.UsableBytes = node.UsableBytes() * int64(side.Shards)
	side.commands = node.CommandsPerSecond() * float64(side.Shards)
	side.line("node hour", float64(side.Count*side.Shards*HoursPerMonth), usd, 1)
	if side.Kind == MemoryDB {
		unit := string(side.Engine) + " GB written"
		price, err := p.price("memorydb", unit)
		if err != nil {
			return err
		}
		free, _ := p.condition("memorydb", unit, "free")
		side.line("GB written", max(0, need.WrittenBytes/decimalGB-free), price, 1)
	}
	return nil
}

// nodeHour is the price of one node of f's type, engine and term.
func (p Prices) nodeHour(f Flat) (Node, float64, error) {
	node, err := p.Node(f.Node)
	if like := "cache." + trimService(f.Node); err != nil && f.NodeUSDPerHour > 0 && like != f.Node {
		node, err = p.Node(like) // MemoryDB's nodes are the same machines
		node.Type = f.Node
	}
	if err != nil {
		return node, 0, err
	}
	usd, err := p.hourOf(node, f)
	return node, usd, err
}

var kindService = map[Kind]string{Nodes: "elasticache", MemoryDB: "memorydb", SelfHosted: "ec2"}

func (p Prices) hourOf(node Node, f Flat) (float64, error) {
	want := kindService[f.Kind]
	if node.service() != want {
		return 0, fmt.Errorf("%w: %s is no node of %s", ErrNoPrice, node.Type, f.Kind)
	}
	if f.NodeUSDPerHour > 0 {
		return f.NodeUSDPerHour, nil
	}
	usd, err := node.USDPerHour(f.Engine)
	if err != nil || f.Term == OnDemand || f.Term == "" {
		return usd, err
	}
	discount, ok := p.condition(want, string(f.Term), "discount")
	if !ok {
		return 0, fmt.Errorf("%w: term %q of %s", ErrNoPrice, f.Term, want)
	}
	return usd * (1 - discount), nil
}

func (p Prices) serverless(side *FlatSide, need Need) error {
	if side.Term != OnDemand {
		return fmt.Errorf("%w: term %q of ElastiCache Serverless", ErrNoPrice, side.Term)
	}
	hours, err := p.price("elasticache_serverless", string(side.Engine)+" GB-hour")
	if err != nil {
		return err
	}
	units, err := p.price("elasticache_serverless", string(side.Engine)+" ECPU")
	if err != nil {
		return err
	}
	least, ok := p.condition("elasticache_serverless", string(side.Engine)+" GB-hour", "minimum")
	if !ok {
		return fmt.Errorf("%w: the least that ElastiCache Serverless charges", ErrNoPrice)
	}
	side.UsableBytes = int64(math.Ceil(need.Bytes))
	side.line("GB-hour", max(least, need.Bytes/decimalGB)*HoursPerMonth, hours, 1)
	side.line("ECPU", need.ECPUs, units*1e6, 1e6)
	return nil
}

// priceRest adds what stands beside the nodes.
func (p Prices) priceRest(side *FlatSide, need Need) error {
	if side.Redlock > 0 {
		if side.RedlockNode == "" {
			side.RedlockNode = redlockNode
		}
		one := Flat{Kind: Nodes, Node: side.RedlockNode, Engine: side.Engine, Term: side.Term}
		_, usd, err := p.nodeHour(one)
		if err != nil {
			return fmt.Errorf("flat.redlock_node: %w", err)
		}
		side.line("Redlock node hour", float64(side.Redlock*HoursPerMonth), usd, 1)
	}
	if side.CrossAZ > 0 {
		usd, err := p.price("transfer", "cross-AZ GB")
		if err != nil {
			return err
		}
		side.line("cross-AZ GB", need.TransferBytes*side.CrossAZ/decimalGB, usd, 1)
	}
	if side.LoadBalancer {
		usd, err := p.price("load_balancer", "hour")
		if err != nil {
			return err
		}
		side.line("load balancer hour", HoursPerMonth, usd, 1)
	}
	return nil
}

// price is one unit's, of a rate without tiers.
func (p Prices) price(service, unit string) (float64, error) {
	tiers, err := p.tiers(service, unit)
	if err != nil {
		return 0, err
	}
	return tiers[0].USD / tiers[0].Per, nil
}

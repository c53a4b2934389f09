package cost

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// share is one workload priced as a part of its plan.
type share struct {
	workload Workload
	need     Need
	lines    []NamedLine
	usd      float64 // on metered services
	kept     float64 // of that, what the flat side pays too
}

// NamedLine is a line of a bill with the metered service it is of.
type NamedLine struct {
	Service string `json:"service"`
	Line
}

// comparison is a plan priced on both sides.
type comparison struct {
	plan       Plan
	shares     []share
	need       Need
	metered    float64
	kept       float64
	flat       FlatSide // all workloads on nodes, or on what the plan names
	serverless FlatSide // all workloads on ElastiCache Serverless
	noServer   error    // why there is no serverless
}

// compare prices the plan. Tiers and free requests are the account's: each workload pays the average of what all of them pay.
func (p Prices) compare(plan Plan) (comparison, error) {
	if err := plan.validate(); err != nil {
		return comparison{}, err
	}
	c := comparison{plan: plan}
	if err := p.meter(&c); err != nil {
		return comparison{}, err
	}
	for i := range c.shares {
		s := &c.shares[i]
		c.need = c.need.Plus(s.need)
		c.metered += s.usd
		c.kept += s.kept
	}
	balancer := slices.ContainsFunc(plan.Workloads, Workload.replacesGateway)
	var err error
	if c.flat, err = p.Size(plan.on(plan.Flat.Kind, balancer), c.need, plan.Sizing); err != nil {
		return comparison{}, err
	}
	c.serverless, c.noServer = p.flatSide(plan.on(Serverless, balancer), c.need)
	return c, nil
}

// on is the flat side of some of the workloads, on its own kind or on Serverless.
func (p Plan) on(kind Kind, balancer bool) Flat {
	f := p.Flat
	if kind == Serverless {
		f = Flat{Kind: Serverless, Engine: f.Engine, CrossAZ: f.CrossAZ, LoadBalancer: f.LoadBalancer}
	}
	f.LoadBalancer = f.LoadBalancer || balancer
	return f
}

// meter prices the metered side, unit by unit over all workloads.
func (p Prices) meter(c *comparison) error {
	type unit struct{ service, unit string }
	totals := map[unit]charge{}
	free, _ := p.condition("sqs", "request", "free")
	charges := make([][]charge, len(c.plan.Workloads))
	for i, w := range c.plan.Workloads {
		charges[i] = w.Usage.charges(0) // what is free is spread below
		for _, one := range charges[i] {
			if one.yours == 0 {
				t := totals[unit{one.service, one.unit}]
				t.service, t.unit, t.units = one.service, one.unit, t.units+one.units
				totals[unit{one.service, one.unit}] = t
			}
		}
		free = max(0, free-w.Usage.SQS.FreeUsed)
	}
	rest := map[unit]float64{} // the part of a unit's total that is charged
	for _, name := range []string{"FIFO request", "standard request"} {
		t := totals[unit{"sqs", name}]
		if t.units > 0 {
			used := min(free, t.units)
			free -= used
			rest[unit{"sqs", name}] = (t.units - used) / t.units
		}
	}
	for i, w := range c.plan.Workloads {
		s := share{workload: w, need: w.need(), lines: []NamedLine{}}
		for _, one := range charges[i] {
			key := unit{one.service, one.unit}
			part, limited := rest[key]
			total := totals[key]
			if limited {
				total.units *= part
				one.units *= part
			}
			if one.units == 0 {
				continue
			}
			line, err := p.average(one, total)
			if err != nil {
				return fmt.Errorf("%s: %w", w.Name, err)
			}
			s.lines = append(s.lines, NamedLine{one.service, line})
			s.usd += line.USD
			if one.service == "api_gateway" && w.KeepsGateway {
				s.kept += line.USD
			}
		}
		c.shares = append(c.shares, s)
	}
	return nil
}

// average is a charge at the average price of the total that it is a part of.
func (p Prices) average(one, total charge) (Line, error) {
	if one.yours > 0 {
		total = one
	}
	lines, err := p.lines(total)
	if err != nil {
		return Line{}, err
	}
	var usd float64
	for _, l := range lines {
		usd += l.USD
	}
	per := lines[0].Per
	price := usd / total.units * per
	if len(lines) == 1 {
		price = lines[0].PriceUSD
	}
	return Line{Unit: one.unit, Units: one.units, PriceUSD: price, Per: per, USD: one.units * price / per}, nil
}

// Mix is the cheapest way to run the services: some on Valkey, the others where they are.
type Mix struct {
	// Kind is "nodes" or "serverless": what those run on that switch. Empty if none does.
	Kind      Kind     `json:"kind"`
	Switch    []string `json:"switch"`
	Stay      []string `json:"stay"`
	USD       float64  `json:"usd"` // a month of everything
	SavingUSD float64  `json:"saving_usd"`
	Flat      FlatSize `json:"flat"`
}

// best tries every set of workloads on nodes and on Serverless.
func (p Prices) best(c comparison) Mix {
	mix := Mix{USD: c.metered}
	chosen := uint(0)
	n := len(c.shares)
	for set := uint(1); set < 1<<n; set++ {
		var need Need
		stay, balancer := 0.0, false
		for i, s := range c.shares {
			if set&(1<<i) == 0 {
				stay += s.usd
			} else {
				stay += s.kept
				need = need.Plus(s.need)
				balancer = balancer || s.workload.replacesGateway()
			}
		}
		for _, kind := range []Kind{c.plan.Flat.Kind, Serverless} {
			side, err := p.Size(c.plan.on(kind, balancer), need, c.plan.Sizing)
			if err != nil || !side.Fits {
				continue
			}
			// Moving one service more must save something: a tie goes to fewer moves.
			usd := stay + side.USD
			if usd < mix.USD-0.005 || usd < mix.USD+0.005 && chosen != 0 && bits.OnesCount(set) < bits.OnesCount(chosen) {
				chosen = set
				mix.USD, mix.Kind, mix.Flat = usd, side.Kind, sizeOf(side, need)
			}
		}
	}
	mix.SavingUSD = c.metered - mix.USD
	mix.Switch, mix.Stay = []string{}, []string{}
	for i, s := range c.shares {
		if chosen&(1<<i) != 0 {
			mix.Switch = append(mix.Switch, s.workload.Name)
		} else {
			mix.Stay = append(mix.Stay, s.workload.Name)
		}
	}
	return mix
}

// FlatSize is a flat side as an estimate tells it.
type FlatSize struct {
	Kind        Kind    `json:"kind"`
	Node        string  `json:"node"`  // "serverless" where there are none
	Count       int     `json:"count"` // nodes in all, those of Redlock left out
	Shards      int     `json:"shards"`
	PerShard    int     `json:"nodes_per_shard"`
	Engine      Engine  `json:"engine"`
	Term        Term    `json:"term"`
	USD         float64 `json:"usd"`
	UsableBytes int64   `json:"usable_bytes"`
	NeedBytes   int64   `json:"need_bytes"`
	Fits        bool    `json:"fits"`
	Lines       []Line  `json:"lines"`
}

func sizeOf(s FlatSide, need Need) FlatSize {
	node := s.Node
	if s.Kind == Serverless {
		node = string(Serverless)
	}
	return FlatSize{s.Kind, node, s.Total(), s.Shards, s.Count, s.Engine, s.Term, s.USD, s.UsableBytes, int64(math.Ceil(need.Bytes)), s.Fits, s.Lines}
}

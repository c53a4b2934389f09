package cost

import (
	"fmt"
	"math"
	"slices"
)

// Verdict is what an estimate advises.
type Verdict string

// The verdicts.
const (
	Switch        Verdict = "switch"     // onto nodes at a flat rate
	Stay          Verdict = "stay"       // on the metered service
	UseServerless Verdict = "serverless" // onto ElastiCache Serverless
	Mixed         Verdict = "mixed"      // of a whole: some switch, some stay
)

// Estimate is the answer. All sums are US dollars a month at list prices, unrounded.
type Estimate struct {
	Region string `json:"region"`
	// Services are the workloads, each with its own verdict.
	Services []ServiceEstimate `json:"services"`
	// Flat is one flat side for all of them.
	Flat FlatEstimate `json:"flat"`
	// Serverless is ElastiCache Serverless for all of them; nil where its price isn't known.
	Serverless *FlatSize `json:"serverless"`
	Total      Total     `json:"total"`
	// Best is the cheapest mixture: what the verdicts of the services say.
	Best        Mix           `json:"best"`
	BreakEven   []BreakEven   `json:"break_even"`
	Curve       []Point       `json:"curve"`
	Inputs      []Input       `json:"inputs"`
	Sensitivity []Sensitivity `json:"sensitivity"` // the three that weigh most
	Assumptions []string      `json:"assumptions"`
	Sources     []Source      `json:"sources"`
	// Article is what the article says beside what is right, in [Model.AsArticle] only.
	Article []ArticleFigure `json:"article,omitempty"`
}

// ServiceEstimate is one workload.
type ServiceEstimate struct {
	Name       string      `json:"name"`
	MeteredUSD float64     `json:"metered_usd"` // the sum of Lines
	Lines      []NamedLine `json:"lines"`
	// KeptUSD is the part of MeteredUSD that the flat side pays too.
	KeptUSD float64 `json:"kept_usd"`
	// FlatShareUSD is its part of the flat side, by the memory and the commands that it needs, and KeptUSD.
	FlatShareUSD float64      `json:"flat_share_usd"`
	Need         Need         `json:"need"`
	Verdict      Verdict      `json:"verdict"`
	Low          ServiceRange `json:"low"`  // if all that is uncertain makes the whole save less
	High         ServiceRange `json:"high"` // if it makes it save more
	Why          string       `json:"why"`
	Note         string       `json:"note,omitempty"`
}

// ServiceRange is one workload under one set of inputs.
type ServiceRange struct {
	MeteredUSD   float64 `json:"metered_usd"`
	FlatShareUSD float64 `json:"flat_share_usd"`
	Verdict      Verdict `json:"verdict"`
}

// FlatEstimate is the flat side with its neighbours.
type FlatEstimate struct {
	FlatSize
	CommandsPerSecond float64   `json:"commands_per_second"` // that it is taken to keep up; 0 for Serverless
	PeakPerSecond     float64   `json:"peak_per_second"`     // that are needed
	NextDown          *FlatSize `json:"next_down"`           // the next smaller node, nil if there is none
	NextUp            *FlatSize `json:"next_up"`
}

// Total is the whole, all services switched. FlatUSD has what is kept in it, so that both sides are complete bills.
type Total struct {
	MeteredUSD float64 `json:"metered_usd"`
	FlatUSD    float64 `json:"flat_usd"`
	SavingUSD  float64 `json:"saving_usd"` // MeteredUSD - FlatUSD
	KeptUSD    float64 `json:"kept_usd"`
	Verdict    Verdict `json:"verdict"`
	Why        string  `json:"why"`
	Low        Range   `json:"low"`
	Expected   Range   `json:"expected"`
	High       Range   `json:"high"`
}

// Range is the total under one set of inputs.
type Range struct {
	MeteredUSD float64 `json:"metered_usd"`
	FlatUSD    float64 `json:"flat_usd"`
	SavingUSD  float64 `json:"saving_usd"`
	BestUSD    float64 `json:"best_usd"` // the cheapest mixture
	Node       string  `json:"node"`
	Count      int     `json:"count"`
	Values     Values  `json:"values"`
}

// Estimate prices a model and says what to do. The error is an [ErrInvalid] or an [ErrNoPrice]; the estimate is
// then empty.
func (p Prices) Estimate(m Model) (Estimate, error) {
	if err := m.validate(); err != nil {
		return Estimate{}, err
	}
	c, err := p.compare(m.Build(m.expected()))
	if err != nil {
		return Estimate{}, err
	}
	e := Estimate{Region: p.region, Inputs: m.Inputs, Assumptions: slices.Clone(m.Assumptions), Sources: p.Sources(), Best: p.best(c)}
	if e.Assumptions == nil {
		e.Assumptions = []string{}
	}
	p.flatOf(&e, c)
	p.servicesOf(&e, c)
	if err := p.ranges(&e, m, c); err != nil {
		return Estimate{}, err
	}
	if e.Curve, err = p.curve(m); err != nil {
		return Estimate{}, err
	}
	if e.BreakEven, err = p.breakEven(m, c); err != nil {
		return Estimate{}, err
	}
	p.assume(&e, c)
	return e, nil
}

func (p Prices) flatOf(e *Estimate, c comparison) {
	e.Flat = FlatEstimate{FlatSize: sizeOf(c.flat, c.need), CommandsPerSecond: c.flat.commands, PeakPerSecond: c.plan.Sizing.PeakPerSecond(c.need)}
	down, up := p.Neighbours(c.flat, c.need)
	if down != nil {
		s := sizeOf(*down, c.need)
		s.Fits = c.plan.Sizing.holds(*down, c.need)
		e.Flat.NextDown = &s
	}
	if up != nil {
		s := sizeOf(*up, c.need)
		s.Fits = c.plan.Sizing.holds(*up, c.need)
		e.Flat.NextUp = &s
	}
	if c.noServer == nil {
		s := sizeOf(c.serverless, c.need)
		e.Serverless = &s
	}
}

func (p Prices) servicesOf(e *Estimate, c comparison) {
	for _, s := range c.shares {
		r := c.rangeOf(s, e.Best)
		e.Services = append(e.Services, ServiceEstimate{
			Name: s.workload.Name, MeteredUSD: s.usd, Lines: s.lines, KeptUSD: s.kept, FlatShareUSD: r.FlatShareUSD,
			Need: s.need, Verdict: r.Verdict, Low: r, High: r, Why: why(s, r.Verdict, r.FlatShareUSD), Note: s.workload.Note,
		})
	}
}

// rangeOf is a workload with its part of the flat side.
func (c comparison) rangeOf(s share, best Mix) ServiceRange {
	part := weight(s.need, c.need, len(c.shares))
	return ServiceRange{s.usd, part*c.flat.USD + s.kept, verdictOf(s.workload.Name, best)}
}

// weight is the part of a flat side that a need takes: half by memory, half by commands.
func weight(one, all Need, n int) float64 {
	part := func(a, b float64) float64 {
		if b == 0 {
			return 1 / float64(n)
		}
		return a / b
	}
	return (part(one.Bytes, all.Bytes) + part(one.Commands, all.Commands)) / 2
}

func verdictOf(name string, m Mix) Verdict {
	switch {
	case !slices.Contains(m.Switch, name):
		return Stay
	case m.Kind == Serverless:
		return UseServerless
	}
	return Switch
}

func why(s share, v Verdict, flat float64) string {
	switch {
	case s.usd == 0:
		return "nothing is charged for it"
	case s.kept == s.usd:
		return "API Gateway stays in front, so nothing of its charge is saved"
	case v == Stay:
		return fmt.Sprintf("$%.2f a month is less than moving it would add", s.usd)
	case v == UseServerless:
		return fmt.Sprintf("its part of ElastiCache Serverless is less than $%.2f, and no nodes are cheaper", s.usd)
	}
	return fmt.Sprintf("its part of the nodes, $%.2f, is less than $%.2f", flat, s.usd)
}

// ranges fills in the total, low and high, and what they hang on.
func (p Prices) ranges(e *Estimate, m Model, c comparison) error {
	expected := m.expected()
	low, high := expected, expected
	saving := func(v Values) (float64, error) {
		c, err := p.compare(m.Build(v))
		return c.metered - c.kept - c.flat.USD, err
	}
	base, err := saving(expected)
	if err != nil {
		return err
	}
	for _, in := range m.Inputs {
		from, to := in.ends()
		a, err := saving(expected.with(in.Name, from))
		if err != nil {
			return err
		}
		b, err := saving(expected.with(in.Name, to))
		if err != nil {
			return err
		}
		if in.Low != in.High {
			low, high = worse(low, high, in, [3]float64{base, a, b})
		}
		// The load as a whole is no input: it is the operations of all services at once.
		if swing := math.Abs(b - a); swing > 0.005 && in.Name != loadScale {
			e.Sensitivity = append(e.Sensitivity, Sensitivity{in.Name, in.Unit, from, to, a, b, swing})
		}
	}
	slices.SortStableFunc(e.Sensitivity, func(a, b Sensitivity) int { return -compareFloat(a.SwingUSD, b.SwingUSD) })
	e.Sensitivity = e.Sensitivity[:min(3, len(e.Sensitivity))]
	for _, r := range []struct {
		to      *Range
		values  Values
		service func(*ServiceEstimate) *ServiceRange
	}{
		{&e.Total.Low, low, func(s *ServiceEstimate) *ServiceRange { return &s.Low }},
		{&e.Total.Expected, expected, func(*ServiceEstimate) *ServiceRange { return &ServiceRange{} }},
		{&e.Total.High, high, func(s *ServiceEstimate) *ServiceRange { return &s.High }},
	} {
		c, err := p.compare(m.Build(r.values))
		if err != nil {
			return err
		}
		best := p.best(c)
		*r.to = Range{c.metered, c.flat.USD + c.kept, c.metered - c.kept - c.flat.USD, best.USD, sizeOf(c.flat, c.need).Node, c.flat.Total(), r.values}
		for i, s := range c.shares {
			*r.service(&e.Services[i]) = c.rangeOf(s, best)
		}
	}
	t := &e.Total
	t.MeteredUSD, t.FlatUSD, t.SavingUSD, t.KeptUSD = c.metered, t.Expected.FlatUSD, t.Expected.SavingUSD, c.kept
	t.Verdict, t.Why = overall(*e)
	return nil
}

// worse takes the end of an input that saves less into low, the other into high; one that saves neither less nor more than
// what is expected is left alone.
func worse(low, high Values, in Input, saved [3]float64) (Values, Values) {
	least, most := in.Expected, in.Expected
	lowest, highest := saved[0], saved[0]
	for i, v := range []float64{in.Low, in.High} {
		if s := saved[i+1]; s < lowest {
			least, lowest = v, s
		} else if s > highest {
			most, highest = v, s
		}
	}
	return low.with(in.Name, least), high.with(in.Name, most)
}

func overall(e Estimate) (Verdict, string) {
	b := e.Best
	switch {
	case len(b.Switch) == 0:
		return Stay, fmt.Sprintf("no part of $%.2f a month is cheaper on Valkey", e.Total.MeteredUSD)
	case len(b.Stay) > 0:
		return Mixed, fmt.Sprintf("$%.2f a month with some services on %s is the cheapest of all mixtures, $%.2f less than now", b.USD, b.Flat.name(), b.SavingUSD)
	case b.Kind == Serverless:
		return UseServerless, fmt.Sprintf("ElastiCache Serverless costs $%.2f a month, $%.2f less than now", b.USD, b.SavingUSD)
	}
	return Switch, fmt.Sprintf("%s costs $%.2f a month, $%.2f less than now", b.Flat.name(), b.USD, b.SavingUSD)
}

func (f FlatSize) name() string {
	if f.Kind == Serverless {
		return "ElastiCache Serverless"
	}
	return fmt.Sprintf("%d x %s", f.Count, f.Node)
}

func compareFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// assume adds what every estimate takes for granted.
func (p Prices) assume(e *Estimate, c comparison) {
	add := func(format string, args ...any) { e.Assumptions = append(e.Assumptions, fmt.Sprintf(format, args...)) }
	add("a month is 30 days of use and %d hours of nodes; list prices of %s, free tiers and discounts left out but for SQS's million requests", HoursPerMonth, p.region)
	if e.Flat.Kind != Serverless {
		add("a node's usable memory is 75%% of its maxmemory; %.0f%% of it stays free; Valkey's overhead per key is counted", c.plan.Sizing.Headroom*100)
		add("the busiest second has %v times the average; a node keeps up %.0f commands a second", c.plan.Sizing.Peak, e.Flat.CommandsPerSecond/float64(max(1, e.Flat.Shards)))
		if c.flat.Count == 1 && e.Flat.Kind == Nodes {
			add("one node without a replica: when it fails, what is in it is lost")
		}
	}
	if c.plan.Flat.CrossAZ == 0 && c.need.TransferBytes > 0 {
		if usd, err := p.price("transfer", "cross-AZ GB"); err == nil {
			add("traffic between availability zones is left out: if half of it crosses, $%.2f a month", c.need.TransferBytes/2/decimalGB*usd)
		}
	}
	if e.Best.Kind == Serverless {
		add("ElastiCache Serverless evicts volatile-lru only, signs in by RBAC or IAM only, speaks the cluster protocol only, and has no keyspace events")
	}
	if e.Best.Kind == Nodes {
		add("a replica follows asynchronously: a failover can lose the last writes, which DynamoDB and SQS do not")
	}
}

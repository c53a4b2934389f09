package cost

import (
	"fmt"
	"math"
)

// Sensitivity is how much one input moves the saving while all others stay as expected.
type Sensitivity struct {
	Input     string  `json:"input"`
	Unit      string  `json:"unit,omitempty"`
	From      float64 `json:"from"` // the input's range, or 10% to either side of what is known
	To        float64 `json:"to"`
	FromSaves float64 `json:"from_saves_usd"`
	ToSaves   float64 `json:"to_saves_usd"`
	SwingUSD  float64 `json:"swing_usd"`
}

// Point is both sides at one size of the load.
type Point struct {
	Scale         float64 `json:"scale"` // in units of the model's scale: users, or times the load of today
	MeteredUSD    float64 `json:"metered_usd"`
	KeptUSD       float64 `json:"kept_usd"` // a part of all three sums
	FlatUSD       float64 `json:"flat_usd"` // sized for that load
	Node          string  `json:"node"`
	Count         int     `json:"count"`
	ServerlessUSD float64 `json:"serverless_usd"` // 0 where its price isn't known
}

// BreakEven is the load at which one flat side costs as much as the metered services.
type BreakEven struct {
	Node  string  `json:"node"`
	Count int     `json:"count"`
	USD   float64 `json:"usd"`
	// Scale is in units of the model's scale, "users" say; 0 if the metered side never gets that dear, or always is.
	Scale     float64 `json:"scale"`
	ScaleUnit string  `json:"scale_unit"`
	// Always says that the metered side is dearer at every load: it charges something that does not grow.
	Always bool `json:"always,omitempty"`
	// Fits says whether the node holds that load, with headroom. If not, a larger one breaks even later.
	Fits bool `json:"fits"`
	// ServerlessBelowGB is below how many GB of data ElastiCache Serverless costs less than these nodes, its commands
	// left out; 0 where its price isn't known.
	ServerlessBelowGB float64 `json:"serverless_below_gb"`
}

const (
	curvePoints  = 41
	curveSpan    = 20.0 // times the expected scale, and a part of it
	maxSizes     = 4
	maxScale     = 1e12
	tinyScale    = 1e-6
	solveSteps   = 200
	solveRounded = 1e-9
)

// curve prices the model along its scale, from a twentieth of the expected load to twenty times it.
func (p Prices) curve(m Model) ([]Point, error) {
	expected := m.expected()
	middle := expected[m.Scale]
	if middle == 0 {
		return []Point{}, nil
	}
	var list []Point
	for i := range curvePoints {
		scale := middle * math.Pow(curveSpan, 2*float64(i)/(curvePoints-1)-1)
		c, err := p.compare(m.Build(expected.with(m.Scale, scale)))
		if err != nil && scale > middle {
			break // more than any nodes hold
		}
		if err != nil {
			return nil, fmt.Errorf("at %v %s: %w", scale, m.Scale, err)
		}
		point := Point{Scale: scale, MeteredUSD: c.metered, KeptUSD: c.kept, FlatUSD: c.flat.USD + c.kept, Node: sizeOf(c.flat, c.need).Node, Count: c.flat.Total()}
		if c.noServer == nil {
			point.ServerlessUSD = c.serverless.USD + c.kept
		}
		list = append(list, point)
	}
	return list, nil
}

// breakEven solves for the smallest sizes, and for the one that was chosen.
func (p Prices) breakEven(m Model, c comparison) ([]BreakEven, error) {
	list := []BreakEven{}
	f := c.plan.Flat
	if f.Kind == Serverless {
		return list, nil
	}
	expected := m.expected()[m.Scale]
	names := []string{}
	for i, n := range p.Sizes(f) {
		if i < maxSizes || n.Type == c.flat.Node {
			names = append(names, n.Type)
		}
	}
	if len(names) == 0 {
		names = append(names, c.flat.Node)
	}
	for _, name := range names {
		f.Node, f.Shards = name, max(1, f.Shards)
		f.LoadBalancer = c.flat.LoadBalancer
		side, err := p.flatSide(f, Need{})
		if err != nil {
			return nil, err
		}
		b := BreakEven{Node: name, Count: side.Total(), USD: side.USD, ScaleUnit: m.Scale}
		scale, at, err := p.solve(m, side.USD)
		if err != nil {
			return nil, err
		}
		b.Scale = scale
		if b.Always = scale > 0 && scale < tinyScale*expected; b.Always {
			b.Scale = 0
		}
		b.Fits = scale > 0 && at.plan.Sizing.holds(side, at.need)
		if usd, err := p.price("elasticache_serverless", string(side.Engine)+" GB-hour"); err == nil {
			b.ServerlessBelowGB = side.USD / (usd * HoursPerMonth)
		}
		list = append(list, b)
	}
	return list, nil
}

// solve looks for the scale at which what the flat side would save costs so much.
func (p Prices) solve(m Model, usd float64) (float64, comparison, error) {
	expected := m.expected()
	at := func(scale float64) (comparison, error) {
		c := comparison{plan: m.Build(expected.with(m.Scale, scale))}
		if err := c.plan.validate(); err != nil {
			return c, err
		}
		if err := p.meter(&c); err != nil {
			return c, err
		}
		for _, s := range c.shares {
			c.need = c.need.Plus(s.need)
			c.metered += s.usd - s.kept
		}
		return c, nil
	}
	low, high := 0.0, max(1, expected[m.Scale])
	for {
		c, err := at(high)
		if err != nil || high > maxScale {
			return 0, comparison{}, nil // it never gets that dear within what a usage may be
		}
		if c.metered >= usd {
			break
		}
		low, high = high, high*2
	}
	for range solveSteps {
		middle := (low + high) / 2
		c, err := at(middle)
		if err != nil {
			return 0, comparison{}, err
		}
		if c.metered < usd {
			low = middle
		} else {
			high = middle
		}
		if high-low < solveRounded*high {
			break
		}
	}
	c, err := at(high)
	return high, c, err
}

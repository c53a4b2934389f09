package cost

import (
	"cmp"
	"fmt"
	"slices"
)

// Sizing says how much room is left.
type Sizing struct {
	// Headroom is the part of the usable memory and of the commands a second that stays free, 0 to 0.9.
	Headroom float64 `json:"headroom"`
	// Peak is how many times the average the busiest second has, 1 to 1,000.
	Peak float64 `json:"peak"`
	// Above is how many sizes larger than enough the node is, 0 to 5.
	Above int `json:"above"`
}

func (s Sizing) validate() error {
	if err := within("sizing.headroom", s.Headroom, 0.9); err != nil {
		return err
	}
	if err := within("sizing.peak", s.Peak-1, 999); err != nil {
		return fmt.Errorf("%w: sizing.peak: %v is not between 1 and 1000", ErrInvalid, s.Peak)
	}
	return within("sizing.above", float64(s.Above), 5)
}

// holds says whether a side has room for a need.
func (s Sizing) holds(side FlatSide, need Need) bool {
	room := 1 - s.Headroom
	return need.Bytes <= float64(side.UsableBytes)*room &&
		(side.commands == 0 || s.PeakPerSecond(need) <= side.commands*room)
}

// PeakPerSecond is how many commands the busiest second has.
func (s Sizing) PeakPerSecond(need Need) float64 { return need.Commands / secondsPerMonth * s.Peak }

// Size returns the flat side that holds a need. Where f names a node it is that one, in as many shards as it takes; else
// the cheapest node that is enough in one shard, or the cheapest shards if none is. Fits says whether f's own node and
// shards are enough.
func (p Prices) Size(f Flat, need Need, s Sizing) (FlatSide, error) {
	if err := s.validate(); err != nil {
		return FlatSide{}, err
	}
	if err := f.validate(); err != nil {
		return FlatSide{}, err
	}
	var side FlatSide
	var err error
	switch {
	case f.Kind == Serverless:
		side, err = p.flatSide(f, need)
	case f.Node != "":
		side, err = p.inShards(f, need, s)
	default:
		side, err = p.smallest(f, need, s)
	}
	if err == nil && side.Kind != Serverless {
		side.Fits = s.holds(side, need)
	}
	return side, err
}

// inShards takes as many shards as needed, unless f says how many.
func (p Prices) inShards(f Flat, need Need, s Sizing) (FlatSide, error) {
	given := f.Shards > 0
	f.Shards = max(1, f.Shards)
	one, err := p.flatSide(f, need)
	if err != nil || given || s.holds(one, need) {
		return one, err
	}
	room := 1 - s.Headroom
	shards := max(need.Bytes/(float64(one.UsableBytes)*room), s.PeakPerSecond(need)/(one.commands*room))
	f.Shards = min(maxShards, int(shards)+1)
	return p.flatSide(f, need)
}

// smallest is the cheapest node that is enough.
func (p Prices) smallest(f Flat, need Need, s Sizing) (FlatSide, error) {
	sizes := p.Sizes(f)
	if len(sizes) == 0 {
		if f.Term != OnDemand && f.Term != "" && f.NodeUSDPerHour == 0 {
			if _, ok := p.condition(kindService[cmp.Or(f.Kind, Nodes)], string(f.Term), "discount"); !ok {
				return FlatSide{}, fmt.Errorf("%w: term %q of %s", ErrNoPrice, f.Term, kindService[cmp.Or(f.Kind, Nodes)])
			}
		}
		return FlatSide{}, fmt.Errorf("%w: nodes of kind %q with engine %q in region %q: name a node and your price of it", ErrNoPrice,
			cmp.Or(f.Kind, Nodes), cmp.Or(f.Engine, Valkey), p.region)
	}
	for i, n := range sizes {
		f.Node = n.Type
		side, err := p.flatSide(withShards(f, max(1, f.Shards)), need)
		if err != nil {
			return FlatSide{}, err
		}
		if s.holds(side, need) {
			f.Node = sizes[min(i+s.Above, len(sizes)-1)].Type
			return p.flatSide(withShards(f, max(1, f.Shards)), need)
		}
	}
	if f.Shards > 0 {
		return p.flatSide(f, need) // the largest, which does not fit
	}
	var best FlatSide
	for _, n := range sizes {
		f.Node = n.Type
		side, err := p.inShards(f, need, s)
		if err != nil {
			return FlatSide{}, err
		}
		if s.holds(side, need) && (best.Node == "" || side.USD < best.USD) {
			best = side
		}
	}
	if best.Node == "" {
		return FlatSide{}, fmt.Errorf("%w: no %d shards of any node hold %v bytes", ErrInvalid, maxShards, need.Bytes)
	}
	return best, nil
}

func withShards(f Flat, n int) Flat { f.Shards = n; return f }

// Sizes are the nodes of f's kind and engine that are worth having, from the smallest: each has more usable memory or
// keeps up more commands than all that cost less.
func (p Prices) Sizes(f Flat) []Node {
	f = f.defaults()
	var list []Node
	usd := map[string]float64{}
	for _, n := range p.nodes {
		if n.service() != kindService[f.Kind] {
			continue
		}
		if hour, err := p.hourOf(n, f); err == nil {
			list, usd[n.Type] = append(list, n), hour
		}
	}
	slices.SortStableFunc(list, func(a, b Node) int {
		return cmp.Or(cmp.Compare(usd[a.Type], usd[b.Type]), cmp.Compare(b.MaxMemoryBytes, a.MaxMemoryBytes))
	})
	var worth []Node
	for _, n := range list {
		if !slices.ContainsFunc(worth, func(c Node) bool {
			return c.MaxMemoryBytes >= n.MaxMemoryBytes && c.CommandsPerSecond() >= n.CommandsPerSecond()
		}) {
			worth = append(worth, n)
		}
	}
	return worth
}

// Neighbours are the next smaller and the next larger node than side's, with all else as it is, where there are any.
func (p Prices) Neighbours(side FlatSide, need Need) (down, up *FlatSide) {
	if side.Kind == Serverless {
		return nil, nil
	}
	sizes := p.Sizes(side.Flat)
	at, err := p.Node(side.Node)
	if err != nil {
		return nil, nil
	}
	other := func(n Node) *FlatSide {
		f := side.Flat
		f.Node = n.Type
		s, err := p.flatSide(f, need)
		if err != nil {
			return nil
		}
		return &s
	}
	for _, n := range sizes {
		switch {
		case n.MaxMemoryBytes < at.MaxMemoryBytes:
			down = other(n)
		case n.MaxMemoryBytes > at.MaxMemoryBytes && up == nil:
			up = other(n)
		}
	}
	return down, up
}

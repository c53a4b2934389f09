package cost

import (
	"fmt"
	"math"
)

const (
	defaultNode  = "cache.t4g.small"
	defaultCount = 2
	maxNodes     = 1000
)

// Flat is the side with the flat rate: nodes that hold the same data, one primary and its replicas. The zero
// value is the default pair, two cache.t4g.small with Valkey.
type Flat struct {
	Node   string `json:"node"`   // empty means cache.t4g.small
	Count  int    `json:"count"`  // nodes, at most 1,000; zero means 2
	Engine Engine `json:"engine"` // empty means [Valkey]
}

// Bill is one month of a usage on metered services beside one month of nodes, in unrounded US dollars at list
// prices. It is a comparison, not a verdict: see the package comment for what it leaves out.
type Bill struct {
	Region     string    `json:"region"`
	PerService []Service `json:"per_service"` // those that were used, in a fixed order; never nil
	MeteredUSD float64   `json:"metered_usd"` // the sum of PerService
	Flat       FlatSide  `json:"flat"`
	FlatUSD    float64   `json:"flat_usd"` // Flat.Count x Flat.USDPerHour x 730 h
	// DifferenceUSD is MeteredUSD - FlatUSD: negative where the metered services are cheaper.
	DifferenceUSD float64 `json:"difference_usd"`
}

// Service is one metered service's share of a bill.
type Service struct {
	Name  string  `json:"name"` // "dynamodb", "api_gateway"
	USD   float64 `json:"usd"`  // the sum of Lines
	Lines []Line  `json:"lines"`
}

// Line is the units of one kind and tier: USD = Units x PriceUSD / Per.
type Line struct {
	Unit     string  `json:"unit"`      // as in [Rate]
	Units    float64 `json:"units"`     // charged, after AWS's rounding of each operation
	PriceUSD float64 `json:"price_usd"` // for Per units
	Per      float64 `json:"per"`
	USD      float64 `json:"usd"`
}

// FlatSide is a [Flat] with its defaults filled in and its prices looked up.
type FlatSide struct {
	Flat
	USDPerHour  float64 `json:"usd_per_hour"` // of one node
	UsableBytes int64   `json:"usable_bytes"` // of one node, since all hold the same data
	// Fits is false if the usage stores more bytes than UsableBytes; then the flat side is too small, and the
	// difference means nothing. True is no proof: Valkey's overhead per key isn't counted.
	Fits bool `json:"fits"`
}

// Bill prices a month's usage, and the nodes beside it. The error is an [ErrInvalid] that names the field, or
// an [ErrNoPrice] if a price is needed that p doesn't have; the bill is then empty.
func (p Prices) Bill(u Usage, f Flat) (Bill, error) {
	if err := u.Validate(); err != nil {
		return Bill{}, err
	}
	flat, err := p.flatSide(f)
	if err != nil {
		return Bill{}, err
	}
	flat.Fits = u.DynamoDB.StoredBytes <= float64(flat.UsableBytes)
	b := Bill{
		Region:     p.region,
		PerService: []Service{},
		Flat:       flat,
		FlatUSD:    float64(float64(flat.Count*HoursPerMonth) * flat.USDPerHour), // not fused, see units.go
	}
	for _, c := range u.charges() {
		lines, err := p.lines(c)
		if err != nil {
			return Bill{}, err
		}
		b.add(c.service, lines)
	}
	for _, s := range b.PerService {
		b.MeteredUSD += s.USD
	}
	b.DifferenceUSD = b.MeteredUSD - b.FlatUSD
	return b, nil
}

// add appends lines to the service's share. The charges of a service come one after the other.
func (b *Bill) add(service string, lines []Line) {
	if len(lines) == 0 {
		return
	}
	last := len(b.PerService) - 1
	if last < 0 || b.PerService[last].Name != service {
		b.PerService = append(b.PerService, Service{Name: service})
		last++
	}
	s := &b.PerService[last]
	for _, l := range lines {
		s.Lines = append(s.Lines, l)
		s.USD += l.USD
	}
}

// lines spreads the units of a charge over the tiers of its price, one line each. No units need no price.
func (p Prices) lines(c charge) ([]Line, error) {
	if c.units == 0 {
		return nil, nil
	}
	tiers, err := p.tiers(c.service, c.unit)
	if err != nil {
		return nil, err
	}
	var lines []Line
	for i, t := range tiers {
		end := math.Inf(1)
		if i+1 < len(tiers) {
			end = tiers[i+1].Above
		}
		n := min(c.units, end) - t.Above
		if n <= 0 {
			break
		}
		lines = append(lines, Line{Unit: c.unit, Units: n, PriceUSD: t.USD, Per: t.Per, USD: n * t.USD / t.Per})
	}
	return lines, nil
}

func (p Prices) flatSide(f Flat) (FlatSide, error) {
	if f.Node == "" {
		f.Node = defaultNode
	}
	if f.Engine == "" {
		f.Engine = Valkey
	}
	switch {
	case f.Count < 0 || f.Count > maxNodes:
		return FlatSide{}, fmt.Errorf("%w: flat.count: %d is not between 0 and %d", ErrInvalid, f.Count, maxNodes)
	case f.Count == 0:
		f.Count = defaultCount
	}
	n, err := p.Node(f.Node)
	if err != nil {
		return FlatSide{}, err
	}
	usd, err := n.USDPerHour(f.Engine)
	if err != nil {
		return FlatSide{}, err
	}
	return FlatSide{Flat: f, USDPerHour: usd, UsableBytes: n.UsableBytes()}, nil
}

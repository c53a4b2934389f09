package cost

import (
	"fmt"
	"math"
)

// Bill is one month of a usage on metered services beside one month of nodes, in unrounded US dollars at list
// prices. It is a comparison, not a verdict: see the package comment for what it leaves out.
type Bill struct {
	Region     string    `json:"region"`
	PerService []Service `json:"per_service"` // those that were used, in a fixed order; never nil
	MeteredUSD float64   `json:"metered_usd"` // the sum of PerService
	Flat       FlatSide  `json:"flat"`
	FlatUSD    float64   `json:"flat_usd"` // Flat.USD
	// DifferenceUSD is MeteredUSD - FlatUSD: negative where the metered services are cheaper.
	DifferenceUSD float64 `json:"difference_usd"`
}

// Service is one metered service's share of a bill.
type Service struct {
	Name  string  `json:"name"` // "dynamodb", "sqs", "api_gateway", "database"
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

// Bill prices a month's usage, and the nodes beside it. The error is an [ErrInvalid] that names the field, or
// an [ErrNoPrice] if a price is needed that p doesn't have; the bill is then empty.
func (p Prices) Bill(u Usage, f Flat) (Bill, error) {
	if err := u.Validate(); err != nil {
		return Bill{}, err
	}
	flat, err := p.flatSide(f, u.Need())
	if err != nil {
		return Bill{}, err
	}
	b := Bill{Region: p.region, PerService: []Service{}, Flat: flat, FlatUSD: flat.USD}
	if err := p.metered(&b, u); err != nil {
		return Bill{}, err
	}
	for _, s := range b.PerService {
		b.MeteredUSD += s.USD
	}
	b.DifferenceUSD = b.MeteredUSD - b.FlatUSD
	return b, nil
}

func (p Prices) metered(b *Bill, u Usage) error {
	free, _ := p.condition("sqs", "request", "free")
	for _, c := range u.charges(free) {
		lines, err := p.lines(c)
		if err != nil {
			return err
		}
		b.add(c.service, lines)
	}
	return nil
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
	switch {
	case c.units == 0:
		return nil, nil
	case c.yours > 0:
		return []Line{{Unit: c.unit, Units: c.units, PriceUSD: c.yours, Per: 1, USD: c.units * c.yours}}, nil
	case c.service == "database":
		return nil, fmt.Errorf("%w: of a database read: give yours, as database.usd_per_million or database.instance_usd", ErrNoPrice)
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

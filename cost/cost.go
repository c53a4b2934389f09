// Package cost says what metered AWS services charge for a month's usage, and what a few Valkey nodes
// cost beside it.
//
// Fill a [Usage] (per month; [Usage.PerMonth] scales what was counted in another span), take the
// [ListPrices] of a region, and ask for the bill:
//
//	prices, err := cost.ListPrices("us-east-1")
//	bill, err := prices.Bill(usage, cost.Flat{}) // against a pair of cache.t4g.small
//
// The package is arithmetic: no network, no clock, nothing outside the standard library. Figures are
// float64 US dollars, unrounded. A price that isn't known is an error, never a zero.
//
// A bill compares list prices and is no verdict. It leaves out free tiers, savings plans and discounts on
// the metered side; cross-AZ traffic, the load balancer that stands where API Gateway stood, and the work
// of running nodes on the flat side. API Gateway's share is saved only where API Gateway is removed.
// docs/cost.md has the whole list, the price table and a worked example.
package cost

import "errors"

// A month is daily usage x 30 and hourly prices x 730. The two differ by ten hours, to the
// disadvantage of the flat side.
const (
	DaysPerMonth  = 30
	HoursPerMonth = 730
)

// GB is the gigabyte of a GB-month: 2^30 bytes.
const GB = 1 << 30

var (
	// ErrInvalid is a usage, a span or a flat side that can't be: negative, NaN, absurdly large. The
	// error names the field.
	ErrInvalid = errors.New("cost: invalid")
	// ErrNoPrice is a region, a node type or an engine on a node that the price table doesn't have.
	ErrNoPrice = errors.New("cost: no known price")
)

// Package cost says what metered AWS services charge for a month's usage, what Valkey or Redis nodes and
// ElastiCache Serverless would cost in their place, and which services to switch.
//
// Fill a [Usage] (per month; [Usage.PerMonth] scales what was counted in another span), take the
// [ListPrices] of a region, and ask for the bill:
//
//	prices, err := cost.ListPrices("us-east-1")
//	bill, err := prices.Bill(usage, cost.Flat{}) // against a pair of cache.t4g.small
//
// Or give each use its name as a [Workload], and ask for an [Estimate]: nodes that are sized for it, a verdict for each with low,
// expected and high, the break-even, and what the answer depends on:
//
//	estimate, err := prices.Estimate(cost.Measured(workloads, cost.Flat{}, cost.Sizing{Headroom: 0.2, Peak: 5}, 0.25))
//
// [Preset] makes the model of a ready-made load.
//
// The package is arithmetic: no network, no clock, nothing outside the standard library. Figures are
// float64 US dollars, unrounded. A price that isn't known is an error, never a zero.
//
// List prices are compared. Free tiers but SQS's, savings plans and discounts are left out, and so is the work of running
// nodes. API Gateway's share is saved only where API Gateway is removed. docs/cost.md has the whole list, the price table and a
// worked example.
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

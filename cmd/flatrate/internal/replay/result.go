package replay

import (
	"encoding/json"
	"io"
	"time"

	"github.com/flatrate/flatrate/cost"
)

// Assumptions are what a bill needs beside the counts.
type Assumptions struct {
	SessionBytes int64
	SessionReads cost.Consistency
	API          string // http, rest or none
	Flat         cost.Flat
}

// Result is what --output json prints, see docs/cli.md.
type Result struct {
	Engine      string     `json:"engine"`
	Time        string     `json:"time"`
	Complete    bool       `json:"complete"`
	Requests    int64      `json:"requests"`
	Skipped     int64      `json:"skipped"`
	Late        int64      `json:"late"`
	SpanSeconds int64      `json:"span_seconds"`
	Limit       limits     `json:"limit"`
	Session     sessions   `json:"session"`
	Cache       lookups    `json:"cache"`
	Commands    int64      `json:"commands"`
	Bill        *cost.Bill `json:"bill"`
	*Measured
}

// Measured is what only a real server can tell. It differs from run to run.
type Measured struct {
	LinesPerSecond       int64       `json:"lines_per_second"`
	LatencyUS            percentiles `json:"latency_us"`
	UsedMemoryDeltaBytes int64       `json:"used_memory_delta_bytes"`
}

type limits struct {
	Allowed int64 `json:"allowed"`
	Denied  int64 `json:"denied"`
}

type sessions struct {
	Created int64 `json:"created"`
	Reads   int64 `json:"reads"`
}

type lookups struct {
	Lookups int64 `json:"lookups"`
	Hits    int64 `json:"hits"`
	Misses  int64 `json:"misses"`
}

type percentiles struct {
	P50 int64 `json:"p50"`
	P95 int64 `json:"p95"`
	P99 int64 `json:"p99"`
}

// NewResult puts an outcome beside its bill. Measured is nil on the embedded engine.
func NewResult(o Outcome, complete bool, bill cost.Bill, measured *Measured) Result {
	engine, clock := "embedded", "log"
	if measured != nil {
		engine, clock = "valkey", "compressed"
	}
	return Result{
		Engine:      engine,
		Time:        clock,
		Complete:    complete,
		Requests:    o.Requests,
		Skipped:     o.Skipped,
		Late:        o.Late,
		SpanSeconds: int64(o.Span / time.Second),
		Limit:       limits{o.Allowed, o.Denied},
		Session:     sessions{o.Created, o.Reads},
		Cache:       lookups{o.Lookups, o.Hits, o.Misses},
		Commands:    o.Commands,
		Bill:        &bill,
		Measured:    measured,
	}
}

// Measure joins an outcome's timings with the memory that its keys took.
func Measure(o Outcome, usedMemory int64) *Measured {
	perSecond := float64(o.Requests) / max(o.Elapsed, time.Microsecond).Seconds()
	return &Measured{
		LinesPerSecond:       int64(perSecond),
		LatencyUS:            percentiles{o.Latency.P50.Microseconds(), o.Latency.P95.Microseconds(), o.Latency.P99.Microseconds()},
		UsedMemoryDeltaBytes: usedMemory,
	}
}

// Bill prices an outcome: what was counted in the log's span, scaled to a month. Each request is a call of the API, each session
// read and creation an operation on DynamoDB.
func Bill(o Outcome, a Assumptions) (cost.Bill, error) {
	prices, err := cost.ListPrices(region)
	if err != nil {
		return cost.Bill{}, err
	}
	counted := cost.Usage{DynamoDB: cost.DynamoDB{
		Reads:  []cost.ItemReads{{Count: float64(o.Reads), ItemBytes: a.SessionBytes, Consistency: a.SessionReads}},
		Writes: []cost.ItemWrites{{Count: float64(o.Created), ItemBytes: a.SessionBytes}},
	}}
	switch a.API {
	case "http":
		counted.APIGateway.HTTPRequests = float64(o.Requests)
	case "rest":
		counted.APIGateway.RESTRequests = float64(o.Requests)
	}
	month, err := counted.PerMonth(max(o.Span, time.Second))
	if err != nil {
		return cost.Bill{}, err
	}
	return prices.Bill(month, a.Flat)
}

const region = "us-east-1"

// JSON writes the result as one object.
func (r Result) JSON(w io.Writer) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(r)
}

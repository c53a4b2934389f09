package bill

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cost"
)

// column is a column that is read.
type column int

const (
	product column = iota
	usageType
	amount
	charged
	kind
	start
	end
	region
	columns
)

// layouts are the names of the columns in each kind of report. Names compare without case.
var layouts = []struct {
	name  string
	names [columns]string
}{
	{"CUR 2.0", [columns]string{"line_item_product_code", "line_item_usage_type", "line_item_usage_amount", "line_item_unblended_cost",
		"line_item_line_item_type", "line_item_usage_start_date", "line_item_usage_end_date", "product_region_code"}},
	{"legacy CUR", [columns]string{"lineItem/ProductCode", "lineItem/UsageType", "lineItem/UsageAmount", "lineItem/UnblendedCost",
		"lineItem/LineItemType", "lineItem/UsageStartDate", "lineItem/UsageEndDate", "product/regionCode"}},
	{"FOCUS with AWS columns", [columns]string{"x_ServiceCode", "x_UsageType", "ConsumedQuantity", "BilledCost",
		"ChargeCategory", "ChargePeriodStart", "ChargePeriodEnd", "RegionId"}},
}

// locate finds the columns in a header: where each stands, -1 for a region that is missing.
func locate(header []string) (at [columns]int, err error) {
	index := map[string]int{}
	for i, name := range header {
		index[strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")))] = i
	}
	best, missing := -1, ""
	for _, l := range layouts {
		found, lacks := 0, ""
		for c, name := range l.names {
			if i, ok := index[strings.ToLower(name)]; ok {
				at[c] = i
				found++
			} else {
				at[c] = -1
				if column(c) != region && lacks == "" {
					lacks = name
				}
			}
		}
		if lacks == "" {
			return at, nil
		}
		if found > best {
			best, missing = found, fmt.Sprintf("a %s would have %s", l.name, lacks)
		}
	}
	return at, fmt.Errorf("these are not the columns of a Cost and Usage Report (CUR 2.0, legacy or FOCUS): %s", missing)
}

// line is one line item, as text or, from Parquet, as a number and times.
type line struct {
	text   [columns]string
	amount float64
	cost   float64
	start  time.Time
	end    time.Time
	parsed bool // the numbers and times are set
}

var counted = map[string]bool{"usage": true, "discountedusage": true, "savingsplancoveredusage": true}

var (
	prefix    = regexp.MustCompile(`^(EU|[A-Z]{2,4}[0-9])-`)
	interests = map[string]bool{"AmazonDynamoDB": true, "AWSQueueService": true, "AmazonApiGateway": true, "AmazonElastiCache": true, "AmazonMemoryDB": true}
)

// report sums up line items.
type report struct {
	opt        Options
	lines      int64
	used       int64
	first      time.Time
	last       time.Time
	amounts    map[string]float64 // by product and usage type, without the region
	paid       map[string]float64 // by product
	elsewhere  map[string]int64   // lines of other regions
	unknown    map[string]float64 // cost by product and usage type that nothing is made of
	noInterest int64
}

func newReport(opt Options) *report {
	return &report{opt: opt, amounts: map[string]float64{}, paid: map[string]float64{}, elsewhere: map[string]int64{}, unknown: map[string]float64{}}
}

// maxKinds bounds what a file of nonsense can make the report keep.
const maxKinds = 10_000

// add counts one line item. The error names the column.
func (r *report) add(l *line) error {
	r.lines++
	if !counted[strings.ToLower(l.text[kind])] {
		return nil
	}
	if err := l.times(); err != nil {
		return err
	}
	if l.start.Year() < 2006 || l.end.Year() > 2200 || l.end.Before(l.start) {
		return fmt.Errorf("from %s to %s is no time of a report", l.start.Format(time.RFC3339), l.end.Format(time.RFC3339))
	}
	if r.first.IsZero() || l.start.Before(r.first) {
		r.first = l.start
	}
	if l.end.After(r.last) {
		r.last = l.end
	}
	if !interests[l.text[product]] {
		r.noInterest++
		return nil
	}
	if err := l.numbers(); err != nil {
		return err
	}
	if at := l.text[region]; at != "" && at != r.opt.Region {
		if len(r.elsewhere) < maxKinds {
			r.elsewhere[at]++
		}
		return nil
	}
	r.used++
	name := l.text[product] + " " + prefix.ReplaceAllString(l.text[usageType], "")
	if len(r.amounts) < maxKinds {
		r.amounts[name] += l.amount
	} else if _, ok := r.amounts[name]; ok {
		r.amounts[name] += l.amount
	}
	r.paid[l.text[product]] += l.cost
	if !known(name) && (len(r.unknown) < maxKinds) {
		r.unknown[name] += l.cost
	}
	return nil
}

var timeLayouts = []string{time.RFC3339, "2006-01-02T15:04:05.000Z", "2006-01-02 15:04:05.000", "2006-01-02 15:04:05", "2006-01-02"}

func (l *line) times() error {
	if l.parsed {
		return nil
	}
	for c, to := range map[column]*time.Time{start: &l.start, end: &l.end} {
		ok := false
		for _, layout := range timeLayouts {
			if at, err := time.Parse(layout, l.text[c]); err == nil {
				*to, ok = at, true
				break
			}
		}
		if !ok {
			return fmt.Errorf("%s is not a time of a report", short(l.text[c]))
		}
	}
	return nil
}

func (l *line) numbers() (err error) {
	if !l.parsed {
		if l.amount, err = parseNumber("usage amount", l.text[amount]); err != nil {
			return err
		}
		if l.cost, err = parseNumber("cost", l.text[charged]); err != nil {
			return err
		}
	}
	switch {
	case math.IsNaN(l.amount) || math.IsInf(l.amount, 0) || math.Abs(l.amount) > 1e18:
		return fmt.Errorf("usage amount: %v is absurd", l.amount)
	case l.amount < 0:
		return fmt.Errorf("usage amount: %v is negative", l.amount)
	case math.IsNaN(l.cost) || math.IsInf(l.cost, 0) || math.Abs(l.cost) > 1e12:
		return fmt.Errorf("cost: %v is absurd", l.cost)
	}
	return nil
}

// The usage types, without the region, that a usage is made of.
var (
	standardRequests = []string{"AWSQueueService Requests-RBP", "AWSQueueService Requests-Tier1", "AWSQueueService Requests"}
	fifoRequests     = []string{"AWSQueueService Requests-FIFO-RBP", "AWSQueueService Requests-FIFO-Tier1", "AWSQueueService Requests-FIFO"}
	onDemand         = [2]string{"AmazonDynamoDB ReadRequestUnits", "AmazonDynamoDB WriteRequestUnits"}
	provisioned      = [2]string{"AmazonDynamoDB ReadCapacityUnit-Hrs", "AmazonDynamoDB WriteCapacityUnit-Hrs"}
	storage          = "AmazonDynamoDB TimedStorage-ByteHrs"
	restCalls        = "AmazonApiGateway ApiGatewayRequest"
	httpCalls        = "AmazonApiGateway ApiGatewayHttpRequest"
)

func known(name string) bool {
	return slices.Contains(standardRequests, name) || slices.Contains(fifoRequests, name) || slices.Contains(onDemand[:], name) ||
		slices.Contains(provisioned[:], name) || name == storage || name == restCalls || name == httpCalls ||
		strings.HasPrefix(name, "AmazonElastiCache ") || strings.HasPrefix(name, "AmazonMemoryDB ")
}

// errNothing is a report in which no metered service of ours was used.
var errNothing = errors.New("no usage of DynamoDB, SQS or API Gateway in it")

// found turns the sums into a month.
func (r *report) found() (Found, error) {
	var f Found
	span := r.last.Sub(r.first)
	if r.used == 0 || span <= 0 {
		if len(r.elsewhere) > 0 {
			return f, fmt.Errorf("%w in %s, but in %s", errNothing, r.opt.Region, strings.Join(slices.Sorted(maps.Keys(r.elsewhere)), ", "))
		}
		return f, errNothing
	}
	sum := func(names ...string) (total float64) {
		for _, n := range names {
			total += r.amounts[n]
		}
		return total
	}
	hours := span.Hours()
	dynamo := cost.DynamoDB{RRU: sum(onDemand[0]), WRU: sum(onDemand[1])}
	if dynamo.RRU > 0 || dynamo.WRU > 0 {
		dynamo.StoredBytes = storedBytes(sum(storage), hours)
		if err := f.add("dynamodb", cost.Usage{DynamoDB: dynamo}, span, false); err != nil {
			return f, err
		}
		dynamo.StoredBytes = 0
	} else {
		dynamo.StoredBytes = storedBytes(sum(storage), hours)
	}
	if capacity := (cost.Provisioned{RCU: sum(provisioned[0]) / hours, WCU: sum(provisioned[1]) / hours}); capacity.RCU > 0 || capacity.WCU > 0 {
		u := cost.Usage{DynamoDB: cost.DynamoDB{Provisioned: capacity, StoredBytes: dynamo.StoredBytes}}
		if err := f.add("dynamodb provisioned", u, span, false); err != nil {
			return f, err
		}
		last := &f.Workloads[len(f.Workloads)-1]
		need := last.Usage.Need()
		need = need.Plus(cost.Usage{DynamoDB: cost.DynamoDB{RRU: capacity.RCU * 3600 * 720, WRU: capacity.WCU * 3600 * 720}}.Need())
		last.Need = &need
		last.Note = "the report says what was provisioned, not what was used: all of it is taken to be"
	}
	queues := cost.SQS{StandardRequests: sum(standardRequests...), FIFORequests: sum(fifoRequests...)}
	if queues.StandardRequests > 0 || queues.FIFORequests > 0 {
		if err := f.add("sqs", cost.Usage{SQS: queues}, span, false); err != nil {
			return f, err
		}
	}
	calls := cost.APIGateway{RESTRequests: sum(restCalls), HTTPRequests: sum(httpCalls)}
	if calls.RESTRequests > 0 || calls.HTTPRequests > 0 {
		if err := f.add("api_gateway", cost.Usage{APIGateway: calls}, span, r.opt.KeepGateway); err != nil {
			return f, err
		}
	}
	if len(f.Workloads) == 0 {
		return f, errNothing
	}
	r.notes(&f, span)
	return f, nil
}

// storedBytes is the level that GB-months of a span stand for.
func storedBytes(gbMonths, hours float64) float64 {
	return gbMonths * cost.GB * cost.HoursPerMonth / hours
}

func (r *report) notes(f *Found, span time.Duration) {
	f.note("a report of %s, from %s: %d line items, %d of them counted", spanText(span), r.first.UTC().Format(time.DateOnly), r.lines, r.used)
	for _, p := range slices.Sorted(maps.Keys(r.paid)) {
		f.note("it charges $%.2f for %s in that time, discounts and all", r.paid[p], p)
	}
	for _, other := range slices.Sorted(maps.Keys(r.elsewhere)) {
		f.note("%d line items of %s are left out: name it with --region", r.elsewhere[other], other)
	}
	types := slices.SortedFunc(maps.Keys(r.unknown), func(a, b string) int { return cmp.Compare(r.unknown[b], r.unknown[a]) })
	for i, name := range types {
		if i == 5 {
			f.note("%d more usage types are left out", len(types)-i)
			break
		}
		f.note("%s is left out: $%.2f", name, r.unknown[name])
	}
}

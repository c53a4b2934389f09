package bill

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cost"
)

// metricData is the answer of get-metric-data or of get-metric-statistics.
type metricData struct {
	Results   []metricResult `json:"MetricDataResults"`
	NextToken string         `json:"NextToken"`

	Label      string      `json:"Label"`
	Datapoints []datapoint `json:"Datapoints"`
}

type metricResult struct {
	ID         string      `json:"Id"`
	Label      string      `json:"Label"`
	Timestamps []time.Time `json:"Timestamps"`
	Values     []float64   `json:"Values"`
	Status     string      `json:"StatusCode"`
}

type datapoint struct {
	Timestamp time.Time `json:"Timestamp"`
	Sum       *float64  `json:"Sum"`
	Average   *float64  `json:"Average"`
	Maximum   *float64  `json:"Maximum"`
}

// How the points of a metric become one number.
const (
	bySum = iota
	byAverage
	byMaximum
)

// metrics are those that something is made of.
var metrics = map[string]int{
	"ConsumedReadCapacityUnits": bySum, "ConsumedWriteCapacityUnits": bySum,
	"NumberOfMessagesSent": bySum, "NumberOfMessagesReceived": bySum, "NumberOfMessagesDeleted": bySum, "NumberOfEmptyReceives": bySum,
	"SentMessageSize": byAverage, "ApproximateNumberOfMessagesVisible": byMaximum,
	"Count": bySum, "TimeToLiveDeletedItemCount": bySum,
}

const maxMetricFile = 256 << 20

// ReadCloudWatch reads what aws cloudwatch get-metric-data or get-metric-statistics printed. The label of each series has the
// name of its metric in it; sums are taken to be sums. The span is from the first to the last point, and one period more.
func ReadCloudWatch(file string, r io.Reader, opt Options) (Found, error) {
	var f Found
	data, err := io.ReadAll(io.LimitReader(r, maxMetricFile+1))
	if err != nil {
		return f, fmt.Errorf("%s: %w", file, err)
	}
	if len(data) > maxMetricFile {
		return f, fmt.Errorf("%s: over %d bytes", file, maxMetricFile)
	}
	var m metricData
	if err := json.Unmarshal(data, &m); err != nil {
		return f, jsonError(file, data, err)
	}
	series, err := m.series()
	if err != nil {
		return f, fmt.Errorf("%s: %w", file, err)
	}
	totals := map[string]float64{}
	var first, last time.Time
	var period time.Duration
	for i, s := range series {
		name := metricOf(s.Label)
		if name == "" {
			f.note("series %s is left out: no metric that is known", short(cmp.Or(s.Label, s.ID)))
			continue
		}
		if len(s.Values) != len(s.Timestamps) {
			return f, fmt.Errorf("%s: MetricDataResults[%d]: %d values at %d times", file, i, len(s.Values), len(s.Timestamps))
		}
		if err := s.into(totals, name); err != nil {
			return f, fmt.Errorf("%s: MetricDataResults[%d] (%s): %w", file, i, short(s.Label), err)
		}
		from, to, every := s.span()
		if !from.IsZero() && (first.IsZero() || from.Before(first)) {
			first = from
		}
		if to.After(last) {
			last = to
		}
		period = max(period, every)
	}
	if first.IsZero() {
		return f, fmt.Errorf("%s: no points of DynamoDB, SQS or API Gateway in it", file)
	}
	if period == 0 {
		return f, fmt.Errorf("%s: one point in time says nothing about a month: at least two of a series are needed", file)
	}
	span := last.Sub(first) + period
	f.note("metrics of %s, from %s", spanText(span), first.UTC().Format(time.RFC3339))
	return f, f.metrics(totals, span, opt)
}

func (m metricData) series() ([]metricResult, error) {
	if m.NextToken != "" {
		return nil, errors.New("NextToken: this is the first part of an answer only")
	}
	if len(m.Datapoints) == 0 {
		if m.Results == nil {
			return nil, errors.New("neither MetricDataResults nor Datapoints in it: not what CloudWatch answers")
		}
		for i, r := range m.Results {
			if r.Status != "" && r.Status != "Complete" {
				return nil, fmt.Errorf("MetricDataResults[%d]: StatusCode is %s: not all of its points are there", i, short(r.Status))
			}
		}
		return m.Results, nil
	}
	r := metricResult{Label: m.Label}
	slices.SortFunc(m.Datapoints, func(a, b datapoint) int { return a.Timestamp.Compare(b.Timestamp) })
	how := metrics[metricOf(m.Label)]
	for i, d := range m.Datapoints {
		v := []*float64{d.Sum, d.Average, d.Maximum}[how]
		if v == nil {
			return nil, fmt.Errorf("point %d of Datapoints has no %s", i, []string{"Sum", "Average", "Maximum"}[how])
		}
		r.Timestamps, r.Values = append(r.Timestamps, d.Timestamp), append(r.Values, *v)
	}
	return []metricResult{r}, nil
}

// metricOf is the metric that a label names: one of its words.
func metricOf(label string) string {
	for _, word := range strings.FieldsFunc(label, func(r rune) bool { return strings.ContainsRune(" \t/:,;|", r) }) {
		if _, ok := metrics[word]; ok {
			return word
		}
	}
	return ""
}

func (r metricResult) into(totals map[string]float64, name string) error {
	how := metrics[name]
	var sum, most float64
	for i, v := range r.Values {
		if math.IsNaN(v) || v < 0 || v > 1e18 {
			return fmt.Errorf("value %d: %v is not a count", i, v)
		}
		sum += v
		most = max(most, v)
	}
	switch how {
	case bySum:
		totals[name] += sum
	case byAverage:
		totals[name] = max(totals[name], sum/float64(max(1, len(r.Values))))
	case byMaximum:
		totals[name] += most
	}
	return nil
}

// span is the first and the last time and the shortest step between two.
func (r metricResult) span() (first, last time.Time, step time.Duration) {
	at := slices.SortedFunc(slices.Values(r.Timestamps), time.Time.Compare)
	for i := range at {
		if i == 0 {
			first = at[0]
			continue
		}
		if d := at[i].Sub(at[i-1]); d > 0 && (step == 0 || d < step) {
			step = d
		}
	}
	if len(at) > 0 {
		last = at[len(at)-1]
	}
	return first, last, step
}

func (f *Found) metrics(t map[string]float64, span time.Duration, opt Options) error {
	if d := (cost.DynamoDB{RRU: t["ConsumedReadCapacityUnits"], WRU: t["ConsumedWriteCapacityUnits"], TTLDeletes: t["TimeToLiveDeletedItemCount"]}); d.RRU > 0 || d.WRU > 0 {
		if err := f.add("dynamodb", cost.Usage{DynamoDB: d}, span, false); err != nil {
			return err
		}
		f.note("what DynamoDB stores is no metric: its storage and the memory for it are left out")
	}
	if n := max(t["NumberOfMessagesSent"], t["NumberOfMessagesReceived"], t["NumberOfMessagesDeleted"]); n > 0 || t["NumberOfEmptyReceives"] > 0 {
		m := opt.messages(n, int64(math.Ceil(t["SentMessageSize"])))
		m.EmptyReceives = t["NumberOfEmptyReceives"]
		u := cost.Usage{SQS: cost.SQS{Standard: []cost.Messages{m}, Backlog: t["ApproximateNumberOfMessagesVisible"]}}
		if err := f.add("sqs", u, span, false); err != nil {
			return err
		}
		f.note("CloudWatch counts messages, not calls: batches are those of --queue-batch")
	}
	if n := t["Count"]; n > 0 {
		u := cost.Usage{APIGateway: cost.APIGateway{HTTPRequests: n}}
		if opt.REST {
			u.APIGateway = cost.APIGateway{RESTRequests: n}
		}
		if err := f.add("api_gateway", u, span, opt.KeepGateway); err != nil {
			return err
		}
	}
	return nil
}

// jsonError puts the file and the line before what is wrong with JSON.
func jsonError(file string, data []byte, err error) error {
	offset := int64(-1)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
		err = fmt.Errorf("%s: a %s is not what belongs there", cmp.Or(kind.Field, "the file"), kind.Value)
	}
	if offset < 0 || offset > int64(len(data)) {
		return fmt.Errorf("%s: %w", file, err)
	}
	return fmt.Errorf("%s:%d: %w", file, 1+strings.Count(string(data[:offset]), "\n"), err)
}

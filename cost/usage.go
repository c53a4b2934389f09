package cost

import (
	"fmt"
	"math"
	"time"
)

// Limits above which a figure is a mistake rather than a load. They keep every sum far from overflow.
const (
	maxCount  = 1e15 // operations a month: 380 million a second
	maxStored = 1e18 // bytes: an exabyte
)

// Usage is a month of metered operations: the one type for them, whoever counted. The zero value is a
// month without any. Counts are float64 because they may have been scaled, see [Usage.PerMonth].
//
// Services are added as fields, so write composite literals with field names.
type Usage struct {
	DynamoDB   DynamoDB   `json:"dynamodb"`
	APIGateway APIGateway `json:"api_gateway"`
}

// DynamoDB is a month on tables of the standard class, charged on demand. AWS rounds every operation up on
// its own, so operations on items of different sizes are different classes: session reads of 2 KB and
// lock reads of 100 B are two elements of Reads.
type DynamoDB struct {
	Reads  []ItemReads  `json:"reads"`
	Writes []ItemWrites `json:"writes"`
	// StoredBytes is the average over the month: a level, which no span scales. At most 1e18.
	StoredBytes float64 `json:"stored_bytes"`
}

// ItemReads are DynamoDB reads of one size and consistency.
type ItemReads struct {
	// Count is reads per month, 0 to 1e15. Reads that found nothing count too.
	Count float64 `json:"count"`
	// ItemBytes is what one read goes through: key, attribute names and values together, 0 to 1 MB (a
	// page of a Query). Zero is an absent item and still charged as one unit of 4 KB.
	ItemBytes int64 `json:"item_bytes"`
	// Consistency decides the price; zero is [Strong].
	Consistency Consistency `json:"consistency"`
}

// Consistency is how DynamoDB reads: it makes a read cost one, half or two units per 4 KB. Empty means
// [Strong], what reading a Valkey primary gives; AWS's own default is [Eventual].
type Consistency string

// The consistencies that DynamoDB charges for.
const (
	Strong        Consistency = "strong"        // 1 RRU per 4 KB started
	Eventual      Consistency = "eventual"      // 0.5 RRU per 4 KB started
	Transactional Consistency = "transactional" // 2 RRU per 4 KB started
)

// ItemWrites are DynamoDB puts, updates and deletes of one size.
type ItemWrites struct {
	// Count is writes per month, 0 to 1e15. Writes that failed their condition count too; deletes by TTL
	// are free and don't.
	Count float64 `json:"count"`
	// ItemBytes is the larger of the item before and after: key, attribute names and values together, 0
	// to 400 KB. Zero (deleting what is absent) is charged as one unit of 1 KB.
	ItemBytes int64 `json:"item_bytes"`
	// Transactional writes cost two units per 1 KB instead of one.
	Transactional bool `json:"transactional"`
}

// APIGateway is a month of calls, of each kind of API, 0 to 1e15. AWS meters a call of an HTTP API per 512
// KB: count a larger one several times.
type APIGateway struct {
	RESTRequests float64 `json:"rest_requests"`
	HTTPRequests float64 `json:"http_requests"`
}

// PerMonth takes u as counted within span and scales its counts to a month of 30 days. Sizes and
// DynamoDB.StoredBytes stay as they are; u is not changed. The error is an [ErrInvalid] if span is not
// positive or the result fails [Usage.Validate].
//
// It extrapolates blindly: a span that missed the night or the weekend gives a month without them.
func (u Usage) PerMonth(span time.Duration) (Usage, error) {
	if span <= 0 {
		return Usage{}, fmt.Errorf("%w: span: %v is not positive", ErrInvalid, span)
	}
	k := float64(DaysPerMonth*24*time.Hour) / float64(span)
	m := u
	m.DynamoDB.Reads = append([]ItemReads(nil), u.DynamoDB.Reads...)
	for i := range m.DynamoDB.Reads {
		m.DynamoDB.Reads[i].Count *= k
	}
	m.DynamoDB.Writes = append([]ItemWrites(nil), u.DynamoDB.Writes...)
	for i := range m.DynamoDB.Writes {
		m.DynamoDB.Writes[i].Count *= k
	}
	m.APIGateway.RESTRequests *= k
	m.APIGateway.HTTPRequests *= k
	if err := m.Validate(); err != nil {
		return Usage{}, fmt.Errorf("%w (%v scaled to a month)", err, span)
	}
	return m, nil
}

// Validate returns an [ErrInvalid] that names the first field which is negative, NaN, infinite or above its
// documented limit, and nil if there is none.
func (u Usage) Validate() error {
	for i, r := range u.DynamoDB.Reads {
		field := fmt.Sprintf("dynamodb.reads[%d]", i)
		if err := within(field+".count", r.Count, maxCount); err != nil {
			return err
		}
		if err := within(field+".item_bytes", float64(r.ItemBytes), maxReadBytes); err != nil {
			return err
		}
		if _, ok := readFactor[r.Consistency]; !ok {
			return fmt.Errorf("%w: %s.consistency: %q is none of strong, eventual, transactional",
				ErrInvalid, field, r.Consistency)
		}
	}
	for i, w := range u.DynamoDB.Writes {
		field := fmt.Sprintf("dynamodb.writes[%d]", i)
		if err := within(field+".count", w.Count, maxCount); err != nil {
			return err
		}
		if err := within(field+".item_bytes", float64(w.ItemBytes), maxItemBytes); err != nil {
			return err
		}
	}
	if err := within("dynamodb.stored_bytes", u.DynamoDB.StoredBytes, maxStored); err != nil {
		return err
	}
	if err := within("api_gateway.rest_requests", u.APIGateway.RESTRequests, maxCount); err != nil {
		return err
	}
	return within("api_gateway.http_requests", u.APIGateway.HTTPRequests, maxCount)
}

func within(field string, v, most float64) error {
	switch {
	case math.IsNaN(v):
		return fmt.Errorf("%w: %s: not a number", ErrInvalid, field)
	case v < 0:
		return fmt.Errorf("%w: %s: %v is negative", ErrInvalid, field, v)
	case v > most:
		return fmt.Errorf("%w: %s: %v is over %v", ErrInvalid, field, v, most)
	}
	return nil
}

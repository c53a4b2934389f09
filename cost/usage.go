package cost

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Limits above which a figure is a mistake rather than a load. They keep every sum far from overflow.
const (
	maxCount  = 1e15 // operations a month: 380 million a second
	maxStored = 1e18 // bytes: an exabyte
	maxUSD    = 1e12 // a month
)

// Usage is a month of metered operations: the one type for them, whoever counted. The zero value is a
// month without any. Counts are float64 because they may have been scaled, see [Usage.PerMonth].
//
// Services are added as fields, so write composite literals with field names.
type Usage struct {
	DynamoDB   DynamoDB   `json:"dynamodb"`
	SQS        SQS        `json:"sqs"`
	APIGateway APIGateway `json:"api_gateway"`
	Database   Database   `json:"database"`
}

// DynamoDB is a month on tables of the standard class, charged on demand unless Provisioned says otherwise.
// AWS rounds every operation up on its own, so operations on items of different sizes are different classes:
// session reads of 2 KB and lock reads of 100 B are two elements of Reads.
type DynamoDB struct {
	Reads  []ItemReads  `json:"reads"`
	Writes []ItemWrites `json:"writes"`
	// RRU and WRU are units that AWS has rounded already, as a bill or CloudWatch tells them. They are
	// added to those of Reads and Writes. 0 to 1e15.
	RRU float64 `json:"rru"`
	WRU float64 `json:"wru"`
	// Provisioned replaces the charge on demand: capacity that is paid by the hour, used or not.
	Provisioned Provisioned `json:"provisioned"`
	// TTLDeletes are items that their TTL ends: free, whatever their number. 0 to 1e15.
	TTLDeletes float64 `json:"ttl_deletes"`
	// StoredBytes is the average over the month: a level, which no span scales. At most 1e18.
	StoredBytes float64 `json:"stored_bytes"`
	// StoredItems is how many items they are: AWS adds 100 B of index to each. Zero adds none. At most 1e15.
	StoredItems float64 `json:"stored_items"`
}

// Provisioned is DynamoDB capacity by the hour, the average over a month. With either above zero, requests are
// not charged. Both are levels, from 0 to 1e9.
type Provisioned struct {
	RCU float64 `json:"rcu"` // a strong read of 4 KB each second
	WCU float64 `json:"wcu"` // a write of 1 KB each second
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
	// Subjects is how many users, keys or addresses have a limit of their own at one time: a level, which
	// only says what the limits need in memory. At most 1e15.
	Subjects float64 `json:"subjects"`
}

// Database is a month of reads of a database that a cache stands, or would stand, before. What they cost is
// known to you alone: no price is assumed, and reads without one are an [ErrNoPrice].
type Database struct {
	// Reads is how many there are without a cache, 0 to 1e15.
	Reads float64 `json:"reads"`
	// HitRate is the part of Reads that the cache answers, 0 to 1.
	HitRate float64 `json:"hit_rate"`
	// USDPerMillion is your price of a million reads: I/O, or what a smaller instance saves divided by them.
	USDPerMillion float64 `json:"usd_per_million"`
	// InstanceUSD is what a smaller instance or a replica less saves in a month, as a sum.
	InstanceUSD float64 `json:"instance_usd"`
	// Entries are in the cache at one time, EntryBytes each on average: levels, for the memory they need.
	Entries    float64 `json:"entries"`
	EntryBytes int64   `json:"entry_bytes"`
}

// counts are the fields that grow with time, by the names that errors give them. The slices of u must be its own.
func (u *Usage) counts(do func(field string, v *float64)) {
	for i := range u.DynamoDB.Reads {
		do(fmt.Sprintf("dynamodb.reads[%d].count", i), &u.DynamoDB.Reads[i].Count)
	}
	for i := range u.DynamoDB.Writes {
		do(fmt.Sprintf("dynamodb.writes[%d].count", i), &u.DynamoDB.Writes[i].Count)
	}
	do("dynamodb.rru", &u.DynamoDB.RRU)
	do("dynamodb.wru", &u.DynamoDB.WRU)
	do("dynamodb.ttl_deletes", &u.DynamoDB.TTLDeletes)
	for i := range u.SQS.Standard {
		do(fmt.Sprintf("sqs.standard[%d].count", i), &u.SQS.Standard[i].Count)
		do(fmt.Sprintf("sqs.standard[%d].empty_receives", i), &u.SQS.Standard[i].EmptyReceives)
	}
	for i := range u.SQS.FIFO {
		do(fmt.Sprintf("sqs.fifo[%d].count", i), &u.SQS.FIFO[i].Count)
		do(fmt.Sprintf("sqs.fifo[%d].empty_receives", i), &u.SQS.FIFO[i].EmptyReceives)
	}
	do("sqs.standard_requests", &u.SQS.StandardRequests)
	do("sqs.fifo_requests", &u.SQS.FIFORequests)
	do("api_gateway.rest_requests", &u.APIGateway.RESTRequests)
	do("api_gateway.http_requests", &u.APIGateway.HTTPRequests)
	do("database.reads", &u.Database.Reads)
}

// levels are the other numbers, with their limits.
func (u *Usage) levels(do func(field string, v *float64, most float64)) {
	do("dynamodb.provisioned.rcu", &u.DynamoDB.Provisioned.RCU, 1e9)
	do("dynamodb.provisioned.wcu", &u.DynamoDB.Provisioned.WCU, 1e9)
	do("dynamodb.stored_bytes", &u.DynamoDB.StoredBytes, maxStored)
	do("dynamodb.stored_items", &u.DynamoDB.StoredItems, maxCount)
	do("sqs.backlog", &u.SQS.Backlog, maxCount)
	do("sqs.free_used", &u.SQS.FreeUsed, maxCount)
	do("api_gateway.subjects", &u.APIGateway.Subjects, maxCount)
	do("database.hit_rate", &u.Database.HitRate, 1)
	do("database.usd_per_million", &u.Database.USDPerMillion, maxUSD)
	do("database.instance_usd", &u.Database.InstanceUSD, maxUSD)
	do("database.entries", &u.Database.Entries, maxCount)
}

// clone returns u with slices of its own.
func (u Usage) clone() Usage {
	u.DynamoDB.Reads = slices.Clone(u.DynamoDB.Reads)
	u.DynamoDB.Writes = slices.Clone(u.DynamoDB.Writes)
	u.SQS.Standard = slices.Clone(u.SQS.Standard)
	u.SQS.FIFO = slices.Clone(u.SQS.FIFO)
	return u
}

// Times returns u with its counts multiplied by k, 0 or more. Sizes and levels stay as they are; u is not changed.
func (u Usage) Times(k float64) Usage {
	m := u.clone()
	m.counts(func(_ string, v *float64) { *v *= k })
	return m
}

// PerMonth takes u as counted within span and scales its counts to a month of 30 days. Sizes and levels, as
// DynamoDB.StoredBytes, stay as they are; u is not changed. The error is an [ErrInvalid] if span is not
// positive or the result fails [Usage.Validate].
//
// It extrapolates blindly: a span that missed the night or the weekend gives a month without them.
func (u Usage) PerMonth(span time.Duration) (Usage, error) {
	if span <= 0 {
		return Usage{}, fmt.Errorf("%w: span: %v is not positive", ErrInvalid, span)
	}
	if err := u.Validate(); err != nil {
		return Usage{}, err
	}
	m := u.Times(float64(DaysPerMonth*24*time.Hour) / float64(span))
	if err := m.Validate(); err != nil {
		return Usage{}, fmt.Errorf("%w (%v scaled to a month)", err, span)
	}
	return m, nil
}

// Validate returns an [ErrInvalid] that names the first field which is negative, NaN, infinite or above its
// documented limit, and nil if there is none.
func (u Usage) Validate() error {
	u = u.clone()
	var first error
	check := func(field string, v, most float64) {
		if first == nil {
			first = within(field, v, most)
		}
	}
	u.counts(func(field string, v *float64) { check(field, *v, maxCount) })
	u.levels(func(field string, v *float64, most float64) { check(field, *v, most) })
	for i, r := range u.DynamoDB.Reads {
		field := fmt.Sprintf("dynamodb.reads[%d]", i)
		check(field+".item_bytes", float64(r.ItemBytes), maxReadBytes)
		if _, ok := readFactor[r.Consistency]; !ok && first == nil {
			first = fmt.Errorf("%w: %s.consistency: %q is none of strong, eventual, transactional", ErrInvalid, field, r.Consistency)
		}
	}
	for i, w := range u.DynamoDB.Writes {
		check(fmt.Sprintf("dynamodb.writes[%d].item_bytes", i), float64(w.ItemBytes), maxItemBytes)
	}
	for i, m := range u.SQS.Standard {
		check(m.validate(fmt.Sprintf("sqs.standard[%d]", i), &first))
	}
	for i, m := range u.SQS.FIFO {
		check(m.validate(fmt.Sprintf("sqs.fifo[%d]", i), &first))
	}
	check("database.entry_bytes", float64(u.Database.EntryBytes), maxEntryBytes)
	return first
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

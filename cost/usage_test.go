package cost

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

// The golden vectors of AWS's rounding: developer guide, capacity unit consumption.
func TestUnitsRoundEachOperation(t *testing.T) {
	for _, c := range []struct {
		bytes    int64
		rru, wru float64
	}{
		{bytes: 0, rru: 1, wru: 1},
		{bytes: 1, rru: 1, wru: 1},
		{bytes: 1023, rru: 1, wru: 1},
		{bytes: 1024, rru: 1, wru: 1},
		{bytes: 1025, rru: 1, wru: 2},
		{bytes: 2047, rru: 1, wru: 2},
		{bytes: 2048, rru: 1, wru: 2},
		{bytes: 2049, rru: 1, wru: 3},
		{bytes: 4095, rru: 1, wru: 4},
		{bytes: 4096, rru: 1, wru: 4},
		{bytes: 4097, rru: 2, wru: 5},
		{bytes: 8192, rru: 2, wru: 8},
		{bytes: 8193, rru: 3, wru: 9},
		{bytes: 65_535, rru: 16, wru: 64},
		{bytes: 65_536, rru: 16, wru: 64},
		{bytes: 65_537, rru: 17, wru: 65},
		{bytes: 409600, rru: 100, wru: 400},
	} {
		for consistency, factor := range map[Consistency]float64{"": 1, Strong: 1, Eventual: .5, Transactional: 2} {
			r := ItemReads{Count: 10, ItemBytes: c.bytes, Consistency: consistency}
			if got, want := r.units(), 10*c.rru*factor; got != want {
				t.Errorf("10 %q reads of %d B: %v RRU, want %v", consistency, c.bytes, got, want)
			}
		}
		w := ItemWrites{Count: 10, ItemBytes: c.bytes}
		if got, want := w.units(), 10*c.wru; got != want {
			t.Errorf("10 writes of %d B: %v WRU, want %v", c.bytes, got, want)
		}
		w.Transactional = true
		if got, want := w.units(), 20*c.wru; got != want {
			t.Errorf("10 transactional writes of %d B: %v WRU, want %v", c.bytes, got, want)
		}
	}
}

// full has every field set, so that a field which a function forgets shows.
func full() Usage {
	return Usage{
		DynamoDB: DynamoDB{
			Reads:       []ItemReads{{Count: 10, ItemBytes: 100}, {Count: 20, ItemBytes: 5000, Consistency: Eventual}},
			Writes:      []ItemWrites{{Count: 30, ItemBytes: 100}, {Count: 40, ItemBytes: 5000, Transactional: true}},
			RRU:         70,
			WRU:         80,
			TTLDeletes:  90,
			StoredBytes: 5e9,
			StoredItems: 5e6,
		},
		SQS: SQS{Standard: []Messages{{Count: 100, Bytes: 10, EmptyReceives: 1}}, FIFO: []Messages{{Count: 110, Bytes: 10, EmptyReceives: 2}},
			StandardRequests: 3, FIFORequests: 4, FreeUsed: 1e6, Backlog: 5},
		APIGateway: APIGateway{RESTRequests: 50, HTTPRequests: 60, Subjects: 7},
		Database:   Database{Reads: 120, HitRate: 0.5, USDPerMillion: 8, InstanceUSD: 9, Entries: 10, EntryBytes: 11},
	}
}

// numbers are the float64 fields of a usage by the name that errors give them; levels are those which no span scales.
func numbers(u *Usage) map[string]*float64 {
	all := map[string]*float64{
		"dynamodb.reads[0].count":        &u.DynamoDB.Reads[0].Count,
		"dynamodb.reads[1].count":        &u.DynamoDB.Reads[1].Count,
		"dynamodb.writes[0].count":       &u.DynamoDB.Writes[0].Count,
		"dynamodb.writes[1].count":       &u.DynamoDB.Writes[1].Count,
		"dynamodb.rru":                   &u.DynamoDB.RRU,
		"dynamodb.wru":                   &u.DynamoDB.WRU,
		"dynamodb.ttl_deletes":           &u.DynamoDB.TTLDeletes,
		"sqs.standard[0].count":          &u.SQS.Standard[0].Count,
		"sqs.standard[0].empty_receives": &u.SQS.Standard[0].EmptyReceives,
		"sqs.fifo[0].count":              &u.SQS.FIFO[0].Count,
		"sqs.fifo[0].empty_receives":     &u.SQS.FIFO[0].EmptyReceives,
		"sqs.standard_requests":          &u.SQS.StandardRequests,
		"sqs.fifo_requests":              &u.SQS.FIFORequests,
		"api_gateway.rest_requests":      &u.APIGateway.RESTRequests,
		"api_gateway.http_requests":      &u.APIGateway.HTTPRequests,
		"database.reads":                 &u.Database.Reads,
	}
	for name, v := range levels(u) {
		all[name] = v
	}
	return all
}

func levels(u *Usage) map[string]*float64 {
	return map[string]*float64{
		"dynamodb.provisioned.rcu": &u.DynamoDB.Provisioned.RCU,
		"dynamodb.provisioned.wcu": &u.DynamoDB.Provisioned.WCU,
		"dynamodb.stored_bytes":    &u.DynamoDB.StoredBytes,
		"dynamodb.stored_items":    &u.DynamoDB.StoredItems,
		"sqs.backlog":              &u.SQS.Backlog,
		"sqs.free_used":            &u.SQS.FreeUsed,
		"api_gateway.subjects":     &u.APIGateway.Subjects,
		"database.hit_rate":        &u.Database.HitRate,
		"database.usd_per_million": &u.Database.USDPerMillion,
		"database.instance_usd":    &u.Database.InstanceUSD,
		"database.entries":         &u.Database.Entries,
	}
}

func TestValidateNamesTheField(t *testing.T) {
	u := full()
	if err := u.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (Usage{}).Validate(); err != nil {
		t.Fatal(err)
	}
	for name := range numbers(&u) {
		for _, bad := range []float64{-1, -5e-324, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, 1.1e18} {
			u := full()
			*numbers(&u)[name] = bad
			wantInvalid(t, u.Validate(), name)
		}
	}
	for name, spoil := range map[string]func(*Usage){
		"dynamodb.reads[1].item_bytes":  func(u *Usage) { u.DynamoDB.Reads[1].ItemBytes = -1 },
		"dynamodb.reads[0].item_bytes":  func(u *Usage) { u.DynamoDB.Reads[0].ItemBytes = 1<<20 + 1 },
		"dynamodb.writes[0].item_bytes": func(u *Usage) { u.DynamoDB.Writes[0].ItemBytes = 400<<10 + 1 },
		"dynamodb.writes[1].item_bytes": func(u *Usage) { u.DynamoDB.Writes[1].ItemBytes = math.MaxInt64 },
		"database.entry_bytes":          func(u *Usage) { u.Database.EntryBytes = -1 },
		"dynamodb.reads[0].consistency": func(u *Usage) { u.DynamoDB.Reads[0].Consistency = "Strong" },
	} {
		u := full()
		spoil(&u)
		wantInvalid(t, u.Validate(), name)
	}
}

func TestPerMonthScalesCountsOnly(t *testing.T) {
	u := full()
	month, err := u.PerMonth(36 * time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	want := full()
	fixed := levels(&want)
	for name, v := range numbers(&want) {
		if fixed[name] == nil {
			*v *= 20
		}
	}
	for name, v := range numbers(&month) {
		if *v != *numbers(&want)[name] {
			t.Errorf("%s: %v, want %v", name, *v, *numbers(&want)[name])
		}
	}
	if month.DynamoDB.Reads[1].ItemBytes != 5000 || !month.DynamoDB.Writes[1].Transactional {
		t.Error("sizes and kinds must stay")
	}
	if u.DynamoDB.Reads[0].Count != 10 || u.DynamoDB.Writes[0].Count != 30 {
		t.Error("the usage that was scaled has changed")
	}
}

func TestPerMonthRefuses(t *testing.T) {
	for _, span := range []time.Duration{0, -time.Second, math.MinInt64} {
		_, err := full().PerMonth(span)
		wantInvalid(t, err, "span")
	}
	_, err := full().PerMonth(1) // a nanosecond: 2.6e16 reads a month
	wantInvalid(t, err, "dynamodb.reads[0].count")
	u := full()
	u.APIGateway.HTTPRequests = math.NaN()
	_, err = u.PerMonth(time.Hour)
	wantInvalid(t, err, "api_gateway.http_requests")
}

func wantInvalid(t *testing.T, err error, field string) {
	t.Helper()
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), " "+field+": ") {
		t.Errorf("got %v, want an ErrInvalid about %s", err, field)
	}
}

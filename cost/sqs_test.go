package cost

import (
	"math"
	"testing"
	"time"
)

// The golden vectors of SQS: each 64 KB of a call's payload is a request, each call at least one.
func TestRequestsCountChunks(t *testing.T) {
	for _, c := range []struct {
		bytes            int64
		alone, ten       float64 // requests to send one message alone, and ten in one call
		receiveAndDelete float64 // alone
	}{
		{bytes: 0, alone: 1, ten: 1},
		{bytes: 1, alone: 1, ten: 1},
		{bytes: 1023, alone: 1, ten: 1},
		{bytes: 1024, alone: 1, ten: 1},
		{bytes: 1025, alone: 1, ten: 1},
		{bytes: 2048, alone: 1, ten: 1},
		{bytes: 2049, alone: 1, ten: 1},
		{bytes: 4096, alone: 1, ten: 1},
		{bytes: 4097, alone: 1, ten: 1},
		{bytes: 6553, alone: 1, ten: 1}, // ten are 65,530
		{bytes: 6554, alone: 1, ten: 2}, // ten are 65,540
		{bytes: 65_535, alone: 1, ten: 10},
		{bytes: 65_536, alone: 1, ten: 10},
		{bytes: 65_537, alone: 2, ten: 11}, // ten are 655,370
		{bytes: 104_857, alone: 2, ten: 16},
		{bytes: 131_072, alone: 2},
		{bytes: 131_073, alone: 3},
		{bytes: 262_144, alone: 4},
		{bytes: 1 << 20, alone: 16},
	} {
		one := Messages{Count: 1000, Bytes: c.bytes}
		if got, want := one.requests(), 1000*(2*c.alone+1); got != want {
			t.Errorf("1000 messages of %d B, sent, received and deleted alone: %v requests, want %v", c.bytes, got, want)
		}
		if c.ten == 0 {
			continue
		}
		batched := Messages{Count: 1000, Bytes: c.bytes, SendBatch: 10, ReceiveBatch: 10, DeleteBatch: 10}
		if got, want := batched.requests(), 100*(2*c.ten+1); got != want {
			t.Errorf("1000 messages of %d B in tens: %v requests, want %v", c.bytes, got, want)
		}
	}
	if got := (Messages{Count: 10, EmptyReceives: 129_600}).requests(); got != 129_630 {
		t.Errorf("with empty receives: %v", got)
	}
}

// A million messages a day: three requests each alone, the first million a month free.
func TestQueueFigures(t *testing.T) {
	tens := Messages{Count: 1e6, Bytes: 1024, SendBatch: 10, ReceiveBatch: 10, DeleteBatch: 10}
	alone := Messages{Count: 1e6, Bytes: 1024}
	for _, c := range []struct {
		sqs SQS
		usd float64
	}{
		{SQS{Standard: []Messages{alone}}, 35.6},
		{SQS{Standard: []Messages{tens}}, 3.2},
		{SQS{FIFO: []Messages{alone}}, 44.5},
		{SQS{Standard: []Messages{alone}, FreeUsed: 1e6}, 36},
		{SQS{Standard: []Messages{alone}, FreeUsed: 4e5}, 35.76},
		{SQS{Standard: []Messages{alone}, FreeUsed: 5e6}, 36},
		{SQS{Standard: []Messages{alone}, FIFO: []Messages{alone}}, 36 + 44.5}, // the free million goes to the dearer
		{SQS{StandardRequests: 1e6 / 30.0}, 0},
		{SQS{StandardRequests: 2e6 / 30.0}, 0.4},
	} {
		u, err := Usage{SQS: c.sqs}.PerMonth(24 * time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		b := bill(t, u, Flat{})
		wantSums(t, b)
		if math.Abs(b.MeteredUSD-c.usd) > 1e-6 {
			t.Errorf("%+v: $%v, want $%v", c.sqs, b.MeteredUSD, c.usd)
		}
	}
}

func TestBatchesThatCannotBe(t *testing.T) {
	for field, m := range map[string]Messages{
		"sqs.standard[0].send_batch":    {SendBatch: 11},
		"sqs.standard[0].receive_batch": {ReceiveBatch: -1},
		"sqs.standard[0].delete_batch":  {DeleteBatch: 100},
		"sqs.standard[0].bytes":         {Bytes: 1<<20 + 1},
	} {
		wantInvalid(t, Usage{SQS: SQS{Standard: []Messages{m}}}.Validate(), field)
	}
	wantInvalid(t, Usage{SQS: SQS{FIFO: []Messages{{Bytes: 104_858, SendBatch: 10}}}}.Validate(), "sqs.fifo[0].send_batch")
	if err := (Usage{SQS: SQS{FIFO: []Messages{{Bytes: 104_857, SendBatch: 10, DeleteBatch: 10}, {Bytes: 1 << 20, DeleteBatch: 10}}}}).Validate(); err != nil {
		t.Error(err)
	}
}

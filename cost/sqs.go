package cost

import "fmt"

// How SQS rounds, from its pricing page and developer guide: each 64 KB of a call's payload is a request.
const (
	chunkBytes   = 64 << 10
	maxCallBytes = 1 << 20 // of all messages of a call together
	maxBatch     = 10
)

// SQS is a month of queues.
type SQS struct {
	Standard []Messages `json:"standard"`
	FIFO     []Messages `json:"fifo"`
	// StandardRequests and FIFORequests are requests that AWS has counted already, in chunks of 64 KB, as a bill
	// tells them. They are added to those of Standard and FIFO. 0 to 1e15.
	StandardRequests float64 `json:"standard_requests"`
	FIFORequests     float64 `json:"fifo_requests"`
	// FreeUsed is how much of the account's million free requests a month other queues take. Zero leaves them
	// all to these; a million or more none.
	FreeUsed float64 `json:"free_used"`
	// Backlog is how many messages wait at one time, at most: a level, for the memory they would need.
	Backlog float64 `json:"backlog"`
}

// Messages are messages of one size, each sent, received and deleted once.
type Messages struct {
	// Count is messages per month, 0 to 1e15.
	Count float64 `json:"count"`
	// Bytes is body and attributes of one, 0 to 1 MiB.
	Bytes int64 `json:"bytes"`
	// SendBatch, ReceiveBatch and DeleteBatch are how many messages one call moves, on average over the month: 1 to
	// 10, zero means 1. A call is charged for each 64 KB of all its messages together, so that ten messages of
	// 10 KB in one call are two requests; deleting carries no bodies. The messages of a call are at most 1 MiB.
	SendBatch    int `json:"send_batch"`
	ReceiveBatch int `json:"receive_batch"`
	DeleteBatch  int `json:"delete_batch"`
	// EmptyReceives are calls that found nothing, per month: a request each. A consumer that polls every 20
	// seconds makes 129,600. 0 to 1e15.
	EmptyReceives float64 `json:"empty_receives"`
}

// validate returns what within needs for the size of the messages, and reports a batch that can't be.
func (m Messages) validate(field string, first *error) (string, float64, float64) {
	for _, b := range []struct {
		name  string
		n     int
		bytes int64
	}{{".send_batch", m.SendBatch, m.Bytes}, {".receive_batch", m.ReceiveBatch, m.Bytes}, {".delete_batch", m.DeleteBatch, 0}} {
		switch {
		case *first != nil:
		case b.n < 0 || b.n > maxBatch:
			*first = fmt.Errorf("%w: %s%s: %d is not between 1 and %d", ErrInvalid, field, b.name, b.n, maxBatch)
		case b.n > 1 && b.bytes <= maxCallBytes && int64(b.n)*b.bytes > maxCallBytes:
			*first = fmt.Errorf("%w: %s%s: %d messages of %d bytes are over the 1 MiB of a call", ErrInvalid, field, b.name, b.n, b.bytes)
		}
	}
	return field + ".bytes", float64(m.Bytes), maxCallBytes
}

// requests is what AWS counts for a month of these messages.
func (m Messages) requests() float64 {
	calls := func(batch int, bytes int64) float64 {
		n := max(1, batch)
		return float64(m.Count / float64(n) * started(int64(n)*bytes, chunkBytes))
	}
	return calls(m.SendBatch, m.Bytes) + calls(m.ReceiveBatch, m.Bytes) + calls(m.DeleteBatch, 0) + m.EmptyReceives
}

package meter

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/ratelimit/ratehttp"
	"github.com/flatrate/flatrate/session"
)

// Lock puts the meter before hooks: cfg.Hooks = m.Lock(cfg.Hooks). What it counts is what a lock on DynamoDB takes: two writes for
// each lock acquired, its release being the second; one for each renewal; and one for each attempt that had to wait, which
// there would be at least one conditional write that failed. Attempts of TryAcquire that fail are not heard of.
func (m *Meter) Lock(h lock.Hooks) lock.Hooks {
	if m == nil {
		return h
	}
	acquired, waiting, renewed := h.Acquired, h.Waiting, h.Renewed
	h.Acquired = func(name string, waited time.Duration) {
		m.counts.lockWrites.Add(2)
		if acquired != nil {
			acquired(name, waited)
		}
	}
	h.Waiting = func(name string) {
		m.counts.lockWrites.Add(1)
		if waiting != nil {
			waiting(name)
		}
	}
	h.Renewed = func(name string) {
		m.counts.lockWrites.Add(1)
		if renewed != nil {
			renewed(name)
		}
	}
	return h
}

// Cache puts the meter before hooks: cfg.Hooks = m.Cache(cfg.Hooks). Each hit is a read that the database was spared, also one
// from the process's own tier; each miss one that it was not.
func (m *Meter) Cache(h cache.Hooks) cache.Hooks {
	if m == nil {
		return h
	}
	hit, miss := h.Hit, h.Miss
	h.Hit = func(key string, tier cache.Tier) {
		m.counts.cacheHits.Add(1)
		if hit != nil {
			hit(key, tier)
		}
	}
	h.Miss = func(key string) {
		m.counts.cacheMisses.Add(1)
		if miss != nil {
			miss(key)
		}
	}
	return h
}

// RateHTTP puts the meter before hooks: cfg.Hooks = m.RateHTTP(cfg.Hooks). Each decision, allowed or not, is a request that API
// Gateway would charge for.
func (m *Meter) RateHTTP(h ratehttp.Hooks) ratehttp.Hooks {
	if m == nil {
		return h
	}
	decided := h.Decided
	h.Decided = func(r *http.Request, d ratehttp.Decision) {
		m.counts.requests.Add(1)
		if decided != nil {
			decided(r, d)
		}
	}
	return h
}

// Requests counts requests whose limits were checked without ratehttp. Negative numbers count as none.
func (m *Meter) Requests(n int64) {
	if m != nil && n > 0 {
		m.counts.requests.Add(n)
	}
}

// Session puts the meter before hooks: cfg.Hooks = m.Session(cfg.Hooks). Each read and each write counts with the session's
// bytes, as a table bills them.
func (m *Meter) Session(h session.Hooks) session.Hooks {
	if m == nil {
		return h
	}
	read, written := h.Read, h.Written
	h.Read = func(bytes int) {
		m.SessionRead(bytes)
		if read != nil {
			read(bytes)
		}
	}
	h.Written = func(bytes int) {
		m.SessionWrite(bytes)
		if written != nil {
			written(bytes)
		}
	}
	return h
}

// SessionRead counts the read of a session of so many bytes, its key and names among them; 0 for one that was not found.
func (m *Meter) SessionRead(bytes int) {
	if m != nil {
		m.counts.sessionReads[started(bytes, 1024, maxKB)].Add(1)
	}
}

// SessionWrite counts a creation, a change or a deletion of a session of so many bytes. On DynamoDB a change costs as much as the
// whole item.
func (m *Meter) SessionWrite(bytes int) {
	if m != nil {
		m.counts.sessionWrites[started(bytes, 1024, maxKB)].Add(1)
	}
}

// callMessages is how many messages a call of SQS takes at most.
const callMessages = 10

// Queue puts the meter before hooks: cfg.Hooks = m.Queue(cfg.Hooks). What was sent, received and settled counts as SQS would bill it
// at the least: ten messages a call, and a request for each 64 KB started of a call. Receives that find nothing are not counted,
// and FIFO queues as standard ones, whose requests cost less.
func (m *Meter) Queue(h queue.Hooks) queue.Hooks {
	if m == nil {
		return h
	}
	sent, received, settled := h.Sent, h.Received, h.Settled
	h.Sent = func(messages, bytes int) {
		calls(&m.counts.sent, messages, bytes)
		if sent != nil {
			sent(messages, bytes)
		}
	}
	h.Received = func(messages, bytes int) {
		calls(&m.counts.received, messages, bytes)
		if received != nil {
			received(messages, bytes)
		}
	}
	h.Settled = func(receipts int) {
		m.counts.deleted.Add(int64(started(receipts, callMessages, receipts)))
		if settled != nil {
			settled(receipts)
		}
	}
	return h
}

// calls counts messages in calls of ten, among which their bytes are divided.
func calls(counts *[maxChunks + 1]atomic.Int64, messages, bytes int) {
	n := started(messages, callMessages, messages)
	counts[started((bytes+n-1)/n, 64<<10, maxChunks)].Add(int64(n))
}

// Messages are calls of a queue: each is one request of SQS for each 64 KB of all its messages together.
type Messages struct {
	Sent, Received int // bytes of a call's messages together; 0 for no such call
	Deleted        int // calls that delete
	Empty          int // receives that found nothing
}

// Messages counts calls of a queue. Negative numbers count as none.
func (m *Meter) Messages(c Messages) {
	if m == nil {
		return
	}
	if c.Sent > 0 {
		m.counts.sent[started(c.Sent, 64<<10, maxChunks)].Add(1)
	}
	if c.Received > 0 {
		m.counts.received[started(c.Received, 64<<10, maxChunks)].Add(1)
	}
	m.counts.deleted.Add(int64(max(0, c.Deleted)))
	m.counts.empty.Add(int64(max(0, c.Empty)))
}

package meter

import (
	"strconv"
	"strings"
	"sync/atomic"
)

// The classes that are counted. Sizes are in KB started, which is all that DynamoDB's rounding needs: 4 KB started are KB
// started divided by four, rounded up. Messages are in chunks of 64 KB started.
const (
	maxKB     = 400 // of an item
	maxChunks = 16  // of a message
)

// counts are all counters of a meter: some kilobytes, whatever is counted.
type counts struct {
	lockWrites, requests, cacheHits, cacheMisses atomic.Int64
	sessionReads, sessionWrites                  [maxKB + 1]atomic.Int64
	sent, received                               [maxChunks + 1]atomic.Int64
	deleted, empty                               atomic.Int64
}

// each calls do with every counter and its field.
func (c *counts) each(do func(field string, n *atomic.Int64)) {
	do("locks:write", &c.lockWrites)
	do("requests", &c.requests)
	do("cache:hit", &c.cacheHits)
	do("cache:miss", &c.cacheMisses)
	do("queue:delete", &c.deleted)
	do("queue:empty", &c.empty)
	for name, list := range map[string][]atomic.Int64{"sessions:read:": c.sessionReads[:], "sessions:write:": c.sessionWrites[:],
		"queue:send:": c.sent[:], "queue:receive:": c.received[:]} {
		for i := range list {
			if list[i].Load() != 0 { // most sizes never occur
				do(name+strconv.Itoa(i), &list[i])
			}
		}
	}
}

func (c *counts) any() bool {
	found := false
	c.each(func(_ string, n *atomic.Int64) { found = found || n.Load() != 0 })
	return found
}

// take empties the counters: field, count, and so on.
func (c *counts) take() []string {
	var list []string
	c.each(func(field string, n *atomic.Int64) {
		if v := n.Swap(0); v != 0 {
			list = append(list, field, strconv.FormatInt(v, 10))
		}
	})
	return list
}

// started is how many blocks of a size so many bytes begin, from one to most.
func started(bytes, block, most int) int {
	return max(1, min(most, (max(0, bytes)+block-1)/block))
}

// size is the number at the end of a field.
func size(field, head string) (int64, bool) {
	rest, ok := strings.CutPrefix(field, head)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(rest, 10, 32)
	return n, err == nil && n >= 1
}

package session

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const hintSlots = 1 << 15 // 256 KB, made at the first one

// hints remembers for sessions that were read until when the server need not be asked whether the idle time is to be
// extended. It may forget: then the server is asked.
type hints struct {
	once  sync.Once
	seed  maphash.Seed
	begin time.Time
	slots []atomic.Uint64 // 32 bits of the session, 32 of the time in 1/16 s
}

const hintTick = time.Second / 16

func (h *hints) init() {
	h.once.Do(func() {
		h.seed, h.begin, h.slots = maphash.MakeSeed(), time.Now(), make([]atomic.Uint64, hintSlots)
	})
}

// set is told when the call was sent that the server answered.
func (h *hints) set(digest string, sent time.Time, due time.Duration) {
	h.init()
	until := sent.Add(due).Sub(h.begin) / hintTick // rounded down: asked too early at worst
	if until <= 0 {
		return
	}
	hash := maphash.String(h.seed, digest)
	h.slots[hash%hintSlots].Store(hash>>32<<32 | uint64(uint32(min(until, 1<<32-1))))
}

func (h *hints) fresh(digest string, now time.Time) bool {
	h.init()
	hash := maphash.String(h.seed, digest)
	slot := h.slots[hash%hintSlots].Load()
	return slot>>32 == hash>>32 && time.Duration(uint32(slot))*hintTick > now.Sub(h.begin)
}

// forget is for a session that was ended.
func (h *hints) forget(digest string) {
	h.init()
	h.slots[maphash.String(h.seed, digest)%hintSlots].Store(0)
}

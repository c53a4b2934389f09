package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/script"

	_ "embed"
)

var (
	//go:embed logack.lua
	logAckLua string
	//go:embed lognack.lua
	logNackLua string

	logAck  = script.New(logAckLua)
	logNack = script.New(logNackLua)
)

// settlingEntry is an entry on its way to be settled.
type settlingEntry struct {
	h      *held
	what   byte // a, it is done; n, it comes again after delay; d, it is dead; m, it moves aside, and nothing else changes
	delay  time.Duration
	reason string
	err    error
}

// Ack says that the entry of a receipt is done for this group. It works until the entry is delivered again or its partition is another
// process's; after that the error is [ErrNotHeld]. One round trip, which this process's calls at the same time share, as with Nack and Reject.
func (g *Group) Ack(ctx context.Context, receipt string) error {
	return one(g.AckBatch(ctx, []string{receipt}))
}

// AckBatch acknowledges receipts, each for itself; nil says that all are done, else there is an error or nil for each. A
// round trip for each partition and 256 receipts.
func (g *Group) AckBatch(ctx context.Context, receipts []string) []error {
	return g.settle(ctx, 'a', 0, "", receipts)
}

// Nack gives an entry back that could not be handled: it is moved out of the stream, comes again after delay, from 0 to 12 h, or goes to
// the dead letters if it was delivered often enough. The entries of its key wait for it. The reason, cut to 1,024 bytes, is kept.
func (g *Group) Nack(ctx context.Context, receipt string, delay time.Duration, reason string) error {
	if delay < 0 || delay > maxVisibility {
		return fmt.Errorf("queue: nack: delay is %v, not from 0 to %v", delay, maxVisibility)
	}
	return one(g.settle(ctx, 'n', delay, reason, []string{receipt}))
}

// Reject sends an entry to the group's dead letters at once.
func (g *Group) Reject(ctx context.Context, receipt, reason string) error {
	return one(g.settle(ctx, 'd', 0, reason, []string{receipt}))
}

// Extend gives a delivery visibility from now on: 10 ms to 12 h, or zero, which gives it back as if it had not been delivered. No round
// trip: the partition is this process's.
func (g *Group) Extend(ctx context.Context, receipt string, visibility time.Duration) error {
	return one(g.ExtendBatch(ctx, []string{receipt}, visibility))
}

// ExtendBatch extends receipts, each for itself; nil says that all are, else there is an error or nil for each.
func (g *Group) ExtendBatch(_ context.Context, receipts []string, visibility time.Duration) []error {
	if visibility != 0 && (visibility < minVisibility || visibility > maxVisibility) {
		return all(len(receipts), fmt.Errorf("queue: extend: visibility is %v, not from %v to %v, or zero", visibility, minVisibility, maxVisibility))
	}
	g.mu.Lock()
	errs, bad := make([]error, len(receipts)), false
	now := time.Now()
	for i, receipt := range receipts {
		h := g.find(receipt)
		switch {
		case h == nil || h.settling:
			errs[i], bad = ErrNotHeld, true
		case visibility > 0:
			h.until = now.Add(visibility)
			h.share.lookAt(h.until)
		default:
			h.receives--
			h.nonce = 0
			h.share.again(h, time.Time{})
			h.share.wakeUp()
		}
	}
	g.mu.Unlock()
	if visibility == 0 {
		g.serve()
	}
	if !bad {
		return nil
	}
	return errs
}

func (g *Group) giveBack(ds []*Delivery) {
	for _, d := range ds {
		_ = g.Extend(context.Background(), d.Receipt, 0) // what is not held comes again anyway
	}
}

// find returns what a receipt is for, if it is its last one. It is called under the mutex.
func (g *Group) find(receipt string) *held {
	if len(receipt) > maxReceipt {
		return nil
	}
	last := strings.LastIndexByte(receipt, ':')
	if last < 0 {
		return nil
	}
	part, id, ok := splitID(receipt[:last])
	nonce, err := strconv.ParseUint(receipt[last+1:], 36, 64)
	if !ok || err != nil {
		return nil
	}
	for _, s := range g.shares {
		if s.part.index != part {
			continue
		}
		if h := s.entries[id]; h != nil && h.stands == standsOut && h.nonce == nonce && strconv.FormatUint(nonce, 36) == receipt[last+1:] {
			return h
		}
	}
	return nil
}

func (g *Group) settle(ctx context.Context, what byte, delay time.Duration, reason string, receipts []string) []error {
	g.mu.Lock()
	gone := g.deleted
	items := make([]*settlingEntry, len(receipts))
	parts := make(map[*share][]*settlingEntry, 1)
	for i, receipt := range receipts {
		it := &settlingEntry{what: what, delay: delay, reason: cut(reason)}
		items[i] = it
		h := g.find(receipt)
		if h == nil || h.settling {
			it.err = ErrNotHeld
			if gone != nil {
				it.err = gone
			}
			continue
		}
		if most := g.cfg.MaxReceives; what == 'n' && most != NoLimit && h.receives >= most {
			it.what = 'd'
		}
		it.h, h.settling = h, true
		parts[h.share] = append(parts[h.share], it)
	}
	g.mu.Unlock()
	failed := beside(parts, func(s *share, batch []*settlingEntry) error { return s.settle.do(ctx, batch) })
	if failed != nil {
		return all(len(receipts), fmt.Errorf("queue: %w", failed))
	}
	errs, bad := make([]error, len(items)), false
	for i, it := range items {
		errs[i] = it.err
		bad = bad || it.err != nil
	}
	if !bad {
		return nil
	}
	return errs
}

// settleAll settles a batch, in one call for those that are done and one for the others.
func (s *share) settleAll(ctx context.Context, batch []*settlingEntry) {
	var done, rest []*settlingEntry
	for _, it := range batch {
		if it.what == 'a' {
			done = append(done, it)
		} else {
			rest = append(rest, it)
		}
	}
	if len(done) > 0 {
		args := make([]string, len(done))
		for i, it := range done {
			args[i] = it.h.id
		}
		_, err := s.on(ctx, logAck, args...)
		s.settled(done, nil, s.lost(err))
	}
	if len(rest) > 0 {
		codes, err := s.nack(ctx, rest)
		s.settled(rest, codes, s.lost(err))
	}
	if hook := s.group.log.cfg.Hooks.Settled; hook != nil {
		n := 0
		for _, it := range batch {
			if it.err == nil {
				n++
			}
		}
		if n > 0 {
			hook(n)
		}
	}
	s.group.serve()
}

// lost is what an error means for receipts.
func (s *share) lost(err error) error {
	switch {
	case errors.Is(err, errTaken):
		s.keeper.End(lease.ErrTaken)
		return ErrNotHeld
	case errors.Is(err, ErrNoGroup), errors.Is(err, ErrDeleted):
		s.group.fail(err)
		return err
	case err != nil:
		return fmt.Errorf("queue: %w", err)
	}
	return nil
}

func (s *share) nack(ctx context.Context, batch []*settlingEntry) ([]int64, error) {
	args := []string{strconv.Itoa(maxDead)}
	s.group.mu.Lock()
	for _, it := range batch {
		if it.what == 'm' {
			args = append(args, it.h.id, "m", it.h.note(it.h.known))
			continue
		}
		what := "d"
		if it.what == 'n' {
			what = strconv.FormatInt(it.delay.Milliseconds(), 10)
		}
		it.h.reason = it.reason
		args = append(args, it.h.id, what, it.h.note(it.h.receives))
	}
	s.group.mu.Unlock()
	reply, err := s.on(ctx, logNack, args...)
	if err != nil {
		return nil, err
	}
	if len(reply) != 1+len(batch) {
		return nil, fmt.Errorf("the server answered %d values for %d entries", len(reply), len(batch))
	}
	codes := make([]int64, len(batch))
	for i := range codes {
		if codes[i], err = number(reply, 1+i); err != nil {
			return nil, err
		}
	}
	return codes, nil
}

// settled counts what the server has answered.
func (s *share) settled(batch []*settlingEntry, codes []int64, err error) {
	now := time.Now()
	var buried []*settlingEntry
	missing := int64(0)
	s.group.mu.Lock()
	for i, it := range batch {
		h := it.h
		h.settling = false
		if it.err = err; err != nil {
			s.lookAt(h.until)
			continue
		}
		code := int64(1)
		if codes != nil {
			code = codes[i]
		}
		switch {
		case it.what == 'a':
			s.remove(h)
			continue
		case code == 0: // it is in the stream no longer
			missing++
			s.remove(h)
			continue
		}
		h.aside = true
		switch {
		case it.what == 'd' && code != 2:
			buried = append(buried, it)
			s.remove(h)
			continue
		case code == 2:
			it.delay = time.Minute
			s.group.log.log.Error("there are too many dead letters: an entry comes again", "log", s.group.log.cfg.Name, "group", s.group.cfg.Name, "id", h.d.ID)
		}
		h.known, h.nonce = h.receives, 0
		s.again(h, now.Add(it.delay))
	}
	s.group.mu.Unlock()
	s.missed(missing)
	s.wakeUp()
	if hook := s.group.log.cfg.Hooks.Buried; hook != nil {
		for _, it := range buried {
			hook(it.h.d.ID, it.reason)
		}
	}
}

// bury sends entries to the dead letters that were delivered too often, or can't be read.
func (s *share) bury(ctx context.Context, dead []*held) error {
	batch := make([]*settlingEntry, len(dead))
	for i, h := range dead {
		reason := h.reason
		if reason == "" {
			reason = fmt.Sprintf("delivered %d times, and never acknowledged", h.receives)
		}
		batch[i] = &settlingEntry{h: h, what: 'd', reason: reason}
	}
	codes, err := s.nack(ctx, batch)
	if err != nil {
		return err
	}
	s.settled(batch, codes, nil)
	return nil
}

// moveAside moves entries out of the stream that are not done for long. Whatever happens to them goes on.
func (s *share) moveAside(ctx context.Context, old []*held) error {
	batch := make([]*settlingEntry, len(old))
	for i, h := range old {
		batch[i] = &settlingEntry{h: h, what: 'm'}
	}
	codes, err := s.nack(ctx, batch)
	if err != nil {
		return err
	}
	missing := int64(0)
	s.group.mu.Lock()
	for i, h := range old {
		switch {
		case s.entries[h.id] != h: // it was settled meanwhile
		case codes[i] == 1:
			h.aside = true
		case !h.settling:
			missing++
			s.remove(h)
		}
	}
	s.group.mu.Unlock()
	s.missed(missing)
	return nil
}

package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed settle.lua
	settleLua string

	settle = script.New(settleLua)
)

const (
	minVisibility = 10 * time.Millisecond
	maxVisibility = 12 * time.Hour
	maxSettle     = 256  // receipts in one call
	maxReason     = 1024 // bytes
	maxReceipt    = 1024
)

var errTooLate = errors.New("queue: nack: the delay ends after the message's Retention")

// settling is a receipt on its way back.
type settling struct {
	what, member, why string
	err               error
}

// Ack says that the message of a receipt is done: it is gone. It works until the message is delivered again, also when its
// time in flight has passed; after that the error is [ErrNotHeld]. One round trip, which this process's calls at the same
// time share, as with Nack, Reject and Extend.
func (q *Queue) Ack(ctx context.Context, receipt string) error {
	return one(q.settle(ctx, "a", "", []string{receipt}))
}

// AckBatch acknowledges receipts, each for itself; nil says that all are done, else there is an error or nil for each. A
// round trip for each partition and 256 receipts.
func (q *Queue) AckBatch(ctx context.Context, receipts []string) []error {
	return q.settle(ctx, "a", "", receipts)
}

// Nack gives a message back that could not be handled: it can be received again after delay, from 0 to 12 h, or goes
// to the dead letters if it was received often enough. The reason, cut to 1,024 bytes, is kept for there. A delay that would end more than Config.Retention after
// the first delivery is refused: the message would be gone by then.
func (q *Queue) Nack(ctx context.Context, receipt string, delay time.Duration, reason string) error {
	if delay < 0 || delay > maxVisibility {
		return fmt.Errorf("queue: nack: delay is %v, not from 0 to %v", delay, maxVisibility)
	}
	return one(q.settle(ctx, "n"+strconv.FormatInt(delay.Milliseconds(), 10), reason, []string{receipt}))
}

// Reject sends a message to the dead letters at once. The error is [ErrNoDeadLetters] if there are none.
func (q *Queue) Reject(ctx context.Context, receipt, reason string) error {
	return one(q.settle(ctx, "r", reason, []string{receipt}))
}

// Extend lets a message be in flight for visibility from now on: 10 ms to 12 h, or zero, which gives it back without a
// reason. A later delivery makes the receipt invalid, as with [Queue.Ack].
func (q *Queue) Extend(ctx context.Context, receipt string, visibility time.Duration) error {
	return one(q.ExtendBatch(ctx, []string{receipt}, visibility))
}

// ExtendBatch extends receipts, each for itself; nil says that all are, else there is an error or nil for each.
func (q *Queue) ExtendBatch(ctx context.Context, receipts []string, visibility time.Duration) []error {
	if visibility != 0 && (visibility < minVisibility || visibility > maxVisibility) {
		return all(len(receipts), fmt.Errorf("queue: extend: visibility is %v, not from %v to %v, or zero", visibility, minVisibility, maxVisibility))
	}
	return q.settle(ctx, "e"+strconv.FormatInt(visibility.Milliseconds(), 10), "", receipts)
}

func one(errs []error) error {
	if errs == nil {
		return nil
	}
	return errs[0]
}

func all(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

func (q *Queue) settle(ctx context.Context, what, why string, receipts []string) []error {
	s, err := q.opened(ctx)
	if err != nil {
		return all(len(receipts), err)
	}
	if len(why) > maxReason {
		why = strings.ToValidUTF8(why[:maxReason], "")
	}
	items := make([]*settling, len(receipts))
	parts := make(map[*partition][]*settling, 1)
	for i, receipt := range receipts {
		it := &settling{what: what, why: why}
		items[i] = it
		p, member, ok := s.receipt(receipt)
		if !ok {
			it.err = ErrNotHeld
			continue
		}
		it.member = member
		parts[p] = append(parts[p], it)
	}
	gone := beside(parts, func(p *partition, batch []*settling) error { return p.settles.do(ctx, batch) })
	if gone != nil {
		return all(len(receipts), fmt.Errorf("queue: %w", gone))
	}
	errs := make([]error, len(items))
	bad := false
	for i, it := range items {
		errs[i] = it.err
		bad = bad || it.err != nil
	}
	if !bad {
		return nil
	}
	return errs
}

// receipt takes a receipt apart; ok is false for what can't be one.
func (s *state) receipt(receipt string) (p *partition, member string, ok bool) {
	index, member, found := strings.Cut(receipt, ":")
	i, err := strconv.ParseUint(index, 10, 16)
	if !found || err != nil || i >= uint64(len(s.parts)) || strconv.FormatUint(i, 10) != index || len(receipt) > maxReceipt ||
		strings.Count(member, ":") < 5 || strings.ContainsAny(member, " \n") {
		return nil, "", false
	}
	return s.parts[i], member, true
}

// settleAll settles a batch in one call.
func (q *Queue) settleAll(ctx context.Context, s *state, p *partition, batch []*settling) {
	args := make([]string, 1, 2+3*len(batch))
	mode := "a"
	for _, it := range batch {
		if it.what != "a" {
			mode = "m"
		}
	}
	args[0] = mode + strconv.Itoa(len(batch))
	for _, it := range batch {
		if mode == "a" {
			args = append(args, it.member)
		} else {
			args = append(args, it.what, it.member, it.why)
		}
	}
	reply, err := q.onPartition(ctx, s, p, func() ([]valkey.ValkeyMessage, error) { return q.exec(ctx, settle, p.keys, args) })
	if err == nil && len(reply) != 1+len(batch) {
		err = fmt.Errorf("the server answered %d values for %d receipts", len(reply), len(batch))
	}
	if err != nil && !errors.Is(err, ErrDeleted) {
		err = fmt.Errorf("queue: %w", err)
	}
	for i, it := range batch {
		it.err = err
		if err != nil {
			continue
		}
		switch code, err := reply[1+i].AsInt64(); {
		case err != nil:
			it.err = fmt.Errorf("queue: %w", err)
		case code == 0:
			it.err = ErrNotHeld
		case code == 3:
			it.err = errTooLate
		case code == 2:
			it.err = ErrNoDeadLetters
		}
	}
	if err != nil {
		return
	}
	if hook := q.cfg.Hooks.Settled; hook != nil {
		hook(len(batch))
	}
	if dying, _ := number(reply, 0); dying > 0 {
		q.moving.start(s)
	}
}

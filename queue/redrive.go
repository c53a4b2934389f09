package queue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// RedriveOptions say what goes back, and how fast.
type RedriveOptions struct {
	// To is the queue that gets the messages; it has to be there. Empty is the one where each of them failed; those of which that is unknown are left.
	To string
	// PerSecond is how many messages are moved in a second at most. Zero means no limit.
	PerSecond int
	// Max is after how many messages to stop. Zero moves what there is.
	Max int
	// Progress is called after each batch with how many were moved so far. It may be nil.
	Progress func(moved int)
}

// redriveHold is how long a batch is in flight; who dies while it moves one leaves the rest for after that.
const redriveHold = time.Minute

// Redrive moves messages of this queue, a dead-letter queue as a rule, back to where they failed, or to another one. It
// returns how many were moved when the queue is empty, or at the end of ctx, which cancels it between two batches: nothing
// is lost or doubled, also if this process dies. Messages keep their ids; they are sent anew and have not been received yet.
//
// It ends with an error after the first batch that did not move whole: with [ErrFull] if the other queue had no room. Those of the batch that it
// took are moved and counted, the rest is given back. If no answer came, it may have taken more than is counted: it does not take
// these again for a day, but another To would. [ErrNoQueue] says that there is no queue to move from, or none to move to: it is not made.
func (q *Queue) Redrive(ctx context.Context, o RedriveOptions) (moved int, err error) {
	if o.PerSecond < 0 || o.Max < 0 {
		return 0, errors.New("queue: redrive: PerSecond and Max are not less than zero")
	}
	if o.To == q.cfg.Name {
		return 0, errors.New("queue: redrive: To is the queue itself")
	}
	if err := q.exists(ctx); err != nil { // Receive would make it
		return 0, err
	}
	begin := time.Now()
	for {
		batch := maxMove
		if o.PerSecond > 0 {
			batch = min(batch, max(1, o.PerSecond/10))
		}
		if o.Max > 0 {
			batch = min(batch, o.Max-moved)
		}
		if batch == 0 {
			return moved, nil
		}
		if err := ctx.Err(); err != nil {
			return moved, fmt.Errorf("queue: redrive: %w", err)
		}
		ds, err := q.Receive(ctx, ReceiveOptions{Max: batch, Visibility: redriveHold})
		if err != nil || len(ds) == 0 {
			return moved, err
		}
		n, err := q.moveBack(ctx, ds, o.To)
		moved += n
		if o.Progress != nil {
			o.Progress(moved)
		}
		if err != nil {
			return moved, err
		}
		if o.PerSecond > 0 {
			due := begin.Add(time.Duration(float64(moved) / float64(o.PerSecond) * float64(time.Second)))
			timer := time.NewTimer(time.Until(due))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
		}
	}
}

// moveBack moves deliveries, each to where it belongs; a batch that has begun goes on after the end of ctx.
func (q *Queue) moveBack(ctx context.Context, ds []*Delivery, to string) (n int, err error) {
	ctx, cancel := q.bounded(context.WithoutCancel(ctx))
	defer cancel()
	targets := map[string][]*Delivery{}
	for _, d := range ds {
		name := to
		if name == "" && d.Dead != nil {
			name = d.Dead.Queue
		}
		if name == q.cfg.Name {
			name = ""
		}
		targets[name] = append(targets[name], d)
	}
	var left []*Delivery
	for name, batch := range targets {
		if name == "" {
			left = append(left, batch...)
			err = errors.Join(err, fmt.Errorf("queue: redrive: of %d messages it is not known where they failed; use To", len(batch)))
			continue
		}
		moved, stay, failed := q.moveTo(ctx, batch, name)
		n += moved
		left = append(left, stay...)
		err = errors.Join(err, failed)
	}
	if len(left) > 0 {
		receipts := make([]string, len(left))
		for i, d := range left {
			receipts[i] = d.Receipt
		}
		q.ExtendBatch(ctx, receipts, 0) // where that fails, their time in flight ends
	}
	return n, err
}

// moveTo acknowledges and counts what the target has taken, and returns what is still here. Of that the target may have some too, if no
// answer came: it does not take them again.
func (q *Queue) moveTo(ctx context.Context, ds []*Delivery, name string) (n int, stay []*Delivery, err error) {
	target, err := q.sibling(name)
	if err != nil {
		return 0, ds, err
	}
	sent, err := target.put(ctx, q.cfg.Name, ds, false)
	if err != nil {
		err = fmt.Errorf("queue: redrive: to %q: %w", name, err)
	}
	var receipts []string
	var taken []*Delivery
	for i, d := range ds {
		if sent[i].Err != nil {
			stay = append(stay, d)
			continue
		}
		receipts, taken = append(receipts, d.Receipt), append(taken, d)
	}
	if len(taken) == 0 {
		return 0, stay, err
	}
	errs := q.AckBatch(ctx, receipts)
	if errs == nil {
		return len(taken), stay, err
	}
	var failed error
	for i, d := range taken {
		switch {
		case errs[i] == nil:
			n++
		case !errors.Is(errs[i], ErrNotHeld): // else it is somebody else's to count
			stay, failed = append(stay, d), errs[i]
		}
	}
	return n, stay, errors.Join(err, failed)
}

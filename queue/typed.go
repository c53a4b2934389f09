package queue

import (
	"context"
	"encoding/json"
	"fmt"
)

// SendJSON sends v as JSON: m says the rest, and its Body is ignored. Round trips as of [Queue.Send].
func SendJSON[T any](ctx context.Context, q *Queue, v T, m Message) (Sent, error) {
	body, err := json.Marshal(v)
	if err != nil {
		err = fmt.Errorf("queue: send: %w", err)
		return Sent{Err: err}, err
	}
	m.Body = body
	return q.Send(ctx, m)
}

// Handle makes a Handler of a func that takes the message's body as JSON of T. A body that is not goes to the dead letters: it
// would never be.
func Handle[T any](f func(ctx context.Context, v T, d *Delivery) error) Handler {
	return func(ctx context.Context, d *Delivery) error {
		var v T
		if err := json.Unmarshal(d.Body, &v); err != nil {
			return Reject(fmt.Errorf("the body is no %T: %w", v, err))
		}
		return f(ctx, v, d)
	}
}

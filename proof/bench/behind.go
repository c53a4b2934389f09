package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cache/writebehind"
)

// behindAck compares the acknowledgement of a write, value and log entry together, with an entry of a stream. One caller, 200
// bytes, a thousand keys, which are drained meanwhile.
func behindAck(ctx context.Context, b *B, addr string) Row {
	names := cacheNames()
	store, err := writebehind.New(connectTo(ctx, b, addr), writebehind.Config[string]{
		Name: "ack", Origin: func(context.Context, []writebehind.Write[string]) error { return nil },
	})
	b.Must(err)
	b.Must(store.Start(ctx))
	b.Cleanup(func() { _ = store.Close(context.WithoutCancel(ctx)) })
	raw := connectTo(ctx, b, addr)
	value := strings.Repeat("x", 200)
	return Row{
		Name: "write-behind-ack", Unit: "us", Better: "lower",
		Ours: latency(func(ctx context.Context, i int) error { return store.Put(ctx, names[i%cacheKeys], value) }),
		Peers: []Peer{{"raw XADD", latency(func(ctx context.Context, i int) error {
			add := raw.B().Xadd().Key("ack:log").Maxlen().Almost().Threshold(strconv.Itoa(100_000)).Id("*").
				FieldValue().FieldValue("key", names[i%cacheKeys]).FieldValue("value", value).Build()
			return raw.Do(ctx, add).Error()
		})}},
	}
}

// latency is a round of one caller that returns the mean time of an op, in microseconds.
func latency(op func(ctx context.Context, i int) error) Round {
	return func(ctx context.Context, d time.Duration) (float64, error) {
		begin, n := time.Now(), 0
		for ; time.Since(begin) < d; n++ {
			if err := op(ctx, n); err != nil {
				return 0, err
			}
		}
		return float64(time.Since(begin).Nanoseconds()) / 1000 / float64(n), nil
	}
}

package lock_test

import (
	"context"
	"errors"
	"log"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/valkey-io/valkey-go"
)

var clients []valkey.Client // three, each from flatrate.Connect to a server of its own

// The nightly report is made once, even if one of the three servers is lost with its data.
func ExampleNewRedlock() {
	redlock, err := lock.NewRedlock(clients, lock.RedlockConfig{TTL: 30 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	// Acquire and Do try on while servers are away: the context says for how long.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = redlock.Do(ctx, "nightly-report", func(ctx context.Context) error {
		// Make the report, and stop when ctx ends: the lock may be somebody else's then.
		return ctx.Err()
	})
	if errors.Is(err, lock.ErrNotHeld) {
		log.Print("lost the lock while making the report: ", err)
	}
}

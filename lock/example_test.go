package lock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/valkey-io/valkey-go"
)

var client valkey.Client // from flatrate.Connect

// One process charges the invoice; the others see that it is being done.
func ExampleLocker_TryAcquire() {
	ctx := context.Background()
	locker, err := lock.New(client, lock.Config{TTL: 30 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	held, ok, err := locker.TryAcquire(ctx, "invoice:42")
	if err != nil {
		log.Fatal(err)
	}
	if !ok {
		fmt.Println("another process is charging invoice 42")
		return
	}
	defer func() {
		if err := held.Release(ctx); errors.Is(err, lock.ErrNotHeld) {
			log.Print("charging took longer than the lock lasted")
		}
	}()
	// Charge it, with the invoice's number as the payment's idempotency key: the lock saves work,
	// the key is what makes a second charge impossible.
}

// A wait is as long as its context.
func ExampleLocker_Acquire() {
	locker, err := lock.New(client, lock.Config{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	held, err := locker.Acquire(ctx, "nightly-report")
	if err != nil {
		log.Fatal(err) // somebody held it for the whole 5 seconds, or the server is away
	}
	// ... a part of the work ...
	if err := held.Extend(ctx, time.Minute); err != nil {
		log.Fatal(err) // lost: stop working
	}
	// ... the rest ...
	if err := held.Release(ctx); err != nil {
		log.Print(err)
	}
}

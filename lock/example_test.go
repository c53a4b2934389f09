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

func charge(ctx context.Context, _ int) error { return ctx.Err() } // your work

// The shortest way: wait, work, release.
func ExampleLocker_Do() {
	locker, err := lock.New(client, lock.Config{})
	if err != nil {
		log.Fatal(err)
	}
	err = locker.Do(context.Background(), "invoice:42", func(ctx context.Context) error {
		return charge(ctx, 42) // ctx ends if the lock is lost
	})
	if errors.Is(err, lock.ErrNotHeld) {
		log.Print("somebody else may be charging invoice 42 by now")
	}
}

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
		if err := held.Release(ctx); err != nil {
			log.Print(err)
		}
	}()
	if err := charge(held.Context(), 42); err != nil {
		log.Print(err)
	}
}

// A wait is as long as its context; the fence goes with every write to the resource.
func ExampleLocker_Acquire() {
	locker, err := lock.New(client, lock.Config{MaxHold: 10 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	held, err := locker.Acquire(ctx, "nightly-report")
	if err != nil {
		log.Fatal(err) // somebody held it for the whole 5 seconds, or the server is away
	}
	fmt.Println("UPDATE report SET fence = $1 WHERE id = $2 AND fence < $1", held.Fence())
	if err := held.Release(ctx); err != nil {
		log.Print(err)
	}
}

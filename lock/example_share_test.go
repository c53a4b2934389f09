package lock_test

import (
	"context"
	"log"

	"github.com/flatrate/flatrate/lock"
)

func read(ctx context.Context) error  { return ctx.Err() } // your work
func write(ctx context.Context) error { return ctx.Err() }

// At most five processes make reports at a time; the others wait in order.
func ExampleSemaphore_Do() {
	pool, err := lock.NewSemaphore(client, lock.SemaphoreConfig{Limit: 5})
	if err != nil {
		log.Fatal(err)
	}
	if err := pool.Do(context.Background(), "reports", read); err != nil {
		log.Print(err)
	}
}

// Many read the prices together; who changes them is alone.
func ExampleRW() {
	catalog, err := lock.NewRW(client, lock.Config{})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := catalog.DoRead(ctx, "prices", read); err != nil {
		log.Print(err)
	}
	if err := catalog.DoWrite(ctx, "prices", write); err != nil {
		log.Print(err)
	}
}

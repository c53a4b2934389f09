package writebehind_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/valkey-io/valkey-go"
)

var client valkey.Client // from flatrate.Connect

type position struct{ Lat, Lon float64 }

// save writes a batch to where positions belong. The version makes a repetition harmless.
func save(ctx context.Context, batch []writebehind.Write[position]) error {
	for _, w := range batch {
		fmt.Println(w.Key, w.Value, w.Deleted, w.Version)
	}
	return ctx.Err()
}

// A service that writes positions often: each is acknowledged in one round trip, and saved within a second.
func ExampleNew() {
	ctx := context.Background()
	positions, err := writebehind.New(client, writebehind.Config[position]{Name: "position", Origin: save})
	if err != nil {
		log.Fatal(err)
	}
	if err := positions.Start(ctx); err != nil {
		log.Fatal(err) // as where the server may evict the log
	}
	defer func() {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if err := positions.Close(ctx); err != nil { // what waits is saved first
			log.Print(err)
		}
	}()
	if err := positions.Put(ctx, "courier:42", position{52.52, 13.40}); err != nil {
		log.Print(err)
	}
}

// Get returns what was written last, saved or not, and else loads it.
func ExampleStore_Get() {
	positions, err := writebehind.New(client, writebehind.Config[position]{Name: "position"})
	if err != nil {
		log.Fatal(err)
	}
	p, err := positions.Get(context.Background(), "courier:42", func(context.Context) (position, error) {
		return position{}, writebehind.ErrNotFound // ask the database here
	})
	switch {
	case errors.Is(err, writebehind.ErrNotFound):
		fmt.Println("nobody knows where it is")
	case err != nil:
		log.Print(err)
	default:
		fmt.Println(p.Lat, p.Lon)
	}
}

// An API that takes a batch and says which items it refuses.
func ExampleRejected() {
	send := func(context.Context, []writebehind.Write[position]) (refused map[string]string, err error) {
		return nil, nil
	}
	origin := func(ctx context.Context, batch []writebehind.Write[position]) error {
		refused, err := send(ctx, batch)
		if err != nil {
			return err // nobody knows what was done: all are tried again, in halves
		}
		rejected := writebehind.Rejected{}
		for i, w := range batch {
			if reason, no := refused[w.Key]; no {
				rejected[i] = errors.New(reason)
			}
		}
		if len(rejected) > 0 {
			return rejected // the others are done
		}
		return nil
	}
	if _, err := writebehind.New(client, writebehind.Config[position]{Origin: origin}); err != nil {
		log.Fatal(err)
	}
}

// Dead letters are looked at, and written again once their cause is gone.
func ExampleStore_DeadLetters() {
	ctx := context.Background()
	positions, err := writebehind.New(client, writebehind.Config[position]{Name: "position"})
	if err != nil {
		log.Fatal(err)
	}
	for letter, err := range positions.DeadLetters(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		log.Printf("%s: %s, after %d tries", letter.Key, letter.Reason, letter.Tries)
		if _, err := positions.Replay(ctx, letter.Key, letter.Version); err != nil {
			log.Print(err)
		}
	}
}

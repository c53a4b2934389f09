package object_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/flatrate/flatrate/cache/object"
	"github.com/valkey-io/valkey-go"
)

var client valkey.Client // from flatrate.Connect

type profile struct {
	Name   string `cache:"name"`
	Email  string `cache:"email,omitempty"`
	Visits int64  `cache:"visits"`
}

func ExampleNew() {
	ctx := context.Background()
	profiles, err := object.New[profile](client, object.Config{Name: "profile", TTL: time.Hour})
	if err != nil {
		log.Fatal(err) // as of a field that can't be stored
	}
	if err := profiles.Set(ctx, "user:42", profile{Name: "Ann"}); err != nil {
		log.Print(err)
	}
	if p, ok, err := profiles.Get(ctx, "user:42"); err == nil && ok {
		fmt.Println(p.Name)
	}
}

// One field is read and changed without the rest.
func ExampleFieldOf() {
	ctx := context.Background()
	profiles, err := object.New[profile](client, object.Config{Name: "profile"})
	if err != nil {
		log.Fatal(err)
	}
	email, err := object.FieldOf[string](profiles, "email")
	if err != nil {
		log.Fatal(err)
	}
	ok, err := email.CompareAndSet(ctx, "user:42", "old@example.com", "new@example.com")
	if err != nil {
		log.Print(err)
	}
	if !ok {
		fmt.Println("somebody else has changed it, or there is no such user")
	}
}

func ExampleNumberOf() {
	profiles, err := object.New[profile](client, object.Config{Name: "profile"})
	if err != nil {
		log.Fatal(err)
	}
	visits, err := object.NumberOf[int64](profiles, "visits")
	if err != nil {
		log.Fatal(err)
	}
	if n, ok, err := visits.Add(context.Background(), "user:42", 1); err == nil && ok {
		fmt.Println(n, "visits")
	}
}

// A code that ends by itself needs Valkey 9.0 or Redis 7.4.
func ExampleField_Expire() {
	profiles, err := object.New[profile](client, object.Config{Name: "profile"})
	if err != nil {
		log.Fatal(err)
	}
	email, err := object.FieldOf[string](profiles, "email")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := email.Expire(context.Background(), "user:42", time.Minute); errors.Is(err, object.ErrNoFieldTTL) {
		log.Print("an older server: the whole object ends, or nothing")
	}
}

// Which form is smaller depends on the struct and on the server.
func ExampleAdvise() {
	sample := profile{Name: "Ann Example", Email: "ann@example.com", Visits: 12345}
	for _, s := range []object.Server{{Kind: "valkey", Major: 8, Minor: 0}, {Kind: "valkey", Major: 9, Minor: 1}} {
		a, err := object.Advise(s, "fr:obj:profile:{user:42}", true, sample)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %d.%d: a string takes %.0f bytes, a hash %.0f: %s saves %.0f%%\n", s.Kind, s.Major, s.Minor, a.String, a.Hash, a.Smaller, 100*a.Saving)
	}
	// Output:
	// valkey 8.0: a string takes 199 bytes, a hash 183: hash saves 8%
	// valkey 9.1: a string takes 138 bytes, a hash 154: string saves 10%
}

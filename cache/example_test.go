package cache_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/valkey-io/valkey-go"
)

var client valkey.Client // from flatrate.Connect

type profile struct{ Name, Plan string }

func loadProfile(context.Context) (profile, error) { return profile{"Ann", "pro"}, nil } // from your database

// Profiles are read from the database once in five minutes.
func ExampleCache_Get() {
	profiles, err := cache.New[profile](client, cache.Config{Name: "profile", TTL: 5 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	p, err := profiles.Get(context.Background(), "user:42", loadProfile)
	if err != nil {
		log.Fatal(err) // the database's error
	}
	fmt.Println(p.Name)
}

// Whoever changes a profile removes the old one.
func ExampleCache_Delete() {
	profiles, err := cache.New[profile](client, cache.Config{Name: "profile"})
	if err != nil {
		log.Fatal(err)
	}
	// ... write to the database, then:
	if err := profiles.Delete(context.Background(), "user:42"); err != nil {
		log.Print("the old profile may be shown for up to 5 minutes: ", err)
	}
}

package cache_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/valkey-io/valkey-go"
)

var client valkey.Client // from flatrate.Connect

type profile struct{ Name, Plan string }

func loadProfile(context.Context) (profile, error) { return profile{"Ann", "pro"}, nil } // from your database

func selectProfiles(context.Context, []string) (map[string]profile, error) { return nil, nil }

func storeProfile(context.Context, profile) error { return nil }

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

// A page that shows a hundred profiles loads those that are missing in one query.
func ExampleCache_GetMany() {
	profiles, err := cache.New[profile](client, cache.Config{Name: "profile"})
	if err != nil {
		log.Fatal(err)
	}
	found, err := profiles.GetMany(context.Background(), []string{"user:42", "user:43"},
		func(ctx context.Context, missing []string) (map[string]profile, error) {
			return selectProfiles(ctx, missing) // SELECT ... WHERE id IN (...)
		})
	if err != nil {
		log.Print("some are missing: ", err)
	}
	fmt.Println(found["user:42"].Name)
}

// All entries of a tenant go in one round trip.
func ExampleCache_DeleteTags() {
	pages, err := cache.New[string](client, cache.Config{
		Name: "page",
		Tags: func(key string) []string {
			tenant, _, _ := strings.Cut(key, "/")
			return []string{tenant}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := pages.DeleteTags(context.Background(), "tenant-7"); err != nil {
		log.Print("old pages may be shown for up to 5 minutes: ", err)
	}
}

// Whoever reads after a write gets what was written.
func ExampleCache_Write() {
	profiles, err := cache.New[profile](client, cache.Config{Name: "profile"})
	if err != nil {
		log.Fatal(err)
	}
	err = profiles.Write(context.Background(), "user:42", profile{"Ann", "free"}, storeProfile)
	switch {
	case errors.Is(err, cache.ErrUnfenced):
		log.Print("stored; the old profile may be shown for up to 5 minutes: ", err)
	case err != nil:
		log.Fatal(err) // the database's error
	}
}

// The hottest entries are kept in the process; slow loads happen in the background.
func ExampleConfig() {
	rates, err := cache.New[map[string]float64](client, cache.Config{
		Name:                 "rates",
		TTL:                  time.Minute,
		StaleWhileRevalidate: 5 * time.Minute,
		StaleIfError:         time.Hour,
		Local:                cache.LocalTier{Entries: 1000, TTL: 10 * time.Second},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer rates.Close()
}

package ratehttp_test

import (
	"log"
	"net/http"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratehttp"
	"github.com/valkey-io/valkey-go"
)

var client valkey.Client // from flatrate.Connect

// A hundred requests a minute for each address, behind a load balancer.
func ExampleNew() {
	limiter, err := ratelimit.New(client, ratelimit.Config{Limits: []ratelimit.Limit{{Limit: 100, Window: time.Minute}}})
	if err != nil {
		log.Fatal(err)
	}
	address, err := ratehttp.Address(ratehttp.AddressConfig{Trusted: []string{"10.0.0.0/8"}})
	if err != nil {
		log.Fatal(err)
	}
	limits, err := ratehttp.New(ratehttp.Config{Limiter: limiter, Key: address})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", limits.Handler(mux)))
}

// Users with an API key have a limit of their own kind; who has none is limited by address. Both count what
// they would deny before they deny it.
func ExampleFirst() {
	limiter, err := ratelimit.New(client, ratelimit.Config{Limits: []ratelimit.Limit{
		{Algorithm: ratelimit.TokenBucket, Limit: 10, Window: time.Second, Burst: 50},
		{Algorithm: ratelimit.Quota, Limit: 100_000, Period: ratelimit.Month},
	}})
	if err != nil {
		log.Fatal(err)
	}
	address, err := ratehttp.Address(ratehttp.AddressConfig{})
	if err != nil {
		log.Fatal(err)
	}
	limits, err := ratehttp.New(ratehttp.Config{
		Limiter: limiter,
		Key:     ratehttp.First(ratehttp.Header("X-API-Key"), address),
		Shadow:  true,
		Hooks: ratehttp.Hooks{Decided: func(r *http.Request, d ratehttp.Decision) {
			if !d.Allowed {
				log.Printf("%s would get %d", r.URL.Path, d.Status)
			}
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/api/", limits.Handler(http.NotFoundHandler()))
}

// A user and the user's organisation, all or nothing.
func ExampleConfig_asks() {
	users, err := ratelimit.New(client, ratelimit.Config{Name: "user", Limits: []ratelimit.Limit{{Limit: 100, Window: time.Minute}}})
	if err != nil {
		log.Fatal(err)
	}
	organisations, err := ratelimit.New(client, ratelimit.Config{Name: "org", Limits: []ratelimit.Limit{{Limit: 1000, Window: time.Minute}}})
	if err != nil {
		log.Fatal(err)
	}
	_, err = ratehttp.New(ratehttp.Config{Asks: func(r *http.Request) ([]ratelimit.Ask, error) {
		user, organisation := r.Header.Get("X-User"), r.Header.Get("X-Organisation") // set by your authentication
		if user == "" || organisation == "" {
			return nil, ratehttp.ErrNoKey
		}
		return []ratelimit.Ask{{Limiter: users, Subject: user}, {Limiter: organisations, Subject: organisation}}, nil
	}})
	if err != nil {
		log.Fatal(err)
	}
}

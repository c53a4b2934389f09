package ratelimit_test

import (
	"context"
	"log"
	"net/http"
	"strconv"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/valkey-io/valkey-go"
)

var client valkey.Client // from flatrate.Connect

// A hundred requests a minute for each user.
func ExampleLimiter_Allow() {
	limiter, err := ratelimit.New(client, ratelimit.Config{Limits: []ratelimit.Limit{{Limit: 100, Window: time.Minute}}})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/api", func(w http.ResponseWriter, r *http.Request) {
		user := r.Header.Get("X-User") // set by your authentication
		result, err := limiter.Allow(r.Context(), user)
		if err != nil {
			// The server can't be asked. Going on means no limit while it is away: decide.
			log.Print(err)
		} else if !result.Allowed {
			seconds := int(result.RetryAfter.Seconds()) + 1
			w.Header().Set("Retry-After", strconv.Itoa(seconds))
			http.Error(w, "too many requests", http.StatusTooManyRequests)
			return
		}
		_, _ = w.Write([]byte("hello\n"))
	})
}

// A request may cost more than one unit: here one for each 100 rows.
func ExampleLimiter_AllowN() {
	exports, err := ratelimit.New(client, ratelimit.Config{
		Name: "export",
		Limits: []ratelimit.Limit{
			{Algorithm: ratelimit.TokenBucket, Limit: 100, Window: time.Minute, Burst: 500},
			{Algorithm: ratelimit.Quota, Limit: 5000, Period: ratelimit.Day},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	result, err := exports.AllowN(context.Background(), "user:42", 120)
	if err != nil {
		log.Fatal(err)
	}
	if result.RetryAfter == ratelimit.Never {
		log.Print("this export is larger than a limit")
	}
}

// A user's requests count for the user and for the organisation, all or nothing.
func ExampleAllowAll() {
	users, err := ratelimit.New(client, ratelimit.Config{Name: "user", Limits: []ratelimit.Limit{{Limit: 100, Window: time.Minute}}})
	if err != nil {
		log.Fatal(err)
	}
	orgs, err := ratelimit.New(client, ratelimit.Config{Name: "org", Limits: []ratelimit.Limit{{Limit: 5000, Window: time.Minute}}})
	if err != nil {
		log.Fatal(err)
	}
	_, allowed, err := ratelimit.AllowAll(context.Background(),
		ratelimit.Ask{Limiter: users, Subject: "42"}, ratelimit.Ask{Limiter: orgs, Subject: "acme"})
	if err != nil {
		log.Fatal(err)
	}
	log.Print(allowed)
}

// At most three reports at a time for each user, also while the server is away.
func ExampleLimiter_Release() {
	reports, err := ratelimit.New(client, ratelimit.Config{
		Name:      "report",
		Limits:    []ratelimit.Limit{{Algorithm: ratelimit.Concurrency, Limit: 3, Lease: 5 * time.Minute}},
		Outage:    ratelimit.OutageLocal,
		Processes: 2, // each then allows one
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	result, err := reports.Allow(ctx, "user:42")
	if err != nil || !result.Allowed {
		return
	}
	defer func() {
		if _, err := reports.Release(ctx, "user:42", result); err != nil {
			log.Print(err) // the place ends with its lease
		}
	}()
	// ... write the report
}

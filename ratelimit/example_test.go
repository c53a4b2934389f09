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

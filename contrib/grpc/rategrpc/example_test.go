package rategrpc_test

import (
	"log"
	"time"

	"github.com/flatrate/flatrate/contrib/grpc/rategrpc"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratehttp"
	"github.com/valkey-io/valkey-go"
	"google.golang.org/grpc"
)

var client valkey.Client // from flatrate.Connect

// Ten calls a second for each API key, bursts of fifty; callers without one are limited by address.
func ExampleNew() {
	limiter, err := ratelimit.New(client, ratelimit.Config{Limits: []ratelimit.Limit{
		{Algorithm: ratelimit.TokenBucket, Limit: 10, Window: time.Second, Burst: 50},
	}})
	if err != nil {
		log.Fatal(err)
	}
	address, err := rategrpc.Address(ratehttp.AddressConfig{Trusted: []string{"10.0.0.0/8"}})
	if err != nil {
		log.Fatal(err)
	}
	limits, err := rategrpc.New(rategrpc.Config{
		Limiter: limiter,
		Key:     rategrpc.First(rategrpc.Metadata("x-api-key"), address),
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = grpc.NewServer(grpc.UnaryInterceptor(limits.Unary), grpc.StreamInterceptor(limits.Stream))
}

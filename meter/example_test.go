package meter_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/cost"
	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/meter"
)

// What a program's locks would have cost as conditional writes on DynamoDB.
func Example() {
	ctx := context.Background()
	client, err := flatrate.Connect(ctx, "valkey://localhost:6379")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	m, err := meter.New(client, meter.Config{Name: "shop"})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close(ctx)

	cfg := lock.Config{TTL: 30 * time.Second}
	cfg.Hooks = m.Lock(cfg.Hooks) // the one line
	locker, err := lock.New(client, cfg)
	if err != nil {
		log.Fatal(err)
	}
	_ = locker // ... the program's work

	days, err := meter.Read(ctx, client, meter.Config{Name: "shop"}, 30)
	if err != nil {
		log.Fatal(err)
	}
	workloads, span, err := meter.Month(days, meter.Options{})
	if err != nil {
		log.Fatal(err)
	}
	prices, err := cost.ListPrices("us-east-1")
	if err != nil {
		log.Fatal(err)
	}
	bill, err := prices.Bill(workloads[0].Usage, cost.Flat{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("after %v: $%.2f a month on DynamoDB\n", span, bill.MeteredUSD)
}

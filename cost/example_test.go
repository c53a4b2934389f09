package cost_test

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/flatrate/flatrate/cost"
)

// The sessions of 50,000 daily users on DynamoDB, beside the default pair of Valkey nodes. docs/cost.md
// shows the same arithmetic by hand.
func Example_sessions() {
	const users, requests = 50_000, 40
	day := cost.Usage{DynamoDB: cost.DynamoDB{
		Reads:       []cost.ItemReads{{Count: users * requests * 2, ItemBytes: 2048}},
		Writes:      []cost.ItemWrites{{Count: users * requests * 0.05, ItemBytes: 2048}},
		StoredBytes: users * 2048, // a session lives a day
	}}
	month, err := day.PerMonth(24 * time.Hour)
	if err != nil {
		fmt.Println(err)
		return
	}
	prices, err := cost.ListPrices("us-east-1")
	if err != nil {
		fmt.Println(err)
		return
	}
	bill, err := prices.Bill(month, cost.Flat{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range bill.PerService {
		for _, l := range s.Lines {
			fmt.Printf("%-8s %18.4f %-10s x $%v per %-7.0f = $%.2f\n", s.Name, l.Units, l.Unit, l.PriceUSD, l.Per, l.USD)
		}
	}
	fmt.Printf("metered $%.2f\n", bill.MeteredUSD)
	fmt.Printf("flat    $%.2f: %d x %s, %s\n", bill.FlatUSD, bill.Flat.Count, bill.Flat.Node, bill.Flat.Engine)
	fmt.Printf("metered - flat = $%.2f: DynamoDB is cheaper here\n", bill.DifferenceUSD)
	// Output:
	// dynamodb     120000000.0000 RRU        x $0.125 per 1000000 = $15.00
	// dynamodb       6000000.0000 WRU        x $0.625 per 1000000 = $3.75
	// dynamodb             0.0954 GB-month   x $0.25 per 1       = $0.02
	// metered $18.77
	// flat    $37.38: 2 x cache.t4g.small, valkey
	// metered - flat = $-18.60: DynamoDB is cheaper here
}

// What was counted in a log of 90 minutes, as a month.
func ExampleUsage_PerMonth() {
	counted := cost.Usage{
		DynamoDB: cost.DynamoDB{
			Reads: []cost.ItemReads{
				{Count: 9000, ItemBytes: 2048},                           // sessions
				{Count: 300, ItemBytes: 100, Consistency: cost.Eventual}, // feature flags
			},
			Writes: []cost.ItemWrites{{Count: 450, ItemBytes: 2048}},
		},
		APIGateway: cost.APIGateway{HTTPRequests: 10_000},
	}
	month, err := counted.PerMonth(90 * time.Minute)
	fmt.Println(month.DynamoDB.Reads[0].Count, month.APIGateway.HTTPRequests, err)

	_, err = counted.PerMonth(0) // a log of one line
	fmt.Println(err)
	// Output:
	// 4.32e+06 4.8e+06 <nil>
	// cost: invalid: span: 0s is not positive
}

// API Gateway's price falls by tier; each tier is a line of its own.
func ExamplePrices_Bill() {
	prices, err := cost.ListPrices("us-east-1")
	if err != nil {
		fmt.Println(err)
		return
	}
	usage := cost.Usage{APIGateway: cost.APIGateway{RESTRequests: 400e6, HTTPRequests: 120e6}}
	bill, err := prices.Bill(usage, cost.Flat{Node: "cache.t4g.medium"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, l := range bill.PerService[0].Lines {
		fmt.Printf("%.0f million %ss x $%.2f = $%.2f\n", l.Units/1e6, l.Unit, l.PriceUSD, l.USD)
	}
	fmt.Printf("%s $%.2f\n", bill.PerService[0].Name, bill.MeteredUSD)
	// Output:
	// 333 million REST requests x $3.50 = $1165.50
	// 67 million REST requests x $2.80 = $187.60
	// 120 million HTTP requests x $1.00 = $120.00
	// api_gateway $1473.10
}

// A price that isn't known is an error.
func ExampleListPrices() {
	prices, err := cost.ListPrices("us-east-1")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, source := range prices.Sources() {
		fmt.Println(source)
	}
	_, err = prices.Bill(cost.Usage{}, cost.Flat{Node: "cache.m8g.large", Engine: cost.Redis})
	fmt.Println(err)

	_, err = cost.ListPrices("mars-north-1")
	fmt.Println(err, errors.Is(err, cost.ErrNoPrice))
	// Output:
	// AWS Price List, read 2026-07-31
	// AWS list price, read 2026-03
	// AWS list price, read 2026
	// AWS list price, read 2026-06
	// AWS list price, read 2026-07-20
	// AWS Price List; maxmemory from the ElastiCache documentation, read 2026-10-02
	// EC2 list price; unverified; memory of the machine, read 2026
	// AWS list price; about, read 2026
	// cost: no known price: cache.m8g.large with engine redis
	// cost: no known price: region "mars-north-1": known are [us-east-1] true
}

// Two uses of metered services, and what to do with each.
func ExampleMeasured() {
	prices, err := cost.ListPrices("us-east-1")
	if err != nil {
		fmt.Println(err)
		return
	}
	sessions := cost.Usage{DynamoDB: cost.DynamoDB{
		Reads:       []cost.ItemReads{{Count: 1.2e9, ItemBytes: 2048}},
		Writes:      []cost.ItemWrites{{Count: 3e7, ItemBytes: 2048}},
		StoredItems: 500_000, StoredBytes: 500_000 * 2048,
	}}
	queue := cost.Usage{SQS: cost.SQS{Standard: []cost.Messages{{Count: 1e6, Bytes: 1024}}}}
	model := cost.Measured([]cost.Workload{{Name: "sessions", Usage: sessions}, {Name: "queue", Usage: queue}},
		cost.Flat{}, cost.Sizing{Headroom: 0.2, Peak: 5}, 0.25)
	e, err := prices.Estimate(model)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range e.Services {
		fmt.Printf("%-8s $%6.2f: %s\n", s.Name, s.MeteredUSD, s.Verdict)
	}
	fmt.Printf("%d x %s $%.2f, saving $%.2f to $%.2f\n", e.Flat.Count, e.Flat.Node, e.Flat.USD, e.Total.Low.SavingUSD, e.Total.High.SavingUSD)
	fmt.Printf("it depends most on %s\n", e.Sensitivity[0].Input)
	// Output:
	// sessions $187.75: switch
	// queue    $  0.80: switch
	// 2 x cache.t4g.medium $75.92, saving $65.46 to $159.81
	// it depends most on sessions: operations
}

// The article's load for sessions, and the number of users from which a pair of nodes costs less.
func ExamplePreset_Model() {
	prices, err := cost.ListPrices("us-east-1")
	if err != nil {
		fmt.Println(err)
		return
	}
	model, err := cost.Preset{Name: "sessions", Users: 50_000, Sizing: cost.Sizing{Headroom: 0.2, Peak: 5}}.Model()
	if err != nil {
		fmt.Println(err)
		return
	}
	e, err := prices.Estimate(model)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("$%.2f on DynamoDB, $%.2f on Serverless: %s\n", e.Total.MeteredUSD, e.Serverless.USD, e.Total.Verdict)
	for _, b := range e.BreakEven[:3] {
		fmt.Printf("%d x %s from %.0f users\n", b.Count, b.Node, b.Scale)
	}
	// Output:
	// $18.78 on DynamoDB, $8.82 on Serverless: serverless
	// 2 x cache.t4g.micro from 49768 users
	// 2 x cache.t4g.small from 99537 users
	// 2 x cache.t4g.medium from 202184 users
}

// A table survives a file, as prices update keeps it.
func ExampleReadTable() {
	shipped, err := cost.Shipped()
	if err != nil {
		fmt.Println(err)
		return
	}
	var file bytes.Buffer
	if err := shipped.Write(&file); err != nil {
		fmt.Println(err)
		return
	}
	table, err := cost.ReadTable(&file)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(table.Regions(), len(table.Quotes()))
	// Output:
	// [us-east-1] 164
}

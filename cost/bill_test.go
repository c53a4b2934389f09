package cost

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// sessions is a month of so many daily users: 40 requests a day, two reads each, a write in every twentieth.
func sessions(t *testing.T, users float64, itemBytes int64, c Consistency) Usage {
	t.Helper()
	u, err := Usage{DynamoDB: DynamoDB{
		Reads:       []ItemReads{{Count: users * 40 * 2, ItemBytes: itemBytes, Consistency: c}},
		Writes:      []ItemWrites{{Count: users * 40 * .05, ItemBytes: itemBytes}},
		StoredBytes: users * float64(itemBytes),
	}}.PerMonth(24 * time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestSessionFigures(t *testing.T) {
	for _, c := range []struct {
		users         float64
		bytes         int64
		consistency   Consistency
		node          string
		metered, flat float64
	}{
		{50_000, 2048, Strong, "", 18.77, 37.38},
		{50_000, 2048, Eventual, "", 11.27, 37.38},
		{50_000, 2048, Transactional, "", 33.77, 37.38},
		{50_000, 2049, Strong, "", 20.65, 37.38}, // one byte more is 3 WRU
		{500_000, 2048, Strong, "cache.t4g.medium", 187.74, 75.92},
		{500_000, 2048, Eventual, "cache.t4g.medium", 112.74, 75.92},
	} {
		b := bill(t, sessions(t, c.users, c.bytes, c.consistency), Flat{Node: c.node})
		if cents(b.MeteredUSD) != c.metered || cents(b.FlatUSD) != c.flat {
			t.Errorf("%+v: metered %v, flat %v", c, b.MeteredUSD, b.FlatUSD)
		}
		if b.DifferenceUSD != b.MeteredUSD-b.FlatUSD {
			t.Errorf("difference %v", b.DifferenceUSD)
		}
	}
}

// Below the break-even the bill says that DynamoDB is cheaper, above it that the pair is.
func TestBreakEvenUsers(t *testing.T) {
	for _, c := range []struct {
		node             string
		strong, eventual float64
	}{
		{"cache.t4g.micro", 50e3, 83e3},
		{"cache.t4g.small", 100e3, 166e3},
		{"cache.t4g.medium", 202e3, 337e3},
	} {
		for consistency, users := range map[Consistency]float64{Strong: c.strong, Eventual: c.eventual} {
			below := bill(t, sessions(t, users*.99, 2048, consistency), Flat{Node: c.node}).DifferenceUSD
			above := bill(t, sessions(t, users*1.01, 2048, consistency), Flat{Node: c.node}).DifferenceUSD
			if below >= 0 || above <= 0 {
				t.Errorf("%s, %s: %v just below %v users, %v just above", c.node, consistency, below, users, above)
			}
		}
	}
}

func TestAPIGatewayTiers(t *testing.T) {
	for _, c := range []struct{ rest, http, usd float64 }{
		{rest: 120e6, usd: 420},
		{http: 120e6, usd: 120},
		{rest: 257e6, usd: 899.5},
		{rest: 333e6, usd: 1165.5},
		{rest: 334e6, usd: 1165.5 + 2.8},
		{rest: 1e9, usd: 1165.5 + 1867.6},
		{rest: 1001e6, usd: 1165.5 + 1867.6 + 2.38},
		{rest: 20e9, usd: 1165.5 + 1867.6 + 45220},
		{rest: 21e9, usd: 1165.5 + 1867.6 + 45220 + 1510},
		{http: 300e6, usd: 300},
		{http: 301e6, usd: 300.9},
		{http: 1e9, usd: 930},
		{rest: 120e6, http: 120e6, usd: 540},
		{rest: 1, usd: 3.5e-6},
	} {
		b := bill(t, Usage{APIGateway: APIGateway{RESTRequests: c.rest, HTTPRequests: c.http}}, Flat{})
		wantSums(t, b) // a tier that is just full leaves no empty line for the next
		if math.Abs(b.MeteredUSD-c.usd) > 1e-9*c.usd {
			t.Errorf("%+v: $%v", c, b.MeteredUSD)
		}
	}
}

func TestFlatSide(t *testing.T) {
	for _, c := range []struct {
		flat Flat
		usd  float64
	}{
		{Flat{}, 37.38},
		{Flat{Engine: Redis}, 46.72},
		{Flat{Count: 1}, 18.69},
		{Flat{Node: "cache.r7g.large", Count: 3, Engine: Valkey}, 383.69},
	} {
		if b := bill(t, Usage{}, c.flat); cents(b.FlatUSD) != c.usd {
			t.Errorf("%+v: $%v", c.flat, b.FlatUSD)
		}
	}
	b := bill(t, Usage{}, Flat{})
	if b.Flat.Flat != (Flat{Kind: Nodes, Node: "cache.t4g.small", Count: 2, Shards: 1, Engine: Valkey, Term: OnDemand}) || b.Flat.UsableBytes != 1103269724 {
		t.Errorf("defaults: %+v", b.Flat)
	}
	for stored, fits := range map[float64]bool{0: true, 848669018: true, 848669020: false, 1e12: false} {
		if b := bill(t, Usage{DynamoDB: DynamoDB{StoredBytes: stored}}, Flat{}); b.Flat.Fits != fits {
			t.Errorf("%v bytes: fits %v", stored, b.Flat.Fits)
		}
	}
}

func TestBillRefuses(t *testing.T) {
	p := listPrices(t)
	for _, c := range []struct {
		prices Prices
		usage  Usage
		flat   Flat
		want   error
		word   string
	}{
		{p, Usage{}, Flat{Node: "cache.z9.small"}, ErrNoPrice, "cache.z9.small"},
		{p, Usage{}, Flat{Node: "cache.r8g.large", Engine: Redis}, ErrNoPrice, "redis"},
		{p, Usage{}, Flat{Engine: "keydb"}, ErrInvalid, "flat.engine"},
		{p, Usage{}, Flat{Count: -1}, ErrInvalid, "flat.count"},
		{p, Usage{}, Flat{Count: 1001}, ErrInvalid, "flat.count"},
		{p, Usage{APIGateway: APIGateway{HTTPRequests: -1}}, Flat{}, ErrInvalid, "api_gateway.http_requests"},
		{Prices{}, Usage{}, Flat{}, ErrNoPrice, "cache.t4g.small"},
		{Prices{nodes: p.nodes}, full(), Flat{}, ErrNoPrice, "dynamodb RRU"},
		{p, Usage{Database: Database{Reads: 1, HitRate: 1}}, Flat{}, ErrNoPrice, "database.usd_per_million"},
		{p, Usage{}, Flat{Kind: "cloud"}, ErrInvalid, "flat.kind"},
		{p, Usage{}, Flat{Shards: 501}, ErrInvalid, "flat.shards"},
		{p, Usage{}, Flat{Redlock: -1}, ErrInvalid, "flat.redlock"},
		{p, Usage{}, Flat{CrossAZ: 1.1}, ErrInvalid, "flat.cross_az"},
		{p, Usage{}, Flat{NodeUSDPerHour: math.NaN()}, ErrInvalid, "flat.node_usd_per_hour"},
		{p, Usage{}, Flat{Term: "3y"}, ErrNoPrice, "3y"},
		{p, Usage{}, Flat{Term: "savings-plan"}, ErrNoPrice, "savings-plan"},
		{p, Usage{}, Flat{Kind: Serverless, Term: OneYear}, ErrNoPrice, "Serverless"},
		{p, Usage{}, Flat{Kind: MemoryDB, Node: "db.t4g.small"}, ErrNoPrice, "db.t4g.small"},
		{p, Usage{}, Flat{Kind: MemoryDB, Node: "cache.t4g.small"}, ErrNoPrice, "no node of memorydb"},
		{p, Usage{}, Flat{Kind: SelfHosted, Node: "m7g.large"}, ErrNoPrice, "m7g.large"},
		{p, Usage{}, Flat{Redlock: 3, RedlockNode: "cache.x1.large"}, ErrNoPrice, "flat.redlock_node"},
	} {
		b, err := c.prices.Bill(c.usage, c.flat)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.word) || b.PerService != nil || b.FlatUSD != 0 {
			t.Errorf("%+v: got %v, %+v", c.flat, err, b)
		}
	}
}

func TestBillJSON(t *testing.T) {
	text := func(u Usage) string {
		j, err := json.Marshal(bill(t, u, Flat{}))
		if err != nil {
			t.Fatal(err)
		}
		return string(j)
	}
	flat := `"flat":{"kind":"nodes","node":"cache.t4g.small","count":2,"shards":1,"engine":"valkey","term":"on-demand","usd_per_hour":0.0256,` +
		`"usable_bytes":1103269724,"fits":true,"usd":37.376000000000005,"lines":[{"unit":"node hour","units":1460,"price_usd":0.0256,"per":1,"usd":37.376000000000005}]},` +
		`"flat_usd":37.376000000000005,`
	if got, want := text(Usage{}), `{"region":"us-east-1","per_service":[],"metered_usd":0,`+flat+`"difference_usd":-37.376000000000005}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	want := `{"region":"us-east-1","per_service":[{"name":"api_gateway","usd":4,"lines":[{"unit":"HTTP request",` +
		`"units":4000000,"price_usd":1,"per":1000000,"usd":4}]}],"metered_usd":4,` + flat + `"difference_usd":-33.376000000000005}`
	if got := text(Usage{APIGateway: APIGateway{HTTPRequests: 4e6}}); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// For random usages: the lines add up, more of anything never costs less, and doubling everything doubles the
// bill except where a tier makes the second half cheaper.
func TestBillProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		u := random(rng)
		b := bill(t, u, Flat{})
		wantSums(t, b)

		for name := range numbers(&u) {
			if free[name] {
				continue
			}
			more := u.clone()
			*numbers(&more)[name] += 1 + rng.Float64()*1e9
			if name == "database.hit_rate" {
				*numbers(&more)[name] = 0.75
			}
			if d := bill(t, more, Flat{}).MeteredUSD; d <= b.MeteredUSD {
				t.Fatalf("more %s costs %v instead of %v: %+v", name, d, b.MeteredUSD, u)
			}
		}

		twice := u.clone()
		for name, v := range numbers(&twice) {
			if name != "database.hit_rate" && name != "database.usd_per_million" {
				*v *= 2
			}
		}
		doubled := bill(t, twice, Flat{})
		for i, s := range b.PerService {
			if got := doubled.PerService[i].USD; s.Name != "api_gateway" && s.Name != "database" && math.Abs(got-2*s.USD) > 1e-12*got {
				t.Fatalf("%s is not linear: %v, then %v", s.Name, s.USD, got)
			}
		}
		gateway, gateway2 := b.PerService[2].USD, doubled.PerService[2].USD
		if gateway2 > 2*gateway*(1+1e-12) {
			t.Fatalf("api_gateway costs more at a larger scale: %v, then %v", gateway, gateway2)
		}
		if u.APIGateway.RESTRequests < 333e6/2 && u.APIGateway.HTTPRequests < 150e6 && gateway2 != 2*gateway {
			t.Fatalf("api_gateway is not linear within a tier: %v, then %v", gateway, gateway2)
		}
	}
}

func TestBillOfTheLargestUsageIsFinite(t *testing.T) {
	u := full()
	for name, v := range numbers(&u) {
		*v = maxCount
		switch name {
		case "dynamodb.stored_bytes":
			*v = maxStored
		case "database.hit_rate":
			*v = 1
		case "database.usd_per_million", "database.instance_usd":
			*v = maxUSD
		case "dynamodb.provisioned.rcu", "dynamodb.provisioned.wcu":
			*v = 0
		}
	}
	u.DynamoDB.Reads[0].ItemBytes, u.DynamoDB.Writes[1].ItemBytes = maxReadBytes, maxItemBytes
	b := bill(t, u, Flat{Count: maxNodes})
	wantSums(t, b)
	if math.IsInf(b.MeteredUSD, 0) || math.IsNaN(b.DifferenceUSD) {
		t.Errorf("%+v", b)
	}
}

// wantSums holds a bill against its own lines.
func wantSums(t *testing.T, b Bill) {
	t.Helper()
	var metered float64
	for _, s := range b.PerService {
		var usd float64
		for _, l := range s.Lines {
			if l.USD != l.Units*l.PriceUSD/l.Per || l.Units <= 0 {
				t.Fatalf("line %+v", l)
			}
			usd += l.USD
		}
		if usd != s.USD {
			t.Fatalf("%s: the lines make %v, the service says %v", s.Name, usd, s.USD)
		}
		metered += s.USD
	}
	if metered != b.MeteredUSD {
		t.Fatalf("the services make %v, the bill says %v", metered, b.MeteredUSD)
	}
}

// random fills every field, with counts from one to ten billion and sizes around the rounding steps.
func random(rng *rand.Rand) Usage {
	u := full()
	for _, v := range []*float64{
		&u.DynamoDB.Reads[0].Count, &u.DynamoDB.Reads[1].Count, &u.DynamoDB.Writes[0].Count, &u.DynamoDB.Writes[1].Count,
		&u.DynamoDB.StoredBytes, &u.APIGateway.RESTRequests, &u.APIGateway.HTTPRequests,
	} {
		*v = math.Pow(10, rng.Float64()*10)
	}
	u.DynamoDB.Reads[0].ItemBytes = rng.Int64N(10_000)
	u.DynamoDB.Writes[0].ItemBytes = rng.Int64N(10_000)
	return u
}

// free are the fields that cost nothing, or take the place of others.
var free = map[string]bool{"dynamodb.ttl_deletes": true, "dynamodb.provisioned.rcu": true, "dynamodb.provisioned.wcu": true, "sqs.backlog": true,
	"sqs.free_used": true, "api_gateway.subjects": true, "database.entries": true}

func bill(t *testing.T, u Usage, f Flat) Bill {
	t.Helper()
	b, err := listPrices(t).Bill(u, f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func cents(usd float64) float64 { return math.Round(usd*100) / 100 }

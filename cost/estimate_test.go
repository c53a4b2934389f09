package cost

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

var roomy = Sizing{Headroom: 0.2, Peak: 5}

func estimate(t *testing.T, s Preset) Estimate {
	t.Helper()
	if s.Sizing == (Sizing{}) {
		s.Sizing = roomy
	}
	m, err := s.Model()
	if err != nil {
		t.Fatal(err)
	}
	e, err := listPrices(t).Estimate(m)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func near(got, want, part float64) bool { return math.Abs(got-want) <= part*math.Abs(want) }

func TestSessionEstimates(t *testing.T) {
	for _, c := range []struct {
		users                 float64
		reads                 Consistency
		metered, flat, saving float64
		node                  string
		verdict               Verdict
	}{
		{1000, "", 0.3755, 18.688, -18.31, "cache.t4g.micro", Stay},
		{50_000, Strong, 18.775, 18.688, 0.087, "cache.t4g.micro", UseServerless},
		{50_000, Eventual, 11.275, 18.688, -7.413, "cache.t4g.micro", UseServerless},
		{500_000, Strong, 187.75, 75.92, 111.83, "cache.t4g.medium", Switch},
		{500_000, Eventual, 112.75, 75.92, 36.83, "cache.t4g.medium", Switch},
	} {
		e := estimate(t, Preset{Name: "sessions", Users: c.users, Reads: c.reads})
		total := e.Total
		if !near(total.MeteredUSD, c.metered, .001) || !near(total.FlatUSD, c.flat, .001) || math.Abs(total.SavingUSD-c.saving) > .01 ||
			e.Flat.Node != c.node || e.Flat.Count != 2 || total.Verdict != c.verdict || e.Services[0].Verdict != c.verdict {
			t.Errorf("%+v: %+v on %s", c, total, e.Flat.Node)
		}
		wantEstimate(t, e)
	}
	// ElastiCache Serverless for Valkey holds 50,000 sessions for about $9 a month.
	if e := estimate(t, Preset{Name: "sessions", Users: 50_000}); !near(e.Serverless.USD, 9, .03) || e.Flat.NeedBytes != 50_000*2692 {
		t.Errorf("serverless $%v, %d B", e.Serverless.USD, e.Flat.NeedBytes)
	}
}

// wantEstimate holds what is true of every estimate.
func wantEstimate(t *testing.T, e Estimate) {
	t.Helper()
	var metered, share, kept float64
	for _, s := range e.Services {
		var lines float64
		for _, l := range s.Lines {
			lines += l.USD
		}
		if !near(lines, s.MeteredUSD, 1e-9) {
			t.Errorf("%s: the lines make %v of %v", s.Name, lines, s.MeteredUSD)
		}
		metered += s.MeteredUSD
		share += s.FlatShareUSD
		kept += s.KeptUSD
		if slices.Contains(e.Best.Stay, s.Name) != (s.Verdict == Stay) || s.Why == "" {
			t.Errorf("%s: %s, while %v stay", s.Name, s.Verdict, e.Best.Stay)
		}
	}
	var flat float64
	for _, l := range e.Flat.Lines {
		flat += l.USD
	}
	total := e.Total
	if !near(metered, total.MeteredUSD, 1e-9) || !near(share, total.FlatUSD, 1e-9) || !near(flat, e.Flat.USD, 1e-9) ||
		math.Abs(total.MeteredUSD-total.FlatUSD-total.SavingUSD) > 1e-6 || !near(kept, total.KeptUSD, 1e-9) {
		t.Errorf("sums: %v metered, %v shares, %v flat of %+v", metered, share, flat, total)
	}
	if total.Low.SavingUSD > total.SavingUSD+1e-9 || total.High.SavingUSD < total.SavingUSD-1e-9 {
		t.Errorf("low %v, expected %v, high %v", total.Low.SavingUSD, total.SavingUSD, total.High.SavingUSD)
	}
	if e.Best.USD > total.MeteredUSD+1e-9 || e.Best.USD > total.FlatUSD+.006 {
		t.Errorf("the best costs %v beside %v and %v", e.Best.USD, total.MeteredUSD, total.FlatUSD)
	}
	if len(e.Sensitivity) > 3 || len(e.Assumptions) == 0 || len(e.Sources) == 0 || total.Why == "" {
		t.Errorf("%d inputs, %d assumptions, %d sources", len(e.Sensitivity), len(e.Assumptions), len(e.Sources))
	}
	if _, err := json.Marshal(e); err != nil { // no NaN, no infinity
		t.Error(err)
	}
}

// The pair of each size breaks even where it should, within one per cent.
func TestBreakEvenOfEstimates(t *testing.T) {
	for reads, want := range map[Consistency]map[string]float64{
		Strong:   {"cache.t4g.micro": 50e3, "cache.t4g.small": 100e3, "cache.t4g.medium": 202e3},
		Eventual: {"cache.t4g.micro": 83e3, "cache.t4g.small": 166e3, "cache.t4g.medium": 337e3},
	} {
		e := estimate(t, Preset{Name: "sessions", Users: 50_000, Reads: reads})
		found := 0
		for _, b := range e.BreakEven {
			if users, ok := want[b.Node]; ok {
				found++
				if !near(b.Scale, users, .01) || b.ScaleUnit != "users" || !b.Fits || b.Count != 2 {
					t.Errorf("%s reads: %+v, want %v users", reads, b, users)
				}
			}
		}
		if found != len(want) {
			t.Errorf("%d of %d sizes: %+v", found, len(want), e.BreakEven)
		}
	}
	for node, gb := range map[string]float64{"cache.t4g.small": .61, "cache.t4g.medium": 1.24} {
		for _, b := range estimate(t, Preset{Name: "sessions", Users: 50_000}).BreakEven {
			if b.Node == node && !near(b.ServerlessBelowGB, gb, .01) {
				t.Errorf("%s: Serverless is cheaper below %v GB, want %v", node, b.ServerlessBelowGB, gb)
			}
		}
	}
}

// The whole table at 100,000 users, with API Gateway kept and no smaller database: between -$46 and +$40.
func TestArticleEstimate(t *testing.T) {
	e := estimate(t, Preset{Name: "article", Users: 100_000})
	wantEstimate(t, e)
	if !near(e.Total.Low.SavingUSD, -46.17, .001) || !near(e.Total.High.SavingUSD, 39.77, .001) || !near(e.Total.SavingUSD, 18.17, .001) {
		t.Errorf("%v, %v, %v", e.Total.Low.SavingUSD, e.Total.SavingUSD, e.Total.High.SavingUSD)
	}
	if e.Total.KeptUSD != 120 || e.Services[1].Verdict != Stay {
		t.Errorf("API Gateway: %+v", e.Services[1])
	}
	rest := estimate(t, Preset{Name: "article", Users: 100_000, REST: true})
	if rest.Total.KeptUSD != 420 || math.Abs(rest.Total.SavingUSD-e.Total.SavingUSD) > 1e-9 {
		t.Errorf("with a REST API: %+v", rest.Total)
	}
	removed := estimate(t, Preset{Name: "article", Users: 100_000, REST: true, RemoveGateway: true})
	wantEstimate(t, removed)
	if want := e.Total.SavingUSD + 420 - 16.425; !near(removed.Total.SavingUSD, want, 1e-6) || removed.Total.KeptUSD != 0 {
		t.Errorf("without API Gateway: %v, want %v", removed.Total.SavingUSD, want)
	}
	priced := estimate(t, Preset{Name: "article", Users: 100_000, DBUSDPerMillion: 0.2})
	if s := priced.Services[3]; !near(s.MeteredUSD, 120*.6*.2, 1e-9) {
		t.Errorf("72 million reads at $.20: %+v", s)
	}
	for batch, usd := range map[int]float64{1: 35.6, 10: 3.2} {
		if s := estimate(t, Preset{Name: "article", Users: 100_000, QueueBatch: batch}).Services[2]; !near(s.MeteredUSD, usd, 1e-6) {
			t.Errorf("batches of %d: $%v", batch, s.MeteredUSD)
		}
	}
}

func TestPresetsRefuse(t *testing.T) {
	for want, s := range map[string]Preset{
		"users":           {Name: "sessions"},
		"users: NaN":      {Name: "sessions", Users: math.NaN()},
		"users: 1e+10":    {Name: "sessions", Users: 1e10},
		"users: -5":       {Name: "sessions", Users: -5},
		`reads: "firm"`:   {Name: "sessions", Users: 1, Reads: "firm"},
		"item_bytes":      {Name: "sessions", Users: 1, ItemBytes: 500 << 10},
		"queue_batch":     {Name: "article", Users: 1, QueueBatch: 11},
		`preset "nobody"`: {Name: "nobody", Users: 1},
	} {
		if _, err := s.Model(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", s, err, want)
		}
	}
}

// Two services share the free million and the tiers; each pays the average.
func TestSharedTiers(t *testing.T) {
	half := Usage{SQS: SQS{StandardRequests: 1e6}, APIGateway: APIGateway{RESTRequests: 333e6}}
	m := Measured([]Workload{{Name: "a", Usage: half}, {Name: "b", Usage: half}}, Flat{}, roomy, 0)
	e, err := listPrices(t).Estimate(m)
	if err != nil {
		t.Fatal(err)
	}
	wantEstimate(t, e)
	both, err := listPrices(t).Bill(Usage{SQS: SQS{StandardRequests: 2e6}, APIGateway: APIGateway{RESTRequests: 666e6}}, Flat{})
	if err != nil {
		t.Fatal(err)
	}
	if !near(e.Total.MeteredUSD, both.MeteredUSD, 1e-9) || !near(e.Services[0].MeteredUSD, both.MeteredUSD/2, 1e-9) {
		t.Errorf("%v and %v, want %v", e.Services[0].MeteredUSD, e.Total.MeteredUSD, both.MeteredUSD)
	}
}

// Where some services are worth moving and others are not, the verdicts differ.
func TestMixedVerdict(t *testing.T) {
	dear := Usage{DynamoDB: DynamoDB{Reads: []ItemReads{{Count: 1e9, ItemBytes: 100}}, StoredBytes: 1e8, StoredItems: 1e5}}
	cheap := Usage{DynamoDB: DynamoDB{Reads: []ItemReads{{Count: 1e6, ItemBytes: 100}}, StoredBytes: 1e11, StoredItems: 1e6}} // large, and hardly read
	e, err := listPrices(t).Estimate(Measured([]Workload{{Name: "dear", Usage: dear}, {Name: "cheap", Usage: cheap}}, Flat{}, roomy, 0.25))
	if err != nil {
		t.Fatal(err)
	}
	wantEstimate(t, e)
	if e.Total.Verdict != Mixed || e.Services[0].Verdict == Stay || e.Services[1].Verdict != Stay || e.Total.SavingUSD > 0 || e.Best.SavingUSD < 80 {
		t.Errorf("%s, %+v", e.Total.Verdict, e.Best)
	}
}

func TestPlansRefuse(t *testing.T) {
	p := listPrices(t)
	ok := Workload{Name: "a", Usage: Usage{APIGateway: APIGateway{HTTPRequests: 1}}}
	many := []Workload{}
	for i := range maxWorkloads + 1 {
		many = append(many, Workload{Name: strings.Repeat("a", i+1)})
	}
	for want, m := range map[string]Model{
		"workloads: 0":       Measured(nil, Flat{}, roomy, 0),
		"workloads: 13":      Measured(many, Flat{}, roomy, 0),
		"name: missing":      Measured([]Workload{{}}, Flat{}, roomy, 0),
		"there twice":        Measured([]Workload{ok, ok}, Flat{}, roomy, 0),
		"http_requests":      Measured([]Workload{{Name: "a", Usage: Usage{APIGateway: APIGateway{HTTPRequests: -1}}}}, Flat{}, roomy, 0),
		"headroom: NaN":      Measured([]Workload{ok}, Flat{}, Sizing{Headroom: math.NaN(), Peak: 1}, 0),
		"above":              Measured([]Workload{ok}, Flat{}, Sizing{Peak: 1, Above: 6}, 0),
		"without Build":      {},
		`scale "x" is no in`: {Scale: "x", Build: func(Values) Plan { return Plan{} }},
	} {
		e, err := p.Estimate(m)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) || e.Services != nil {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := p.Estimate(Measured([]Workload{ok}, Flat{Kind: MemoryDB}, roomy, 0)); !errors.Is(err, ErrNoPrice) {
		t.Errorf("MemoryDB without a price: %v", err)
	}
	if _, err := p.Estimate(Measured([]Workload{ok}, Flat{Term: "3y"}, roomy, 0)); !errors.Is(err, ErrNoPrice) || !strings.Contains(err.Error(), `term "3y" of elasticache`) {
		t.Errorf("a term nobody has the discount of: %v", err)
	}
}

func TestKindsOfFlatSides(t *testing.T) {
	u, err := Usage{DynamoDB: DynamoDB{Reads: []ItemReads{{Count: 4e6, ItemBytes: 2048}}, Writes: []ItemWrites{{Count: 1e5, ItemBytes: 2048}},
		StoredBytes: 50_000 * 2048, StoredItems: 50_000}}.PerMonth(24 * time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	written := 3e6 * 2048 / 1e9
	for _, c := range []struct {
		flat Flat
		usd  float64
	}{
		{Flat{}, 37.376},
		{Flat{Term: OneYear}, 37.376 * .683},
		{Flat{Count: 1}, 18.688},
		{Flat{Shards: 3}, 3 * 37.376},
		{Flat{Redlock: 3}, 37.376 + 3*730*.0128},
		{Flat{Redlock: 5, RedlockNode: "cache.t4g.small"}, 37.376 + 5*730*.0256},
		{Flat{Kind: Serverless}, (50_000*2692/1e9)*730*.084 + (120e6*2+3e6*2)/1e6*.0023},
		{Flat{Kind: Serverless, Engine: Redis}, 730*.125 + (120e6*2+3e6*2)/1e6*.0034},
		{Flat{Kind: SelfHosted, Node: "t4g.small"}, 2 * 730 * .0168},
		{Flat{Kind: MemoryDB, Node: "db.t4g.small", NodeUSDPerHour: .03}, 2 * 730 * .03},
		{Flat{Kind: MemoryDB, Node: "db.t4g.small", Engine: Redis, NodeUSDPerHour: .03}, 2*730*.03 + written*.2},
		{Flat{CrossAZ: .5}, 37.376 + .5*(123e6*2048/1e9)*.01},
		{Flat{LoadBalancer: true}, 37.376 + 16.425},
		{Flat{NodeUSDPerHour: 1}, 1460},
	} {
		if b := bill(t, u, c.flat); !near(b.FlatUSD, c.usd, 1e-9) {
			t.Errorf("%+v: $%v, want $%v", c.flat, b.FlatUSD, c.usd)
		}
	}
	// 10 TB of writes a month are free on MemoryDB for Valkey.
	large := Usage{DynamoDB: DynamoDB{Writes: []ItemWrites{{Count: 20_240e9 / 1024 / 100, ItemBytes: 100 * 1024}}}}
	if b := bill(t, large, Flat{Kind: MemoryDB, Node: "db.t4g.small", NodeUSDPerHour: .03}); !near(b.FlatUSD, 2*730*.03+10_000*.04, 1e-9) {
		t.Errorf("MemoryDB: $%v", b.FlatUSD)
	}
}

// Provisioned capacity is charged by the hour, in place of requests.
func TestProvisioned(t *testing.T) {
	u := full()
	u.SQS, u.APIGateway, u.Database = SQS{}, APIGateway{}, Database{}
	u.DynamoDB.StoredBytes, u.DynamoDB.StoredItems = 0, 0
	u.DynamoDB.Provisioned = Provisioned{RCU: 100, WCU: 10}
	if b := bill(t, u, Flat{}); !near(b.MeteredUSD, 730*(100*.00013+10*.00065), 1e-12) || len(b.PerService[0].Lines) != 2 {
		t.Errorf("%+v", b.PerService)
	}
}

// A load balancer is charged only where API Gateway goes: a service that stays keeps its own.
func TestLoadBalancerComesWithTheGateway(t *testing.T) {
	calls := Workload{Name: "api", Usage: Usage{APIGateway: APIGateway{HTTPRequests: 1e6}}} // $1, less than a load balancer
	dear := Workload{Name: "dear", Usage: Usage{DynamoDB: DynamoDB{RRU: 1e9}}}
	e, err := listPrices(t).Estimate(Measured([]Workload{calls, dear}, Flat{}, roomy, 0))
	if err != nil {
		t.Fatal(err)
	}
	wantEstimate(t, e)
	last := e.Flat.Lines[len(e.Flat.Lines)-1]
	if last.Unit != "load balancer hour" || e.Services[0].Verdict != Stay || e.Services[1].Verdict == Stay || e.Best.Flat.USD >= last.USD+6 {
		t.Errorf("%+v, %+v", e.Flat.Lines, e.Best)
	}
	dearer := Workload{Name: "api", Usage: Usage{APIGateway: APIGateway{HTTPRequests: 1e8}}}
	e, err = listPrices(t).Estimate(Measured([]Workload{dearer, dear}, Flat{}, roomy, 0))
	if err != nil || len(e.Best.Stay) > 0 {
		t.Errorf("%+v, %v", e.Best, err)
	}
}

// A saving that does not grow with the load breaks even at once.
func TestAlwaysCheaper(t *testing.T) {
	e, err := listPrices(t).Estimate(Preset{Name: "article", Users: 1e5, DBInstanceUSD: 500, Sizing: roomy}.mustModel(t))
	if err != nil {
		t.Fatal(err)
	}
	if b := e.BreakEven[0]; !b.Always || b.Scale != 0 {
		t.Errorf("%+v", b)
	}
}

func (s Preset) mustModel(t *testing.T) Model {
	t.Helper()
	m, err := s.Model()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

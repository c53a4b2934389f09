package cost

import (
	"errors"
	"strings"
	"testing"
)

func TestShippedTableIsComplete(t *testing.T) {
	p := listPrices(t)
	if len(p.Rates()) != 21 || len(p.Nodes()) != 82 || len(p.Conditions()) != 5 {
		t.Errorf("%d rates, %d nodes and %d conditions, want 21, 82 and 5", len(p.Rates()), len(p.Nodes()), len(p.Conditions()))
	}
	for _, r := range p.Rates() {
		if r.Source.Name == "" || r.Source.Read == "" || r.USD <= 0 || r.Per <= 0 || r.Region != "us-east-1" {
			t.Errorf("incomplete: %+v", r)
		}
	}
	for _, n := range p.Nodes() {
		if n.Source.Name == "" || n.Source.Read == "" || n.valkey <= 0 || n.Region != "us-east-1" {
			t.Errorf("incomplete: %+v", n)
		}
		// Valkey is sold at 80% of the Redis OSS price: a digit mistyped in either column shows here.
		if n.service() == "elasticache" && n.redis != 0 && (n.valkey/n.redis < 0.795 || n.valkey/n.redis > 0.805) {
			t.Errorf("%s: Valkey %v and Redis %v are not 4 to 5", n.Type, n.valkey, n.redis)
		}
	}
	want := "us-east-1 list prices: AWS Price List, read 2026-07-31; AWS list price, read 2026-03; AWS list price, read 2026; " +
		"AWS list price, read 2026-06; AWS list price, read 2026-07-20; AWS Price List; maxmemory from the ElastiCache documentation, read 2026-10-02; " +
		"EC2 list price; unverified; memory of the machine, read 2026; AWS list price; about, read 2026"
	if p.String() != want {
		t.Errorf("got %s", p)
	}
}

func TestUnknownPricesAreErrors(t *testing.T) {
	for _, region := range []string{"", "eu-west-1", "US-EAST-1"} {
		if p, err := ListPrices(region); !errors.Is(err, ErrNoPrice) || len(p.Rates()) != 0 {
			t.Errorf("region %q: %v", region, err)
		}
	}
	p := listPrices(t)
	for _, node := range []string{"", "cache.t4g", "cache.t4g.small ", "t4g.smal"} {
		if _, err := p.Node(node); !errors.Is(err, ErrNoPrice) {
			t.Errorf("node %q: %v", node, err)
		}
	}
	n, err := p.Node("cache.m8g.large")
	if err != nil {
		t.Fatal(err)
	}
	if usd, err := n.USDPerHour(Redis); !errors.Is(err, ErrNoPrice) || usd != 0 {
		t.Errorf("Redis on m8g: %v, %v", usd, err)
	}
	if usd, err := n.USDPerHour(""); err != nil || usd != 0.1266 {
		t.Errorf("Valkey on m8g: %v, %v", usd, err)
	}
	if _, err := n.USDPerHour("memcached"); !errors.Is(err, ErrInvalid) {
		t.Errorf("memcached: %v", err)
	}
}

func TestPricesCannotBeChangedFromOutside(t *testing.T) {
	p := listPrices(t)
	p.Rates()[0].USD = 0
	p.Nodes()[0].Type = ""
	if p.Rates()[0].USD == 0 || p.Nodes()[0].Type == "" {
		t.Error("Rates and Nodes must be copies")
	}
}

func TestUsableBytes(t *testing.T) {
	for maxmemory, want := range map[int64]int64{536870912: 402653184, 1471026299: 1103269724, 5: 3, 4: 3, 3: 2, 2: 1, 1: 0} {
		if got := (Node{MaxMemoryBytes: maxmemory}).UsableBytes(); got != want {
			t.Errorf("%d: %d usable, want %d", maxmemory, got, want)
		}
	}
}

func TestIncompleteRowsAreRefused(t *testing.T) {
	const rateHead = "region,service,unit,above,usd,per,source,read\n"
	for row, want := range map[string]string{
		"r,s,u,0,0,1,AWS,2026":                       "row 2: usd: a price of zero",
		"r,s,u,0,,1,AWS,2026":                        "row 2: usd",
		"r,s,u,0,-1,1,AWS,2026":                      "row 2: usd",
		"r,s,u,0,NaN,1,AWS,2026":                     "row 2: usd",
		"r,s,u,0,1,Inf,AWS,2026":                     "row 2: per",
		"r,s,u,0,1,0,AWS,2026":                       "row 2: per",
		"r,s,u,5,1,1,AWS,2026":                       "begins at 5",
		"r,s,u,0,1,1,,2026":                          "source is missing",
		"r,s,u,0,1,1,AWS,":                           "not a date",
		"r,s,u,0,1,1,AWS,2026-13":                    "not a date",
		"r,s,u,0,1,1,AWS,2026\nr,s,u,0,1,1,AWS,2026": "row 3: above: 0 does not continue 0",
		",s,u,0,1,1,AWS,2026":                        "missing",
		"r,s,u,0,1,1,AWS":                            "wrong number of fields",
	} {
		if _, err := parseRates(rateHead + row); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", row, err, want)
		}
	}
	const nodeHead = "region,node_type,valkey_usd_per_hour,redis_usd_per_hour,maxmemory_bytes,source,read\n"
	for row, want := range map[string]string{
		"r,n,,1,1,AWS,2026":                    "valkey_usd_per_hour",
		"r,n,1,0,1,AWS,2026":                   "redis_usd_per_hour",
		"r,n,1,,0,AWS,2026":                    "maxmemory_bytes",
		"r,n,1,,1.5,AWS,2026":                  "maxmemory_bytes",
		"r,n,1,,1,,2026":                       "source is missing",
		"r,n,1,,1,AWS,soon":                    "not a date",
		"r,n,1,,1,AWS,2026\nr,n,1,,1,AWS,2026": "row 3: n is listed twice",
		"r,,1,,1,AWS,2026":                     "missing",
	} {
		if _, err := parseNodes(nodeHead + row); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", row, err, want)
		}
	}
	for _, text := range []string{"", "usd\n1\n", nodeHead} {
		if _, err := parseRates(text); err == nil || !strings.Contains(err.Error(), "header") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Whatever parses can be charged: no zero price, no gap before the first tier, a source and a date.
func FuzzParseRates(f *testing.F) {
	f.Add(pricesCSV)
	f.Add("region,service,unit,above,usd,per,source,read\nr,s,u,0,1e308,1e-308,\"a\nb\",2026\n")
	f.Fuzz(func(t *testing.T, text string) {
		rates, err := parseRates(text)
		if err != nil {
			return
		}
		p := Prices{rates: rates}
		for _, r := range rates {
			if !(r.USD > 0) || !(r.Per > 0) || r.Source.Name == "" || r.Source.Read == "" {
				t.Fatalf("accepted %+v", r)
			}
			tiers, err := p.tiers(r.Service, r.Unit)
			if err != nil || tiers[0].Above != 0 {
				t.Fatalf("%s %s: %v %v", r.Service, r.Unit, tiers, err)
			}
		}
	})
}

func FuzzParseNodes(f *testing.F) {
	f.Add(nodesCSV)
	f.Fuzz(func(t *testing.T, text string) {
		nodes, err := parseNodes(text)
		if err != nil {
			return
		}
		for _, n := range nodes {
			usd, err := n.USDPerHour(Valkey)
			if err != nil || !(usd > 0) || n.UsableBytes() < 0 || n.UsableBytes() > n.MaxMemoryBytes || n.Source.Name == "" {
				t.Fatalf("accepted %+v: %v %v", n, usd, err)
			}
		}
	})
}

func listPrices(t *testing.T) Prices {
	t.Helper()
	p, err := ListPrices("us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

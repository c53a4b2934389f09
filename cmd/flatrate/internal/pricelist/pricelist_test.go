package pricelist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/rows"
	"github.com/flatrate/flatrate/cost"
)

var knownNodes = map[string]bool{"cache.t4g.small": true, "db.t4g.small": true}

// row is a line of a price list in the public format.
type row struct {
	term, usage, region, engine, above, unit, usd string
}

const columns = `"SKU","OfferTermCode","RateCode","TermType","PriceDescription","EffectiveDate","StartingRange","EndingRange","Unit","PricePerUnit",` +
	`"Currency","Product Family","serviceCode","Location","Cache Engine","usageType","operation","Region Code","serviceName"`

func file(offer string, rows ...row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\"FormatVersion\",\"v1.0\"\n\"Disclaimer\",\"This pricing list is for informational purposes only. All prices are subject to \"\"terms\"\".\"\n")
	fmt.Fprintf(&b, "\"Publication Date\",\"2026-11-20T18:21:13Z\"\n\"Version\",\"20261120182113\"\n\"OfferCode\",%q\n%s\n", offer, columns)
	for i, r := range rows {
		fmt.Fprintf(&b, "\"SKU%d\",\"JRTCKXETXF\",\"SKU%d.JRTCKXETXF\",%q,\"$%s, a price\",\"2026-11-01\",%q,\"Inf\",%q,%q,\"USD\",\"Any\",%q,\"US East\",%q,%q,\"\",%q,%q\n",
			i, i, r.term, r.usd, r.above, r.unit, r.usd, offer, r.engine, r.usage, r.region, offer)
	}
	return b.String()
}

// lists are the files of us-east-1, as whole ones look.
func lists() map[string]string {
	on := func(usage, above, usd string) row { return row{"OnDemand", usage, "us-east-1", "", above, "x", usd} }
	node := func(usage, engine, usd string) row {
		return row{"OnDemand", usage, "us-east-1", engine, "0", "Hrs", usd}
	}
	return map[string]string{
		"AmazonDynamoDB": file("AmazonDynamoDB", on("ReadRequestUnits", "0", "0.0000001250"), on("WriteRequestUnits", "0", "0.0000006250"),
			on("TimedStorage-ByteHrs", "0", "0.0000000000"), on("TimedStorage-ByteHrs", "25", "0.2500000000"),
			on("ReadCapacityUnit-Hrs", "0", "0.0000000000"), on("ReadCapacityUnit-Hrs", "18600", "0.0001300000"),
			on("WriteCapacityUnit-Hrs", "18600", "0.0006500000"), on("IA-ReadRequestUnits", "0", "0.0000001550"),
			row{"Reserved", "ReadCapacityUnit-Hrs", "us-east-1", "", "", "Hrs", "0.00001"}),
		"AWSQueueService": file("AWSQueueService", on("Requests-RBP", "100000000000", "0.0000003000"), on("Requests-RBP", "0", "0.0000004000"),
			on("Requests-FIFO-RBP", "0", "0.0000005000"), row{"OnDemand", "Requests-RBP", "aws-global", "", "0", "Requests", "0.9"}),
		"AmazonApiGateway": file("AmazonApiGateway", on("USE1-ApiGatewayRequest", "0", "0.0000035000"), on("USE1-ApiGatewayRequest", "333000000", "0.0000028000"),
			on("USE1-ApiGatewayHttpRequest", "0", "0.0000010000")),
		"AmazonElastiCache": file("AmazonElastiCache", node("NodeUsage:cache.t4g.small", "Valkey", "0.0240000000"), node("NodeUsage:cache.t4g.small", "Redis", "0.0320000000"),
			node("NodeUsage:cache.t4g.small", "Memcached", "0.0320000000"), node("NodeUsage:cache.z9.large", "Valkey", "9.0000000000"),
			on("CachedData:Valkey", "0", "0.0840000000"), on("ElastiCacheProcessingUnits:Valkey", "0", "0.0000000023")),
		"AmazonMemoryDB": file("AmazonMemoryDB", node("NodeUsage:db.t4g.small", "Valkey", "0.0300000000")),
	}
}

// folder writes lists as the public tree.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for offer, text := range files {
		path := filepath.Join(root, "offers/v1.0/aws", offer, "current/us-east-1/index.csv")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestRead(t *testing.T) {
	root := folder(t, lists())
	server := httptest.NewTLSServer(http.FileServer(http.Dir(root)))
	defer server.Close()
	for _, s := range []Source{{Base: root}, {Base: server.URL, Client: server.Client()}, {Base: server.URL + "/", Client: server.Client()}} {
		l, err := s.Read(t.Context(), "us-east-1", knownNodes)
		if err != nil {
			t.Fatal(err)
		}
		from := cost.Source{Name: "AWS Price List", Read: "2026-11-20"}
		for _, want := range []cost.Quote{
			{Region: "us-east-1", Service: "dynamodb", Unit: "RRU", USD: .125, Per: 1e6, Source: from},
			{Region: "us-east-1", Service: "dynamodb", Unit: "GB-month", USD: .25, Per: 1, Source: from},
			{Region: "us-east-1", Service: "dynamodb", Unit: "RCU-hour", USD: .00013, Per: 1, Source: from},
			{Region: "us-east-1", Service: "sqs", Unit: "standard request", USD: .4, Per: 1e6, Source: from},
			{Region: "us-east-1", Service: "sqs", Unit: "standard request", Above: 1e11, USD: .3, Per: 1e6, Source: from},
			{Region: "us-east-1", Service: "api_gateway", Unit: "REST request", Above: 333e6, USD: 2.8, Per: 1e6, Source: from},
			{Region: "us-east-1", Service: "elasticache", Unit: "cache.t4g.small valkey", USD: .024, Per: 1, Source: from},
			{Region: "us-east-1", Service: "elasticache_serverless", Unit: "valkey ECPU", USD: .0023, Per: 1e6, Source: from},
			{Region: "us-east-1", Service: "memorydb", Unit: "db.t4g.small valkey", USD: .03, Per: 1, Source: from},
		} {
			if !slices.Contains(l.Quotes, want) {
				t.Errorf("no %+v in %+v", want, l.Quotes)
			}
		}
		if len(l.Quotes) != 16 || l.Skipped != 1 {
			t.Errorf("%d prices, %d skipped", len(l.Quotes), l.Skipped)
		}
		old, err := cost.Shipped()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := old.Replace(l.Quotes); err != nil {
			t.Error(err)
		}
	}
}

func TestListsThatAreWrong(t *testing.T) {
	for want, spoil := range map[string]func(map[string]string){
		"no such file":                    func(m map[string]string) { delete(m, "AmazonMemoryDB") },
		"FormatVersion is \"v2.0\"":       replace("AmazonDynamoDB", `"v1.0"`, `"v2.0"`),
		`OfferCode is "AmazonEC2"`:        replace("AmazonDynamoDB", `"OfferCode","AmazonDynamoDB"`, `"OfferCode","AmazonEC2"`),
		"Publication Date \"soon\" is no": replace("AmazonDynamoDB", "2026-11-20T18:21:13Z", "soon"),
		"there is no column priceperunit": replace("AmazonDynamoDB", `"PricePerUnit"`, `"Price"`),
		`line 7: PricePerUnit "free"`:     replace("AmazonDynamoDB", "\"0.0000001250\"", `"free"`),
		`line 7: PricePerUnit "-1"`:       replace("AmazonDynamoDB", "\"0.0000001250\"", `"-1"`),
		`the currency is "CNY"`:           replace("AmazonDynamoDB", `"USD"`, `"CNY"`),
		"line 4: the file ends": func(m map[string]string) {
			m["AmazonDynamoDB"] = strings.Join(strings.SplitAfter(m["AmazonDynamoDB"], "\n")[:3], "")
		},
		"the lists lack prices: dynamodb RRU": replace("AmazonDynamoDB", `"ReadRequestUnits"`, `"Other"`),
		"lack prices: elasticache cache.t4g":  replace("AmazonElastiCache", `"Valkey","NodeUsage:cache.t4g.small"`, `"Ignite","NodeUsage:cache.t4g.small"`),
		"the file is cut short": func(m map[string]string) {
			m["AWSQueueService"] = m["AWSQueueService"][:strings.LastIndex(m["AWSQueueService"], `,"Requests-RBP"`)]
		},
		`extraneous or missing " in quoted`: func(m map[string]string) { m["AWSQueueService"] = m["AWSQueueService"][:len(m["AWSQueueService"])-10] },
	} {
		files := lists()
		spoil(files)
		l, err := Source{Base: folder(t, files)}.Read(t.Context(), "us-east-1", knownNodes)
		if err == nil || !strings.Contains(err.Error(), want) || len(l.Quotes) > 0 && !strings.Contains(err.Error(), "lack") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := (Source{Base: t.TempDir()}).Read(t.Context(), "../../etc", nil); err == nil || !strings.Contains(err.Error(), "no name of a region") {
		t.Errorf("a region that is a path: %v", err)
	}
}

func replace(offer, old, fresh string) func(map[string]string) {
	return func(m map[string]string) { m[offer] = strings.Replace(m[offer], old, fresh, 1) }
}

func TestServersThatAreWrong(t *testing.T) {
	text := []byte(lists()["AmazonDynamoDB"])
	for want, handler := range map[string]http.HandlerFunc{
		"403 Forbidden": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"unexpected EOF": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
			_, _ = w.Write(text[:len(text)/2])
		},
		"a row is too long": func(w http.ResponseWriter, _ *http.Request) {
			for range 3 * rows.Max >> 16 {
				if _, err := w.Write(bytes.Repeat([]byte("a"), 1<<16)); err != nil {
					return
				}
			}
		},
		"FormatVersion": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("<html>\nsign in\n</html>\n\n\n\na\nb\nc\nd\n"))
		},
	} {
		server := httptest.NewTLSServer(handler)
		if _, err := (Source{Base: server.URL, Client: server.Client()}).Read(t.Context(), "us-east-1", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		server.Close()
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secret := Source{Base: "https://user:secret@" + strings.TrimPrefix(plain.URL, "http://"), Client: &http.Client{}}
	if _, err := secret.Read(t.Context(), "us-east-1", nil); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "user:xxxxx@") {
		t.Errorf("a URL with a password: %v", err)
	}
	if _, err := (Source{Base: plain.URL, Client: plain.Client()}).Read(t.Context(), "us-east-1", nil); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("plain http: %v", err)
	}
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	if _, err := (Source{Base: tls.URL, Client: &http.Client{}}).Read(t.Context(), "us-east-1", nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate nobody knows: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Source{Base: tls.URL, Client: tls.Client()}).Read(ctx, "us-east-1", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after Ctrl-C: %v", err)
	}
}

func FuzzList(f *testing.F) {
	f.Add([]byte(lists()["AmazonElastiCache"]))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := List{Published: map[string]string{}}
		p := parser{offer: "AmazonElastiCache", region: "us-east-1", nodes: knownNodes, list: &l}
		if p.read(bytes.NewReader(data)) != nil {
			return
		}
		for _, q := range l.Quotes {
			if !(q.USD > 0) || q.Above < 0 || q.Region != "us-east-1" {
				t.Fatalf("accepted %+v", q)
			}
		}
	})
}

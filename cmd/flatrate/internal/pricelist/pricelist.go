// Package pricelist reads AWS's public price list files: CSV, one for each service and region, which need no sign-in.
package pricelist

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/rows"
	"github.com/flatrate/flatrate/cost"
)

// Public is where AWS publishes its price lists.
const Public = "https://pricing.us-east-1.amazonaws.com"

// maxFile is the longest price list that is read: that of ElastiCache has some megabytes.
const maxFile = 1 << 30

// Offers are the services whose lists are read, by AWS's codes.
var Offers = []string{"AmazonDynamoDB", "AWSQueueService", "AmazonApiGateway", "AmazonElastiCache", "AmazonMemoryDB"}

// Source is where the lists are: an https URL as [Public], or a folder that holds the same tree.
type Source struct {
	Base   string
	Client *http.Client
	// Watch, if set, stands between the file and its reader: a progress bar.
	Watch func(name string, r io.Reader, size int64) (io.Reader, func())
}

// List is what was read of one region.
type List struct {
	Quotes    []cost.Quote
	Published map[string]string // by offer: the date of its list
	Skipped   int               // prices of nodes whose memory nobody here knows
}

// Read reads all lists of a region. An error of any is the error of all.
func (s Source) Read(ctx context.Context, region string, nodes map[string]bool) (List, error) {
	if !regionName.MatchString(region) {
		return List{}, fmt.Errorf("region %q: no name of a region", region)
	}
	list := List{Published: map[string]string{}}
	for _, offer := range Offers {
		path := "offers/v1.0/aws/" + offer + "/current/" + region + "/index.csv"
		if err := s.offer(ctx, path, offer, region, nodes, &list); err != nil {
			return List{}, fmt.Errorf("%s: %w", s.name(path), err)
		}
	}
	return list, list.whole()
}

var regionName = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$`)

// name is what errors call a list, without the password of a URL.
func (s Source) name(path string) string {
	base := s.Base
	switch u, err := url.Parse(base); {
	case err != nil && strings.Contains(base, "://"):
		base = "the URL" // which is none, and may hold a password
	case err == nil && u.User != nil:
		base = u.Redacted()
	}
	return strings.TrimSuffix(base, "/") + "/" + path
}

func (s Source) offer(ctx context.Context, path, offer, region string, nodes map[string]bool, list *List) error {
	body, size, err := s.open(ctx, path)
	if err != nil {
		return err
	}
	defer body.Close()
	var in io.Reader = body
	done := func() {}
	if s.Watch != nil {
		in, done = s.Watch(offer, body, size)
	}
	defer done()
	counted := &counter{Reader: io.LimitReader(in, maxFile+1)}
	p := parser{offer: offer, region: region, nodes: nodes, list: list}
	if err := p.read(counted); err != nil {
		return err
	}
	switch {
	case counted.n > maxFile:
		return fmt.Errorf("over %d bytes", maxFile)
	case size >= 0 && counted.n != size:
		return fmt.Errorf("%d bytes came of %d", counted.n, size)
	}
	return nil
}

func (s Source) open(ctx context.Context, path string) (io.ReadCloser, int64, error) {
	if !strings.Contains(s.Base, "://") {
		f, err := os.Open(filepath.Join(s.Base, filepath.FromSlash(path)))
		if err != nil {
			return nil, 0, err
		}
		return f, -1, nil
	}
	base, err := url.Parse(s.Base)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, 0, errors.New("not an https URL: prices that anybody on the way can change are none")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath(path).String(), nil)
	if err != nil {
		return nil, 0, err
	}
	response, err := s.Client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the caller names the URL
		}
		return nil, 0, err
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, 0, fmt.Errorf("the server answered %s", response.Status)
	}
	return response.Body, response.ContentLength, nil
}

type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// parser reads one file.
type parser struct {
	offer, region string
	nodes         map[string]bool
	list          *List
	at            map[string]int
}

var wanted = []string{"termtype", "startingrange", "unit", "priceperunit", "currency", "usagetype"}

// plain is a column's name without case and spaces.
func plain(name string) string { return strings.ToLower(strings.ReplaceAll(name, " ", "")) }

// preamble are the five rows before the header.
func (p *parser) preamble(rows *rows.Reader) error {
	meta := map[string]string{}
	for i := range 5 {
		row, err := rows.Read()
		if err != nil {
			return rowError(i+1, err)
		}
		if len(row) >= 2 {
			meta[plain(row[0])] = row[1]
		}
	}
	if v := meta["formatversion"]; v != "v1.0" {
		return fmt.Errorf("line 1: FormatVersion is %q: only v1.0 is known", v)
	}
	if v := meta["offercode"]; v != p.offer {
		return fmt.Errorf("line 5: OfferCode is %q, not %s", v, p.offer)
	}
	published, err := time.Parse(time.RFC3339, meta["publicationdate"])
	if err != nil {
		return fmt.Errorf("line 3: Publication Date %q is no time", meta["publicationdate"])
	}
	p.list.Published[p.offer] = published.UTC().Format(time.DateOnly)
	return nil
}

func (p *parser) header(rows *rows.Reader) error {
	header, err := rows.Read()
	if err != nil {
		return rowError(6, err)
	}
	p.at = map[string]int{}
	for i, name := range header {
		p.at[plain(name)] = i
	}
	for _, name := range wanted {
		if _, ok := p.at[name]; !ok {
			return fmt.Errorf("line 6: there is no column %s", name)
		}
	}
	return nil
}

func (p *parser) read(r io.Reader) error {
	rows := rows.New(r)
	rows.FieldsPerRecord = -1
	rows.ReuseRecord = true
	if err := p.preamble(rows); err != nil {
		return err
	}
	if err := p.header(rows); err != nil {
		return err
	}
	columns := len(p.at)
	var found []cost.Quote
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return rowError(0, err)
		}
		line, _ := rows.FieldPos(0)
		if len(row) < columns {
			return fmt.Errorf("line %d: %d columns of %d: the file is cut short", line, len(row), columns)
		}
		q, ok, err := p.quote(row)
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if ok {
			found = append(found, q)
		}
	}
	p.list.Quotes = append(p.list.Quotes, tiers(found)...)
	return nil
}

func rowError(line int, err error) error {
	var parse *csv.ParseError
	switch {
	case errors.As(err, &parse):
		return fmt.Errorf("line %d: %w", parse.Line, parse.Err)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("line %d: the file ends", line)
	}
	if errors.Is(err, rows.ErrTooLong) && line > 0 {
		return fmt.Errorf("line %d: %w", line, err)
	}
	return err
}

func (p *parser) cell(row []string, name string) string {
	if i, ok := p.at[name]; ok {
		return strings.Clone(row[i])
	}
	return ""
}

var prefix = regexp.MustCompile(`^(EU|[A-Z]{2,4}[0-9])-`)

// units are the usage types that a table has, with what its price is for.
var units = map[string]struct {
	service, unit string
	per           float64
}{
	"AmazonDynamoDB ReadRequestUnits":                     {"dynamodb", "RRU", 1e6},
	"AmazonDynamoDB WriteRequestUnits":                    {"dynamodb", "WRU", 1e6},
	"AmazonDynamoDB TimedStorage-ByteHrs":                 {"dynamodb", "GB-month", 1},
	"AmazonDynamoDB ReadCapacityUnit-Hrs":                 {"dynamodb", "RCU-hour", 1},
	"AmazonDynamoDB WriteCapacityUnit-Hrs":                {"dynamodb", "WCU-hour", 1},
	"AWSQueueService Requests-RBP":                        {"sqs", "standard request", 1e6},
	"AWSQueueService Requests-Tier1":                      {"sqs", "standard request", 1e6},
	"AWSQueueService Requests-FIFO-RBP":                   {"sqs", "FIFO request", 1e6},
	"AWSQueueService Requests-FIFO-Tier1":                 {"sqs", "FIFO request", 1e6},
	"AmazonApiGateway ApiGatewayRequest":                  {"api_gateway", "REST request", 1e6},
	"AmazonApiGateway ApiGatewayHttpRequest":              {"api_gateway", "HTTP request", 1e6},
	"AmazonElastiCache CachedData:Valkey":                 {"elasticache_serverless", "valkey GB-hour", 1},
	"AmazonElastiCache CachedData:Redis":                  {"elasticache_serverless", "redis GB-hour", 1},
	"AmazonElastiCache ElastiCacheProcessingUnits:Valkey": {"elasticache_serverless", "valkey ECPU", 1e6},
	"AmazonElastiCache ElastiCacheProcessingUnits:Redis":  {"elasticache_serverless", "redis ECPU", 1e6},
}

// needed are the units without which a list is not whole.
var needed = []string{"dynamodb RRU", "dynamodb WRU", "dynamodb GB-month", "dynamodb RCU-hour", "dynamodb WCU-hour", "sqs standard request",
	"sqs FIFO request", "api_gateway REST request", "api_gateway HTTP request", "elasticache_serverless valkey GB-hour",
	"elasticache_serverless valkey ECPU", "elasticache cache.t4g.small valkey"}

func (p *parser) quote(row []string) (cost.Quote, bool, error) {
	if p.cell(row, "termtype") != "OnDemand" {
		return cost.Quote{}, false, nil
	}
	if at := p.cell(row, "regioncode"); at != "" && at != p.region {
		return cost.Quote{}, false, nil
	}
	usage := prefix.ReplaceAllString(p.cell(row, "usagetype"), "")
	q := cost.Quote{Region: p.region, Per: 1, Source: cost.Source{Name: "AWS Price List", Read: p.list.Published[p.offer]}}
	if u, ok := units[p.offer+" "+usage]; ok {
		q.Service, q.Unit, q.Per = u.service, u.unit, u.per
	} else if node, ok := strings.CutPrefix(usage, "NodeUsage:"); ok {
		engine := strings.ToLower(p.cell(row, "cacheengine"))
		if engine != "valkey" && engine != "redis" {
			return q, false, nil
		}
		q.Service, q.Unit = "elasticache", node+" "+engine
		if p.offer == "AmazonMemoryDB" {
			q.Service = "memorydb"
		}
		if !p.nodes[node] {
			p.list.Skipped++
			return q, false, nil
		}
	} else {
		return q, false, nil
	}
	if c := p.cell(row, "currency"); c != "USD" {
		return q, false, fmt.Errorf("the currency is %q", c)
	}
	usd, err := strconv.ParseFloat(p.cell(row, "priceperunit"), 64)
	if err != nil || !(usd >= 0 && usd < 1e6) {
		return q, false, fmt.Errorf("PricePerUnit %q is no price", p.cell(row, "priceperunit"))
	}
	above := p.cell(row, "startingrange")
	if above != "" {
		if q.Above, err = strconv.ParseFloat(above, 64); err != nil || !(q.Above >= 0 && q.Above < 1e18) {
			return q, false, fmt.Errorf("StartingRange %q is no number", above)
		}
	}
	q.USD = round(usd * q.Per)
	return q, usd > 0, nil // a price of zero is a free tier
}

// round takes away what the multiplication by a million adds to the last digits.
func round(v float64) float64 {
	r, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 12, 64), 64)
	return r
}

// tiers sorts the tiers of each unit. The first begins at zero: what lies below is free, of which an estimate takes no account.
func tiers(list []cost.Quote) []cost.Quote {
	slices.SortStableFunc(list, func(a, b cost.Quote) int {
		if c := strings.Compare(a.Service+" "+a.Unit, b.Service+" "+b.Unit); c != 0 {
			return c
		}
		return int(max(-1, min(1, a.Above-b.Above)))
	})
	var kept []cost.Quote
	for i, q := range list {
		first := i == 0 || list[i-1].Service != q.Service || list[i-1].Unit != q.Unit
		if first {
			q.Above = 0
		} else if list[i-1].Above == list[i].Above && list[i-1].USD == list[i].USD {
			continue // the same product under two operations
		}
		kept = append(kept, q)
	}
	return kept
}

// whole says what a list lacks.
func (l List) whole() error {
	var missing []string
	for _, name := range needed {
		if !slices.ContainsFunc(l.Quotes, func(q cost.Quote) bool { return q.Service+" "+q.Unit == name }) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the lists lack prices: %s", strings.Join(missing, ", "))
	}
	return nil
}

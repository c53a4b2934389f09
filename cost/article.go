package cost

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The article's prices, for [Preset.AsArticle] alone: none of them is a list price.
const (
	articleRead    = 0.25 // of a million reads, of any size
	articleWrite   = 1.25
	articleMessage = 0.40
	articleSmall   = 0.016 // an hour
	articleMedium  = 0.032
	articleLarge   = 0.166 // cache.r7g.large
	articleBig     = 500_000
	articleUsers   = 100_000 // of its whole table
)

// ArticleFigure is one figure of the article beside the right one.
type ArticleFigure struct {
	Name string `json:"name"`
	// Printed is the figure as the article prints it, Computed what its own assumptions give, before it was cut.
	Printed   float64 `json:"printed"`
	Computed  float64 `json:"computed"`
	Unit      string  `json:"unit"` // "USD a month", "ms"
	Corrected float64 `json:"corrected"`
	Why       string  `json:"why"`
}

const perMonth = "USD a month"

// AsArticle returns the estimate of a preset as the article has it, its prices, its single node, its omissions, each figure cut
// to the digits that it prints, so that sums differ by their rounding. e is the preset's right estimate: its figures stand
// beside the article's in Article.
func (p Prices) AsArticle(s Preset, e Estimate) (Estimate, error) {
	model, err := s.Model()
	if err != nil {
		return Estimate{}, err
	}
	a := Estimate{Region: e.Region, Inputs: e.Inputs, Sources: []Source{{Name: "the article", Read: "2026"}},
		BreakEven: []BreakEven{}, Curve: []Point{}, Sensitivity: []Sensitivity{},
		Assumptions: []string{
			"the article's prices and arithmetic, each figure cut to the digits that it prints; article[] has the right ones and why they differ",
			"one node, no replica; items of any size are one unit; no free tier"}}
	right, err := p.compare(model.Build(model.expected()))
	if err != nil {
		return Estimate{}, err
	}
	if s.Name == "sessions" {
		p.articleSessions(&a, s, e, right)
	} else {
		p.articleTable(&a, s, e, right)
	}
	a.Article = append(a.Article, p.articleRest()...)
	a.Flat.Kind, a.Flat.Engine, a.Flat.Term, a.Flat.Shards, a.Flat.PerShard, a.Flat.Count = Nodes, Valkey, OnDemand, 1, 1, 1
	a.Flat.Fits, a.Flat.NeedBytes, a.Flat.Lines = true, e.Flat.NeedBytes, []Line{}
	if n, err := p.Node(a.Flat.Node); err == nil {
		a.Flat.UsableBytes = n.UsableBytes()
		a.Flat.Fits = e.Flat.NeedBytes <= a.Flat.UsableBytes
	}
	return a.sums(), nil
}

// sums fills in what follows from the services and the node.
func (e Estimate) sums() Estimate {
	e.Best = Mix{Kind: Nodes, Switch: []string{}, Stay: []string{}, Flat: e.Flat.FlatSize, USD: e.Total.FlatUSD, SavingUSD: e.Total.SavingUSD}
	verdict, why := Switch, "as the article has it"
	switch { // of other numbers of users than the article's
	case e.Total.SavingUSD <= 0:
		verdict, why = Stay, "by the article's own prices its node costs more than it saves"
		e.Best = Mix{Switch: []string{}, Stay: []string{}, USD: e.Total.MeteredUSD}
	case !e.Flat.Fits:
		why += ", but its node is too small for this load"
	}
	for i := range e.Services {
		s := &e.Services[i]
		s.Lines, s.Verdict = []NamedLine{}, verdict
		s.FlatShareUSD = e.Total.FlatUSD / float64(len(e.Services))
		s.Low = ServiceRange{s.MeteredUSD, s.FlatShareUSD, verdict}
		s.High = s.Low
		if verdict == Stay {
			e.Best.Stay = append(e.Best.Stay, s.Name)
		} else {
			e.Best.Switch = append(e.Best.Switch, s.Name)
		}
	}
	t := &e.Total
	t.Verdict, t.Why = verdict, why
	r := Range{MeteredUSD: t.MeteredUSD, FlatUSD: t.FlatUSD, SavingUSD: t.SavingUSD, BestUSD: e.Best.USD, Node: e.Flat.Node, Count: 1, Values: Values{}}
	t.Low, t.Expected, t.High = r, r, r
	return e
}

// printed cuts a figure as the article does: to cents below a hundred dollars, to dollars from there.
func printed(usd float64) float64 {
	if math.Abs(usd) >= 100 {
		return math.Trunc(usd + 1e-9)
	}
	return math.Round(usd*100) / 100
}

// articleSessionsUSD is the article's DynamoDB bill of a month's sessions. It works out the storage and does not add it.
func articleSessionsUSD(users float64) float64 {
	reads, writes := users*requestsPerUser*readsPerRequest, users*requestsPerUser*writesPerRequest
	return (reads/1e6*articleRead + writes/1e6*articleWrite) * days
}

func articleNode(users float64) (string, float64) {
	if users >= articleBig {
		return "cache.t4g.medium", articleMedium * HoursPerMonth
	}
	return "cache.t4g.small", articleSmall * HoursPerMonth
}

func (p Prices) articleSessions(a *Estimate, s Preset, e Estimate, right comparison) {
	metered := articleSessionsUSD(s.Users)
	node, flat := articleNode(s.Users)
	a.Flat.Node, a.Flat.USD = node, printed(flat)
	a.Total.MeteredUSD, a.Total.FlatUSD, a.Total.SavingUSD = printed(metered), printed(flat), printed(metered-flat)
	pair := p.pairUSD(node)
	a.Services = []ServiceEstimate{{Name: "sessions", MeteredUSD: printed(metered), Need: right.need,
		Why: "the list price of these reads and writes is " + dollars(right.metered)}}
	a.Article = []ArticleFigure{
		{"DynamoDB", printed(metered), metered, perMonth, right.metered,
			"prices before the cut of November 2024, a 2 KB write counted as one unit instead of two, its own storage left out"},
		{node, printed(flat), flat, perMonth, pair,
			"no such price: list is higher, and a pair in two zones is two nodes"},
		{"saving", printed(metered - flat), metered - flat, perMonth, right.metered - pair,
			fmt.Sprintf("what is left after both; with %d x %s it is %s", e.Flat.Count, e.Flat.Node, dollars(e.Total.SavingUSD))},
		{"storage", printed(s.Users * 60e3 / 1e9 * 0.25), s.Users * 60e3 / 1e9 * 0.25, perMonth, storageUSD(right),
			"30 days of sessions are counted although each lives one; a day's are stored"},
	}
}

// millions is a number of requests as people say it.
func millions(n float64) string {
	sig := 1.0
	if n < 1e7 {
		sig = 1000
	}
	return strconv.FormatFloat(math.Round(n/1e6*sig)/sig, 'f', -1, 64) + " million"
}

// pairUSD is two nodes of a type with Valkey; NaN never gets out, since the types are in every table that has ElastiCache.
func (p Prices) pairUSD(node string) float64 {
	side, err := p.flatSide(Flat{Node: node}, Need{})
	if err != nil {
		return 0
	}
	return side.USD
}

func storageUSD(c comparison) float64 {
	for _, l := range c.shares[0].lines {
		if l.Unit == "GB-month" {
			return l.USD
		}
	}
	return 0
}

func (p Prices) articleTable(a *Estimate, s Preset, e Estimate, right comparison) {
	k := s.Users / articleUsers
	flat := articleMedium * HoursPerMonth
	a.Flat.Node, a.Flat.USD = "cache.t4g.medium", math.Round(flat)
	rows := []struct {
		name     string
		computed float64
		why      string
	}{
		{"sessions", 2 * articleSessionsUSD(s.Users), "twice the article's own arithmetic, at prices before the cut of November 2024"},
		{"rate limiting", 900 * k, fmt.Sprintf("usage plans carry no fee; %s is %s REST requests, the load is %s; and API Gateway is paid as long as it stands in front",
			strings.TrimSuffix(dollars(math.Round(900*k)), ".00"), millions(900*k/3.5*1e6), millions(s.Users*requestsPerUser*days))},
		{"queue", messagesPerUser * s.Users * days / 1e6 * articleMessage, "a message is up to three requests, in batches of ten a third of one; the first million a month is free"},
		{"cache", 45 * k, "no database price or size is given; yours decides (--db-usd-per-million, --db-usd-month)"},
		{"locks", lockWrites * s.Users * days / 1e6 * articleWrite, "half: the price of a write was cut in November 2024"},
	}
	var total float64
	for i, r := range rows {
		value := math.Round(r.computed)
		total += value
		saved := right.shares[i].usd - right.shares[i].kept
		a.Services = append(a.Services, ServiceEstimate{Name: r.name, MeteredUSD: value, Need: right.shares[i].need, Why: r.why})
		a.Article = append(a.Article, ArticleFigure{r.name, value, r.computed, perMonth, saved, r.why})
	}
	a.Total.MeteredUSD, a.Total.FlatUSD = total, math.Round(flat)
	a.Total.SavingUSD = total - a.Total.FlatUSD
	a.Article = append(a.Article,
		ArticleFigure{"cache.t4g.medium", math.Round(flat), flat, perMonth, p.pairUSD("cache.t4g.medium"),
			"no such price: list is higher, and a pair in two zones is two nodes"},
		ArticleFigure{"saving", a.Total.SavingUSD, total - flat, perMonth, e.Total.SavingUSD,
			fmt.Sprintf("the sum of the above, with %d x %s; from %s to %s by what nobody said", e.Flat.Count, e.Flat.Node, dollars(e.Total.Low.SavingUSD), dollars(e.Total.High.SavingUSD))})
}

// articleRest are its figures that no preset changes.
func (p Prices) articleRest() []ArticleFigure {
	ms := func(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1e3 }
	const cached, database = 500 * time.Microsecond, 20 * time.Millisecond
	medium, large := articleMedium*HoursPerMonth, articleLarge*HoursPerMonth
	return []ArticleFigure{
		{"cache-aside at 90% hits", 2.5, ms(cacheAside(0.9, cached, database, 1)), "ms", ms(cacheAside(0.9, cached, database, 2)),
			"a miss also writes the value to the cache: one round trip more"},
		{"from cache.t4g.medium to cache.r7g.large", math.Round(large - medium), large - medium, perMonth,
			p.pairUSD("cache.r7g.large") - p.pairUSD("cache.t4g.medium"), "list prices, and a pair"},
	}
}

// Package limits reads plans of limits from a YAML file, and keeps them in force while the file changes.
//
// [Parse] checks a file. [Open] loads one and makes limiters of it, and [Source.Run] looks after changes. What a
// file may say is in docs/ratelimit-plans.md.
package limits

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/yamlfile"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/valkey-io/valkey-go"
)

// maxName is how many bytes the name of a plan may have.
const maxName = 128

// Parse reads the plans of a file by their names. Prefix, Name and Hooks are left to [Open]. file stands in the error,
// a *yamlfile.Error.
func Parse(file string, data []byte) (map[string]ratelimit.Config, error) {
	doc, root, err := yamlfile.Parse(file, data)
	if err != nil {
		return nil, err
	}
	plans := map[string]ratelimit.Config{}
	if top, ok := root.Keys("plans"); ok {
		if value, ok := top.Get("plans"); ok {
			readPlans(doc, value, plans)
		} else {
			top.Fail("plans are missing")
		}
	}
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return plans, nil
}

func readPlans(doc *yamlfile.Document, value yamlfile.Value, plans map[string]ratelimit.Config) {
	all, ok := value.Map()
	if !ok {
		return
	}
	for name, value := range all.All {
		if len(name.Name()) > maxName {
			name.Fail("the name of a plan has over %d bytes", maxName)
		}
		before := doc.Problems()
		p := plan{}
		p.read(value)
		if doc.Problems() == before {
			p.check(value)
		}
		plans[name.Name()] = p.cfg
	}
	if len(plans) == 0 {
		value.Fail("there is no plan")
	}
}

// plan is a plan that is being read.
type plan struct {
	cfg  ratelimit.Config
	body yamlfile.Map
	from []origin // of cfg.Limits
}

// origin is where a limit stands in the file, and how the fields of a Limit are called there.
type origin struct {
	body  yamlfile.Map
	named map[string]string
}

var outages = []string{"error", "open", "closed", "local"}

func (p *plan) read(value yamlfile.Value) {
	var ok bool
	p.body, ok = value.Keys("throttle", "quota", "limits", "timeout", "outage", "processes", "batch", "batchFor", "rememberDenied")
	if !ok {
		return
	}
	if v, ok := p.body.Get("throttle"); ok {
		p.throttle(v)
	}
	if v, ok := p.body.Get("quota"); ok {
		p.quota(v)
	}
	if v, ok := p.body.Get("limits"); ok {
		for _, v := range v.List() {
			p.limit(v)
		}
	}
	if v, ok := p.body.Get("outage"); ok {
		p.cfg.Outage = ratelimit.Outage(max(0, v.Word(outages...)))
	}
	if v, ok := p.body.Get("processes"); ok {
		n, ok := v.Int()
		if ok && (n < 1 || n > 1_000_000) {
			v.Fail("processes is %d, not from 1 to 1000000", n)
		}
		p.cfg.Processes = int(n)
	}
	if v, ok := p.body.Get("batch"); ok {
		p.cfg.Batch, _ = v.Int()
	}
	for name, to := range map[string]*time.Duration{"timeout": &p.cfg.Timeout, "batchFor": &p.cfg.BatchFor, "rememberDenied": &p.cfg.RememberDenied} {
		if v, ok := p.body.Get(name); ok {
			*to = v.Duration()
		}
	}
}

// throttle reads the throttle of an API Gateway usage plan: rateLimit units a second, burstLimit at once.
func (p *plan) throttle(value yamlfile.Value) {
	m, ok := value.Keys("rateLimit", "burstLimit")
	if !ok {
		return
	}
	limit := ratelimit.Limit{Name: "throttle", Algorithm: ratelimit.TokenBucket}
	if v, ok := m.Get("rateLimit"); ok {
		if limit.Limit, limit.Window, ok = rate(v.Plain()); !ok {
			v.Fail("not a rate: requests a second above 0, with at most six digits behind the point")
		}
	} else {
		m.Fail("rateLimit is missing")
	}
	if v, ok := m.Get("burstLimit"); ok {
		if limit.Burst, ok = v.Int(); ok && limit.Burst < 1 {
			v.Fail("burstLimit is %d: nothing would be admitted", limit.Burst)
		}
	} else {
		m.Fail("burstLimit is missing")
	}
	p.add(limit, origin{m, map[string]string{"Limit": "rateLimit", "Burst": "burstLimit"}})
}

var decimal = regexp.MustCompile(`^([0-9]{1,9})(?:\.([0-9]{1,6}))?$`)

// rate makes whole units in whole seconds of a decimal number of units a second: 2.5 is 5 in 2 s.
func rate(text string) (units int64, window time.Duration, ok bool) {
	m := decimal.FindStringSubmatch(text)
	if m == nil {
		return 0, 0, false
	}
	units, err := strconv.ParseInt(m[1]+m[2], 10, 64)
	seconds := int64(1)
	for range m[2] {
		seconds *= 10
	}
	for _, prime := range []int64{2, 5} {
		for seconds%prime == 0 && units%prime == 0 && seconds > 1 {
			units, seconds = units/prime, seconds/prime
		}
	}
	return units, time.Duration(seconds) * time.Second, err == nil && units > 0
}

// quota reads the quota of an API Gateway usage plan: its offset is in days, and its weeks begin on Sundays.
func (p *plan) quota(value yamlfile.Value) {
	m, ok := value.Keys("limit", "period", "offset")
	if !ok {
		return
	}
	limit := ratelimit.Limit{Name: "quota", Algorithm: ratelimit.Quota, Limit: 1, Period: ratelimit.Day}
	if v, ok := m.Get("limit"); ok {
		limit.Limit, _ = v.Int()
	} else {
		m.Fail("limit is missing")
	}
	if v, ok := m.Get("period"); !ok {
		m.Fail("period is missing")
	} else if i := v.Word("DAY", "WEEK", "MONTH"); i >= 0 {
		limit.Period = ratelimit.Day + ratelimit.Period(i)
	}
	days := int64(0)
	if v, ok := m.Get("offset"); ok {
		days, _ = v.Int()
		if most := map[ratelimit.Period]int64{ratelimit.Week: 6, ratelimit.Month: 27}[limit.Period]; days < 0 || days > most {
			v.Fail("offset is %d, not from 0 to %d days", days, most)
			days = 0
		}
	}
	if limit.Period == ratelimit.Week {
		days = (days + 6) % 7 // ours begin on Mondays
	}
	limit.Offset = time.Duration(days) * 24 * time.Hour
	p.add(limit, origin{m, map[string]string{"Limit": "limit", "Period": "period", "Offset": "offset"}})
}

// limit reads one of the toolkit's own limits.
func (p *plan) limit(value yamlfile.Value) {
	m, ok := value.Keys("name", "algorithm", "limit", "window", "burst", "period", "offset", "lease", "outage")
	if !ok {
		return
	}
	var l ratelimit.Limit
	if v, ok := m.Get("name"); ok {
		l.Name = v.Text()
	}
	if v, ok := m.Get("algorithm"); ok {
		l.Algorithm = ratelimit.Algorithm(max(0, v.Word("fixed", "sliding", "log", "bucket", "concurrency", "quota")))
	}
	if v, ok := m.Get("period"); ok {
		l.Period = ratelimit.Day + ratelimit.Period(max(0, v.Word("day", "week", "month")))
	}
	if v, ok := m.Get("outage"); ok {
		l.Outage = ratelimit.Outage(max(0, v.Word(outages...)))
	}
	for name, to := range map[string]*int64{"limit": &l.Limit, "burst": &l.Burst} {
		if v, ok := m.Get(name); ok {
			*to, _ = v.Int()
		}
	}
	for name, to := range map[string]*time.Duration{"window": &l.Window, "offset": &l.Offset, "lease": &l.Lease} {
		if v, ok := m.Get(name); ok {
			*to = v.Duration()
		}
	}
	p.add(l, origin{m, nil})
}

func (p *plan) add(l ratelimit.Limit, from origin) {
	p.cfg.Limits, p.from = append(p.cfg.Limits, l), append(p.from, from)
}

// check asks package ratelimit what it thinks of the plan: of each limit by itself, so that all problems are
// found, then of all together.
func (p *plan) check(value yamlfile.Value) {
	if len(p.cfg.Limits) == 0 {
		value.Fail("the plan has no limits: throttle, quota or limits")
		return
	}
	fine := true
	for i, l := range p.cfg.Limits {
		err := ratelimit.Config{Limits: []ratelimit.Limit{l}, Processes: 1}.Validate()
		if err != nil {
			fine = false
			p.report(i, err)
		}
	}
	if !fine {
		return
	}
	local := func(l ratelimit.Limit) bool { return l.Outage == ratelimit.OutageLocal }
	if p.cfg.Processes == 0 && (p.cfg.Outage == ratelimit.OutageLocal || slices.ContainsFunc(p.cfg.Limits, local)) {
		p.body.Fail("processes is missing: with the outage mode local it says how many share the limits")
		return
	}
	if err := p.cfg.Validate(); err != nil {
		p.report(-1, err)
	}
}

var field = regexp.MustCompile(`^ratelimit: Config\.(?:Limits\[(\d+)\]\.)?(\w+) (.*)$`)

// report puts an error of New where its field stands in the file. limit says of which limit it is, if only that
// one was asked about.
func (p *plan) report(limit int, err error) {
	m := field.FindStringSubmatch(err.Error())
	if m == nil {
		p.body.Fail("%v", err)
		return
	}
	body, named := p.body, map[string]string(nil)
	if i, err := strconv.Atoi(m[1]); err == nil {
		if limit >= 0 {
			i = limit
		}
		body, named = p.from[i].body, p.from[i].named
	}
	name := strings.ToLower(m[2][:1]) + m[2][1:]
	if renamed, ok := named[m[2]]; ok {
		name = renamed
	}
	body.At(name).Fail("%s %s", name, m[3])
}

// limiterOf makes the limiter of a plan.
func limiterOf(client valkey.Client, prefix, name string, cfg ratelimit.Config, hooks ratelimit.Hooks) (*ratelimit.Limiter, error) {
	cfg.Prefix, cfg.Name, cfg.Hooks = prefix, name, hooks
	l, err := ratelimit.New(client, cfg)
	if err != nil {
		return nil, fmt.Errorf("plan %q: %w", name, err)
	}
	return l, nil
}

package ratehttp

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
)

// maxInteger is the largest integer of a structured field (RFC 9651).
const maxInteger = 999_999_999_999_999

// policy is one limit as headers and problems name it.
type policy struct {
	name   string // printable ASCII, unique in a response
	quoted string // name as a structured field's string
	field  string // its member of RateLimit-Policy
	places bool   // Concurrency

	ask, index int // whose it is: Decision.Results[ask].Limits()[index]
}

// policiesOf lists the limits of all asks, in the order of their results.
func policiesOf(asks []ratelimit.Ask) []policy {
	var all []policy
	for i, ask := range asks {
		for j, limit := range ask.Limiter.Limits() {
			name := policyName(limit.Name)
			for n := 2; slices.ContainsFunc(all, func(p policy) bool { return p.name == name }); n++ {
				name = policyName(limit.Name) + "-" + strconv.Itoa(n)
			}
			quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
			all = append(all, policy{name, quoted, quoted + parameters(limit), limit.Algorithm == ratelimit.Concurrency, i, j})
		}
	}
	return all
}

// policyName writes what is no printable ASCII as %XX, and the percent sign too.
func policyName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || c == '%' {
			b.WriteByte('%')
			b.WriteByte("0123456789ABCDEF"[c>>4])
			b.WriteByte("0123456789ABCDEF"[c&0xf])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// parameters are q, qu and w of a limit. A bucket is its burst in the time that it takes to fill: the same rate.
// A month has no w, having no fixed length.
func parameters(l ratelimit.Limit) string {
	quota, window := l.Limit, l.Window
	switch l.Algorithm {
	case ratelimit.Concurrency:
		return ";q=" + integer(quota) + `;qu="concurrent-requests"`
	case ratelimit.TokenBucket:
		fill := float64(l.Burst) / float64(l.Limit) * l.Window.Seconds()
		return ";q=" + integer(l.Burst) + ";w=" + integer(int64(min(maxInteger, max(1, math.Ceil(fill)))))
	case ratelimit.Quota:
		window = map[ratelimit.Period]time.Duration{ratelimit.Day: 24 * time.Hour, ratelimit.Week: 7 * 24 * time.Hour}[l.Period]
	}
	if window == 0 {
		return ";q=" + integer(quota)
	}
	return ";q=" + integer(quota) + ";w=" + integer(max(1, seconds(window)))
}

func integer(n int64) string { return strconv.FormatInt(min(n, maxInteger), 10) }

// seconds rounds up: whoever waits so long has waited long enough.
func seconds(d time.Duration) int64 {
	n := int64(d / time.Second)
	if d%time.Second > 0 {
		n++
	}
	return n
}

// SetHeaders tells a client of its limits, and when it may come again if it is refused. Where nothing is known
// of limits it says nothing of them. The X-RateLimit fields are replaced; to RateLimit and RateLimit-Policy,
// which are lists, the limits are added.
func (d Decision) SetHeaders(h http.Header, headers Headers) {
	if after := d.RetryAfter(); after > 0 && after != ratelimit.Never {
		h.Set("Retry-After", strconv.FormatInt(seconds(after), 10))
	}
	if d.Err != nil {
		return
	}
	if headers == HeadersAll || headers == HeadersX {
		if r, ok := d.tightest(); ok {
			h.Set("X-RateLimit-Limit", strconv.FormatInt(r.Limit, 10))
			h.Set("X-RateLimit-Remaining", strconv.FormatInt(r.Remaining, 10))
			h.Set("X-RateLimit-Reset", strconv.FormatInt(resetUnix(r), 10))
		}
	}
	if headers == HeadersAll || headers == HeadersIETF {
		if current, policies := d.fields(); current != "" {
			h.Add("RateLimit", current)
			h.Add("RateLimit-Policy", policies)
		}
	}
}

// resetUnix is when all units are available again, in Unix seconds: by the server's clock where it was asked.
func resetUnix(r ratelimit.Result) int64 {
	at := r.Reset
	if at.IsZero() {
		at = time.Now().Add(r.ResetAfter)
	}
	return (at.UnixMilli() + 999) / 1000
}

// tightest is the result that X-RateLimit-* tells of: the one that denies for longest, else the one that has
// the smallest part left.
func (d Decision) tightest() (r ratelimit.Result, ok bool) {
	for _, o := range d.Results {
		switch {
		case o.Limit == 0, !d.Allowed && o.Allowed: // nothing known, or given back
		case !ok, o.RetryAfter > r.RetryAfter,
			o.RetryAfter == r.RetryAfter && float64(o.Remaining)/float64(o.Limit) < float64(r.Remaining)/float64(r.Limit):
			r, ok = o, true
		}
	}
	return r, ok
}

// fields are the values of RateLimit and RateLimit-Policy. A refusal names the limits that refuse, so that
// Retry-After never comes before a t.
func (d Decision) fields() (current, policies string) {
	var now, all strings.Builder
	var limits []ratelimit.LimitResult
	for _, p := range d.limits() {
		if p.index == 0 {
			limits = d.Results[p.ask].Limits()
		}
		appendMember(&all, p.field)
		if p.index >= len(limits) || !d.Allowed && limits[p.index].RetryAfter == 0 {
			continue
		}
		l := limits[p.index]
		t := l.ResetAfter
		if !d.Allowed {
			t = l.RetryAfter
		}
		member := p.quoted + ";r=" + integer(l.Remaining)
		if t != ratelimit.Never {
			member += ";t=" + integer(seconds(t))
		}
		appendMember(&now, member)
	}
	return now.String(), all.String()
}

func appendMember(b *strings.Builder, member string) {
	if b.Len() > 0 {
		b.WriteString(", ")
	}
	b.WriteString(member)
}

package ratelimitd

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	descriptorpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/ratelimitd/domains"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratehttp"
	"github.com/valkey-io/valkey-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// part is one descriptor of a request on its way to an answer.
type part struct {
	label   string // for metrics; empty if no rule fits
	name    string // of the rule
	limiter *ratelimit.Limiter
	subject string
	hits    int64 // zero only looks
	limit   domains.Limit

	unlimited, blocked, shadow bool

	replaces []string
	result   ratelimit.Result
	failed   error // of a shadow, which fails by itself
}

// partsOf finds the rules of a request.
func (s rls) partsOf(b *backend, request *rlspb.RateLimitRequest) ([]part, error) {
	parts := make([]part, len(request.GetDescriptors()))
	set := s.rules.set.Load()
	if set == nil {
		return parts, nil
	}
	var replaced []string
	for i, d := range request.GetDescriptors() {
		p := &parts[i]
		p.hits = hitsOf(request, d)
		if err := s.find(b, set, request.GetDomain(), d, p); err != nil {
			return nil, err
		}
		replaced = append(replaced, p.replaces...)
	}
	for i := range parts {
		if p := &parts[i]; p.name != "" && slices.Contains(replaced, p.name) {
			*p = part{}
		}
	}
	return parts, nil
}

func (s rls) find(b *backend, set *domains.Set, domain string, d *descriptorpb.RateLimitDescriptor, p *part) (err error) {
	entries := make([]domains.Entry, len(d.GetEntries()))
	for i, e := range d.GetEntries() {
		entries[i] = domains.Entry{Key: e.GetKey(), Value: e.GetValue()}
	}
	rule, subject, known := set.Match(domain, entries)
	p.subject = subject
	switch own := d.GetLimit(); {
	case known && own != nil:
		p.label, p.subject = domain+": override", domains.Subject(entries)
		p.limit = domains.Limit{Requests: own.GetRequestsPerUnit(), Unit: domains.Unit(strings.ToLower(own.GetUnit().String())), Times: 1}
		if p.limit.Unit.Duration() == 0 {
			return status.Error(codes.InvalidArgument, "the limit of a descriptor has no unit")
		}
	case rule == nil:
		return nil
	default:
		p.label, p.name, p.replaces = rule.Label, rule.Name, rule.Replaces
		p.limit, p.unlimited, p.shadow = rule.Limit, rule.Unlimited, rule.Shadow
		if rule.Plan != "" {
			if p.limiter, err = b.plan(rule.Plan); err != nil {
				return status.Error(codes.FailedPrecondition, rule.Label+": "+err.Error())
			}
			return nil
		}
	}
	switch {
	case p.unlimited:
	case p.limit.Requests == 0:
		p.blocked = true
	default:
		if p.limiter, err = b.limiters.get(domain, p.limit); err != nil {
			return status.Error(codes.Internal, p.label+": "+err.Error())
		}
	}
	return nil
}

// decide asks for all parts together. Rules that can deny come first: one round trip where all admit. What is denied is
// not counted, in no part.
func decide(ctx context.Context, parts []part) (allowed bool, err error) {
	var looks, charges, shadows []*part
	allowed = true
	for i := range parts {
		switch p := &parts[i]; {
		case p.blocked && !p.shadow:
			allowed = false
		case p.limiter == nil:
		case p.shadow:
			shadows = append(shadows, p)
		case p.hits == 0:
			looks = append(looks, p)
		default:
			charges = append(charges, p)
		}
	}
	if len(looks) > 0 {
		passed, err := look(ctx, looks)
		if err != nil {
			return false, err
		}
		allowed = allowed && passed
	}
	if allowed && len(charges) > 0 {
		allowed, err = charge(ctx, charges)
	} else if len(charges) > 0 {
		_, err = look(ctx, charges)
	}
	if err != nil || len(shadows) == 0 {
		return allowed, err
	}
	return allowed, shadow(ctx, shadows, allowed)
}

func asksOf(parts []*part) []ratelimit.Ask {
	asks := make([]ratelimit.Ask, len(parts))
	for i, p := range parts {
		asks[i] = ratelimit.Ask{Limiter: p.limiter, Subject: p.subject, Cost: p.hits}
	}
	return asks
}

func look(ctx context.Context, parts []*part) (allowed bool, err error) {
	results, allowed, err := peek(ctx, asksOf(parts)...)
	for i, p := range parts {
		p.result = results[i]
	}
	return allowed, err
}

func charge(ctx context.Context, parts []*part) (allowed bool, err error) {
	if len(parts) == 1 {
		p := parts[0]
		p.result, err = p.limiter.AllowN(ctx, p.subject, p.hits)
		return p.result.Allowed, err
	}
	results, allowed, err := ratelimit.AllowAll(ctx, asksOf(parts)...)
	for i, p := range parts {
		p.result = results[i]
		if !allowed && p.result.Allowed && p.result.Limit > 0 { // it was given back
			p.result.Remaining = min(p.result.Limit, p.result.Remaining+p.hits)
		}
	}
	return allowed, err
}

// shadow counts what goes on, each part by itself. An error in it is none of the request's.
func shadow(ctx context.Context, parts []*part, charged bool) error {
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() {
			if charged && p.hits > 0 {
				p.result, p.failed = p.limiter.AllowN(ctx, p.subject, p.hits)
			} else {
				p.result, p.failed = p.limiter.Peek(ctx, p.subject)
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// outcome is for the metrics.
func (p *part) outcome(err error) string {
	denied := p.blocked || p.limiter != nil && !p.result.Allowed
	switch {
	case p.failed != nil:
		return "error"
	case p.unlimited:
		return "unlimited"
	case denied && p.shadow:
		return "shadow_denied"
	}
	return outcome(!denied, err)
}

// status is the part's in the answer.
func (p *part) status() *rlspb.RateLimitResponse_DescriptorStatus {
	s := &rlspb.RateLimitResponse_DescriptorStatus{Code: fine}
	switch {
	case p.failed != nil: // nothing is known
	case p.unlimited:
		s.LimitRemaining = math.MaxUint32
	case p.blocked:
		s.CurrentLimit = p.currentLimit()
		s.Code = over
	case p.limiter != nil:
		if s.CurrentLimit = p.currentLimit(); s.CurrentLimit != nil {
			s.LimitRemaining = uint32(min(math.MaxUint32, p.result.Remaining))
			s.DurationUntilReset = durationpb.New(p.result.ResetAfter)
		}
		if !p.result.Allowed {
			s.Code = over
		}
	}
	if p.shadow {
		s.Code = fine
	}
	return s
}

// currentLimit is the rule's limit, or the most restrictive one of a plan; nil while nothing is known of it.
func (p *part) currentLimit() *rlspb.RateLimitResponse_RateLimit {
	if p.limit.Unit != "" {
		l := &rlspb.RateLimitResponse_RateLimit{Name: p.name, RequestsPerUnit: p.limit.Requests}
		if p.limit.Times == 1 { // the protocol has no word for several units
			l.Unit = unitOf(p.limit.Unit.Duration())
		}
		return l
	}
	for _, l := range p.limiter.Limits() {
		if l.Name == p.result.Name && p.result.Limit > 0 {
			window := l.Window
			if l.Algorithm == ratelimit.Quota {
				window = map[ratelimit.Period]time.Duration{ratelimit.Day: day, ratelimit.Week: 7 * day, ratelimit.Month: 30 * day}[l.Period]
			}
			return &rlspb.RateLimitResponse_RateLimit{Name: l.Name, RequestsPerUnit: uint32(min(math.MaxUint32, l.Limit)), Unit: unitOf(window)}
		}
	}
	return nil
}

const day = 24 * time.Hour

// unitOf is the protocol's unit of a window; UNKNOWN if it is none.
func unitOf(window time.Duration) rlspb.RateLimitResponse_RateLimit_Unit {
	return map[time.Duration]rlspb.RateLimitResponse_RateLimit_Unit{
		time.Second: rlspb.RateLimitResponse_RateLimit_SECOND, time.Minute: rlspb.RateLimitResponse_RateLimit_MINUTE,
		time.Hour: rlspb.RateLimitResponse_RateLimit_HOUR, day: rlspb.RateLimitResponse_RateLimit_DAY,
		7 * day: rlspb.RateLimitResponse_RateLimit_WEEK, 30 * day: rlspb.RateLimitResponse_RateLimit_MONTH,
		365 * day: rlspb.RateLimitResponse_RateLimit_YEAR,
	}[window]
}

// headers are what Envoy adds to its response: those of the limits that can deny.
func (s rls) headers(parts []part, allowed bool) []*corepb.HeaderValue {
	if allowed && s.cfg.RLSHeaders == ratehttp.HeadersNone {
		return nil
	}
	d := ratehttp.Decision{Allowed: allowed}
	if !allowed {
		d.Status = http.StatusTooManyRequests
	}
	for i := range parts {
		if p := &parts[i]; p.limiter != nil && !p.shadow {
			d.Asks = append(d.Asks, ratelimit.Ask{Limiter: p.limiter, Subject: p.subject, Cost: p.hits})
			d.Results = append(d.Results, p.result)
		}
	}
	if len(d.Asks) == 0 || !allowed && !slices.ContainsFunc(d.Results, func(r ratelimit.Result) bool { return !r.Allowed }) {
		return nil // nothing to count, or denied by a rule that never admits
	}
	h := http.Header{}
	d.SetHeaders(h, s.cfg.RLSHeaders)
	var all []*corepb.HeaderValue
	for name, values := range h {
		for _, v := range values {
			all = append(all, &corepb.HeaderValue{Key: strings.ToLower(name), Value: v})
		}
	}
	slices.SortFunc(all, func(a, b *corepb.HeaderValue) int { return strings.Compare(a.GetKey(), b.GetKey()) })
	return all
}

// limiters are those of rules and of limits that requests bring, made when they are first asked for.
type limiters struct {
	client valkey.Client
	common ratelimit.Config

	mu  sync.RWMutex
	all map[limiterKey]*ratelimit.Limiter
}

type limiterKey struct {
	domain string
	limit  domains.Limit
}

// maxLimiters bounds them. Counts are on the server, so one that is made anew goes on where it was.
const maxLimiters = 4096

func newLimiters(client valkey.Client, common ratelimit.Config) *limiters {
	return &limiters{client: client, common: common, all: map[limiterKey]*ratelimit.Limiter{}}
}

func (a *limiters) get(domain string, limit domains.Limit) (*ratelimit.Limiter, error) {
	key := limiterKey{domain, limit}
	a.mu.RLock()
	l, ok := a.all[key]
	a.mu.RUnlock()
	if ok {
		return l, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if l, ok := a.all[key]; ok {
		return l, nil
	}
	cfg := a.common
	cfg.Name = "rls/" + domain
	cfg.Limits = []ratelimit.Limit{{Limit: int64(limit.Requests), Window: limit.Window()}}
	l, err := ratelimit.New(a.client, cfg)
	if err != nil {
		return nil, fmt.Errorf("limit: %w", err)
	}
	for old := range a.all {
		if len(a.all) < maxLimiters {
			break
		}
		delete(a.all, old)
	}
	a.all[key] = l
	return l, nil
}

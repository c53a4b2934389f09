package ratelimitd_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	descriptorpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/ratelimitd"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratehttp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// descriptors makes one of each text: "key=value key=value".
func descriptors(texts ...string) []*descriptorpb.RateLimitDescriptor {
	var all []*descriptorpb.RateLimitDescriptor
	for _, text := range texts {
		d := &descriptorpb.RateLimitDescriptor{}
		for pair := range strings.FieldsSeq(text) {
			key, value, _ := strings.Cut(pair, "=")
			d.Entries = append(d.Entries, &descriptorpb.RateLimitDescriptor_Entry{Key: key, Value: value})
		}
		all = append(all, d)
	}
	return all
}

const rulesFile = `domain: edge
descriptors:
  - key: second
    rate_limit: {unit: second, requests_per_unit: 1000}
  - key: minute
    rate_limit: {unit: MINUTE, requests_per_unit: 1000}
  - key: hour
    rate_limit: {unit: hour, requests_per_unit: 1000}
  - key: day
    rate_limit: {unit: day, requests_per_unit: 1000}
  - key: week
    rate_limit: {unit: week, requests_per_unit: 1000}
  - key: month
    rate_limit: {unit: month, requests_per_unit: 1000}
  - key: year
    rate_limit: {unit: year, requests_per_unit: 5, name: of a year}
  - key: two-weeks
    rate_limit: {unit: week, requests_per_unit: 5, unit_multiplier: 2}
  - key: user
    rate_limit: {unit: year, requests_per_unit: 4}
    descriptors:
      - key: path
        value: /login
        rate_limit: {unit: year, requests_per_unit: 2}
      - key: path
        value: /static/*
        rate_limit: {unlimited: true}
      - key: path
        value: /shared/*
        share_threshold: true
        rate_limit: {unit: year, requests_per_unit: 3}
      - key: path
        rate_limit: {unit: year, requests_per_unit: 3}
  - key: user
    value: root
    rate_limit: {unlimited: true}
  - key: user
    value: banned
    rate_limit: {unit: second, requests_per_unit: 0}
  - key: shadow
    shadow_mode: true
    rate_limit: {unit: year, requests_per_unit: 1}
  - key: plan
    plan: both
  - key: unfit
    plan: places
  - key: all
    rate_limit: {name: all, unit: year, requests_per_unit: 2}
  - key: vip
    rate_limit: {name: vip, unit: year, requests_per_unit: 10, replaces: [{name: all}]}
  - key: empty
    descriptors:
      - key: below
        rate_limit: {unit: year, requests_per_unit: 1}
`

func withRules(t *testing.T, text string, change func(*ratelimitd.Config)) (*served, rlspb.RateLimitServiceClient) {
	t.Helper()
	path := write(t, t.TempDir(), "rules.yaml", text)
	s := serve(t, func(c *ratelimitd.Config) {
		c.EnvoyFiles, c.PlanNames = []string{path}, append(c.PlanNames, "places")
		c.RLSHeaders, c.RuleTimeout = ratehttp.HeadersNone, 10*time.Second
		if change != nil {
			change(c)
		}
	})
	return s, s.rlsClient(t, insecure.NewCredentials())
}

// step is a request and what it should answer: a code for all, and for each descriptor.
type step struct {
	hits   uint32
	own    []int64 // hits of the descriptors; below 0 for none
	texts  []string
	codes  string // "+" or "-" for all, then for each
	remain []uint32
}

func (s step) request() *rlspb.RateLimitRequest {
	r := &rlspb.RateLimitRequest{Domain: "edge", HitsAddend: s.hits, Descriptors: descriptors(s.texts...)}
	for i, n := range s.own {
		if n >= 0 {
			r.Descriptors[i].HitsAddend = wrapperspb.UInt64(uint64(n))
		}
	}
	return r
}

func codesOf(r *rlspb.RateLimitResponse) string {
	mark := func(c rlspb.RateLimitResponse_Code) string {
		return map[rlspb.RateLimitResponse_Code]string{rlspb.RateLimitResponse_OK: "+", rlspb.RateLimitResponse_OVER_LIMIT: "-"}[c]
	}
	text := mark(r.GetOverallCode())
	for _, s := range r.GetStatuses() {
		text += mark(s.GetCode())
	}
	return text
}

func remaining(r *rlspb.RateLimitResponse) (all []uint32) {
	for _, s := range r.GetStatuses() {
		all = append(all, s.GetLimitRemaining())
	}
	return all
}

// TestDescriptors goes through what descriptors can say.
func TestDescriptors(t *testing.T) {
	_, client := withRules(t, rulesFile, nil)
	most := uint32(math.MaxUint32)
	for i, s := range []step{
		// A value of its own, a wildcard, any value; the rule of the last entry.
		{0, nil, []string{"user=a path=/login"}, "++", []uint32{1}},
		{0, nil, []string{"user=a path=/login"}, "++", []uint32{0}},
		{0, nil, []string{"user=a path=/login"}, "--", []uint32{0}},
		{0, nil, []string{"user=b path=/login"}, "++", []uint32{1}},
		{0, nil, []string{"user=a path=/other"}, "++", []uint32{2}},
		{0, nil, []string{"user=a path=/static/x"}, "++", []uint32{most}},
		{0, nil, []string{"user=a"}, "++", []uint32{3}},
		{0, nil, []string{"user=root"}, "++", []uint32{most}},
		{9, nil, []string{"user=root"}, "++", []uint32{most}},
		{0, nil, []string{"user=banned"}, "--", []uint32{0}},
		// The values of a wildcard share a counter, each user by itself.
		{0, nil, []string{"user=a path=/shared/x"}, "++", []uint32{2}},
		{0, nil, []string{"user=a path=/shared/y"}, "++", []uint32{1}},
		{0, nil, []string{"user=b path=/shared/y"}, "++", []uint32{2}},
		// No rule: too deep, too shallow, unknown.
		{0, nil, []string{"user=a path=/login more=x"}, "++", []uint32{0}},
		{0, nil, []string{"empty=x"}, "++", []uint32{0}},
		{0, nil, []string{"nothing=x"}, "++", []uint32{0}},
		{0, nil, []string{"path=/login user=a"}, "++", []uint32{0}},
		{0, nil, []string{"user=root path=/login"}, "++", []uint32{0}}, // the value has no rules below it
		{0, nil, []string{"empty=x below=y"}, "++", []uint32{0}},
		{0, nil, []string{"empty=x below=y"}, "--", []uint32{0}},
		// Hits of the request, and of a descriptor; none only look.
		{3, nil, []string{"year=h"}, "++", []uint32{2}},
		{3, nil, []string{"year=h"}, "--", []uint32{2}},
		{3, []int64{2}, []string{"year=h"}, "++", []uint32{0}},
		{0, []int64{0}, []string{"year=h"}, "--", []uint32{0}},
		{0, []int64{0}, []string{"year=i"}, "++", []uint32{5}},
		{0, []int64{6}, []string{"year=i"}, "--", []uint32{5}},
		{0, []int64{0, 1}, []string{"year=i", "year=j"}, "+++", []uint32{5, 4}},
		{0, []int64{0, 1}, []string{"year=h", "year=j"}, "--+", []uint32{0, 4}}, // what one denies, none is charged for
		// Several: all or nothing.
		{0, nil, []string{"user=c", "year=c", "nothing=x"}, "++++", []uint32{3, 4, 0}},
		{0, nil, []string{"user=c", "user=banned", "year=c"}, "-+-+", []uint32{3, 0, 4}},
		{5, nil, []string{"user=c", "year=c"}, "---", []uint32{3, 4}},
		{4, nil, []string{"user=c", "year=c"}, "--+", []uint32{3, 4}},
		{1, nil, []string{"user=c", "year=c"}, "+++", []uint32{2, 3}},
		{1, nil, []string{"year=c", "year=c"}, "+++", nil},
		{0, []int64{0}, []string{"year=c"}, "++", []uint32{1}},
		// A shadow counts what goes on, and never denies.
		{0, nil, []string{"shadow=a", "user=d"}, "+++", []uint32{0, 3}},
		{0, nil, []string{"shadow=a", "user=d"}, "+++", []uint32{0, 2}},
		{0, nil, []string{"shadow=b", "user=banned"}, "-+-", []uint32{1, 0}},
		{0, nil, []string{"shadow=b"}, "++", []uint32{0}},
		// A rule that replaces another.
		{0, nil, []string{"all=x", "vip=x"}, "+++", []uint32{0, 9}},
		{0, nil, []string{"all=x"}, "++", []uint32{1}},
		// A plan: its tightest limit.
		{0, nil, []string{"plan=x"}, "++", []uint32{2}},
		{3, nil, []string{"plan=x"}, "--", []uint32{2}},
		{2, nil, []string{"plan=x"}, "++", []uint32{0}},
		// What is put together stays apart.
		{2, nil, []string{"user=a%20path=/x"}, "++", []uint32{2}},
	} {
		response, err := client.ShouldRateLimit(t.Context(), s.request())
		if err != nil {
			t.Fatalf("%d: %v: %v", i, s.texts, err)
		}
		if got := codesOf(response); got != s.codes || s.remain != nil && !slices.Equal(remaining(response), s.remain) {
			t.Errorf("%d: %v, %d hits: %s %v, want %s %v", i, s.texts, s.hits, got, remaining(response), s.codes, s.remain)
		}
	}
	other := step{texts: []string{"user=a"}}.request()
	other.Domain = "nowhere"
	if r, err := client.ShouldRateLimit(t.Context(), other); err != nil || codesOf(r) != "++" || r.GetStatuses()[0].GetCurrentLimit() != nil {
		t.Errorf("an unknown domain: %v %v", r, err)
	}
}

// TestUnits holds what is said of a limit against package ratelimit, on the same keys.
func TestUnits(t *testing.T) {
	s, client := withRules(t, rulesFile, nil)
	for name, unit := range map[string]struct {
		window time.Duration
		limit  int64
		unit   rlspb.RateLimitResponse_RateLimit_Unit
	}{
		"second":    {time.Second, 1000, rlspb.RateLimitResponse_RateLimit_SECOND},
		"minute":    {time.Minute, 1000, rlspb.RateLimitResponse_RateLimit_MINUTE},
		"hour":      {time.Hour, 1000, rlspb.RateLimitResponse_RateLimit_HOUR},
		"day":       {24 * time.Hour, 1000, rlspb.RateLimitResponse_RateLimit_DAY},
		"week":      {7 * 24 * time.Hour, 1000, rlspb.RateLimitResponse_RateLimit_WEEK},
		"month":     {30 * 24 * time.Hour, 1000, rlspb.RateLimitResponse_RateLimit_MONTH},
		"year":      {365 * 24 * time.Hour, 5, rlspb.RateLimitResponse_RateLimit_YEAR},
		"two-weeks": {14 * 24 * time.Hour, 5, rlspb.RateLimitResponse_RateLimit_UNKNOWN},
	} {
		response, err := client.ShouldRateLimit(t.Context(), step{texts: []string{name + "=x"}}.request())
		if err != nil {
			t.Fatal(err)
		}
		direct, err := s.limiter(t, s.prefix, "rls/edge", ratelimit.Limit{Limit: unit.limit, Window: unit.window}).Peek(t.Context(), name+"=x")
		if err != nil {
			t.Fatal(err)
		}
		got := response.GetStatuses()[0]
		limit, reset := got.GetCurrentLimit(), got.GetDurationUntilReset().AsDuration()
		if limit.GetUnit() != unit.unit || int64(limit.GetRequestsPerUnit()) != unit.limit || int64(got.GetLimitRemaining()) != unit.limit-1 {
			t.Errorf("%s: %v", name, got)
		}
		// The window may have ended in between, as those of a second do.
		if sameWindow := direct.Remaining == unit.limit-1; sameWindow && reset < direct.ResetAfter || reset <= 0 || reset > unit.window {
			t.Errorf("%s: reset in %v, later in %v", name, reset, direct.ResetAfter)
		}
		if name == "year" && limit.GetName() != "of a year" {
			t.Errorf("%v", limit)
		}
	}
	response, err := client.ShouldRateLimit(t.Context(), step{texts: []string{"plan=x"}}.request())
	if err != nil {
		t.Fatal(err)
	}
	if l := response.GetStatuses()[0].GetCurrentLimit(); l.GetName() != "month" || l.GetUnit() != rlspb.RateLimitResponse_RateLimit_MONTH || l.GetRequestsPerUnit() != 3 {
		t.Errorf("of a plan: %v", l)
	}
}

// TestSameAsPackage sends random requests to the service, and makes the same calls of package ratelimit on other keys.
func TestSameAsPackage(t *testing.T) {
	s, client := withRules(t, rulesFile, nil)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	year := func(n int64) *ratelimit.Limiter {
		return s.limiter(t, s.prefix+"-direct", "rls/edge", ratelimit.Limit{Limit: n, Window: 365 * 24 * time.Hour})
	}
	kinds := []struct {
		text    string
		limiter *ratelimit.Limiter
	}{{"user=%d", year(4)}, {"user=%d path=/login", year(2)}, {"user=%d path=/else", year(3)}, {"year=%d", year(5)}}
	for i := range 400 {
		st, asks := step{hits: uint32(random.IntN(3))}, []ratelimit.Ask(nil)
		for range 1 + random.IntN(3) {
			kind := kinds[random.IntN(len(kinds))]
			text := fmt.Sprintf(kind.text, random.IntN(40))
			if slices.Contains(st.texts, text) { // two of the same come in either order
				continue
			}
			st.texts = append(st.texts, text)
			asks = append(asks, ratelimit.Ask{Limiter: kind.limiter, Subject: text, Cost: max(1, int64(st.hits))})
		}
		response, err := client.ShouldRateLimit(t.Context(), st.request())
		if err != nil {
			t.Fatal(err)
		}
		results, allowed, err := ratelimit.AllowAll(t.Context(), asks...)
		if err != nil {
			t.Fatal(err)
		}
		if got := response.GetOverallCode() == rlspb.RateLimitResponse_OK; got != allowed {
			t.Fatalf("%d: %+v: %v, want %v", i, st, response, results)
		}
		for j, got := range response.GetStatuses() {
			want := results[j]
			if want.Allowed && !allowed {
				want.Remaining += asks[j].Cost
			}
			if (got.GetCode() == rlspb.RateLimitResponse_OK) != want.Allowed || int64(got.GetLimitRemaining()) != want.Remaining ||
				int64(got.GetCurrentLimit().GetRequestsPerUnit()) != want.Limit {
				t.Fatalf("%d: %+v: descriptor %d: %v, want %+v", i, st, j, got, want)
			}
		}
	}
}

func TestOverride(t *testing.T) {
	s, client := withRules(t, rulesFile, nil)
	request := step{texts: []string{"user=a"}}.request()
	own := &descriptorpb.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 7, Unit: typepb.RateLimitUnit_DAY}
	request.Descriptors[0].Limit = own
	r, err := client.ShouldRateLimit(t.Context(), request)
	if err != nil || r.GetStatuses()[0].GetLimitRemaining() != 6 || r.GetStatuses()[0].GetCurrentLimit().GetUnit() != rlspb.RateLimitResponse_RateLimit_DAY {
		t.Errorf("%v %v", r, err)
	}
	own.RequestsPerUnit = 0
	if r, err := client.ShouldRateLimit(t.Context(), request); err != nil || codesOf(r) != "--" {
		t.Errorf("no requests: %v %v", r, err)
	}
	own.Unit = typepb.RateLimitUnit_UNKNOWN
	if _, err := client.ShouldRateLimit(t.Context(), request); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no unit: %v", err)
	}
	own.Unit = typepb.RateLimitUnit_YEAR
	for n := range uint32(4200) { // more limits than are kept
		own.RequestsPerUnit = n + 1
		if r, err := client.ShouldRateLimit(t.Context(), request); err != nil || n > 0 && r.GetStatuses()[0].GetLimitRemaining() != 0 && codesOf(r) != "++" {
			t.Fatalf("%d: %v %v", n, r, err)
		}
	}
	if _, text, _ := s.do(t, "GET", "/metrics", ""); !strings.Contains(text, `plan="edge: override"`) || strings.Count(text, "override") > 2 {
		t.Error("the overrides are not one plan in the metrics")
	}
}

func TestResponseHeaders(t *testing.T) {
	_, client := withRules(t, rulesFile, func(c *ratelimitd.Config) { c.RLSHeaders = ratehttp.HeadersAll })
	names := func(st step) (all []string, values map[string]string) {
		t.Helper()
		r, err := client.ShouldRateLimit(t.Context(), st.request())
		if err != nil {
			t.Fatal(err)
		}
		values = map[string]string{}
		for _, h := range r.GetResponseHeadersToAdd() {
			all = append(all, h.GetKey())
			values[h.GetKey()] = h.GetValue()
		}
		return all, values
	}
	five := []string{"ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}
	if got, values := names(step{texts: []string{"user=a", "year=a"}}); !slices.Equal(got, five) || values["x-ratelimit-remaining"] != "3" || values["x-ratelimit-limit"] != "4" {
		t.Errorf("%v %v", got, values)
	}
	if got, values := names(step{hits: 4, texts: []string{"user=a", "year=a"}}); !slices.Equal(got, append([]string{"ratelimit", "ratelimit-policy", "retry-after"}, five[2:]...)) || values["x-ratelimit-remaining"] != "3" {
		t.Errorf("%v %v", got, values)
	}
	for _, texts := range [][]string{{"nothing=x"}, {"user=root"}, {"user=banned"}, {"shadow=x"}} {
		if got, _ := names(step{texts: texts}); len(got) != 0 {
			t.Errorf("%v: %v", texts, got)
		}
	}
	_, quiet := withRules(t, rulesFile, nil)
	for range 2 {
		r, err := quiet.ShouldRateLimit(t.Context(), step{hits: 3, texts: []string{"year=b"}}.request())
		if err != nil {
			t.Fatal(err)
		}
		if h := r.GetResponseHeadersToAdd(); (codesOf(r) == "--") != (len(h) == 1 && h[0].GetKey() == "retry-after") || len(h) > 1 {
			t.Errorf("%v", r)
		}
	}
}

func TestRLSRefuses(t *testing.T) {
	s, client := withRules(t, rulesFile, nil)
	negative := step{texts: []string{"user=a"}}.request()
	negative.Descriptors[0].IsNegativeHits = true
	for name, test := range map[string]struct {
		request *rlspb.RateLimitRequest
		code    codes.Code
		says    string
	}{
		"no domain":        {&rlspb.RateLimitRequest{Descriptors: descriptors("user=a")}, codes.InvalidArgument, "the domain is empty"},
		"nothing":          {&rlspb.RateLimitRequest{Domain: "edge"}, codes.InvalidArgument, "no descriptor"},
		"no entries":       {step{texts: []string{"user=a", ""}}.request(), codes.InvalidArgument, "descriptor 1 has no entries"},
		"no key":           {step{texts: []string{"=a"}}.request(), codes.InvalidArgument, "without a key"},
		"65 descriptors":   {step{texts: slices.Repeat([]string{"user=a"}, 65)}.request(), codes.InvalidArgument, "65 descriptors, not 1 to 64"},
		"33 entries":       {step{texts: []string{strings.Repeat("user=a ", 33)}}.request(), codes.InvalidArgument, "33 entries"},
		"10,000":           {step{texts: slices.Repeat([]string{"user=a"}, 10_000)}.request(), codes.ResourceExhausted, "larger than max"},
		"too many hits":    {step{own: []int64{1<<53 + 1}, texts: []string{"user=a"}}.request(), codes.InvalidArgument, "more hits"},
		"negative hits":    {negative, codes.InvalidArgument, "negative hits"},
		"a plan of places": {step{texts: []string{"unfit=a"}}.request(), codes.FailedPrecondition, "concurrency"},
	} {
		_, err := client.ShouldRateLimit(t.Context(), test.request)
		if status.Code(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is no message, sent as one.
	conn, err := grpc.NewClient(s.rls, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, garbage := range []string{"\xff\xff\xff\xff", "\x0a\xff\xff\xff\xff\x0f", strings.Repeat("\x12\x02\x0a\x00", 100) + "\x12"} {
		err := conn.Invoke(t.Context(), "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit", garbage, new(string), grpc.ForceCodec(raw{}))
		if status.Code(err) != codes.Internal && status.Code(err) != codes.InvalidArgument {
			t.Errorf("%q: %v", garbage, err)
		}
	}
	// No HTTP/2 at all.
	c, err := net.Dial("tcp", s.rls)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte(strings.Repeat("GET / HTTP/1.1\r\n\r\n", 10)))
	if r, err := client.ShouldRateLimit(t.Context(), step{texts: []string{"user=z"}}.request()); err != nil || codesOf(r) != "++" {
		t.Errorf("others: %v %v", r, err)
	}
}

// raw sends what it is given.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return []byte(v.(string)), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*string) = string(data); return nil }
func (raw) Name() string                       { return "proto" }

// TestRLSDeafClient sends more calls than a connection may have, gives the server no room for answers, and never reads.
// Others are served, and the server ends.
func TestRLSDeafClient(t *testing.T) {
	s, client := withRules(t, rulesFile, func(c *ratelimitd.Config) { c.Bounds.Streams, c.Shutdown = 100, 4*time.Second })
	c := s.dial(t, s.rls, http2.ClientPreface)
	framer := http2.NewFramer(c, nil)
	message, err := proto.Marshal(step{texts: []string{"second=x"}}.request())
	if err != nil {
		t.Fatal(err)
	}
	message = append([]byte{0, 0, 0, 0, byte(len(message))}, message...)
	if err := framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	var header bytes.Buffer
	encoder := hpack.NewEncoder(&header)
	for i := range uint32(300) {
		header.Reset()
		for _, f := range []hpack.HeaderField{
			{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "a"},
			{Name: ":path", Value: "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"},
			{Name: "te", Value: "trailers"}, {Name: "content-type", Value: "application/grpc"},
		} {
			_ = encoder.WriteField(f)
		}
		_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // the server may stop reading: then it has heard enough
		if framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: header.Bytes(), EndHeaders: true}) != nil ||
			framer.WriteData(2*i+1, true, message) != nil {
			break
		}
	}
	for range 20 {
		if r, err := client.ShouldRateLimit(t.Context(), step{texts: []string{"user=q path=/static/x"}}.request()); err != nil || codesOf(r) != "++" {
			t.Errorf("others: %v %v", r, err)
		}
	}
	s.await(t, "its calls are taken", func() bool {
		_, text, _ := s.do(t, "GET", "/metrics", "")
		var n int
		for line := range strings.Lines(text) {
			_, _ = fmt.Sscanf(line, `flatrate_requests_total{code="OK",endpoint="rls"} %d`, &n)
		}
		return n > 20 && n <= 120 // 20 of others, and at most 100 at once
	})
	if err := s.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRLSOutage(t *testing.T) {
	s, client := withRules(t, "domain: edge\ndescriptors: [{key: a, rate_limit: {unit: year, requests_per_unit: 1}}, {key: open, plan: open}, {key: closed, plan: closed}, "+
		"{key: shadow, plan: fails, shadow_mode: true}]\n", func(c *ratelimitd.Config) { c.RuleTimeout = 0 })
	s.valkey.Kill()
	if _, err := client.ShouldRateLimit(t.Context(), step{texts: []string{"a=1"}}.request()); status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
	for name, want := range map[string]string{"open": "++", "closed": "--", "shadow": "++"} {
		r, err := client.ShouldRateLimit(t.Context(), step{texts: []string{name + "=1"}}.request())
		if err != nil || codesOf(r) != want || r.GetStatuses()[0].GetCurrentLimit() != nil {
			t.Errorf("%s: %v %v", name, r, err)
		}
	}
	if _, text, _ := s.do(t, "GET", "/metrics", ""); !strings.Contains(text, `{endpoint="rls",outcome="error",plan="edge: shadow"} 1`) {
		t.Error("the metrics lack the shadow's error")
	}
}

// TestRulesReload changes a folder of rules, by itself and on SIGHUP.
func TestRulesReload(t *testing.T) {
	dir := t.TempDir()
	rule := "domain: %s\ndescriptors: [{key: a, rate_limit: {unit: year, requests_per_unit: %d}}]\n"
	write(t, dir, "a.yaml", fmt.Sprintf(rule, "edge", 3))
	write(t, dir, ".hidden.yaml", "no rules")
	write(t, dir, "notes.txt", "no rules")
	s, client := withRules(t, rulesFile, func(c *ratelimitd.Config) { c.EnvoyFiles = []string{dir} })
	limit := func(domain string) uint32 {
		r, err := client.ShouldRateLimit(t.Context(), &rlspb.RateLimitRequest{Domain: domain, Descriptors: descriptors("a=1")})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetStatuses()[0].GetCurrentLimit().GetRequestsPerUnit()
	}
	if got := limit("edge"); got != 3 {
		t.Errorf("%d", got)
	}
	write(t, dir, "a.yaml", fmt.Sprintf(rule, "edge", 30))
	write(t, dir, "b.yml", fmt.Sprintf(rule, "other", 5))
	s.await(t, "the rules are in force", func() bool { return limit("edge") == 30 && limit("other") == 5 })
	write(t, dir, "b.yml", fmt.Sprintf(rule, "edge", 5))
	s.Reload()
	if !strings.Contains(s.log.String(), "the rules stay as they are") || !strings.Contains(s.log.String(), "again: it is in") || limit("other") != 5 {
		t.Errorf("a domain twice:\n%s", s.log)
	}
	if err := os.Remove(filepath.Join(dir, "b.yml")); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	if got := limit("other"); got != 0 {
		t.Errorf("a domain that has gone: %d", got)
	}
	_, text, _ := s.do(t, "GET", "/metrics", "")
	for _, line := range []string{`flatrate_reloads_total{result="failed",what="rules"}`, `flatrate_reloads_total{result="ok",what="rules"} `, "flatrate_rules 1"} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

// TestReflectionAndWatch opens the streams that never end, which the server does not wait for.
func TestReflectionAndWatch(t *testing.T) {
	s, _ := withRules(t, rulesFile, nil)
	conn, err := grpc.NewClient(s.rls, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	watch, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if state, err := watch.Recv(); err != nil || state.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("%v %v", state, err)
	}
	reflection, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := reflection.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if list, err := reflection.Recv(); err != nil || !strings.Contains(list.String(), "envoy.service.ratelimit.v3.RateLimitService") {
		t.Errorf("%v %v", list, err)
	}
	if err := s.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

package rategrpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/contrib/grpc/rategrpc"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratehttp"
	"github.com/flatrate/flatrate/valkeytest"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// service answers the health protocol: a unary call and a stream, which every client knows.
type service struct {
	grpc_health_v1.UnimplementedHealthServer
	check func(context.Context) error
	watch func(context.Context) error
}

func (s service) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if s.check != nil {
		if err := s.check(ctx); err != nil {
			return nil, err
		}
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func (s service) Watch(_ *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	if err := stream.Send(&grpc_health_v1.HealthCheckResponse{}); err != nil {
		return err
	}
	if s.watch != nil {
		return s.watch(stream.Context())
	}
	return nil
}

func limiter(t *testing.T, v *valkeytest.Server, cfg ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	cfg.Prefix, cfg.Timeout = valkeytest.Prefix(t), 10*time.Second
	l, err := ratelimit.New(v.Client(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func one(limit ratelimit.Limit) ratelimit.Config {
	return ratelimit.Config{Limits: []ratelimit.Limit{limit}}
}

// serve starts a real server on a unix socket, with the interceptor before s, and connects to it.
func serve(t *testing.T, cfg rategrpc.Config, s service) grpc_health_v1.HealthClient {
	t.Helper()
	if cfg.Key == nil && cfg.Asks == nil {
		cfg.Key = rategrpc.Metadata("X-User")
	}
	i, err := rategrpc.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(recovering(i.Unary)), grpc.StreamInterceptor(i.Stream))
	grpc_health_v1.RegisterHealthServer(server, s)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return grpc_health_v1.NewHealthClient(conn)
}

// recovering stands where a server that outlives panics has its own.
func recovering(next grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (res any, err error) {
		defer func() {
			if p := recover(); p != nil {
				err = status.Errorf(codes.Internal, "panic: %v", p)
			}
		}()
		return next(ctx, req, info, h)
	}
}

// call asks as who, and returns the metadata and the status.
func call(t *testing.T, c grpc_health_v1.HealthClient, who string) (md metadata.MD, s *status.Status) {
	t.Helper()
	_, err := c.Check(as(t, who), &grpc_health_v1.HealthCheckRequest{Service: "orders"}, grpc.Header(&md))
	return md, status.Convert(err)
}

func as(t *testing.T, who string) context.Context {
	if who == "" {
		return t.Context()
	}
	return metadata.AppendToOutgoingContext(t.Context(), "x-user", who)
}

func watch(t *testing.T, c grpc_health_v1.HealthClient, who string) (metadata.MD, *status.Status) {
	t.Helper()
	stream, err := c.Watch(as(t, who), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	md, _ := stream.Header()
	return md, status.Convert(err)
}

func retryDelay(s *status.Status) (delay time.Duration, violations []string) {
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.RetryInfo:
			delay = d.RetryDelay.AsDuration()
		case *errdetails.QuotaFailure:
			for _, v := range d.Violations {
				violations = append(violations, v.Subject)
			}
		}
	}
	return delay, violations
}

func TestUnaryAndStream(t *testing.T) {
	v := valkeytest.Start(t)
	limits := []ratelimit.Limit{{Name: "hour", Limit: 2, Window: time.Hour}, {Algorithm: ratelimit.Quota, Limit: 9, Period: ratelimit.Week}}
	for name, ask := range map[string]func(*testing.T, grpc_health_v1.HealthClient, string) (metadata.MD, *status.Status){"unary": call, "stream": watch} {
		c := serve(t, rategrpc.Config{Limiter: limiter(t, v, ratelimit.Config{Limits: limits})}, service{})
		for left := 1; left >= 0; left-- {
			md, s := ask(t, c, "anna")
			if s.Code() != codes.OK || !slices.Equal(md.Get("x-ratelimit-remaining"), []string{fmt.Sprint(left)}) ||
				!slices.Equal(md.Get("ratelimit-policy"), []string{`"hour";q=2;w=3600, "week";q=9;w=604800`}) {
				t.Errorf("%s: %v %v", name, s, md)
			}
		}
		md, s := ask(t, c, "anna")
		delay, violations := retryDelay(s)
		if s.Code() != codes.ResourceExhausted || delay <= 0 || delay > time.Hour+time.Second || !slices.Equal(violations, []string{"hour"}) || strings.Contains(s.Message(), "anna") {
			t.Errorf("%s: %v %v %v", name, s, delay, violations)
		}
		if len(md.Get("retry-after")) != 1 || !strings.HasPrefix(strings.Join(md.Get("ratelimit"), ""), `"hour";r=0;t=`) {
			t.Errorf("%s: %v", name, md)
		}
		if _, s := ask(t, c, "bert"); s.Code() != codes.OK {
			t.Errorf("%s, another user: %v", name, s)
		}
		if _, s := ask(t, c, ""); s.Code() != codes.PermissionDenied {
			t.Errorf("%s, nobody: %v", name, s)
		}
	}
}

func TestCost(t *testing.T) {
	v := valkeytest.Start(t)
	c := serve(t, rategrpc.Config{
		Limiter: limiter(t, v, one(ratelimit.Limit{Limit: 7, Window: time.Hour})),
		Cost: func(_ context.Context, call rategrpc.Call) int64 {
			if r, ok := call.Request.(*grpc_health_v1.HealthCheckRequest); ok {
				return int64(len(r.Service))
			}
			return 8
		},
	}, service{})
	if md, s := call(t, c, "anna"); s.Code() != codes.OK || !slices.Equal(md.Get("x-ratelimit-remaining"), []string{"1"}) {
		t.Errorf("%v %v", s, md)
	}
	md, s := watch(t, c, "anna")
	if delay, violations := retryDelay(s); s.Code() != codes.ResourceExhausted || delay != 0 || len(violations) != 1 || len(md.Get("retry-after")) != 0 {
		t.Errorf("a cost above the limit: %v %v %v", s, delay, md)
	}
}

func TestShadow(t *testing.T) {
	v := valkeytest.Start(t)
	var seen []int
	c := serve(t, rategrpc.Config{
		Limiter: limiter(t, v, one(ratelimit.Limit{Limit: 1, Window: time.Hour})),
		Shadow:  true,
		Hooks:   rategrpc.Hooks{Decided: func(_ context.Context, _ rategrpc.Call, d ratehttp.Decision) { seen = append(seen, d.Status) }},
	}, service{})
	for _, who := range []string{"anna", "anna", "", "anna"} {
		if len(seen) == 3 {
			v.Kill()
		}
		if md, s := call(t, c, who); s.Code() != codes.OK || len(md.Get("ratelimit"))+len(md.Get("retry-after")) > 0 {
			t.Errorf("%v %v", s, md)
		}
	}
	if !slices.Equal(seen, []int{0, 429, 403, 503}) {
		t.Error(seen)
	}
}

func TestErrorsAreNotAdmitted(t *testing.T) {
	v := valkeytest.Start(t)
	l := limiter(t, v, one(ratelimit.Limit{Limit: 100, Window: time.Hour}))
	refuses := serve(t, rategrpc.Config{Limiter: l}, service{})
	admits := serve(t, rategrpc.Config{Limiter: l, OnError: ratehttp.ErrorAdmits}, service{})
	if _, s := call(t, refuses, "anna"); s.Code() != codes.OK {
		t.Fatal(s)
	}
	v.Kill()
	for _, ask := range []func(*testing.T, grpc_health_v1.HealthClient, string) (metadata.MD, *status.Status){call, watch} {
		_, s := ask(t, refuses, "anna")
		if delay, _ := retryDelay(s); s.Code() != codes.Unavailable || delay < time.Second || strings.Contains(s.Message(), v.Socket) {
			t.Errorf("%v %v", s, delay)
		}
		if _, s := ask(t, admits, "anna"); s.Code() != codes.OK {
			t.Error(s)
		}
		if _, s := ask(t, admits, ""); s.Code() != codes.PermissionDenied {
			t.Error(s)
		}
	}
	bad := serve(t, rategrpc.Config{Asks: func(context.Context, rategrpc.Call) ([]ratelimit.Ask, error) { return nil, errors.New("secret") }}, service{})
	if _, s := call(t, bad, "anna"); s.Code() != codes.Unavailable || strings.Contains(s.Message(), "secret") {
		t.Error(s)
	}
	none := serve(t, rategrpc.Config{Asks: func(context.Context, rategrpc.Call) ([]ratelimit.Ask, error) { return nil, nil }}, service{})
	if _, s := call(t, none, "anna"); s.Code() != codes.PermissionDenied {
		t.Error(s)
	}
}

// TestPlaces holds that a place is free when the call is over, after panics too.
func TestPlaces(t *testing.T) {
	v := valkeytest.Start(t)
	inside, goOn := make(chan bool), make(chan bool)
	var panics atomic.Bool
	l := limiter(t, v, one(ratelimit.Limit{Algorithm: ratelimit.Concurrency, Limit: 1, Lease: time.Hour}))
	c := serve(t, rategrpc.Config{Limiter: l}, service{
		check: func(context.Context) error {
			if panics.Load() {
				panic("a bug")
			}
			return nil
		},
		watch: func(ctx context.Context) error {
			inside <- true
			<-goOn
			return nil
		},
	})
	stream, err := c.Watch(as(t, "anna"), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	<-inside
	if _, s := call(t, c, "anna"); s.Code() != codes.ResourceExhausted {
		t.Errorf("while a stream is open: %v", s)
	}
	goOn <- true
	for err = nil; err == nil; {
		_, err = stream.Recv()
	}
	for range 20 {
		if _, s := call(t, c, "anna"); s.Code() != codes.OK {
			t.Fatalf("after the call before it: %v", s)
		}
	}
	panics.Store(true)
	if _, s := call(t, c, "anna"); s.Code() != codes.Internal {
		t.Error(s)
	}
	panics.Store(false)
	if _, s := call(t, c, "anna"); s.Code() != codes.OK {
		t.Errorf("after a panic: %v", s)
	}
}

func TestReleaseIsBounded(t *testing.T) {
	v := valkeytest.Start(t)
	failed := make(chan error, 1)
	c := serve(t, rategrpc.Config{
		Limiter: limiter(t, v, one(ratelimit.Limit{Algorithm: ratelimit.Concurrency, Limit: 1})),
		Hooks:   rategrpc.Hooks{ReleaseFailed: func(_ context.Context, _ rategrpc.Call, err error) { failed <- err }},
	}, service{check: func(context.Context) error { v.Pause(); return nil }})
	defer v.Resume()
	if _, s := call(t, c, "anna"); s.Code() != codes.OK {
		t.Error(s)
	}
	if err := <-failed; !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestKeys looks at the subjects of real calls, over a unix socket.
func TestKeys(t *testing.T) {
	v := valkeytest.Start(t)
	l := limiter(t, v, one(ratelimit.Limit{Limit: 1000, Window: time.Hour}))
	address := func(cfg ratehttp.AddressConfig) rategrpc.KeyFunc {
		key, err := rategrpc.Address(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	if _, err := rategrpc.Address(ratehttp.AddressConfig{IPv6Bits: -1}); err == nil {
		t.Error("IPv6Bits of -1 was accepted")
	}
	user := rategrpc.User(func(ctx context.Context) string {
		return strings.Join(metadata.ValueFromIncomingContext(ctx, "x-user"), "")
	})
	const method = "method:/grpc.health.v1.Health/Check"
	for i, k := range []struct {
		key  rategrpc.KeyFunc
		want string
	}{
		{rategrpc.Metadata("X-User"), "metadata:x-user:anna b"},
		{rategrpc.Metadata("x-twice"), ""},
		{rategrpc.Metadata("x-missing"), ""},
		{user, "user:anna b"},
		{rategrpc.User(func(context.Context) string { return "" }), ""},
		{rategrpc.Method(), method},
		{rategrpc.All(user, rategrpc.Method()), "user:anna%20b " + method},
		{rategrpc.All(user, rategrpc.Metadata("x-missing")), ""},
		{rategrpc.All(), ""},
		{rategrpc.First(rategrpc.Metadata("x-missing"), user), "user:anna b"},
		{rategrpc.First(), ""},
		{address(ratehttp.AddressConfig{}), ""},
		{address(ratehttp.AddressConfig{TrustUnix: true}), "addr:198.51.100.7"},
		{address(ratehttp.AddressConfig{TrustUnix: true, Header: "forwarded"}), "addr:203.0.113.9"},
	} {
		got := ""
		c := serve(t, rategrpc.Config{Limiter: l, Key: k.key, Hooks: rategrpc.Hooks{
			Decided: func(_ context.Context, _ rategrpc.Call, d ratehttp.Decision) {
				if d.Err == nil {
					got = d.Asks[0].Subject
				}
			},
		}}, service{})
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-user", "anna b", "x-twice", "1", "x-twice", "2",
			"x-forwarded-for", "192.0.2.1, 198.51.100.7", "forwarded", "for=203.0.113.9")
		_, err := c.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if got != k.want || (err != nil) != (k.want == "") {
			t.Errorf("%d: %q, want %q; %v", i, got, k.want, err)
		}
	}
}

func TestSkip(t *testing.T) {
	v := valkeytest.Start(t)
	c := serve(t, rategrpc.Config{
		Limiter: limiter(t, v, one(ratelimit.Limit{Limit: 1, Window: time.Hour})),
		Skip:    func(_ context.Context, call rategrpc.Call) bool { return strings.HasSuffix(call.Method, "/Watch") },
	}, service{})
	for range 3 {
		if md, s := watch(t, c, "anna"); s.Code() != codes.OK || len(md.Get("ratelimit")) > 0 {
			t.Errorf("%v %v", s, md)
		}
	}
	call(t, c, "anna")
	if _, s := call(t, c, "anna"); s.Code() != codes.ResourceExhausted {
		t.Error(s)
	}
}

func TestNewNamesTheField(t *testing.T) {
	l := limiter(t, valkeytest.Start(t), one(ratelimit.Limit{Limit: 1, Window: time.Hour}))
	asks := func(context.Context, rategrpc.Call) ([]ratelimit.Ask, error) { return nil, nil }
	for want, cfg := range map[string]rategrpc.Config{
		"Config.Limiter": {Key: rategrpc.Method()},
		"Config.Key":     {Limiter: l},
		"Config.Asks":    {Limiter: l, Asks: asks},
		"Config.OnError": {Asks: asks, OnError: 9},
		"Config.Headers": {Asks: asks, Headers: 9},
	} {
		if _, err := rategrpc.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

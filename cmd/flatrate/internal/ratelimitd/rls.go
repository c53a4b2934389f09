package ratelimitd

import (
	"context"
	"crypto/tls"
	"errors"
	"strconv"
	"time"

	descriptorpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/flatrate/flatrate/ratelimit"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

const (
	rlsService    = "envoy.service.ratelimit.v3.RateLimitService"
	healthService = "/grpc.health.v1.Health/"
)

const (
	over = rlspb.RateLimitResponse_OVER_LIMIT
	fine = rlspb.RateLimitResponse_OK
)

func (s *Server) newGRPC() (*grpc.Server, *health.Server) {
	b := s.cfg.Bounds
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(b.Body),
		grpc.MaxHeaderListSize(uint32(b.Header)),
		grpc.MaxConcurrentStreams(uint32(b.Streams)),
		grpc.ConnectionTimeout(b.Read),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 3 * b.Read, Timeout: b.Write}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.call),
		grpc.StreamInterceptor(s.stream),
	}
	if s.tls != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.tls.config("h2"))))
	}
	server := grpc.NewServer(options...)
	states := health.NewServer()
	states.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	states.SetServingStatus(rlsService, healthpb.HealthCheckResponse_NOT_SERVING)
	rlspb.RegisterRateLimitServiceServer(server, rls{s})
	healthpb.RegisterHealthServer(server, states)
	reflection.Register(server)
	return server, states
}

// call admits, counts and times a call.
func (s *Server) call(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	s.calls.Add(1)
	defer s.calls.Add(-1)
	if err := s.admitsCall(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	if _, isRLS := info.Server.(rls); !isRLS {
		return next(ctx, request)
	}
	begun := time.Now()
	response, err := next(ctx, request)
	s.metrics.seconds.WithLabelValues("rls").Observe(time.Since(begun).Seconds())
	s.metrics.requests.WithLabelValues("rls", status.Code(err).String()).Inc()
	return response, err
}

// stream admits a stream of health or reflection, and ends it when the server ends.
func (s *Server) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := s.admitsCall(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		select {
		case <-s.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
	return next(server, streamOf{stream, ctx})
}

type streamOf struct {
	grpc.ServerStream
	ctx context.Context
}

// Context ends when the server does.
func (s streamOf) Context() context.Context { return s.ctx }

func (s *Server) admitsCall(ctx context.Context, method string) error {
	if len(method) > len(healthService) && method[:len(healthService)] == healthService {
		return nil
	}
	authorization := ""
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) == 1 {
		authorization = values[0]
	}
	var state *tls.ConnectionState
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			state = &info.State
		}
	}
	if !s.admits(authorization, state) {
		return status.Error(codes.Unauthenticated, "this needs an API token or a client certificate")
	}
	return nil
}

// rls is Envoy's rate-limit service.
type rls struct{ *Server }

// ShouldRateLimit decides on all descriptors of a request together: if one of them denies, none is charged.
func (s rls) ShouldRateLimit(ctx context.Context, request *rlspb.RateLimitRequest) (*rlspb.RateLimitResponse, error) {
	if err := s.checkRequest(request); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	b := s.ready.Load()
	if b == nil {
		return nil, status.Error(codes.Unavailable, s.notReady())
	}
	parts, err := s.partsOf(b, request)
	if err != nil {
		return nil, err
	}
	allowed, err := decide(ctx, parts)
	for i := range parts {
		if p := &parts[i]; p.label != "" {
			s.metrics.decided("rls", p.label, p.outcome(err))
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		s.log.Debug("no decision", "error", err)
		return nil, status.Error(codes.Unavailable, "the limits can't be checked at present")
	}
	response := &rlspb.RateLimitResponse{OverallCode: fine, Statuses: make([]*rlspb.RateLimitResponse_DescriptorStatus, len(parts))}
	if !allowed {
		response.OverallCode = over
	}
	for i := range parts {
		response.Statuses[i] = parts[i].status()
	}
	response.ResponseHeadersToAdd = s.headers(parts, allowed)
	return response, nil
}

func (s rls) checkRequest(request *rlspb.RateLimitRequest) error {
	b := s.cfg.Bounds
	switch n := len(request.GetDescriptors()); {
	case request.GetDomain() == "":
		return errors.New("the domain is empty")
	case n == 0:
		return errors.New("there is no descriptor")
	case n > b.Descriptors:
		return errors.New(strconv.Itoa(n) + " descriptors, not 1 to " + strconv.Itoa(b.Descriptors))
	}
	for i, d := range request.GetDescriptors() {
		at := "descriptor " + strconv.Itoa(i) + " "
		switch n := len(d.GetEntries()); {
		case n == 0:
			return errors.New(at + "has no entries")
		case n > b.Entries:
			return errors.New(at + "has " + strconv.Itoa(n) + " entries, not 1 to " + strconv.Itoa(b.Entries))
		case d.GetIsNegativeHits():
			return errors.New(at + "has negative hits, which are not supported")
		case d.GetHitsAddend().GetValue() > ratelimit.MaxLimit:
			return errors.New(at + "has more hits than can be counted")
		}
		for _, e := range d.GetEntries() {
			if e.GetKey() == "" {
				return errors.New(at + "has an entry without a key")
			}
		}
	}
	return nil
}

// hitsOf is a descriptor's cost: its own, which may be zero to look only, else the request's, else one.
func hitsOf(request *rlspb.RateLimitRequest, d *descriptorpb.RateLimitDescriptor) int64 {
	if own := d.GetHitsAddend(); own != nil {
		return int64(own.GetValue())
	}
	return max(1, int64(request.GetHitsAddend()))
}

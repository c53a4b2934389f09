// Package rategrpc puts package ratelimit before the handlers of a gRPC server.
//
// [New] makes an Interceptor of a limiter and a func that says whom a call counts for; its Unary and Stream
// are what a server takes. Calls that are denied get RESOURCE_EXHAUSTED with RetryInfo and QuotaFailure. The
// decisions, keys of addresses and headers are those of package ratehttp.
//
// docs/ratelimit-http.md has the metadata, the key functions, and what happens in which failure.
package rategrpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratehttp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Call is what the funcs of a Config see of a call.
type Call struct {
	// Method is the full name: /package.service/method.
	Method string
	// Request is the message of a unary call; nil for a stream, which is decided on before its first message.
	Request any
}

// Config is an Interceptor's. Either Limiter and Key are needed, or Asks.
type Config struct {
	// Limiter decides.
	Limiter *ratelimit.Limiter
	// Key says whom a call counts for, as [Address], [Metadata], [User] and their like do. A call for which it
	// has no answer is refused with PERMISSION_DENIED.
	Key KeyFunc
	// Cost is how many units a call takes; zero means one, and a negative cost is an error. By default each
	// call takes one. A stream is one call, however many messages it has.
	Cost func(context.Context, Call) int64

	// Asks replaces Limiter, Key and Cost where calls have different limits, limits that are reloaded, or
	// several subjects at once, all or nothing. No asks count as a call without a key.
	Asks func(context.Context, Call) ([]ratelimit.Ask, error)

	// Skip exempts calls from the limits, such as health checks. By default none are.
	Skip func(context.Context, Call) bool
	// Shadow admits every call and sends no metadata: the limits only count, and Hooks.Decided says what they
	// would have done.
	Shadow bool
	// OnError is what happens to a call about which no decision could be made: UNAVAILABLE, or it goes on. It
	// holds for errors only: where a limiter has an Outage mode, that decides.
	OnError ratehttp.OnError
	// Headers are the metadata that clients get, under the names of HTTP's headers.
	Headers ratehttp.Headers

	// Hooks hear of decisions.
	Hooks Hooks
}

// Hooks are optional funcs, called from the call's goroutine.
type Hooks struct {
	// Decided is called once for each call that is not skipped, before it is handled or refused. The Status of
	// the Decision is HTTP's: 429 for RESOURCE_EXHAUSTED, 503 for UNAVAILABLE, 403 for PERMISSION_DENIED.
	Decided func(context.Context, Call, ratehttp.Decision)
	// ReleaseFailed is called when a place of a Concurrency limit could not be given up at the end of a call.
	// It lasts until its lease ends.
	ReleaseFailed func(context.Context, Call, error)
}

// Interceptor limits the calls of any number of servers. It is safe for concurrent use.
type Interceptor struct{ cfg Config }

// New returns an Interceptor. The error names the field of cfg that is wrong.
func New(cfg Config) (*Interceptor, error) {
	switch {
	case cfg.Asks == nil && cfg.Limiter == nil:
		return nil, errors.New("rategrpc: Config.Limiter is nil, and there is no Config.Asks")
	case cfg.Asks == nil && cfg.Key == nil:
		return nil, errors.New("rategrpc: Config.Key is nil")
	case cfg.Asks != nil && (cfg.Limiter != nil || cfg.Key != nil || cfg.Cost != nil):
		return nil, errors.New("rategrpc: Config.Asks is set beside Limiter, Key or Cost, which it replaces")
	case cfg.OnError > ratehttp.ErrorAdmits:
		return nil, fmt.Errorf("rategrpc: Config.OnError is %d, which is none", cfg.OnError)
	case cfg.Headers > ratehttp.HeadersNone:
		return nil, fmt.Errorf("rategrpc: Config.Headers is %d, which is none", cfg.Headers)
	}
	return &Interceptor{cfg}, nil
}

// Unary is for [grpc.UnaryInterceptor] and [grpc.ChainUnaryInterceptor].
func (i *Interceptor) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	release, err := i.begin(ctx, Call{info.FullMethod, req}, func(md metadata.MD) error { return grpc.SetHeader(ctx, md) })
	if err != nil {
		return nil, err
	}
	defer release()
	return next(ctx, req)
}

// Stream is for [grpc.StreamInterceptor] and [grpc.ChainStreamInterceptor]. A stream takes its units when it
// begins; the place of a Concurrency limit is held until its handler returns.
func (i *Interceptor) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	release, err := i.begin(stream.Context(), Call{Method: info.FullMethod}, stream.SetHeader)
	if err != nil {
		return err
	}
	defer release()
	return next(srv, stream)
}

// begin decides on a call: an error refuses it, release ends it.
func (i *Interceptor) begin(ctx context.Context, call Call, setHeader func(metadata.MD) error) (release func(), err error) {
	release = func() {}
	if i.cfg.Skip != nil && i.cfg.Skip(ctx, call) {
		return release, nil
	}
	d := i.decide(ctx, call)
	if i.cfg.Hooks.Decided != nil {
		i.cfg.Hooks.Decided(ctx, call, d)
	}
	if !i.cfg.Shadow {
		_ = setHeader(fields(d, i.cfg.Headers)) // fails only where an interceptor before this one has answered
	}
	if d.Allowed {
		return func() {
			if err := d.Release(ctx); err != nil && i.cfg.Hooks.ReleaseFailed != nil {
				i.cfg.Hooks.ReleaseFailed(ctx, call, err)
			}
		}, nil
	}
	failed := d.Err != nil && !errors.Is(d.Err, ratehttp.ErrNoKey)
	if i.cfg.Shadow || failed && i.cfg.OnError == ratehttp.ErrorAdmits {
		return release, nil
	}
	return nil, refusal(d)
}

func (i *Interceptor) decide(ctx context.Context, call Call) ratehttp.Decision {
	asks, err := i.asks(ctx, call)
	var d ratehttp.Decision
	if err == nil {
		d = ratehttp.Decide(ctx, asks...)
	} else {
		d = ratehttp.Undecided(err)
	}
	d.Shadow = i.cfg.Shadow
	return d
}

func (i *Interceptor) asks(ctx context.Context, call Call) ([]ratelimit.Ask, error) {
	if i.cfg.Asks != nil {
		return i.cfg.Asks(ctx, call)
	}
	subject, ok := i.cfg.Key(ctx, call)
	if !ok {
		return nil, ratehttp.ErrNoKey
	}
	ask := ratelimit.Ask{Limiter: i.cfg.Limiter, Subject: subject}
	if i.cfg.Cost != nil {
		ask.Cost = i.cfg.Cost(ctx, call)
	}
	return []ratelimit.Ask{ask}, nil
}

// fields are the headers of a decision as metadata.
func fields(d ratehttp.Decision, headers ratehttp.Headers) metadata.MD {
	h := http.Header{}
	d.SetHeaders(h, headers)
	md := metadata.MD{}
	for name, values := range h {
		md[strings.ToLower(name)] = values
	}
	return md
}

// refusal is the error of a call that is refused. It names limits, and neither subjects nor what went wrong inside.
func refusal(d ratehttp.Decision) error {
	var s *status.Status
	var details []protoadapt.MessageV1
	switch d.Status {
	case http.StatusForbidden:
		return status.Error(codes.PermissionDenied, "the call does not say whom it counts for")
	case http.StatusServiceUnavailable:
		s = status.New(codes.Unavailable, "the limits of this call can't be checked at present")
	default:
		names := d.Violated()
		s = status.New(codes.ResourceExhausted, "the call exceeds a limit: "+strings.Join(names, ", "))
		quota := &errdetails.QuotaFailure{}
		for _, name := range names {
			quota.Violations = append(quota.Violations, &errdetails.QuotaFailure_Violation{Subject: name, Description: "exceeds the limit " + name})
		}
		details = append(details, quota)
	}
	if after := d.RetryAfter(); after != ratelimit.Never {
		// In whole milliseconds, not before the time itself.
		after = min(after, 365*24*time.Hour).Truncate(time.Millisecond) + time.Millisecond
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	if detailed, err := s.WithDetails(details...); err == nil {
		s = detailed
	}
	return s.Err()
}

// Package ratelimitd is the server of "flatrate serve": the limits of package ratelimit over HTTP, and over gRPC as
// Envoy's rate-limit service.
//
// [Open] checks a Config, reads its files and takes its addresses; [Server.Run] serves until its context ends, and
// then finishes what it has begun. docs/serve.md has the endpoints, and what happens in which failure.
package ratelimitd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/ratelimitd/domains"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratehttp"
	"github.com/valkey-io/valkey-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
)

// Plans are the plans in force.
type Plans interface {
	Plan(name string) (*ratelimit.Limiter, bool)
	Reload() error
	Run(ctx context.Context)
}

// Config is a Server's. Connect has no default, and at least one address is needed.
type Config struct {
	// ListenHTTP and ListenRLS are host:port; an empty one is not listened on.
	ListenHTTP, ListenRLS string
	// Connect reaches the server; Run repeats it until it succeeds. ErrPermanent in its error ends that.
	Connect func(ctx context.Context) (valkey.Client, error)
	// OpenPlans makes the plans on a client, and calls reloaded when their file was read again: with whether it could be
	// used. Nil: there are none.
	OpenPlans func(client valkey.Client, hooks ratelimit.Hooks, reloaded func(ok bool)) (Plans, error)
	// PlanNames are the plans that Auth and EnvoyFiles may name when the server starts.
	PlanNames []string
	// EnvoyFiles are files, or folders of files, of domains and descriptors.
	EnvoyFiles []string
	// Prefix stands before every key. Default "fr".
	Prefix string

	// CertFile, KeyFile and ClientCAFile turn TLS on, and client certificates.
	CertFile, KeyFile, ClientCAFile string
	// Token is what callers have to show; empty asks for none.
	Token string
	// TrustNetwork allows addresses beside loopback without a token or client certificates.
	TrustNetwork bool

	// Auth is what GET /v1/ratelimit/auth asks where a request does not say.
	Auth AuthConfig
	// RuleTimeout is how long a decision about a rule with a rate_limit may take, 1 ms to 1 min. Default 40 ms.
	RuleTimeout time.Duration
	// RLSHeaders are those that Envoy is told to add to responses, beside Retry-After.
	RLSHeaders ratehttp.Headers

	// Shutdown is how long Run may take to finish what it has begun. Default 10 s.
	Shutdown time.Duration
	// Connections is how many each address holds; further ones are closed at once. Default 4096.
	Connections int
	// Bounds of a request; zero means the defaults.
	Bounds Bounds

	// Logger is where the server says what it does; nil discards.
	Logger *slog.Logger
	// Version stands in the metrics.
	Version string
}

// ErrPermanent marks an error of Config.Connect that repeating does not mend.
var ErrPermanent = errors.New("ratelimitd: no use in trying again")

// Bounds are of one request or connection.
type Bounds struct {
	Header      int           // bytes of the header of a request: 16 KiB
	Body        int           // bytes of a body, or of a message: 64 KiB
	Descriptors int           // of a message: 64
	Entries     int           // of a descriptor: 32
	Streams     int           // requests at once on a connection: 1024
	Read        time.Duration // until a request has arrived: 10 s
	Write       time.Duration // until a response has been taken: 10 s
	Idle        time.Duration // between two requests: 2 min
}

// maxSubject is how many bytes a subject may have, and a plan's name.
const maxSubject = 1024

func (b *Bounds) fill() {
	for field, value := range map[*int]int{&b.Header: 16 << 10, &b.Body: 64 << 10, &b.Descriptors: 64, &b.Entries: 32, &b.Streams: 1024} {
		if *field == 0 {
			*field = value
		}
	}
	for field, value := range map[*time.Duration]time.Duration{&b.Read: 10 * time.Second, &b.Write: 10 * time.Second, &b.Idle: 2 * time.Minute} {
		if *field == 0 {
			*field = value
		}
	}
}

// Server serves limits.
type Server struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	tls     *certificates // nil without TLS
	rules   *rules
	watched []*watched

	listenHTTP, listenRLS *listener // nil if not listened on
	http                  *http.Server
	grpc                  *grpc.Server
	health                *health.Server
	calls                 atomic.Int64 // of gRPC that are under way

	ready    atomic.Pointer[backend] // nil until the server was reached
	waiting  atomic.Pointer[string]  // why it was not
	draining chan struct{}           // is closed when Run ends
}

// backend is what decisions are made with.
type backend struct {
	client   valkey.Client
	plans    Plans // nil without
	limiters *limiters
	probe    *probe
}

// plan returns the limiter of a plan.
func (b *backend) plan(name string) (*ratelimit.Limiter, error) {
	if b.plans == nil {
		return nil, fmt.Errorf("%w %q: the server has no file of plans", errPlan, name)
	}
	l, ok := b.plans.Plan(name)
	if !ok {
		return nil, fmt.Errorf("%w %q", errPlan, name)
	}
	for _, limit := range l.Limits() {
		if limit.Algorithm == ratelimit.Concurrency {
			return nil, fmt.Errorf("plan %q has a concurrency limit, whose places could not be given up over this service: %w", name, errUnfit)
		}
	}
	return l, nil
}

var (
	errPlan  = errors.New("unknown plan")
	errUnfit = errors.New("the plan can't be used here")
)

// Open checks cfg, reads its files and takes its addresses. It does not wait for anything.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	s, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	if err := s.listen(ctx); err != nil {
		s.closeListeners()
		return nil, err
	}
	s.begin()
	return s, nil
}

// Check is Open without taking the addresses.
func Check(cfg Config) error {
	_, err := prepare(cfg)
	return err
}

func prepare(cfg Config) (*Server, error) {
	if cfg.Shutdown == 0 {
		cfg.Shutdown = 10 * time.Second
	}
	if cfg.Connections == 0 {
		cfg.Connections = 4096
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Bounds.fill()
	errs := []error{cfg.check(), cfg.Auth.check()}
	s := &Server{cfg: cfg, log: cfg.Logger, rules: &rules{}, draining: make(chan struct{})}
	s.metrics = newMetrics(s)
	if cfg.CertFile != "" {
		s.tls = &certificates{mutual: cfg.ClientCAFile != ""}
		files := []string{cfg.CertFile, cfg.KeyFile}
		if s.tls.mutual {
			files = append(files, cfg.ClientCAFile)
		}
		s.watched = append(s.watched, &watched{what: "certificates", paths: files, load: s.tls.load})
	}
	if len(cfg.EnvoyFiles) > 0 {
		s.watched = append(s.watched, &watched{what: "rules", paths: cfg.EnvoyFiles, load: s.rules.load})
	}
	for _, w := range s.watched {
		w.log, w.count = s.log, s.metrics.reload
		errs = append(errs, w.open())
	}
	errs = append(errs, s.checkPlans())
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// checkPlans says which plans are named that do not exist.
func (s *Server) checkPlans() error {
	var errs []error
	missing := func(where string, names []string) {
		for _, name := range names {
			if !slices.Contains(s.cfg.PlanNames, name) {
				errs = append(errs, fmt.Errorf("%s: there is no plan %q that can be used here", where, name))
			}
		}
	}
	missing("auth-plan", s.cfg.Auth.Plans)
	if set := s.rules.set.Load(); set != nil {
		missing("envoy-rules", set.Plans())
	}
	return errors.Join(errs...)
}

// check says which fields are wrong, all at once.
func (c Config) check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.ListenHTTP == "" && c.ListenRLS == "" {
		fail("listen-http and listen-rls are both empty: there is nothing to serve")
	}
	for _, listen := range [][2]string{{"listen-http", c.ListenHTTP}, {"listen-rls", c.ListenRLS}} {
		name, addr := listen[0], listen[1]
		if addr == "" {
			continue
		}
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			fail("%s: %w", name, err)
		} else if !isLoopback(host) && c.Token == "" && c.ClientCAFile == "" && !c.TrustNetwork {
			fail("%s: %s can be reached from elsewhere: it needs an API token (FLATRATE_API_TOKEN or api-token-file), "+
				"client certificates (tls-client-ca), or insecure-trust-network", name, addr)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		fail("tls-cert and tls-key belong together")
	}
	if c.ClientCAFile != "" && c.CertFile == "" {
		fail("tls-client-ca needs tls-cert and tls-key")
	}
	if c.Token != "" && len(c.Token) < minToken {
		fail("the API token has under %d bytes", minToken)
	}
	if c.Shutdown < time.Second || c.Shutdown > 10*time.Minute {
		fail("shutdown-timeout is %v, not from 1s to 10m", c.Shutdown)
	}
	if c.Connections < 1 || c.Connections > 1_000_000 {
		fail("max-connections is %d, not from 1 to 1000000", c.Connections)
	}
	if c.RuleTimeout != 0 && (c.RuleTimeout < time.Millisecond || c.RuleTimeout > time.Minute) {
		fail("rls-timeout is %v, not from 1ms to 1m", c.RuleTimeout)
	}
	if c.RLSHeaders > ratehttp.HeadersNone {
		fail("rls-headers is %d, which is none", c.RLSHeaders)
	}
	return errors.Join(errs...)
}

// Reload reads all files now, as on SIGHUP. What can't be used is logged, and stays as it was.
func (s *Server) Reload() {
	for _, w := range s.watched {
		_ = w.reload() // logged there
	}
	if b := s.ready.Load(); b != nil && b.plans != nil {
		_ = b.plans.Reload() // logged there
	}
}

// Addr returns the addresses that are listened on; nil for one that is not.
func (s *Server) Addr() (http, rls net.Addr) {
	if s.listenHTTP != nil {
		http = s.listenHTTP.Addr()
	}
	if s.listenRLS != nil {
		rls = s.listenRLS.Addr()
	}
	return http, rls
}

// rules are the domains in force.
type rules struct{ set atomic.Pointer[domains.Set] }

func (r *rules) load(files []file) error {
	all := make([]domains.File, len(files))
	for i, f := range files {
		all[i] = domains.File{Name: f.name, Data: f.data}
	}
	set, err := domains.Parse(all)
	if err != nil {
		return err
	}
	r.set.Store(set)
	return nil
}

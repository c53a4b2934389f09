package ratelimitd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/flatrate/flatrate/ratelimit"
	"github.com/valkey-io/valkey-go"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	firstWait = 100 * time.Millisecond // between two attempts to reach the server
	lastWait  = 5 * time.Second
	// linger is how long connections are kept when the server ends, so that their clients hear of it with an answer.
	linger = time.Second
	tick   = 10 * time.Millisecond
)

// listen takes the addresses, so that one that is in use is known at once.
func (s *Server) listen(ctx context.Context) (err error) {
	take := func(name, addr string) *listener {
		if addr == "" || err != nil {
			return nil
		}
		var config net.ListenConfig
		l, failed := config.Listen(ctx, "tcp", addr)
		if failed != nil {
			err = fmt.Errorf("%s: %w", name, failed)
			return nil
		}
		return newListener(l.(*net.TCPListener), s.cfg.Connections, func() { s.metrics.refused.WithLabelValues(name).Inc() })
	}
	s.listenHTTP = take("listen-http", s.cfg.ListenHTTP)
	s.listenRLS = take("listen-rls", s.cfg.ListenRLS)
	return err
}

// stopListeners takes no new connections, and keeps those that clients have made already.
func (s *Server) stopListeners() {
	var both sync.WaitGroup
	for _, l := range []*listener{s.listenHTTP, s.listenRLS} {
		if l != nil {
			both.Go(l.stop)
		}
	}
	both.Wait()
}

func (s *Server) closeListeners() {
	for _, l := range []*listener{s.listenHTTP, s.listenRLS} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// begin makes the servers that will use the listeners.
func (s *Server) begin() {
	if s.listenHTTP != nil {
		s.http = s.newHTTP()
	}
	if s.listenRLS != nil {
		s.grpc, s.health = s.newGRPC()
	}
}

// Run serves until ctx ends, and then finishes within Config.Shutdown. Before the server (Valkey) has answered for the
// first time it says so, and decides nothing. An error says what ended it early, or that requests were cut off.
func (s *Server) Run(ctx context.Context) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	serve := func(f func() error) {
		wg.Go(func() {
			if err := f(); err != nil && inner.Err() == nil { // else its listener was closed on purpose
				cancel(err)
			}
		})
	}
	if s.http != nil {
		serve(s.serveHTTP)
	}
	if s.grpc != nil {
		serve(func() error { return s.grpc.Serve(s.listenRLS) })
	}
	for _, w := range s.watched {
		wg.Go(func() { w.run(inner) })
	}
	wg.Go(func() {
		if err := s.start(inner); err != nil {
			cancel(err)
		}
	})
	<-inner.Done()
	err := context.Cause(inner)
	if ctx.Err() != nil {
		err = nil // a signal is how it is meant to end
	}
	err = errors.Join(err, s.drain(context.WithoutCancel(ctx)))
	wg.Wait()
	if b := s.ready.Load(); b != nil {
		b.client.Close()
	}
	return err
}

// start waits for the server (Valkey), opens the plans, and looks after them.
func (s *Server) start(ctx context.Context) error {
	client, err := s.connect(ctx)
	if err != nil || client == nil {
		return err
	}
	hooks := ratelimit.Hooks{
		Down: func(err error) {
			s.metrics.outages.Inc()
			s.log.Warn("the Valkey server does not answer", "error", err)
		},
		Up: func() { s.log.Info("the Valkey server answers again") },
	}
	b := &backend{client: client, limiters: newLimiters(client, ratelimit.Config{Prefix: s.cfg.Prefix, Timeout: s.cfg.RuleTimeout, Hooks: hooks}), probe: &probe{ping: func() error {
		return client.Do(context.WithoutCancel(ctx), client.B().Ping().Build()).Error()
	}}}
	if s.cfg.OpenPlans != nil {
		if b.plans, err = s.cfg.OpenPlans(client, hooks, func(ok bool) { s.metrics.reload("plans", ok) }); err != nil {
			client.Close()
			return err
		}
	}
	s.ready.Store(b)
	s.setServing(true)
	s.log.Info("ready")
	if b.plans != nil {
		b.plans.Run(ctx)
	}
	return nil
}

// connect repeats Config.Connect until it succeeds, less and less often. No client and no error: ctx has ended.
func (s *Server) connect(ctx context.Context) (valkey.Client, error) {
	wait := firstWait
	for {
		client, err := s.cfg.Connect(ctx)
		if err == nil {
			return client, nil
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		if errors.Is(err, ErrPermanent) {
			return nil, err
		}
		why := err.Error()
		s.waiting.Store(&why)
		s.log.Warn("waiting for the Valkey server", "error", err, "again", wait.String())
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(wait):
		}
		wait = min(lastWait, 2*wait)
	}
}

func (s *Server) serveHTTP() error {
	var err error
	if s.tls != nil {
		s.http.TLSConfig = s.tls.config("h2", "http/1.1")
		err = s.http.ServeTLS(s.listenHTTP, "", "")
	} else {
		err = s.http.Serve(s.listenHTTP)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) setServing(serving bool) {
	if s.health == nil {
		return
	}
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving && !s.isDraining() {
		status = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", status)
	s.health.SetServingStatus(rlsService, status)
}

func (s *Server) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// drain takes no new connections, finishes what has begun, and closes.
func (s *Server) drain(ctx context.Context) error {
	begun := time.Now()
	// First of all: answers from then on close their connections, and who dials again has to be refused.
	s.stopListeners()
	close(s.draining)
	s.log.Info("ending: no new connections are taken", "within", s.cfg.Shutdown.String())
	if s.health != nil {
		s.health.Shutdown()
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Shutdown)
	defer cancel()
	var both sync.WaitGroup
	var errHTTP, errRLS error
	if s.http != nil {
		both.Go(func() { errHTTP = s.drainHTTP(ctx) })
	}
	if s.grpc != nil {
		both.Go(func() { errRLS = s.drainGRPC(ctx) })
	}
	both.Wait()
	err := errors.Join(errHTTP, errRLS)
	s.log.Info("ended", "took", time.Since(begun).Round(time.Millisecond).String(), "clean", err == nil)
	return err
}

// drainHTTP keeps connections for a moment. Each answer now closes its connection, and a client that has its answer does
// not send another request into a connection that is being closed.
func (s *Server) drainHTTP(ctx context.Context) error {
	waitUntil(ctx, min(linger, s.cfg.Shutdown/2), func() bool { return s.listenHTTP.open() == 0 })
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
		return errors.New("requests over HTTP were cut off: they took longer than the shutdown timeout")
	}
	return nil
}

// drainGRPC tells clients to go elsewhere and waits for their calls. Streams of health and reflection, which need not
// ever end, are not waited for.
func (s *Server) drainGRPC(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(min(linger, s.cfg.Shutdown/2)):
	}
	waitUntil(ctx, s.cfg.Shutdown, func() bool {
		select {
		case <-done:
			return true
		default:
			return s.calls.Load() == 0
		}
	})
	cut := s.calls.Load()
	select {
	case <-done:
		return nil
	case <-time.After(tick): // answers that are on their way
	}
	s.grpc.Stop()
	<-done
	if cut > 0 {
		return errors.New("calls over gRPC were cut off: they took longer than the shutdown timeout")
	}
	return nil
}

// waitUntil returns when is is true, or most has passed, or ctx has ended.
func waitUntil(ctx context.Context, most time.Duration, is func() bool) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// probe asks whether the server (Valkey) answers, for /readyz and the metrics: once at a time.
type probe struct {
	ping func() error

	mu      sync.Mutex
	at      time.Time // of the last answer
	err     error
	waiting chan struct{} // is closed when the question that is under way is answered; nil if there is none
}

const (
	probeWait = 250 * time.Millisecond // how long an answer is waited for
	probeAge  = 500 * time.Millisecond // and for how long it counts
)

var errSilent = errors.New("no answer within " + probeWait.String())

// check returns the last answer if it still counts, else it asks. The question has no deadline of its own: one that
// passes would cost decisions on the same connection theirs. The client gives up a silent connection by itself.
func (p *probe) check() error {
	p.mu.Lock()
	if !p.at.IsZero() && time.Since(p.at) < probeAge {
		defer p.mu.Unlock()
		return p.err
	}
	waiting := p.waiting
	if waiting == nil {
		waiting = make(chan struct{})
		p.waiting = waiting
		go p.ask()
	}
	p.mu.Unlock()
	select {
	case <-waiting:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.err
	case <-time.After(probeWait):
		return errSilent
	}
}

func (p *probe) ask() {
	err := p.ping()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.err = time.Now(), err
	close(p.waiting)
	p.waiting = nil
}

package ratelimitd

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxPlans is how many plans and rules have labels of their own; further ones count as "other".
const maxPlans = 1000

// metrics are what /metrics shows. Labels come from the configuration, never from requests.
type metrics struct {
	registry  *prometheus.Registry
	decisions *prometheus.CounterVec   // endpoint, plan, outcome
	seconds   *prometheus.HistogramVec // endpoint
	requests  *prometheus.CounterVec   // endpoint, code
	refused   *prometheus.CounterVec   // listener
	reloads   *prometheus.CounterVec   // what, result
	outages   prometheus.Counter

	mu    sync.RWMutex
	plans map[string]bool
	cache sync.Map // of decision to its counter: a look-up by labels costs more
}

type decision struct{ endpoint, plan, outcome string }

func newMetrics(s *Server) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), plans: map[string]bool{}}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m.decisions = vec("flatrate_decisions_total", "Decisions: allowed, denied, shadow_denied, unlimited or error.", "endpoint", "plan", "outcome")
	m.requests = vec("flatrate_requests_total", "Requests by what was answered.", "endpoint", "code")
	m.refused = vec("flatrate_connections_refused_total", "Connections closed at once, being over max-connections.", "listener")
	m.reloads = vec("flatrate_reloads_total", "Files that were loaded again: ok or failed.", "what", "result")
	m.outages = prometheus.NewCounter(prometheus.CounterOpts{Name: "flatrate_valkey_outages_total", Help: "How often a plan lost the Valkey server."})
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "flatrate_request_seconds", Help: "How long requests took.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 10},
	}, []string{"endpoint"})
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	m.registry.MustRegister(m.decisions, m.requests, m.refused, m.reloads, m.outages, m.seconds,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gauge("flatrate_valkey_up", "1 while the Valkey server answers.", func() float64 {
			if b := s.ready.Load(); b != nil && b.probe.check() == nil {
				return 1
			}
			return 0
		}),
		gauge("flatrate_rules", "Rules of Envoy's domains that are in force.", func() float64 {
			if set := s.rules.set.Load(); set != nil {
				return float64(set.Rules())
			}
			return 0
		}),
	)
	for name, of := range map[string]func() *listener{"listen-http": func() *listener { return s.listenHTTP }, "listen-rls": func() *listener { return s.listenRLS }} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "flatrate_connections", Help: "Open connections.", ConstLabels: prometheus.Labels{"listener": name},
		}, func() float64 {
			if l := of(); l != nil {
				return float64(l.open())
			}
			return 0
		}))
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "flatrate_build_info", Help: "1, with the version."}, []string{"version"})
	info.WithLabelValues(s.cfg.Version).Set(1)
	m.registry.MustRegister(info)
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 5 * time.Second})
}

// decided counts a decision about a plan, or about a rule by its label.
func (m *metrics) decided(endpoint, plan, outcome string) {
	d := decision{endpoint, plan, outcome}
	if counter, ok := m.cache.Load(d); ok {
		counter.(prometheus.Counter).Inc()
		return
	}
	name := m.bounded(plan)
	counter := m.decisions.WithLabelValues(endpoint, name, outcome)
	if name == plan { // what has no label of its own is not kept either
		m.cache.Store(d, counter)
	}
	counter.Inc()
}

// bounded is the plan's name, or "other" once there are too many.
func (m *metrics) bounded(plan string) string {
	m.mu.RLock()
	known := m.plans[plan]
	m.mu.RUnlock()
	if known {
		return plan
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.plans) >= maxPlans {
		return "other"
	}
	m.plans[plan] = true
	return plan
}

func (m *metrics) reload(what string, ok bool) {
	result := "ok"
	if !ok {
		result = "failed"
	}
	m.reloads.WithLabelValues(what, result).Inc()
}

func outcome(allowed bool, err error) string {
	switch {
	case err != nil:
		return "error"
	case allowed:
		return "allowed"
	}
	return "denied"
}

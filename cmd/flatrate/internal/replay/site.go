package replay

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/session"
	"github.com/valkey-io/valkey-go"
)

// callTimeout is generous: a replay asks as fast as the server answers.
const callTimeout = 10 * time.Second

// site is the blocks that a web server would share among its requests.
type site struct {
	limiter  *ratelimit.Limiter
	sessions *session.Manager[visit]
	pages    *cache.Cache[string]
	idle     time.Duration
	visit    visit                 // what every session holds
	filler   string                // what every response is made of
	broken   atomic.Pointer[error] // what the cache went on without; a replay must not
}

// visit is a session's value: as many bytes as the replay was asked for.
type visit struct {
	Data string `json:"data"`
}

func newSite(client valkey.Client, cfg Config) (*site, error) {
	s := &site{
		idle:   cfg.Idle,
		visit:  visit{strings.Repeat("x", cfg.SessionBytes)},
		filler: strings.Repeat("x", cfg.BodyMax),
	}
	var err error
	s.limiter, err = ratelimit.New(client, ratelimit.Config{
		Prefix: cfg.Prefix, Limits: []ratelimit.Limit{{Limit: cfg.Limit, Window: cfg.Window}}, Timeout: callTimeout,
	})
	if err != nil {
		return nil, err
	}
	s.sessions, err = session.New[visit](client, session.Config{
		Prefix: cfg.Prefix, Idle: cfg.Idle, Timeout: callTimeout, MaxBytes: min(max(cfg.SessionBytes+1024, session.DefaultMaxBytes), 512<<10),
		AskAlways: cfg.Advance != nil, // the log's clock is not this process's
	})
	if err != nil {
		return nil, err
	}
	s.pages, err = cache.New[string](client, s.cacheConfig(cfg))
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *site) cacheConfig(cfg Config) cache.Config {
	c := cache.Config{Prefix: cfg.Prefix, TTL: cfg.TTL, Jitter: cfg.Jitter}
	if cfg.Jitter == 0 {
		c.Jitter = cache.NoJitter
	}
	if cfg.Advance != nil { // one request after the other, and always the same ones
		c.Random = rand.New(rand.NewPCG(cfg.Seed, 1)).Float64
	}
	c.Hooks.Error = func(_ string, err error) { s.broken.CompareAndSwap(nil, &err) }
	return c
}

// visitors are some of the site's clients, with what was counted for them. Not safe for concurrent use.
type visitors struct {
	*site
	cookies *jar
	counts  Counts
}

func newVisitors(s *site) *visitors { return &visitors{site: s, cookies: newJar(s.idle)} }

// request sends one request through the site.
func (v *visitors) request(ctx context.Context, entry usage.Entry, now time.Time) error {
	decision, err := v.limiter.Allow(ctx, entry.Address)
	if err != nil {
		return err
	}
	if !decision.Allowed {
		v.counts.Denied++
		return nil
	}
	v.counts.Allowed++
	if err := v.session(ctx, browser{entry.Address, entry.UserAgent}, now); err != nil {
		return err
	}
	if entry.Method == "GET" || entry.Method == "HEAD" {
		return v.page(ctx, entry)
	}
	return nil
}

// session reads the browser's session, or creates one where there is none.
func (v *visitors) session(ctx context.Context, who browser, now time.Time) error {
	v.counts.Reads++
	if token := v.cookies.token(who, now); token != "" {
		_, alive, err := v.sessions.Get(ctx, token)
		if err != nil || alive {
			return err
		}
	}
	created, err := v.sessions.Create(ctx, v.visit)
	if err != nil {
		return err
	}
	v.counts.Created++
	v.cookies.keep(who, created.Token)
	return nil
}

// page looks a response up, and stores it where it is missing.
func (v *visitors) page(ctx context.Context, entry usage.Entry) error {
	v.counts.Lookups++
	hit := true
	_, err := v.pages.Get(ctx, entry.Host+entry.Target, func(context.Context) (string, error) {
		hit = false
		return v.filler[:min(entry.Size, int64(len(v.filler)))], nil
	})
	if err != nil {
		return err
	}
	if broken := v.broken.Load(); broken != nil {
		return *broken
	}
	if hit {
		v.counts.Hits++
	} else {
		v.counts.Misses++
	}
	return nil
}

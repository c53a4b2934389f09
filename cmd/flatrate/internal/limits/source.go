package limits

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/yamlfile"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/valkey-io/valkey-go"
)

// DefaultPoll is that of Config.Poll.
const DefaultPoll = time.Second

// Config is a Source's. Client has no default.
type Config struct {
	// Client is what limiters are made with.
	Client valkey.Client
	// Prefix stands before every key. Default "fr".
	Prefix string
	// Poll is how often the file is looked at. A change counts once two looks have found the same, so that a
	// file that is being written is not read: it is in force after one to two Polls. Default 1 s, at
	// least 1 ms.
	Poll time.Duration
	// Limiters hear of outages.
	Limiters ratelimit.Hooks
	// Changed is called after plans have changed: with the names of those that are new, changed or gone.
	Changed func(names []string)
	// Failed is called when a changed file can't be used; the old plans stay in force.
	Failed func(error)
	// Logger says what Changed and Failed do; nil discards.
	Logger *slog.Logger
}

// Source has the plans in force. It is safe for concurrent use.
type Source struct {
	path  string
	cfg   Config
	inUse atomic.Pointer[plans]

	loading sync.Mutex // is held while plans are replaced
	loaded  digest     // of the file that is in force
	tried   digest     // of the last one that failed; zero if none
	seen    digest     // of the last look, if it differs from these

	failure atomic.Pointer[error]
}

type digest [sha256.Size]byte

// plans are replaced as a whole, and never modified.
type plans struct {
	configs  map[string]ratelimit.Config
	limiters map[string]*ratelimit.Limiter
}

// Open loads the plans of a file. Without a file that can be used there is no Source.
func Open(path string, cfg Config) (*Source, error) {
	if cfg.Client == nil {
		return nil, errors.New("limits: Config.Client is nil")
	}
	if cfg.Poll == 0 {
		cfg.Poll = DefaultPoll
	}
	if cfg.Poll < time.Millisecond {
		return nil, fmt.Errorf("limits: Config.Poll is %v, less than 1ms", cfg.Poll)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{path: path, cfg: cfg}
	s.inUse.Store(&plans{})
	if err := s.load(s.look()); err != nil {
		return nil, err
	}
	return s, nil
}

// Plan returns the limiter of a plan. Ask for each request: the limiter of a plan is another one once the plan has
// changed. What was taken from the old one is given back to the old one.
func (s *Source) Plan(name string) (l *ratelimit.Limiter, ok bool) {
	l, ok = s.inUse.Load().limiters[name]
	return l, ok
}

// Names returns the names of all plans, sorted.
func (s *Source) Names() []string {
	return slices.Sorted(maps.Keys(s.inUse.Load().limiters))
}

// Err is why the file as it is now is not in force; nil if it is.
func (s *Source) Err() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Reload reads the file now, as on SIGHUP. With an error the old plans stay in force.
func (s *Source) Reload() error {
	s.loading.Lock()
	defer s.loading.Unlock()
	return s.replace(s.look())
}

// Run looks after changes until ctx ends.
func (s *Source) Run(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.Poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.poll()
		}
	}
}

// look is what the file is like now.
type look struct {
	data   []byte
	err    error
	digest digest
}

func (s *Source) look() look {
	data, err := yamlfile.Read(s.path)
	if err != nil {
		return look{err: err, digest: sha256.Sum256([]byte("error " + err.Error()))}
	}
	return look{data: data, digest: sha256.Sum256(append([]byte("data "), data...))}
}

func (s *Source) poll() {
	s.loading.Lock()
	defer s.loading.Unlock()
	now := s.look()
	switch now.digest {
	case s.tried:
	case s.loaded:
		if s.tried != (digest{}) { // it was changed back
			_ = s.replace(now)
		}
	case s.seen:
		_ = s.replace(now)
	default:
		s.seen = now.digest
		return
	}
	s.seen = digest{}
}

// replace loads what a look saw, and tells of it.
func (s *Source) replace(now look) error {
	before := s.inUse.Load()
	if err := s.load(now); err != nil {
		s.tried = now.digest
		s.failure.Store(&err)
		s.cfg.Logger.Error("the plans stay as they are", "file", s.path, "error", err)
		if s.cfg.Failed != nil {
			s.cfg.Failed(err)
		}
		return err
	}
	s.tried = digest{}
	s.failure.Store(nil)
	if names := changed(before, s.inUse.Load()); len(names) > 0 {
		s.cfg.Logger.Info("plans have changed", "file", s.path, "plans", names)
		if s.cfg.Changed != nil {
			s.cfg.Changed(names)
		}
	}
	return nil
}

// load puts plans in force. The limiters of plans that are as before stay, with what they know.
func (s *Source) load(now look) error {
	if now.err != nil {
		return now.err
	}
	configs, err := Parse(s.path, now.data)
	if err != nil {
		return err
	}
	old := s.inUse.Load()
	next := &plans{configs, make(map[string]*ratelimit.Limiter, len(configs))}
	for name, cfg := range configs {
		if l, ok := old.limiters[name]; ok && reflect.DeepEqual(cfg, old.configs[name]) {
			next.limiters[name] = l
			continue
		}
		if next.limiters[name], err = limiterOf(s.cfg.Client, s.cfg.Prefix, name, cfg, s.cfg.Limiters); err != nil {
			return err
		}
	}
	s.inUse.Store(next)
	s.loaded = now.digest
	return nil
}

// changed are the names of the plans that are not the same in both.
func changed(a, b *plans) (names []string) {
	for name, l := range b.limiters {
		if a.limiters[name] != l {
			names = append(names, name)
		}
	}
	for name := range a.limiters {
		if _, ok := b.limiters[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

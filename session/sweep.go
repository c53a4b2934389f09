package session

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/link"
	"github.com/flatrate/flatrate/internal/script"
)

//go:embed register.lua
var registerLua string

//go:embed unregister.lua
var unregisterLua string

//go:embed due.lua
var dueLua string

var (
	register   = script.New(registerLua)
	unregister = script.New(unregisterLua)
	due        = script.New(dueLua)
)

// Sweep tells of sessions that ended by their timeouts, as to free what they held. All processes that write sessions
// have it on, or off: it costs a registry of about 100 bytes for each session. Of all processes one at a time looks at
// a part of it.
type Sweep struct {
	// Func is called in the background, some time after the end: Every and what is left to do before. Where it returns
	// an error, it is called again after a minute. It is called at least once for each session that ended by a
	// timeout, and hardly ever for one that a call ended. Its ctx ends when the process may no longer be the one that looks.
	// Nil means that nobody is told.
	Func func(ctx context.Context, e Expired) error
	// Note is asked for a session's value when it begins or is renewed, as for the id of what it holds: Expired.Note.
	// It is stored as it is. Func may be called with what was true then. Nil means none. At most 1024 bytes
	// are kept. The value is the Manager's T.
	Note func(value any) string
	// Every is how often a process looks: from 10 ms to an hour. Default 10 s.
	Every time.Duration
}

// Expired is a session that has ended by a timeout. What it held is gone.
type Expired struct {
	// ID is what [Info.ID] was.
	ID string
	// Note is what [Sweep.Note] said.
	Note string
}

const (
	defaultEvery = 10 * time.Second
	sweepLease   = 30 * time.Second
	sweepBatch   = 100
	sweepAgain   = time.Minute // after Func has failed
	maxNote      = 1024
)

func (s *Sweep) check() error {
	if s.Every == 0 {
		s.Every = defaultEvery
	}
	if s.Every < 10*time.Millisecond || s.Every > time.Hour {
		return fmt.Errorf("session: Config.Expired.Every is %v, not from 10ms to an hour", s.Every)
	}
	return nil
}

// sweeper looks for sessions that have ended. A nil one registers nothing.
type sweeper struct {
	*link.Link
	cfg    *Config
	keys   keySpace
	leases *lease.Server
	quit   context.CancelFunc
	done   sync.WaitGroup
}

func (m *Manager[T]) newSweeper() *sweeper {
	ctx, quit := context.WithCancel(context.Background())
	s := &sweeper{Link: &m.Link, cfg: &m.cfg, keys: m.keys, leases: lease.On(m.Client), quit: quit}
	s.done.Go(func() { s.run(ctx) })
	return s
}

func (s *sweeper) close() {
	s.quit()
	s.done.Wait()
}

// note is what the registry keeps of a value.
func (m *Manager[T]) note(value T) string {
	if m.sweep == nil || m.cfg.Expired.Note == nil {
		return ""
	}
	note := m.cfg.Expired.Note(value)
	if len(note) > maxNote {
		note = note[:maxNote]
	}
	return "=" + note
}

func shardOf(at place) string {
	return strconv.Itoa(int(crc32.ChecksumIEEE([]byte(at.digest)) % shards))
}

func (s *sweeper) keysOf(shard string) []string {
	return []string{s.keys.ends(shard), s.keys.notes(shard)}
}

// register is called in the round trip that begins a session.
func (s *sweeper) register(at place, note string, after time.Duration) []script.Call {
	if s == nil {
		return nil
	}
	return []script.Call{{Script: register, Keys: s.keysOf(shardOf(at)), Args: []string{at.String(), milliseconds(after), note}}}
}

// unregister is called in the round trip that ends a session.
func (s *sweeper) unregister(at place) []script.Call {
	if s == nil {
		return nil
	}
	return []script.Call{{Script: unregister, Keys: s.keysOf(shardOf(at)), Args: []string{at.String()}}}
}

func (s *sweeper) run(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.Expired.Every)
	defer ticker.Stop()
	for first := rand.IntN(shards); ; first++ {
		for i := range shards {
			shard := strconv.Itoa((first + i) % shards)
			if err := s.part(ctx, shard); err != nil && ctx.Err() == nil {
				s.cfg.Logger.Warn("session: looking for sessions that have ended", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// part looks at one part of the registry, unless another process does.
func (s *sweeper) part(ctx context.Context, shard string) error {
	name := s.keys.sweep(shard)
	if err := s.Away(name); err != nil || ctx.Err() != nil {
		return err
	}
	sent := time.Now()
	l, ok, err := s.leases.Take(s.Wait.Bounded(ctx), name, sweepLease)
	s.Heard(ctx, name, err)
	if err != nil || !ok {
		return err
	}
	keeper := lease.Keep(ctx, lease.Keeping{TTL: sweepLease, Sent: sent, Extend: l.Extend, Renew: true})
	stop := context.AfterFunc(ctx, func() { keeper.End(lease.ErrReleased) })
	defer func() {
		stop()
		keeper.End(lease.ErrReleased)
		_, _ = l.Drop(s.Wait.Context(context.WithoutCancel(ctx), time.Now())) // else it ends by itself
	}()
	for keeper.Context().Err() == nil {
		more, err := s.some(keeper.Context(), shard)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// some looks at the sessions that are due; more is true if there may be others.
func (s *sweeper) some(ctx context.Context, shard string) (more bool, err error) {
	keys := s.keysOf(shard)
	found, err := s.Exec(ctx, due, keys, strconv.Itoa(sweepBatch)).AsStrSlice()
	if err != nil || len(found) == 0 {
		return false, err
	}
	var failed []error
	for i := 0; i+1 < len(found) && ctx.Err() == nil; i += 2 {
		if err := s.one(ctx, keys, found[i], found[i+1]); err != nil {
			failed = append(failed, err)
		}
	}
	return len(found) == 2*sweepBatch && len(failed) == 0, errors.Join(failed...)
}

// one looks at one session.
func (s *sweeper) one(ctx context.Context, keys []string, text, note string) error {
	at, ok := parsePlace(text)
	forget := func() error { return s.Exec(ctx, unregister, keys, text).Error() }
	if !ok {
		return forget()
	}
	name := s.keys.session(at)
	replies := s.Client.DoMulti(s.Wait.Bounded(ctx),
		s.Client.B().Getrange().Key(name).Start(0).End(0).Build(),
		s.Client.B().Pttl().Key(name).Build(),
	)
	first, err := replies[0].ToString()
	if err != nil {
		s.Heard(ctx, name, err)
		return err
	}
	left, err := replies[1].AsInt64()
	if err != nil {
		return err
	}
	later := func(ms int64) error {
		return s.Exec(ctx, register, keys, text, strconv.FormatInt(ms, 10), "-").Error()
	}
	switch {
	case first == string(live) && left == -1: // somebody has made it last
		return later(sweepAgain.Milliseconds())
	case first == string(live):
		return later(max(left, 1))
	case first != "": // a call has ended or renewed it
		return forget()
	}
	if err := s.cfg.Expired.Func(ctx, Expired{ID: at.digest, Note: note}); err != nil {
		s.cfg.Logger.Warn("session: Config.Expired.Func", "err", err)
		return later(sweepAgain.Milliseconds())
	}
	return forget()
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	way "github.com/flatrate/flatrate/internal/link"
	"github.com/valkey-io/valkey-go"
)

// state is what an entry is good for.
type state int

const (
	unanswered state = iota // nobody knows: the server was not asked, or did not answer
	none                    // there is no entry, or one past all use
	foreign                 // something else lies there
	old                     // past its TTL, for where load fails
	stale                   // past its TTL, and served while it is loaded anew
	fresh
)

// sight is what was seen under a key.
type sight[V any] struct {
	state state
	value V
	err   error         // what is remembered in place of a value: ErrNotFound or a LoadError
	past  time.Duration // since the TTL ended; negative while it goes on, if that is known
	left  int64         // PTTL, in ms
	took  time.Duration // the load
	sent  time.Time     // when it was asked for: what was there then is not older
	why   error         // of unanswered and foreign
}

// servable says whether there is something to serve where load fails.
func (s *sight[V]) servable() bool { return s.state >= old }

// none and noEnd are what PTTL answers for no key, and for one without an end.
const noEnd = -1

// look reads an entry: GET where that says enough, else PTTL and the tags with it, all in one round trip.
func (c *Cache[V]) look(ctx context.Context, key string) (s sight[V]) {
	name := c.keys.entries.Key(key)
	get := c.client.B().Get().Key(name).Build()
	if err := c.way.BreakerOf(get).Err(); err != nil {
		return sight[V]{why: fmt.Errorf("cache: get: the server is away: %w", err)}
	}
	sent := time.Now()
	bounded, cancel := c.looking(ctx, sent)
	defer cancel()
	if !c.wantsTTL && c.cfg.Tags == nil {
		b, err := c.client.Do(bounded, get).AsBytes()
		if err != nil {
			c.way.Heard(ctx, name, err)
		}
		return c.judge(b, math.MinInt64, nil, nil, sent, err)
	}
	tags, err := c.tagsOf(key)
	if err != nil {
		return sight[V]{why: err}
	}
	// PTTL first: others may write between the two, and an entry must not be served with the TTL of a later one.
	cmds := valkey.Commands{c.client.B().Pttl().Key(name).Build(), get}
	for _, tag := range tags {
		cmds = append(cmds, c.client.B().Get().Key(c.keys.tags.Key(tag)).Build())
	}
	for _, cmd := range cmds[2:] { // tags may be at other nodes
		if err := c.way.BreakerOf(cmd).Err(); err != nil {
			return sight[V]{why: fmt.Errorf("cache: get: the server is away: %w", err)}
		}
	}
	replies := c.client.DoMulti(bounded, cmds...)
	left, leftErr := replies[0].AsInt64()
	b, err := replies[1].AsBytes()
	if err == nil && leftErr != nil {
		err = leftErr
	}
	if err != nil {
		c.way.Heard(ctx, name, err)
	}
	gens := make([]string, len(tags))
	for i := range tags {
		gen, tagErr := replies[2+i].ToString()
		if tagErr != nil && !valkey.IsValkeyNil(tagErr) {
			c.way.Heard(ctx, c.keys.tags.Key(tags[i]), tagErr)
			if err == nil || valkey.IsValkeyNil(err) {
				err = tagErr
			}
		}
		gens[i] = gen
	}
	return c.judge(b, left, tags, gens, sent, err)
}

// judge says what a reply is good for. Left is MinInt64 where nobody asked: the server ends the entry.
func (c *Cache[V]) judge(b []byte, left int64, tags, gens []string, sent time.Time, err error) sight[V] {
	s := sight[V]{state: none, left: left, sent: sent}
	switch {
	case valkey.IsValkeyNil(err):
		return s
	case err != nil:
		s.why = fmt.Errorf("cache: get: %w", err)
		if s.state = unanswered; way.Answered(err) {
			s.state = foreign // of another type, or the server refuses: filling will tell
		}
		return s
	}
	e, err := parseEntry(b)
	if err != nil {
		s.state, s.why = foreign, fmt.Errorf("cache: get: %w", err)
		return s
	}
	if !slices.Equal(e.gens, gens) || slices.Contains(gens, "") {
		return s // a tag was deleted since
	}
	s.took = e.took
	s.state = fresh
	if left != math.MinInt64 {
		s.past = e.kept - time.Duration(left)*time.Millisecond
		switch {
		case left == noEnd:
			s.state = none // somebody took its end away
		case s.past < 0:
		case s.past < c.cfg.StaleWhileRevalidate:
			s.state = stale
		case s.past < c.cfg.StaleIfError:
			s.state = old
		default:
			s.state = none
		}
	}
	if s.state == none {
		return s
	}
	switch {
	case e.absent:
		s.err = ErrNotFound
	case e.failed:
		s.err = &LoadError{Text: string(e.body)}
	default:
		if s.value, err = c.decode(e); err != nil {
			var zero V
			s.value, s.state, s.why = zero, foreign, fmt.Errorf("cache: get: %w", err)
		}
	}
	return s
}

// LoadError is a remembered error of load: Config.ErrorTTL.
type LoadError struct {
	// Text is what the error said.
	Text string
}

func (e *LoadError) Error() string { return "cache: load failed a moment ago: " + e.Text }

// tagsOf returns the tags of a key, as Config.Tags has them.
func (c *Cache[V]) tagsOf(key string) ([]string, error) {
	if c.cfg.Tags == nil {
		return nil, nil
	}
	tags := c.cfg.Tags(key)
	if len(tags) > maxTags {
		return nil, errors.New("cache: Config.Tags returned more than 16")
	}
	return tags, nil
}

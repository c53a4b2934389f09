package session

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

//go:embed end.lua
var endLua string

//go:embed end_all.lua
var endAllLua string

//go:embed index.lua
var indexLua string

//go:embed list.lua
var listLua string

var (
	end    = script.New(endLua)
	endAll = script.New(endAllLua)
	index  = script.New(indexLua)
	list   = script.New(listLua)
)

// batch is how many sessions one script is told of: it keeps the server from others meanwhile.
const batch = 1000

// The package's own members.
const (
	deviceName  = "@ua"
	addressName = "@ip"
)

const (
	maxDevice  = 256
	maxAddress = 64
)

var errNoUser = errors.New("session: the user's id is empty")

// Info is what [Manager.List] says of a session.
type Info struct {
	// ID is for [Manager.End]. It is not the token and does not give it away.
	ID string
	// Device and Address are those of [Terms].
	Device, Address string
	// Created is when it began, Seen when its idle time was last extended: up to a twentieth of the idle timeout before
	// its last request. Ends is when it ends unless it is read before.
	Created, Seen, Ends time.Time
}

// about are the members that say where a session was begun.
func about(terms Terms) (changes []change) {
	if terms.Device != "" {
		changes = append(changes, change{deviceName, quote(terms.Device, maxDevice)})
	}
	if terms.Address != "" {
		changes = append(changes, change{addressName, quote(terms.Address, maxAddress)})
	}
	return changes
}

func quote(text string, limit int) string {
	if len(text) > limit {
		text = text[:limit]
	}
	b, _ := json.Marshal(strings.ToValidUTF8(text, string(utf8.RuneError))) // a string has JSON
	return string(b)
}

// List returns a user's sessions, that of the last sign of life first. Two round trips, and no scan.
func (m *Manager[T]) List(ctx context.Context, user string) ([]Info, error) {
	tag, found, err := m.index(ctx, user)
	if err != nil {
		return nil, wrap("list", err)
	}
	var calls []script.Call
	for part := range slices.Chunk(found, batch) {
		calls = append(calls, script.Call{Script: list, Keys: m.sessionKeys(tag, part)})
	}
	infos := make([]Info, 0, len(found))
	for i, reply := range m.Execs(ctx, calls...) {
		records, err := reply.AsStrSlice()
		if err != nil {
			return nil, wrap("list", err)
		}
		for j, text := range records {
			if text == "" {
				continue // it has ended meanwhile
			}
			at := found[i*batch+j]
			info, err := m.describe(place{tag, at.digest}, text)
			if err != nil {
				return nil, err
			}
			info.Ends = at.ends
			infos = append(infos, info)
		}
	}
	slices.SortStableFunc(infos, func(a, b Info) int { return b.Seen.Compare(a.Seen) })
	return infos, nil
}

func (m *Manager[T]) describe(at place, text string) (info Info, err error) {
	r, _, err := parseRecord(text)
	if err != nil {
		return info, err
	}
	wire, err := members(r.body)
	if err != nil {
		return info, err
	}
	info = Info{ID: at.digest, Created: r.created, Seen: r.seen}
	_, own, err := m.openAll(at, wire)
	if err != nil {
		return info, nil //nolint:nilerr // it can be ended all the same
	}
	get := lookup(own)
	for name, to := range map[string]*string{deviceName: &info.Device, addressName: &info.Address} {
		if value, ok := get(name); ok {
			if err := json.Unmarshal([]byte(value), to); err != nil {
				return info, fmt.Errorf("session: list: member %q: %w", name, err)
			}
		}
	}
	return info, nil
}

// indexed is a session in its user's index.
type indexed struct {
	digest string
	ends   time.Time
}

// index prunes and reads the index of a user.
func (m *Manager[T]) index(ctx context.Context, user string) (tag string, all []indexed, err error) {
	if user == "" {
		return "", nil, errNoUser
	}
	tag = userTag(m.cfg.TagSecret, user)
	all, err = m.indexOf(ctx, tag)
	return tag, all, err
}

func (m *Manager[T]) indexOf(ctx context.Context, tag string) (all []indexed, err error) {
	scores, err := zscores(m.Exec(ctx, index, []string{m.keys.user(tag)}))
	if err != nil {
		return nil, err
	}
	for _, score := range scores {
		all = append(all, indexed{score.Member, time.UnixMilli(int64(score.Score))})
	}
	return all, nil
}

// zscores reads member, score, member, score ... as a script returns them.
func zscores(result valkey.ValkeyResult) ([]valkey.ZScore, error) {
	flat, err := result.AsStrSlice()
	if err != nil {
		return nil, err
	}
	scores := make([]valkey.ZScore, 0, len(flat)/2)
	for i := 0; i+1 < len(flat); i += 2 {
		score := valkey.ZScore{Member: flat[i]}
		if _, err := fmt.Sscan(flat[i+1], &score.Score); err != nil {
			return nil, fmt.Errorf("the score %q is no number", flat[i+1])
		}
		scores = append(scores, score)
	}
	return scores, nil
}

func (m *Manager[T]) sessionKeys(tag string, some []indexed) []string {
	keys := make([]string, len(some))
	for i, s := range some {
		keys[i] = m.keys.session(place{tag, s.digest})
	}
	return keys
}

// End ends one of a user's sessions by its [Info.ID]; ok is false if the user has no such session. It can't end
// another user's. One round trip, two if its token was replaced a moment ago.
func (m *Manager[T]) End(ctx context.Context, user, id string) (ok bool, err error) {
	switch {
	case user == "":
		return false, errNoUser
	case len(id) != digestLen || !base64url(id):
		return false, nil
	}
	return m.endHere(ctx, place{userTag(m.cfg.TagSecret, user), id}, false)
}

// endAt ends the session at a place.
func (m *Manager[T]) endAt(ctx context.Context, at place, always bool) error {
	_, err := m.endHere(ctx, at, always)
	return err
}

func (m *Manager[T]) endHere(ctx context.Context, at place, always bool) (ok bool, err error) {
	args := []string{m.gone, "0"}
	if always {
		args[1] = "1"
	}
	for range hops {
		m.hints.forget(at.digest)
		n, text, err := codeAnd(m.exec(ctx, at, end, m.keys.of(at), args, m.sweep.unregister(at)...))
		switch {
		case err != nil:
			return false, wrap("delete", err)
		case n == done:
			m.cfg.Hooks.Ended(at.digest)
			m.cfg.Hooks.Written(1)
			return true, nil
		case n == nothing:
			return false, nil
		}
		if at, ok = parsePlace(text); !ok {
			return false, nil // it was no session, and is none now
		}
	}
	return false, nil
}

// EndAll ends all sessions of a user, and returns how many there were: "log out everywhere". One that begins while it
// runs may live on. Two round trips, and one more if a token was replaced between them. If it fails, some may have been
// ended; it may be repeated.
func (m *Manager[T]) EndAll(ctx context.Context, user string) (int, error) {
	tag, found, err := m.index(ctx, user)
	if err != nil {
		return 0, wrap("end all", err)
	}
	return m.endEach(ctx, tag, found)
}

// EndOthers ends all sessions of the user whom s belongs to, but for s itself, and returns how many there were. It is
// an error if s belongs to nobody. Round trips as EndAll.
func (m *Manager[T]) EndOthers(ctx context.Context, s *Session[T]) (int, error) {
	if s == nil || s.fresh || !s.origin.ofUser() {
		return 0, errors.New("session: end others: the session belongs to no user")
	}
	found, err := m.indexOf(ctx, s.origin.tag)
	if err != nil {
		return 0, wrap("end others", err)
	}
	found = slices.DeleteFunc(found, func(other indexed) bool { return other.digest == s.at.digest })
	return m.endEach(ctx, s.origin.tag, found, s.at.digest)
}

func (m *Manager[T]) endEach(ctx context.Context, tag string, found []indexed, but ...string) (ended int, err error) {
	for range hops {
		var calls []script.Call
		for part := range slices.Chunk(found, batch) {
			for _, s := range part {
				m.hints.forget(s.digest)
				m.local.drop(place{tag, s.digest})
				calls = append(calls, m.sweep.unregister(place{tag, s.digest})...)
			}
			keys := append([]string{m.keys.user(tag)}, m.sessionKeys(tag, part)...)
			calls = append(calls, script.Call{Script: endAll, Keys: keys, Args: []string{m.gone}})
		}
		replies := m.Execs(ctx, calls...)
		for _, s := range found {
			m.local.drop(place{tag, s.digest})
			m.cfg.Hooks.Ended(s.digest)
			m.cfg.Hooks.Written(1)
		}
		found = nil
		for i, reply := range replies {
			if calls[i].Script != endAll {
				if err := reply.Error(); err != nil {
					return ended, wrap("end all", err)
				}
				continue
			}
			more, err := reply.ToArray()
			if err != nil || len(more) == 0 {
				return ended, wrap("end all", errors.Join(err))
			}
			n, err := more[0].AsInt64()
			if err != nil {
				return ended, wrap("end all", err)
			}
			ended += int(n)
			for _, to := range more[1:] {
				text, _ := to.ToString()
				if at, ok := parsePlace(text); ok && at.tag == tag && !slices.Contains(but, at.digest) {
					found = append(found, indexed{digest: at.digest})
				}
			}
		}
		if len(found) == 0 {
			return ended, nil
		}
	}
	return ended, nil
}

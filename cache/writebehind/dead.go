package writebehind

import (
	"context"
	_ "embed"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

//go:embed replay.lua
var replayLua string

var replayScript = script.New(replayLua)

// DeadLetter is a write that the origin would not take. There is one for each key at most, of its newest such write;
// it goes when a newer write of the key is done.
type DeadLetter[V any] struct {
	Write[V]
	// Reason is what the last error said, up to 300 bytes of it.
	Reason string
	// Tries is how many calls the write has failed.
	Tries int
	// Died is when it became a dead letter, by the server's clock.
	Died time.Time
	// Err says that the value can't be read as a V; then Value is the zero one.
	Err error
}

// DeadLetters yields all dead letters, in no order: a round trip for about a hundred, and one for each partition. Those that
// come or go meanwhile may be missing, or come twice. An error ends it; breaking off is fine.
func (s *Store[V]) DeadLetters(ctx context.Context) iter.Seq2[DeadLetter[V], error] {
	return func(yield func(DeadLetter[V], error) bool) {
		for p := range s.cfg.Partitions {
			at := &s.keys.places[p]
			for key, text := range s.scan(ctx, p, at.dead) {
				if text.err != nil {
					yield(DeadLetter[V]{}, fmt.Errorf("writebehind: dead letters: %w", text.err))
					return
				}
				if !yield(s.letter(at, key, text.text), nil) {
					return
				}
			}
		}
	}
}

func (s *Store[V]) letter(at *places, key, text string) DeadLetter[V] {
	d := DeadLetter[V]{Write: Write[V]{Key: key}}
	l, err := parseLetter(text)
	if err != nil {
		d.Err = err
		return d
	}
	d.Version, d.token, d.Reason, d.Tries, d.Died = l.version, newToken(at.tag, key, l.version), l.reason, int(l.tries), time.UnixMilli(l.when)
	e, err := parseEntry(l.value)
	if d.Deleted = e.deleted; err == nil && !e.deleted {
		d.Value, err = s.decodeBody(e.body)
	}
	d.Err = err
	return d
}

type scanned struct {
	text string
	err  error
}

// scan yields the fields of a hash of a partition.
func (s *Store[V]) scan(ctx context.Context, p int, hash string) iter.Seq2[string, scanned] {
	return func(yield func(string, scanned) bool) {
		for cursor := uint64(0); ; {
			cmd := s.way.Client.B().Hscan().Key(hash).Cursor(cursor).Count(100).Build()
			reply, err := s.way.Do(ctx, hash, cmd).AsScanEntry()
			if err != nil {
				yield("", scanned{err: err})
				return
			}
			for i := 0; i+1 < len(reply.Elements); i += 2 {
				if !yield(reply.Elements[i], scanned{text: reply.Elements[i+1]}) {
					return
				}
			}
			if cursor = reply.Cursor; cursor == 0 {
				return
			}
		}
	}
}

// Replay writes the dead letter of a key again, at once, with its version: an origin that compares versions drops it if
// it has a newer one. If a newer write of the key waits, the letter goes and that write stays. Done is false if there is
// no dead letter of that version; version zero means any. One round trip.
func (s *Store[V]) Replay(ctx context.Context, key string, version int64) (done bool, err error) {
	return s.settleLetter(ctx, "replay", key, version, "1")
}

// Discard throws the dead letter of a key away; done is as Replay has it. One round trip.
func (s *Store[V]) Discard(ctx context.Context, key string, version int64) (done bool, err error) {
	return s.settleLetter(ctx, "discard", key, version, "0")
}

func (s *Store[V]) settleLetter(ctx context.Context, op, key string, version int64, again string) (bool, error) {
	which := ""
	if version != 0 {
		which = strconv.FormatInt(version, 10)
	}
	p := s.keys.partition(key)
	at := &s.keys.places[p]
	keys := []string{at.value(key), at.log, at.due, at.dead, at.fill(key)}
	n, err := s.way.Exec(ctx, replayScript, keys, key, which, again).AsInt64()
	if err != nil {
		return false, fmt.Errorf("writebehind: %s: %w", op, err)
	}
	return n != 0, nil
}

// Waiting is a key that waits for the origin.
type Waiting struct {
	Key string
	// Since is when the first write of its window came, by the server's clock.
	Since time.Time
	// Bytes is what the largest of its values took.
	Bytes int64
	// AtOrigin says that a call of Origin has it just now.
	AtOrigin bool
	// Tries is how many calls it has failed, Counted how many of them count towards Config.Attempts.
	Tries, Counted int
	// Reason is what the last error said, up to 300 bytes of it.
	Reason string
}

// Waiting yields all keys that wait, as [Store.DeadLetters] does letters.
func (s *Store[V]) Waiting(ctx context.Context) iter.Seq2[Waiting, error] {
	return func(yield func(Waiting, error) bool) {
		for p := range s.cfg.Partitions {
			for key, text := range s.scan(ctx, p, s.keys.places[p].log) {
				if text.err != nil {
					yield(Waiting{}, fmt.Errorf("writebehind: waiting: %w", text.err))
					return
				}
				key, isKey := strings.CutPrefix(key, ".")
				if text.err == nil && !isKey {
					continue // a count
				}
				e, err := parseState(text.text)
				if err != nil {
					err = fmt.Errorf("writebehind: waiting: %w", err)
				}
				w := Waiting{key, time.UnixMilli(e.since), e.size, e.flight != 0, int(e.tries), int(e.fails), e.reason}
				if !yield(w, err) || err != nil {
					return
				}
			}
		}
	}
}

// Stats are the counts of a store, over all partitions.
type Stats struct {
	// Waiting is how many keys wait for the origin, those included that are there just now: AtOrigin.
	Waiting, AtOrigin int64
	// Late is for how long the key that has waited longest is overdue, by the server's clock. Zero if none is.
	Late time.Duration
	// Dead is how many dead letters there are.
	Dead int64
	// Done is how many writes the origin has taken since the store began, and Died how many became dead letters.
	Done, Died int64
	// Drained is how many partitions somebody drains.
	Drained int
}

// Stats asks for the counts: one round trip to each node, and one for the time.
func (s *Store[V]) Stats(ctx context.Context) (sum Stats, err error) {
	ctx = s.way.Wait.Bounded(ctx)
	var cmds valkey.Commands
	for p := range s.cfg.Partitions {
		cmds = append(cmds, s.counting(p)...)
	}
	each := len(cmds) / s.cfg.Partitions
	clock, err := s.way.Client.Do(ctx, s.way.Client.B().Time().Build()).AsIntSlice()
	if err != nil || len(clock) != 2 {
		return Stats{}, fmt.Errorf("writebehind: stats: the server's time: %w", err)
	}
	replies := s.way.Client.DoMulti(ctx, cmds...)
	for i := 0; i < len(replies); i += each {
		if err := sum.add(replies[i:i+each], clock[0]*1000+clock[1]/1000); err != nil {
			return Stats{}, fmt.Errorf("writebehind: stats: %w", err)
		}
	}
	return sum, nil
}

// counting asks for the counts of a partition.
func (s *Store[V]) counting(p int) []valkey.Completed {
	b, at := s.way.Client.B(), &s.keys.places[p]
	return []valkey.Completed{
		b.Hlen().Key(at.log).Build(), b.Zcard().Key(at.flight).Build(), b.Hlen().Key(at.dead).Build(),
		b.Hmget().Key(at.log).Field("version", "claims", "done", "dead").Build(), b.Exists().Key(at.own).Build(),
		b.Zrange().Key(at.due).Min("0").Max("0").Withscores().Build(),
	}
}

// add counts the replies for one partition.
func (sum *Stats) add(replies []valkey.ValkeyResult, now int64) error {
	for i, field := range []*int64{&sum.Waiting, &sum.AtOrigin, &sum.Dead} {
		n, err := replies[i].AsInt64()
		if err != nil {
			return err
		}
		*field += n
	}
	counts, err := replies[3].ToArray()
	if err != nil {
		return err
	}
	var other int64
	for i, field := range []*int64{&other, &other, &sum.Done, &sum.Died} {
		if i < len(counts) && !counts[i].IsNil() {
			n, err := counts[i].AsInt64()
			if err != nil {
				return err
			}
			*field += n
			sum.Waiting-- // it is no key
		}
	}
	drained, err := replies[4].AsInt64()
	if err != nil {
		return err
	}
	sum.Drained += int(drained)
	first, err := replies[5].AsZScores()
	if err == nil && len(first) > 0 {
		sum.Late = max(sum.Late, time.Duration(now-int64(first[0].Score))*time.Millisecond)
	}
	return err
}

package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed logstats.lua
	logStatsLua string

	logStats = script.New(logStatsLua)
)

// LogStats are the counts of a log, of all partitions together.
type LogStats struct {
	// Entries are in the streams, and Bytes are theirs without what the server adds.
	Entries int64 `json:"entries"`
	Bytes   int64 `json:"bytes"`
	// OldestAge is how long ago the oldest entry was appended; zero if there is none.
	OldestAge time.Duration `json:"oldest_age_ns"`
	// Appended is how many entries ever were, and Dropped how many of them went although a group had not acknowledged them.
	Appended int64 `json:"appended"`
	Dropped  int64 `json:"dropped"`
	// Partitions is how the log was made.
	Partitions int `json:"partitions"`
	// Groups are sorted by their names.
	Groups []GroupStats `json:"groups"`
}

// GroupStats are the counts of a group, of all partitions together.
type GroupStats struct {
	Name string `json:"name"`
	// Lag is how many entries it has not read.
	Lag int64 `json:"lag"`
	// Pending are in the stream, read and not acknowledged; Aside were moved out of it and will be delivered again, or are; Dead are its
	// dead letters.
	Pending int64 `json:"pending"`
	Aside   int64 `json:"aside"`
	Dead    int64 `json:"dead"`
	// Consumers are as the server has them in its streams, and Owned is how many partitions some process has.
	Consumers int64 `json:"consumers"`
	Owned     int64 `json:"owned"`
	// Positions are the ids up to which it has read, by partition.
	Positions []string `json:"positions"`
}

// Stats counts. The error is [ErrNoQueue] if there is no log. One round trip to each node; for the server it costs some microseconds for
// each group.
func (l *Log) Stats(ctx context.Context) (LogStats, error) {
	st, err := l.opened(ctx, true)
	if err != nil {
		return LogStats{}, err
	}
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	calls := make([]script.Call, len(st.parts))
	for i, p := range st.parts {
		calls[i] = script.Call{Script: logStats, Keys: p.keys}
	}
	sum, groups := LogStats{Partitions: len(st.parts)}, map[string]*GroupStats{}
	for i, result := range script.Multi(ctx, l.client, calls...) {
		p, first := st.parts[i], true
		reply, err := l.call(ctx, p, false, func() ([]valkey.ValkeyMessage, error) {
			if first {
				first = false
				if reply, err := result.ToArray(); !isTryAgain(err) {
					return reply, err
				}
			}
			return l.exec(ctx, logStats, p.keys, nil)
		})
		if err == nil {
			err = sum.add(p.index, reply, groups)
		}
		if errors.Is(err, ErrNoQueue) || errors.Is(err, ErrDeleted) {
			return LogStats{}, err
		}
		if err != nil {
			return LogStats{}, fmt.Errorf("queue: stats: %w", err)
		}
	}
	sum.Groups = []GroupStats{}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		sum.Groups = append(sum.Groups, *groups[name])
	}
	return sum, nil
}

// add counts a partition.
func (s *LogStats) add(partition int, reply []valkey.ValkeyMessage, groups map[string]*GroupStats) error {
	var n [6]int64
	for i := range n {
		var err error
		if n[i], err = number(reply, i); err != nil {
			return err
		}
	}
	s.Entries += n[1]
	s.Bytes += n[2]
	s.OldestAge = max(s.OldestAge, time.Duration(n[3])*time.Millisecond)
	s.Appended += n[4]
	s.Dropped += n[5]
	for at := 7; at+7 < len(reply); at += 8 {
		name, err1 := reply[at].ToString()
		position, err2 := reply[at+6].ToString()
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		name = unlabel(name)
		g := groups[name]
		if g == nil {
			g = &GroupStats{Name: name}
			groups[name] = g
		}
		for place, field := range map[int]*int64{1: &g.Lag, 2: &g.Pending, 3: &g.Aside, 4: &g.Dead, 5: &g.Consumers, 7: &g.Owned} {
			v, err := number(reply, at+place)
			if err != nil {
				return err
			}
			*field += v
		}
		g.Positions = append(g.Positions, strconv.Itoa(partition)+":"+position)
	}
	return nil
}

// Stats are those of this group alone.
func (g *Group) Stats(ctx context.Context) (GroupStats, error) {
	all, err := g.log.Stats(ctx)
	if err != nil {
		return GroupStats{}, err
	}
	i, ok := slices.BinarySearchFunc(all.Groups, g.cfg.Name, func(s GroupStats, name string) int { return strings.Compare(s.Name, name) })
	if !ok {
		return GroupStats{}, ErrNoGroup
	}
	return all.Groups[i], nil
}

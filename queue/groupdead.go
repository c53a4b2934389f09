package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed logdead.lua
	logDeadLua string

	logDead = script.New(logDeadLua)
)

// Dead returns up to most of the group's dead letters, 1 to 1,000, oldest first in each partition, and leaves them where they are:
// Delivery.Dead has the reason, and there is no receipt. It ends with the one with which they have 4 MiB or more. A round trip for each
// partition and 100 of them.
func (g *Group) Dead(ctx context.Context, most int) (dead []*Delivery, err error) {
	if most < 1 || most > maxReceive {
		return nil, fmt.Errorf("queue: dead: %d is not from 1 to %d", most, maxReceive)
	}
	st, err := g.log.opened(ctx, true)
	if err != nil {
		return nil, err
	}
	bytes := peekBytes
	for _, p := range st.parts {
		for from := int64(0); len(dead) < most && bytes > 0; {
			page, n, err := g.deadPage(ctx, p, from, min(most-len(dead), maxPage))
			if err != nil {
				return nil, fmt.Errorf("queue: dead: %w", err)
			}
			for _, d := range page {
				bytes -= len(d.Body)
			}
			if dead, from = append(dead, page...), from+n; n == 0 {
				break
			}
		}
	}
	return dead, nil
}

func (g *Group) deadPage(ctx context.Context, p *logPart, from int64, most int) (page []*Delivery, n int64, err error) {
	ctx, cancel := g.log.bounded(ctx)
	defer cancel()
	reply, err := g.log.on(ctx, p, false, logAside, g.label, "dead", strconv.FormatInt(from, 10), strconv.Itoa(most), strconv.Itoa(maxPageBytes))
	if err != nil {
		return nil, 0, err
	}
	if n, err = number(reply, 3); err != nil {
		return nil, 0, err
	}
	for at := 4; at+3 < len(reply); at += 4 {
		id, err1 := reply[at].ToString()
		note, err2 := reply[at+2].ToString()
		blob, err3 := reply[at+3].ToString()
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, 0, err
		}
		d, err := parseEntry(p.index, id, blob)
		if err != nil {
			d.Body, d.Attributes = []byte(blob), nil
		}
		dead := &Dead{Queue: g.log.cfg.Name, Sent: d.Sent}
		dead.Receives, d.FirstReceived, dead.Reason = readNote(note)
		d.Receives, d.Dead = dead.Receives, dead
		page = append(page, d)
	}
	return page, n, nil
}

// Replay delivers dead letters to this group again, as if they were new: those with these ids, or without any all of them. Other
// groups get nothing. It returns how many there were; one that is not among the dead letters counts as none. Entries of the same key that
// came later may have been handled by then. A round trip for each partition and 100 dead letters.
func (g *Group) Replay(ctx context.Context, ids ...string) (n int, err error) {
	return g.bring(ctx, "replay", ids)
}

// Discard deletes dead letters: those with these ids, or without any all of them. Else it is as Replay.
func (g *Group) Discard(ctx context.Context, ids ...string) (n int, err error) {
	return g.bring(ctx, "discard", ids)
}

func (g *Group) bring(ctx context.Context, what string, ids []string) (n int, err error) {
	st, err := g.log.opened(ctx, true)
	if err != nil {
		return 0, err
	}
	of := make([][]string, len(st.parts))
	for _, id := range ids {
		i, at, ok := splitID(id)
		if !ok || i >= len(st.parts) {
			return 0, fmt.Errorf("queue: %s: %.60q is not the id of an entry of this log", what, id)
		}
		of[i] = append(of[i], at)
	}
	for i, p := range st.parts {
		// Those that die again meanwhile are not brought again: there would be no end of it.
		for some, left := of[i], int64(-1); len(ids) == 0 && left != 0 || len(some) > 0; {
			most := int64(maxPage)
			if left > 0 {
				most = min(most, left)
			}
			batch := some[:min(len(some), maxPage)]
			some = some[len(batch):]
			call, cancel := g.log.bounded(ctx)
			reply, err := g.log.on(call, p, false, logDead, append([]string{g.label, what, strconv.FormatInt(most, 10)}, batch...)...)
			cancel()
			if err != nil {
				return n, fmt.Errorf("queue: %s: %w", what, err)
			}
			moved, err1 := number(reply, 1)
			before, err2 := number(reply, 2)
			if err := errors.Join(err1, err2); err != nil {
				return n, fmt.Errorf("queue: %s: %w", what, err)
			}
			n += int(moved)
			if left < 0 {
				left = before
			}
			left = max(0, left-moved)
			if len(ids) == 0 && moved == 0 {
				break
			}
		}
	}
	return n, nil
}

// Pending is an entry that a group has read, or that stands aside for it, and that is not acknowledged.
type Pending struct {
	// ID is the entry's.
	ID string `json:"id"`
	// Consumer is the name of the process that has it; empty for one that stands aside.
	Consumer string `json:"consumer,omitempty"`
	// Idle is for how long, since it was read or counted as delivered last; zero for one that stands aside.
	Idle time.Duration `json:"idle_ns"`
	// Receives is how often it was delivered.
	Receives int `json:"receives"`
	// Aside is set for one that was moved out of the stream: it failed, or was out for GroupConfig.Aside. Reason is why it failed last, and
	// Due when it comes again, if that is to come.
	Aside  bool      `json:"aside"`
	Reason string    `json:"reason,omitempty"`
	Due    time.Time `json:"due,omitzero"`
}

// Pending returns up to most entries of each partition that the group has and has not acknowledged, 1 to 1,000 in the stream and as many
// aside, oldest first. Two round trips for each partition, and one more for each 100 that stand aside.
func (g *Group) Pending(ctx context.Context, most int) (pending []Pending, err error) {
	if most < 1 || most > maxReceive {
		return nil, fmt.Errorf("queue: pending: %d is not from 1 to %d", most, maxReceive)
	}
	st, err := g.log.opened(ctx, true)
	if err != nil {
		return nil, err
	}
	for _, p := range st.parts {
		call, cancel := g.log.bounded(ctx)
		inStream, err := g.pendingIn(call, p, most)
		if err == nil {
			pending = append(pending, inStream...)
			inStream, err = g.pendingAside(call, p, most)
			pending = append(pending, inStream...)
		}
		cancel()
		if err != nil {
			return nil, err
		}
	}
	return pending, nil
}

func (g *Group) pendingIn(ctx context.Context, p *logPart, most int) (pending []Pending, err error) {
	c := g.log.client
	key := g.log.keys.part(g.log.cfg.Name, p.index, "log")
	rows, err := c.Do(ctx, c.B().Xpending().Key(key).Group(g.label).Start("-").End("+").Count(int64(most)).Build()).ToArray()
	if err != nil {
		if isNoGroup(err) {
			return nil, ErrNoGroup
		}
		return nil, fmt.Errorf("queue: pending: %w", err)
	}
	for _, row := range rows {
		fields, err := row.ToArray()
		if err != nil || len(fields) != 4 {
			return nil, fmt.Errorf("queue: pending: the server answered %d values: %w", len(fields), err)
		}
		one := Pending{}
		id, err1 := fields[0].ToString()
		idle, err3 := fields[2].AsInt64()
		receives, err4 := fields[3].AsInt64()
		var err2 error
		one.Consumer, err2 = fields[1].ToString()
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return nil, fmt.Errorf("queue: pending: %w", err)
		}
		one.ID, one.Idle, one.Receives = strconv.Itoa(p.index)+":"+id, time.Duration(idle)*time.Millisecond, int(receives)
		pending = append(pending, one)
	}
	return pending, nil
}

func isNoGroup(err error) bool {
	refused, ok := valkey.IsValkeyErr(err)
	return ok && len(refused.Error()) >= 7 && refused.Error()[:7] == "NOGROUP"
}

func (g *Group) pendingAside(ctx context.Context, p *logPart, most int) (pending []Pending, err error) {
	for from := int64(0); len(pending) < most; {
		reply, err := g.log.on(ctx, p, false, logAside, g.label, "due", strconv.FormatInt(from, 10), strconv.Itoa(min(most-len(pending), maxPage)), strconv.Itoa(maxPageBytes))
		if err != nil {
			return nil, fmt.Errorf("queue: pending: %w", err)
		}
		now, err1 := number(reply, 1)
		n, err2 := number(reply, 3)
		if err := errors.Join(err1, err2); err != nil || n == 0 {
			return pending, err
		}
		for at := 4; at+3 < len(reply); at += 4 {
			id, err1 := reply[at].ToString()
			due, err2 := reply[at+1].AsFloat64()
			note, err3 := reply[at+2].ToString()
			if err := errors.Join(err1, err2, err3); err != nil {
				return nil, fmt.Errorf("queue: pending: %w", err)
			}
			one := Pending{ID: strconv.Itoa(p.index) + ":" + id, Aside: true}
			one.Receives, _, one.Reason = readNote(note)
			if int64(due) > now {
				one.Due = time.UnixMilli(int64(due))
			}
			pending = append(pending, one)
		}
		from += n
	}
	return pending, nil
}

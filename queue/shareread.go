package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed logread.lua
	logReadLua string
	//go:embed logclaim.lua
	logClaimLua string
	//go:embed logaside.lua
	logAsideLua string
	//go:embed logmark.lua
	logMarkLua string

	logRead  = script.New(logReadLua)
	logClaim = script.New(logClaimLua)
	logAside = script.New(logAsideLua)
	logMark  = script.New(logMarkLua)
)

const notInLayout = "the entry is not in the layout"

// entry makes a held of what a script said. What can't be read is a dead letter in the end, since nobody can handle it.
func (s *share) entry(id, blob string) *held {
	d, err := parseEntry(s.part.index, id, blob)
	h := &held{id: id, d: d, bytes: len(blob) + 100}
	h.at, _ = parseID(id)
	if err != nil {
		d.Body, d.Attributes, h.reason = []byte(blob), nil, notInLayout
		s.group.log.log.Error("an entry can't be read", "log", s.group.log.cfg.Name, "id", d.ID, "error", err)
	}
	return h
}

// load brings what was pending or aside when the partition was taken: first of all, so that no key gets out of order. After a read whose
// answer was lost it brings what that one took.
func (s *share) load(ctx context.Context) error {
	end := s.watch()
	defer end()
	if err := s.loadAside(ctx); err != nil {
		return err
	}
	if err := s.claim(ctx, 0); err != nil {
		return err
	}
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	s.loaded, s.ours = true, true
	return nil
}

// watch remembers what is settled until end is called, so that what is loaded meanwhile does not bring it back.
func (s *share) watch() (end func()) {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	s.removed = map[string]bool{}
	return func() {
		s.group.mu.Lock()
		defer s.group.mu.Unlock()
		s.removed = nil
	}
}

// sweep brings, now and then, what nobody has and that was pending for long: others have read it with commands of their own.
func (s *share) sweep(ctx context.Context) error {
	aside := s.group.cfg.Aside
	if time.Since(s.swept) < aside {
		return nil
	}
	s.swept = time.Now()
	end := s.watch()
	defer end()
	return s.claim(ctx, 2*aside) // by then what this process has is out of the stream
}

// claim brings what is pending for some time, a page at a time.
func (s *share) claim(ctx context.Context, idle time.Duration) error {
	for from := "-"; ; {
		reply, err := s.on(ctx, logClaim, s.group.cfg.Consumer, from, strconv.Itoa(maxPage), strconv.FormatInt(idle.Milliseconds(), 10))
		if err != nil {
			return err
		}
		last, full, err := s.claimed(reply)
		if err != nil {
			return err
		}
		at, more := parseID(last)
		if !more {
			return nil
		}
		if full { // the rest when there is room: what others have left is not read before
			s.group.log.log.Warn("more entries are pending than a process holds", "log", s.group.log.cfg.Name, "group", s.group.cfg.Name, "partition", s.part.index)
			if err := s.serveFull(ctx); err != nil {
				return err
			}
		}
		from = at.next().String()
	}
}

// claimed takes a page in; it returns the last id of it if there may be more, and whether this process has as many as it may.
func (s *share) claimed(reply []valkey.ValkeyMessage) (last string, full bool, err error) {
	now, err1 := number(reply, 1)
	missing, err2 := number(reply, 2)
	if err := errors.Join(err1, err2); err != nil || len(reply) < 4 {
		return "", false, fmt.Errorf("queue: the server answered %d values: %w", len(reply), err)
	}
	if last, err = reply[3].ToString(); err != nil {
		return "", false, err
	}
	defer func() { s.missed(missing) }()
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	for at := 4; at+3 < len(reply); at += 4 {
		id, err1 := reply[at].ToString()
		text, err2 := reply[at+1].ToString()
		receives, err3 := number(reply, at+2)
		waited, err4 := number(reply, at+3)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return "", false, err
		}
		if s.entries[id] != nil {
			continue
		}
		h := s.entry(id, text)
		if s.sequence > 0 { // what a read took whose answer was lost is no gap
			s.sequence = max(s.sequence, h.d.Sequence)
		}
		h.receives, h.known = int(receives), int(receives)
		if s.ours && receives > 0 { // nobody was given it
			h.receives--
		}
		h.d.FirstReceived = time.UnixMilli(now - waited)
		s.add(h)
	}
	return last, len(s.entries) >= maxHeld || s.bytes >= maxHeldBytes, nil
}

// serveFull hands out what there is until there is room for another page.
func (s *share) serveFull(ctx context.Context) error {
	for {
		if err := s.mark(ctx); err != nil {
			return err
		}
		s.group.serve()
		s.group.mu.Lock()
		s.expire(time.Now())
		room := len(s.entries) < maxHeld-maxPage && s.bytes < maxHeldBytes
		s.group.mu.Unlock()
		if room {
			return nil
		}
		if s.stopped() {
			return errTaken
		}
		timer := time.NewTimer(20 * time.Millisecond)
		select {
		case <-s.poke:
			timer.Stop()
		case <-s.stop:
			timer.Stop()
		case <-timer.C:
		case <-s.keeper.Context().Done():
			timer.Stop()
		}
	}
}

// on runs a script of the owner's.
func (s *share) on(ctx context.Context, what *script.Script, args ...string) ([]valkey.ValkeyMessage, error) {
	ctx, cancel := s.group.log.bounded(ctx)
	defer cancel()
	return s.group.log.on(ctx, s.part, true, what, append([]string{s.group.label, s.token}, args...)...)
}

// loadAside brings what stands aside and is not here yet.
func (s *share) loadAside(ctx context.Context) error {
	var all []*held
	var replays int64
	for from, first := int64(0), true; ; first = false {
		call, cancel := s.group.log.bounded(ctx)
		reply, err := s.group.log.on(call, s.part, true, logAside, s.group.label, "due", strconv.FormatInt(from, 10), strconv.Itoa(maxPage), strconv.Itoa(maxPageBytes))
		cancel()
		if err != nil {
			return err
		}
		page, err := s.readAside(reply)
		if err != nil {
			return err
		}
		if first {
			replays, _ = number(reply, 2)
		}
		n, err := number(reply, 3)
		if err != nil {
			return err
		}
		if all, from = append(all, page...), from+n; n == 0 {
			break
		}
	}
	slices.SortFunc(all, func(a, b *held) int {
		if a.at.less(b.at) {
			return -1
		}
		return 1
	})
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	for _, h := range all {
		s.add(h)
	}
	s.replays = replays
	return nil
}

func (s *share) readAside(reply []valkey.ValkeyMessage) (all []*held, err error) {
	now, err := number(reply, 1)
	if err != nil {
		return nil, err
	}
	for at := 4; at+3 < len(reply); at += 4 {
		id, err1 := reply[at].ToString()
		due, err2 := reply[at+1].AsFloat64()
		note, err3 := reply[at+2].ToString()
		blob, err4 := reply[at+3].ToString()
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return nil, err
		}
		h := s.entry(id, blob)
		h.aside = true
		var reason string
		h.receives, h.d.FirstReceived, reason = readNote(note)
		h.known = h.receives
		if h.reason == "" {
			h.reason = reason
		}
		h.due = time.Now().Add(time.Duration(int64(due)-now) * time.Millisecond)
		all = append(all, h)
	}
	return all, nil
}

// read brings new entries. When there are fewer than asked for, the server wakes this process when more come.
func (s *share) read(ctx context.Context, n int) error {
	g := s.group
	g.mu.Lock()
	who, woken := g.member.who, s.woken
	g.mu.Unlock()
	began := time.Now()
	reply, err := s.on(ctx, logRead, g.cfg.Consumer, strconv.Itoa(n), who)
	if err != nil {
		g.mu.Lock()
		s.loaded = false // it may have taken some
		g.mu.Unlock()
		return err
	}
	replays, err := number(reply, 2)
	if err != nil {
		return err
	}
	entries, err := s.readNew(reply)
	if err != nil {
		return err
	}
	var missing uint64
	g.mu.Lock()
	for _, h := range entries {
		if last := s.sequence; last > 0 && h.d.Sequence > last+1 {
			missing += h.d.Sequence - last - 1
		}
		if h.d.Sequence > 0 {
			s.sequence = h.d.Sequence
		}
		s.add(h)
	}
	s.dry = len(entries) < n
	s.dryAt, s.heard = began, began.Add(g.member.heard)
	if s.woken != woken { // which may have been for what came behind these
		s.heard = time.Time{}
	}
	s.grown = min(2*s.grown, maxRead)
	stale := replays != s.replays
	g.mu.Unlock()
	s.missed(int64(missing))
	if hook := g.log.cfg.Hooks.Received; hook != nil && len(entries) > 0 {
		bytes := 0
		for _, h := range entries {
			bytes += sizeOf(h.d.Body, h.d.Attributes)
		}
		hook(len(entries), bytes)
	}
	if stale {
		end := s.watch()
		defer end()
		return s.loadAside(ctx)
	}
	return nil
}

func (s *share) readNew(reply []valkey.ValkeyMessage) ([]*held, error) {
	now, err := number(reply, 1)
	if err != nil {
		return nil, err
	}
	entries := make([]*held, 0, (len(reply)-3)/2)
	for at := 3; at+1 < len(reply); at += 2 {
		id, err1 := reply[at].ToString()
		text, err2 := reply[at+1].ToString()
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		h := s.entry(id, text)
		h.known = 1
		h.d.FirstReceived = time.UnixMilli(now)
		entries = append(entries, h)
	}
	return entries, nil
}

// missed tells of entries that were gone before the group had them.
func (s *share) missed(n int64) {
	if n <= 0 {
		return
	}
	if hook := s.group.log.cfg.Hooks.Missed; hook != nil {
		hook(int(n))
	}
	s.group.log.log.Error("entries are gone that the group had not acknowledged: the log is lossy, or somebody else has trimmed it",
		"log", s.group.log.cfg.Name, "group", s.group.cfg.Name, "partition", s.part.index, "entries", n)
}

// mark tells the server that entries are about to be delivered once more, as many as are wanted; those that were delivered too often
// go to the dead letters instead. So a process that dies of an entry again and again is freed of it.
func (s *share) mark(ctx context.Context) error {
	g := s.group
	g.mu.Lock()
	n := min(g.demand()-len(s.ready), maxPage, len(s.unsure))
	if n <= 0 || s.over || !s.loaded && len(s.entries) < maxHeld-maxPage {
		g.mu.Unlock()
		return nil
	}
	batch := slices.Clone(s.unsure[:n])
	var args []string
	var dead []*held
	args = append(args, g.cfg.Consumer)
	var marked []*held
	for _, h := range batch {
		if most := g.cfg.MaxReceives; h.reason == notInLayout || most != NoLimit && h.receives >= most {
			dead = append(dead, h)
			continue
		}
		note := ""
		if h.aside {
			note = h.note(h.receives + 1)
		}
		args = append(args, h.id, strconv.Itoa(h.receives+1), note)
		marked = append(marked, h)
	}
	g.mu.Unlock()
	if len(dead) > 0 {
		if err := s.bury(ctx, dead); err != nil {
			return err
		}
	}
	if len(marked) == 0 {
		return nil
	}
	if _, err := s.on(ctx, logMark, args...); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range marked {
		h.known = h.receives + 1
		if h.stands == standsUnsure && s.entries[h.id] == h {
			s.withdraw(h)
			s.next(h)
		}
	}
	return nil
}

// unmark tells the server, before the partition is given up, of what was counted as delivered and was not.
func (s *share) unmark(ctx context.Context) {
	g := s.group
	g.mu.Lock()
	args := []string{g.cfg.Consumer}
	for _, h := range s.entries {
		if h.known <= h.receives {
			continue
		}
		note := ""
		if h.aside {
			note = h.note(h.receives)
		}
		args = append(args, h.id, strconv.Itoa(h.receives), note)
	}
	g.mu.Unlock()
	for from := 1; from < len(args); from += 3 * maxPage {
		some := append([]string{args[0]}, args[from:min(from+3*maxPage, len(args))]...)
		if _, err := s.on(ctx, logMark, some...); err != nil {
			return // they count as delivered once more than they were
		}
	}
}

// cut is a reason as it is kept.
func cut(reason string) string {
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	return reason
}

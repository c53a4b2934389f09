package queue

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
)

const (
	maxHeld      = 10_000   // entries of a partition that a process has and that are not done
	maxHeldBytes = 64 << 20 // and bytes
	maxPage      = 100      // entries in a call that reads what is pending or aside
	maxPageBytes = 1 << 20
	maxRead      = 256     // entries in a call that reads new ones
	readBytes    = 4 << 20 // and bytes, as far as the sizes of the last ones tell
)

// Where an entry is that a process has.
type standing int

const (
	standsBlocked standing = iota // another one of its key is before it
	standsUnsure                  // next, but the server has to know first that it is delivered once more
	standsReady                   // next
	standsLater                   // it comes again when it is due
	standsOut                     // delivered
)

// held is an entry that a process has: read, and not done.
type held struct {
	share *share
	id    string
	at    entryID
	d     *Delivery // as it was read; deliveries are copies
	bytes int

	stands   standing
	aside    bool // it was moved out of the stream
	receives int  // how often it was delivered
	known    int  // as the server has it: at least receives, else it is not delivered
	nonce    uint64
	reason   string    // why it failed last
	read     time.Time // when this process has got it
	due      time.Time // when it comes again
	until    time.Time // when its delivery ends
	settling bool      // a call that settles it is under way
}

// note is what the server keeps of the deliveries of an entry that stands aside.
func (h *held) note(receives int) string {
	first := int64(0)
	if !h.d.FirstReceived.IsZero() {
		first = h.d.FirstReceived.UnixMilli()
	}
	return strconv.Itoa(receives) + " " + strconv.FormatInt(first, 10) + " " + h.reason
}

func readNote(note string) (receives int, first time.Time, reason string) {
	n, rest, _ := strings.Cut(note, " ")
	ms, reason, _ := strings.Cut(rest, " ")
	receives, _ = strconv.Atoi(n)
	if at, _ := strconv.ParseInt(ms, 10, 64); at > 0 {
		first = time.UnixMilli(at)
	}
	return receives, first, reason
}

// share is a partition that this process owns for a group. Its fields below the line are under the group's mutex.
type share struct {
	group  *Group
	part   *logPart
	token  string
	lease  *lease.Lease
	keeper *lease.Keeper
	poke   chan struct{}
	swept  time.Time     // when it was looked for what nobody has
	stop   chan struct{} // closed when the partition is given up
	done   chan struct{} // closed when run has returned
	settle gather[*settlingEntry]

	// ---
	entries  map[string]*held
	bytes    int
	lanes    map[string][]*held // entries of a key, in order; the first one is next
	ready    []*held
	unsure   []*held
	removed  map[string]bool // ids that were settled while what stands aside was loaded; else nil
	nonce    uint64
	loaded   bool // all that was pending or aside when the partition was taken is here
	ours     bool // it was once: what is pending and not here was given to nobody
	dry      bool // the last read brought fewer than it asked for
	dryAt    time.Time
	heard    time.Time // until when the server wakes this process
	woken    int       // how often it did
	replays  int64     // how often dead letters were replayed, when they were loaded last
	sequence uint64    // of the last entry that was read
	average  int       // bytes of an entry
	grown    int       // how many entries the next call may read at most
	look     time.Time // when something is due or too long out
	draining time.Time // since when it is to be given up; zero if it is not
	kept     time.Time // when that was put off, since handlers kept it for too long
	outs     int       // entries that are delivered
	over     bool
}

func newShare(g *Group, p *logPart, l *lease.Lease, sent time.Time) *share {
	s := &share{
		group: g, part: p, swept: sent, token: l.Token(), lease: l, poke: make(chan struct{}, 1), entries: map[string]*held{}, lanes: map[string][]*held{}, stop: make(chan struct{}), done: make(chan struct{}),
		grown: 16, look: sent.Add(g.cfg.Aside / 2), nonce: uint64(sent.UnixNano()),
	}
	s.settle = gather[*settlingEntry]{most: maxSettle, calls: 2, timeout: g.log.bounded, send: s.settleAll}
	s.keeper = lease.Keep(context.Background(), lease.Keeping{
		TTL: g.cfg.Lease, Sent: sent, Renew: true, Extend: l.Extend, Cause: func(error) error { return ErrNotHeld },
		Ended: func(error) { g.lose(s) },
	})
	return s
}

func (s *share) wakeUp() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// add takes an entry in that was read. It is known under its id already if it was only read again.
func (s *share) add(h *held) {
	if s.over || s.entries[h.id] != nil || s.removed[h.id] {
		return
	}
	h.share, h.read = s, time.Now()
	s.entries[h.id] = h
	s.bytes += h.bytes
	s.average = (7*s.average + h.bytes) / 8
	if h.d.Group == "" {
		s.next(h)
		return
	}
	lane := s.lanes[h.d.Group]
	at := len(lane)
	for at > 0 && h.at.less(lane[at-1].at) && (at > 1 || lane[0].stands != standsOut && lane[0].stands != standsLater) {
		at--
	}
	lane = slices.Insert(lane, at, h)
	s.lanes[h.d.Group] = lane
	if at > 0 {
		return
	}
	if len(lane) > 1 { // what was next is not any more
		s.withdraw(lane[1])
	}
	s.next(h)
}

// withdraw takes an entry out of those that are next.
func (s *share) withdraw(h *held) {
	same := func(other *held) bool { return other == h }
	switch h.stands {
	case standsReady:
		s.ready = slices.DeleteFunc(s.ready, same)
	case standsUnsure:
		s.unsure = slices.DeleteFunc(s.unsure, same)
	case standsBlocked, standsLater, standsOut:
	}
	s.stand(h, standsBlocked)
}

// next lets an entry be delivered that nothing of its key is before.
func (s *share) next(h *held) {
	switch {
	case h.due.After(time.Now()):
		s.stand(h, standsLater)
		s.lookAt(h.due)
	case h.known <= h.receives || h.reason == notInLayout:
		s.stand(h, standsUnsure)
		s.unsure = append(s.unsure, h)
	default:
		s.stand(h, standsReady)
		s.ready = append(s.ready, h)
	}
}

func (s *share) lookAt(at time.Time) {
	if at.Before(s.look) {
		s.look = at
		s.wakeUp()
	}
}

// remove forgets an entry that is done, and lets the next one of its key be delivered.
func (s *share) remove(h *held) {
	if s.entries[h.id] != h {
		return
	}
	delete(s.entries, h.id)
	s.bytes -= h.bytes
	if s.removed != nil {
		s.removed[h.id] = true
	}
	s.withdraw(h)
	if h.d.Group == "" {
		return
	}
	lane := s.lanes[h.d.Group]
	at := slices.Index(lane, h)
	if at < 0 {
		return
	}
	lane = slices.Delete(lane, at, at+1)
	if len(lane) == 0 {
		delete(s.lanes, h.d.Group)
		return
	}
	s.lanes[h.d.Group] = lane
	if at == 0 {
		s.next(lane[0])
	}
}

// deliver hands out an entry that is ready.
func (s *share) deliver(h *held, visibility time.Duration, now time.Time) *Delivery {
	s.stand(h, standsOut)
	h.receives++
	s.nonce++
	h.nonce = s.nonce
	h.until = now.Add(visibility)
	s.lookAt(h.until)
	d := *h.d
	d.Receives = h.receives
	d.Receipt = d.ID + ":" + strconv.FormatUint(h.nonce, 36)
	d.leased, d.owned = now, s.keeper.Context()
	return &d
}

// again lets an entry be delivered once more: at once, or when it is due.
func (s *share) again(h *held, due time.Time) {
	h.due = due
	s.next(h)
}

// stand changes where an entry is.
func (s *share) stand(h *held, now standing) {
	if h.stands == standsOut {
		s.outs--
	}
	if now == standsOut {
		s.outs++
	}
	h.stands = now
}

// expire lets those come again whose time is over, and returns those that have been here for so long that they are to be moved aside.
func (s *share) expire(now time.Time) (aside []*held) {
	if now.Before(s.look) {
		return nil
	}
	s.look = now.Add(s.group.cfg.Aside / 2)
	var due []*held
	for _, h := range s.entries {
		switch {
		case h.settling:
		case h.stands == standsOut && !h.until.After(now), h.stands == standsLater && !h.due.After(now):
			due = append(due, h)
		case h.stands == standsOut && h.until.Before(s.look):
			s.look = h.until
		case h.stands == standsLater && h.due.Before(s.look):
			s.look = h.due
		}
		if !h.aside && !h.settling && now.Sub(h.read) >= s.group.cfg.Aside {
			aside = append(aside, h)
		}
	}
	byID := func(a, b *held) int {
		if a.at.less(b.at) {
			return -1
		}
		return 1
	}
	slices.SortFunc(due, byID)
	for _, h := range due {
		h.nonce = 0 // its receipt counts no more
		s.again(h, time.Time{})
	}
	slices.SortFunc(aside, byID)
	if len(aside) > maxPage { // the others at once after these
		s.look, aside = now, aside[:maxPage]
	}
	return aside
}

// run works on the partition until it is somebody else's.
func (s *share) run() {
	defer close(s.done)
	pause := leastPause
	for {
		err := s.step(s.keeper.Context())
		switch {
		case s.keeper.Context().Err() != nil:
			return
		case errors.Is(err, errTaken):
			s.keeper.End(lease.ErrTaken)
		case errors.Is(err, ErrDeleted), errors.Is(err, ErrNoGroup):
			s.group.fail(err)
		case err != nil:
			s.group.log.log.Warn("a partition could not be read", "log", s.group.log.cfg.Name, "group", s.group.cfg.Name, "partition", s.part.index, "error", err)
			s.group.refuse(err)
			pause = min(2*pause, time.Second)
			select {
			case <-time.After(pause):
			case <-s.stop:
			case <-s.keeper.Context().Done():
			}
		default:
			pause = leastPause
		}
		if err == nil {
			s.sleep()
		}
		if s.stopped() {
			return
		}
	}
}

// sleep waits until there is something to do.
func (s *share) sleep() {
	s.group.mu.Lock()
	until := s.look
	if s.wants() > 0 {
		until = time.Time{}
	}
	if s.dry && s.group.demand() > 0 && s.heard.Before(until) {
		until = s.heard
	}
	if len(s.unsure) > 0 && len(s.ready) == 0 && s.group.demand() > 0 {
		until = time.Time{}
	}
	s.group.mu.Unlock()
	timer := time.NewTimer(max(time.Until(until), 0))
	defer timer.Stop()
	select {
	case <-s.poke:
	case <-timer.C:
	case <-s.stop:
	case <-s.keeper.Context().Done():
	}
}

// stopped says that the partition is given up, or lost.
func (s *share) stopped() bool {
	select {
	case <-s.stop:
		return true
	case <-s.keeper.Context().Done():
		return true
	default:
		return false
	}
}

// wants is how many entries to read now. It is called under the group's mutex.
func (s *share) wants() int {
	if s.over || !s.draining.IsZero() || !s.loaded || len(s.entries) >= maxHeld || s.bytes >= maxHeldBytes {
		return 0
	}
	now := time.Now()
	if s.dry && s.heard.After(now) && !s.group.asked(s.dryAt) {
		return 0
	}
	demand := s.group.demand()
	if len(s.ready)+len(s.unsure) > demand/2 {
		return 0
	}
	fits := readBytes / max(s.average, 1)
	return max(min(demand, s.grown, maxRead, fits, maxHeld-len(s.entries)), min(demand, 1))
}

// step does what there is to do.
func (s *share) step(ctx context.Context) error {
	g := s.group
	if !s.loaded {
		if err := s.load(ctx); err != nil {
			return err
		}
	}
	g.mu.Lock()
	aside := s.expire(time.Now())
	g.mu.Unlock()
	if len(aside) > 0 {
		if err := s.moveAside(ctx, aside); err != nil {
			return err
		}
	}
	if err := s.sweep(ctx); err != nil {
		return err
	}
	if err := s.mark(ctx); err != nil {
		return err
	}
	g.mu.Lock()
	n := s.wants()
	g.mu.Unlock()
	if n > 0 {
		if err := s.read(ctx, n); err != nil {
			return err
		}
	}
	g.log.trimSoon(s.part)
	g.serve()
	return nil
}

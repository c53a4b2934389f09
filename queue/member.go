package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/script"
	"github.com/flatrate/flatrate/internal/wake"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed logjoin.lua
	logJoinLua string
	//go:embed logtake.lua
	logTakeLua string

	logJoin = script.New(logJoinLua)
	logTake = script.New(logTakeLua)
)

const (
	maxDemand = 1024             // entries that a process keeps ready
	lingering = 10 * time.Second // for so long a process keeps its partitions after the last Receive
	slowest   = time.Second      // between two looks at who shares the partitions
)

// asking is a caller of Receive.
type asking struct {
	max        int
	visibility time.Duration
	came       time.Time
	until      time.Time // zero does not wait
	done       chan answer
}

// Receive returns entries, or none if none came within Wait: of the partitions that this process has, which it takes as it needs them and
// as its part among the processes of the group. Each has to be acknowledged within its Visibility, or is delivered again. Entries of
// one key are delivered one after the other: the next one when the one before is acknowledged or dead.
//
// Entries that wait in this process cost no round trip; it reads ahead as many as its callers work on. Without Wait, it answers when
// the server was asked once. ReceiveOptions.Attempt is refused. If ctx ends, entries that were on their way are given back.
func (g *Group) Receive(ctx context.Context, o ReceiveOptions) ([]*Delivery, error) {
	if err := g.checkReceive(&o); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("queue: receive: %w", err)
	}
	if _, err := g.opened(ctx); err != nil {
		return nil, wrap(err)
	}
	req, ds, err := g.ask(o)
	if req == nil {
		return ds, err
	}
	g.prod()
	select {
	case a := <-req.done:
		return a.deliveries, a.err
	case <-ctx.Done():
	}
	g.mu.Lock()
	g.waiting = slices.DeleteFunc(g.waiting, func(other *asking) bool { return other == req })
	g.mu.Unlock()
	select {
	case a := <-req.done: // it was answered at the last moment
		g.giveBack(a.deliveries)
	default:
	}
	return nil, fmt.Errorf("queue: receive: %w", ctx.Err())
}

func (g *Group) checkReceive(o *ReceiveOptions) error {
	if o.Max == 0 {
		o.Max = 1
	}
	if o.Visibility == 0 {
		o.Visibility = g.cfg.Visibility
	}
	switch {
	case o.Max < 1 || o.Max > maxReceive:
		return fmt.Errorf("queue: ReceiveOptions.Max is %d, not from 1 to %d", o.Max, maxReceive)
	case o.Wait < 0 || o.Wait > maxWait:
		return fmt.Errorf("queue: ReceiveOptions.Wait is %v, not from 0 to %v", o.Wait, maxWait)
	case o.Visibility < minVisibility || o.Visibility > maxVisibility:
		return fmt.Errorf("queue: ReceiveOptions.Visibility is %v, not from %v to %v", o.Visibility, minVisibility, maxVisibility)
	case o.Attempt != "":
		return errors.New("queue: ReceiveOptions.Attempt is for FIFO queues")
	}
	return nil
}

// ask takes what is ready, or lets a caller wait.
func (g *Group) ask(o ReceiveOptions) (*asking, []*Delivery, error) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.deleted != nil {
		return nil, nil, g.deleted
	}
	if now.Sub(g.mostAt) > time.Second {
		g.most, g.mostAt = 0, now
	}
	g.called, g.most = now, max(g.most, o.Max)
	if len(g.waiting) == 0 {
		if ds := g.take(o.Max, o.Visibility, now); len(ds) > 0 {
			return nil, ds, nil
		}
	}
	req := &asking{max: o.Max, visibility: o.Visibility, came: now, done: make(chan answer, 1)}
	if o.Wait > 0 {
		req.until = now.Add(o.Wait)
	}
	g.waiting = append(g.waiting, req)
	if !g.running {
		g.running = true
		go g.run()
	}
	for _, s := range g.shares {
		s.wakeUp()
	}
	return req, nil, nil
}

func (g *Group) prod() {
	select {
	case g.poke <- struct{}{}:
	default:
	}
}

// take hands out what is ready, from one partition after the other.
func (g *Group) take(n int, visibility time.Duration, now time.Time) (ds []*Delivery) {
	g.turn++
	for i := range g.shares {
		s := g.shares[(g.turn+i)%len(g.shares)]
		if s.over || !s.draining.IsZero() {
			continue
		}
		k := min(n-len(ds), len(s.ready))
		for _, h := range s.ready[:k] {
			ds = append(ds, s.deliver(h, visibility, now))
		}
		if s.ready = s.ready[k:]; len(s.ready) == 0 {
			s.ready = nil
		}
		if k > 0 && len(s.ready) <= s.outs/2 {
			s.wakeUp() // it reads on while these are handled
		}
		if len(ds) == n {
			break
		}
	}
	return ds
}

// demand is how many entries callers want or work on. It is called under the mutex, as asked is.
func (g *Group) demand() int {
	n := 0
	for _, req := range g.waiting {
		n += req.max
	}
	if n == 0 && time.Since(g.called) > time.Second {
		return 0
	}
	for _, s := range g.shares {
		n += s.outs
	}
	return min(max(n, g.most, 1), maxDemand)
}

// asked says whether somebody who does not wait has come after a time.
func (g *Group) asked(after time.Time) bool {
	return slices.ContainsFunc(g.waiting, func(req *asking) bool { return req.until.IsZero() && !req.came.Before(after) })
}

// serve answers callers: with what is ready, or that there is nothing.
func (g *Group) serve() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.waiting = slices.DeleteFunc(g.waiting, func(req *asking) bool {
		ds := g.take(req.max, req.visibility, now)
		switch {
		case len(ds) > 0:
		case req.until.IsZero():
			if !g.knows(req.came, now) {
				return false
			}
		case req.until.After(now):
			return false
		}
		req.done <- answer{ds, nil}
		return true
	})
}

// knows says whether the server was asked since a caller came.
func (g *Group) knows(since, now time.Time) bool {
	if g.balanced.IsZero() || g.balanced.Before(since) && now.Sub(g.balanced) > 2*g.beat() {
		return false
	}
	for _, s := range g.shares {
		if !s.over && s.draining.IsZero() && (!s.loaded || !s.dry || s.dryAt.Before(since) || len(s.unsure) > 0) && len(s.entries) < maxHeld {
			return false
		}
	}
	return true
}

// refuse tells all callers of an error.
func (g *Group) refuse(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, req := range g.waiting {
		req.done <- answer{nil, wrap(err)}
	}
	g.waiting = nil
}

// fail ends it: the group, or its log, was deleted. If the server has lost the group with the log, it is made anew like that.
func (g *Group) fail(err error) {
	g.mu.Lock()
	if st := g.log.state.Load(); errors.Is(err, ErrNoGroup) && (st == nil || st.created != g.made) {
		shares := slices.Clone(g.shares)
		g.mu.Unlock()
		for _, s := range shares {
			s.keeper.End(lease.ErrGone)
		}
		return
	}
	if g.deleted == nil {
		g.deleted = err
	}
	shares := slices.Clone(g.shares)
	for _, req := range g.waiting {
		req.done <- answer{nil, err}
	}
	g.waiting = nil
	g.mu.Unlock()
	for _, s := range shares {
		s.keeper.End(lease.ErrGone)
	}
	g.prod()
}

// lose forgets a partition that this process has no longer: what was delivered of it is somebody else's.
func (g *Group) lose(s *share) {
	g.mu.Lock()
	s.over = true
	g.shares = slices.DeleteFunc(g.shares, func(other *share) bool { return other == s })
	g.lost = true
	g.mu.Unlock()
	g.prod()
	select {
	case <-s.stop: // release drops the lease
	default:
		go func() { // it may be there yet, and would keep others out
			ctx, cancel := g.log.bounded(context.Background())
			defer cancel()
			_, _ = s.lease.Drop(ctx)
		}()
	}
}

// run shares the partitions with other processes while somebody receives.
func (g *Group) run() {
	ctx, cancel := g.log.bounded(context.Background())
	w := wake.Join(ctx, g.log.client, g.log.prefix, g.id)
	cancel()
	defer w.Leave()
	var m membership
	m.who = w.Channel() + " " + g.id
	next := time.Now()
	for {
		g.mu.Lock()
		m.heard = w.Fallback()
		g.member = m
		g.mu.Unlock()
		if g.ended(&m) {
			return
		}
		g.mu.Lock()
		lost := g.lost && len(g.waiting) > 0
		g.lost = g.lost && !lost
		g.mu.Unlock()
		if lost || !time.Now().Before(next) {
			next = g.balance(&m)
		}
		g.serve()
		timer := time.NewTimer(max(0, time.Until(g.until(next))))
		select {
		case <-w.Woken:
			if g.woken() {
				next = time.Now()
			}
		case <-g.poke:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// membership is what this process knows of who shares the partitions.
type membership struct {
	who    string   // channel and id by which it is woken
	others []string // those of the others
	heard  time.Duration
	lacks  bool // it could have more partitions
}

// ended gives everything up if nobody receives any more, or the group is closed or deleted.
func (g *Group) ended(m *membership) bool {
	g.mu.Lock()
	idle := len(g.waiting) == 0 && time.Since(g.called) > lingering
	for _, s := range g.shares {
		idle = idle && s.outs == 0
	}
	if g.closing == nil && !idle && g.deleted == nil {
		g.mu.Unlock()
		return false
	}
	shares := slices.Clone(g.shares)
	gone := g.deleted != nil
	g.mu.Unlock()
	for _, s := range shares {
		g.release(s, m)
	}
	if !gone {
		ctx, cancel := g.log.bounded(context.Background())
		defer cancel()
		if st := g.log.state.Load(); st != nil {
			_, _ = g.log.on(ctx, st.parts[0], false, logJoin, g.label, m.who, "0") // else it ends by itself
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing != nil { // also one that has come meanwhile: nothing is left for it to give up
		close(g.closing)
		g.closing = nil
	}
	if len(g.waiting) > 0 { // somebody has come meanwhile
		return false
	}
	g.running = false
	return true
}

// release gives a partition up, and tells the others.
func (g *Group) release(s *share, m *membership) {
	g.mu.Lock()
	s.draining = time.Now() // nothing of it is delivered any more
	g.mu.Unlock()
	close(s.stop)
	<-s.done // what it reads is here then, so that it can be told that nobody had it
	s.keeper.End(lease.ErrReleased)
	ctx, cancel := g.log.bounded(context.Background())
	defer cancel()
	s.unmark(ctx)
	if dropped, _ := s.lease.Drop(ctx); dropped {
		g.tell(ctx, m.others)
	}
}

// tell wakes other processes of the group: there may be a partition for them.
func (g *Group) tell(ctx context.Context, others []string) {
	c := g.log.client
	cmds := make(valkey.Commands, 0, len(others))
	for _, other := range others {
		if channel, id, ok := cutLast(other, ' '); ok {
			cmds = append(cmds, c.B().Publish().Channel(channel).Message(id).Build())
		}
	}
	if len(cmds) > 0 {
		c.DoMulti(ctx, cmds...)
	}
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == sep {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func (g *Group) beat() time.Duration { return min(g.cfg.Lease/4, slowest) }

// until is when to look again: at the next beat, or when a caller waits no longer.
func (g *Group) until(next time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, req := range g.waiting {
		if !req.until.IsZero() && req.until.Before(next) {
			next = req.until
		}
	}
	return next
}

// woken lets all partitions be read, and says whether this process lacks some.
func (g *Group) woken() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.shares {
		s.heard = time.Time{}
		s.woken++
		s.wakeUp()
	}
	return g.member.lacks
}

// balance tells the server that this process takes part, and sees to it that it has its part of the partitions. It returns when to do so
// again.
func (g *Group) balance(m *membership) time.Time {
	began := time.Now()
	next := began.Add(g.beat())
	ctx, cancel := g.log.bounded(context.Background())
	defer cancel()
	err := g.share(ctx, m, &next)
	switch {
	case errors.Is(err, ErrDeleted), errors.Is(err, ErrNoGroup):
		g.fail(err)
	case err != nil:
		g.log.log.Warn("partitions could not be shared", "log", g.log.cfg.Name, "group", g.cfg.Name, "error", err)
		g.refuse(err)
		return time.Now().Add(g.beat())
	}
	g.mu.Lock()
	g.balanced = began
	g.mu.Unlock()
	return next
}

func (g *Group) share(ctx context.Context, m *membership, next *time.Time) error {
	st, err := g.opened(ctx)
	if err != nil {
		return err
	}
	ttl := strconv.FormatInt((g.cfg.Lease * 2 / 3).Milliseconds(), 10)
	reply, err := g.log.on(ctx, st.parts[0], true, logJoin, g.label, m.who, ttl)
	if err != nil {
		return err
	}
	m.others = m.others[:0]
	for _, one := range reply[1:] {
		if who, err := one.ToString(); err == nil && who != m.who {
			m.others = append(m.others, who)
		}
	}
	members := len(m.others) + 1
	target := (len(st.parts) + members - 1) / members
	for _, s := range g.surplus(target) {
		g.release(s, m)
	}
	g.mu.Lock()
	has := map[int]bool{}
	for _, s := range g.shares {
		has[s.part.index] = true
	}
	g.mu.Unlock()
	m.lacks = len(has) < target
	if !m.lacks {
		return nil
	}
	free, err := g.free(ctx, st, has, next)
	if err != nil {
		return err
	}
	for _, p := range free[:min(len(free), target-len(has))] {
		sent := time.Now()
		l := g.log.leases.At(g.ownKey(p), lease.NewToken())
		// If the answer is lost, nobody has it until its time is over.
		ok, err := insist(ctx, func() (bool, error) {
			return logTake.Exec(ctx, g.log.client, []string{g.ownKey(p)}, l.Token(), strconv.FormatInt(g.cfg.Lease.Milliseconds(), 10)).AsBool()
		})
		if err != nil {
			return fmt.Errorf("queue: a partition's lease: %w", err)
		}
		if !ok {
			continue
		}
		s := newShare(g, p, l, sent)
		g.mu.Lock()
		if !s.over { // the answer may have come too late
			g.shares = append(g.shares, s)
		}
		g.mu.Unlock()
		go s.run()
	}
	return nil
}

func (g *Group) ownKey(p *logPart) string {
	return g.log.keys.part(g.log.cfg.Name, p.index, "own:"+g.label)
}

// surplus returns partitions to give up, of which nothing is delivered; it stops deliveries of as many as are too many. If
// handlers keep one for long, it goes on.
func (g *Group) surplus(target int) (release []*share) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	byOuts := slices.Clone(g.shares)
	slices.SortFunc(byOuts, func(a, b *share) int { return a.outs - b.outs })
	left := len(byOuts) - target
	for _, s := range byOuts {
		if left <= 0 {
			s.draining = time.Time{}
			continue
		}
		left--
		switch {
		case s.outs == 0:
			s.draining = now
			release = append(release, s)
		case s.draining.IsZero():
			if now.Sub(s.kept) > 20*g.cfg.Lease { // else it would hardly deliver anything while a handler takes long
				s.draining = now
			}
		case now.Sub(s.draining) > 2*g.cfg.Lease:
			s.draining, s.kept = time.Time{}, now
			s.wakeUp()
		}
	}
	return release
}

// free returns partitions that nobody has, from a random one on, and looks again when the first lease of another may end.
func (g *Group) free(ctx context.Context, st *logState, has map[int]bool, next *time.Time) (free []*logPart, err error) {
	c := g.log.client
	var parts []*logPart
	var cmds valkey.Commands
	first := int(hashOf(g.id) % uint64(len(st.parts)))
	for i := range st.parts {
		if p := st.parts[(first+i)%len(st.parts)]; !has[p.index] {
			parts = append(parts, p)
			cmds = append(cmds, c.B().Pttl().Key(g.ownKey(p)).Build())
		}
	}
	now := time.Now()
	for i, result := range c.DoMulti(ctx, cmds...) {
		ms, err := result.AsInt64()
		switch {
		case err != nil:
			return nil, fmt.Errorf("queue: a partition's lease: %w", err)
		case ms == -2:
			free = append(free, parts[i])
		default:
			if at := now.Add(time.Duration(ms)*time.Millisecond + time.Millisecond); at.Before(*next) {
				*next = at
			}
		}
	}
	return free, nil
}

// Close gives up what this process has: its partitions are another's at once. What was delivered and is not acknowledged comes again, there
// or here. A later Receive takes partitions anew. [Consumer.Run] does so at its end, the last one of several of this Group.
func (g *Group) Close(ctx context.Context) error {
	g.mu.Lock()
	if !g.running {
		g.mu.Unlock()
		return nil
	}
	for _, req := range g.waiting {
		req.done <- answer{nil, errors.New("queue: receive: the group was closed")}
	}
	g.waiting = nil
	if g.closing == nil {
		g.closing = make(chan struct{})
	}
	closing := g.closing
	g.mu.Unlock()
	g.prod()
	select {
	case <-closing:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("queue: close: %w", ctx.Err())
	}
}

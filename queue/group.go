package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed loggroup.lua
	logGroupLua string

	logGroup = script.New(logGroupLua)
)

// Defaults of [GroupConfig].
const (
	DefaultLease = 5 * time.Second
	DefaultAside = time.Minute
)

// Position is a place in a log. The zero value is its beginning.
type Position struct {
	// ID is that of an entry: the group begins with the one behind it, in that one's partition; the others keep their position. A new
	// group can't begin there.
	ID string
	// Time is when: the group begins with the first entry that was appended then or later, by the server's clock.
	Time time.Time
	// End is behind the last entry.
	End bool
}

func (p Position) check(partitions int) (partition int, id string, err error) {
	switch {
	case p.ID != "" && (p.End || !p.Time.IsZero()), p.End && !p.Time.IsZero():
		return 0, "", errors.New("queue: a Position has one of ID, Time and End")
	case p.End:
		return -1, "$", nil
	case !p.Time.IsZero():
		ms := p.Time.UnixMilli()
		if ms <= 0 {
			return -1, "0", nil
		}
		return -1, strconv.FormatInt(ms-1, 10) + "-18446744073709551615", nil
	case p.ID == "":
		return -1, "0", nil
	}
	i, id, ok := splitID(p.ID)
	if !ok || i >= partitions {
		return 0, "", fmt.Errorf("queue: Position.ID is %.60q, not the id of an entry of this log", p.ID)
	}
	return i, id, nil
}

// splitID takes the id of an entry apart.
func splitID(text string) (partition int, id string, ok bool) {
	for i := range len(text) {
		if text[i] == ':' {
			n, err := strconv.ParseUint(text[:i], 10, 16)
			at, fine := parseID(text[i+1:])
			if err != nil || !fine || strconv.FormatUint(n, 10) != text[:i] || at.String() != text[i+1:] {
				return 0, "", false
			}
			return int(n), text[i+1:], true
		}
	}
	return 0, "", false
}

// GroupConfig says which group of a log, and how this process takes part in it. Name has no default. Only the group's position is kept
// in the server: processes of a group should have the same GroupConfig.
type GroupConfig struct {
	// Name is 1 to 128 bytes.
	Name string
	// Start is where the group begins if it is not there yet: by default with the oldest entry that there is.
	Start Position
	// MaxReceives is after how many deliveries an entry that was not acknowledged goes to the dead letters. Default 5;
	// [NoLimit] lets it come again for ever, and then its key waits for it.
	MaxReceives int
	// Visibility is how long a delivery may take if Receive does not say: 10 ms to 12 h. Default 30 s.
	Visibility time.Duration
	// Lease is after how long the partitions of a process that died are another's: 100 ms to 5 min. It is renewed every third of that.
	// Default 5 s.
	Lease time.Duration
	// Aside is after how long an entry that was read and is not done is moved out of the stream, where it would keep all that
	// came after it: 10 ms to 12 h. It stays the group's as it was. Default 1 min.
	Aside time.Duration
	// Consumer is this process's name in the server, for those who look there: 1 to 128 bytes. Several may have the same one: who
	// has a partition is decided by its lease alone. By default a random one.
	Consumer string
}

// Group is one group of readers of a log, as this process takes part in it. It is safe for concurrent use.
//
// Each partition has one owner among the processes of a group: the one that has its lease. It reads the partition, and hands out its
// entries. Processes that come and go share the partitions anew. What this process has is given up when nobody has received for
// ten seconds, or by [Group.Close].
type Group struct {
	log   *Log
	cfg   GroupConfig
	label string // the group's name, as it stands in keys
	id    string // by which the server wakes this process
	poke  chan struct{}

	opening chan struct{} // full while somebody opens it

	mu       sync.Mutex
	made     string // the incarnation of the log for which the group was made
	deleted  error  // why nobody can receive any more: ErrNoGroup or ErrDeleted
	waiting  []*asking
	shares   []*share
	running  bool
	closing  chan struct{} // not nil while Close waits
	called   time.Time     // when somebody has received last
	most     int           // how many somebody wanted at a time, in the last second or two
	mostAt   time.Time
	balanced time.Time // when the last round of sharing began
	turn     int       // whose share is first
	lost     bool      // a partition, since the last round
	users    int       // consumers that run
	member   membership
}

// Group returns a group of l. Nothing is sent: the first call makes the group if it is not there, or [Group.Open] does. The error names
// the field of cfg that is wrong.
func (l *Log) Group(cfg GroupConfig) (*Group, error) {
	if cfg.MaxReceives == 0 {
		cfg.MaxReceives = DefaultMaxReceives
	}
	if cfg.Visibility == 0 {
		cfg.Visibility = DefaultVisibility
	}
	if cfg.Lease == 0 {
		cfg.Lease = DefaultLease
	}
	if cfg.Aside == 0 {
		cfg.Aside = DefaultAside
	}
	if cfg.Consumer == "" {
		cfg.Consumer = "flatrate-" + rand.Text()[:10]
	}
	switch {
	case cfg.Name == "" || len(cfg.Name) > maxLabel:
		return nil, fmt.Errorf("queue: GroupConfig.Name has %d bytes, not 1 to %d", len(cfg.Name), maxLabel)
	case len(cfg.Consumer) > maxLabel:
		return nil, fmt.Errorf("queue: GroupConfig.Consumer has %d bytes, over %d", len(cfg.Consumer), maxLabel)
	case cfg.MaxReceives < NoLimit || cfg.MaxReceives > 1e6:
		return nil, fmt.Errorf("queue: GroupConfig.MaxReceives is %d, not from 1 to a million, NoLimit, or zero", cfg.MaxReceives)
	case cfg.Start.ID != "":
		return nil, errors.New("queue: GroupConfig.Start has an ID: a new group begins at a time, at the beginning or at the end")
	}
	if _, _, err := cfg.Start.check(maxPartitions); err != nil {
		return nil, fmt.Errorf("%w (GroupConfig.Start)", err)
	}
	for _, err := range []error{
		span("GroupConfig.Visibility", cfg.Visibility, minVisibility, maxVisibility),
		span("GroupConfig.Lease", cfg.Lease, 100*time.Millisecond, 5*time.Minute),
		span("GroupConfig.Aside", cfg.Aside, 10*time.Millisecond, maxVisibility),
	} {
		if err != nil {
			return nil, err
		}
	}
	return &Group{
		log: l, cfg: cfg, label: label(cfg.Name), id: rand.Text()[:16], poke: make(chan struct{}, 1), opening: make(chan struct{}, 1),
	}, nil
}

// Name is the group's name.
func (g *Group) Name() string { return g.cfg.Name }

// Log is the group's log.
func (g *Group) Log() *Log { return g.log }

// Open makes the group if it is not there: in each partition it begins at GroupConfig.Start. Every other call does so once by itself, but
// those that look at it, and Seek and Delete. After [ErrNoGroup] or [ErrDeleted] the group is made again only by Open. It opens the log
// too, and takes a round trip for each partition. A log has up to 100 groups.
func (g *Group) Open(ctx context.Context) error {
	select {
	case g.opening <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("queue: open: %w", ctx.Err())
	}
	defer func() { <-g.opening }()
	g.mu.Lock()
	wasDeleted := errors.Is(g.deleted, ErrDeleted) || g.log.deleted.Load()
	g.mu.Unlock()
	if wasDeleted {
		if err := g.log.Open(ctx); err != nil {
			return err
		}
	}
	s, err := g.log.opened(ctx, false)
	if err != nil {
		return err
	}
	if err := g.make(ctx, s); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.made, g.deleted = s.created, nil
	return nil
}

// opened returns the log's state, and makes the group if nobody has, or if the server has lost the log that it was made for.
func (g *Group) opened(ctx context.Context) (*logState, error) {
	g.mu.Lock()
	gone := g.deleted
	g.mu.Unlock()
	if gone != nil {
		return nil, gone
	}
	s, err := g.log.opened(ctx, false)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	made := g.made
	g.mu.Unlock()
	if made == s.created {
		return s, nil
	}
	select {
	case g.opening <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("queue: open: %w", ctx.Err())
	}
	defer func() { <-g.opening }()
	if err := g.make(ctx, s); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.made = s.created
	return s, nil
}

func (g *Group) make(ctx context.Context, s *logState) error {
	_, id, err := g.cfg.Start.check(len(s.parts))
	if err != nil {
		return err
	}
	for _, p := range s.parts {
		if err := g.change(ctx, p, true, "make", id); err != nil {
			return err
		}
	}
	return nil
}

// change makes a group of a partition, sets its position, or deletes it.
func (g *Group) change(ctx context.Context, p *logPart, makes bool, what, id string) error {
	ctx, cancel := g.log.bounded(ctx)
	defer cancel()
	reply, err := g.log.call(ctx, p, makes, func() ([]valkey.ValkeyMessage, error) {
		return g.log.exec(ctx, logGroup, p.keys, []string{g.label, what, id, strconv.Itoa(maxGroups)})
	})
	switch {
	case errors.Is(err, ErrNoGroup), errors.Is(err, ErrNoQueue), errors.Is(err, ErrDeleted):
		return err
	case err != nil:
		return fmt.Errorf("queue: %s of the group: %w", what, err)
	}
	switch code, _ := number(reply, 0); code {
	case -5:
		last := "nothing"
		if len(reply) > 1 {
			last, _ = reply[1].ToString()
		}
		return fmt.Errorf("%w: %s, and the last entry of partition %d is %s", ErrFuture, id, p.index, last)
	case -6:
		return fmt.Errorf("queue: the log has %d groups, which is as many as there may be", maxGroups)
	}
	return nil
}

// Seek sets the group's position: what comes from there on is delivered, again if it was before. What the group has read and
// not acknowledged is forgotten, wherever it stands, but for its dead letters; receipts of before don't count any more, and handlers that
// run lose their messages. The error is [ErrFuture] for an id that the log has not reached, or a time to come, [ErrNoGroup] or
// [ErrNoQueue]. With an ID one round trip, else one for each partition; where one fails, those before it have the new position.
func (g *Group) Seek(ctx context.Context, to Position) error {
	s, err := g.log.opened(ctx, true)
	if err != nil {
		return err
	}
	at, id, err := to.check(len(s.parts))
	if err != nil {
		return err
	}
	for i, p := range s.parts {
		if at >= 0 && at != i {
			continue
		}
		if err := g.change(ctx, p, false, "seek", id); err != nil {
			return err
		}
	}
	return nil
}

// Delete deletes the group, its dead letters too, and what stands aside for it. Processes that receive for it get [ErrNoGroup]. It is no
// error for the group to be deleted in some partitions already; in all of them it is ErrNoGroup. A round trip for each partition.
func (g *Group) Delete(ctx context.Context) error {
	s, err := g.log.opened(ctx, true)
	if err != nil {
		return err
	}
	missing := 0
	for _, p := range s.parts {
		err := g.change(ctx, p, false, "delete", "")
		if errors.Is(err, ErrNoGroup) {
			missing++
		} else if err != nil {
			return err
		}
	}
	g.mu.Lock()
	g.made = s.created
	g.mu.Unlock()
	g.fail(ErrNoGroup)
	if missing == len(s.parts) {
		return ErrNoGroup
	}
	return nil
}

package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/flatrate/flatrate/internal/server"
	"github.com/valkey-io/valkey-go"
)

const (
	batchKeys       = 100 // pipelines of thousands of commands cost the server twice the time of short ones (measured)
	checkpointEvery = 5 * time.Second
)

// Scan looks at the server or the cluster of client, at the database that client has selected. It returns
// what it has seen beside an error that ends it early, if that is anything.
//
// For each batch of 100 keys it makes two round trips, and up to two more if there are collections among
// them. Only primaries are asked. Keys written or deleted meanwhile may be counted or not, as with SCAN; keys
// that a cluster moves are counted at most on each side, and make the report incomplete.
func Scan(ctx context.Context, client valkey.Client, cfg Config) (Report, error) {
	if client == nil {
		return Report{}, fmt.Errorf("%w: client is nil", ErrConfig)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Report{}, err
	}
	info, err := server.Probe(ctx, client)
	if err != nil {
		return Report{}, fmt.Errorf("doctor: %w", err)
	}
	s := &scan{cfg: cfg, client: client, info: info, refused: &refusals{}, ends: map[string]string{}}
	s.model = newModel(s.info.Kind, info.Version.Major, info.Version.Minor, int64(cmp.Or(cfg.Quantum, 8)))
	s.decided = cfg.Quantum != 0
	if err := s.primaries(ctx); err != nil {
		return Report{}, err
	}
	if err := s.begin(ctx); err != nil {
		return Report{}, err
	}
	err = s.keys(ctx)
	if err != nil && s.tally.Seen == 0 {
		return Report{}, err
	}
	return s.report(ctx, err)
}

// scan is a scan that runs.
type scan struct {
	cfg     Config
	client  valkey.Client
	info    server.Info
	nodes   []*asker
	before  []health
	refused *refusals
	model   model
	decided bool // the allocator is known
	tally   *tally
	ends    map[string]string // node: the cursor to go on from; "done" if all were seen
	starts  map[string]string // what ends was when the scan began
	saved   time.Time
	samples int64 // keys to draw; zero scans
}

// primaries finds the nodes to ask.
func (s *scan) primaries(ctx context.Context) error {
	nodes := s.client.Nodes()
	if len(nodes) == 0 {
		return errors.New("doctor: the cluster has no slots")
	}
	perOp := time.Duration(0)
	if s.cfg.MaxOps > 0 {
		perOp = time.Second / time.Duration(s.cfg.MaxOps)
	}
	for addr, node := range nodes {
		a := &asker{node: node, addr: addr, patience: s.cfg.Patience, perOp: perOp, refused: s.refused}
		h, err := s.examine(ctx, a)
		if err != nil {
			return err
		}
		if len(nodes) > 1 && h.replication["role"] == "slave" {
			continue
		}
		s.nodes, s.before = append(s.nodes, a), append(s.before, h)
	}
	if len(s.nodes) == 0 {
		return errors.New("doctor: none of the cluster's nodes says that it is a primary")
	}
	return nil
}

func (s *scan) begin(ctx context.Context) error {
	if !s.decided {
		m, ok, err := s.nodes[0].ask(ctx, "MEMORY", "MALLOC-STATS")
		if err != nil {
			return err
		}
		text, _ := m.ToString()
		if at := strings.Index(text, "Quantum size: "); ok && at >= 0 {
			s.decided = true
			if strings.HasPrefix(text[at:], "Quantum size: 16") {
				s.model.quantum = 16
			}
		}
	}
	if _, _, err := s.nodes[0].ask(ctx, "PEXPIRETIME", s.cfg.Prefixes[0]+":doctor"); err != nil { // is it refused?
		return err
	}
	s.tally = newTally(s.cfg, s.cfg.now())
	s.saved = s.cfg.now()
	if len(s.cfg.Resume) > 0 {
		if err := s.resume(); err != nil {
			return err
		}
	}
	if s.cfg.Sample > 0 {
		keys, err := s.size(ctx)
		if err != nil {
			return err
		}
		if s.refused.has("DBSIZE") {
			return errors.New("doctor: DBSIZE is refused: without the number of keys a sample says nothing about all of them")
		}
		if keys > s.cfg.Sample {
			s.samples = s.cfg.Sample
		}
	}
	return nil
}

// size is how many keys there are.
func (s *scan) size(ctx context.Context) (int64, error) {
	var sum int64
	for _, a := range s.nodes {
		m, ok, err := a.ask(ctx, "DBSIZE")
		if err != nil {
			return 0, err
		}
		if ok {
			a.keys, _ = m.AsInt64()
			sum += a.keys
		}
	}
	return sum, nil
}

// batch is keys and where the scan goes on behind them.
type batch struct {
	keys    []string
	entries []entry
	node    string
	next    string
	moved   int64
	hidden  int64
	err     error
}

// keys looks at all nodes at once, and counts batches in the order in which they come; a node's own come in order.
func (s *scan) keys(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	total, err := s.size(ctx)
	if err != nil {
		return err
	}
	s.starts = maps.Clone(s.ends)
	out := make(chan batch)
	var nodes sync.WaitGroup
	for _, a := range s.nodes {
		if s.starts[a.addr] == "done" {
			continue
		}
		nodes.Go(func() { s.node(ctx, a, out) })
	}
	go func() { nodes.Wait(); close(out) }()
	var failed error
	for b := range out {
		if b.err == nil && failed == nil {
			b.err = s.count(b, total)
		}
		if b.err != nil && failed == nil {
			failed = b.err
			cancel()
		}
	}
	if failed == nil {
		failed = context.Cause(ctx)
	}
	if failed != nil && s.tally.Seen > 0 {
		if err := s.save(); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func (s *scan) count(b batch, total int64) error {
	s.decide(b)
	for _, e := range b.entries {
		e.bytes = s.sized(e)
		s.tally.add(e)
	}
	s.tally.Moved += b.moved
	s.tally.Hidden += b.hidden
	s.ends[b.node] = b.next
	if s.cfg.Progress != nil {
		s.cfg.Progress(s.tally.Seen, total)
	}
	if s.cfg.now().Sub(s.saved) < checkpointEvery {
		return nil
	}
	return s.save()
}

func (s *scan) save() error {
	s.saved = s.cfg.now()
	if s.cfg.Checkpoint == nil || s.samples > 0 {
		return nil
	}
	state, err := s.tally.encode(checkpoint{s.ends, s.runs(), s.model.quantum, s.decided, s.cfg.sameConfig()})
	if err == nil {
		err = s.cfg.Checkpoint(state)
	}
	return err
}

// decide finds the allocator's quantum out from the first small strings.
func (s *scan) decide(b batch) {
	if s.decided {
		return
	}
	seen := 0
	for _, e := range b.entries {
		odd, ok := s.model.quantumOf(e.usage, e.encoding)
		if ok && e.usage > 0 {
			seen++
			if odd {
				s.model.quantum, s.decided = 8, true
				return
			}
		}
	}
	if seen >= 8 {
		s.model.quantum, s.decided = 16, true
	}
}

// sized is what a key takes, its tables left out. Where MEMORY USAGE is refused it is an estimate by type and length.
func (s *scan) sized(e entry) float64 {
	ttl := e.end >= 0
	if e.usage > 0 {
		return s.model.correct(e.usage, e.key, e.kind, e.encoding, e.length, ttl)
	}
	if e.kind == "string" {
		n, _ := s.model.str(int64(len(e.key)), e.length, e.encoding == "int", ttl)
		return float64(n + s.model.expiry(ttl))
	}
	return float64(s.model.blob(int64(len(e.key)), 64*max(1, e.length), ttl) + s.model.expiry(ttl))
}

// node scans one node: while a batch is looked at, the next one is fetched.
func (s *scan) node(ctx context.Context, a *asker, out chan<- batch) {
	ordered := make(chan chan batch, 2)
	go func() {
		defer close(ordered)
		fetch := s.scanned
		if s.samples > 0 {
			fetch = s.drawn
		}
		fetch(ctx, a, func(b batch) bool {
			b.node = a.addr
			done, ok := make(chan batch, 1), b.err == nil
			select {
			case ordered <- done:
			case <-ctx.Done():
				return false
			}
			go func() {
				if ok {
					s.look(ctx, a, &b)
				}
				done <- b
			}()
			return ok
		})
	}()
	for done := range ordered {
		out <- <-done
	}
}

// scanned fetches all keys in the order of the server's table.
func (s *scan) scanned(ctx context.Context, a *asker, yield func(batch) bool) {
	for cursor := cmp.Or(s.starts[a.addr], "0"); ; {
		replies, err := a.do(ctx, 1, func() []valkey.Completed {
			return []valkey.Completed{a.node.B().Arbitrary("SCAN", cursor, "COUNT", strconv.Itoa(batchKeys)).Build()}
		})
		var entry valkey.ScanEntry
		if err == nil {
			entry, err = replies[0].AsScanEntry()
		}
		if err != nil {
			yield(batch{err: fmt.Errorf("doctor: SCAN on %s: %w", a.addr, err)})
			return
		}
		cursor = strconv.FormatUint(entry.Cursor, 10)
		next := cursor
		if cursor == "0" {
			next = "done"
		}
		if !yield(batch{keys: entry.Elements, next: next}) || next == "done" {
			return
		}
	}
}

// share is a node's part of the sample, by its part of the keys.
func (s *scan) share(a *asker) int64 {
	var before, to, all float64
	for _, n := range s.nodes {
		all += float64(n.keys)
	}
	for _, n := range s.nodes {
		if to = before + float64(n.keys); n == a {
			break
		}
		before = to
	}
	part := func(keys float64) int64 { return int64(math.Round(float64(s.samples) * keys / max(1, all))) }
	return part(to) - part(before) // the parts of all nodes add up
}

// drawn fetches a node's part of the sample. Where RANDOMKEY is refused, it is the first keys of SCAN: a table is in
// the order of a hash.
func (s *scan) drawn(ctx context.Context, a *asker, yield func(batch) bool) {
	left := s.share(a)
	for left > 0 {
		n := int(min(left, batchKeys))
		replies, err := a.do(ctx, n, func() []valkey.Completed {
			cmds := make([]valkey.Completed, n)
			for i := range cmds {
				cmds[i] = a.node.B().Randomkey().Build()
			}
			return cmds
		})
		b := batch{err: err, next: "done"}
		for i := range replies {
			key, err := replies[i].ToString()
			if isRefusal(err) {
				s.refused.add("RANDOMKEY")
				s.scanned(ctx, a, func(b batch) bool {
					left -= int64(len(b.keys))
					return yield(b) && left > 0
				})
				return
			}
			if err == nil {
				b.keys = append(b.keys, key)
			}
		}
		left -= int64(n)
		if !yield(b) {
			return
		}
	}
}

// report puts the report together.
func (s *scan) report(ctx context.Context, failed error) (Report, error) {
	r := Report{Format: 1, Source: "live", Taken: s.cfg.now().UTC()}
	r.Server = Server{Kind: s.info.Kind, Version: s.info.Version.String(), Cluster: s.info.Cluster, Nodes: len(s.nodes), Policy: s.info.Eviction, Quantum: int(s.model.quantum)}
	keys, after := s.tally.Seen, s.before
	if failed == nil {
		if s.samples > 0 {
			r.Source = "sample"
		}
		var err error
		if keys, after, err = s.end(context.WithoutCancel(ctx)); err != nil { // each question ends by itself when its node is silent
			keys, after, failed = s.tally.Seen, s.before, err
		}
	}
	parts := len(s.nodes)
	if s.info.Cluster && s.info.Kind == "valkey" && s.info.Version.AtLeast(8, 0) {
		parts = 16384 // a table for each slot
	}
	s.tally.fill(&r, keys, s.tables(keys, parts, after))
	for _, h := range after {
		r.Server.Used += h.number("used_memory")
		r.Server.MaxMemory += h.number("maxmemory")
		r.Server.RSS += h.number("used_memory_rss")
	}
	r.Refused = s.refused.list()
	restarted := s.restarted(after)
	r.Complete = failed == nil && r.Moved == 0 && restarted == ""
	for _, note := range []struct {
		when bool
		text string
	}{
		{s.refused.has("MEMORY USAGE"), "MEMORY USAGE is refused: sizes of collections are rough estimates by their length"},
		{r.Moved > 0, "the cluster moved keys during the scan: they may be missing, or counted twice"},
		{restarted != "", restarted + " was started again during the scan, and its keys stand in another order: they may be missing, or counted twice"},
	} {
		if note.when {
			r.Notes = append(r.Notes, note.text)
		}
	}
	r.Objects = objects(s.tally.Values, s.model, r.Prefixes)
	conclude(&r, s.cfg, s.tally, &healths{s.before, after})
	return r, failed
}

// end asks what is asked when all keys are seen: how many there are, how the nodes are now, and for values.
func (s *scan) end(ctx context.Context) (keys int64, after []health, err error) {
	keys = s.tally.Seen
	if s.samples > 0 {
		if keys, err = s.size(ctx); err != nil {
			return 0, nil, err
		}
		if left := s.tally.Hidden + s.tally.Moved; left > 0 && s.tally.Seen > 0 { // DBSIZE counts those too
			keys = int64(float64(keys) * float64(s.tally.Seen) / float64(s.tally.Seen+left))
		}
	}
	for _, a := range s.nodes {
		h, err := s.examine(ctx, a)
		if err != nil {
			return 0, nil, err
		}
		after = append(after, h)
	}
	if s.cfg.NoValues {
		return keys, after, nil
	}
	return keys, after, s.values(ctx)
}

// tables are the sizes of the tables: what the servers say, or what the model does.
func (s *scan) tables(keys int64, parts int, nodes []health) tables {
	t := s.tally.tables(s.model, keys, int64(parts))
	var said tables
	var all int64
	for _, h := range nodes {
		if h.main < 0 {
			return t
		}
		all += h.databases
		said.main += float64(h.main)
		said.ending += float64(h.ending)
	}
	if all > keys { // the keys that were seen have their part of the tables, not all of it
		part := float64(keys) / float64(all)
		said.main, said.ending = said.main*part, said.ending*part
	}
	if said.main < t.main/2 || said.main > t.main*4 || said.ending < t.ending/2 || said.ending > max(t.ending*4, 1<<20) {
		return t // of a server that counts in another way
	}
	return said
}

// values reads the short strings that were chosen.
func (s *scan) values(ctx context.Context) error {
	list := s.tally.Values
	for from := 0; from < len(list) && !s.refused.has("GETRANGE"); from += batchKeys {
		some := list[from:min(len(list), from+batchKeys)]
		for _, a := range s.nodes { // any of them may have all these keys
			if err := a.wait(ctx, len(some)); err != nil {
				return err
			}
		}
		if err := s.someValues(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

func (s *scan) someValues(ctx context.Context, list []valueSample) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Patience)
	defer cancel()
	cmds := make([]valkey.Completed, len(list))
	for i, v := range list {
		cmds[i] = s.client.B().Getrange().Key(v.Key).Start(0).End(maxValue).Build().Pin()
	}
	for i, reply := range s.client.DoMulti(ctx, cmds...) {
		value, err := reply.AsBytes()
		if isRefusal(err) {
			s.refused.add("GETRANGE")
			return nil
		}
		if err == nil && len(value) <= maxValue {
			list[i].Value = value
		}
	}
	return ctx.Err()
}

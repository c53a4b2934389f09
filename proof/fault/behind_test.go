package fault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/flatrate/flatrate/proof/behindproc"
	"github.com/flatrate/flatrate/proof/databases"
	"github.com/flatrate/flatrate/valkeytest"
)

// behind is writers, drainers, a server and a database, and what the writers have said.
type behind struct {
	t        *testing.T
	server   *valkeytest.Server
	database *databases.Database
	db       *sql.DB
	store    *writebehind.Store[behindproc.Value]
	running  []*behindproc.Process
	writes   []bool // which of them do
	keys     map[string]*behindproc.Key
	born     int

	acks, stale int
}

func newBehind(t *testing.T, writers, drainers int) *behind {
	t.Helper()
	b := &behind{
		t: t, server: valkeytest.StartWith(t, valkeytest.Config{Args: []string{"--appendonly", "yes", "--appendfsync", "always"}}),
		database: databases.PostgreSQL(t), keys: map[string]*behindproc.Key{},
	}
	b.db = b.database.Open()
	if _, err := b.db.ExecContext(t.Context(), behindproc.Create); err != nil {
		t.Fatal(err)
	}
	var err error
	b.store, err = writebehind.New(connect(t, b.server), writebehind.Config[behindproc.Value]{Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	for i := range writers + drainers {
		b.writes = append(b.writes, i < writers)
		b.running = append(b.running, b.start(i < writers))
	}
	return b
}

func (b *behind) start(writer bool) *behindproc.Process {
	b.t.Helper()
	b.born++
	setting := behindproc.Setting{URL: "unix://" + b.server.Socket, Keys: "w" + strconv.Itoa(b.born)}
	if !writer {
		setting.DSN = b.database.DSN
	}
	p, err := behindproc.Start(b.t.Context(), setting)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// kill kills one process, and starts another in its place.
func (b *behind) kill(i int) {
	b.end(i)
	b.running[i] = b.start(b.writes[i])
}

func (b *behind) end(i int) {
	b.running[i].Kill()
	keys, acks, stale := b.running[i].Heard()
	maps.Copy(b.keys, keys) // no other process has them
	b.acks, b.stale = b.acks+acks, b.stale+stale
}

// drain ends the writers and waits until nothing waits.
func (b *behind) drain() {
	b.t.Helper()
	for i := range b.running {
		if b.writes[i] {
			b.end(i)
		}
	}
	deadline := time.Now().Add(2 * time.Minute)
	for ; ; <-time.After(50 * time.Millisecond) {
		all, err := b.store.Stats(b.t.Context())
		if err == nil && all.Waiting == 0 {
			if all.Dead > 0 {
				b.t.Errorf("%d dead letters", all.Dead)
			}
			break
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("not drained: %+v, %v", all, err)
		}
	}
	for i := range b.running {
		if !b.writes[i] {
			b.end(i)
		}
	}
}

// verdict is what the checker found, from the database and what the writers have said alone.
type verdict struct {
	keys, acks, changes             int
	lost, invented, order, repeated int
	stale                           int
}

func (v verdict) String() string {
	return fmt.Sprintf("%d keys, %d acknowledged writes, %d changes of rows: %d keys lost their last acknowledged write, %d have what nobody wrote, %d changes out of order, %d twice, %d stale reads of one's own writes",
		v.keys, v.acks, v.changes, v.lost, v.invented, v.order, v.repeated, v.stale)
}

func (b *behind) check() verdict {
	b.t.Helper()
	v := verdict{keys: len(b.keys), acks: b.acks, stale: b.stale}
	type row struct {
		n    int64
		gone bool
	}
	rows := map[string]row{}
	all, err := b.db.QueryContext(b.t.Context(), "SELECT key, n, gone, version FROM rows")
	if err != nil {
		b.t.Fatal(err)
	}
	defer all.Close()
	versions := map[string]int64{}
	for all.Next() {
		var key string
		var r row
		var version int64
		if err := all.Scan(&key, &r.n, &r.gone, &version); err != nil {
			b.t.Fatal(err)
		}
		rows[key], versions[key] = r, version
	}
	if err := all.Err(); err != nil {
		b.t.Fatal(err)
	}
	for key, said := range b.keys {
		r := rows[key]
		switch {
		case r.gone: // which write that was its n does not say: the zero value's
			if !said.Deleted[said.Acked] && !said.Deleted[said.Begun] {
				v.lost++
			}
		case r.n < said.Acked:
			v.lost++
		case r.n > said.Begun || r.n > 0 && said.Deleted[r.n]:
			v.invented++
		}
	}
	v.history(b)
	return v
}

// history reads all changes in the order in which they were made.
func (v *verdict) history(b *behind) {
	b.t.Helper()
	all, err := b.db.QueryContext(b.t.Context(), "SELECT key, n, version FROM history ORDER BY id")
	if err != nil {
		b.t.Fatal(err)
	}
	defer all.Close()
	type change struct{ n, version int64 }
	last := map[string]change{}
	for all.Next() {
		var key string
		var c change
		if err := all.Scan(&key, &c.n, &c.version); err != nil {
			b.t.Fatal(err)
		}
		v.changes++
		was := last[key]
		switch {
		case c.version == was.version:
			v.repeated++
		case c.version < was.version || c.n != 0 && c.n <= was.n:
			v.order++
		}
		if c.n == 0 { // a deletion
			c.n = was.n
		}
		last[key] = c
	}
	if err := all.Err(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *behind) mustBeExact() {
	b.t.Helper()
	v := b.check()
	b.t.Log(v)
	if v.lost+v.invented+v.order+v.repeated+v.stale > 0 || v.acks == 0 || v.changes == 0 {
		b.t.Errorf("%v", v)
	}
}

func pause(random *rand.Rand) { <-time.After(time.Duration(50+random.IntN(250)) * time.Millisecond) }

// TestBehindKilled kills writers and drainers while they work, with SIGKILL.
func TestBehindKilled(t *testing.T) {
	t.Parallel()
	kills := 4
	if os.Getenv("FLATRATE_FAULT") != "" {
		kills = 100
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	b := newBehind(t, 3, 2)
	stops := 0
	for n := range kills {
		pause(random)
		b.kill(random.IntN(len(b.running)))
		if n%8 == 3 { // a drainer that is stopped for longer than its lease: another one goes on, and then both do
			p := b.running[len(b.running)-1-stops%2]
			if err := p.Stop(); err != nil {
				t.Fatal(err)
			}
			<-time.After(1200 * time.Millisecond)
			if err := p.Continue(); err != nil {
				t.Fatal(err)
			}
			stops++
		}
	}
	b.drain()
	t.Logf("%d kills, %d drainers stopped for longer than their lease", kills, stops)
	b.mustBeExact()
}

// TestBehindOutages takes the database and the server away, one after the other, while processes are killed.
func TestBehindOutages(t *testing.T) {
	const rounds = 8
	if os.Getenv("FLATRATE_FAULT") == "" {
		t.Skip("it takes a minute: FLATRATE_FAULT=1")
	}
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	b := newBehind(t, 2, 2)
	for range rounds {
		pause(random)
		b.database.Kill()
		pause(random)
		b.kill(random.IntN(len(b.running)))
		pause(random)
		b.database.Start()
		pause(random)
		b.server.Kill()
		pause(random)
		b.server.Restart()
		pause(random)
		b.kill(random.IntN(len(b.running)))
		b.database.Pause()
		pause(random)
		b.database.Resume()
	}
	b.drain()
	t.Logf("%d times: the database killed and paused, the server killed and started again with its append-only file", rounds)
	b.mustBeExact()
}

// TestBehindCheckerCanFail shows the checker what it has to find.
func TestBehindCheckerCanFail(t *testing.T) {
	t.Parallel()
	b := newBehind(t, 0, 0)
	origin, err := behindproc.Origin(b.database.DSN)
	if err != nil {
		t.Fatal(err)
	}
	batch := []writebehind.Write[behindproc.Value]{
		{Key: "good", Version: 5, Value: behindproc.Value{N: 2}}, {Key: "doubt", Version: 5, Value: behindproc.Value{N: 3}},
		{Key: "lost", Version: 5, Value: behindproc.Value{N: 1}}, {Key: "invented", Version: 5, Value: behindproc.Value{N: 9}},
		{Key: "gone", Version: 5, Deleted: true}, {Key: "came back", Version: 5, Deleted: true},
	}
	for range 2 {
		if err := origin(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	key := func(begun, acked int64, deleted ...int64) *behindproc.Key {
		k := &behindproc.Key{Begun: begun, Acked: acked, Deleted: map[int64]bool{}}
		for _, n := range deleted {
			k.Deleted[n] = true
		}
		return k
	}
	b.keys = map[string]*behindproc.Key{
		"good": key(2, 2), "doubt": key(3, 2), "lost": key(2, 2), "invented": key(3, 3), "gone": key(4, 4, 4), "came back": key(2, 2, 1), "never": key(1, 1),
	}
	if v := b.check(); v.lost != 3 || v.invented != 1 || v.order != 0 || v.repeated != 0 || v.changes != 6 {
		t.Errorf("%v", v)
	}
	for _, text := range []string{"UPDATE rows SET n = 2 WHERE key = 'good'", "UPDATE rows SET n = 1, version = 4 WHERE key = 'doubt'"} {
		if _, err := b.db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	if v := b.check(); v.repeated != 1 || v.order != 1 {
		t.Errorf("%v", v)
	}
}

// TestBehindWindow writes very often to few keys, and counts what reaches the origin.
func TestBehindWindow(t *testing.T) {
	const keys, window = 1000, time.Second
	writes := 20_000
	if os.Getenv("FLATRATE_FAULT") != "" {
		writes = 1_000_000
	}
	var mu sync.Mutex
	count := map[string]int{}
	least := time.Hour
	last := map[string]time.Time{}
	s, err := writebehind.New(connect(t, valkeytest.Start(t)), writebehind.Config[int]{
		Window: window, Origin: func(_ context.Context, batch []writebehind.Write[int]) error {
			mu.Lock()
			defer mu.Unlock()
			for _, w := range batch {
				count[w.Key]++
				if was, again := last[w.Key]; again {
					least = min(least, time.Since(was))
				}
				last[w.Key] = time.Now()
			}
			return nil
		},
	})
	if err == nil {
		err = s.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close(context.WithoutCancel(t.Context())) }()
	patient, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // the machine has other things to do
	defer cancel()
	begin := time.Now()
	var next atomic.Int64
	var writers sync.WaitGroup
	for range 16 {
		writers.Go(func() {
			for n := next.Add(1); n <= int64(writes); n = next.Add(1) {
				if err := s.Put(patient, strconv.FormatInt(n%keys, 10), int(n)); err != nil {
					t.Errorf("Put: %v", err)
					return
				}
			}
		})
	}
	writers.Wait()
	took := time.Since(begin)
	for deadline := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
		all, err := s.Stats(patient)
		if err == nil && all.Waiting == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v, %v", all, err)
		}
	}
	windows := int(time.Since(begin)/window) + 1
	most, sum := slices.Max(slices.Collect(maps.Values(count))), 0
	for _, n := range count {
		sum += n
	}
	t.Logf("%d writes on %d keys in %v: %d reached the origin, %d for one key at most in %d windows; the shortest time between two of a key is %v",
		writes, keys, took.Round(time.Millisecond), sum, most, windows, least.Round(time.Millisecond))
	if len(count) != keys || most > windows {
		t.Errorf("%d keys, %d writes of one key in %d windows", len(count), most, windows)
	}
}

// TestBehindPoison measures how long writes take to reach the origin, while one key of the partition always fails the whole
// batch, and without it.
func TestBehindPoison(t *testing.T) {
	rounds, writes := 1, 100
	if os.Getenv("FLATRATE_FAULT") != "" {
		rounds, writes = 5, 2000
	}
	var ratios []float64
	for range rounds {
		var p [2]time.Duration
		for i, poison := range []bool{false, true} {
			delays, dead := behindDelays(t, writes, poison)
			p[i] = delays[len(delays)/2]
			t.Logf("poison %v: median %v, p99 %v, of %d; dead letters %q", poison, p[i].Round(time.Microsecond), delays[len(delays)*99/100].Round(time.Microsecond), len(delays), dead)
		}
		ratios = append(ratios, float64(p[1])/float64(p[0]))
	}
	slices.Sort(ratios)
	t.Logf("the others' delay with a poison key is %.2f times that without", ratios[len(ratios)/2])
}

// behindDelays returns how long writes waited for the origin, in order, and the dead letters.
func behindDelays(t *testing.T, writes int, poison bool) (delays []time.Duration, dead []string) {
	t.Helper()
	var mu sync.Mutex
	begun := map[string]time.Time{}
	s, err := writebehind.New(connect(t, valkeytest.Start(t)), writebehind.Config[int]{
		Window: 20 * time.Millisecond, Partitions: 1, Attempts: 5, Origin: func(_ context.Context, batch []writebehind.Write[int]) error {
			<-time.After(2 * time.Millisecond) // what a database takes
			mu.Lock()
			defer mu.Unlock()
			if slices.ContainsFunc(batch, func(w writebehind.Write[int]) bool { return w.Key == "poison" }) {
				return errors.New("it violates a constraint")
			}
			for _, w := range batch {
				delays = append(delays, time.Since(begun[w.Key]))
			}
			return nil
		},
	})
	if err == nil {
		err = s.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close(context.WithoutCancel(t.Context())) }()
	patient, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for n := range writes {
		key := strconv.Itoa(n)
		mu.Lock()
		begun[key] = time.Now()
		mu.Unlock()
		if err := s.Put(patient, key, n); err != nil {
			t.Fatal(err)
		}
		if poison && n == writes/10 {
			if err := s.Put(patient, "poison", n); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Millisecond)
	}
	for deadline := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
		all, err := s.Stats(patient)
		if time.Now().After(deadline) {
			t.Fatalf("%+v, %v", all, err)
		}
		if err != nil {
			continue
		}
		if all.Waiting == 0 || poison && all.Waiting == 1 && all.Done == int64(writes) { // nothing else shows that the origin is well
			break
		}
	}
	for l, err := range s.DeadLetters(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		dead = append(dead, l.Key+": "+l.Reason)
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(delays)
	return slices.Clone(delays), dead
}

// TestBehindFsync kills the server with writes in its log, and counts those that are not there when it is back.
func TestBehindFsync(t *testing.T) {
	const writes = 2000
	for mode, test := range map[string]struct {
		args []string
		lost int64
	}{
		"appendfsync always":   {[]string{"--appendonly", "yes", "--appendfsync", "always"}, 0},
		"appendfsync everysec": {[]string{"--appendonly", "yes", "--appendfsync", "everysec"}, 0},
		"no append-only file":  {nil, writes},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			server := valkeytest.StartWith(t, valkeytest.Config{Args: test.args})
			s, err := writebehind.New(connect(t, server), writebehind.Config[int]{Window: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			patient, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var writers sync.WaitGroup
			var next atomic.Int64
			for range 16 {
				writers.Go(func() {
					for n := next.Add(1); n <= writes; n = next.Add(1) {
						if err := s.Put(patient, strconv.FormatInt(n, 10), int(n)); err != nil {
							t.Errorf("Put: %v", err)
						}
					}
				})
			}
			writers.Wait()
			server.Kill()
			server.Restart()
			var all writebehind.Stats
			for deadline := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
				if all, err = s.Stats(t.Context()); err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			t.Logf("%d acknowledged writes, the server killed: %d are lost", writes, writes-all.Waiting)
			if writes-all.Waiting != test.lost {
				t.Errorf("%d are lost, want %d", writes-all.Waiting, test.lost)
			}
		})
	}
}

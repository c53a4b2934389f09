package doctor

import (
	"bytes"
	"cmp"
	"encoding/gob"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	stormDays   = 7 // how far ahead expiries are counted by the second
	maxValues   = 256
	maxValue    = 4 << 10
	tallyFormat = 1
)

// ttlBounds are the steps of the histogram.
var ttlBounds = []struct {
	name  string
	below time.Duration
}{
	{"1m", time.Minute}, {"10m", 10 * time.Minute}, {"1h", time.Hour}, {"1d", 24 * time.Hour},
	{"7d", 7 * 24 * time.Hour}, {"30d", 30 * 24 * time.Hour}, {"longer", math.MaxInt64},
}

// entry is a key that was looked at.
type entry struct {
	key            string
	kind, encoding string
	length         int64
	bytes          float64 // without the tables
	usage          int64   // MEMORY USAGE; zero if it was not asked
	db             int64
	end            int64 // Unix ms, or -1
	freq           int   // or -1
	value          []byte
}

// tally is what is known of the keys seen so far. Its exported fields are what a checkpoint has.
type tally struct {
	Format  int
	Start   int64 // Unix ms: the time against which times to live are told
	Seen    int64
	Total   Sum
	Usage   int64
	Square  float64 // the sum of the squares of sizes
	Expired int64
	Moved   int64
	Hidden  int64
	Forms   map[string]Sum
	Roles   map[Role]Sum
	Other   map[string]Sum // keys that are not the toolkit's, by type
	Tree    *tree
	Big     []Key
	Hot     []Key
	TTLs    []Sum // by ttlBounds, and those without one
	Seconds map[int64]int64
	Values  []valueSample

	prefixes []string
	top      int
	cut      float64 // the smallest of Big, when it is full
}

// valueSample is a string whose value may be looked at. Those with the smallest hash are kept, which are the same in any order.
type valueSample struct {
	Hash  uint64
	Key   string
	Value []byte // of a file
	TTL   bool
}

func newTally(cfg Config, start time.Time) *tally {
	return &tally{
		Format: tallyFormat, Start: start.UnixMilli(),
		Forms: map[string]Sum{}, Roles: map[Role]Sum{}, Other: map[string]Sum{}, Tree: newTree(),
		TTLs: make([]Sum, len(ttlBounds)+1), Seconds: map[int64]int64{}, prefixes: cfg.Prefixes, top: cfg.Top,
	}
}

func (t *tally) encode(at any) ([]byte, error) {
	var b bytes.Buffer
	e := gob.NewEncoder(&b)
	if err := e.Encode(at); err != nil {
		return nil, err
	}
	err := e.Encode(t)
	return b.Bytes(), err
}

func (t *tally) add(e entry) {
	s := Sum{Keys: 1, Bytes: e.bytes}
	if e.end < 0 {
		s.NoTTL, s.NoTTLBytes = 1, e.bytes
	}
	t.Seen++
	t.Total.add(s)
	t.Usage += e.usage
	t.Square += e.bytes * e.bytes
	form := e.kind + " " + e.encoding
	addTo(t.Forms, form, s)
	if role, ok := classify(e.key, e.kind, t.prefixes); ok {
		addTo(t.Roles, role, s)
	} else {
		addTo(t.Other, e.kind, s)
	}
	t.Tree.add(e.key, form, s)
	if len(t.Big) < t.top || e.bytes > t.cut {
		t.Big = keep(t.Big, e.asKey(), t.top, func(a, b Key) int { return cmp.Compare(b.Bytes, a.Bytes) })
		t.cut = t.Big[len(t.Big)-1].Bytes
	}
	if e.freq > 0 && (len(t.Hot) < t.top || e.freq > t.Hot[len(t.Hot)-1].Freq) {
		t.Hot = keep(t.Hot, e.asKey(), t.top, func(a, b Key) int { return cmp.Compare(b.Freq, a.Freq) })
	}
	t.addTTL(e.end, s)
	if e.kind == "string" && e.encoding != "int" {
		t.addValue(e)
	}
}

func addTo[K comparable](m map[K]Sum, k K, s Sum) {
	old := m[k]
	old.add(s)
	m[k] = old
}

func (e entry) asKey() Key {
	name := e.key
	if len(name) > 256 {
		name = name[:256]
	}
	return Key{Key: strings.Clone(name), Type: e.kind, Encoding: e.encoding, Length: e.length, Bytes: e.bytes, Freq: max(0, e.freq)}
}

// keep puts a key into a short sorted list.
func keep(list []Key, k Key, top int, compare func(a, b Key) int) []Key {
	full := func(a, b Key) int { return cmp.Or(compare(a, b), strings.Compare(a.Key, b.Key)) }
	at, there := slices.BinarySearchFunc(list, k, full)
	if there { // drawn twice
		return list
	}
	list = slices.Insert(list, at, k)
	return list[:min(top, len(list))]
}

func (t *tally) addTTL(end int64, s Sum) {
	if end < 0 {
		t.TTLs[len(ttlBounds)].add(s)
		return
	}
	left := time.Duration(min(max(0, end-t.Start), math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	for i, b := range ttlBounds {
		if left < b.below {
			t.TTLs[i].add(s)
			break
		}
	}
	if left < stormDays*24*time.Hour {
		t.Seconds[end/1000]++
	}
}

// wants says whether the value of a string of a file should be kept.
func (t *tally) wants(key string) bool {
	return len(t.Values) < maxValues || hashOf(key) < t.Values[len(t.Values)-1].Hash
}

func hashOf(key string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	x := h.Sum64() // FNV's high bits hardly depend on the last bytes
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

func (t *tally) addValue(e entry) {
	h := hashOf(e.key)
	if len(t.Values) >= maxValues && h >= t.Values[len(t.Values)-1].Hash {
		return
	}
	at, there := slices.BinarySearchFunc(t.Values, h, func(v valueSample, h uint64) int { return cmp.Compare(v.Hash, h) })
	if there {
		return
	}
	t.Values = slices.Insert(t.Values, at, valueSample{h, strings.Clone(e.key), e.value, e.end >= 0})
	t.Values = t.Values[:min(maxValues, len(t.Values))]
}

// fill writes what was counted into a report, scaled from a sample to all keys, and with each key's part of the
// tables.
func (t *tally) fill(r *Report, keys int64, at tables) {
	scale := 1.0
	if t.Seen > 0 {
		scale = float64(keys) / float64(t.Seen)
	}
	perKey := at.main / float64(max(1, keys))
	perTTL := at.ending / max(1, float64(t.Seen-t.Total.NoTTL)*scale)
	full := func(s Sum) Sum {
		s.Bytes += float64(s.Keys)*perKey + float64(s.Keys-s.NoTTL)*perTTL
		s.NoTTLBytes += float64(s.NoTTL) * perKey
		return Sum{int64(math.Round(float64(s.Keys) * scale)), s.Bytes * scale, int64(math.Round(float64(s.NoTTL) * scale)), s.NoTTLBytes * scale}
	}
	r.Forms, r.Big, r.TTLs = []Form{}, []Key{}, []TTLs{} // lists in JSON, also where they are empty
	r.Sum, r.Sampled, r.Reported = full(t.Total), t.Seen, t.Usage
	r.Expired, r.Moved, r.Hidden = t.Expired, t.Moved, t.Hidden
	if t.Seen > 1 && t.Seen < keys {
		mean := t.Total.Bytes / float64(t.Seen)
		deviation := math.Sqrt(math.Max(0, t.Square/float64(t.Seen)-mean*mean))
		r.Margin = 1.96 * deviation / math.Sqrt(float64(t.Seen)) * float64(keys)
	}
	for form, s := range t.Forms {
		kind, encoding, _ := strings.Cut(form, " ")
		r.Forms = append(r.Forms, Form{kind, encoding, full(s)})
	}
	slices.SortFunc(r.Forms, func(a, b Form) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Type+a.Encoding, b.Type+b.Encoding))
	})
	for role, s := range t.Roles {
		r.Blocks = append(r.Blocks, Block{role, full(s)})
	}
	slices.SortFunc(r.Blocks, func(a, b Block) int { return strings.Compare(a.Block+" "+a.Part, b.Block+" "+b.Part) })
	r.Prefixes = t.Tree.prefixes(full, t.top)
	r.Big = withTables(t.Big, perKey)
	r.Hot = withTables(t.Hot, perKey)
	for i, s := range t.TTLs {
		name := "never"
		if i < len(ttlBounds) {
			name = ttlBounds[i].name
		}
		r.TTLs = append(r.TTLs, TTLs{name, full(s)})
	}
	r.Storms = t.storms(scale)
}

// tables are the sizes of the tables of keys, and of those that end.
type tables struct{ main, ending float64 }

// tables says what the tables of keys take, if they are spread over a number of tables.
func (t *tally) tables(m model, keys, parts int64) tables {
	of := func(n int64) float64 {
		per := max(1, n/parts)
		return float64(m.table(per)) * float64(n) / float64(per)
	}
	ends := int64(float64(keys) * float64(t.Seen-t.Total.NoTTL) / float64(max(1, t.Seen)))
	return tables{of(keys), of(ends)}
}

func withTables(list []Key, perKey float64) []Key {
	out := append([]Key{}, list...)
	for i := range out {
		out[i].Bytes += perKey
	}
	return out
}

// storms lists the seconds in which more keys end than the server removes without being noticed.
func (t *tally) storms(scale float64) []Storm {
	least := max(1000, float64(t.Seen)*scale/100)
	var all []Storm
	for second, n := range t.Seconds {
		if keys := float64(n) * scale; keys >= least {
			all = append(all, Storm{time.Unix(second, 0).UTC(), int64(keys)})
		}
	}
	slices.SortFunc(all, func(a, b Storm) int { return cmp.Or(cmp.Compare(b.Keys, a.Keys), a.At.Compare(b.At)) })
	return all[:min(5, len(all))]
}

// resumeTally reads what encode has written.
func resumeTally(state []byte, at any, cfg Config) (*tally, error) {
	d := gob.NewDecoder(bytes.NewReader(state))
	if err := d.Decode(at); err != nil {
		return nil, fmt.Errorf("%w: Resume: %w", ErrConfig, err)
	}
	t := newTally(cfg, time.Time{})
	if err := d.Decode(t); err != nil {
		return nil, fmt.Errorf("%w: Resume: %w", ErrConfig, err)
	}
	if t.Format != tallyFormat || t.Tree == nil || t.Tree.Root == nil || len(t.TTLs) != len(ttlBounds)+1 {
		return nil, fmt.Errorf("%w: Resume: it is of another version", ErrConfig)
	}
	if len(t.Big) > 0 {
		t.cut = t.Big[len(t.Big)-1].Bytes
	}
	return t, nil
}

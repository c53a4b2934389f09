// Package doctor looks at a live server, or at an RDB file, and says what is in it, what takes the memory,
// and what is wrong: an eviction policy that loses messages, a limit that is near, keys that never end.
//
// [Scan] looks at one node or a whole cluster through a client. It only reads: SCAN in batches of 100 keys
// with the questions about them pipelined, at a bounded rate, and a few commands about the server itself. It
// needs neither CONFIG nor DEBUG, and does without every command that is refused. [ReadRDB] reads a file in
// memory that does not grow with it.
//
// Sizes are what keys take of used_memory, their part of the hash tables included, which MEMORY USAGE leaves
// out. A [Report] has them by prefix, type and encoding, and a list of [Finding]: what, where, how bad, the
// evidence, what to do, and what that saves. docs/doctor.md has the rules.
package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cost"
)

// ErrConfig is what New errors about a [Config] wrap.
var ErrConfig = errors.New("doctor: config")

// Defaults of [Config].
const (
	DefaultMaxOps     = 200_000
	DefaultKeySamples = 5
	DefaultTop        = 20
	DefaultPatience   = 30 * time.Second
	DefaultNode       = "cache.t4g.small"
	DefaultRegion     = "us-east-1"
	DefaultPrefix     = "fr"
)

// Config says how to look. The zero value is ready to use.
type Config struct {
	// Prefixes are those of the toolkit's keys, whose layout says what they are. Default "fr".
	Prefixes []string
	// MaxOps bounds the commands sent to each node in a second; SCAN of a batch counts as one. Default
	// 200,000; less than zero means no bound.
	MaxOps int
	// Sample is how many keys to look at, drawn at random, in place of all. Zero means all.
	Sample int64
	// KeySamples is how many elements MEMORY USAGE looks at in a large collection. Default 5, the server's own;
	// less than zero means all, which holds the server up for as long as that takes.
	KeySamples int
	// Top is how many prefixes and keys a list has at most. Default 20, at most 1,000.
	Top int
	// NoValues leaves values alone. Without it up to 256 short strings are read, to see whether they are JSON
	// objects that a hash would keep in less.
	NoValues bool
	// Quantum is that of the server's allocator, 8 or 16 bytes: 8 in builds with their own jemalloc, 16 with
	// the system's. Zero finds it out, as far as possible.
	Quantum int
	// Patience is for how long a server may fail to answer before the scan gives up. Default 30 s.
	Patience time.Duration
	// Node and Region are what a byte costs: that of this ElastiCache node. Default cache.t4g.small, us-east-1.
	Node, Region string
	// Plaintext says that the connection is not encrypted, Remote that it leaves the machine, and Anonymous that
	// it needed no password. The client does not tell.
	Plaintext, Remote, Anonymous bool
	// Since is an earlier report, to tell the growth. Nil means none.
	Since *Report
	// Progress is called after each batch, with how many keys are done and, about, how many there are.
	Progress func(done, total int64)
	// Checkpoint is called now and then, and when a scan ends early, with what Resume takes to go on. Its error
	// ends the scan.
	Checkpoint func(state []byte) error
	// Resume is what Checkpoint was called with. Nil begins anew.
	Resume []byte

	now func() time.Time // for tests
}

func (c Config) withDefaults() (Config, error) {
	if len(c.Prefixes) == 0 {
		c.Prefixes = []string{DefaultPrefix}
	}
	setDefault(&c.MaxOps, DefaultMaxOps)
	setDefault(&c.KeySamples, DefaultKeySamples)
	setDefault(&c.Top, DefaultTop)
	setDefault(&c.Patience, DefaultPatience)
	setDefault(&c.Node, DefaultNode)
	setDefault(&c.Region, DefaultRegion)
	if c.now == nil {
		c.now = time.Now
	}
	bad := func(field, format string, args ...any) (Config, error) {
		return c, fmt.Errorf("%w: %s %s", ErrConfig, field, fmt.Sprintf(format, args...))
	}
	switch {
	case slices.ContainsFunc(c.Prefixes, func(p string) bool { return p == "" || strings.ContainsAny(p, "{} \t\r\n") || len(p) > 64 }):
		return bad("Prefixes", "has one that is empty, over 64 bytes, or has braces or white space")
	case c.Sample < 0:
		return bad("Sample", "is %d, less than zero", c.Sample)
	case c.Sample > 0 && len(c.Resume) > 0:
		return bad("Resume", "is of a scan, and Sample asks for none")
	case c.Top < 1 || c.Top > 1000:
		return bad("Top", "is %d, not from 1 to 1,000", c.Top)
	case c.Quantum != 0 && c.Quantum != 8 && c.Quantum != 16:
		return bad("Quantum", "is %d, neither 8 nor 16", c.Quantum)
	case c.Patience < time.Millisecond:
		return bad("Patience", "is %v, less than 1ms", c.Patience)
	}
	if _, err := c.usdPerByte(); err != nil {
		return bad("Node", "or Region: %v", err)
	}
	return c, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// usdPerByte is what a byte costs in a month, on a node and its replica.
func (c Config) usdPerByte() (float64, error) {
	prices, err := cost.ListPrices(c.Region)
	if err != nil {
		return 0, err
	}
	node, err := prices.Node(c.Node)
	if err != nil {
		return 0, err
	}
	hour, err := node.USDPerHour(cost.Valkey)
	if err != nil {
		return 0, err
	}
	return 2 * hour * cost.HoursPerMonth / float64(node.UsableBytes()), nil
}

// Report is what was seen. Bytes are those of used_memory.
type Report struct {
	Format   int       `json:"format"` // of this object: 1
	Source   string    `json:"source"` // live, sample or rdb
	Taken    time.Time `json:"taken"`
	Server   Server    `json:"server"`
	Complete bool      `json:"complete"` // false if the scan ended early, or a cluster moved keys meanwhile
	Sum
	// Sampled is how many keys were looked at; Margin is the half width of the 95% interval of Bytes, zero if
	// all were.
	Sampled int64   `json:"sampled"`
	Margin  float64 `json:"margin_bytes,omitempty"`
	// Reported is what MEMORY USAGE says, summed, where it was asked.
	Reported int64 `json:"memory_usage_bytes,omitempty"`
	// Expired are keys of a file whose time had come, Moved those that left a node during the scan, Hidden those
	// that access rules did not show. None of them is counted.
	Expired int64 `json:"expired,omitempty"`
	Moved   int64 `json:"moved,omitempty"`
	Hidden  int64 `json:"hidden,omitempty"`

	Forms    []Form    `json:"forms"`
	Prefixes []Prefix  `json:"prefixes"`
	Blocks   []Block   `json:"blocks,omitempty"`
	Big      []Key     `json:"big_keys"`
	Hot      []Key     `json:"hot_keys,omitempty"`
	TTLs     []TTLs    `json:"ttl"`
	Storms   []Storm   `json:"storms,omitempty"`
	Objects  []Objects `json:"objects,omitempty"`
	Growth   *Growth   `json:"growth,omitempty"`
	Refused  []string  `json:"refused,omitempty"`
	Notes    []string  `json:"notes,omitempty"`
	Findings []Finding `json:"findings"`
}

// Server is what a node, or all of a cluster together, said about itself. Of a file, it is who wrote it.
type Server struct {
	Kind      string `json:"kind"`
	Version   string `json:"version"`
	Cluster   bool   `json:"cluster,omitempty"`
	Nodes     int    `json:"nodes,omitempty"`
	Policy    string `json:"maxmemory_policy,omitempty"`
	Used      int64  `json:"used_memory,omitempty"`
	MaxMemory int64  `json:"maxmemory,omitempty"`
	RSS       int64  `json:"used_memory_rss,omitempty"`
	Quantum   int    `json:"allocator_quantum"`
}

// Block is what a part of one of the toolkit's building blocks takes.
type Block struct {
	Role
	Sum
}

// Key is one key.
type Key struct {
	Key      string  `json:"key"`
	Type     string  `json:"type"`
	Encoding string  `json:"encoding"`
	Length   int64   `json:"length,omitempty"`
	Bytes    float64 `json:"bytes"`
	// Freq is the logarithmic counter of an LFU policy, 0 to 255.
	Freq int `json:"freq,omitempty"`
}

// TTLs is the keys whose time to live is below a bound.
type TTLs struct {
	Below string `json:"below"` // "1m" and so on; "never" and "longer" are the rest
	Sum
}

// Storm is a second in which many keys end.
type Storm struct {
	At   time.Time `json:"at"`
	Keys int64     `json:"keys"`
}

// Growth is what has come since an earlier report.
type Growth struct {
	Since    time.Time `json:"since"`
	Keys     int64     `json:"keys"`
	Bytes    float64   `json:"bytes"`
	Prefixes []Growing `json:"prefixes"`
	// FullIn is when maxmemory is reached at this rate, in days; zero if never, or unknown.
	FullIn float64 `json:"full_in_days,omitempty"`
}

// Growing is a prefix and what it has grown by.
type Growing struct {
	Pattern string  `json:"pattern"`
	Keys    int64   `json:"keys"`
	Bytes   float64 `json:"bytes"`
}

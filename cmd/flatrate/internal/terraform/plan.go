package terraform

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/flatrate/flatrate/cost"
)

// The kinds of what is generated.
const (
	Pair       = "pair"       // nodes with the same data, one shard
	Cluster    = "cluster"    // shards
	Serverless = "serverless" // ElastiCache Serverless
	Durable    = "durable"    // shards with a Multi-AZ log, Valkey 9
)

// Kinds are all of them.
var Kinds = []string{Pair, Cluster, Serverless, Durable}

// Options say what is generated.
type Options struct {
	Kind       string
	Version    string // of Valkey; "" is 8.0, and 9.0 of [Durable]
	Name       string // stands before all that is made
	Prefix     string // of the keys, as in the blocks' Config.Prefix
	Node       string // "" is the cheapest that is enough
	Nodes      int    // in each shard; 0 is 2
	Shards     int    // 0 is as many as needed, at least 2 of [Cluster]
	Term       cost.Term
	Extra      []string // blocks beside those of the load
	Together   bool     // never two groups
	IAM        bool     // users sign in with IAM
	Durability string   // of [Durable]: "sync" or "async"

	Events      string // notify-keyspace-events; "" is none
	Maintenance string // "sun:03:00-sun:04:00"
	Snapshot    string // "01:00-02:00"
	Retention   int    // days of snapshots
	LogDays     int    // days of logs
	Tags        map[string]string
}

// Group is nodes with one eviction policy, and the blocks that share them.
type Group struct {
	Key    string // "data", "cache" or "all"
	Blocks []Block
	Policy string
	Need   cost.Need
	Side   cost.FlatSide
}

// Plan is what is generated, sized and priced.
type Plan struct {
	Options
	Region  string
	Groups  []Group
	One     *cost.FlatSide // the alternative where there are two groups: all on one
	Loads   []Load
	Prices  cost.Prices
	Verdict string // what cost says of this load, one line
}

// Load is a workload, and the block that does its work.
type Load struct {
	Name  string
	Block string
	Need  cost.Need
}

var (
	nameOf   = regexp.MustCompile(`^[a-z](-?[a-z0-9]){0,19}$`)
	prefixOf = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,64}$`)
	eventsOf = regexp.MustCompile(`^[KEg$lshzxetdnmA]*$`)
	clock    = `([01]\d|2[0-3]):[0-5]\d`
	weekly   = regexp.MustCompile(`^(mon|tue|wed|thu|fri|sat|sun):` + clock + `-(mon|tue|wed|thu|fri|sat|sun):` + clock + `$`)
	daily    = regexp.MustCompile(`^` + clock + `-` + clock + `$`)
	tagKey   = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]{1,128}$`)
	tagValue = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]{0,256}$`)
)

// Validate names the first option that can't be.
func (o *Options) Validate() error {
	switch {
	case !slices.Contains(Kinds, o.Kind):
		return fmt.Errorf("--layout must be one of %s, not %q", strings.Join(Kinds, ", "), o.Kind)
	case !nameOf.MatchString(o.Name):
		return fmt.Errorf("--name must be 1 to 20 lower-case letters, digits and single hyphens, beginning with a letter, not %q", o.Name)
	case !prefixOf.MatchString(o.Prefix):
		return fmt.Errorf("--prefix must be 1 to 64 letters, digits or any of _.:-, not %q: the rest has a meaning in access strings", o.Prefix)
	case !eventsOf.MatchString(o.Events):
		return fmt.Errorf("--keyspace-events must be letters of notify-keyspace-events (KEg$lshzxetdnmA), not %q", o.Events)
	case o.Name == "default" || strings.HasPrefix(o.Name, "sg-"):
		return fmt.Errorf("--name must not be default nor begin with sg-, which AWS keeps for itself, not %q", o.Name)
	case !weekly.MatchString(o.Maintenance):
		return fmt.Errorf("--maintenance must be a weekly hour in UTC as sun:03:00-sun:04:00, not %q", o.Maintenance)
	case !daily.MatchString(o.Snapshot):
		return fmt.Errorf("--snapshots must be a daily hour in UTC as 01:00-02:00, not %q", o.Snapshot)
	case weekMinutes(o.Maintenance) < 60 || weekMinutes(o.Maintenance) > 24*60:
		return fmt.Errorf("--maintenance must be from 60 minutes to a day long, not %q", o.Maintenance)
	case (minuteOf(o.Snapshot[6:])-minuteOf(o.Snapshot[:5])+24*60)%(24*60) < 60:
		return fmt.Errorf("--snapshots must be at least 60 minutes long, not %q", o.Snapshot)
	case overlaps(o.Snapshot, o.Maintenance) && o.Retention > 0 && o.Kind != Serverless:
		return fmt.Errorf("--snapshots: %s overlaps with --maintenance %s, which AWS refuses", o.Snapshot, o.Maintenance)
	case o.Retention < 0 || o.Retention > 35:
		return fmt.Errorf("--snapshot-days must be from 0 to 35, not %d", o.Retention)
	case !slices.Contains(logDays, o.LogDays):
		return fmt.Errorf("--log-days must be one of %v, not %d", logDays, o.LogDays)
	case o.Kind == Durable && o.Durability != "sync" && o.Durability != "async":
		return fmt.Errorf("--durability must be sync or async, not %q", o.Durability)
	}
	if o.Version == "" {
		o.Version = "8.0"
		if o.Kind == Durable {
			o.Version = "9.0"
		}
	}
	if err := CheckVersion(o.Version); err != nil {
		return fmt.Errorf("--engine-version %w", err)
	}
	return o.validateNodes()
}

func (o *Options) validateNodes() error {
	switch {
	case o.Kind == Durable && majorOf(o.Version) < 9:
		return fmt.Errorf("--engine-version: a durable cluster needs 9.0, not %s", o.Version)
	case o.Kind == Durable && burstable(o.Node):
		return fmt.Errorf("--node: a durable cluster does not run on %s", o.Node)
	case o.Kind == Serverless && (o.Node != "" || o.Nodes != 0 || o.Shards != 0 || o.Term != "" && o.Term != cost.OnDemand):
		return fmt.Errorf("--node, --nodes, --shards and --term mean nothing with --layout serverless")
	case o.Kind == Pair && o.Shards > 1:
		return fmt.Errorf("--shards: a pair has one shard; --layout cluster has more")
	case o.Nodes != 0 && (o.Nodes < 2 || o.Nodes > 6):
		return fmt.Errorf("--nodes must be from 2 to 6 in each shard (a failover needs a replica), not %d", o.Nodes)
	case o.Shards < 0 || o.Shards > 90:
		return fmt.Errorf("--shards must be from 1 to 90, not %d", o.Shards)
	}
	for key, value := range o.Tags {
		if !tagKey.MatchString(key) || !tagValue.MatchString(value) {
			return fmt.Errorf("--tag %q: AWS allows letters, digits, spaces and _.:/=+-@, 128 in a key and 256 in a value", key)
		}
		if strings.HasPrefix(strings.ToLower(key), "aws:") {
			return fmt.Errorf("--tag %q: aws: is AWS's own", key)
		}
	}
	for _, name := range o.Extra {
		if _, err := FindBlock(name); err != nil {
			return fmt.Errorf("--blocks: %w", err)
		}
	}
	return nil
}

// minuteOf is which minute of the day a time as 03:00 is.
func minuteOf(t string) int {
	hour, _ := strconv.Atoi(t[:2])
	minute, _ := strconv.Atoi(t[3:])
	return hour*60 + minute
}

// weekMinutes is how long a weekly window is.
func weekMinutes(window string) int {
	const days, week = "mon tue wed thu fri sat sun", 7 * 24 * 60
	at := func(t string) int { return strings.Index(days, t[:3])/4*24*60 + minuteOf(t[4:]) }
	return (at(window[10:]) - at(window[:9]) + week) % week
}

// overlaps says whether a daily window and a weekly one share a minute of its day.
func overlaps(day, week string) bool {
	span := func(from, to string) [2]int {
		a, b := minuteOf(from), minuteOf(to)
		if b <= a {
			b += 24 * 60
		}
		return [2]int{a, b}
	}
	d, w := span(day[:5], day[6:]), span(week[4:9], week[14:])
	for _, shift := range []int{-24 * 60, 0, 24 * 60} {
		if d[0]+shift < w[1] && w[0] < d[1]+shift {
			return true
		}
	}
	return false
}

// logDays are what CloudWatch takes, up to a year.
var logDays = []int{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365}

// BlockOf guesses which block does a workload's work, from its service and its name.
func BlockOf(name, service string) string {
	name = strings.ToLower(name)
	for _, guess := range []struct{ word, block string }{
		{"lock", "lock"}, {"write-behind", "write-behind"}, {"object", "object"}, {"session", "session"}, {"limit", "ratelimit"}, {"throttl", "ratelimit"},
		{"queue", "queue"}, {"job", "queue"}, {"cache", "cache"},
	} {
		if strings.Contains(name, guess.word) {
			return guess.block
		}
	}
	switch service {
	case "sqs":
		return "queue"
	case "api_gateway":
		return "ratelimit"
	case "database":
		return "cache"
	}
	return "session"
}

// NewPlan decides what shares a node, and sizes and prices the groups.
func NewPlan(o Options, loads []Load, prices cost.Prices, sizing cost.Sizing) (Plan, error) {
	if err := o.Validate(); err != nil {
		return Plan{}, err
	}
	p := Plan{Options: o, Region: prices.Region(), Loads: loads, Prices: prices}
	p.Groups = o.groups(loads)
	for i := range p.Groups {
		side, err := o.size(prices, p.Groups[i].Key, p.Groups[i].Need, sizing)
		if err != nil {
			return Plan{}, err
		}
		p.Groups[i].Side = side
	}
	if len(p.Groups) == 2 {
		one, err := o.size(prices, "all", p.Groups[0].Need.Plus(p.Groups[1].Need), sizing)
		if err != nil {
			return Plan{}, err
		}
		p.One = &one
	}
	return p, nil
}

// groups are the blocks by the policy that they bear. What may go at any time does not share nodes with what may not.
func (o Options) groups(loads []Load) []Group {
	data, cache := Group{Key: "data", Policy: "noeviction"}, Group{Key: "cache", Policy: "allkeys-lru"}
	for _, b := range Blocks {
		used := slices.Contains(o.Extra, b.Name)
		var need cost.Need
		for _, l := range loads {
			if l.Block == b.Name {
				used, need = true, need.Plus(l.Need)
			}
		}
		if !used {
			continue
		}
		g := &data
		if b.Expendable {
			g = &cache
		}
		g.Blocks, g.Need = append(g.Blocks, b), g.Need.Plus(need)
	}
	switch {
	case len(cache.Blocks) == 0:
		return []Group{data}
	case len(data.Blocks) == 0:
		return []Group{cache}
	case o.Together:
		return []Group{{Key: "all", Policy: "noeviction", Blocks: append(data.Blocks, cache.Blocks...), Need: data.Need.Plus(cache.Need)}}
	}
	return []Group{data, cache}
}

// size is the cheapest side that holds a need.
func (o Options) size(prices cost.Prices, key string, need cost.Need, sizing cost.Sizing) (cost.FlatSide, error) {
	f := cost.Flat{Kind: cost.Nodes, Node: o.Node, Count: o.Nodes, Shards: o.Shards, Engine: cost.Valkey, Term: o.Term}
	switch o.Kind {
	case Serverless:
		return prices.Size(cost.Flat{Kind: cost.Serverless, Engine: cost.Valkey}, need, sizing)
	case Pair:
		f.Shards = 1
	case Cluster:
		if f.Shards == 0 {
			return atLeast(prices, f, need, sizing, 2)
		}
	case Durable:
		if f.Node == "" && key != "cache" { // what is loaded again needs no log
			return o.durable(prices, f, need, sizing)
		}
	}
	side, err := prices.Size(f, need, sizing)
	if err == nil && !side.Fits {
		return side, fmt.Errorf("%d x %s in %d shards do not hold it: leave --node or --shards away, or take --layout cluster", side.Total(), side.Node, side.Shards)
	}
	return side, err
}

// atLeast takes as many shards as needed, and at least so many.
func atLeast(prices cost.Prices, f cost.Flat, need cost.Need, sizing cost.Sizing, least int) (cost.FlatSide, error) {
	side, err := prices.Size(f, need, sizing)
	if err != nil || side.Shards >= least {
		return side, err
	}
	f.Shards = least
	return prices.Size(f, need, sizing)
}

// durable is the cheapest node that is not burstable: those have no log.
func (o Options) durable(prices cost.Prices, f cost.Flat, need cost.Need, sizing cost.Sizing) (best cost.FlatSide, err error) {
	for _, n := range prices.Nodes() {
		if !strings.HasPrefix(n.Type, "cache.") || burstable(n.Type) || !modern(n.Type) {
			continue
		}
		if _, err := n.USDPerHour(cost.Valkey); err != nil {
			continue
		}
		f.Node = n.Type
		side, err := prices.Size(f, need, sizing)
		if err != nil {
			return side, err
		}
		if side.Fits = side.Fits || f.Shards == 0; side.Fits && (best.Node == "" || cmp.Or(cmp.Compare(side.USD, best.USD), cmp.Compare(side.Node, best.Node)) < 0) {
			best = side
		}
	}
	if best.Node == "" {
		return best, fmt.Errorf("--shards: %d shards of no node hold it", f.Shards)
	}
	return best, nil
}

// burstable says whether a node lives on CPU credits.
func burstable(node string) bool { return strings.HasPrefix(node, "cache.t") }

// modern says whether a node is one of m6g to m8g and r6g to r8g: the others are not proposed for a durable cluster.
func modern(node string) bool {
	family := strings.TrimPrefix(node, "cache.")
	return len(family) > 2 && (family[0] == 'm' || family[0] == 'r') && family[1] >= '6' && strings.HasPrefix(family[2:], "g.")
}

// USD is what all groups cost a month.
func (p Plan) USD() (sum float64) {
	for _, g := range p.Groups {
		sum += g.Side.USD
	}
	return sum
}

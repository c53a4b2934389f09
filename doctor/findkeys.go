package doctor

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

const mib = 1 << 20

func (x *exam) bigKeys() {
	for _, k := range x.r.Big {
		severity := Medium
		switch {
		case k.Bytes >= 100*mib || k.Length >= 1_000_000 && k.Type != "string":
			severity = High
		case k.Bytes < 10*mib && (k.Length < 100_000 || k.Type == "string"):
			continue
		}
		fix := "split it over several keys, by a hash of the element; delete it with UNLINK, not with DEL"
		if k.Type == "string" {
			fix = "keep it in object storage, and its name here; delete it with UNLINK, not with DEL"
		}
		evidence := fmt.Sprintf("%s as %s", size(k.Bytes), k.Encoding)
		if k.Length > 0 && k.Type != "string" {
			evidence += fmt.Sprintf(", %d elements", k.Length)
		}
		x.find("big-key", severity, k.Key, "a "+k.Type+" that holds the server up when it is read, deleted or moved as a whole", evidence, fix, 0)
	}
}

func (x *exam) hotKeys() {
	for i, k := range x.r.Hot {
		if k.Freq < 200 || i >= 3 { // 100 accesses make about 10, a million 255
			break
		}
		x.find("hot-key", Low, k.Key, "a key that is used more than others by orders of magnitude: one node, on one core, answers for it",
			fmt.Sprintf("OBJECT FREQ %d of 255", k.Freq), "keep it in the process too (a local tier), or under several names", 0)
	}
}

func (x *exam) storms() {
	for i, s := range x.r.Storms {
		if i > 0 { // the others are in the report
			break
		}
		severity := Medium
		if float64(s.Keys) >= 0.1*float64(x.r.Keys) {
			severity = High
		}
		x.find("expiry-storm", severity, s.At.Format(time.RFC3339), "many keys end in the same second: their removal holds the server up, and all are loaded again at once",
			fmt.Sprintf("%d of %d keys; %d such seconds in the next %d days", s.Keys, x.r.Keys, len(x.r.Storms), stormDays),
			"add jitter to the TTL: SET key value EX $((300 + RANDOM % 60))", 0)
	}
}

// forgotten finds keys without a TTL among others like them that have one.
func (x *exam) forgotten() {
	for _, p := range x.r.Prefixes {
		if x.ours(p.Pattern) {
			continue
		}
		ends := p.Keys - p.NoTTL
		if p.NoTTL < 10 || ends < 9*p.NoTTL && (ends < 100 || ends < p.NoTTL) {
			continue
		}
		x.find("no-ttl", Medium, p.Pattern, "keys that never end, among others of the same kind that do: some writer forgets the TTL",
			fmt.Sprintf("%d of %d keys have none, %s", p.NoTTL, p.Keys, size(p.NoTTLBytes)),
			"give them the TTL of the others: EXPIRE key SECONDS NX, and in the writer SET with EX", p.NoTTLBytes)
	}
}

// ours says whether a pattern is of the toolkit's keys, which know when they end.
func (x *exam) ours(pattern string) bool {
	return slices.ContainsFunc(x.cfg.Prefixes, func(p string) bool { return strings.HasPrefix(pattern, p+":") })
}

func (x *exam) objects() {
	for _, o := range x.r.Objects {
		if o.SavesBytes < mib || o.SavesBytes < 0.1*o.Bytes {
			continue
		}
		x.find("json-string", Low, o.Pattern, "JSON objects in strings: as hashes they would take less, and single fields could be read and changed",
			fmt.Sprintf("%.0f B each as a string, %.0f B as a hash, from %d samples, on this server's version", o.StringBytes, o.HashBytes, o.Samples),
			"HSET key field value ... in place of SET key json", o.SavesBytes)
	}
}

// incomparable says why the growth since an earlier report can't be told.
func incomparable(old, r *Report) string {
	switch {
	case !old.Taken.Before(r.Taken):
		return "the earlier report was not taken before this one"
	case !old.Complete:
		return "the earlier report is not of all keys"
	case !r.Complete:
		return "this report is not of all keys"
	case old.Server.Kind != r.Server.Kind || old.Server.Cluster != r.Server.Cluster && old.Source != "rdb" && r.Source != "rdb":
		return "the earlier report is of another kind of server"
	}
	return ""
}

// growth compares with an earlier report.
func (x *exam) growth() {
	old := x.cfg.Since
	if why := incomparable(old, x.r); why != "" {
		x.r.Notes = append(x.r.Notes, "growth is not told: "+why)
		return
	}
	g := &Growth{Since: old.Taken, Keys: x.r.Keys - old.Keys, Bytes: x.r.Bytes - old.Bytes}
	before := map[string]Prefix{}
	for _, p := range old.Prefixes {
		before[p.Pattern] = p
	}
	listed, least := 0.0, math.Inf(1) // a prefix that was too small for the list is not a new one
	for _, p := range old.Prefixes {
		listed, least = listed+p.Bytes, min(least, p.Bytes)
	}
	cut := listed < 0.999*old.Bytes
	for _, p := range x.r.Prefixes {
		was, ok := before[p.Pattern]
		if !ok && cut && p.Bytes <= 2*least {
			continue
		}
		if d := p.Bytes - was.Bytes; math.Abs(d) >= 1 || p.Keys != was.Keys {
			g.Prefixes = append(g.Prefixes, Growing{p.Pattern, p.Keys - was.Keys, d})
		}
		delete(before, p.Pattern)
	}
	for _, p := range old.Prefixes {
		if _, gone := before[p.Pattern]; gone && len(x.r.Prefixes) < x.cfg.Top {
			g.Prefixes = append(g.Prefixes, Growing{p.Pattern, -p.Keys, -p.Bytes})
		}
	}
	slices.SortFunc(g.Prefixes, func(a, b Growing) int {
		return cmp.Or(cmp.Compare(math.Abs(b.Bytes), math.Abs(a.Bytes)), strings.Compare(a.Pattern, b.Pattern))
	})
	x.r.Growth = g
	days := x.r.Taken.Sub(old.Taken).Hours() / 24
	left := float64(x.r.Server.MaxMemory - x.r.Server.Used)
	if days <= 0 || g.Bytes <= old.Margin+x.r.Margin || x.r.Server.MaxMemory == 0 {
		return
	}
	g.FullIn = max(0, left) / (g.Bytes / days)
	if g.FullIn >= 14 {
		return
	}
	severity := Medium
	if g.FullIn < 3 {
		severity = High
	}
	where := "the database"
	if len(g.Prefixes) > 0 {
		where = g.Prefixes[0].Pattern
	}
	x.find("growth", severity, where, "maxmemory will be reached soon at this rate",
		fmt.Sprintf("%s in %.1f days; %s are left, for %.1f days", size(g.Bytes), days, size(max(0, left)), g.FullIn),
		"a larger node, or a TTL for what grows", 0)
}

package doctor

import "strings"

// Role is what a key of the toolkit is for, and what its loss would mean.
type Role struct {
	Block string `json:"block"` // the building block: lock, queue, ...
	Part  string `json:"part"`  // the key's part in it: own, ready, ...
	// Loss is what happens when the key is evicted.
	Loss Loss `json:"loss"`
}

// Loss says what the eviction of a key does.
type Loss string

// The losses, the harmless one first.
const (
	Reload   Loss = "reload"   // it is loaded or made again: a cache
	Forget   Loss = "forget"   // a count, a session, a lock: somebody gets what they should not, or loses what they had
	Destroy  Loss = "destroy"  // data that stands nowhere else: messages, writes that wait, fencing tokens
	Unproven Loss = "unproven" // not the toolkit's: nobody knows
)

// part is the last fixed word of a key, its type, and what its loss does. A word that ends in ":" has a
// name behind it.
type part struct {
	word, kind string
	loss       Loss
}

// layouts is docs/keys.md, as far as it tells keys apart. This is the only place that parses keys back.
var layouts = map[string][]part{
	"lock": {
		{"own:", "string", Forget}, {"wait:", "list", Reload}, {"place:", "hash", Reload}, {"gone:", "string", Reload},
		{"red:", "string", Forget}, {"fence", "string", Destroy}, {"sem:", "zset", Forget}, {"semwait:", "list", Reload},
		{"semplace:", "hash", Reload}, {"rw:", "zset", Forget}, {"rwwait:", "list", Reload}, {"rwplace:", "hash", Reload},
	},
	"queue": {
		{"names", "hash", Destroy}, {"meta", "hash", Destroy}, {"gone", "string", Reload}, {"ready", "list", Destroy},
		{"g:", "list", Destroy}, {"groups", "list", Destroy}, {"heads", "zset", Destroy}, {"locked", "zset", Forget},
		{"held", "hash", Destroy}, {"msg", "hash", Destroy}, {"flight", "zset", Destroy}, {"delay", "zset", Destroy},
		{"dead", "zset", Destroy}, {"why", "hash", Reload}, {"moved", "zset", Forget}, {"dedup", "hash", Forget},
		{"dedupq", "list", Forget}, {"unique", "hash", Forget}, {"cron", "hash", Destroy}, {"lead", "string", Forget},
		{"tries", "hash", Reload}, {"triesq", "list", Reload}, {"rates", "zset", Forget}, {"wait", "zset", Reload},
	},
	"log": {
		{"names", "hash", Destroy}, {"meta", "hash", Destroy}, {"gone", "string", Reload}, {"log", "stream", Destroy},
		{"groups", "set", Destroy}, {"own:", "string", Forget}, {"members:", "zset", Reload}, {"side:", "hash", Destroy},
		{"try:", "hash", Forget}, {"due:", "zset", Destroy}, {"dead:", "zset", Destroy}, {"wait", "zset", Reload},
	},
	"behind": {
		{"val:", "string", Destroy}, {"fill:", "string", Reload}, {"log", "hash", Destroy}, {"due", "zset", Destroy},
		{"flight", "zset", Destroy}, {"dead", "hash", Destroy}, {"own", "string", Forget}, {"layout", "string", Destroy},
	},
	"meter": {{"day:", "hash", Destroy}, {"seen:", "string", Forget}},
}

// classify says what a key of the toolkit is, by its layout and its type. The prefix is one of prefixes.
func classify(key, kind string, prefixes []string) (Role, bool) {
	for _, prefix := range prefixes {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok || rest == "" || rest[0] != ':' {
			continue
		}
		block, rest, ok := strings.Cut(rest[1:], ":")
		if !ok {
			continue
		}
		if role, ok := classifyIn(block, rest, kind); ok {
			return role, true
		}
	}
	return Role{}, false
}

func classifyIn(block, rest, kind string) (Role, bool) {
	switch block {
	case "cache":
		return cacheRole(rest, kind)
	case "obj":
		if tagged(rest) && kind == "hash" {
			return Role{"cache", "object", Reload}, true
		}
	case "rate":
		return rateRole(rest, kind)
	case "sess":
		return sessionRole(rest, kind)
	case "list":
		if kind == "list" && len(rest) > 2 && rest[0] == '{' && strings.IndexByte(rest, '}') == len(rest)-1 {
			return Role{"queue", "list", Destroy}, true
		}
	case "lock", "queue", "log", "behind", "meter":
		tag, tail, ok := afterTag(rest)
		if !ok || tag == "" {
			return Role{}, false
		}
		for _, p := range layouts[block] {
			named := strings.HasSuffix(p.word, ":")
			if p.kind == kind && (named && strings.HasPrefix(tail, p.word) || tail == p.word) {
				return Role{blockName(block), strings.TrimSuffix(p.word, ":"), p.loss}, true
			}
		}
	}
	return Role{}, false
}

func blockName(word string) string {
	switch word {
	case "behind":
		return "write-behind"
	case "log":
		return "queue"
	}
	return word
}

// afterTag splits "{TAG}:REST", and needs the tag to stand first.
func afterTag(rest string) (tag, tail string, ok bool) {
	rest, ok = strings.CutPrefix(rest, "{")
	if !ok {
		return "", "", false
	}
	tag, tail, ok = strings.Cut(rest, "}")
	if !ok {
		return "", "", false
	}
	tail, ok = strings.CutPrefix(tail, ":")
	return tag, tail, ok
}

// tagged says whether a key is "NAME:{TAG}".
func tagged(rest string) bool {
	open := strings.IndexByte(rest, '{')
	return open > 0 && rest[open-1] == ':' && strings.HasSuffix(rest, "}")
}

func cacheRole(rest, kind string) (Role, bool) {
	if !tagged(rest) {
		return Role{}, false
	}
	word, more, _ := strings.Cut(rest, ":")
	inner := strings.Contains(more, ":{") // "fill:NAME:{KEY}", not a cache whose name is "fill"
	switch {
	case inner && word == "fill" && kind == "string":
		return Role{"cache", "fill", Reload}, true
	case inner && word == "tag" && kind == "string":
		return Role{"cache", "tag", Reload}, true
	case inner && word == "wait" && kind == "set":
		return Role{"cache", "wait", Reload}, true
	case inner && word == "late" && kind == "zset":
		return Role{"cache", "late", Reload}, true
	case kind == "string":
		return Role{"cache", "entry", Reload}, true
	}
	return Role{}, false
}

func rateRole(rest, kind string) (Role, bool) {
	open := strings.IndexByte(rest, '{')
	if open < 1 || rest[open-1] != ':' {
		return Role{}, false
	}
	switch {
	case kind == "string" && strings.HasSuffix(rest, "}"):
		return Role{"ratelimit", "count", Forget}, true
	case kind == "zset" && strings.HasSuffix(rest, "}:held"):
		return Role{"ratelimit", "held", Forget}, true
	}
	return Role{}, false
}

func sessionRole(rest, kind string) (Role, bool) {
	if open := strings.IndexByte(rest, '{'); open > 0 && rest[open-1] == ':' { // a store has its name before the tag
		rest = rest[open:]
	}
	_, tail, ok := afterTag(rest)
	if !ok || tail == "" {
		return Role{}, false
	}
	for _, p := range []part{{"user", "zset", Forget}, {"all", "zset", Forget}, {"ends", "zset", Forget}, {"notes", "hash", Forget}, {"sweep", "string", Reload}} {
		if tail == p.word && kind == p.kind {
			return Role{"session", p.word, p.loss}, true
		}
	}
	if kind == "string" {
		return Role{"session", "session", Forget}, true
	}
	return Role{}, false
}

package doctor

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// Objects are strings of one prefix that hold JSON objects, and what hashes in their place would take, on this
// server's version.
type Objects struct {
	Pattern     string  `json:"pattern"`
	Samples     int     `json:"samples"`
	StringBytes float64 `json:"string_bytes"` // each, on average
	HashBytes   float64 `json:"hash_bytes"`
	Bytes       float64 `json:"bytes"`       // of the whole prefix
	SavesBytes  float64 `json:"saves_bytes"` // less than zero if hashes would take more
}

// objects groups the values that were read by the prefix that their key belongs to.
func objects(values []valueSample, m model, prefixes []Prefix) []Objects {
	groups := map[string]*Objects{}
	for _, v := range values {
		asHash, ok := hashSize(m, v)
		if !ok {
			continue
		}
		asString, _ := m.str(int64(len(v.Key)), int64(len(v.Value)), false, v.TTL)
		at := slices.IndexFunc(prefixes, func(p Prefix) bool { return matches(p.Pattern, v.Key) })
		if at < 0 {
			continue
		}
		g := groups[prefixes[at].Pattern]
		if g == nil {
			g = &Objects{Pattern: prefixes[at].Pattern}
			for _, f := range prefixes[at].Forms {
				if f.Type == "string" {
					g.Bytes += f.Bytes
				}
			}
			groups[g.Pattern] = g
		}
		g.Samples++
		g.StringBytes += float64(asString)
		g.HashBytes += float64(asHash)
	}
	var list []Objects
	for _, g := range groups {
		if g.Samples < 3 {
			continue
		}
		g.SavesBytes = g.Bytes * (1 - g.HashBytes/g.StringBytes)
		g.StringBytes /= float64(g.Samples)
		g.HashBytes /= float64(g.Samples)
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b Objects) int { return strings.Compare(a.Pattern, b.Pattern) })
	return list
}

// matches says whether a key belongs to a pattern of the tree.
func matches(pattern, key string) bool {
	for depth := 0; key != "" && depth < maxDepth; depth++ {
		var w, p string
		w, key = word(key)
		p, pattern = word(pattern)
		if p != w && p != glob(w) && !strings.HasPrefix(p, "*") {
			return false
		}
		if pattern == "" {
			return key == "" || strings.HasPrefix(p, "*") && depth == maxDepth-1
		}
	}
	return key == "" && pattern == ""
}

// hashSize is what a flat JSON object would take as a hash in one listpack; false if the value is none.
func hashSize(m model, v valueSample) (int64, bool) {
	if len(v.Value) < 2 || v.Value[0] != '{' {
		return 0, false
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(v.Value, &fields) != nil || len(fields) == 0 || len(fields) > 128 {
		return 0, false
	}
	total := int64(7) // the listpack's header and end
	for name, raw := range fields {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			text = string(bytes.TrimSpace(raw)) // an object or a list would stay JSON within the field
		}
		if len(name) > 64 || len(text) > 64 { // then it is no listpack
			return 0, false
		}
		total += packed(name) + packed(text)
	}
	return m.blob(int64(len(v.Key)), total, v.TTL), true
}

// packed is the size of an element of a listpack: its head, its bytes, and its length behind it.
func packed(s string) int64 {
	n := int64(len(s))
	if integer(s) {
		switch {
		case n <= 2 || n == 3 && s < "128":
			return 1 + 1
		case n <= 4:
			return 2 + 1
		case n <= 5:
			return 3 + 1
		case n <= 7:
			return 4 + 1
		case n <= 10:
			return 5 + 1
		}
		return 9 + 1
	}
	if n < 64 {
		return 1 + n + 1
	}
	return 2 + n + 1
}

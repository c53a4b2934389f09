// Package domains has the rules of an Envoy rate-limit service: which descriptor of which domain has which limit.
//
// [Parse] reads the files that envoyproxy/ratelimit reads, and [Set.Match] finds the rule of a descriptor. What a
// file may say is in docs/serve.md.
package domains

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/yamlfile"
)

// Bounds of what is read.
const (
	maxDepth  = 16              // of nested descriptors
	maxText   = 1024            // bytes of a domain, a key, a value or a name
	maxWindow = 400 * day       // what package ratelimit counts in
	maxPer    = math.MaxUint32  // requests_per_unit, as in the protocol
	maxTimes  = 400 * 24 * 3600 // unit_multiplier
)

const day = 24 * time.Hour

// Unit is a unit of time of a limit.
type Unit string

// units are those of the protocol. As in envoyproxy/ratelimit all are fixed windows from the Unix epoch on: a month has
// 30 days, a year 365, and a week begins on a Thursday.
var units = map[Unit]time.Duration{
	"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": day,
	"week": 7 * day, "month": 30 * day, "year": 365 * day,
}

var unitNames = []string{"second", "minute", "hour", "day", "week", "month", "year"}

// Duration is the unit's length, or zero if there is no such unit.
func (u Unit) Duration() time.Duration { return units[u] }

// Limit is so many requests in so many units.
type Limit struct {
	Requests uint32
	Unit     Unit
	Times    uint32 // of the unit, at least 1
}

// Window is how long the limit's window is.
func (l Limit) Window() time.Duration { return time.Duration(l.Times) * l.Unit.Duration() }

// Rule is what holds for a descriptor: a plan, or a limit, or no limit at all.
type Rule struct {
	// Label is the rule's place in the file, for metrics: "domain: key=value, key".
	Label string
	// Name is its own, and Replaces are the names of rules that do not count beside it.
	Name     string
	Replaces []string

	Plan      string
	Limit     Limit // of no requests: everything is denied
	Unlimited bool
	// Shadow counts, and never denies.
	Shadow bool
}

// Set is the rules of all domains. It is never modified.
type Set struct {
	domains map[string]*node
	rules   int
}

// Rules is how many rules there are.
func (s *Set) Rules() int { return s.rules }

// Plans are the names of the plans that rules have, sorted.
func (s *Set) Plans() []string {
	var names []string
	for _, n := range s.domains {
		n.walk(func(n *node) {
			if n.rule != nil && n.rule.Plan != "" {
				names = append(names, n.rule.Plan)
			}
		})
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// node is a descriptor of a file.
type node struct {
	rule   *Rule
	exact  map[Entry]*node
	prefix []prefixed // in the order of the file
	any    map[string]*node
	// shared is what stands for the value in the subject where all values of a wildcard share a counter.
	shared string
}

type prefixed struct {
	Entry
	node *node
}

func (n *node) walk(f func(*node)) {
	f(n)
	for _, child := range n.exact {
		child.walk(f)
	}
	for _, p := range n.prefix {
		p.node.walk(f)
	}
	for _, child := range n.any {
		child.walk(f)
	}
}

// File is a file to parse.
type File struct {
	Name string
	Data []byte
}

// Parse reads files with a domain each. The error lists what is wrong with the first file that has a mistake.
func Parse(files []File) (*Set, error) {
	s := &Set{domains: map[string]*node{}}
	from := map[string]string{}
	for _, file := range files {
		doc, root, err := yamlfile.Parse(file.Name, file.Data)
		if err != nil {
			return nil, err
		}
		r := reader{set: s}
		if m, ok := root.Keys("domain", "descriptors"); ok {
			name := r.text(m, "domain")
			switch before, again := from[name]; {
			case name == "":
				m.At("domain").Fail("the domain is empty")
			case again:
				m.At("domain").Fail("domain %q again: it is in %s already", name, before)
			}
			from[name] = file.Name
			n := &node{}
			r.children(m, n, name+":", 1)
			s.domains[name] = n
		}
		if err := doc.Err(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

type reader struct{ set *Set }

// text reads a scalar as text: a number in it is text too, as in the service that these files are from.
func (r reader) text(m yamlfile.Map, name string) string {
	v, ok := m.Get(name)
	if !ok {
		return ""
	}
	text := v.Plain()
	if text == "" {
		text = v.Text()
	}
	if len(text) > maxText {
		v.Fail("%s has over %d bytes", name, maxText)
	}
	return text
}

func (r reader) yes(m yamlfile.Map, name string) bool {
	v, ok := m.Get(name)
	return ok && v.Word("false", "true") == 1
}

func (r reader) children(m yamlfile.Map, parent *node, label string, depth int) {
	list, ok := m.Get("descriptors")
	if !ok {
		return
	}
	if depth > maxDepth {
		list.Fail("descriptors are nested over %d deep", maxDepth)
		return
	}
	for _, v := range list.List() {
		r.descriptor(v, parent, label, depth)
	}
}

func (r reader) descriptor(v yamlfile.Value, parent *node, label string, depth int) {
	m, ok := v.Keys("key", "value", "rate_limit", "plan", "descriptors", "shadow_mode",
		"share_threshold", "detailed_metric", "value_to_metric", "quota_mode")
	if !ok {
		return
	}
	key, value := r.text(m, "key"), r.text(m, "value")
	switch {
	case key == "":
		m.At("key").Fail("the descriptor has no key")
	case strings.HasSuffix(key, "*"):
		m.At("key").Fail("a wildcard stands in a value, not in a key")
	}
	for _, name := range []string{"detailed_metric", "value_to_metric"} {
		r.yes(m, name) // they widen metrics, which are bounded here: docs/serve.md
	}
	if r.yes(m, "quota_mode") {
		m.At("quota_mode").Fail("quota_mode is not supported: shadow_mode also counts and never denies")
	}
	label += " " + key
	if value != "" {
		label += "=" + value
	}
	n := &node{rule: r.rule(m, label)}
	if n.rule != nil {
		r.set.rules++
	}
	if !parent.add(key, value, n) {
		v.Fail("descriptor %q again", strings.TrimSpace(key+" "+value))
	}
	if r.yes(m, "share_threshold") {
		if !strings.HasSuffix(value, "*") {
			m.At("share_threshold").Fail("share_threshold needs a value with a wildcard")
		}
		n.shared = value
	}
	r.children(m, n, label+",", depth+1)
}

// add puts a child in its place; ok is false if there is one already.
func (n *node) add(key, value string, child *node) (ok bool) {
	if value == "" {
		if n.any == nil {
			n.any = map[string]*node{}
		}
		_, again := n.any[key]
		n.any[key] = child
		return !again
	}
	if text, isWild := strings.CutSuffix(value, "*"); isWild {
		e := Entry{key, text}
		again := slices.ContainsFunc(n.prefix, func(p prefixed) bool { return p.Entry == e })
		n.prefix = append(n.prefix, prefixed{e, child})
		return !again
	}
	if n.exact == nil {
		n.exact = map[Entry]*node{}
	}
	_, again := n.exact[Entry{key, value}]
	n.exact[Entry{key, value}] = child
	return !again
}

// rule reads what holds for a descriptor; nil if it has no limit of its own.
func (r reader) rule(m yamlfile.Map, label string) *Rule {
	rule := &Rule{Label: label, Shadow: r.yes(m, "shadow_mode"), Plan: r.text(m, "plan")}
	v, limited := m.Get("rate_limit")
	switch {
	case limited && rule.Plan != "":
		m.At("plan").Fail("a descriptor has a plan or a rate_limit, not both")
		return nil
	case !limited && rule.Plan == "":
		if rule.Shadow {
			m.At("shadow_mode").Fail("shadow_mode without a rate_limit or a plan")
		}
		return nil
	case !limited:
		return rule
	}
	l, ok := v.Keys("unit", "requests_per_unit", "unit_multiplier", "unlimited", "name", "replaces")
	if !ok {
		return nil
	}
	rule.Name = r.text(l, "name")
	if list, ok := l.Get("replaces"); ok {
		for _, v := range list.List() {
			rule.Replaces = append(rule.Replaces, r.replaces(v, rule.Name))
		}
	}
	if rule.Unlimited = r.yes(l, "unlimited"); rule.Unlimited {
		for _, name := range []string{"unit", "requests_per_unit", "unit_multiplier"} {
			if v, ok := l.Get(name); ok {
				v.Fail("%s beside unlimited", name)
			}
		}
		return rule
	}
	rule.Limit = r.limit(l)
	return rule
}

func (r reader) replaces(v yamlfile.Value, own string) string {
	m, ok := v.Keys("name")
	if !ok {
		return ""
	}
	name := r.text(m, "name")
	switch name {
	case "":
		m.Fail("the name is missing")
	case own:
		m.At("name").Fail("a rule can't replace itself")
	}
	return name
}

func (r reader) limit(m yamlfile.Map) Limit {
	l := Limit{Times: 1}
	if v, ok := m.Get("unit"); !ok {
		m.Fail("unit is missing")
	} else if text := strings.ToLower(v.Name()); Unit(text).Duration() != 0 {
		l.Unit = Unit(text)
	} else {
		v.Fail("not one of %s", strings.Join(unitNames, ", "))
	}
	if v, ok := m.Get("requests_per_unit"); !ok {
		m.Fail("requests_per_unit is missing")
	} else if n, ok := v.Int(); ok && n >= 0 && n <= maxPer {
		l.Requests = uint32(n)
	} else if ok {
		v.Fail("requests_per_unit is %d, not from 0 to %d", n, uint32(maxPer))
	}
	if v, ok := m.Get("unit_multiplier"); ok {
		n, ok := v.Int()
		switch {
		case !ok:
		case n < 1 || n > maxTimes:
			v.Fail("unit_multiplier is %d, not from 1 to %d", n, maxTimes)
		default:
			if l.Times = uint32(n); l.Window() > maxWindow {
				v.Fail("the window is over %d days", maxWindow/day)
			}
		}
	}
	return l
}

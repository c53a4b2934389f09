package domains

import "strings"

// Entry is a part of a descriptor.
type Entry struct{ Key, Value string }

// Match finds the rule of a descriptor, and the subject that it counts for; rule is nil if there is none. known
// says whether the domain exists.
//
// At each level the exact value comes first, then the first wildcard of the file that fits, then the key without a
// value. The rule is that of the last entry: one that has fewer or more entries than the file has levels has none.
func (s *Set) Match(domain string, entries []Entry) (rule *Rule, subject string, known bool) {
	n, known := s.domains[domain]
	if !known {
		return nil, "", false
	}
	var b strings.Builder
	for i, e := range entries {
		if n = n.child(e); n == nil {
			return nil, "", true
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		writeEntry(&b, e.Key, e.Value, n.shared)
	}
	if n.rule == nil {
		return nil, "", true
	}
	return n.rule, b.String(), true
}

// Subject is what a descriptor counts for where no rule is asked, as with a limit of the request's own.
func Subject(entries []Entry) string {
	var b strings.Builder
	for i, e := range entries {
		if i > 0 {
			b.WriteByte(' ')
		}
		writeEntry(&b, e.Key, e.Value, "")
	}
	return b.String()
}

// escape keeps apart what is put together: no entry looks like two, and no value like a wildcard.
var escape = strings.NewReplacer("%", "%25", " ", "%20", "=", "%3D", "*", "%2A")

func writeEntry(b *strings.Builder, key, value, shared string) {
	_, _ = escape.WriteString(b, key)
	b.WriteByte('=')
	if shared != "" {
		_, _ = escape.WriteString(b, strings.TrimSuffix(shared, "*"))
		b.WriteByte('*')
		return
	}
	_, _ = escape.WriteString(b, value)
}

func (n *node) child(e Entry) *node {
	if child, ok := n.exact[e]; ok {
		return child
	}
	for _, p := range n.prefix {
		if p.Key == e.Key && strings.HasPrefix(e.Value, p.Value) {
			return p.node
		}
	}
	return n.any[e.Key]
}

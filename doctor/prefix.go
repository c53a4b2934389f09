package doctor

import (
	"cmp"
	"slices"
	"strings"
)

// Bounds of what is kept about prefixes, whatever the keys are called.
const (
	maxChildren = 32     // words at one place; more of them are names, and become one "*"
	maxDepth    = 6      // words of a pattern
	maxNodes    = 40_000 // of the whole tree
	maxWord     = 40     // bytes of a word; longer ones are names
)

// Sum is what is counted of a group of keys.
type Sum struct {
	Keys  int64   `json:"keys"`
	Bytes float64 `json:"bytes"`
	NoTTL int64   `json:"no_ttl"`
	// NoTTLBytes are the bytes of those without a time to live.
	NoTTLBytes float64 `json:"no_ttl_bytes"`
}

func (s *Sum) add(o Sum) {
	s.Keys += o.Keys
	s.Bytes += o.Bytes
	s.NoTTL += o.NoTTL
	s.NoTTLBytes += o.NoTTLBytes
}

// tree finds the prefixes: the words of keys between their delimiters. A place at which many different
// words stand holds names, and is shown as "*". What it says depends on the set of keys, not on their order.
type tree struct {
	Root  *node
	Nodes int
}

type node struct {
	Sum   Sum              // of the keys that end here
	Forms map[string]Sum   // the same, by type and encoding
	Words map[string]*node // nil at an end
	Many  bool             // the only word is "*"
}

func newTree() *tree { return &tree{Root: &node{}} }

// word cuts the first word off a key, its delimiter included.
func word(key string) (first, rest string) {
	for i := range len(key) {
		switch key[i] {
		case ':', '/', '|', '.', '#', '_', '-':
			if i >= maxWord {
				return "*", key[i+1:]
			}
			return key[:i+1], key[i+1:]
		}
		if i > 512 {
			break
		}
	}
	return key, ""
}

// variable says of a word without its delimiter that it is a name by its look: a number, or something long
// with digits in it.
func variable(w string) bool {
	w = strings.Trim(w, "{}")
	digits, hex := 0, true
	for i := range len(w) {
		c := w[i]
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c < ' ' || c > '~':
			return true
		case (c < 'a' || c > 'f') && (c < 'A' || c > 'F'):
			hex = false
		}
	}
	return digits > 0 && (digits == len(w) || hex && len(w) >= 8 || len(w) > 16) || len(w) > maxWord
}

// glob is a word as it stands in a pattern.
func glob(w string) string {
	body, end := w, ""
	if n := len(w); n > 0 && strings.IndexByte(":/|.#_-", w[n-1]) >= 0 {
		body, end = w[:n-1], w[n-1:]
	}
	if body != "" && variable(body) {
		return brace(body) + end
	}
	return w
}

// brace keeps the braces of a hash tag, so that a pattern can be recognised.
func brace(body string) string {
	star := "*"
	if strings.HasPrefix(body, "{") {
		star = "{*"
	}
	if strings.HasSuffix(body, "}") {
		star += "}"
	}
	return star
}

// add counts a key.
func (t *tree) add(key, form string, s Sum) {
	at := t.Root
	for depth := 0; key != "" && depth < maxDepth; depth++ {
		var w string
		if w, key = word(key); depth == maxDepth-1 && key != "" {
			w, key = "*", ""
		}
		next := at.child(glob(w))
		if next == nil {
			next = t.grow(at, glob(w))
		}
		at = next
	}
	at.Sum.add(s)
	if at.Forms == nil {
		at.Forms = map[string]Sum{}
	}
	f := at.Forms[form]
	f.add(s)
	at.Forms[form] = f
}

func (n *node) child(w string) *node {
	if n.Many {
		return n.Words["*"]
	}
	return n.Words[w]
}

func (t *tree) grow(at *node, w string) *node {
	if at.Words == nil {
		at.Words = map[string]*node{}
	}
	t.Nodes++
	next := &node{}
	at.Words[w] = next
	if len(at.Words) > maxChildren || t.Nodes > maxNodes {
		next = t.collapse(at)
	}
	return next
}

// collapse makes one "*" of all words at a place.
func (t *tree) collapse(at *node) *node {
	all := &node{}
	for _, n := range at.Words {
		t.merge(all, n)
		t.Nodes--
	}
	at.Words, at.Many = map[string]*node{"*": all}, true
	t.Nodes++
	return all
}

func (t *tree) merge(into, from *node) {
	into.Sum.add(from.Sum)
	for form, s := range from.Forms {
		if into.Forms == nil {
			into.Forms = map[string]Sum{}
		}
		f := into.Forms[form]
		f.add(s)
		into.Forms[form] = f
	}
	if from.Many && !into.Many && len(into.Words) > 0 {
		t.collapse(into)
	}
	if from.Many {
		into.Many = true
	}
	for w, n := range from.Words {
		old := into.child(w)
		if old == nil {
			if into.Words == nil {
				into.Words = map[string]*node{}
			}
			into.Words[w] = n
			if len(into.Words) > maxChildren {
				t.collapse(into)
			}
			continue
		}
		t.merge(old, n)
		t.Nodes--
	}
}

// prefixes lists the patterns, the one with the most bytes first.
// Full completes what was counted of each.
func (t *tree) prefixes(full func(Sum) Sum, top int) []Prefix {
	all := []Prefix{} // a list in JSON, also where it is empty
	t.Root.walk("", full, &all)
	slices.SortFunc(all, func(a, b Prefix) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Pattern, b.Pattern))
	})
	return all[:min(top, len(all))]
}

func (n *node) walk(at string, full func(Sum) Sum, all *[]Prefix) {
	if n.Sum.Keys > 0 {
		p := Prefix{Pattern: at, Sum: full(n.Sum)}
		for form, s := range n.Forms {
			kind, encoding, _ := strings.Cut(form, " ")
			p.Forms = append(p.Forms, Form{kind, encoding, full(s)})
		}
		slices.SortFunc(p.Forms, func(a, b Form) int {
			return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Type+a.Encoding, b.Type+b.Encoding))
		})
		*all = append(*all, p)
	}
	for w, next := range n.Words {
		next.walk(at+w, full, all)
	}
}

// Prefix is a group of keys that are called alike; "*" stands for the part in which they differ.
type Prefix struct {
	Pattern string `json:"pattern"`
	Sum
	Forms []Form `json:"forms"`
}

// Form is a type in one encoding.
type Form struct {
	Type     string `json:"type"`
	Encoding string `json:"encoding"`
	Sum
}

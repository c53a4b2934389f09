package doctor

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"
)

// question is a command about a key.
type question struct {
	name string
	args []string // before the key, and behind it
	tail []string
	set  func(e *entry, reply valkey.ValkeyMessage)
}

// look asks about the keys of a batch, and fills its entries. What is refused is left out from then on.
func (s *scan) look(ctx context.Context, a *asker, b *batch) {
	begin := s.cfg.now()
	all := make([]entry, len(b.keys))
	alive := make([]bool, len(all))
	for i, key := range b.keys {
		all[i] = entry{key: key, end: -1, freq: -1, kind: "?", encoding: "?"}
		alive[i] = true
	}
	first := s.first(begin)
	if b.err = s.put(ctx, a, b, all, alive, func(*entry) []question { return first }); b.err != nil {
		return
	}
	if b.err = s.put(ctx, a, b, all, alive, s.second); b.err != nil {
		return
	}
	if b.err = s.put(ctx, a, b, all, alive, s.third); b.err != nil {
		return
	}
	for i := range all {
		if alive[i] {
			b.entries = append(b.entries, all[i])
		}
	}
}

// first is what is asked of each key.
func (s *scan) first(now time.Time) []question {
	ends := question{"PEXPIRETIME", nil, nil, func(e *entry, m valkey.ValkeyMessage) {
		if ms, err := m.AsInt64(); err == nil && ms >= 0 {
			e.end = ms
		}
	}}
	if s.refused.has("PEXPIRETIME") {
		ends = question{"PTTL", nil, nil, func(e *entry, m valkey.ValkeyMessage) {
			if ms, err := m.AsInt64(); err == nil && ms >= 0 {
				e.end = now.UnixMilli() + ms
			}
		}}
	}
	list := []question{ends,
		{"OBJECT ENCODING", []string{"OBJECT", "ENCODING"}, nil, func(e *entry, m valkey.ValkeyMessage) {
			e.encoding, _ = m.ToString()
			e.kind = kindOf(e.encoding)
		}},
	}
	usage := question{"MEMORY USAGE", []string{"MEMORY", "USAGE"}, nil, func(e *entry, m valkey.ValkeyMessage) { e.usage, _ = m.AsInt64() }}
	if n := s.cfg.KeySamples; n != DefaultKeySamples {
		usage.tail = []string{"SAMPLES", strconv.Itoa(max(0, n))}
	}
	list = append(list, usage)
	if strings.HasSuffix(s.info.Eviction, "-lfu") {
		list = append(list, question{"OBJECT FREQ", []string{"OBJECT", "FREQ"}, nil, func(e *entry, m valkey.ValkeyMessage) {
			if n, err := m.AsInt64(); err == nil {
				e.freq = int(n)
			}
		}})
	}
	return list
}

// kindOf is the type that goes with an encoding, "?" where several do.
func kindOf(encoding string) string {
	switch encoding {
	case "int", "embstr", "raw":
		return "string"
	case "quicklist", "linkedlist":
		return "list"
	case "intset":
		return "set"
	case "skiplist":
		return "zset"
	case "stream":
		return "stream"
	}
	return "?"
}

// second asks for the type where the encoding does not tell it.
func (s *scan) second(e *entry) []question {
	if e.kind != "?" {
		return nil
	}
	return []question{{"TYPE", nil, nil, func(e *entry, m valkey.ValkeyMessage) {
		if kind, _ := m.ToString(); kind != "none" {
			e.kind = kind
		}
	}}}
}

// third asks for the length of what may be long. It counts as a use of the key, so that short collections are left alone.
func (s *scan) third(e *entry) []question {
	if e.usage > 0 && (e.kind == "string" || e.encoding == "listpack" || e.encoding == "intset") {
		return nil
	}
	command := map[string]string{"string": "STRLEN", "list": "LLEN", "set": "SCARD", "zset": "ZCARD", "hash": "HLEN", "stream": "XLEN"}[e.kind]
	if command == "" {
		return nil
	}
	return []question{{command, nil, nil, func(e *entry, m valkey.ValkeyMessage) { e.length, _ = m.AsInt64() }}}
}

// put asks questions about all keys that are left, in one round trip; once more if a command turns out to be refused.
func (s *scan) put(ctx context.Context, a *asker, b *batch, all []entry, alive []bool, about func(*entry) []question) error {
	type asked struct {
		key int
		q   question
	}
	var list []asked
	for i := range all {
		if !alive[i] {
			continue
		}
		for _, q := range about(&all[i]) {
			if !s.refused.has(q.name) {
				list = append(list, asked{i, q})
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	replies, err := a.do(ctx, len(list), func() []valkey.Completed {
		cmds := make([]valkey.Completed, len(list))
		for i, l := range list {
			cmds[i] = build(a.node, l.q, all[l.key].key)
		}
		return cmds
	})
	if err != nil {
		return err
	}
	for i, l := range list {
		m, err := replies[i].ToMessage()
		switch {
		case err == nil && alive[l.key]:
			l.q.set(&all[l.key], m)
		case err == nil:
		case isRefusal(err):
			s.refused.add(l.q.name)
		case hidesKey(err) && alive[l.key]:
			alive[l.key] = false
			b.hidden++
		case moved(err) && alive[l.key]:
			alive[l.key] = false
			b.moved++
		case valkey.IsValkeyNil(err) && l.q.name != "OBJECT FREQ": // it has ended meanwhile
			alive[l.key] = false
		}
	}
	return nil
}

func build(node valkey.Client, q question, key string) valkey.Completed {
	switch q.name {
	case "PEXPIRETIME":
		return node.B().Pexpiretime().Key(key).Build()
	case "OBJECT ENCODING":
		return node.B().ObjectEncoding().Key(key).Build()
	case "MEMORY USAGE":
		if q.tail == nil {
			return node.B().MemoryUsage().Key(key).Build()
		}
	}
	words := q.args
	if words == nil {
		words = []string{q.name}
	}
	return node.B().Arbitrary(words...).Keys(key).Args(q.tail...).Build()
}

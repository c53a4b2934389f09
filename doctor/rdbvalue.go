package doctor

import (
	"bytes"
	"encoding/binary"
)

// nodeBytes is what a node of a long list holds by default (list-max-listpack-size -2).
const nodeBytes = 8 << 10

// value reads a value: its size in memory follows from the lengths of its parts, so that nothing of it
// is kept.
func (f *rdbFile) value(kind byte) (entry, error) {
	switch kind {
	case 0:
		return f.stringValue()
	case 1:
		return f.listValue()
	case 2:
		return f.setValue()
	case 3, 5:
		return f.zsetValue(kind)
	case 4:
		return f.hashValue(false, false)
	case 7:
		at := f.in.offset()
		if _, err := f.in.number(); err != nil {
			return entry{}, err
		}
		err := f.moduleValue()
		return f.made("module", "module", 0, float64(f.model.object(f.keyLen, f.end >= 0)+f.in.offset()-at)), err
	case 9, 13, 16, 25:
		if kind == 25 { // Redis 7.4: when the first field ends
			if err := f.in.skip(8); err != nil {
				return entry{}, err
			}
		}
		return f.blobValue(kind, "hash")
	case 23:
		if f.valkey {
			return entry{}, f.in.wrong("a hash of paths (type 23) is not read")
		}
		return f.blobValue(kind, "hash")
	case 10:
		return f.blobValue(kind, "list")
	case 11, 20:
		return f.blobValue(kind, "set")
	case 12, 17:
		return f.blobValue(kind, "zset")
	case 14, 18:
		return f.quicklist(kind == 18)
	case 15, 19, 21:
		return f.stream(kind)
	case 22: // of Valkey 9; before its release Redis 7.4 wrote it too, in another way
		return f.hashValue(!f.valkey, f.valkey)
	case 24:
		if err := f.in.skip(8); err != nil {
			return entry{}, err
		}
		return f.hashValue(true, false)
	}
	return entry{}, f.in.wrong("the type %d is not known", kind)
}

func (f *rdbFile) made(kind, encoding string, length int64, bytes float64) entry {
	return entry{kind: kind, encoding: encoding, length: length, bytes: bytes}
}

func (f *rdbFile) base() int64 { return f.model.object(f.keyLen, f.end >= 0) }

func (f *rdbFile) stringValue() (entry, error) {
	want := 32
	if f.wants(f.key) {
		want = maxValue
	}
	t, err := f.in.string(want)
	if err != nil {
		return entry{}, err
	}
	whole := t.integer || t.len <= 20 && integer(string(t.head))
	size, encoding := f.model.str(f.keyLen, t.len, whole, f.end >= 0)
	e := f.made("string", encoding, t.len, float64(size))
	if want == maxValue && t.len <= maxValue {
		e.value = bytes.Clone(t.head)
	}
	return e, nil
}

// blobValue is a value of one block. Those of old formats are loaded into listpacks of about that size.
func (f *rdbFile) blobValue(code byte, kind string) (entry, error) {
	t, err := f.in.string(16)
	if err != nil {
		return entry{}, err
	}
	n, encoding := int64(0), "listpack"
	switch {
	case code == 11 && len(t.head) >= 8:
		n, encoding = int64(binary.LittleEndian.Uint32(t.head[4:])), "intset"
	case code == 9 && len(t.head) >= 1:
		n = int64(t.head[0]) * 2
	case (code == 10 || code == 12 || code == 13) && len(t.head) >= 10:
		n = int64(binary.LittleEndian.Uint16(t.head[8:]))
	case len(t.head) >= 6 && code != 11:
		n = int64(binary.LittleEndian.Uint16(t.head[4:]))
	default:
		return entry{}, f.in.wrong("a %s of %d bytes", kind, t.len)
	}
	if code == 25 || code == 23 {
		n = n / 3 * 2
	}
	if kind == "hash" || kind == "zset" {
		n /= 2
	}
	return f.made(kind, encoding, n, float64(f.model.blob(f.keyLen, t.len, f.end >= 0))), nil
}

// listValue is a list of the oldest formats; it is loaded into nodes.
func (f *rdbFile) listValue() (entry, error) {
	n, err := f.in.length()
	if err != nil {
		return entry{}, err
	}
	total := int64(0)
	for range n {
		t, err := f.in.string(0)
		if err != nil {
			return entry{}, err
		}
		total += t.len + 3
	}
	nodes := total/nodeBytes + 1
	return f.made("list", "quicklist", n, float64(f.base()+f.model.class(40)+nodes*f.model.class(32)+total)), nil
}

func (f *rdbFile) setValue() (entry, error) {
	n, err := f.in.length()
	if err != nil {
		return entry{}, err
	}
	total := float64(f.base() + f.model.dict(n))
	for range n {
		t, err := f.in.string(0)
		if err != nil {
			return entry{}, err
		}
		total += f.model.setMember(t.len, n)
	}
	return f.made("set", "hashtable", n, total), nil
}

func (f *rdbFile) zsetValue(kind byte) (entry, error) {
	n, err := f.in.length()
	if err != nil {
		return entry{}, err
	}
	total := float64(f.base() + f.model.skiplist(n))
	for range n {
		t, err := f.in.string(0)
		if err != nil {
			return entry{}, err
		}
		total += f.model.zsetMember(t.len)
		if err := f.score(kind); err != nil {
			return entry{}, err
		}
	}
	return f.made("zset", "skiplist", n, total), nil
}

func (f *rdbFile) score(kind byte) error {
	if kind == 5 {
		return f.in.skip(8)
	}
	n, err := f.in.byte() // 253 to 255 are NaN and the infinities
	if err != nil || n >= 253 {
		return err
	}
	return f.in.skip(int64(n))
}

// hashValue reads a hash. Times of fields stand before them in Redis's form, behind them in Valkey's.
func (f *rdbFile) hashValue(before, behind bool) (entry, error) {
	n, err := f.in.length()
	if err != nil {
		return entry{}, err
	}
	total := float64(f.base() + f.model.dict(n))
	for range n {
		ttl := false
		if before {
			end, err := f.in.number()
			if err != nil {
				return entry{}, err
			}
			ttl = end > 0
		}
		field, err := f.in.string(0)
		if err != nil {
			return entry{}, err
		}
		value, err := f.in.string(0)
		if err != nil {
			return entry{}, err
		}
		if behind {
			end, err := f.in.fixed(8)
			if err != nil {
				return entry{}, err
			}
			ttl = int64(end) >= 0
		}
		total += float64(f.model.hashField(field.len, value.len, ttl))
	}
	return f.made("hash", "hashtable", n, total), nil
}

func (f *rdbFile) quicklist(containers bool) (entry, error) {
	nodes, err := f.in.length()
	if err != nil {
		return entry{}, err
	}
	var blocks, length, single int64
	for range nodes {
		packed := true
		if containers {
			c, err := f.in.length()
			if err != nil {
				return entry{}, err
			}
			packed = c != 1
		}
		t, err := f.in.string(16)
		if err != nil {
			return entry{}, err
		}
		single = f.model.class(t.len)
		blocks += single + f.model.class(32)
		switch {
		case !packed:
			length++
		case containers && len(t.head) >= 6:
			length += int64(binary.LittleEndian.Uint16(t.head[4:]))
		case len(t.head) >= 10:
			length += int64(binary.LittleEndian.Uint16(t.head[8:]))
		}
	}
	// A list that fits one node is a plain listpack since 7.2, and is written as one node too.
	if f.model.flat && nodes == 1 && single <= nodeBytes {
		return f.made("list", "listpack", length, float64(f.base()+single)), nil
	}
	return f.made("list", "quicklist", length, float64(f.base()+f.model.class(40)+blocks)), nil
}

// moduleValue passes over the tagged parts of a module's value.
func (f *rdbFile) moduleValue() error {
	for {
		op, err := f.in.number()
		if err != nil {
			return err
		}
		switch op {
		case 0:
			return nil
		case 1, 2:
			err = f.numbers(1)
		case 3:
			err = f.in.skip(4)
		case 4:
			err = f.in.skip(8)
		case 5:
			_, err = f.in.string(0)
		default:
			err = f.in.wrong("a module's value with the unknown part %d", op)
		}
		if err != nil {
			return err
		}
	}
}

// stream reads the listpacks of a stream, its groups and what they have not acknowledged.
func (f *rdbFile) stream(kind byte) (entry, error) {
	nodes, err := f.in.length()
	if err != nil {
		return entry{}, err
	}
	total := f.base() + f.model.class(112)
	for i := range nodes {
		if _, err := f.in.string(0); err != nil {
			return entry{}, err
		}
		t, err := f.in.string(0)
		if err != nil {
			return entry{}, err
		}
		size := t.len
		if i == nodes-1 {
			size = max(size, 4096) // it has room for more, by default (stream-node-max-bytes)
		}
		total += f.model.class(size) + 48 // and its place in the radix tree
	}
	length, err := f.in.length()
	if err != nil {
		return entry{}, err
	}
	ids := int64(2)
	if kind >= 19 {
		ids = 7
	}
	if err := f.numbers(ids); err != nil {
		return entry{}, err
	}
	groups, err := f.groups(kind)
	return f.made("stream", "stream", length, float64(total+groups)), err
}

func (f *rdbFile) groups(kind byte) (bytes int64, err error) {
	n, err := f.in.length()
	for ; err == nil && n > 0; n-- {
		var pending int64
		if _, err = f.in.string(0); err != nil {
			return 0, err
		}
		ids := int64(2)
		if kind >= 19 {
			ids = 3
		}
		if err = f.numbers(ids); err != nil {
			return 0, err
		}
		if pending, err = f.in.length(); err != nil {
			return 0, err
		}
		for range pending {
			if err = f.in.skip(24); err == nil {
				err = f.numbers(1)
			}
			if err != nil {
				return 0, err
			}
		}
		bytes += 600 + 96*pending
		var consumers int64
		if consumers, err = f.consumers(kind); err != nil {
			return 0, err
		}
		bytes += consumers
	}
	return bytes, err
}

func (f *rdbFile) consumers(kind byte) (bytes int64, err error) {
	n, err := f.in.length()
	for ; err == nil && n > 0; n-- {
		if _, err = f.in.string(0); err != nil {
			return 0, err
		}
		times := int64(8)
		if kind == 21 {
			times = 16
		}
		if err = f.in.skip(times); err != nil {
			return 0, err
		}
		var pending int64
		if pending, err = f.in.length(); err != nil {
			return 0, err
		}
		if err = f.in.skip(16 * pending); err != nil {
			return 0, err
		}
		bytes += 600 + 48*pending
	}
	return bytes, err
}

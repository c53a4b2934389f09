package object

import (
	"math"
	"strconv"
)

// The models below are of used_memory, in bytes: what the allocator gives for each allocation that the server makes for a
// key. MEMORY USAGE leaves the tables out, and so up to two fifths of a small key.
//
// They hold for the limits of the stock configuration, and once a table that has grown has been read: until then the old
// one is there too.

// generation is how a server lays out keys.
type generation int

const (
	plainDict   generation = iota // Redis 7.0 to 8.0, Valkey 7.2: an entry, the key and the value's header apart
	keyInEntry                    // Valkey 8.0: the key is in the entry
	keyInObject                   // Valkey 8.1: the key, and a short value, are in the value's header; tables of buckets
	allInObject                   // Valkey 9.0: a value of up to about 100 bytes too
)

// The stock limits of the listpack encoding of hashes.
const (
	ListpackFields = 512 // at most; the article that this toolkit answers says 128
	ListpackBytes  = 64  // of each name and value, at most
)

const (
	headerSize = 16 // of a value
	expirySize = 8
	bucketSize = 64
	perBucket  = 7
	embedded   = 128 // the largest allocation that has a value in it; of keys in Valkey 8.1 it is half
)

// class is what the allocator gives for n bytes: jemalloc's size classes, four in each doubling, but the first ones
// quantum apart.
func class(n, quantum int) int {
	step := quantum
	switch {
	case n <= 8:
		return 8
	case n > 128:
		step = 32
		for top := 256; n > top; top *= 2 {
			step *= 2
		}
	case n > 64:
		step = 16
	}
	return (n + step - 1) / step * step
}

// text is what a string takes as the server keeps it: a header that says its length, and a zero byte.
func text(n int) int {
	switch {
	case n < 32:
		return n + 2
	case n < 256:
		return n + 4
	case n < 1<<16:
		return n + 6
	}
	return n + 10
}

// machine is a generation with an allocator.
type machine struct {
	generation
	quantum int
}

func (m machine) class(n int) int { return class(n, m.quantum) }

// table is what one key takes in a table of keys, on average: they are half full to full.
func (m machine) table() float64 {
	if m.generation >= keyInObject {
		return float64(bucketSize) / perBucket / math.Ln2
	}
	return 8 / math.Ln2
}

// key is what a key takes beside its value and the tables. Ends says that it has a TTL; tables is how many it is in.
func (m machine) key(length int, ends bool) (bytes, tables int) {
	tables = 1
	if ends {
		tables = 2
	}
	switch m.generation {
	case plainDict:
		return tables*m.class(24) + m.class(text(length)) + headerSize, tables
	case keyInEntry:
		return m.class(17+length+4) + (tables-1)*m.class(24) + headerSize, tables
	}
	return m.class(headerSize + 1 + text(length) + (tables-1)*expirySize), tables
}

// stringBytes is what a string takes, tables apart.
func (m machine) stringBytes(keyLength, length int, ends bool) (bytes, tables int) {
	bytes, tables = m.key(keyLength, ends)
	together := headerSize + 1 + text(keyLength) + (tables-1)*expirySize + length + 4 // in one allocation
	switch {
	case m.generation == allInObject && together-8 <= embedded: // it needs no pointer to itself
		return m.class(together - 8), tables
	case m.generation == keyInObject && together <= embedded/2:
		return m.class(together), tables
	case m.generation < keyInObject && length <= 44:
		return bytes - headerSize + m.class(headerSize+length+4), tables
	}
	return bytes + m.class(text(length)), tables
}

// hashBytes is what a hash takes, tables apart; words are names and values one after the other. Packed says that it is a
// listpack.
func (m machine) hashBytes(keyLength int, words []string, ends bool) (bytes, tables int, packed bool) {
	bytes, tables = m.key(keyLength, ends)
	packed = len(words)/2 <= ListpackFields
	list := 7
	for _, w := range words {
		packed = packed && len(w) <= ListpackBytes
		list += listpackEntry(w)
	}
	if packed {
		return bytes + m.class(list), tables, true
	}
	fields := len(words) / 2
	if m.generation >= keyInObject {
		bytes += m.class(map[generation]int{keyInObject: 80, allInObject: 96}[m.generation])
		bytes += m.class(bucketSize * power((fields+perBucket-1)/perBucket))
	} else {
		bytes += m.class(56) + m.class(8*max(4, power(fields)))
	}
	for i := 0; i+1 < len(words); i += 2 {
		bytes += m.entryBytes(len(words[i]), len(words[i+1]))
	}
	return bytes, tables, false
}

// entryBytes is what a field takes in a hash that is no listpack.
func (m machine) entryBytes(name, value int) int {
	if m.generation < keyInObject {
		return m.class(24) + m.class(text(name)) + m.class(text(value))
	}
	if all := text(name) + text(value); all <= embedded {
		return m.class(all)
	}
	return m.class(8+text(name)) + m.class(text(value))
}

// power is the least power of two that is at least n.
func power(n int) int {
	p := 1
	for p < n {
		p *= 2
	}
	return p
}

// listpackEntry is what a word takes in a listpack: whole numbers take as many bytes as they need.
func listpackEntry(w string) int {
	n, err := strconv.ParseInt(w, 10, 64)
	if err == nil && strconv.FormatInt(n, 10) == w {
		switch {
		case n >= 0 && n <= 127:
			return 2
		case n >= -1<<12 && n < 1<<12:
			return 3
		case n >= math.MinInt16 && n <= math.MaxInt16:
			return 4
		case n >= -1<<23 && n < 1<<23:
			return 5
		case n >= math.MinInt32 && n <= math.MaxInt32:
			return 6
		}
		return 10
	}
	size := len(w) + 1
	if len(w) >= 64 {
		size = len(w) + 2
	}
	if size < 128 {
		return size + 1
	}
	return size + 2
}

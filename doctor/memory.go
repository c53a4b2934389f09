package doctor

import (
	"math"
	"strings"
)

// family is how a server lays out its keys.
type family int

const (
	chained  family = iota // Redis 7 and Valkey 7.2: the key beside its entry in a chained table
	embedded               // Valkey 8.0: the key within its entry
	bucketed               // Valkey 8.1: the key within the object, the table made of buckets
	compact                // Valkey 9: the same, with longer values within the object
)

// model says what keys take of used_memory on one kind of server. docs/doctor.md has the layouts and the
// measurements.
type model struct {
	family  family
	quantum int64
	// flat is set where small lists and sets of strings are listpacks, and where sets have no entry for a
	// member alone in its slot: Redis 7.2, Valkey, and later.
	flat bool
}

func newModel(kind string, major, minor int, quantum int64) model {
	m := model{quantum: quantum}
	if kind == "valkey" {
		switch {
		case major >= 9:
			m.family = compact
		case major == 8 && minor >= 1:
			m.family = bucketed
		case major == 8:
			m.family = embedded
		}
	}
	m.flat = kind == "valkey" || major > 7 || major == 7 && minor >= 2
	return m
}

func (m model) class(n int64) int64 { return class(n, m.quantum) }

// table is the size of a table of n keys.
func (m model) table(n int64) int64 {
	if m.family >= bucketed {
		return bucketTable(n)
	}
	return dictTable(n)
}

// object is the object of a key, as far as it holds no value.
func (m model) object(key int64, ttl bool) int64 {
	switch m.family {
	case chained:
		return m.class(24) + m.class(sds(key)) + m.class(16)
	case embedded:
		return m.class(17+sds8(key)) + m.class(16)
	}
	n := 16 + 1 + sds(key)
	if ttl {
		n += 8
	}
	return m.class(n)
}

// expiry is what a time to live takes beside its table.
func (m model) expiry(ttl bool) int64 {
	if !ttl || m.family >= bucketed {
		return 0
	}
	return m.class(24)
}

// str is a key with a string value, and the value's encoding.
func (m model) str(key, value int64, integer, ttl bool) (int64, string) {
	switch {
	case integer:
		return m.object(key, ttl), "int"
	case m.family >= bucketed:
		n := 16 + 1 + sds(key) + sds8(value)
		limit := int64(64)
		if m.family == compact {
			n, limit = n-8, 128
		}
		if ttl {
			n += 8
		}
		if n <= limit {
			return m.class(n), "embstr"
		}
	case value <= 44:
		return m.object(key, ttl) - m.class(16) + m.class(16+sds8(value)), "embstr"
	}
	return m.object(key, ttl) + m.class(sds8(value)), "raw"
}

// blob is a key whose value is one block: a listpack or an intset.
func (m model) blob(key, size int64, ttl bool) int64 { return m.object(key, ttl) + m.class(size) }

// dict is the object of a hash table of n entries, and its table.
func (m model) dict(n int64) int64 {
	if m.family >= bucketed {
		return m.class(48) + bucketTable(n)
	}
	return m.class(56) + dictTable(n)
}

// hashField is an entry of a hash table of a hash.
func (m model) hashField(field, value int64, ttl bool) int64 {
	if m.family < bucketed {
		return m.class(24) + m.class(sds(field)) + m.class(sds(value))
	}
	expires := int64(0)
	if ttl {
		expires = 8 + 16 // the time, and its place among those that end
	}
	if n := sds(field) + sds8(value) + expires; n <= 128 {
		return m.class(n)
	}
	return m.class(8+sds(field)+expires) + m.class(sds8(value))
}

// setMember is a member of a hash table of a set of n.
func (m model) setMember(member, n int64) float64 {
	size := float64(m.class(sds(member)))
	switch {
	case m.family >= bucketed:
		return size
	case !m.flat:
		return size + float64(m.class(24))
	}
	slots := float64(pow2(n))
	alone := slots * (1 - math.Exp(-float64(n)/slots)) // slots with one member or more need no entry for the first
	return size + float64(m.class(16))*(1-alone/float64(n))
}

// zsetMember is a member of a skip list and its table.
func (m model) zsetMember(member int64) float64 {
	base, inner := int64(24), int64(0)
	if m.family == compact {
		base, inner = 16, 1+sds(member)
	}
	size, p := 0.0, 0.75
	for level := int64(1); level <= 12; level++ {
		size += p * float64(m.class(base+16*level+inner))
		p /= 4
	}
	switch m.family {
	case compact:
		return size
	case bucketed:
		return size + float64(m.class(sds(member)))
	}
	return size + float64(m.class(sds(member))+m.class(24))
}

// skiplist is what a sorted set takes beside its members.
func (m model) skiplist(n int64) int64 { return m.class(16) + m.class(32) + m.class(544) + m.dict(n) }

// correct turns what MEMORY USAGE says of a key into what the key takes of used_memory, its tables left out.
func (m model) correct(usage int64, key, kind, encoding string, length int64, ttl bool) float64 {
	bytes := usage + m.expiry(ttl)
	entry := m.class(24) - 24
	switch m.family {
	case chained:
		bytes += entry
	case bucketed:
		if encoding != "embstr" { // there the key is not counted
			bytes += m.object(int64(len(key)), ttl) - 16
		}
	}
	perElement := m.family < bucketed && (encoding == "skiplist" || encoding == "hashtable")
	if perElement && (kind != "set" || !m.flat) {
		bytes += length * entry
	}
	return float64(bytes)
}

// quantumOf tells the two allocators apart by what MEMORY USAGE says of small strings; false if it can't
// be told.
func (m model) quantumOf(usage int64, encoding string) (odd, ok bool) {
	if encoding != "int" && encoding != "embstr" {
		return false, false
	}
	if m.family == bucketed && encoding == "int" {
		return false, false
	}
	if m.family == chained {
		usage -= 24
	}
	return usage%16 == 8, true
}

// integer says whether the server keeps a string as a number.
func integer(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || len(digits) > 19 || digits[0] == '0' && len(s) > 1 {
		return false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return false
		}
	}
	limit := "9223372036854775807"
	if len(s) != len(digits) {
		limit = "9223372036854775808"
	}
	return len(digits) < 19 || digits <= limit
}

package cache

import (
	"encoding/binary"
	"errors"
	"strconv"
	"time"
)

// An entry in the server is: the byte 0xFA, which begins neither UTF-8 nor JSON; the byte 0x01, the
// version; a byte of flags; how long the load took, in us, and for how long the entry is kept after its
// TTL, in ms, as unsigned varints; if it has tags, their number as a varint and their generations, 16
// bytes each; and the body. What does not begin so is foreign: a miss, and overwritten.
const (
	magic   = 0xFA
	version = 0x01

	flagAbsent     = 1 << 0 // load found nothing; no body
	flagFailed     = 1 << 1 // load failed; the body is the error's text
	flagCompressed = 1 << 2
	flagTags       = 1 << 3

	genLen  = 16
	maxTags = 16
)

var (
	errForeign = errors.New("what lies there is no entry of this cache")
	errVersion = errors.New("the entry is of another version")
)

type entry struct {
	absent, failed, compressed bool

	took, kept time.Duration
	gens       []string // of its tags
	body       []byte
}

// text is the entry as it is stored.
func (e entry) text() string {
	var flags byte
	for flag, set := range map[byte]bool{
		flagAbsent: e.absent, flagFailed: e.failed, flagCompressed: e.compressed, flagTags: len(e.gens) > 0,
	} {
		if set {
			flags |= flag
		}
	}
	b := make([]byte, 0, 3+2*binary.MaxVarintLen64+1+genLen*len(e.gens)+len(e.body))
	b = append(b, magic, version, flags)
	b = binary.AppendUvarint(b, uint64(max(0, e.took.Microseconds())))
	b = binary.AppendUvarint(b, uint64(e.kept.Milliseconds()))
	if len(e.gens) > 0 {
		b = binary.AppendUvarint(b, uint64(len(e.gens)))
		for _, gen := range e.gens {
			b = append(b, gen...)
		}
	}
	return string(append(b, e.body...))
}

// parseEntry reads an entry; its body is part of b.
func parseEntry(b []byte) (e entry, err error) {
	switch {
	case len(b) < 3 || b[0] != magic:
		return e, errForeign
	case b[1] != version:
		return e, errVersion
	}
	flags := b[2]
	if flags >= flagTags<<1 {
		return e, errVersion
	}
	e.absent, e.failed, e.compressed = flags&flagAbsent != 0, flags&flagFailed != 0, flags&flagCompressed != 0
	b = b[3:]
	number := func(limit uint64) uint64 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > limit {
			err = errForeign
			return 0
		}
		b = b[size:]
		return n
	}
	e.took = time.Duration(number(uint64(maxTTL/time.Microsecond))) * time.Microsecond
	e.kept = time.Duration(number(uint64(maxTTL/time.Millisecond))) * time.Millisecond
	if flags&flagTags != 0 && err == nil {
		n := int(number(maxTags))
		if err != nil || len(b) < n*genLen {
			return entry{}, errForeign
		}
		for range n {
			e.gens = append(e.gens, string(b[:genLen]))
			b = b[genLen:]
		}
	}
	if err != nil {
		return entry{}, err
	}
	e.body = b[:len(b):len(b)]
	return e, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

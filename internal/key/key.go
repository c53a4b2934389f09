// Package key builds the names under which flatrate keeps its data in the server.
//
// A key reads prefix:kind:{name}, or prefix:kind:group:{name}, sometimes with a :part behind it. What
// stands in the braces is the hash tag: on a cluster every key of one name falls into one slot. Names
// come from users, so they are escaped: no name can close the braces, empty the tag or meet another
// name's key.
package key

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
)

// DefaultPrefix stands before every key where the user's Config names no other.
const DefaultPrefix = "fr"

// MaxLen is the longest escaped name that is kept as it is, in bytes. A longer one is replaced by
// "%~" and the hex SHA-256 of the name, so that a key costs the server at most this much.
const MaxLen = 512

// MaxPrefix is the longest prefix, in bytes.
const MaxPrefix = 64

const upperHex = "0123456789ABCDEF"

// Space is the part of the server's keys that one block works in.
type Space struct{ head string }

// NewSpace returns the space of a kind ("lock", "rate") and of groups within it, each escaped. An
// empty prefix means [DefaultPrefix]; a longer one than [MaxPrefix], or one with braces, white space
// or control bytes, is an error.
func NewSpace(prefix, kind string, groups ...string) (Space, error) {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	if len(prefix) > MaxPrefix {
		return Space{}, errors.New("prefix is over 64 bytes")
	}
	for i := range len(prefix) {
		if c := prefix[i]; c <= ' ' || c == 0x7f || c == '{' || c == '}' {
			return Space{}, errors.New("prefix has a brace, a space or a control byte")
		}
	}
	head := prefix + ":" + kind + ":"
	for _, group := range groups {
		// A colon ends a group, so that "a:b" is not "a" and then "b".
		head += strings.ReplaceAll(Escape(group), ":", "%3A") + ":"
	}
	return Space{head: head + "{"}, nil
}

// Key returns the key of name.
func (s Space) Key(name string) string { return s.head + Escape(name) + "}" }

// Head is what all keys of the space begin with, up to and with the brace.
func (s Space) Head() string { return s.head }

// Part returns a further key of name, in the same slot.
func (s Space) Part(name, part string) string { return s.Key(name) + ":" + part }

// Escape returns name as it stands in a key: bytes that would break the key's form, or a line of a
// terminal, are written as %XX, the empty name as "%", a long one as its digest (see [MaxLen]).
// Different names have different escapes, but for a collision of SHA-256.
func Escape(name string) string {
	if name == "" {
		return "%"
	}
	extra := 0
	for i := range len(name) {
		if escaped(name[i]) {
			extra += 2
		}
	}
	if len(name)+extra > MaxLen {
		sum := sha256.Sum256([]byte(name))
		return "%~" + hex.EncodeToString(sum[:])
	}
	if extra == 0 {
		return name
	}
	var b strings.Builder
	b.Grow(len(name) + extra)
	for i := range len(name) {
		if c := name[i]; escaped(c) {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&0xf])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func escaped(c byte) bool {
	return c <= ' ' || c == 0x7f || c == '%' || c == '{' || c == '}'
}

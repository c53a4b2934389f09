package key

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

func TestKey(t *testing.T) {
	s, err := NewSpace("", "rate", "per:minute")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, want string }{
		{"user:42", "fr:rate:per%3Aminute:{user:42}"},
		{"", "fr:rate:per%3Aminute:{%}"},
		{"a{b}c", "fr:rate:per%3Aminute:{a%7Bb%7Dc}"},
		{"100%", "fr:rate:per%3Aminute:{100%25}"},
		{"two words\n\x00\x7f", "fr:rate:per%3Aminute:{two%20words%0A%00%7F}"},
		{"*?[ü]\xff", "fr:rate:per%3Aminute:{*?[ü]\xff}"},
		{strings.Repeat("x", MaxLen), "fr:rate:per%3Aminute:{" + strings.Repeat("x", MaxLen) + "}"},
		{strings.Repeat("x", MaxLen+1), fmt.Sprintf("fr:rate:per%%3Aminute:{%%~%x}", sha256.Sum256([]byte(strings.Repeat("x", MaxLen+1))))},
	} {
		if got := s.Key(c.name); got != c.want {
			t.Errorf("Key(%q) = %q, want %q", c.name, got, c.want)
		}
	}
	if got, want := s.Part("n", "wait"), "fr:rate:per%3Aminute:{n}:wait"; got != want {
		t.Errorf("Part: %q, want %q", got, want)
	}
}

func TestNewSpaceRejects(t *testing.T) {
	for _, prefix := range []string{"a{b", "a}b", "a b", "a\n", "a\x7f", strings.Repeat("p", MaxPrefix+1)} {
		if _, err := NewSpace(prefix, "lock"); err == nil {
			t.Errorf("prefix %q was accepted", prefix)
		}
	}
}

// FuzzEscape holds every pair of names to the promise: one tag that is never empty and never closed
// early, and different keys for different names.
func FuzzEscape(f *testing.F) {
	for _, seed := range [][2]string{{"", "%"}, {"{", "%7B"}, {"a", "a "}, {"\x00", "%00"}, {"%~", "%"}, {"}{", "}"}} {
		f.Add(seed[0], seed[1])
	}
	f.Add(strings.Repeat("{", MaxLen), strings.Repeat("%7B", MaxLen/3))
	s, err := NewSpace("", "lock")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		ka, kb := s.Key(a), s.Key(b)
		if (a == b) != (ka == kb) {
			t.Fatalf("%q and %q: keys %q and %q", a, b, ka, kb)
		}
		if tag := ka[strings.IndexByte(ka, '{')+1:]; strings.IndexByte(tag, '}') != len(tag)-1 || len(tag) < 2 {
			t.Fatalf("%q: the hash tag of %q is not the whole escaped name", a, ka)
		}
		if len(ka) > len("fr:lock:{}")+MaxLen {
			t.Fatalf("%d bytes of name make a key of %d", len(a), len(ka))
		}
	})
}

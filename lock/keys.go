package lock

import (
	"crypto/sha256"
	"strconv"

	"github.com/flatrate/flatrate/internal/key"
)

// keySpace holds the keys of all locks under one prefix.
type keySpace struct{ space key.Space }

func newKeySpace(prefix string) (keySpace, error) {
	s, err := key.NewSpace(prefix, "lock")
	if err != nil {
		return keySpace{}, err
	}
	return keySpace{s}, nil
}

// tag is a number from 0 to 1023: the first ten bits of the SHA-256 of the name. Each tag has one fencing
// counter, which outlives the locks: more tags would spread them over more slots, and leave more behind.
func tag(name string) string {
	sum := sha256.Sum256([]byte(name))
	return strconv.Itoa(int(sum[0])<<2 | int(sum[1])>>6)
}

// key returns the key of a name: fr:lock:{TAG}:part:NAME.
func (s keySpace) key(tag, part, name string) string {
	return s.space.Part(tag, part+":"+key.Escape(name))
}

// fence returns the key of a tag's counter.
func (s keySpace) fence(tag string) string { return s.space.Part(tag, "fence") }

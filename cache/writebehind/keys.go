package writebehind

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/flatrate/flatrate/internal/key"
)

const defaultName = "default"

// keySpace holds the keys of one store. Each of its partitions lies in one slot: a value and its place in the log
// are written together.
type keySpace struct {
	space      key.Space
	name       string
	partitions int
}

func newKeySpace(prefix, name string, partitions int) (keySpace, error) {
	s, err := key.NewSpace(prefix, "behind")
	if err != nil {
		return keySpace{}, fmt.Errorf("writebehind: Config.Prefix: %w", err)
	}
	return keySpace{s, name, partitions}, nil
}

// partition is the number of a key's partition: the first four bytes of its SHA-256, modulo their number.
func (s keySpace) partition(k string) int {
	sum := sha256.Sum256([]byte(k))
	return int(binary.BigEndian.Uint32(sum[:4]) % uint32(s.partitions))
}

func (s keySpace) tag(p int) string { return s.name + ":" + strconv.Itoa(p) }

// layout says how many partitions there are.
func (s keySpace) layout() string { return s.space.Part(s.name, "layout") }

// places are the keys of one partition.
type places struct {
	space                              key.Space
	tag                                string
	log, due, flight, state, dead, own string
}

func (s keySpace) places(p int) places {
	tag := s.tag(p)
	part := func(name string) string { return s.space.Part(tag, name) }
	return places{s.space, tag, part("log"), part("due"), part("flight"), part("state"), part("dead"), part("own")}
}

func (p places) value(k string) string { return p.space.Part(p.tag, "val:"+key.Escape(k)) }
func (p places) fill(k string) string  { return p.space.Part(p.tag, "fill:"+key.Escape(k)) }

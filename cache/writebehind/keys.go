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
	space  key.Space
	name   string
	places []places // of the partitions
}

func newKeySpace(prefix, name string, partitions int) (keySpace, error) {
	s, err := key.NewSpace(prefix, "behind")
	if err != nil {
		return keySpace{}, fmt.Errorf("writebehind: Config.Prefix: %w", err)
	}
	keys := keySpace{s, name, make([]places, partitions)}
	for p := range keys.places {
		tag := keys.tag(p)
		part := func(name string) string { return s.Part(tag, name) }
		keys.places[p] = places{tag, part("val:"), part("fill:"), part("log"), part("due"), part("flight"), part("dead"), part("own")}
	}
	return keys, nil
}

// partition is the number of a key's partition: the first four bytes of its SHA-256, modulo their number.
func (s keySpace) partition(k string) int {
	sum := sha256.Sum256([]byte(k))
	return int(binary.BigEndian.Uint32(sum[:4]) % uint32(len(s.places)))
}

func (s keySpace) tag(p int) string { return s.name + ":" + strconv.Itoa(p) }

// layout says how many partitions there are.
func (s keySpace) layout() string { return s.space.Part(s.name, "layout") }

// places are the keys of one partition; val and fill are what those of a value begin with.
type places struct{ tag, val, loads, log, due, flight, dead, own string }

func (p *places) value(k string) string { return p.val + key.Escape(k) }
func (p *places) fill(k string) string  { return p.loads + key.Escape(k) }

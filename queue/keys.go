package queue

import (
	"strconv"

	"github.com/flatrate/flatrate/internal/key"
)

// keySpace holds the keys of all queues, or of all logs, or of all lists, under one prefix.
type keySpace struct{ space key.Space }

func newKeySpace(prefix string) (keySpace, error) { return newSpace(prefix, "queue") }

func newLogSpace(prefix string) (keySpace, error) { return newSpace(prefix, "log") }

func newSpace(prefix, kind string) (keySpace, error) {
	s, err := key.NewSpace(prefix, kind)
	if err != nil {
		return keySpace{}, err
	}
	return keySpace{s}, nil
}

// part returns a key of a partition: fr:queue:{NAME:N}:part.
func (s keySpace) part(name string, partition int, part string) string {
	return s.space.Part(name+":"+strconv.Itoa(partition), part)
}

// of returns the keys that the scripts of a partition are given. They make the other ones of the first, so all of
// them lie in its slot. The second is hardly ever there: that is why a cluster's node, while the slot moves to another, runs no
// script on the half of the keys that it still has, but says TRYAGAIN.
func (s keySpace) of(name string, partition int) []string {
	return []string{s.part(name, partition, "meta"), s.part(name, partition, "gone")}
}

// names returns the key that lists all queues.
func (s keySpace) names() string { return s.space.Part("", "names") }

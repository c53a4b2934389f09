package cache

import (
	"fmt"

	"github.com/flatrate/flatrate/internal/key"
)

const defaultName = "default"

// keySpace holds the keys of one cache.
type keySpace struct {
	entries, fills, waits, tags key.Space
	late                        string
}

func newKeySpace(prefix, name string) (s keySpace, err error) {
	if name == "" {
		name = defaultName
	}
	if s.entries, err = key.NewSpace(prefix, "cache", name); err != nil {
		return s, fmt.Errorf("cache: Config.Prefix: %w", err)
	}
	// The groups end in a colon, so none of these meets the entries of a cache called "fill".
	for kind, space := range map[string]*key.Space{"fill": &s.fills, "wait": &s.waits, "tag": &s.tags} {
		if *space, err = key.NewSpace(prefix, "cache", kind, name); err != nil {
			return s, fmt.Errorf("cache: Config.Prefix: %w", err)
		}
	}
	late, err := key.NewSpace(prefix, "cache", "late", name)
	s.late = late.Key(name)
	return s, err
}

// of returns the keys of one entry, which share a slot: the entry, who fills it, who waits.
func (s keySpace) of(key string) []string {
	return []string{s.entries.Key(key), s.fills.Key(key), s.waits.Key(key)}
}

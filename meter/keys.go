package meter

import (
	"time"

	"github.com/flatrate/flatrate/internal/key"
)

// keySpace holds the keys of all meters under one prefix.
type keySpace struct{ space key.Space }

func newKeySpace(prefix string) (keySpace, error) {
	s, err := key.NewSpace(prefix, "meter")
	return keySpace{s}, err
}

// day returns the key of a meter's day: fr:meter:{NAME}:day:DATE.
func (s keySpace) day(name, date string) string { return s.space.Part(name, "day:"+date) }

// seen returns the key of a process's last batch: fr:meter:{NAME}:seen:TOKEN.
func (s keySpace) seen(name, token string) string { return s.space.Part(name, "seen:"+token) }

// date is a day in UTC as it stands in a key.
func date(t time.Time) string { return t.UTC().Format("20060102") }

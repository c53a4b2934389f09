package session

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// flashName begins the names of flash messages: each is a member, so that requests which add some at the same time
// don't undo each other.
const flashName = "@f"

// MaxFlashes is how many flash messages a session holds.
const MaxFlashes = 32

// AddFlash keeps a message for the next request that asks with [Session.Flashes], as after a redirect. It is saved
// with the value. The error is that there are [MaxFlashes] already.
func (s *Session[T]) AddFlash(message string) error {
	if len(s.flashes()) >= MaxFlashes {
		return fmt.Errorf("session: more than %d flash messages", MaxFlashes)
	}
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	// Their order is that of their names: the time, and what tells apart those of one nanosecond.
	s.pending = append(s.pending, change{fmt.Sprintf("%s%015x%s", flashName, time.Now().UnixNano(), rand.Text()[:4]), string(b)})
	return nil
}

// Flashes returns the messages in the order in which they were added, and removes them; that is saved with the value.
// Of two requests that ask at the same time both may get them.
func (s *Session[T]) Flashes() ([]string, error) {
	var messages []string
	var failed error
	for _, m := range s.flashes() {
		var text string
		if err := json.Unmarshal([]byte(m.value), &text); err != nil {
			failed = errors.Join(failed, fmt.Errorf("session: flash message: %w", err))
		} else {
			messages = append(messages, text)
		}
		if i := slices.IndexFunc(s.pending, func(c change) bool { return c.name == m.name }); i >= 0 {
			s.pending = slices.Delete(s.pending, i, i+1)
		} else {
			s.pending = append(s.pending, change{name: m.name})
		}
	}
	return messages, failed
}

func (s *Session[T]) flashes() []member {
	all := apply(s.stored, s.pending)
	all = slices.DeleteFunc(slices.Clone(all), func(m member) bool { return !strings.HasPrefix(m.name, flashName) })
	slices.SortFunc(all, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return all
}

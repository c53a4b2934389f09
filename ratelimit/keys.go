package ratelimit

import (
	"fmt"

	"github.com/flatrate/flatrate/internal/key"
)

const heldPart = ":held"

// keySpace holds fr:rate:NAME:SHAPE:{SUBJECT}, and fr:rate:SHAPE:{SUBJECT} of the plan without a name.
func keySpace(prefix, name, shape string) (key.Space, error) {
	groups := []string{name, shape}
	if name == "" {
		groups = groups[1:]
	}
	s, err := key.NewSpace(prefix, "rate", groups...)
	if err != nil {
		return s, fmt.Errorf("ratelimit: Config.Prefix: %w", err)
	}
	return s, nil
}

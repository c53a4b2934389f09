package ratelimit

import (
	"fmt"

	"github.com/flatrate/flatrate/internal/key"
)

const (
	defaultName = "default"
	heldPart    = ":held"
)

// keySpace holds fr:rate:NAME:SHAPE:{SUBJECT}.
func keySpace(prefix, name, shape string) (key.Space, error) {
	if name == "" {
		name = defaultName
	}
	s, err := key.NewSpace(prefix, "rate", name, shape)
	if err != nil {
		return s, fmt.Errorf("ratelimit: Config.Prefix: %w", err)
	}
	return s, nil
}

package ratelimit

import (
	"fmt"

	"github.com/flatrate/flatrate/internal/key"
)

const defaultName = "default"

// keySpace holds fr:rate:NAME:{SUBJECT}.
func keySpace(prefix, name string) (key.Space, error) {
	if name == "" {
		name = defaultName
	}
	s, err := key.NewSpace(prefix, "rate", name)
	if err != nil {
		return s, fmt.Errorf("ratelimit: Config.Prefix: %w", err)
	}
	return s, nil
}

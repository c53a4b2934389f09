package cache

import (
	"fmt"

	"github.com/flatrate/flatrate/internal/key"
)

const defaultName = "default"

// keySpace holds fr:cache:NAME:{KEY}.
func keySpace(prefix, name string) (key.Space, error) {
	if name == "" {
		name = defaultName
	}
	s, err := key.NewSpace(prefix, "cache", name)
	if err != nil {
		return s, fmt.Errorf("cache: Config.Prefix: %w", err)
	}
	return s, nil
}

package lock

import (
	"fmt"

	"github.com/flatrate/flatrate/internal/key"
)

// keySpace holds fr:lock:{NAME}.
func keySpace(prefix string) (key.Space, error) {
	s, err := key.NewSpace(prefix, "lock")
	if err != nil {
		return s, fmt.Errorf("lock: Config.Prefix: %w", err)
	}
	return s, nil
}

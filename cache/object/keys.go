package object

import (
	"fmt"

	"github.com/flatrate/flatrate/internal/key"
)

const defaultName = "default"

func newKeySpace(prefix, name string) (key.Space, error) {
	if name == "" {
		name = defaultName
	}
	s, err := key.NewSpace(prefix, "obj", name)
	if err != nil {
		return s, fmt.Errorf("object: Config.Prefix: %w", err)
	}
	return s, nil
}

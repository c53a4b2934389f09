package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/flatrate/flatrate"
	"github.com/valkey-io/valkey-go"
)

// connect returns a client of the server that --valkey names.
func connect(ctx context.Context, url string) (valkey.Client, error) {
	client, err := flatrate.Connect(ctx, url)
	if errors.Is(err, flatrate.ErrURL) {
		return nil, usagef("--valkey: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--valkey: %w", err)
	}
	return client, nil
}

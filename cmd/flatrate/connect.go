package main

import (
	"context"
	"errors"

	"github.com/valkey-io/valkey-go"
)

// connect returns a client of the server that --valkey names.
func connect(_ context.Context, url string) (valkey.Client, error) {
	option, err := valkey.ParseURL(url)
	if err != nil {
		return nil, errors.New("--valkey: not a URL like valkey://host:6379") // the cause would quote the password
	}
	return valkey.NewClient(option)
}

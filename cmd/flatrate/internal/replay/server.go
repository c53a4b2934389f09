package replay

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/valkey-io/valkey-go"
)

// counter is a client that counts the commands it sends.
type counter struct {
	valkey.Client
	commands atomic.Int64
}

func (c *counter) Do(ctx context.Context, command valkey.Completed) valkey.ValkeyResult {
	c.commands.Add(1)
	return c.Client.Do(ctx, command)
}

func (c *counter) DoMulti(ctx context.Context, commands ...valkey.Completed) []valkey.ValkeyResult {
	c.commands.Add(int64(len(commands)))
	return c.Client.DoMulti(ctx, commands...)
}

// UsedMemory returns used_memory, summed over the masters.
func UsedMemory(ctx context.Context, client valkey.Client) (int64, error) {
	var sum int64
	err := eachMaster(ctx, client, func(node valkey.Client) error {
		used, err := info(ctx, node, "memory", "used_memory")
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(used, 10, 64)
		sum += n
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("reading used_memory: %w", err)
	}
	return sum, nil
}

// RemoveKeys removes all keys of a prefix, which holds no pattern characters.
func RemoveKeys(ctx context.Context, client valkey.Client, prefix string) error {
	return eachMaster(ctx, client, func(node valkey.Client) error {
		for cursor := uint64(0); ; {
			page, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(prefix+":*").Count(1000).Build()).AsScanEntry()
			if err != nil {
				return err
			}
			// One by one, since on a cluster the keys of a node lie in many slots.
			unlinks := make(valkey.Commands, len(page.Elements))
			for i, key := range page.Elements {
				unlinks[i] = node.B().Unlink().Key(key).Build()
			}
			for _, answer := range node.DoMulti(ctx, unlinks...) {
				if err := answer.Error(); err != nil {
					return err
				}
			}
			if cursor = page.Cursor; cursor == 0 {
				return nil
			}
		}
	})
}

func eachMaster(ctx context.Context, client valkey.Client, do func(valkey.Client) error) error {
	for _, node := range client.Nodes() {
		role, err := info(ctx, node, "replication", "role")
		if err != nil {
			return err
		}
		if role != "master" {
			continue
		}
		if err := do(node); err != nil {
			return err
		}
	}
	return nil
}

// info returns one value of a section of INFO.
func info(ctx context.Context, node valkey.Client, section, name string) (string, error) {
	text, err := node.Do(ctx, node.B().Info().Section(section).Build()).ToString()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			return value, nil
		}
	}
	return "", fmt.Errorf("the server's INFO %s has no %s", section, name)
}

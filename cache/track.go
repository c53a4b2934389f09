package cache

import (
	"errors"
	"strings"

	"github.com/flatrate/flatrate/internal/track"
	"github.com/valkey-io/valkey-go"
)

// listenToChanges begins to keep the local tier coherent.
func (c *Cache[V]) listenToChanges() {
	entries, tags := c.keys.entries.Head(), c.keys.tags.Head()
	if c.client.Mode() != valkey.ClientModeCluster {
		only := c.way.Breaker(c.keys.late)
		only.Opened = func(error) { c.local.down.Store(!c.closed.Load()) }
		only.Closed = func() { c.local.down.Store(false); c.returned() }
	}
	c.tracker = &track.Tracker{
		Client: c.client, Log: c.cfg.Logger, Block: "cache", Prefixes: []string{entries, tags},
		Doubt: c.local.doubt, Clear: c.local.clear,
		Changed: func(names []string) {
			for _, name := range names {
				if entry, ok := strings.CutPrefix(name, entries); ok {
					c.local.drop(strings.TrimSuffix(entry, "}"))
				} else if tag, ok := strings.CutPrefix(name, tags); ok {
					c.local.dropTag(strings.TrimSuffix(tag, "}"))
				}
			}
		},
		Standing: func(whole bool, err error) {
			switch {
			case errors.Is(err, track.ErrRefused):
				c.local.limit.Store(int64(pollEvery))
				c.polls.Store(true)
			case err != nil && !whole && c.client.Mode() != valkey.ClientModeCluster:
				// The first to notice that the server is away: no call has to.
				c.way.Breaker(c.keys.late).Open(err, c.way.Probe(c.keys.late))
			}
			c.local.whole.Store(whole || c.polls.Load())
		},
	}
	c.tracker.Start()
}

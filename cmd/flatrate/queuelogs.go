package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/queue"
)

type queueLogsCmd struct{}

// countedLog is what JSON says of a log.
type countedLog struct {
	Log string `json:"log"`
	queue.LogStats
}

// Run lists the logs and their groups.
func (queueLogsCmd) Run(ctx context.Context, g globals, c *queueCmd, io stdio) error {
	s, err := c.connect(ctx, g)
	if err != nil {
		return err
	}
	defer s.client.Close()
	names, err := queue.LogNames(ctx, s.client, c.Prefix)
	if err != nil {
		return err
	}
	shown, failed := []countedLog{}, error(nil)
	for _, name := range names {
		l, err := queue.NewLog(s.client, queue.LogConfig{Prefix: c.Prefix, Name: name})
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		stats, err := l.Stats(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, queue.ErrDeleted) || errors.Is(err, queue.ErrNoQueue): // a moment ago, or the server has lost it
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
		default:
			shown = append(shown, countedLog{name, stats})
		}
	}
	if c.Output == "json" {
		return errors.Join(report.JSON(io.out, shown, "  "), failed)
	}
	if len(shown) == 0 {
		io.warn("no logs with the prefix %s", c.Prefix)
		return failed
	}
	table := report.NewColumns("log", ">partitions", ">entries", ">bytes", ">oldest", "group", ">lag", ">pending", ">aside", ">dead", ">owned")
	for _, one := range shown {
		oldest := "-"
		if one.OldestAge > 0 {
			oldest = report.Span(one.OldestAge)
		}
		row := []string{one.Log, report.Count(int64(one.Partitions)), report.Count(one.Entries), report.Bytes(one.Bytes), oldest}
		if len(one.Groups) == 0 {
			table.Row(append(row, "-", "", "", "", "", "")...)
		}
		for _, group := range one.Groups {
			table.Row(append(row, group.Name, report.Count(group.Lag), report.Count(group.Pending), report.Count(group.Aside), report.Count(group.Dead),
				report.Count(group.Owned))...)
			row = []string{"", "", "", "", ""}
		}
	}
	return errors.Join(table.Write(io.out), failed)
}

package main

import (
	"bufio"
	"context"
	"io"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage"
)

type sampleCmd struct {
	Lines int    `default:"20000" help:"How many lines to write."`
	Seed  uint64 `default:"1" help:"The same seed gives the same bytes."`
}

// Run writes the generated log.
func (c *sampleCmd) Run(ctx context.Context, io stdio) error {
	if c.Lines < 1 {
		return usagef("--lines must be at least 1, not %d", c.Lines)
	}
	out := bufio.NewWriterSize(untilDone{ctx, io.out}, 64<<10)
	if err := usage.Sample(out, c.Seed, c.Lines); err != nil {
		return err
	}
	return out.Flush()
}

// untilDone is a writer that Ctrl-C ends.
type untilDone struct {
	ctx context.Context // an io.Writer has no other way to see it
	io.Writer
}

func (w untilDone) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}

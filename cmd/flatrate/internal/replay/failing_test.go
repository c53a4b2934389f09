package replay

import (
	"context"
	"sync/atomic"

	"github.com/valkey-io/valkey-go"
)

// failing is a client that answers some commands, and then only an error.
type failing struct {
	valkey.Client
	left atomic.Int64
	err  error
}

func (f *failing) set(left int64) { f.left.Store(left) }

func (f *failing) failed() bool { return f.left.Add(-1) < 0 }

func (f *failing) Do(ctx context.Context, command valkey.Completed) valkey.ValkeyResult {
	if f.failed() {
		return valkey.NewErrorResult(f.err)
	}
	return f.Client.Do(ctx, command)
}

func (f *failing) DoMulti(ctx context.Context, commands ...valkey.Completed) []valkey.ValkeyResult {
	if !f.failed() {
		return f.Client.DoMulti(ctx, commands...)
	}
	answers := make([]valkey.ValkeyResult, len(commands))
	for i := range answers {
		answers[i] = valkey.NewErrorResult(f.err)
	}
	return answers
}

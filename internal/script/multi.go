package script

import (
	"context"

	"github.com/valkey-io/valkey-go"
)

// Call is one run of a script.
type Call struct {
	Script *Script
	Keys   []string
	Args   []string
}

// Multi runs calls in one round trip to each node, after a first one per process and script that loads
// it; those that a server lacks its script for are sent to it again, whole. The results are in the order
// of the calls.
func Multi(ctx context.Context, client valkey.Client, calls ...Call) []valkey.ValkeyResult {
	if len(calls) == 0 {
		return nil
	}
	cmds := make(valkey.Commands, len(calls))
	for i, call := range calls {
		sha := call.Script.sha.Load()
		if sha == nil {
			var err error
			if sha, err = call.Script.load(ctx, client); err != nil {
				return failed(len(calls), err)
			}
		}
		cmds[i] = client.B().Evalsha().Sha1(*sha).Numkeys(int64(len(call.Keys))).Key(call.Keys...).Arg(call.Args...).Build()
	}
	results := client.DoMulti(ctx, cmds...)
	var again []int
	cmds = nil
	for i, result := range results {
		if err, ok := valkey.IsValkeyErr(result.Error()); ok && err.IsNoScript() {
			call := calls[i]
			again = append(again, i)
			cmds = append(cmds, client.B().Eval().Script(call.Script.source).Numkeys(int64(len(call.Keys))).Key(call.Keys...).Arg(call.Args...).Build())
		}
	}
	if len(again) > 0 {
		for n, result := range client.DoMulti(ctx, cmds...) {
			results[again[n]] = result
		}
	}
	return results
}

func failed(n int, err error) []valkey.ValkeyResult {
	results := make([]valkey.ValkeyResult, n)
	for i := range results {
		results[i] = valkey.NewErrorResult(err)
	}
	return results
}

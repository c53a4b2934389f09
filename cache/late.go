package cache

import (
	"context"
	_ "embed"
	"strconv"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/flatrate/flatrate/internal/script"
)

//go:embed late.lua
var lateLua string

var lateScript = script.New(lateLua)

// permit is the right to load beside somebody else, of which there are Config.LateLoads over all processes; nil
// if there is none. The one who got it gives it back; the server ends it with the load's time limit.
func (t *trip[V]) permit(ctx context.Context) (giveBack func()) {
	limit, lasts := strconv.Itoa(t.cfg.LateLoads), milliseconds(t.cfg.LoadTimeout+2*MaxWait)
	ok, err := t.exec(ctx, lateScript, []string{t.keys.late}, t.token, limit, lasts).AsBool()
	drop := func() {
		lease.GiveBack(ctx, func(ctx context.Context) bool {
			return t.client.Do(ctx, t.client.B().Zrem().Key(t.keys.late).Member(t.token).Build()).Error() == nil
		})
	}
	if cutOff(err) {
		drop()
	}
	if err != nil || !ok {
		return nil
	}
	return drop
}

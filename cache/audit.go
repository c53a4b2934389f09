package cache

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/flatrate/flatrate/internal/codec"
)

// auditAfter is for how long an invalidation may be on its way.
const auditAfter = time.Second

// audit compares, in the background, what was served with what the origin has. What differs is stale if it is
// still served a while later: the origin's owner may have been between the change and the invalidation.
func (c *Cache[V]) audit(ctx context.Context, key string, load func(context.Context) (V, error), served V) {
	if c.cfg.Random() >= c.cfg.Audit || !c.auditing.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer c.auditing.Store(false)
		ctx, cancel := until(ctx, c.cfg.LoadTimeout+auditAfter+MaxWait)
		defer cancel()
		was, err := codec.Marshal(c.cfg.Codec, served)
		if err != nil {
			return
		}
		value, err := runLoad(ctx, &c.cfg, key, load)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return
		}
		if c.same(was, value, err) {
			c.cfg.Hooks.Audited(key, false)
			return
		}
		timer := time.NewTimer(auditAfter)
		defer timer.Stop()
		<-timer.C
		seen := c.look(ctx, key)
		if h := c.localHit(key); h != nil {
			seen.state, seen.value, seen.err = fresh, h.value, h.err
		}
		if seen.state != unanswered {
			c.cfg.Hooks.Audited(key, seen.state >= stale && c.same(was, seen.value, seen.err))
		}
	}()
}

func (c *Cache[V]) same(was []byte, value V, err error) bool {
	if err != nil {
		return false
	}
	is, err := codec.Marshal(c.cfg.Codec, value)
	return err == nil && bytes.Equal(was, is)
}

package writebehind

import (
	"context"
	_ "embed"
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

//go:embed ack.lua
var ackLua string

//go:embed fail.lua
var failLua string

var (
	ackScript  = script.New(ackLua)
	failScript = script.New(failLua)
)

var (
	errGone    = Permanent(errors.New("writebehind: the value is gone from the server"))
	errUntried = errors.New("writebehind: not tried: the origin took nothing else")
	errTimeout = errors.New("writebehind: Origin did not return within Config.CallTimeout")
	errGoexit  = errors.New("writebehind: Origin called runtime.Goexit")
)

// grace is for how long a call whose context has ended may still return, and so say what it has done.
const grace = time.Second

// group is what is written in one call, or in several where that fails.
type group[V any] struct {
	*turn[V]
	calls  chan struct{} // where its call has a place
	stays  chan struct{} // a call that has not returned; it keeps the place
	wrote  bool          // the origin has taken something
	leaves int           // writes that failed alone
}

// run writes items and tells the server how that ended.
func (g *group[V]) run(items []item[V]) {
	if g.calls = g.fresh; items[0].tries > 0 {
		g.calls = g.suspect
	}
	select {
	case g.calls <- struct{}{}:
	case <-g.ctx.Done():
		return
	}
	if items = g.fetch(items); len(items) > 0 {
		g.write(items)
	}
	if g.stays == nil {
		<-g.calls
		return
	}
	g.stuck.Add(1)
	g.cfg.Hooks.Stuck(g.p)
	go func() {
		<-g.stays
		g.stuck.Add(-1)
		<-g.calls
	}()
}

// fetch reads the values of items. What can't be read as a value fails for ever.
func (g *group[V]) fetch(items []item[V]) (good []item[V]) {
	var replies []valkey.ValkeyResult
	_, ok := g.settle("claim", func(ctx context.Context) valkey.ValkeyResult {
		cmds := make(valkey.Commands, len(items))
		for i, it := range items {
			cmds[i] = g.way.Client.B().Get().Key(g.at.value(it.Key)).Build()
		}
		ctx, cancel := context.WithTimeout(ctx, max(MaxWait, g.cfg.CallTimeout)) // they may be large
		defer cancel()
		replies = g.way.Client.DoMulti(ctx, cmds...)
		for _, reply := range replies {
			if err := reply.NonValkeyError(); err != nil {
				return valkey.NewErrorResult(err)
			}
		}
		return valkey.ValkeyResult{}
	})
	if !ok {
		return nil
	}
	for i, it := range items {
		b, err := replies[i].AsBytes()
		var e entry
		if err == nil {
			e, err = parseEntry(b)
		} else if valkey.IsValkeyNil(err) {
			err = errGone
		}
		if err == nil {
			it.Version, it.Deleted = e.version, e.deleted
			it.token = newToken(g.at.tag, it.Key, it.Version)
			if !e.deleted {
				it.Value, err = g.decodeBody(e.body)
			}
		}
		if err != nil {
			g.fail([]item[V]{it}, []error{Permanent(err)}, false)
			continue
		}
		good = append(good, it)
	}
	return good
}

// write calls the origin, and again with halves where it fails for one write or another.
func (g *group[V]) write(items []item[V]) {
	if g.hopeless() {
		g.fail(items, []error{errUntried}, false)
		return
	}
	err := g.call(items)
	var rejected Rejected
	switch {
	case err == nil:
		g.wrote = true
		g.ack(items)
	case errors.As(err, &rejected) && rejected.fits(len(items)):
		g.wrote = true
		g.divide(items, rejected)
	case len(items) == 1:
		g.leaves++
		g.fail(items, []error{err}, false)
	case g.stays != nil || errors.Is(err, context.DeadlineExceeded) || g.ctx.Err() != nil:
		g.fail(items, []error{err}, false) // the next time they come in halves
	default:
		half := len(items) / 2
		g.write(items[:half])
		g.write(items[half:])
	}
}

// hopeless says that the origin takes nothing, as far as this group knows.
func (g *group[V]) hopeless() bool {
	return g.stays != nil || g.ctx.Err() != nil || g.leaves > 1 && !g.wrote
}

func (r Rejected) fits(n int) bool {
	for i := range r {
		if i < 0 || i >= n {
			return false
		}
	}
	return true
}

func (g *group[V]) divide(items []item[V], rejected Rejected) {
	var good, bad []item[V]
	var reasons []error
	for i, it := range items {
		if err, refused := rejected[i]; refused {
			if err == nil {
				err = errors.New("rejected without a reason")
			}
			bad, reasons = append(bad, it), append(reasons, err)
		} else {
			good = append(good, it)
		}
	}
	if len(good) > 0 {
		g.ack(good)
	}
	if len(bad) > 0 {
		g.fail(bad, reasons, true)
	}
}

// call calls the origin within Config.CallTimeout. One that does not return keeps the group's place.
func (g *group[V]) call(items []item[V]) error {
	batch := make([]Write[V], len(items))
	for i, it := range items {
		batch[i] = it.Write
	}
	ctx, cancel := context.WithTimeout(g.ctx, g.cfg.CallTimeout)
	defer cancel()
	began := time.Now()
	done, returned := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(returned)
		err := errGoexit
		defer func() {
			if p := recover(); p != nil {
				err = &PanicError{p, debug.Stack()}
			}
			done <- err
		}()
		err = g.cfg.Origin(ctx, batch)
		tryText(err)
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case err = <-done:
		case <-timer.C:
			err, g.stays = errTimeout, returned
		}
	}
	g.cfg.Hooks.Written(len(batch), time.Since(began), err)
	return err
}

// tryText panics here, where that is caught, if an error of the origin can't say what it is: a nil pointer, say.
func tryText(err error) {
	if err == nil {
		return
	}
	_ = err.Error()
	var rejected Rejected
	if errors.As(err, &rejected) {
		for _, reason := range rejected {
			tryText(reason)
		}
	}
}

// ack tells the server that items are written.
func (g *group[V]) ack(items []item[V]) {
	keys, args := g.settlement(items, milliseconds(g.cfg.TTL), milliseconds(g.cfg.Window))
	for _, it := range items {
		args = append(args, it.Key, it.claim, strconv.FormatInt(it.Version, 10))
	}
	result, ok := g.settle("ack", func(ctx context.Context) valkey.ValkeyResult {
		return g.way.Exec(ctx, ackScript, keys, args...)
	})
	if !ok {
		return
	}
	if n, err := result.AsInt64(); err != nil {
		g.heard("ack", err)
	} else if n < 0 {
		g.end(errOther)
	}
}

// settlement begins the keys and the arguments of ack.lua and fail.lua.
func (g *group[V]) settlement(items []item[V], more ...string) (keys, args []string) {
	keys = []string{g.at.log, g.at.due, g.at.flight, g.at.dead, g.at.own}
	for _, it := range items {
		keys = append(keys, g.at.value(it.Key), g.at.fill(it.Key))
	}
	return keys, append([]string{g.token}, more...)
}

// fail tells the server that items are not written, for a reason each or the same one. Rejected says that the origin
// has said so of each.
func (g *group[V]) fail(items []item[V], reasons []error, rejected bool) {
	keys, args := g.settlement(items, strconv.Itoa(g.cfg.Attempts), milliseconds(g.cfg.GiveUp),
		strconv.Itoa(g.cfg.DeadLimit/g.cfg.Partitions), milliseconds(g.cfg.Window), strconv.FormatInt(items[0].done, 10))
	reason := func(i int) error { return reasons[min(i, len(reasons)-1)] }
	for i, it := range items {
		kind := among
		if rejected || len(items) == 1 && reason(i) != errUntried { //nolint:errorlint // it is never wrapped
			kind = kindOf(reason(i), rejected)
		}
		args = append(args, it.Key, it.claim, strconv.FormatInt(it.Version, 10), strconv.Itoa(kind),
			milliseconds(g.pause(it.tries)), cut(reason(i).Error()))
	}
	result, ok := g.settle("fail", func(ctx context.Context) valkey.ValkeyResult {
		return g.way.Exec(ctx, failScript, keys, args...)
	})
	if !ok {
		return
	}
	outcomes, err := result.AsIntSlice()
	switch {
	case err != nil:
		g.heard("fail", err)
	case len(outcomes) == 1 && outcomes[0] < 0:
		g.end(errOther)
	case len(outcomes) == len(items):
		for i, it := range items {
			if outcomes[i] == 1 {
				g.cfg.Hooks.Dead(it.Key, reason(i))
				g.cfg.Logger.Warn("writebehind: a write is a dead letter", "partition", g.p, "error", reason(i))
			} else {
				g.cfg.Hooks.Failed(it.Key, it.tries+1, reason(i))
			}
		}
	}
}

// pause is until the next try of a write that has failed so many times before this one.
func (g *group[V]) pause(tries int) time.Duration {
	d := g.cfg.Backoff
	for ; tries > 0 && d < g.cfg.MaxBackoff; tries-- {
		d *= 2
	}
	d = time.Duration((0.8 + 0.4*rand.Float64()) * float64(min(d, g.cfg.MaxBackoff)))
	if g.isClosed() {
		d += g.cfg.Window // beyond what Close takes at once
	}
	return max(d, time.Millisecond)
}

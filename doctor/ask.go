package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"
)

// asker sends commands to one node: no faster than allowed, again when the connection breaks, and not at
// all once they were refused.
type asker struct {
	node     valkey.Client
	addr     string
	patience time.Duration
	perOp    time.Duration // zero means no bound
	refused  *refusals
	keys     int64 // what DBSIZE said last

	mu   sync.Mutex
	next time.Time // when the next command may go
}

// refusals are the commands that some node has refused.
type refusals struct {
	mu    sync.Mutex
	names []string
}

func (r *refusals) add(command string) (first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.names, command) {
		return false
	}
	r.names = append(r.names, command)
	return true
}

func (r *refusals) has(command string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.names, command)
}

func (r *refusals) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(r.names))
}

// isRefusal tells a command that is not to be had from one that failed.
func isRefusal(err error) bool {
	e, ok := valkey.IsValkeyErr(err)
	if !ok {
		return false
	}
	text := strings.ToLower(e.Error())
	return strings.Contains(text, "unknown command") || strings.Contains(text, "unknown subcommand") ||
		strings.HasPrefix(text, "noperm") && !hidesKey(err) || strings.Contains(text, "not allowed") || strings.Contains(text, "not supported")
}

// hidesKey says that a key is not this user's, while others may be.
func hidesKey(err error) bool {
	e, ok := valkey.IsValkeyErr(err)
	return ok && strings.HasPrefix(e.Error(), "NOPERM") && strings.Contains(e.Error(), "key") && !strings.Contains(e.Error(), "to run the")
}

func moved(err error) bool {
	e, ok := valkey.IsValkeyErr(err)
	if !ok {
		return false
	}
	_, isMoved := e.IsMoved()
	_, isAsk := e.IsAsk()
	return isMoved || isAsk || e.IsClusterDown() || e.IsTryAgain()
}

// wait returns when n more commands may be sent.
func (a *asker) wait(ctx context.Context, n int) error {
	if a.perOp == 0 {
		return ctx.Err()
	}
	a.mu.Lock()
	now := time.Now()
	if a.next.Before(now) {
		a.next = now
	}
	at := a.next
	a.next = at.Add(time.Duration(n) * a.perOp)
	a.mu.Unlock()
	return sleep(ctx, at.Sub(now))
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// do sends commands, which only read, until all were answered: a broken connection is no answer, and neither
// is a server that is loading. Make builds them, since those sent can't be sent again.
func (a *asker) do(ctx context.Context, n int, build func() []valkey.Completed) ([]valkey.ValkeyResult, error) {
	silent := time.Duration(0) // without the waits for our own turn
	for attempt := 0; ; attempt++ {
		if err := a.wait(ctx, n); err != nil {
			return nil, err
		}
		begin := time.Now()
		cmds := build()
		for i := range cmds {
			cmds[i] = cmds[i].Pin() // the writer of a broken connection may still read what is answered on the next one
		}
		once, cancel := context.WithTimeout(ctx, a.patience) // the client itself may repeat what reads without end
		replies := a.node.DoMulti(once, cmds...)
		cancel()
		err := unanswered(replies)
		switch {
		case err == nil:
			return replies, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		pause := min(time.Second, 20*time.Millisecond<<min(attempt, 6))
		if silent += time.Since(begin); errors.Is(err, valkey.ErrClosing) || silent >= a.patience {
			return nil, fmt.Errorf("doctor: %s does not answer: %w", a.addr, err)
		}
		silent += pause
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

func unanswered(replies []valkey.ValkeyResult) error {
	for i := range replies {
		if err := replies[i].NonValkeyError(); err != nil {
			return err
		}
		if e, ok := valkey.IsValkeyErr(replies[i].Error()); ok && (e.IsLoading() || strings.HasPrefix(e.Error(), "BUSY")) {
			return e
		}
	}
	return nil
}

// ask sends one command about the server; the answer is empty if it is refused.
func (a *asker) ask(ctx context.Context, words ...string) (valkey.ValkeyMessage, bool, error) {
	name := strings.ToUpper(words[0])
	if len(words) > 1 && slices.Contains([]string{"SLOWLOG", "CLIENT", "ACL", "MEMORY"}, name) {
		name += " " + strings.ToUpper(words[1])
	}
	if a.refused.has(name) {
		return valkey.ValkeyMessage{}, false, nil
	}
	replies, err := a.do(ctx, 1, func() []valkey.Completed {
		return []valkey.Completed{a.node.B().Arbitrary(words...).Build()}
	})
	if err != nil {
		return valkey.ValkeyMessage{}, false, err
	}
	m, err := replies[0].ToMessage()
	if err != nil {
		if isRefusal(err) {
			a.refused.add(name)
		}
		return valkey.ValkeyMessage{}, false, nil //nolint:nilerr // an answer that is an error says nothing, and ends nothing
	}
	return m, true, nil
}

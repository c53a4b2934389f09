package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/breaker"
	"github.com/valkey-io/valkey-go"
)

// slotGroups is into how many the slots of a cluster are divided, each with a breaker: nodes own ranges
// of slots, so one that is away takes few others along.
const slotGroups = 64

func (l *Limiter) newBreakers() {
	n := 1
	if l.cluster.Load() {
		n = slotGroups
	}
	l.breakers = make([]breaker.Breaker, n)
	for i := range l.breakers {
		b := &l.breakers[i]
		b.Opened, b.Closed, b.Timeout = l.cfg.Hooks.Down, l.cfg.Hooks.Up, l.cfg.Timeout
	}
}

// breaker is that of the part of the server which has the key.
func (l *Limiter) breaker(key string) *breaker.Breaker {
	i := 0
	if len(l.breakers) > 1 {
		i = int(slot(key)) / (1 << 14 / slotGroups)
	}
	return &l.breakers[i]
}

// probe asks the server for a key. An error that it answers with, as while it loads its data, is none here:
// such answers come at once, so calls need not be kept from it.
func (l *Limiter) probe(key string) breaker.Probe {
	return func(ctx context.Context) error {
		err := l.client.Do(ctx, l.client.B().Exists().Key(key).Build()).Error()
		if isAnswer(err) {
			return nil
		}
		return err
	}
}

// within calls f and waits for it until ctx ends or until is over, whichever is first. f gets a context that ends only
// then: a client closes the connection, which others use too, where a deadline passes. And it need not end with its
// context, as a client does not while it waits for the connection that another call is making.
func within[T any](ctx context.Context, until time.Time, f func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	own, cancel := context.WithDeadline(context.WithoutCancel(ctx), until)
	done := make(chan result, 1)
	go func() {
		value, err := f(own)
		done <- result{value, err}
		cancel()
	}()
	var none T
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-own.Done():
	}
	select {
	case r := <-done: // it was first
		return r.value, r.err
	default:
		return none, own.Err()
	}
}

// until is when a call that begins now has to have ended.
func (l *Limiter) until() time.Time { return time.Now().Add(l.cfg.Timeout) }

// noAnswer tells the breaker of a key why a call was not answered. The error is what the caller is told.
func (l *Limiter) noAnswer(ctx context.Context, key string, err error) error {
	away := l.breaker(key)
	if ctx.Err() != nil { // the caller has gone: that says nothing about the server
		away.Suspect(l.probe(key))
		return ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v: %w", l.cfg.Timeout, err)
	}
	away.Open(err, l.probe(key))
	return err
}

// isAnswer says whether an error is what the server has answered.
func isAnswer(err error) bool {
	_, answered := valkey.IsValkeyErr(err)
	return answered || errors.Is(err, errReply)
}

// slot is that of a key with a hash tag: CRC16 (XMODEM) of the tag.
func slot(key string) (crc uint16) {
	_, tag, _ := strings.Cut(key, "{")
	tag, _, _ = strings.Cut(tag, "}")
	for i := range len(tag) {
		crc ^= uint16(tag[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % (1 << 14)
}

// closedRetry is what a closed limit says of when to come again: about when the server may be back.
const closedRetry = time.Second

// strictness orders the outage modes: the strictest of a plan counts.
var strictness = [...]int{OutageOpen: 0, OutageLocal: 1, OutageClosed: 2, OutageError: 3}

// outage is the mode of the plan, and the names of the limits that have it.
func (l *Limiter) outageMode() (mode Outage, names []string) {
	mode = OutageOpen
	for i := range l.rules {
		o := l.rules[i].Outage
		if strictness[o] > strictness[mode] {
			mode, names = o, nil
		}
		if o == mode {
			names = append(names, l.rules[i].Name)
		}
	}
	return mode, names
}

// without decides while the server is away, for the reason cause.
func (l *Limiter) without(subject string, cost, count int64, cause error) (Result, error) {
	switch l.outage {
	case OutageOpen:
		return Result{Allowed: true, Granted: cost * count, Mode: ModeOpen}, nil
	case OutageClosed:
		return Result{Mode: ModeClosed, RetryAfter: closedRetry, Violated: l.closed}, nil
	case OutageLocal:
		return l.local.decide(subject, cost, count), nil
	}
	return Result{}, fmt.Errorf("ratelimit: %w", cause)
}

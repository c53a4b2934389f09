// Package queuetest is the conformance suite of package queue: what holds on every kind of server.
package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

type test struct {
	name string
	run  func(*testing.T, valkeytest.Env)
}

// timeless tests have no times in flight that end: a server may take as long as it likes.
var timeless = []test{
	{"Lifecycle", lifecycle},
	{"Bodies", bodies},
	{"Refused", refused},
	{"Names", names},
	{"Batches", batches},
	{"Receipts", receipts},
	{"Reject", reject},
	{"Redrive", redrive},
	{"RedrivePartly", redrivePartly},
	{"DeadPartly", deadPartly},
	{"NoQueue", noQueue},
	{"Order", order},
	{"OrderOfBatches", orderOfBatches},
	{"GroupBlocks", groupBlocks},
	{"Attempt", attempt},
	{"Dedup", dedup},
	{"Fair", fair},
	{"Quotas", quotas},
	{"PauseResume", pauseResume},
	{"Purge", purge},
	{"Delete", deleted},
	{"MadeAnew", madeAnew},
	{"Settings", settings},
	{"Cancelled", cancelled},
	{"Partitions", partitions},
	{"Crowd", crowd},
	{"Model", model},
	{"Drift", drift},
}

var timed = []test{
	{"Visibility", visibility},
	{"ExtendNack", extendNack},
	{"Delay", delay},
	{"DeadLetters", deadLetters},
	{"GroupAgain", groupAgain},
	{"FIFODead", fifoDead},
	{"FIFODelay", fifoDelay},
	{"Unique", unique},
	{"InFlightLimits", inFlightLimits},
	{"Rates", rates},
	{"Retention", retention},
	{"Stats", stats},
	{"LongPoll", longPoll},
	{"TooLate", tooLate},
	{"ForeignTypes", foreignTypes},
	{"Unreadable", unreadable},
	{"PeekLarge", peekLarge},
	{"ForeignSend", foreignSend},
	{"ForeignReceive", foreignReceive},
}

// Run runs the suite against env.
func Run(t *testing.T, env valkeytest.Env) {
	RunTimeless(t, env)
	for _, test := range timed {
		t.Run(test.name, func(t *testing.T) { test.run(t, env) })
	}
}

// RunTimeless runs those tests whose messages stay in flight, on a server that may be slow.
func RunTimeless(t *testing.T, env valkeytest.Env) {
	for _, test := range timeless {
		t.Run(test.name, func(t *testing.T) { test.run(t, env) })
	}
}

// New makes a queue with a prefix of its own, unless cfg has one.
func New(t *testing.T, env valkeytest.Env, cfg queue.Config) *queue.Queue {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = valkeytest.Prefix(t)
	}
	if cfg.Name == "" {
		cfg.Name = "q"
	}
	q, err := queue.New(env.Client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func send(t *testing.T, q *queue.Queue, m queue.Message) queue.Sent {
	t.Helper()
	sent, err := q.Send(t.Context(), m)
	if err != nil {
		t.Fatalf("send: %v", err)
	}
	return sent
}

func text(body string) queue.Message { return queue.Message{Body: []byte(body)} }

func grouped(group, body string) queue.Message {
	return queue.Message{Body: []byte(body), Group: group}
}

// receive receives and fails the test unless the bodies are as wanted.
func receive(t *testing.T, q *queue.Queue, o queue.ReceiveOptions, want ...string) []*queue.Delivery {
	t.Helper()
	ds, err := q.Receive(t.Context(), o)
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	if got := strings.Join(bodiesOf(ds), " "); got != strings.Join(want, " ") {
		t.Fatalf("received %q, want %q", got, strings.Join(want, " "))
	}
	return ds
}

func bodiesOf(ds []*queue.Delivery) []string {
	all := make([]string, len(ds))
	for i, d := range ds {
		all[i] = string(d.Body)
	}
	return all
}

func ack(t *testing.T, q *queue.Queue, ds ...*queue.Delivery) {
	t.Helper()
	for _, d := range ds {
		if err := q.Ack(t.Context(), d.Receipt); err != nil {
			t.Fatalf("ack of %s: %v", d.Body, err)
		}
	}
}

// hour is a time in flight that does not end in a test; ten what a receive asks for.
var (
	hour = queue.ReceiveOptions{Max: 1, Visibility: time.Hour}
	ten  = queue.ReceiveOptions{Max: 10, Visibility: time.Hour}
)

const short = 100 * time.Millisecond

func lifecycle(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{})
	receive(t, q, hour)
	sent := send(t, q, queue.Message{Body: []byte("a"), Attributes: map[string]string{"k": "v", "l": ""}})
	if len(sent.ID) != 22 || sent.Duplicate || sent.Sequence != 0 {
		t.Errorf("sent: %+v", sent)
	}
	d := receive(t, q, ten, "a")[0]
	if d.ID != sent.ID || d.Receives != 1 || d.Dead != nil || d.Group != "" || len(d.Attributes) != 2 || d.Attributes["k"] != "v" {
		t.Errorf("received: %+v", d)
	}
	receive(t, q, ten)
	ack(t, q, d)
	empty(t, q)
}

func bodies(t *testing.T, env valkeytest.Env) {
	const limit = 100_000
	q := New(t, env, queue.Config{MaxBody: limit})
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	many := map[string]string{}
	for i := range 100 {
		many[fmt.Sprintf("name %d:\n%c", i, rune(i))] = string(binary[:i])
	}
	for what, m := range map[string]queue.Message{
		"empty":            {},
		"binary":           {Body: binary},
		"newlines":         {Body: []byte("\n\n1 2 3\n")},
		"limit":            {Body: bytes.Repeat([]byte{0xff}, limit)},
		"attributes":       {Body: binary, Attributes: many},
		"attributes alone": {Attributes: map[string]string{"é": "", "b": "\x00"}},
		"group":            {Body: []byte("x"), Group: "g {1} %7B\n\xff"},
	} {
		sent := send(t, q, m)
		ds, err := q.Receive(t.Context(), hour)
		if err != nil || len(ds) != 1 {
			t.Fatalf("%s: %d messages, %v", what, len(ds), err)
		}
		d := ds[0]
		if d.ID != sent.ID || !bytes.Equal(d.Body, m.Body) || d.Group != m.Group || len(d.Attributes) != len(m.Attributes) {
			t.Errorf("%s: came as %+v", what, d)
		}
		for name, value := range m.Attributes {
			if d.Attributes[name] != value {
				t.Errorf("%s: attribute %q is %q, not %q", what, name, d.Attributes[name], value)
			}
		}
		ack(t, q, d)
	}
}

func refused(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{MaxBody: 1000})
	many := map[string]string{}
	for i := range 1000 {
		many[fmt.Sprint(i)] = ""
	}
	for what, m := range map[string]queue.Message{
		"a body over the limit":       {Body: make([]byte, 1001)},
		"attributes over the limit":   {Body: make([]byte, 990), Attributes: map[string]string{"name": "value, 11 b"}},
		"a thousand attributes":       {Attributes: many},
		"a reserved attribute":        {Attributes: map[string]string{"fr.reason": "x"}},
		"an attribute without a name": {Attributes: map[string]string{"": "x"}},
		"a long group":                {Group: strings.Repeat("g", 129)},
		"a long deduplication id":     {DedupID: strings.Repeat("g", 129)},
		"a negative delay":            {Delay: -1},
		"a delay of years":            {Delay: 400 * 24 * time.Hour},
		"UniqueFor without Unique":    {UniqueFor: time.Second},
		"UniqueFor of years":          {Unique: "u", UniqueFor: 400 * 24 * time.Hour},
		"UniqueFor without end":       {Unique: "u", UniqueFor: math.MaxInt64},
	} {
		if sent, err := q.Send(t.Context(), m); err == nil || sent.ID != "" {
			t.Errorf("%s was sent: %+v, %v", what, sent, err)
		}
	}
	for _, o := range []queue.ReceiveOptions{{Max: -1}, {Max: 1001}, {Wait: -1}, {Visibility: time.Millisecond}, {Visibility: 13 * time.Hour}, {Attempt: "x"}} {
		if _, err := q.Receive(t.Context(), o); err == nil {
			t.Errorf("%+v was asked for", o)
		}
	}
	sent, err := q.SendBatch(t.Context(), []queue.Message{text("a"), {Delay: -1}, text("b")})
	if err == nil || sent[0].Err != nil || sent[1].Err == nil || sent[2].Err != nil {
		t.Errorf("a batch with one that can't be sent: %+v, %v", sent, err)
	}
	receive(t, q, ten, "a", "b")
	receive(t, q, ten)
	if sent, err := q.SendBatch(t.Context(), nil); err != nil || len(sent) != 0 {
		t.Errorf("an empty batch: %v, %v", sent, err)
	}
	fifo := New(t, env, queue.Config{FIFO: true})
	for what, m := range map[string]queue.Message{"no group": text("a"), "a delay": {Group: "g", Delay: time.Second}} {
		if _, err := fifo.Send(t.Context(), m); err == nil {
			t.Errorf("FIFO: %s was sent", what)
		}
	}
}

// names holds that no name meets another's queue.
func names(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	all := []string{"a", "%", "{", "}", "{}", "{a}", "%7Ba%7D", "a:0", "a:0:0", "a b", "a\x00", "ü", "\xff", strings.Repeat("{", 256)}
	queues := make([]*queue.Queue, len(all))
	for i, name := range all {
		queues[i] = New(t, env, queue.Config{Prefix: prefix, Name: name})
		send(t, queues[i], text(fmt.Sprint(i)))
	}
	for i, q := range queues {
		if q.Name() != all[i] {
			t.Errorf("Name() = %q", q.Name())
		}
		ack(t, q, receive(t, q, ten, fmt.Sprint(i))...)
		receive(t, q, ten)
	}
	got, err := queue.Names(t.Context(), env.Client, prefix)
	if err != nil || len(got) != len(all) {
		t.Errorf("Names: %q, %v", got, err)
	}
}

func visibility(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{Visibility: short})
	send(t, q, text("a"))
	first := receive(t, q, queue.ReceiveOptions{}, "a")[0]
	receive(t, q, hour)
	env.Advance(short + time.Millisecond)
	second := receive(t, q, queue.ReceiveOptions{}, "a")[0]
	if second.ID != first.ID || second.Receives != 2 || first.Receives != 1 || second.Receipt == first.Receipt {
		t.Errorf("the second delivery: %+v after %+v", second, first)
	}
	if !second.FirstReceived.Equal(first.FirstReceived) || !second.Sent.Equal(first.Sent) || first.FirstReceived.Before(first.Sent) {
		t.Errorf("times: %v %v, then %v %v", first.Sent, first.FirstReceived, second.Sent, second.FirstReceived)
	}
	if err := q.Ack(t.Context(), first.Receipt); !errors.Is(err, queue.ErrNotHeld) {
		t.Errorf("ack with an old receipt: %v", err)
	}
	// The time of the second one passes, and nobody else has it: its receipt still counts.
	env.Advance(short + time.Millisecond)
	ack(t, q, second)
	receive(t, q, hour)
}

func extendNack(t *testing.T, env valkeytest.Env) {
	ctx := t.Context()
	q := New(t, env, queue.Config{})
	send(t, q, text("a"))
	d := receive(t, q, queue.ReceiveOptions{Visibility: short}, "a")[0]
	if err := q.Extend(ctx, d.Receipt, time.Hour); err != nil {
		t.Fatal(err)
	}
	env.Advance(short + time.Millisecond)
	receive(t, q, hour)
	if err := q.Nack(ctx, d.Receipt, short, "later"); err != nil {
		t.Fatal(err)
	}
	receive(t, q, hour)
	env.Advance(short + time.Millisecond)
	d = receive(t, q, hour, "a")[0]
	if err := q.Nack(ctx, d.Receipt, 0, ""); err != nil {
		t.Fatal(err)
	}
	again := receive(t, q, hour, "a")[0]
	if again.Receives != 3 {
		t.Errorf("%d receives", again.Receives)
	}
	for what, err := range map[string]error{
		"nack with an old receipt":   q.Nack(ctx, d.Receipt, 0, ""),
		"extend with an old receipt": q.Extend(ctx, d.Receipt, time.Hour),
	} {
		if !errors.Is(err, queue.ErrNotHeld) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := q.Extend(ctx, again.Receipt, 0); err != nil {
		t.Fatal(err)
	}
	ack(t, q, receive(t, q, hour, "a")...)
	for what, err := range map[string]error{
		"a negative delay":  q.Nack(ctx, again.Receipt, -1, ""),
		"a delay of a day":  q.Nack(ctx, again.Receipt, 24*time.Hour, ""),
		"visibility 1 ms":   q.Extend(ctx, again.Receipt, time.Millisecond),
		"visibility a day":  q.Extend(ctx, again.Receipt, 24*time.Hour),
		"visibility less 0": q.Extend(ctx, again.Receipt, -time.Second),
	} {
		if err == nil || errors.Is(err, queue.ErrNotHeld) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func batches(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{})
	const n = 700 // several calls
	messages, want := make([]queue.Message, n), map[string]bool{}
	for i := range messages {
		messages[i] = text(fmt.Sprint(i))
	}
	sent, err := q.SendBatch(t.Context(), messages)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range sent {
		if len(s.ID) != 22 || s.Err != nil || s.Duplicate || want[s.ID] {
			t.Fatalf("message %d: %+v", i, s)
		}
		want[s.ID] = true
	}
	ds, err := q.Receive(t.Context(), queue.ReceiveOptions{Max: n, Visibility: time.Hour})
	if err != nil || len(ds) != n {
		t.Fatalf("%d of %d messages, %v", len(ds), n, err)
	}
	receipts := []string{"0:x"}
	for i, d := range ds {
		if string(d.Body) != fmt.Sprint(i) || !want[d.ID] {
			t.Fatalf("message %d: %s", i, d.Body)
		}
		delete(want, d.ID)
		receipts = append(receipts, d.Receipt)
	}
	if errs := q.ExtendBatch(t.Context(), receipts[1:], time.Hour); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	errs := q.AckBatch(t.Context(), receipts)
	if len(errs) != n+1 || !errors.Is(errs[0], queue.ErrNotHeld) || errors.Join(errs[1:]...) != nil {
		t.Fatal(errors.Join(errs...))
	}
	if errs := q.AckBatch(t.Context(), nil); errs != nil {
		t.Errorf("no receipts: %v", errs)
	}
	empty(t, q)
}

// empty fails the test unless nothing is left in a queue.
func empty(t *testing.T, q *queue.Queue) {
	t.Helper()
	s, err := q.Stats(t.Context())
	if err != nil || s.Visible+s.InFlight+s.Delayed+s.Dying+s.Bytes+s.Groups != 0 || s.OldestAge != 0 && s.Visible == 0 && s.OldestAge > 0 {
		t.Errorf("left behind: %+v, %v", s, err)
	}
}

func delay(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{Delay: short})
	began := time.Now()
	send(t, q, text("by the queue"))
	send(t, q, queue.Message{Body: []byte("by itself"), Delay: 2 * short})
	send(t, q, queue.Message{Body: []byte("grouped"), Delay: 2 * short, Group: "g"})
	s, err := q.Stats(t.Context())
	early, failed := q.Receive(t.Context(), ten)
	inTime := time.Since(began) < short // else the machine was too busy to see anything before its time
	if err != nil || inTime && (s.Delayed != 3 || s.Visible != 0) {
		t.Errorf("%+v, %v", s, err)
	}
	if failed != nil || inTime && len(early) > 0 {
		t.Errorf("%v came early, %v", bodiesOf(early), failed)
	}
	if len(early) == 0 {
		env.Advance(short + time.Millisecond)
		early = receive(t, q, ten, "by the queue")
	}
	ack(t, q, early...)
	env.Advance(short + time.Millisecond)
	ds, err := q.Receive(t.Context(), ten)
	if err != nil || len(ds) != 2 || ds[0].Receives != 1 {
		t.Fatalf("%v, %v", bodiesOf(ds), err)
	}
	ack(t, q, ds...)
	empty(t, q)
}

// receipts tries what nobody has got.
func receipts(t *testing.T, env valkeytest.Env) {
	q := New(t, env, queue.Config{})
	send(t, q, text("a"))
	d := receive(t, q, hour, "a")[0]
	id := d.ID
	for _, forged := range []string{
		"", "0", ":", "0:", "0:" + id, "1" + d.Receipt, "9999999999999999999:" + id, "-1:" + id, d.Receipt + "x", " " + d.Receipt, "0" + d.Receipt, "00" + d.Receipt,
		strings.Replace(d.Receipt, ":1:", ":2:", 1), strings.Repeat(d.Receipt, 100), "0:a:b:c:d:e:f", "0::::::", "0:" + id + ":1:1:1:u:g\n",
		"\x00", "0:a:1:1:18446744073709551616:-:",
	} {
		for what, err := range map[string]error{
			"ack": q.Ack(t.Context(), forged), "nack": q.Nack(t.Context(), forged, 0, "x"), "extend": q.Extend(t.Context(), forged, time.Hour),
			"reject": q.Reject(t.Context(), forged, "x"),
		} {
			if !errors.Is(err, queue.ErrNotHeld) {
				t.Errorf("%s of %.60q: %v", what, forged, err)
			}
		}
	}
	ack(t, q, d)
	if err := q.Ack(t.Context(), d.Receipt); !errors.Is(err, queue.ErrNotHeld) {
		t.Errorf("a second ack: %v", err)
	}
	empty(t, q)
}

// until calls f until it says so; a test that waits in vain fails.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within 20 s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestQueueScripts runs the transcripts in testdata/queue, on a server.
func TestQueueScripts(t *testing.T) {
	server := valkeytest.Start(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/queue",
		Setup: func(env *testscript.Env) error {
			env.Setenv("FLATRATE_VALKEY", "unix://"+server.Socket)
			env.Setenv("FLATRATE_PREFIX", strings.TrimPrefix(filepath.Base(env.WorkDir), "script-"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"die": die, "log": makeLog},
	})
}

// die sends messages and rejects them: die QUEUE DEADLETTERS N
func die(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	ts.Check(deadLetters(context.Background(), ts.Getenv("FLATRATE_VALKEY"), ts.Getenv("FLATRATE_PREFIX"), args[0], args[1], n))
}

// makeLog appends to a log, and receives one entry for a group: log NAME GROUP N
func makeLog(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := flatrate.Connect(ctx, ts.Getenv("FLATRATE_VALKEY"))
	ts.Check(err)
	defer client.Close()
	l, err := queue.NewLog(client, queue.LogConfig{Prefix: ts.Getenv("FLATRATE_PREFIX"), Name: args[0]})
	ts.Check(err)
	g, err := l.Group(queue.GroupConfig{Name: args[1]})
	ts.Check(err)
	ts.Check(g.Open(ctx))
	for range n {
		_, err := l.Append(ctx, queue.Message{Body: []byte("x"), Group: "k"})
		ts.Check(err)
	}
	ds, err := g.Receive(ctx, queue.ReceiveOptions{Wait: time.Minute})
	ts.Check(err)
	ts.Check(g.Reject(ctx, ds[0].Receipt, "no"))
	ts.Check(g.Close(ctx))
}

func deadLetters(ctx context.Context, url, prefix, name, dead string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client, err := flatrate.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer client.Close()
	q, err := queue.New(client, queue.Config{Prefix: prefix, Name: name, DeadLetters: dead})
	if err != nil {
		return err
	}
	for i := range n {
		if _, err := q.Send(ctx, queue.Message{Body: strconv.AppendInt(nil, int64(i), 10)}); err != nil {
			return err
		}
	}
	for left := n; left > 0; {
		ds, err := q.Receive(ctx, queue.ReceiveOptions{Max: 100, Visibility: time.Hour})
		if err != nil {
			return err
		}
		for _, d := range ds {
			if err := q.Reject(ctx, d.Receipt, "it is broken\x1b"); err != nil {
				return err
			}
			left--
		}
	}
	for { // a goroutine moves them
		if s, err := q.Stats(ctx); err != nil || s.Dying == 0 {
			return err
		}
		<-time.After(time.Millisecond)
	}
}

func queueOf(t *testing.T, server *valkeytest.Server, name string) *queue.Queue {
	t.Helper()
	q, err := queue.New(server.Client(), queue.Config{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func count64(t *testing.T, q *queue.Queue) int64 {
	t.Helper()
	s, err := q.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return held(s)
}

// TestRedriveInterrupted presses Ctrl-C while messages move: what was moved is said, and nothing is lost or doubled.
func TestRedriveInterrupted(t *testing.T) {
	server := valkeytest.Start(t)
	const n = 300
	url := "unix://" + server.Socket
	if err := deadLetters(t.Context(), url, "fr", "orders", "dead", n); err != nil {
		t.Fatal(err)
	}
	orders, dead := queueOf(t, server, "orders"), queueOf(t, server, "dead")
	for _, output := range []string{"table", "json"} {
		before := count64(t, orders)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for ctx.Err() == nil {
				if s, err := orders.Stats(ctx); err == nil && held(s) > before {
					cancel()
				}
			}
		}()
		var out, problems bytes.Buffer
		code := run(ctx, []string{"queue", "redrive", "dead", "--rate", "10", "--valkey", url, "--output", output}, stdio{nil, &out, &problems})
		cancel()
		moved := count64(t, orders) - before
		if code != exitInterrupted || problems.String() != "flatrate: interrupted\n" || moved < 1 {
			t.Fatalf("exit code %d, %d moved: %s", code, moved, problems.String())
		}
		left := count64(t, dead)
		if left != n-before-moved {
			t.Errorf("%d left, %d moved", left, before+moved)
		}
		if output == "table" {
			if want := "moved " + messages(moved) + " from dead, " + strconv.FormatInt(left, 10) + " left\n"; out.String() != want {
				t.Errorf("%s, want %s", out.String(), want)
			}
			continue
		}
		var got struct {
			Moved, Left int64
			Complete    bool
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Moved != moved || got.Left != left || got.Complete {
			t.Errorf("%s, %v", out.String(), err)
		}
	}
}

// TestBatchInterrupted presses Ctrl-C while standard input keeps silent.
func TestBatchInterrupted(t *testing.T) {
	server := valkeytest.Start(t)
	url := "unix://" + server.Socket
	for _, args := range [][]string{{"--batch", "-"}, {"-"}} {
		ctx, cancel := context.WithCancel(t.Context())
		silent, _ := io.Pipe()
		in := io.MultiReader(strings.NewReader("{\"body\":\"1\"}\n{\"body\":\"2\"}\n"), silent)
		orders := queueOf(t, server, "orders"+args[0])
		if args[0] == "-" {
			context.AfterFunc(t.Context(), cancel)
			in = io.MultiReader(onRead(cancel), silent)
		}
		go func() {
			for ctx.Err() == nil {
				if s, err := orders.Stats(ctx); err == nil && held(s) == 2 {
					cancel()
				}
			}
		}()
		var out, problems bytes.Buffer
		code := run(ctx, append([]string{"queue", "send", "--valkey", url, "--create", "orders" + args[0]}, args...), stdio{in, &out, &problems})
		cancel()
		if code != exitInterrupted || problems.String() != "flatrate: interrupted\n" {
			t.Errorf("exit code %d: %s", code, problems.String())
		}
		if want := map[bool]string{true: "sent 2 messages to orders--batch\n"}[args[0] == "--batch"]; out.String() != want {
			t.Errorf("%s, want %s", out.String(), want)
		}
	}
}

// TestQueueServerFull tells of messages that the server has no memory for.
func TestQueueServerFull(t *testing.T) {
	server := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Password: "hunter2"})
	url := "valkey://:hunter2@" + server.Addr
	for i, args := range [][]string{{"--create", "orders", "first"}, {"orders", "second"}, {"orders", "--batch", "-"}} {
		if i == 1 {
			c := server.Client()
			if err := c.Do(t.Context(), c.B().ConfigSet().ParameterValue().ParameterValue("maxmemory", "1").Build()).Error(); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("FLATRATE_VALKEY", url)
		var out, problems bytes.Buffer
		code := run(t.Context(), append([]string{"queue", "send"}, args...), stdio{strings.NewReader("{\"body\":\"1\"}\n{\"body\":\"2\"}"), &out, &problems})
		if (code == 0) != (i == 0) || i > 0 && !strings.Contains(problems.String(), "OOM") || strings.Contains(problems.String(), "hunter2") {
			t.Errorf("%v: exit code %d: %s", args, code, problems.String())
		}
		if i == 2 && (!strings.HasPrefix(out.String(), "sent 0 messages") || !strings.Contains(problems.String(), "nothing behind line ")) {
			t.Errorf("%s %s", out.String(), problems.String())
		}
	}
}

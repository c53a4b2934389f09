package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/valkeytest"
)

// RunList runs the suite of the simple list against env.
func RunList(t *testing.T, env valkeytest.Env) {
	prefix := valkeytest.Prefix(t)
	open := func(name string, most int) *queue.List {
		l, err := queue.NewList(env.Client, queue.ListConfig{Prefix: prefix, Name: name, MaxLen: most, MaxBody: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	t.Run("Order", func(t *testing.T) { listOrder(t, open("a {1}", 0)) })
	t.Run("Cap", func(t *testing.T) { listCap(t, open("b", 3)) })
	t.Run("Wait", func(t *testing.T) { listWait(t, open("c", 0)) })
	t.Run("Cancel", func(t *testing.T) { listCancel(t, open("d", 0)) })
}

func listOrder(t *testing.T, l *queue.List) {
	ctx := t.Context()
	if item, ok, err := l.Pop(ctx, 0); ok || item != nil || err != nil {
		t.Fatalf("%q, %v, %v", item, ok, err)
	}
	all := [][]byte{[]byte("a"), {}, {0, 255, '\n'}, bytes.Repeat([]byte{1}, 1000), []byte("e")}
	if n, err := l.Push(ctx, all...); n != len(all) || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	item, ok, err := l.Pop(ctx, time.Second)
	if !ok || err != nil || string(item) != "a" {
		t.Fatalf("%q, %v, %v", item, ok, err)
	}
	got, err := l.PopBatch(ctx, 10)
	if err != nil || len(got) != 4 {
		t.Fatalf("%q, %v", got, err)
	}
	for i, item := range got {
		if !bytes.Equal(item, all[i+1]) {
			t.Errorf("item %d: %q", i, item)
		}
	}
	if n, err := l.Len(ctx); n != 0 || err != nil {
		t.Errorf("%d are left, %v", n, err)
	}
	if got, err := l.PopBatch(ctx, 10); len(got) != 0 || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for what, err := range map[string]error{
		"no items":      second(l.Push(ctx)),
		"a large item":  second(l.Push(ctx, make([]byte, 1001))),
		"many items":    second(l.Push(ctx, make([][]byte, 1001)...)),
		"a batch of 0":  second(l.PopBatch(ctx, 0)),
		"a batch large": second(l.PopBatch(ctx, 1001)),
		"less than 0":   third(l.Pop(ctx, -1)),
	} {
		if err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func third[A, B any](_ A, _ B, err error) error { return err }

func listCap(t *testing.T, l *queue.List) {
	ctx := t.Context()
	if n, err := l.Push(ctx, []byte("1"), []byte("2")); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := l.Push(ctx, []byte("3"), []byte("4")); !errors.Is(err, queue.ErrFull) {
		t.Fatal(err)
	}
	if n, err := l.Push(ctx, []byte("3")); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := l.Push(ctx, []byte("4")); !errors.Is(err, queue.ErrFull) {
		t.Fatal(err)
	}
	if got, err := l.PopBatch(ctx, 3); fmt.Sprintf("%s", got) != "[1 2 3]" || err != nil {
		t.Fatalf("%s, %v", got, err)
	}
}

// listWait has items come to those who wait, each to one.
func listWait(t *testing.T, l *queue.List) {
	const n = 20
	var all sync.WaitGroup
	got := make(chan string, n)
	for range n {
		all.Go(func() {
			item, ok, err := l.Pop(t.Context(), 20*time.Second)
			if !ok || err != nil {
				t.Errorf("%v, %v", ok, err)
			}
			got <- string(item)
		})
	}
	for i := range n {
		if _, err := l.Push(t.Context(), []byte(fmt.Sprint(i))); err != nil {
			t.Error(err) // not Fatal: those who wait are waited for
		}
	}
	all.Wait()
	close(got)
	seen := map[string]bool{}
	for item := range got {
		seen[item] = true
	}
	if len(seen) != n {
		t.Errorf("%d of %d items: %v", len(seen), n, seen)
	}
}

// listCancel ends the wait of a Pop: it returns, and leaves nobody who would take what comes later.
func listCancel(t *testing.T, l *queue.List) {
	ctx, cancel := context.WithCancel(t.Context())
	popped := make(chan error, 1)
	go func() { popped <- third(l.Pop(ctx, 15*time.Second)) }()
	time.Sleep(20 * time.Millisecond) // it waits then, or is refused at once
	cancel()
	select {
	case err := <-popped:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits on")
	}
	if n, err := l.Push(t.Context(), []byte("a")); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if item, ok, err := l.Pop(t.Context(), 0); string(item) != "a" || !ok || err != nil {
		t.Errorf("%q, %v, %v", item, ok, err)
	}
}

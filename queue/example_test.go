package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/flatrate/flatrate/queue"
	"github.com/valkey-io/valkey-go"
)

var client valkey.Client // from flatrate.Connect

func deliver(ctx context.Context, _ []byte) error { return ctx.Err() } // your work

// One process sends.
func ExampleQueue_Send() {
	ctx := context.Background()
	q, err := queue.New(client, queue.Config{Name: "mail", DeadLetters: "mail dead"})
	if err != nil {
		log.Fatal(err)
	}
	sent, err := q.Send(ctx, queue.Message{Body: []byte("hello"), Group: "tenant 1", DedupID: "order-42"})
	if errors.Is(err, queue.ErrFull) {
		log.Print("the consumers are behind: try again later")
	}
	log.Print(sent.ID, sent.Duplicate)
}

// Others handle what comes, until they are told to end.
func ExampleConsumer() {
	q, err := queue.New(client, queue.Config{Name: "mail", DeadLetters: "mail dead"})
	if err != nil {
		log.Fatal(err)
	}
	c, err := queue.NewConsumer(q, queue.ConsumerConfig{
		Concurrency: 32,
		Timeout:     time.Minute,
		Handler: func(ctx context.Context, d *queue.Delivery) error {
			if len(d.Body) == 0 {
				return queue.Reject(errors.New("an empty mail")) // to the dead letters, at once
			}
			return deliver(ctx, d.Body) // nil acknowledges; an error lets it come again
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := c.Run(ctx); err != nil {
		log.Print(err)
	}
}

// Go values as JSON.
func ExampleHandle() {
	type order struct{ ID int }
	ctx := context.Background()
	q, err := queue.New(client, queue.Config{Name: "orders", FIFO: true})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := queue.SendJSON(ctx, q, order{42}, queue.Message{Group: "customer 7"}); err != nil {
		log.Print(err)
	}
	c, err := queue.NewConsumer(q, queue.ConsumerConfig{
		Handler: queue.Handle(func(_ context.Context, o order, d *queue.Delivery) error {
			fmt.Println("order", o.ID, "of", d.Group, "for the time number", d.Receives)
			return nil
		}),
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = c.Run(ctx)
}

// Without a consumer: receive, work, acknowledge.
func ExampleQueue_Receive() {
	ctx := context.Background()
	q, err := queue.New(client, queue.Config{Name: "mail"})
	if err != nil {
		log.Fatal(err)
	}
	ds, err := q.Receive(ctx, queue.ReceiveOptions{Max: 10, Wait: 20 * time.Second, Visibility: time.Minute})
	if err != nil {
		log.Print(err)
	}
	for _, d := range ds {
		if err := deliver(ctx, d.Body); err != nil {
			_ = q.Nack(ctx, d.Receipt, time.Minute, err.Error())
			continue
		}
		if err := q.Ack(ctx, d.Receipt); errors.Is(err, queue.ErrNotHeld) {
			log.Print("it took longer than a minute, and came to somebody else")
		}
	}
}

// A job that is sent every morning by one of the processes that run this.
func ExampleScheduler() {
	q, err := queue.New(client, queue.Config{Name: "reports"})
	if err != nil {
		log.Fatal(err)
	}
	s, err := queue.NewScheduler(q, queue.SchedulerConfig{Jobs: []queue.Job{
		{Name: "daily report", Spec: "30 6 * * mon-fri", Message: queue.Message{Body: []byte("daily")}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	_ = s.Run(context.Background())
}

// What has failed goes back when the reason is gone: a hundred messages a second.
func ExampleQueue_Redrive() {
	dead, err := queue.New(client, queue.Config{Name: "mail dead"})
	if err != nil {
		log.Fatal(err)
	}
	moved, err := dead.Redrive(context.Background(), queue.RedriveOptions{PerSecond: 100})
	log.Print(moved, err)
}

// A log: whoever wants its entries reads them as a group, each in order by key.
func ExampleLog() {
	ctx := context.Background()
	l, err := queue.NewLog(client, queue.LogConfig{Name: "orders", Partitions: 8})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := l.Append(ctx, queue.Message{Body: []byte("shipped"), Group: "customer 7"}); err != nil {
		log.Print(err) // without an answer it may have been appended
	}
	invoices, err := l.Group(queue.GroupConfig{Name: "invoices"})
	if err != nil {
		log.Fatal(err)
	}
	c, err := queue.NewConsumer(invoices, queue.ConsumerConfig{
		Handler: func(ctx context.Context, d *queue.Delivery) error { return deliver(ctx, d.Body) },
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Run(ctx); err != nil {
		log.Print(err)
	}
}

// What failed too often waits among the group's dead letters, and can be delivered to it again.
func ExampleGroup_Replay() {
	ctx := context.Background()
	l, err := queue.NewLog(client, queue.LogConfig{Name: "orders"})
	if err != nil {
		log.Fatal(err)
	}
	invoices, err := l.Group(queue.GroupConfig{Name: "invoices"})
	if err != nil {
		log.Fatal(err)
	}
	dead, err := invoices.Dead(ctx, 100)
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range dead {
		fmt.Println(d.ID, d.Dead.Reason)
		if _, err := invoices.Replay(ctx, d.ID); err != nil {
			log.Print(err)
		}
	}
}

// A simple list, for work that may be lost.
func ExampleList() {
	ctx := context.Background()
	list, err := queue.NewList(client, queue.ListConfig{Name: "thumbnails", MaxLen: 10_000})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := list.Push(ctx, []byte("cat.jpg")); errors.Is(err, queue.ErrFull) {
		log.Print("nobody keeps up: it is left out")
	}
	item, ok, err := list.Pop(ctx, 20*time.Second)
	if err == nil && ok {
		_ = deliver(ctx, item) // if this process dies now, the item is gone
	}
}

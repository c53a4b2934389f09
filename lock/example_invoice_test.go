package lock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
)

var (
	table    *invoices // your database
	payments *provider // your payment provider
)

// An invoice is charged once, whatever becomes of the lock. The lock keeps two workers from doing the
// same work at the same time, no more: the row's state says that the invoice was charged before, the
// fence turns away a worker that lost the lock without knowing, and the provider's idempotency key makes
// one charge of two calls, after a crash between the charge and the last update.
func ExampleLock_Fence_invoice() {
	locker, err := lock.New(client, lock.Config{TTL: 30 * time.Second, MaxHold: 10 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	if err := chargeInvoice(context.Background(), locker, table, payments, 42); err != nil {
		log.Print(err) // the job is tried again: the invoice may be open, or in the hands of another worker
	}
}

func chargeInvoice(ctx context.Context, locker *lock.Locker, db *invoices, pay *provider, id int) error {
	held, err := locker.Acquire(ctx, fmt.Sprint("invoice:", id))
	if err != nil {
		return err
	}
	defer func() {
		if err := held.Release(context.WithoutCancel(ctx)); err != nil {
			log.Print(err) // not the job's error: it is done, and the lock ends by itself
		}
	}()
	// UPDATE invoice SET state = 'charging', fence = $1 WHERE id = $2 AND state <> 'charged' AND fence < $1
	if !db.begin(id, held.Fence()) {
		return nil // it is charged, or a newer holder is at it
	}
	// The lock is renewed meanwhile; the context ends if it is lost.
	if err := pay.charge(held.Context(), fmt.Sprint("invoice-", id)); err != nil {
		return err
	}
	// UPDATE invoice SET state = 'charged' WHERE id = $2 AND fence = $1
	if !db.finish(id, held.Fence()) {
		return errors.New("a newer holder has taken over")
	}
	return nil
}

// invoices stands for a table; each method is one UPDATE, and tells whether it changed a row.
type invoices struct {
	mu    sync.Mutex
	state map[int]string
	fence map[int]uint64
}

func (db *invoices) begin(id int, fence uint64) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.state[id] == "charged" || db.fence[id] >= fence {
		return false
	}
	db.state[id], db.fence[id] = "charging", fence
	return true
}

func (db *invoices) finish(id int, fence uint64) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.fence[id] != fence {
		return false
	}
	db.state[id] = "charged"
	return true
}

// provider stands for a payment provider that knows idempotency keys.
type provider struct {
	mu      sync.Mutex
	charges map[string]int // by idempotency key: always 1
	calls   int
	during  func(ctx context.Context, call int) error // what happens while a charge is under way
}

func (p *provider) charge(ctx context.Context, idempotencyKey string) error {
	p.mu.Lock()
	p.calls++
	call := p.calls
	p.charges[idempotencyKey] = 1 // a second call with the same key changes nothing
	p.mu.Unlock()
	if p.during != nil {
		return p.during(ctx, call)
	}
	return ctx.Err()
}

func newInvoices() (*invoices, *provider) {
	return &invoices{state: map[int]string{}, fence: map[int]uint64{}}, &provider{charges: map[string]int{}}
}

// TestInvoiceChargedOnce lets many workers have the same job: one calls the provider.
func TestInvoiceChargedOnce(t *testing.T) {
	locker, err := lock.New(valkeytest.Start(t).Client(), lock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	db, pay := newInvoices()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := chargeInvoice(t.Context(), locker, db, pay, 42); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if pay.calls != 1 || db.state[42] != "charged" {
		t.Errorf("%d calls, state %q", pay.calls, db.state[42])
	}
}

// TestInvoiceAfterLoss takes the lock away during the charge, and another worker does the job: the
// first one's context ends, its last update is refused, and the customer is charged once.
func TestInvoiceAfterLoss(t *testing.T) {
	server := valkeytest.Start(t)
	locker, err := lock.New(server.Client(), lock.Config{TTL: 600 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	db, pay := newInvoices()
	pay.during = func(ctx context.Context, call int) error {
		if call > 1 {
			return nil
		}
		do(t, server.Client(), "FLUSHALL")
		if err := chargeInvoice(t.Context(), locker, db, pay, 42); err != nil {
			t.Error(err)
		}
		<-ctx.Done()
		return nil // as if nobody had looked at the context
	}
	if err := chargeInvoice(t.Context(), locker, db, pay, 42); err == nil {
		t.Error("a worker that lost the lock finished")
	}
	if pay.calls != 2 || len(pay.charges) != 1 || db.state[42] != "charged" {
		t.Errorf("%d calls, %d charges, state %q", pay.calls, len(pay.charges), db.state[42])
	}
	// The job is tried again, as a queue would: there is nothing left to do.
	if err := chargeInvoice(t.Context(), locker, db, pay, 42); err != nil || pay.calls != 2 {
		t.Errorf("tried again: %v, %d calls", err, pay.calls)
	}
}

// TestInvoiceAfterCrash dies between the charge and the last update: the next worker calls the provider
// again, with the same key.
func TestInvoiceAfterCrash(t *testing.T) {
	locker, err := lock.New(valkeytest.Start(t).Client(), lock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	db, pay := newInvoices()
	crash := errors.New("crash")
	pay.during = func(_ context.Context, call int) error {
		if call == 1 {
			return crash
		}
		return nil
	}
	if err := chargeInvoice(t.Context(), locker, db, pay, 42); !errors.Is(err, crash) {
		t.Errorf("%v", err)
	}
	if err := chargeInvoice(t.Context(), locker, db, pay, 42); err != nil {
		t.Error(err)
	}
	if pay.calls != 2 || len(pay.charges) != 1 || db.state[42] != "charged" {
		t.Errorf("%d calls, %d charges, state %q", pay.calls, len(pay.charges), db.state[42])
	}
}

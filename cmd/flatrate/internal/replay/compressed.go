package replay

import (
	"context"
	"hash/maphash"
	"iter"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage"
	"github.com/valkey-io/valkey-go"
)

// queued is how many requests wait for one worker at most.
const queued = 256

// job is a request at a time.
type job struct {
	entry usage.Entry
	now   time.Time
}

// worker serves the clients whose address falls to it, so that the requests of one client stay in order.
type worker struct {
	*visitors
	jobs    chan job
	latency *hdrhistogram.Histogram // in microseconds
}

// compressed replays as fast as the server answers.
func compressed(ctx context.Context, client valkey.Client, cfg Config, log iter.Seq2[usage.Entry, error], out *Outcome) error {
	site, err := newSite(client, cfg)
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	workers := make([]*worker, cfg.Workers)
	var running sync.WaitGroup
	start := time.Now()
	for i := range workers {
		w := &worker{newVisitors(site), make(chan job, queued), hdrhistogram.New(1, time.Minute.Microseconds(), 2)}
		workers[i] = w
		running.Go(func() {
			if err := w.run(ctx); err != nil {
				fail(err)
			}
		})
	}
	seed := maphash.MakeSeed()
	err = out.read(ctx, log, func(entry usage.Entry, now time.Time) error {
		w := workers[maphash.String(seed, entry.Address)%uint64(len(workers))]
		select {
		case w.jobs <- job{entry, now}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	for _, w := range workers {
		close(w.jobs)
	}
	running.Wait()
	out.Elapsed = time.Since(start)
	out.collect(workers)
	if ctx.Err() != nil { // a worker may have failed after the last line was read
		return context.Cause(ctx)
	}
	return err
}

// run serves jobs until there are no more, or one fails.
func (w *worker) run(ctx context.Context) error {
	for job := range w.jobs {
		start := time.Now()
		if err := w.request(ctx, job.entry, job.now); err != nil {
			return err
		}
		_ = w.latency.RecordValue(min(time.Since(start).Microseconds(), w.latency.HighestTrackableValue()))
	}
	return nil
}

// collect adds up what the workers counted.
func (o *Outcome) collect(workers []*worker) {
	all := hdrhistogram.New(1, time.Minute.Microseconds(), 2)
	for _, w := range workers {
		o.add(w.counts)
		all.Merge(w.latency)
	}
	at := func(percent float64) time.Duration {
		return time.Duration(all.ValueAtQuantile(percent)) * time.Microsecond
	}
	o.Latency = Latency{at(50), at(95), at(99)}
}

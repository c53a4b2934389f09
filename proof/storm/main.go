// Command storm lets many keys of a cache expire together, and plots what the origin and the callers notice of it.
//
//	cd proof && go run ./storm -o ../docs/cache-storm.svg
//
// Every key is stored at the same time and asked for at a steady rate, at times that don't wait for answers; a load
// takes 100 ms, and the origin takes as many as come. It starts its own server.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/cache"
)

// plan is what one run is like.
type plan struct {
	Keys   int
	Every  time.Duration // each key is asked for so often
	TTL    time.Duration
	Load   time.Duration
	Bucket time.Duration // a point of the plot
}

func (p plan) total() time.Duration { return p.TTL + p.TTL/4 }

// variant is one way to configure the cache.
type variant struct {
	Name   string
	Jitter float64
	Stale  time.Duration
	TTL    time.Duration // other than the plan's
}

func variants(p plan) []variant {
	return []variant{
		{Name: "nothing expires", Jitter: cache.NoJitter, TTL: time.Hour},
		{Name: "no jitter", Jitter: cache.NoJitter},
		{Name: "jitter 0.8", Jitter: 0.8},
		{Name: "stale while revalidate", Jitter: cache.NoJitter, Stale: p.TTL},
	}
}

// run is what was seen of a variant.
type run struct {
	variant
	Peak        int             // loads at once
	Loads       int             // in all, which is one and a quarter of the TTL
	P50, P999   time.Duration   // of all answers
	Concurrency []float64       // the most loads at once in each bucket
	Latency     []time.Duration // p99 of each bucket
}

func main() {
	out := flag.String("o", "cache-storm.svg", "where to write the plot")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	p := plan{Keys: 10_000, Every: time.Second, TTL: 40 * time.Second, Load: 100 * time.Millisecond, Bucket: 250 * time.Millisecond}
	if err := storm(ctx, p, *out, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "storm:", err)
		os.Exit(1)
	}
}

func storm(ctx context.Context, p plan, out string, report io.Writer) error {
	url, stop, err := startServer()
	if err != nil {
		return err
	}
	defer stop()
	var runs []run
	fmt.Fprintf(report, "%-24s %10s %14s %10s %10s\n", "", "peak loads", "loads per key", "p50", "p99.9")
	for _, v := range variants(p) {
		r, err := p.run(ctx, url, v)
		if err != nil {
			return err
		}
		fmt.Fprintf(report, "%-24s %10d %14.2f %10v %10v\n", r.Name, r.Peak, float64(r.Loads)/float64(p.Keys),
			r.P50.Round(10*time.Microsecond), r.P999.Round(10*time.Microsecond))
		runs = append(runs, r)
	}
	return os.WriteFile(out, []byte(plot(p, runs)), 0o644) //nolint:gosec // a picture for all to see
}

// seen is one answer.
type seen struct{ at, took time.Duration }

func (p plan) run(ctx context.Context, url string, v variant) (r run, err error) {
	client, err := flatrate.Connect(ctx, url)
	if err != nil {
		return r, err
	}
	defer client.Close()
	ttl := p.TTL
	if v.TTL != 0 {
		ttl = v.TTL
	}
	c, err := cache.New[string](client, cache.Config{Name: v.Name, TTL: ttl, Jitter: v.Jitter, StaleWhileRevalidate: v.Stale})
	if err != nil {
		return r, err
	}
	r.variant = v
	names := make([]string, p.Keys)
	for i := range names {
		names[i] = "key " + strconv.Itoa(i)
	}
	if _, err := c.GetMany(ctx, names, func(_ context.Context, keys []string) (map[string]string, error) {
		values := make(map[string]string, len(keys))
		for _, key := range keys {
			values[key] = "v"
		}
		return values, nil
	}); err != nil {
		return r, err
	}
	total := p.total()
	if v.TTL != 0 {
		total /= 4 // nothing happens
	}
	buckets := int(total / p.Bucket)
	o := &origin{took: p.Load, peaks: make([]atomic.Int64, buckets+1), bucket: p.Bucket, begin: time.Now()}
	answers := p.ask(ctx, c, names, o, total)
	if o.failed.Load() > 0 {
		return r, fmt.Errorf("%s: %d answers failed", v.Name, o.failed.Load())
	}
	r.sum(p, answers, o)
	return r, ctx.Err()
}

// origin counts the loads.
type origin struct {
	took, bucket       time.Duration
	begin              time.Time
	now, loads, failed atomic.Int64
	peaks              []atomic.Int64
}

func (o *origin) load(context.Context) (string, error) {
	n := o.now.Add(1)
	defer o.now.Add(-1)
	o.loads.Add(1)
	if at := int(time.Since(o.begin) / o.bucket); at < len(o.peaks) {
		for peak := &o.peaks[at]; ; {
			was := peak.Load()
			if was >= n || peak.CompareAndSwap(was, n) {
				break
			}
		}
	}
	<-time.After(o.took)
	return "v", nil
}

// ask asks for each key at its times, whether or not earlier answers have come.
func (p plan) ask(ctx context.Context, c *cache.Cache[string], names []string, o *origin, total time.Duration) []seen {
	var mu sync.Mutex
	var answers []seen
	var all sync.WaitGroup
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	sent := 0
	for ctx.Err() == nil {
		<-ticker.C
		now := time.Since(o.begin)
		if now > total {
			break
		}
		due := int(float64(now) / float64(p.Every) * float64(len(names)))
		for ; sent < due; sent++ {
			name := names[sent%len(names)]
			all.Go(func() {
				at := time.Since(o.begin)
				if _, err := c.Get(ctx, name, o.load); err != nil {
					o.failed.Add(1)
				}
				took := time.Since(o.begin) - at
				mu.Lock()
				answers = append(answers, seen{at, took})
				mu.Unlock()
			})
		}
	}
	all.Wait()
	return answers
}

func (r *run) sum(p plan, answers []seen, o *origin) {
	r.Loads = int(o.loads.Load())
	byBucket := make([][]time.Duration, len(o.peaks))
	took := make([]time.Duration, 0, len(answers))
	for _, a := range answers {
		took = append(took, a.took)
		if at := int(a.at / p.Bucket); at < len(byBucket) {
			byBucket[at] = append(byBucket[at], a.took)
		}
	}
	r.P50, r.P999 = quantile(took, 0.5), quantile(took, 0.999)
	for i := range o.peaks {
		n := int(o.peaks[i].Load())
		r.Peak = max(r.Peak, n)
		r.Concurrency = append(r.Concurrency, float64(n))
		r.Latency = append(r.Latency, quantile(byBucket[i], 0.99))
	}
}

func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[int(q*float64(len(all)-1))]
}

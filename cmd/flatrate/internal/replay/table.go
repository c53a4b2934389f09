package replay

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/cost"
)

// weakSpan is the shortest log that says something about a month.
const weakSpan = time.Hour

// Table writes the result for people. Source is what was replayed.
func (r Result) Table(w io.Writer, source string, cfg Config) error {
	var t report.Table
	t.Heading(source)
	t.Row("requests", report.Count(r.Requests), "")
	t.Row("skipped lines", report.Count(r.Skipped), "")
	t.Row("late lines", report.Count(r.Late), report.Share(r.Late, r.Requests))
	t.Row("span", report.Span(time.Duration(r.SpanSeconds)*time.Second), "")

	compressed := ""
	if r.Measured != nil {
		compressed = ", compressed time"
	}
	t.Heading(fmt.Sprintf("Rate limit: %s in %v for each address%s", report.Count(cfg.Limit), cfg.Window, compressed))
	t.Row("allowed", report.Count(r.Limit.Allowed), report.Share(r.Limit.Allowed, r.Requests))
	t.Row("denied", report.Count(r.Limit.Denied), report.Share(r.Limit.Denied, r.Requests))
	t.Heading(fmt.Sprintf("Sessions: idle for %v%s", cfg.Idle, compressed))
	t.Row("reads", report.Count(r.Session.Reads), "")
	t.Row("created", report.Count(r.Session.Created), report.Share(r.Session.Created, r.Session.Reads))
	t.Heading(fmt.Sprintf("Cache: %v, jitter %v%s", cfg.TTL, cfg.Jitter, compressed))
	t.Row("look-ups", report.Count(r.Cache.Lookups), "")
	t.Row("hits", report.Count(r.Cache.Hits), report.Share(r.Cache.Hits, r.Cache.Lookups))
	t.Row("misses", report.Count(r.Cache.Misses), report.Share(r.Cache.Misses, r.Cache.Lookups))
	t.Heading("Server: " + r.Engine)
	t.Row("commands", report.Count(r.Commands), "")
	if m := r.Measured; m != nil {
		t.Row("lines a second", report.Count(m.LinesPerSecond), "")
		t.Row("latency p50", report.Count(m.LatencyUS.P50)+" us", "a request's three steps together")
		t.Row("latency p95", report.Count(m.LatencyUS.P95)+" us", "")
		t.Row("latency p99", report.Count(m.LatencyUS.P99)+" us", "")
		t.Row("memory taken", report.Bytes(m.UsedMemoryDeltaBytes), "used_memory, after less before")
	}
	r.billRows(&t, compressed)
	if err := t.Write(w); err != nil {
		return err
	}
	return r.notes(w)
}

func (r Result) billRows(t *report.Table, compressed string) {
	t.Heading(fmt.Sprintf("Bill: a month at this rate, list prices of %s%s", r.Bill.Region, compressed))
	for _, service := range r.Bill.PerService {
		for _, line := range service.Lines {
			t.Row(report.ServiceName(service.Name), report.USD(line.USD), fmt.Sprintf("%s %ss at $%v a million",
				report.Count(int64(line.Units+0.5)), line.Unit, line.PriceUSD*1e6/line.Per))
		}
	}
	t.Row("metered", report.USD(r.Bill.MeteredUSD), "")
	t.Row("flat", report.USD(r.Bill.FlatUSD), fmt.Sprintf("%d x %s with Valkey, %d h at $%v",
		r.Bill.Flat.Count, r.Bill.Flat.Node, cost.HoursPerMonth, r.Bill.Flat.USDPerHour))
}

func isGateway(s cost.Service) bool { return s.Name == "api_gateway" }

func (r Result) notes(w io.Writer) error {
	note := func(format string, args ...any) (err error) {
		_, err = fmt.Fprintf(w, "\n"+format+"\n", args...)
		return err
	}
	if r.Bill.MeteredUSD < r.Bill.FlatUSD {
		if err := note("At this rate the metered services are the cheaper side."); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(r.Bill.PerService, isGateway) {
		if err := note("API Gateway's part is saved only where it can go: Valkey counts requests, it does not take them in."); err != nil {
			return err
		}
	}
	if span := time.Duration(r.SpanSeconds) * time.Second; span < weakSpan {
		if err := note("The log spans %s: too little to say what a month costs.", report.Span(span)); err != nil {
			return err
		}
	}
	if r.Measured != nil {
		if err := note("Compressed time: the server's clock is not the log's, so windows and TTLs hardly ended.\n" +
			"For decisions as they would have been, and the bill that follows from them, run without --valkey."); err != nil {
			return err
		}
	}
	if !r.Complete {
		return note("The log ended in an error: this is what came before it.")
	}
	return nil
}

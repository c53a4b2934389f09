package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/policy"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage"
)

type doctorPolicyCmd struct {
	Log string `arg:"" optional:"" help:"An access log, plain or gzip, or what MONITOR printed; - is standard input."`

	Maxmemory string        `placeholder:"SIZE" help:"The memory of each server, such as 64mb; without it, half of what the trace needs."`
	Policies  []string      `placeholder:"POLICY" help:"The policies to try; all by default."`
	Format    string        `enum:"log,monitor" default:"log" help:"What LOG is: log or monitor."`
	Monitor   string        `placeholder:"URL" help:"Watch the commands of this server in place of a LOG; needs --consent."`
	For       time.Duration `default:"5s" help:"For how long to watch, at most a minute."`
	Consent   bool          `help:"Yes, MONITOR may slow that server down, and see all keys and values for that time. Only names of keys and sizes are kept."`
	Sample    bool          `help:"Play a generated log in place of a file."`
	Lines     int           `default:"100000" help:"How many lines to generate."`
	TTL       time.Duration `default:"1h" help:"The time to live of each value."`
	Storm     bool          `help:"Also show an eviction storm, with and without headroom and lazy freeing."`
	Server    string        `placeholder:"PROGRAM" help:"The server's program; by default valkey-server or redis-server of the PATH."`
	Output    string        `enum:"table,json,markdown,html" default:"table" help:"table, json, markdown or html."`
}

// policyReport is what is written as JSON.
type policyReport struct {
	Accesses  int             `json:"accesses"`
	Keys      int             `json:"keys"`
	Skipped   int64           `json:"skipped"`
	Cut       bool            `json:"cut"`
	MaxMemory int64           `json:"maxmemory"`
	Policies  []policy.Result `json:"policies"`
	Storm     []policy.Storm  `json:"storm,omitempty"`
}

// Run plays the trace, and writes what each policy did with it.
func (c *doctorPolicyCmd) Run(ctx context.Context, std stdio) error {
	if err := c.validate(); err != nil {
		return err
	}
	program, err := policy.Find(c.Server)
	if err != nil {
		return err
	}
	t, err := c.trace(ctx, std)
	if err != nil {
		return err
	}
	if t.Cut {
		std.warn("the trace is cut: %s accesses of %s keys are played", report.Count(int64(len(t.Accesses))), report.Count(int64(len(t.Keys))))
	}
	limit := max(4<<20, t.Bytes()/2)
	if c.Maxmemory != "" {
		limit, _ = parseSize(c.Maxmemory)
	}
	set, finish := report.ProgressCount(std.err)
	results, err := policy.Run(ctx, t, policy.Config{Program: program, MaxMemory: limit, Policies: c.Policies, TTL: c.TTL, Progress: set})
	finish()
	if err != nil {
		return err
	}
	r := policyReport{len(t.Accesses), len(t.Keys), t.Skipped, t.Cut, limit, results, nil}
	if c.Storm {
		if r.Storm, err = policy.Storms(ctx, program); err != nil {
			return err
		}
	}
	return c.write(r, std)
}

func (c *doctorPolicyCmd) validate() error {
	sources := 0
	for _, set := range []bool{c.Log != "", c.Monitor != "", c.Sample} {
		if set {
			sources++
		}
	}
	if sources != 1 {
		return usagef("doctor policy needs one of a LOG (a file, or - for standard input), --monitor URL and --sample")
	}
	if c.Monitor != "" && !c.Consent {
		return usagef("--monitor needs --consent: MONITOR shows every command with its values, and may halve the server's throughput while it runs")
	}
	if c.For < time.Second || c.For > time.Minute {
		return usagef("--for must be from 1s to 1m, not %v", c.For)
	}
	if c.Lines < 1 || c.Lines > policy.MaxAccesses {
		return usagef("--lines must be from 1 to %d, not %d", policy.MaxAccesses, c.Lines)
	}
	if c.TTL < time.Second || c.TTL > 365*24*time.Hour {
		return usagef("--ttl must be from 1s to a year, not %v", c.TTL)
	}
	if c.Maxmemory != "" {
		if _, err := parseSize(c.Maxmemory); err != nil {
			return usagef("--maxmemory: %w", err)
		}
	}
	if len(c.Policies) == 0 {
		c.Policies = policy.Policies
	}
	for _, p := range c.Policies {
		if !strings.Contains(" "+strings.Join(policy.Policies, " ")+" ", " "+p+" ") {
			return usagef("--policies: there is no policy %q; there are %s", p, strings.Join(policy.Policies, ", "))
		}
	}
	return nil
}

// parseSize reads "64mb" as the server does: units of 1,024.
func parseSize(text string) (int64, error) {
	lower := strings.ToLower(text)
	var n int64
	unit := strings.TrimLeft(lower, "0123456789")
	if _, err := fmt.Sscanf(strings.TrimSuffix(lower, unit), "%d", &n); err != nil {
		return 0, fmt.Errorf("%q is no size such as 64mb", text)
	}
	factor, ok := map[string]int64{"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}[unit]
	if !ok || n > 1<<40/factor || n*factor < 2<<20 {
		return 0, fmt.Errorf("%q is no size from 2mb to 1024gb", text)
	}
	return n * factor, nil
}

func (c *doctorPolicyCmd) trace(ctx context.Context, std stdio) (*policy.Trace, error) {
	switch {
	case c.Monitor != "":
		return policy.Monitor(ctx, c.Monitor, c.For)
	case c.Sample:
		r, w := io.Pipe()
		go func() { _ = w.CloseWithError(usage.Sample(w, 1, c.Lines)) }()
		defer r.Close()
		return policy.ReadLog(usage.ReadLog(r))
	}
	var in io.Reader
	var closeInput func()
	name := "standard input"
	if c.Log == "-" {
		in, closeInput = interruptible(ctx, std.in)
	} else {
		file, err := os.Open(c.Log)
		if err != nil {
			return nil, err
		}
		in, name, closeInput = file, c.Log, func() { _ = file.Close() }
	}
	defer closeInput()
	var t *policy.Trace
	var err error
	if c.Format == "monitor" {
		t, err = policy.ReadMonitor(in)
	} else {
		t, err = policy.ReadLog(usage.ReadLog(in))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

func (c *doctorPolicyCmd) write(r policyReport, std stdio) error {
	if c.Output == "json" {
		return report.JSON(std.out, r, "  ")
	}
	d := &report.Document{
		Title: fmt.Sprintf("Eviction policies: %s accesses of %s keys, maxmemory %s", report.Count(int64(r.Accesses)), report.Count(int64(r.Keys)), report.Bytes(r.MaxMemory)),
		Lead:  []string{"Best: " + r.Policies[0].Policy + ". Its hits are those of a cache alone; what must not be lost needs noeviction: doctor URL looks for that."},
	}
	s := d.Section("Policies", "Policy", ">Hits", ">Hit ratio", ">Loaded again", ">Evicted", ">Refused writes", ">Keys left", "Missing at the end")
	for _, p := range r.Policies {
		var gone []string
		for _, g := range p.Gone {
			gone = append(gone, fmt.Sprintf("%s %s of %s", g.Prefix, report.Count(g.Missing), report.Count(g.Of)))
		}
		s.Row(p.Policy, report.Count(p.Hits), fmt.Sprintf("%.1f%%", 100*p.HitRatio), report.Count(p.Reloads), report.Count(p.Evicted), report.Count(p.Refused), report.Count(p.Keys), strings.Join(gone, ", "))
	}
	storm := d.Section("An eviction storm", "Memory", ">Writes", ">Evicted", ">Refused", ">p50", ">p99", ">Slowest")
	for _, p := range r.Storm {
		storm.Row(p.Name, report.Count(int64(p.Writes)), report.Count(p.Evicted), report.Count(int64(p.Refused)), micro(p.P50), micro(p.P99), micro(p.Max))
	}
	return writeDocument(d, c.Output, std.out)
}

func micro(d time.Duration) string { return d.Round(time.Microsecond).String() }

func writeDocument(d *report.Document, output string, w io.Writer) error {
	switch output {
	case "markdown":
		return d.Markdown(w)
	case "html":
		return d.HTML(w)
	}
	return d.Text(w)
}

type doctorClaimsCmd struct {
	Server string `placeholder:"PROGRAM" help:"The server's program; by default valkey-server or redis-server of the PATH."`
	Output string `enum:"table,json,markdown,html" default:"table" help:"table, json, markdown or html."`
}

// Run measures, and writes the table.
func (c *doctorClaimsCmd) Run(ctx context.Context, std stdio) error {
	program, err := policy.Find(c.Server)
	if err != nil {
		return err
	}
	claims, name, err := policy.Claims(ctx, program)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return report.JSON(std.out, map[string]any{"server": name, "claims": claims}, "  ")
	}
	d := &report.Document{Title: "What is said about memory, on " + name}
	s := d.Section("Claims", "Claim", "Holds", "Measured")
	for _, claim := range claims {
		s.Row(claim.Claim, claim.Holds, claim.Measured)
	}
	return writeDocument(d, c.Output, std.out)
}

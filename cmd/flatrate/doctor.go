package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/doctor"
	"github.com/valkey-io/valkey-go"
)

type doctorCmd struct {
	Look   doctorLookCmd   `cmd:"" default:"withargs" help:"Look at a server or an RDB file (what doctor does without a further word)."`
	Policy doctorPolicyCmd `cmd:"" help:"Say which eviction policy serves a log best, on local servers."`
	Claims doctorClaimsCmd `cmd:"" help:"Hold what is said about memory against a local server."`
}

type doctorLookCmd struct {
	Target string `arg:"" optional:"" name:"url|file.rdb" help:"A server, such as valkey://host:6379, or an RDB file. Without it, that of --valkey."`

	Output     string   `enum:"table,json,markdown,html" default:"table" help:"table, json, markdown or html."`
	FailOn     string   `enum:"none,info,low,medium,high" default:"none" help:"Exit with 3 when a finding is at least as bad: none, info, low, medium or high."`
	MaxOps     int      `default:"200000" help:"Commands a second for each node, at most; 0 means no bound."`
	Sample     int64    `default:"0" help:"Look at this many keys, drawn at random, in place of all."`
	KeySamples int      `default:"5" help:"Elements that MEMORY USAGE looks at in a collection; 0 means all, which holds the server up."`
	Top        int      `default:"20" help:"How many prefixes and keys a list has at most."`
	NoValues   bool     `help:"Read no values, not even short strings to see whether they are JSON."`
	Allocator  int      `default:"0" placeholder:"QUANTUM" help:"8 if the server has its own jemalloc, 16 if it has the system's; 0 finds out."`
	State      string   `placeholder:"FILE" help:"Where an interrupted scan is kept, and gone on from."`
	Since      string   `placeholder:"FILE" help:"An earlier report in JSON, to tell the growth."`
	Prefix     []string `default:"fr" help:"What stands before the toolkit's keys; may be repeated."`
	Node       string   `default:"cache.t4g.small" help:"The type of node that memory is priced by, with a replica."`
	Region     string   `default:"us-east-1" help:"Where it stands."`
}

// Run looks, and writes the report.
func (c *doctorLookCmd) Run(ctx context.Context, g globals, std stdio) error {
	target := c.Target
	if target == "" {
		target = g.Valkey
	}
	if target == "" {
		return usagef("doctor needs a server's URL or an RDB file")
	}
	cfg, err := c.config()
	if err != nil {
		return err
	}
	var r doctor.Report
	if strings.Contains(target, "://") {
		r, err = c.scan(ctx, target, cfg, std)
	} else {
		r, err = c.file(ctx, target, cfg, std)
	}
	if errors.Is(err, doctor.ErrConfig) {
		return usageError{err}
	}
	if r.Format == 0 {
		return err
	}
	if werr := c.write(r, target, std); werr != nil {
		return errors.Join(err, werr)
	}
	if err != nil {
		return err
	}
	if c.FailOn == "none" {
		return nil
	}
	if n := len(r.Worst(doctor.Severity(c.FailOn))); n > 0 {
		return findingsError{fmt.Errorf("findings that are %s or worse: %d", c.FailOn, n)}
	}
	return nil
}

func (c *doctorLookCmd) config() (doctor.Config, error) {
	for _, count := range []struct {
		flag  string
		value int64
	}{{"--max-ops", int64(c.MaxOps)}, {"--sample", c.Sample}, {"--key-samples", int64(c.KeySamples)}} {
		if count.value < 0 {
			return doctor.Config{}, usagef("%s must not be less than zero", count.flag)
		}
	}
	if c.Top < 1 || c.Top > 1000 {
		return doctor.Config{}, usagef("--top must be from 1 to 1000, not %d", c.Top)
	}
	if c.Allocator != 0 && c.Allocator != 8 && c.Allocator != 16 {
		return doctor.Config{}, usagef("--allocator must be 8, 16 or 0, not %d", c.Allocator)
	}
	if c.State != "" && c.Sample > 0 {
		return doctor.Config{}, usagef("--state is for a scan of all keys: a --sample begins anew")
	}
	cfg := doctor.Config{
		Prefixes: c.Prefix, MaxOps: orNone(c.MaxOps), Sample: c.Sample, KeySamples: orNone(c.KeySamples), Top: c.Top, NoValues: c.NoValues,
		Quantum: c.Allocator, Node: c.Node, Region: c.Region,
	}
	if c.Since != "" {
		text, err := os.ReadFile(c.Since)
		if err != nil {
			return cfg, usagef("--since: %w", err)
		}
		cfg.Since = &doctor.Report{}
		if err := json.Unmarshal(text, cfg.Since); err != nil {
			return cfg, usagef("--since: %s is no report of doctor in JSON: %w", c.Since, err)
		}
		if cfg.Since.Format != 1 || cfg.Since.Taken.IsZero() {
			return cfg, usagef("--since: %s is no report of doctor in JSON", c.Since)
		}
	}
	return cfg, nil
}

// orNone turns the command line's 0, for no bound, into the package's.
func orNone(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

func (c *doctorLookCmd) scan(ctx context.Context, url string, cfg doctor.Config, std stdio) (doctor.Report, error) {
	client, err := connectTo(ctx, url)
	if err != nil {
		return doctor.Report{}, err
	}
	defer client.Close()
	cfg.Plaintext, cfg.Remote, cfg.Anonymous = connection(url)
	if c.State != "" {
		head := []byte(withoutSecrets(url) + databaseOf(url) + "\n")
		if cfg.Resume, err = readState(c.State, head); err != nil {
			return doctor.Report{}, err
		}
		cfg.Checkpoint = func(state []byte) error { return replaceFile(c.State, append(bytes.Clone(head), state...)) }
	}
	set, finish := report.ProgressCount(std.err)
	cfg.Progress = set
	r, err := doctor.Scan(ctx, client, cfg)
	finish()
	if c.State != "" && err == nil {
		if gone := os.Remove(c.State); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			std.warn("--state: %v", gone)
		}
	}
	if err != nil && c.State != "" && r.Format != 0 {
		std.warn("the scan can go on where it was: call it again with --state %s", c.State)
	}
	return r, err
}

// readState reads a state behind its first line, which is the server and the database that it is of.
func readState(name string, head []byte) ([]byte, error) {
	state, err := os.ReadFile(name) //nolint:gosec // the user names the file
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(state) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, usagef("--state: %w", err)
	}
	rest, ok := bytes.CutPrefix(state, head)
	if !ok || len(rest) == 0 {
		return nil, usagef("--state: %s is no state of a scan of %s", name, bytes.TrimSpace(head))
	}
	return rest, nil
}

// databaseOf is the db= of a unix URL.
func databaseOf(url string) string {
	_, query, _ := strings.Cut(url, "?")
	for pair := range strings.SplitSeq(query, "&") {
		if strings.HasPrefix(pair, "db=") {
			return "?" + pair
		}
	}
	return ""
}

// connectTo is connect for a URL that is an argument.
func connectTo(ctx context.Context, url string) (valkey.Client, error) {
	client, err := flatrate.Connect(ctx, url)
	if errors.Is(err, flatrate.ErrURL) {
		return nil, usageError{err}
	}
	return client, err
}

// replaceFile writes a file at once: after a crash the old one is there, or the new one.
func replaceFile(name string, content []byte) error {
	if err := os.WriteFile(name+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// connection says of a URL whether it is in plain text, leaves this machine, and has no password. Only the scheme and
// the hosts are looked at; Connect has found it in order.
func connection(url string) (plain, remote, anonymous bool) {
	scheme, rest, _ := strings.Cut(url, "://")
	if scheme == "unix" {
		return false, false, false
	}
	rest, query, _ := strings.Cut(rest, "?")
	userinfo := ""
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		userinfo, rest = rest[:at], rest[at+1:]
	}
	rest, _, _ = strings.Cut(rest, "/")
	for host := range strings.SplitSeq(rest, ",") {
		name := host
		if h, _, err := net.SplitHostPort(host); err == nil {
			name = h
		}
		name = strings.Trim(name, "[]")
		ip := net.ParseIP(name)
		if name != "localhost" && (ip == nil || !ip.IsLoopback()) {
			remote = true
		}
	}
	plain = scheme == "valkey" || scheme == "redis"
	return plain, remote, !strings.Contains(userinfo, ":") && !strings.Contains(query, "password_file")
}

func (c *doctorLookCmd) file(ctx context.Context, name string, cfg doctor.Config, std stdio) (doctor.Report, error) {
	for _, f := range []struct {
		flag string
		set  bool
	}{{"--sample", c.Sample > 0}, {"--state", c.State != ""}} {
		if f.set {
			return doctor.Report{}, usagef("%s is for servers: a file is read as a whole", f.flag)
		}
	}
	file, err := os.Open(name) //nolint:gosec // the user names the file
	if err != nil {
		return doctor.Report{}, err
	}
	defer file.Close()
	size := int64(-1)
	if stat, err := file.Stat(); err == nil && stat.Mode().IsRegular() {
		size = stat.Size()
	}
	in, finish := report.Progress(std.err, file, size)
	defer finish()
	r, err := doctor.ReadRDB(ctx, seekable{in, file}, cfg)
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return r, err
}

// seekable is a file that is read through a progress bar.
type seekable struct {
	in interface{ Read([]byte) (int, error) }
	*os.File
}

func (s seekable) Read(p []byte) (int, error) { return s.in.Read(p) }

func (c *doctorLookCmd) write(r doctor.Report, target string, std stdio) error {
	if c.Output == "json" {
		return report.JSON(std.out, r, "  ")
	}
	d := doctorDocument(r, withoutSecrets(target))
	switch c.Output {
	case "markdown":
		return d.Markdown(std.out)
	case "html":
		return d.HTML(std.out)
	}
	return d.Text(std.out)
}

// withoutSecrets is a URL without what stands before the @, and behind the question mark.
func withoutSecrets(target string) string {
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok {
		return target
	}
	rest, _, _ = strings.Cut(rest, "?")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	return scheme + "://" + rest
}

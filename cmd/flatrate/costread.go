package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage/bill"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/yamlfile"
	"github.com/flatrate/flatrate/meter"
	"github.com/valkey-io/valkey-go"
)

// read reads every source that is named.
func (c *costCmd) read(ctx context.Context, g globals, in *inputs, std stdio) error {
	if err := c.fromFlags(in); err != nil {
		return err
	}
	for _, source := range []func(*inputs, stdio) error{c.readUsage, c.readReplay, c.readTerraform, c.readMetrics} {
		if err := source(in, std); err != nil {
			return err
		}
	}
	if len(c.Cur) > 0 {
		f, err := readReports(ctx, c.Cur, in.opt, std)
		if err != nil {
			return err
		}
		in.add(f)
	}
	if !c.Commandstats && c.Meter == "" {
		return nil
	}
	client, err := connect(ctx, g.Valkey)
	if err != nil {
		return err
	}
	defer client.Close()
	return c.readServer(ctx, client, in)
}

func (c *costCmd) readServer(ctx context.Context, client valkey.Client, in *inputs) error {
	if c.Commandstats {
		f, err := bill.CommandStats(ctx, client, in.opt)
		if err != nil {
			return err
		}
		in.add(f)
	}
	if c.Meter == "" {
		return nil
	}
	days, err := meter.Read(ctx, client, meter.Config{Prefix: c.MeterPrefix, Name: c.Meter}, c.Days)
	if err != nil {
		return err
	}
	list, span, err := meter.Month(days, meter.Options{Consistency: in.opt.Consistency, REST: in.opt.REST, KeepsGateway: in.opt.KeepGateway,
		Database: c.database()})
	if err != nil {
		return fmt.Errorf("--meter %s: %w", report.Printable(c.Meter), err)
	}
	memory, err := bill.UsedMemory(ctx, client)
	if err != nil {
		return err
	}
	need := list[0].Usage.Need()
	need.Bytes = memory
	list[0].Need = &need
	in.add(bill.Found{Workloads: list, Notes: []string{
		fmt.Sprintf("counted by the meter in %s, and scaled to a month", report.Span(span)),
		"no meter counts what is stored: used_memory of the server is what is needed"}})
	return nil
}

func (c *costCmd) readUsage(in *inputs, _ stdio) error {
	if c.Usage == "" {
		return nil
	}
	data, err := yamlfile.Read(c.Usage)
	if err != nil {
		return err
	}
	f, err := bill.ReadFile(report.Printable(c.Usage), data, in.sizing)
	if err != nil {
		return err
	}
	in.add(f.Found)
	in.sizing = f.Sizing
	if in.region == "" {
		in.region = f.Region
	}
	return nil
}

// withFile opens a file, or standard input for "-".
func withFile(path string, std stdio, do func(name string, r io.Reader) error) error {
	if path == "-" {
		return do("standard input", std.in)
	}
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return err
	}
	defer f.Close()
	return do(report.Printable(path), f)
}

func (c *costCmd) readReplay(in *inputs, std stdio) error {
	if c.Replay == "" {
		return nil
	}
	return withFile(c.Replay, std, func(name string, r io.Reader) error {
		f, err := bill.ReadReplay(name, r, in.opt, c.database())
		if err == nil {
			in.add(f)
		}
		return err
	})
}

func (c *costCmd) readTerraform(in *inputs, std stdio) error {
	if c.Terraform == "" {
		return nil
	}
	return withFile(c.Terraform, std, func(name string, r io.Reader) error {
		f, err := bill.ReadPlan(name, r)
		if err == nil {
			in.add(f)
		}
		return err
	})
}

func (c *costCmd) readMetrics(in *inputs, std stdio) error {
	for _, path := range c.Cloudwatch {
		if err := withFile(path, std, func(name string, r io.Reader) error {
			f, err := bill.ReadCloudWatch(name, r, in.opt)
			if err == nil {
				in.add(f)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// readReports reads the files of one report, with a progress bar.
func readReports(ctx context.Context, paths []string, opt bill.Options, std stdio) (bill.Found, error) {
	all := bill.NewReport(opt)
	for _, path := range paths {
		if err := readReport(ctx, all, path, std); err != nil {
			return bill.Found{}, err
		}
	}
	f, err := all.Found()
	return f, named(report.Printable(paths[0]), err)
}

func readReport(ctx context.Context, all *bill.Report, path string, std stdio) error {
	if path == "-" {
		return all.Read("standard input", stopping{ctx, std.in})
	}
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return err
	}
	name := report.Printable(path)
	if stat.Mode().IsRegular() && bill.IsParquet(f) {
		at, done := report.ProgressAt(std.err, f, stat.Size())
		defer done()
		return all.ReadParquet(name, stoppingAt{ctx, at}, stat.Size())
	}
	in, done := report.Progress(std.err, f, stat.Size())
	defer done()
	return all.Read(name, stopping{ctx, in})
}

// stopping is a reader that Ctrl-C ends.
type stopping struct {
	ctx context.Context
	io.Reader
}

func (s stopping) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}

type stoppingAt struct {
	ctx context.Context
	io.ReaderAt
}

func (s stoppingAt) ReadAt(p []byte, at int64) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.ReaderAt.ReadAt(p, at)
}

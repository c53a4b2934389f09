package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage/bill"
	"github.com/flatrate/flatrate/cost"
	"github.com/flatrate/flatrate/meter"
)

type costCmd struct {
	costSources `embed:"" group:"sources"`
	costFlat    `embed:"" group:"flat"`

	Region      string  `help:"Whose prices; us-east-1 by default."`
	PriceFile   string  `name:"prices" placeholder:"FILE" help:"A price table of prices update, in place of the updated or the shipped one."`
	ShippedOnly bool    `name:"shipped-prices" help:"Use the shipped price table even if there is an updated one."`
	AsArticle   bool    `help:"With --preset: the article's own figures, each beside the right one."`
	Spread      float64 `default:"0.25" help:"By which part measured or stated load and memory may be off, for low and high."`

	Output string `enum:"table,json,markdown,html" default:"table" help:"table, json, markdown or html."`
	Out    string `type:"path" placeholder:"FILE" help:"Write to a file, whole or not at all, in place of standard output."`
}

type costSources struct {
	Preset       string   `placeholder:"sessions|article" help:"A ready-made load."`
	Users        float64  `default:"50000" help:"With --preset: daily users."`
	Usage        string   `placeholder:"FILE" help:"Usage in YAML."`
	Replay       string   `placeholder:"FILE" help:"What flatrate replay --output json printed."`
	Cloudwatch   []string `placeholder:"FILE" help:"CloudWatch metrics in JSON."`
	Cur          []string `placeholder:"FILE" help:"A Cost and Usage Report: CSV, gzip or Parquet; several files are one report."`
	Terraform    string   `placeholder:"FILE" help:"What terraform show -json printed of a plan."`
	Commandstats bool     `help:"The commands of the server that --valkey names, since it started."`

	Meter       string `placeholder:"NAME" help:"What package meter counted in the server that --valkey names."`
	MeterPrefix string `default:"fr" help:"With --meter: what stands before its keys."`
	Days        int    `default:"30" help:"With --meter: how many days of it, today among them."`

	DynamodbReads  float64 `placeholder:"N" help:"DynamoDB reads a day."`
	DynamodbWrites float64 `placeholder:"N" help:"DynamoDB writes a day."`
	Items          float64 `placeholder:"N" help:"Items stored at one time."`
	RCU            float64 `name:"rcu" placeholder:"N" help:"Provisioned read capacity, in place of a charge for requests."`
	WCU            float64 `name:"wcu" placeholder:"N" help:"Provisioned write capacity."`
	Messages       float64 `placeholder:"N" help:"SQS messages a day."`
	FIFO           bool    `name:"fifo" help:"They are of FIFO queues."`
	Requests       float64 `placeholder:"N" help:"API Gateway requests a day."`
	DBReads        float64 `name:"db-reads" placeholder:"N" help:"Database reads a day, before any cache."`

	ItemBytes    int64   `default:"2048" help:"The size of an item where nothing says it."`
	Reads        string  `placeholder:"strong|eventual|transactional" help:"How DynamoDB reads; strong where nothing says it."`
	MessageBytes int64   `default:"1024" help:"The size of a message."`
	QueueBatch   int     `placeholder:"N" help:"Messages in one call of SQS; single sends and receives of ten by default."`
	API          string  `enum:"http,rest" default:"http" help:"The kind of API Gateway where nothing says it: http or rest."`
	APIGateway   string  `name:"api-gateway" enum:"keep,remove" default:"keep" help:"Whether API Gateway stays in front: keep or remove."`
	HitRate      float64 `default:"0.6" help:"The part of database reads that the cache answers."`
	DBMillion    float64 `name:"db-usd-per-million" placeholder:"USD" help:"Your price of a million database reads."`
	DBMonth      float64 `name:"db-usd-month" placeholder:"USD" help:"What a smaller database saves a month."`
}

type costFlat struct {
	Kind        string  `enum:"nodes,serverless,memorydb,ec2" default:"nodes" help:"The flat side: nodes, serverless, memorydb or ec2."`
	Node        string  `placeholder:"TYPE" help:"Its node type; the smallest that is enough by default."`
	Nodes       int     `placeholder:"N" help:"Nodes that hold the same data; a pair by default."`
	Shards      int     `placeholder:"N" help:"Shards; as many as needed by default."`
	Engine      string  `enum:"valkey,redis" default:"valkey" help:"valkey or redis."`
	Term        string  `default:"on-demand" help:"on-demand or 1y-no-upfront."`
	NodeUSD     float64 `name:"node-usd" placeholder:"USD" help:"Your price of a node and hour."`
	Redlock     int     `placeholder:"N" help:"Independent nodes beside, for locks on a majority."`
	RedlockNode string  `placeholder:"TYPE" help:"Their type; cache.t4g.micro by default."`
	CrossAZ     float64 `name:"cross-az" placeholder:"PART" help:"The part of the traffic that crosses availability zones, 0 to 1."`
	Headroom    float64 `default:"0.2" help:"The part of memory and throughput that stays free."`
	Peak        float64 `default:"5" help:"How many times the average the busiest second has."`
}

// Run estimates and prints.
func (c *costCmd) Run(ctx context.Context, g globals, io stdio) error {
	if err := c.validate(g); err != nil {
		return err
	}
	table, note, err := loadPrices(c.PriceFile, c.ShippedOnly)
	if err != nil {
		return err
	}
	if note != "" {
		io.warn("%s", note)
	}
	result, err := c.estimate(ctx, g, table, io)
	if err != nil {
		return err
	}
	return c.write(io, func(w writer) error {
		switch c.Output {
		case "json":
			return report.EstimateJSON(w, result)
		case "markdown":
			return report.EstimateMarkdown(w, result)
		case "html":
			return report.EstimateHTML(w, result)
		}
		return report.EstimateTable(w, result)
	})
}

type writer = io.Writer

// write writes to standard output, or to a file that appears only when it is whole.
func (c *costCmd) write(std stdio, do func(writer) error) error {
	var text strings.Builder // an error half-way leaves nothing behind
	if err := do(&text); err != nil {
		return err
	}
	if c.Out == "" {
		_, err := io.WriteString(std.out, text.String())
		return err
	}
	return writeWhole(c.Out, []byte(text.String()))
}

// writeWhole replaces a file at once.
func writeWhole(path string, data []byte) error { return writeWholeAs(path, data, 0o644) }

// writeWholeAs is writeWhole with the mode of the file, which it has before it is there. A device or a pipe is not replaced by a file.
func writeWholeAs(path string, data []byte, mode os.FileMode) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file, and is not replaced by one", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

func (c *costCmd) validate(g globals) error {
	if c.Preset != "" && !slices.Contains(cost.PresetNames, c.Preset) {
		return usagef("--preset must be one of %s, not %q", strings.Join(cost.PresetNames, ", "), c.Preset)
	}
	switch cost.Consistency(c.Reads) {
	case "", cost.Strong, cost.Eventual, cost.Transactional:
	default:
		return usagef("--reads must be strong, eventual or transactional, not %q", c.Reads)
	}
	for _, n := range []struct {
		flag            string
		value, low, top float64
	}{
		{"--users", c.Users, 1, 1e9}, {"--spread", c.Spread, 0, 0.9}, {"--headroom", c.Headroom, 0, 0.9}, {"--peak", c.Peak, 1, 1000},
		{"--cross-az", c.CrossAZ, 0, 1}, {"--hit-rate", c.HitRate, 0, 1}, {"--item-bytes", float64(c.ItemBytes), 1, 400 << 10},
		{"--message-bytes", float64(c.MessageBytes), 0, 1 << 20}, {"--queue-batch", float64(c.QueueBatch), 0, 10},
		{"--nodes", float64(c.Nodes), 0, 1000}, {"--shards", float64(c.Shards), 0, 500}, {"--redlock", float64(c.Redlock), 0, 1000},
		{"--dynamodb-reads", c.DynamodbReads, 0, 1e13}, {"--dynamodb-writes", c.DynamodbWrites, 0, 1e13}, {"--items", c.Items, 0, 1e15},
		{"--rcu", c.RCU, 0, 1e9}, {"--wcu", c.WCU, 0, 1e9},
		{"--messages", c.Messages, 0, 1e13}, {"--requests", c.Requests, 0, 1e13}, {"--db-reads", c.DBReads, 0, 1e13},
		{"--db-usd-per-million", c.DBMillion, 0, 1e9}, {"--db-usd-month", c.DBMonth, 0, 1e9}, {"--node-usd", c.NodeUSD, 0, 1e6},
		{"--days", float64(c.Days), 1, meter.MaxDays},
	} {
		if !(n.value >= n.low && n.value <= n.top) { // NaN fails too
			return usagef("%s must be from %v to %v, not %v", n.flag, n.low, n.top, n.value)
		}
	}
	for flag, files := range map[string][]string{"--cloudwatch": c.Cloudwatch, "--cur": c.Cur} {
		for i, file := range files {
			if slices.ContainsFunc(files[:i], func(o string) bool { return filepath.Clean(o) == filepath.Clean(file) }) {
				return usagef("%s: %s is there twice, and would count twice", flag, report.Printable(file))
			}
		}
	}
	switch {
	case c.AsArticle && c.Preset == "":
		return usagef("--as-article needs --preset")
	case c.Preset != "" && c.others():
		return usagef("--preset is a load of its own: no other usage goes with it")
	case c.Preset == "" && !c.others():
		return usagef("cost needs a usage: --preset, --usage, --replay, --cloudwatch, --cur, --terraform, --commandstats, --meter, or flags as --messages")
	case c.Commandstats && g.Valkey == "":
		return usagef("--commandstats needs --valkey")
	case c.Meter != "" && g.Valkey == "":
		return usagef("--meter needs --valkey")
	}
	return nil
}

// others says whether there is a usage beside a preset.
func (c *costCmd) others() bool {
	return c.Usage != "" || c.Replay != "" || len(c.Cloudwatch) > 0 || len(c.Cur) > 0 || c.Terraform != "" || c.Commandstats || c.Meter != "" || c.stated()
}

func (c *costCmd) stated() bool {
	return c.DynamodbReads+c.DynamodbWrites+c.RCU+c.WCU+c.Items+c.Messages+c.Requests+c.DBReads > 0
}

func (c *costCmd) flat() cost.Flat {
	return cost.Flat{Kind: cost.Kind(c.Kind), Node: c.Node, Count: c.Nodes, Shards: c.Shards, Engine: cost.Engine(c.Engine), Term: cost.Term(c.Term),
		NodeUSDPerHour: c.NodeUSD, Redlock: c.Redlock, RedlockNode: c.RedlockNode, CrossAZ: c.CrossAZ}
}

// flatGiven says whether flags name the nodes, so that no file does.
func (c *costCmd) flatGiven() bool {
	return c.Node != "" || c.Nodes > 0 || c.Shards > 0 || c.NodeUSD > 0 || c.Kind != string(cost.Nodes)
}

// estimate makes a model of what is given, and prices it.
func (c *costCmd) estimate(ctx context.Context, g globals, table cost.Table, io stdio) (cost.Estimate, error) {
	sizing := cost.Sizing{Headroom: c.Headroom, Peak: c.Peak}
	if c.Preset != "" {
		return c.preset(table, sizing)
	}
	opt := bill.Options{Region: cmp.Or(c.Region, defaultRegion), ItemBytes: c.ItemBytes, Consistency: cost.Consistency(c.Reads),
		REST: c.API == "rest", KeepGateway: c.APIGateway == "keep", Batch: c.QueueBatch}
	in := &inputs{opt: opt, flat: c.flat(), given: c.flatGiven(), sizing: sizing, region: c.Region}
	if err := c.read(ctx, g, in, io); err != nil {
		return cost.Estimate{}, err
	}
	if len(in.found.Workloads) == 0 {
		return cost.Estimate{}, errors.New(strings.Join(append([]string{"no usage in it"}, in.found.Notes...), "; "))
	}
	prices, err := table.Region(cmp.Or(in.region, defaultRegion))
	if err != nil {
		if c.Region == "" && c.Usage != "" {
			return cost.Estimate{}, usagef("%s: %w", report.Printable(c.Usage), err)
		}
		return cost.Estimate{}, usagef("--region: %w", err)
	}
	model := cost.Measured(in.found.Workloads, in.flat, in.sizing, c.Spread)
	model.Assumptions = in.found.Notes
	e, err := prices.Estimate(model)
	return e, flagError(err)
}

const defaultRegion = "us-east-1"

// flagError makes what the flat side lacks a price for a wrong argument.
func flagError(err error) error {
	if errors.Is(err, cost.ErrNoPrice) || errors.Is(err, cost.ErrInvalid) {
		return usageError{err}
	}
	return err
}

func (c *costCmd) preset(table cost.Table, sizing cost.Sizing) (cost.Estimate, error) {
	prices, err := table.Region(cmp.Or(c.Region, defaultRegion))
	if err != nil {
		return cost.Estimate{}, usagef("--region: %w", err)
	}
	preset := cost.Preset{Name: c.Preset, Users: c.Users, Reads: cost.Consistency(c.Reads), ItemBytes: c.ItemBytes, QueueBatch: c.QueueBatch,
		REST: c.API == "rest", RemoveGateway: c.APIGateway == "remove", DBUSDPerMillion: c.DBMillion, DBInstanceUSD: c.DBMonth,
		Flat: c.flat(), Sizing: sizing}
	model, err := preset.Model()
	if err != nil {
		return cost.Estimate{}, usageError{err}
	}
	e, err := prices.Estimate(model)
	if err == nil && c.AsArticle {
		e, err = prices.AsArticle(preset, e)
	}
	return e, flagError(err)
}

// inputs are what the sources say together.
type inputs struct {
	opt    bill.Options
	found  bill.Found
	flat   cost.Flat
	given  bool // flags name the flat side
	sizing cost.Sizing
	region string
}

func (in *inputs) add(f bill.Found) {
	for _, w := range f.Workloads { // two sources may both have a "dynamodb"
		name := w.Name
		for i := 2; slices.ContainsFunc(in.found.Workloads, func(o cost.Workload) bool { return o.Name == w.Name }); i++ {
			w.Name = fmt.Sprintf("%s (%d)", name, i)
		}
		in.found.Workloads = append(in.found.Workloads, w)
	}
	in.found.Notes = append(in.found.Notes, f.Notes...)
	switch {
	case f.Flat == nil:
	case in.given:
		in.found.Notes = append(in.found.Notes, "the flags name the flat side: that of the file is left aside")
	default:
		redlock, cross := in.flat.Redlock, in.flat.CrossAZ
		in.flat = *f.Flat
		in.flat.Redlock, in.flat.CrossAZ = max(redlock, in.flat.Redlock), max(cross, in.flat.CrossAZ)
	}
}

func (c *costCmd) database() cost.Database {
	return cost.Database{HitRate: c.HitRate, USDPerMillion: c.DBMillion, InstanceUSD: c.DBMonth, EntryBytes: c.ItemBytes, Entries: c.Items}
}

// fromFlags are the workloads that flags state.
func (c *costCmd) fromFlags(in *inputs) error {
	const days = cost.DaysPerMonth
	var f bill.Found
	if c.DynamodbReads+c.DynamodbWrites+c.RCU+c.WCU > 0 || c.Items > 0 && c.DBReads == 0 {
		f.Workloads = append(f.Workloads, cost.Workload{Name: "dynamodb", Usage: cost.Usage{DynamoDB: cost.DynamoDB{
			Reads:       []cost.ItemReads{{Count: c.DynamodbReads * days, ItemBytes: c.ItemBytes, Consistency: cost.Consistency(c.Reads)}},
			Writes:      []cost.ItemWrites{{Count: c.DynamodbWrites * days, ItemBytes: c.ItemBytes}},
			Provisioned: cost.Provisioned{RCU: c.RCU, WCU: c.WCU},
			StoredItems: c.Items, StoredBytes: c.Items * float64(c.ItemBytes)}}})
	}
	if c.Messages > 0 {
		m := []cost.Messages{in.opt.Messages(c.Messages*days, c.MessageBytes)}
		q := cost.SQS{Standard: m, Backlog: c.Messages / 24}
		if c.FIFO {
			q.Standard, q.FIFO = nil, m
		}
		f.Workloads = append(f.Workloads, cost.Workload{Name: "sqs", Usage: cost.Usage{SQS: q}})
	}
	if c.Requests > 0 {
		g := cost.APIGateway{HTTPRequests: c.Requests * days}
		if in.opt.REST {
			g = cost.APIGateway{RESTRequests: c.Requests * days}
		}
		f.Workloads = append(f.Workloads, cost.Workload{Name: "api_gateway", Usage: cost.Usage{APIGateway: g}, KeepsGateway: in.opt.KeepGateway})
	}
	if c.DBReads > 0 {
		db := c.database()
		db.Reads = c.DBReads * days
		if err := f.AddCache(db); err != nil {
			return usageError{err}
		}
	}
	in.add(f)
	return nil
}

// named puts the file before an error that lacks it.
func named(file string, err error) error {
	if err == nil || strings.HasPrefix(err.Error(), file) || errors.Is(err, os.ErrNotExist) {
		return err
	}
	return fmt.Errorf("%s: %w", file, err)
}

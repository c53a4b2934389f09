package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/terraform"
	"github.com/flatrate/flatrate/cost"
)

type terraformCmd struct {
	Generate terraformGenerateCmd `cmd:"" default:"withargs" help:"Write Terraform for ElastiCache that is sized for a load."`
	Lint     terraformLintCmd     `cmd:"" help:"Find what is wrong with ElastiCache in Terraform that is there."`
	Upgrade  terraformUpgradeCmd  `cmd:"" help:"Take Redis OSS to Valkey in a file, and show the difference."`
}

type terraformGenerateCmd struct {
	costSources `embed:"" group:"sources"`

	Layout     string   `enum:"pair,cluster,serverless,durable" default:"pair" help:"pair, cluster, serverless or durable."`
	Blocks     []string `placeholder:"NAME,NAME" help:"Building blocks beside those of the load."`
	Together   bool     `help:"Everything on the same nodes, without eviction, even where a cache is among it."`
	Node       string   `placeholder:"TYPE" help:"The node type; the cheapest that is enough by default."`
	Nodes      int      `placeholder:"N" help:"Nodes in each shard; 2 by default."`
	Shards     int      `placeholder:"N" help:"Shards; as many as needed by default, and at least 2 of a cluster."`
	Term       string   `default:"on-demand" help:"on-demand or 1y-no-upfront: what the header counts with."`
	Headroom   float64  `default:"0.2" help:"The part of memory and throughput that stays free."`
	Peak       float64  `default:"5" help:"How many times the average the busiest second has."`
	Region     string   `help:"Whose prices; us-east-1 by default."`
	PriceFile  string   `name:"prices" placeholder:"FILE" help:"A price table of prices update, in place of the updated or the shipped one."`
	Shipped    bool     `name:"shipped-prices" help:"Use the shipped price table even if there is an updated one."`
	Durability string   `default:"sync" help:"With --layout durable: sync, or async."`

	Name          string            `default:"flatrate" help:"What stands before the names of all that is made."`
	Prefix        string            `default:"fr" help:"The prefix of the keys, as in the blocks' Config.Prefix."`
	EngineVersion string            `placeholder:"VERSION" help:"Of Valkey; 8.0 by default, 9.0 with --layout durable."`
	Auth          string            `enum:"password,iam" default:"password" help:"How users sign in: password or iam."`
	Events        string            `name:"keyspace-events" default:"Ex" help:"notify-keyspace-events; empty turns them off."`
	Maintenance   string            `default:"sun:03:00-sun:04:00" placeholder:"WINDOW" help:"The weekly maintenance window, in UTC."`
	Snapshots     string            `default:"01:00-02:00" placeholder:"WINDOW" help:"The daily snapshot window, in UTC."`
	SnapshotDays  int               `default:"7" help:"How many days snapshots are kept; 0 makes none."`
	LogDays       int               `default:"30" help:"How many days logs are kept."`
	Tag           map[string]string `placeholder:"KEY=VALUE" help:"A tag of all resources; may be given again."`

	Out string `type:"path" placeholder:"FILE" help:"Write to a file, whole or not at all, in place of standard output."`
}

// cost is the same load for flatrate cost.
func (c *terraformGenerateCmd) cost() *costCmd {
	flat := costFlat{Kind: string(cost.Nodes), Engine: string(cost.Valkey), Term: c.Term, Headroom: c.Headroom, Peak: c.Peak}
	return &costCmd{costSources: c.costSources, costFlat: flat, Region: c.Region, PriceFile: c.PriceFile, ShippedOnly: c.Shipped, Spread: 0.25}
}

// Run plans and writes.
func (c *terraformGenerateCmd) Run(ctx context.Context, g globals, io stdio) error {
	options := terraform.Options{Kind: c.Layout, Version: c.EngineVersion, Name: c.Name, Prefix: c.Prefix, Node: c.Node, Nodes: c.Nodes, Shards: c.Shards,
		Term: cost.Term(c.Term), Extra: c.Blocks, Together: c.Together, IAM: c.Auth == "iam", Durability: c.Durability, Events: c.Events,
		Maintenance: c.Maintenance, Snapshot: c.Snapshots, Retention: c.SnapshotDays, LogDays: c.LogDays, Tags: c.Tag}
	if err := options.Validate(); err != nil {
		return usageError{err}
	}
	priced := c.cost()
	if err := priced.validate(g); err != nil {
		return err
	}
	table, note, err := loadPrices(c.PriceFile, c.Shipped)
	if err != nil {
		return err
	}
	if note != "" {
		io.warn("%s", note)
	}
	estimate, err := priced.estimate(ctx, g, table, io)
	if err != nil {
		return err
	}
	prices, err := table.Region(estimate.Region)
	if err != nil {
		return usagef("--region: %w", err)
	}
	plan, err := terraform.NewPlan(options, loadsOf(estimate), prices, cost.Sizing{Headroom: c.Headroom, Peak: c.Peak})
	if err != nil {
		return usageError{err}
	}
	plan.Verdict = fmt.Sprintf("%s. %s", estimate.Total.Verdict, estimate.Total.Why)
	var text bytes.Buffer
	if err := plan.Write(&text); err != nil {
		return err
	}
	if c.Out == "" {
		_, err := io.out.Write(text.Bytes())
		return err
	}
	return writeWhole(c.Out, text.Bytes())
}

// loadsOf are the services of an estimate, each with the block that does its work.
func loadsOf(e cost.Estimate) []terraform.Load {
	var loads []terraform.Load
	for _, s := range e.Services {
		service := ""
		for _, line := range s.Lines {
			service = line.Service
		}
		name := report.Printable(strings.Join(strings.Fields(s.Name), " "))
		loads = append(loads, terraform.Load{Name: name, Block: terraform.BlockOf(s.Name, service), Need: s.Need})
	}
	return loads
}

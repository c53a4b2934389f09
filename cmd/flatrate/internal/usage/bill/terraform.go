package bill

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cost"
)

// plan is the part of terraform show -json that is read.
type plan struct {
	Format  string `json:"format_version"`
	Planned *struct {
		Root module `json:"root_module"`
	} `json:"planned_values"`
	Values *struct {
		Root module `json:"root_module"`
	} `json:"values"`
}

type module struct {
	Resources []resource `json:"resources"`
	Children  []module   `json:"child_modules"`
}

type resource struct {
	Address string `json:"address"`
	Mode    string `json:"mode"`
	Type    string `json:"type"`
	Values  struct {
		Billing  string  `json:"billing_mode"`
		Read     float64 `json:"read_capacity"`
		Write    float64 `json:"write_capacity"`
		Engine   string  `json:"engine"`
		NodeType string  `json:"node_type"`
		Clusters int     `json:"num_cache_clusters"`
		Nodes    int     `json:"num_cache_nodes"`
		Groups   int     `json:"num_node_groups"`
		Replicas int     `json:"replicas_per_node_group"`
		Indexes  []struct {
			Read  float64 `json:"read_capacity"`
			Write float64 `json:"write_capacity"`
		} `json:"global_secondary_index"`
	} `json:"values"`
}

const maxPlan = 256 << 20

// ReadPlan reads what terraform show -json (or tofu) prints of a plan or a state: DynamoDB's provisioned capacity, and the ElastiCache
// nodes, which become the flat side. How much the rest is used no plan says: Notes names it.
func ReadPlan(file string, r io.Reader) (Found, error) {
	var f Found
	data, err := io.ReadAll(io.LimitReader(r, maxPlan+1))
	if err != nil {
		return f, fmt.Errorf("%s: %w", file, err)
	}
	if len(data) > maxPlan {
		return f, fmt.Errorf("%s: over %d bytes", file, maxPlan)
	}
	var p plan
	if err := json.Unmarshal(data, &p); err != nil {
		return f, jsonError(file, data, err)
	}
	if p.Format == "" {
		return f, fmt.Errorf("%s: no format_version: not what terraform show -json prints", file)
	}
	if major, _, _ := strings.Cut(p.Format, "."); major != "1" {
		return f, fmt.Errorf("%s: format_version is %s: only 1.x is known", file, short(p.Format))
	}
	var root module
	switch {
	case p.Planned != nil:
		root = p.Planned.Root
	case p.Values != nil:
		root = p.Values.Root
	default:
		return f, fmt.Errorf("%s: neither planned_values nor values in it", file)
	}
	t := terraform{file: file, found: &f}
	if err := t.walk(root, 0); err != nil {
		return Found{}, err
	}
	return f, t.finish()
}

// terraform collects what a plan has.
type terraform struct {
	file     string
	found    *Found
	capacity cost.Provisioned
	unused   []string // metered resources whose use nobody knows
}

const maxDepth = 100

func (t *terraform) walk(m module, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: modules lie over %d deep", t.file, maxDepth)
	}
	for _, r := range m.Resources {
		if r.Mode != "" && r.Mode != "managed" {
			continue
		}
		if err := t.resource(r); err != nil {
			return fmt.Errorf("%s: %s: %w", t.file, r.Address, err)
		}
	}
	for _, child := range m.Children {
		if err := t.walk(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (t *terraform) resource(r resource) error {
	v := r.Values
	switch r.Type {
	case "aws_dynamodb_table":
		if v.Billing == "PAY_PER_REQUEST" {
			t.unused = append(t.unused, r.Address)
			return nil
		}
		if v.Read < 0 || v.Write < 0 {
			return fmt.Errorf("a capacity is negative")
		}
		t.capacity.RCU += v.Read
		t.capacity.WCU += v.Write
		for _, index := range v.Indexes {
			if index.Read < 0 || index.Write < 0 {
				return fmt.Errorf("a capacity is negative")
			}
			t.capacity.RCU += index.Read
			t.capacity.WCU += index.Write
		}
	case "aws_sqs_queue", "aws_api_gateway_rest_api", "aws_apigatewayv2_api":
		t.unused = append(t.unused, r.Address)
	case "aws_elasticache_replication_group":
		return t.flat(r, cost.Flat{Kind: cost.Nodes, Node: v.NodeType, Engine: cost.Engine(cmp.Or(v.Engine, "redis")),
			Shards: max(1, v.Groups), Count: cmp.Or(max(0, v.Clusters), v.Replicas+1)})
	case "aws_elasticache_cluster":
		if v.Engine != "memcached" {
			return t.flat(r, cost.Flat{Kind: cost.Nodes, Node: v.NodeType, Engine: cost.Engine(cmp.Or(v.Engine, "redis")), Shards: 1, Count: max(1, v.Nodes)})
		}
	case "aws_elasticache_serverless_cache":
		if v.Engine != "memcached" {
			return t.flat(r, cost.Flat{Kind: cost.Serverless, Engine: cost.Engine(v.Engine)})
		}
	}
	return nil
}

// flat takes the first cache of a plan as the flat side.
func (t *terraform) flat(r resource, f cost.Flat) error {
	if f.Kind == cost.Nodes && f.Node == "" {
		return fmt.Errorf("node_type is not known before apply")
	}
	if t.found.Flat != nil {
		t.found.note("%s is a second cache: the first one is compared", r.Address)
		return nil
	}
	t.found.Flat = &f
	t.found.note("the flat side is %s of the plan", r.Address)
	return nil
}

func (t *terraform) finish() error {
	if t.capacity.RCU > 0 || t.capacity.WCU > 0 {
		u := cost.Usage{DynamoDB: cost.DynamoDB{Provisioned: t.capacity}}
		if err := t.found.add("dynamodb provisioned", u, 30*24*time.Hour, false); err != nil {
			return fmt.Errorf("%s: %w", t.file, err)
		}
		w := &t.found.Workloads[len(t.found.Workloads)-1]
		need := cost.Usage{DynamoDB: cost.DynamoDB{RRU: t.capacity.RCU * 3600 * 720, WRU: t.capacity.WCU * 3600 * 720}}.Need()
		w.Need = &need
		w.Note = "the plan says what is provisioned, not what is used: all of it is taken to be"
	}
	for i, address := range t.unused {
		if i == 10 {
			t.found.note("%d more are charged by use, which a plan does not say", len(t.unused)-i)
			break
		}
		t.found.note("%s is charged by use, which a plan does not say: add it", address)
	}
	if len(t.found.Workloads) == 0 && t.found.Flat == nil && len(t.unused) == 0 {
		return fmt.Errorf("%s: no DynamoDB, SQS, API Gateway or ElastiCache in it", t.file)
	}
	return nil
}

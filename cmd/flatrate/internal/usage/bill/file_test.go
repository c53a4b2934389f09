package bill

import (
	"os"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/cost"
)

const usageText = `
region: us-east-1
per: hour
workloads:
  - name: sessions
    note: by hand
    dynamodb:
      reads: [{count: 1_000.5, item_bytes: 2048, consistency: eventual}]
      writes: [{count: 2, item_bytes: 100, transactional: true}]
      rru: 3
      wru: 4
      provisioned: {rcu: 5, wcu: 6}
      ttl_deletes: 7
      stored_bytes: 8e9
      stored_items: 9
  - name: jobs
    sqs:
      standard: [{count: 10, bytes: 11, send_batch: 2, receive_batch: 3, delete_batch: 4, empty_receives: 12}]
      fifo: [{count: 13}]
      standard_requests: 14
      fifo_requests: 15
      free_used: 16
      backlog: 17
    memory_bytes: 1e9
  - name: api
    api_gateway: {rest_requests: 18, http_requests: 19, subjects: 20, removed: true}
    database: {reads: 21, hit_rate: 0.5, usd_per_million: 22, instance_usd: 23, entries: 24, entry_bytes: 25}
flat: {kind: nodes, node: cache.t4g.small, count: 3, shards: 2, engine: redis, term: 1y-no-upfront, redlock: 3, redlock_node: cache.t4g.micro, node_usd_per_hour: 0.5, cross_az: 0.25, load_balancer: true}
sizing: {headroom: 0.3, peak: 4, above: 1}
`

func TestUsageFile(t *testing.T) {
	f, err := ReadFile("f", []byte(usageText), cost.Sizing{Headroom: .2, Peak: 5})
	if err != nil {
		t.Fatal(err)
	}
	s, j, a := f.Workloads[0], f.Workloads[1], f.Workloads[2]
	want := cost.DynamoDB{Reads: []cost.ItemReads{{Count: 1000.5 * 720, ItemBytes: 2048, Consistency: cost.Eventual}},
		Writes: []cost.ItemWrites{{Count: 1440, ItemBytes: 100, Transactional: true}}, RRU: 2160, WRU: 2880,
		Provisioned: cost.Provisioned{RCU: 5, WCU: 6}, TTLDeletes: 5040, StoredBytes: 8e9, StoredItems: 9}
	if d := s.Usage.DynamoDB; d.Reads[0] != want.Reads[0] || d.Writes[0] != want.Writes[0] || d.RRU != want.RRU || d.WRU != want.WRU ||
		d.Provisioned != want.Provisioned || d.TTLDeletes != want.TTLDeletes || d.StoredBytes != want.StoredBytes || d.StoredItems != want.StoredItems || s.Note != "by hand" {
		t.Errorf("%+v", d)
	}
	q := j.Usage.SQS
	if q.Standard[0] != (cost.Messages{Count: 7200, Bytes: 11, SendBatch: 2, ReceiveBatch: 3, DeleteBatch: 4, EmptyReceives: 8640}) ||
		q.FIFO[0].Count != 9360 || q.StandardRequests != 10_080 || q.FIFORequests != 10_800 || q.FreeUsed != 16 || q.Backlog != 17 || j.Need.Bytes != 1e9 {
		t.Errorf("%+v", q)
	}
	if a.Usage.APIGateway != (cost.APIGateway{RESTRequests: 12_960, HTTPRequests: 13_680, Subjects: 20}) || a.KeepsGateway || !s.KeepsGateway ||
		a.Usage.Database != (cost.Database{Reads: 15_120, HitRate: .5, USDPerMillion: 22, InstanceUSD: 23, Entries: 24, EntryBytes: 25}) {
		t.Errorf("%+v", a)
	}
	if *f.Flat != (cost.Flat{Kind: cost.Nodes, Node: "cache.t4g.small", Count: 3, Shards: 2, Engine: cost.Redis, Term: cost.OneYear, Redlock: 3,
		RedlockNode: "cache.t4g.micro", NodeUSDPerHour: .5, CrossAZ: .25, LoadBalancer: true}) || f.Sizing != (cost.Sizing{Headroom: .3, Peak: 4, Above: 1}) || f.Region != "us-east-1" {
		t.Errorf("%+v, %+v, %s", f.Flat, f.Sizing, f.Region)
	}
}

func TestUsageFilesThatAreWrong(t *testing.T) {
	for want, text := range map[string]string{
		"f:1:1: the file is empty":                           "",
		"f:1:1: not a mapping":                               "- a",
		"f:1:1: workloads are missing":                       "per: day",
		`f:1:1: unknown key "workload": "workloads"?`:        "workload: []",
		"f:1:6: not month, week":                             "per: 0s\nworkloads: []",
		"f:2:5: name is missing":                             "workloads:\n  - {}",
		"f:3:21: not a number":                               "workloads:\n  - name: a\n    dynamodb: {rru: lots}",
		"f:3:21: not a number ":                              "workloads:\n  - name: a\n    dynamodb: {rru: .nan} ",
		"f:2:5: cost: invalid: dynamodb.rru: -1 is negative": "workloads:\n  - name: a\n    dynamodb: {rru: -1}",
		"dynamodb.rru: 3e+16 is over":                        "workloads:\n  - name: a\n    dynamodb: {rru: 1e15}",
		"not one of strong, eventual, transactional":         "workloads:\n  - name: a\n    dynamodb: {reads: [{consistency: firm}]}",
		"sqs.standard[0].send_batch: 11 is not":              "workloads:\n  - name: a\n    sqs: {standard: [{send_batch: 11}]}",
		"f:4:5: the name":                                    "workloads:\n  - name: a\n  - name: b\n  - {name: a}",
		"f:1:20: 1 is not from 0 to 0.9":                     "sizing: {headroom: 1}\nworkloads: []",
		"f:1:16: 0.5 is not from 1 to":                       "sizing: {peak: 0.5}\nworkloads: []",
		"f:1:17: 6 is over 5":                                "sizing: {above: 6}\nworkloads: []",
		"f:1:27: -3 is not from 0":                           "flat: {node_usd_per_hour: -3}\nworkloads: []",
		"f:1:18: 7 is not from 0 to 1":                       "flat: {cross_az: 7}\nworkloads: []",
		"f:1:16: 501 is over 500":                            "flat: {shards: 501}\nworkloads: []",
		"out of range":                                       "workloads:\n  - name: a\n    memory_bytes: -5",
	} {
		_, err := ReadFile("f", []byte(text), cost.Sizing{})
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

// TestPageShowsAUsage reads the example of the page.
func TestPageShowsAUsage(t *testing.T) {
	page, err := os.ReadFile("../../../../../docs/cost.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "```yaml\n")
	text, _, _ := strings.Cut(rest, "```")
	f, err := ReadFile("docs/cost.md", []byte(text), cost.Sizing{})
	if !ok || err != nil || len(f.Workloads) != 4 {
		t.Errorf("%+v, %v", f, err)
	}
}

func FuzzUsageFile(f *testing.F) {
	f.Add(usageText)
	f.Fuzz(func(t *testing.T, text string) {
		if file, err := ReadFile("f", []byte(text), cost.Sizing{}); err == nil {
			wantValid(t, file.Found)
		}
	})
}

package bill

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cost"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

const metricsText = `{"MetricDataResults": [
 {"Id": "r", "Label": "sessions ConsumedReadCapacityUnits", "Timestamps": ["2026-11-01T02:00:00Z", "2026-11-01T01:00:00Z", "2026-11-01T00:00:00Z"], "Values": [100, 200, 300], "StatusCode": "Complete"},
 {"Id": "w", "Label": "ConsumedWriteCapacityUnits", "Timestamps": ["2026-11-01T00:00:00Z", "2026-11-01T01:00:00Z"], "Values": [10, 20], "StatusCode": "Complete"},
 {"Id": "s", "Label": "jobs NumberOfMessagesSent", "Timestamps": ["2026-11-01T00:00:00Z"], "Values": [60], "StatusCode": "Complete"},
 {"Id": "z", "Label": "SentMessageSize", "Timestamps": ["2026-11-01T00:00:00Z"], "Values": [1000.5]},
 {"Id": "e", "Label": "NumberOfEmptyReceives", "Timestamps": ["2026-11-01T00:00:00Z"], "Values": [6]},
 {"Id": "c", "Label": "Count", "Timestamps": ["2026-11-01T00:00:00Z"], "Values": [9]},
 {"Id": "x", "Label": "Latency", "Timestamps": ["2026-11-01T00:00:00Z"], "Values": [9]}
]}`

func TestCloudWatch(t *testing.T) {
	f, err := ReadCloudWatch("f", strings.NewReader(metricsText), east)
	if err != nil {
		t.Fatal(err)
	}
	const k = 240 // three hours of a month
	d, q, g := f.Workloads[0].Usage.DynamoDB, f.Workloads[1].Usage.SQS.Standard[0], f.Workloads[2].Usage.APIGateway
	if len(f.Workloads) != 3 || d.RRU != 600*k || d.WRU != 30*k || q.Count != 60*k || q.Bytes != 1001 || q.EmptyReceives != 6*k || g.HTTPRequests != 9*k {
		t.Errorf("%+v", f.Workloads)
	}
	if notes := strings.Join(f.Notes, "\n"); !strings.Contains(notes, `"Latency" is left out`) || !strings.Contains(notes, "3.0 hours") {
		t.Errorf("%s", notes)
	}
	f, err = ReadCloudWatch("f", strings.NewReader(`{"Label":"Count","Datapoints":[{"Timestamp":"2026-11-01T01:00:00Z","Sum":5,"Unit":"Count"},{"Timestamp":"2026-11-01T00:00:00Z","Sum":7}]}`),
		Options{REST: true})
	if err != nil || f.Workloads[0].Usage.APIGateway.RESTRequests != 12*360 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestCloudWatchThatIsWrong(t *testing.T) {
	for want, text := range map[string]string{
		"f:2: ":                            "{\n\"MetricDataResults\": [}",
		"f:1: MetricDataResults":           `{"MetricDataResults": "none"}`,
		"neither MetricDataResults":        `{"Metrics": []}`,
		"NextToken":                        `{"NextToken": "x", "MetricDataResults": []}`,
		"PartialData":                      strings.Replace(metricsText, `"Complete"`, `"PartialData"`, 1),
		"no points":                        `{"MetricDataResults": []}`,
		"3 values at 2 times":              strings.Replace(metricsText, `"2026-11-01T02:00:00Z", `, "", 1),
		"-5 is not a count":                strings.Replace(metricsText, "[100,", "[-5,", 1),
		"one point in time":                `{"MetricDataResults": [{"Label": "Count", "Timestamps": ["2026-11-01T00:00:00Z"], "Values": [1]}]}`,
		"point 0 of Datapoints has no Sum": `{"Label":"Count","Datapoints":[{"Timestamp":"2026-11-01T00:00:00Z","Average":7}]}`,
		"unexpected end of JSON":           `{"MetricDataResults": [`,
		"api_gateway: cost: invalid: ":     `{"MetricDataResults": [{"Label": "Count", "Timestamps": ["2026-11-01T00:00:00Z", "2026-11-01T00:00:01Z"], "Values": [1e17, 1]}]}`,
		"value 0: 1e+19 is not a count":    `{"MetricDataResults": [{"Label": "Count", "Timestamps": ["2026-11-01T00:00:00Z", "2026-11-01T00:00:01Z"], "Values": [1e19, 1]}]}`,
		`cannot parse "then" as "2006"`:    `{"MetricDataResults": [{"Label": "Count", "Timestamps": ["then"], "Values": [1]}]}`,
	} {
		if f, err := ReadCloudWatch("f", strings.NewReader(text), east); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %+v, want %s", err, f.Workloads, want)
		}
	}
}

const planText = `{"format_version": "1.2", "terraform_version": "1.9.0", "planned_values": {"root_module": {"resources": [
 {"address": "aws_dynamodb_table.a", "mode": "managed", "type": "aws_dynamodb_table", "values": {"billing_mode": "PROVISIONED", "read_capacity": 90, "write_capacity": 15, "global_secondary_index": [{"read_capacity": 10, "write_capacity": 5}]}},
 {"address": "aws_dynamodb_table.b", "mode": "managed", "type": "aws_dynamodb_table", "values": {"billing_mode": "PAY_PER_REQUEST"}},
 {"address": "data.aws_dynamodb_table.c", "mode": "data", "type": "aws_dynamodb_table", "values": {"read_capacity": 1000}}],
 "child_modules": [{"resources": [
 {"address": "module.m.aws_sqs_queue.q", "mode": "managed", "type": "aws_sqs_queue", "values": {"fifo_queue": true}},
 {"address": "module.m.aws_elasticache_replication_group.r", "mode": "managed", "type": "aws_elasticache_replication_group",
  "values": {"engine": "valkey", "node_type": "cache.t4g.medium", "num_node_groups": 2, "replicas_per_node_group": 1}},
 {"address": "module.m.aws_elasticache_cluster.s", "mode": "managed", "type": "aws_elasticache_cluster", "values": {"engine": "redis", "node_type": "cache.t4g.small", "num_cache_nodes": 1}}]}]}}}`

func TestPlan(t *testing.T) {
	f, err := ReadPlan("f", strings.NewReader(planText))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Workloads) != 1 || f.Workloads[0].Usage.DynamoDB.Provisioned != (cost.Provisioned{RCU: 100, WCU: 20}) ||
		f.Flat == nil || *f.Flat != (cost.Flat{Kind: cost.Nodes, Node: "cache.t4g.medium", Engine: cost.Valkey, Shards: 2, Count: 2}) {
		t.Errorf("%+v, %+v", f.Workloads, f.Flat)
	}
	notes := strings.Join(f.Notes, "\n")
	for _, want := range []string{"aws_dynamodb_table.b is charged by use", "module.m.aws_sqs_queue.q is charged by use", "aws_elasticache_cluster.s is a second cache"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes lack %s:\n%s", want, notes)
		}
	}
	for want, text := range map[string]string{
		`format_version is "0.2": only 1.x`: strings.Replace(planText, `"1.2"`, `"0.2"`, 1),
		`format_version is "2.0"`:           strings.Replace(planText, `"1.2"`, `"2.0"`, 1),
		"no format_version":                 `{}`,
		"neither planned_values":            `{"format_version": "1.0"}`,
		"no DynamoDB":                       `{"format_version": "1.0", "values": {"root_module": {}}}`,
		"f:2: ":                             "{\"format_version\": \"1.0\",\n nonsense}",
		"a capacity is negative":            strings.Replace(planText, `"read_capacity": 90,`, `"read_capacity": -1,`, 1),
		"node_type is not known":            strings.Replace(planText, `"node_type": "cache.t4g.medium", `, "", 1),
		"over 100 deep":                     `{"format_version": "1.0", "values": {"root_module": ` + strings.Repeat(`{"child_modules": [`, 102) + "{}" + strings.Repeat("]}", 102) + `}}`,
		"read_capacity":                     strings.Replace(planText, `"read_capacity": 90,`, `"read_capacity": "many",`, 1),
	} {
		if _, err := ReadPlan("f", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestCommandStats(t *testing.T) {
	for name, client := range map[string]valkey.Client{"single": valkeytest.Start(t).Client(), "cluster": valkeytest.Cluster(t, 3).Client()} {
		if _, err := CommandStats(t.Context(), client, east); err == nil || !strings.Contains(err.Error(), "no command has read or written") {
			t.Errorf("%s, before any: %v", name, err)
		}
		do := func(times int, build func() valkey.Completed) {
			for range times {
				_ = client.Do(t.Context(), build()).Error()
			}
		}
		do(70, func() valkey.Completed { return client.B().Get().Key("a").Build() })
		do(20, func() valkey.Completed { return client.B().Set().Key("b").Value("x").Build() })
		do(5, func() valkey.Completed { return client.B().Lpush().Key("c").Element("x").Build() })
		do(3, func() valkey.Completed { return client.B().Rpop().Key("c").Build() })
		f, err := CommandStats(t.Context(), client, east)
		if err != nil {
			t.Fatal(name, err)
		}
		d, q := f.Workloads[0].Usage.DynamoDB, f.Workloads[1].Usage.SQS.Standard[0]
		k := d.Reads[0].Count / 70 // whatever the span was
		if len(f.Workloads) != 2 || math.Abs(d.Writes[0].Count-20*k) > 1e-9*k || math.Abs(q.Count-5*k) > 1e-9*k || d.Reads[0].ItemBytes != 2048 || k <= 1 || f.Workloads[0].Need.Bytes < 1e5 {
			t.Errorf("%s: %+v", name, f.Workloads)
		}
		if n, err := UsedMemory(t.Context(), client); err != nil || n < 1e5 {
			t.Errorf("%s: %v bytes, %v", name, n, err)
		}
	}
}

func TestStatsThatAreWrong(t *testing.T) {
	const good = "# Server\r\nuptime_in_seconds:100\r\nused_memory:5\r\nrole:master\r\ncmdstat_get:calls=7,usec=1\r\ncmdstat_client|list:calls=3\r\nsomething new\r\n"
	s, err := parseStats("txt:" + good)
	if err != nil || s.calls[reads] != 7 || s.uptime != 100*time.Second || s.memory != 5 || s.other != 0 || s.replica {
		t.Errorf("%+v, %v", s, err)
	}
	for want, text := range map[string]string{
		`line 2: "-5" is not a number`: strings.Replace(good, ":100", ":-5", 1),
		`line 3: "much" is not`:        strings.Replace(good, "used_memory:5", "used_memory:much", 1),
		`line 5: "calls=x" is not`:     strings.Replace(good, "calls=7,usec=1", "calls=x", 1),
		"no uptime_in_seconds":         "",
	} {
		if _, err := parseStats(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

const replayText = `{"requests": 3000, "complete": true, "span_seconds": 86400, "session": {"created": 121, "reads": 2911}, "cache": {"lookups": 2000, "hits": 500}}`

func TestReplay(t *testing.T) {
	f, err := ReadReplay("f", strings.NewReader(replayText), east, cost.Database{USDPerMillion: 2})
	if err != nil {
		t.Fatal(err)
	}
	d, db := f.Workloads[0].Usage.DynamoDB, f.Workloads[2].Usage.Database
	if len(f.Workloads) != 3 || d.Reads[0].Count != 2911*30 || d.Writes[0].Count != 121*30 || f.Workloads[1].Usage.APIGateway.HTTPRequests != 90_000 ||
		db.Reads != 60_000 || db.HitRate != .25 || db.USDPerMillion != 2 {
		t.Errorf("%+v", f.Workloads)
	}
	f, err = ReadReplay("f", strings.NewReader(replayText), east, cost.Database{})
	if err != nil || f.Workloads[2].Usage.Database.Reads != 0 || f.Workloads[2].Need == nil || f.Workloads[2].Note == "" {
		t.Errorf("without a price: %+v, %v", f.Workloads, err)
	}
	for want, text := range map[string]string{
		"not what flatrate replay": `{"requests": 3}`,
		"its counts can't be":      strings.Replace(replayText, "500", "5000", 1),
		"f:1: ":                    "nonsense",
	} {
		if _, err := ReadReplay("f", strings.NewReader(text), east, cost.Database{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func FuzzCloudWatch(f *testing.F) {
	f.Add(metricsText)
	f.Fuzz(func(t *testing.T, text string) {
		if found, err := ReadCloudWatch("f", strings.NewReader(text), east); err == nil {
			wantValid(t, found)
		}
	})
}

func FuzzPlan(f *testing.F) {
	f.Add(planText)
	f.Fuzz(func(t *testing.T, text string) {
		if found, err := ReadPlan("f", strings.NewReader(text)); err == nil {
			wantValid(t, found)
		}
	})
}

func FuzzReplay(f *testing.F) {
	f.Add(replayText)
	f.Fuzz(func(t *testing.T, text string) {
		if found, err := ReadReplay("f", strings.NewReader(text), east, cost.Database{USDPerMillion: 1}); err == nil {
			wantValid(t, found)
		}
	})
}

func FuzzStats(f *testing.F) {
	f.Add("uptime_in_seconds:100\r\ncmdstat_get:calls=7,usec=1\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parseStats(text); err == nil && (s.uptime <= 0 || s.memory < 0 || s.other < 0) {
			t.Fatalf("%+v", s)
		}
	})
}

func wantValid(t *testing.T, f Found) {
	for _, w := range f.Workloads {
		if err := w.Usage.Validate(); err != nil {
			t.Fatalf("%s: %v", w.Name, err)
		}
	}
}

package terraform

import (
	"fmt"
	"math"
	"strconv"

	"github.com/flatrate/flatrate/cost"
)

func (p Plan) parameters(b body, g Group) {
	r := b.block("resource", "aws_elasticache_parameter_group", g.Key)
	family := Family(p.Version)
	r.set("name", p.id(g)+"-"+family, "family", family, "description", "Parameters of "+p.id(g), "tags", expr("local.tags"))
	parameter := func(name, value string, why ...string) {
		r.space()
		r.comment(why...)
		r.block("parameter").set("name", name, "value", value)
	}
	parameter("maxmemory-policy", g.Policy, "Chosen by what shares these nodes: see above.")
	if p.Kind != Pair {
		parameter("cluster-enabled", "yes", "Shards.")
	}
	if p.Events != "" {
		parameter("notify-keyspace-events", p.Events, "Expired keys are published, for hooks of yours. No building block needs it.")
	}
	parameter("slowlog-log-slower-than", "100000", "Microseconds: calls of 100 ms and more are kept, and delivered to the slow log.")
	parameter("slowlog-max-len", "128")
	r.space()
	r.comment("hash-max-listpack-entries and -value stay at 512 and 64: a lower limit needs more memory for hashes of that size.",
		"reserved-memory-percent stays at 25: the sizes above count on it. What Valkey frees, it frees in the background by itself.")
	r.space()
	r.block("lifecycle").set("create_before_destroy", true) // a group in use can't be removed
	b.space()
}

func (p Plan) nodes(b body, g Group) {
	r := b.block("resource", "aws_elasticache_replication_group", g.Key)
	r.set("replication_group_id", p.id(g), "description", "flatrate: "+blocksOf(g), "engine", "valkey", "engine_version", p.Version,
		"node_type", g.Side.Node, "parameter_group_name", expr("aws_elasticache_parameter_group."+g.Key+".name"))
	r.space()
	switch p.Kind {
	case Pair:
		r.comment("One shard: a primary, and " + plural(g.Side.Count-1, "replica") + ".")
		r.set("num_cache_clusters", g.Side.Count)
	default:
		r.set("cluster_mode", "enabled", "num_node_groups", g.Side.Shards, "replicas_per_node_group", g.Side.Count-1)
	}
	r.set("automatic_failover_enabled", true, "multi_az_enabled", true)
	if p.Kind == Durable {
		r.space()
		durability := p.Durability
		switch {
		case g.Key == "cache":
			durability = "disabled"
			r.comment("What is loaded again needs no log.")
		case durability == "sync":
			r.comment("A write is answered once the Multi-AZ log has it: a failover loses none.")
		default:
			r.comment("The Multi-AZ log is written behind: a failover loses up to 10 seconds of writes.")
		}
		r.set("durability", durability)
	}
	r.space()
	r.comment("TLS alone, and each building block signs in as its own user.")
	r.set("transit_encryption_enabled", true, "transit_encryption_mode", "required", "user_group_ids", expr("[aws_elasticache_user_group."+g.Key+".user_group_id]"),
		"at_rest_encryption_enabled", true, "kms_key_id", expr("aws_kms_key.this.arn"))
	r.space()
	r.set("subnet_group_name", expr("aws_elasticache_subnet_group.this.name"), "security_group_ids", expr("[aws_security_group.this.id]"), "port", 6379)
	r.space()
	r.comment("UTC. Changes wait for the maintenance window.")
	r.set("maintenance_window", p.Maintenance)
	if p.Retention > 0 {
		r.set("snapshot_window", p.Snapshot)
	}
	r.set("snapshot_retention_limit", p.Retention, "auto_minor_version_upgrade", true, "apply_immediately", false, "tags", expr("local.tags"))
	for _, kind := range []string{"slow-log", "engine-log"} {
		r.space()
		r.block("log_delivery_configuration").set("destination", expr("aws_cloudwatch_log_group."+g.Key+"_"+label(kind)+".name"),
			"destination_type", "cloudwatch-logs", "log_format", "json", "log_type", kind)
	}
	b.space()
}

func (p Plan) serverless(b body, g Group) {
	r := b.block("resource", "aws_elasticache_serverless_cache", g.Key)
	r.set("name", p.id(g), "description", "flatrate: "+blocksOf(g), "engine", "valkey", "major_engine_version", strconv.Itoa(majorOf(p.Version)))
	r.space()
	r.comment("TLS is all that Serverless speaks, and each building block signs in as its own user.")
	r.set("user_group_id", expr("aws_elasticache_user_group."+g.Key+".user_group_id"), "kms_key_id", expr("aws_kms_key.this.arn"),
		"subnet_ids", expr("var.subnet_ids"), "security_group_ids", expr("[aws_security_group.this.id]"))
	r.space()
	if p.Retention > 0 {
		r.comment("UTC.")
		r.set("daily_snapshot_time", p.Snapshot[:5])
	}
	r.set("snapshot_retention_limit", p.Retention, "tags", expr("local.tags"))
	if g.Key == "cache" {
		r.space()
		r.comment("Twice what the load needs; beyond it the least recently used entries with a TTL go.")
		r.block("cache_usage_limits").block("data_storage").set("maximum", limitGB(g.Need), "unit", "GB")
	}
	b.space()
}

// limitGB is twice a need in whole GB, at least one.
func limitGB(n cost.Need) int { return max(1, int(math.Ceil(2*n.Bytes/1e9))) }

// alarm is one line of what is watched.
type alarm struct {
	name, metric, statistic string
	threshold               int
	periods, of             int // so many of the last minutes
	description             string
}

// watched are the alarms of each node: docs/terraform.md says why these.
var watched = []alarm{
	{"evictions", "Evictions", "Sum", 100, 5, 5, "Over 100 evictions a minute for five minutes: the cache is too small for its load"},
	{"memory", "DatabaseMemoryUsagePercentage", "Average", 80, 3, 5, "Memory over 80% in three of five minutes: take a larger node before writes are refused or entries evicted"},
	{"engine_cpu", "EngineCPUUtilization", "Average", 80, 5, 5, "The thread that runs commands is busy over 80% of the time: add shards or a faster node"},
	{"host_cpu", "CPUUtilization", "Average", 90, 5, 5, "All cores of the node together are over 90% busy"},
	{"replication_lag", "ReplicationLag", "Maximum", 5, 5, 5, "A replica is over five seconds behind: a failover now would lose them"},
	{"connections", "CurrConnections", "Maximum", 52000, 3, 5, "Over 52,000 of the 65,000 connections that a node takes"},
	{"swap", "SwapUsage", "Maximum", 52428800, 5, 5, "Over 50 MiB swapped: the node has too little memory left for itself"},
	{"failed_logins", "AuthenticationFailures", "Sum", 10, 1, 1, "Over ten sign-ins a minute failed: a password that was not rotated everywhere, or somebody who tries"},
	{"denied_commands", "CommandAuthorizationFailures", "Sum", 0, 1, 1, "A user was refused a command: another version of flatrate than these rules are for, or somebody who tries"},
	{"denied_keys", "KeyAuthorizationFailures", "Sum", 0, 1, 1, "A user was refused a key: a wrong Config.Prefix, or somebody who tries"},
	{"denied_channels", "ChannelAuthorizationFailures", "Sum", 0, 1, 1, "A user was refused a channel: its waiters are not woken, and ask by themselves"},
}

// watchedServerless are those that Serverless has metrics for.
func watchedServerless(g Group) []alarm {
	list := []alarm{{"throttled", "ThrottledCmds", "Sum", 0, 3, 5, "Commands were throttled in three of five minutes: the load grows faster than Serverless does"},
		{"failed_logins", "AuthenticationFailures", "Sum", 10, 1, 1, "Over ten sign-ins a minute failed: a password that was not rotated everywhere, or somebody who tries"},
		{"denied_keys", "KeyAuthorizationFailures", "Sum", 0, 1, 1, "A user was refused a key: a wrong Config.Prefix, or somebody who tries"}}
	if g.Key == "cache" {
		return append([]alarm{watched[0]}, list...)
	}
	bytes := max(1_000_000_000, int(2*g.Need.Bytes))
	return append([]alarm{{"data", "BytesUsedForCache", "Maximum", bytes, 3, 5, "Twice the data that was planned for: it is charged by the hour, and nothing ends it"}}, list...)
}

func (p Plan) alarms(b body, g Group) {
	list := watched
	if p.Kind == Serverless {
		list = watchedServerless(g)
	}
	l := b.block("locals")
	text := "{\n"
	for _, a := range list {
		text += fmt.Sprintf("    %s = { metric = %q, statistic = %q, threshold = %d, periods = %d, of = %d, description = %s }\n",
			a.name, a.metric, a.statistic, a.threshold, a.periods, a.of, quoted(a.description))
	}
	l.set(g.Key+"_alarms", expr(text+"  }"))
	b.space()

	r := b.block("resource", "aws_cloudwatch_metric_alarm", g.Key)
	dimensions := `{
    clusterId = aws_elasticache_serverless_cache.` + g.Key + `.name
  }`
	if p.Kind == Serverless {
		r.set("for_each", expr("local."+g.Key+"_alarms"))
		r.space()
		r.set("alarm_name", expr(`"`+p.id(g)+`-${each.key}"`))
		p.alarm(r, "each.value", dimensions)
		b.space()
		return
	}
	r.comment("Metrics of nodes are published under CacheClusterId and CacheNodeId: an alarm on ReplicationGroupId never fires.")
	r.set("for_each", expr(fmt.Sprintf(`{ for pair in setproduct(keys(local.%s_alarms), local.%s_nodes) : "${pair[1]}-${pair[0]}" => {
    node = pair[1], alarm = local.%s_alarms[pair[0]]
  } }`, g.Key, g.Key, g.Key)))
	r.space()
	r.set("alarm_name", expr("each.key"))
	dimensions = "{\n    CacheClusterId = each.value.node\n    CacheNodeId = \"0001\"\n  }"
	p.alarm(r, "each.value.alarm", dimensions)
	r.space()
	r.set("depends_on", expr("[aws_elasticache_replication_group."+g.Key+"]"))
	b.space()
	if burstable(g.Side.Node) {
		p.credits(b, g, dimensions)
	}
}

// alarm sets what all alarms have.
func (p Plan) alarm(r body, from, dimensions string) {
	r.set("alarm_description", expr(from+".description"), "namespace", "AWS/ElastiCache", "metric_name", expr(from+".metric"), "dimensions", expr(dimensions),
		"statistic", expr(from+".statistic"), "period", 60, "comparison_operator", "GreaterThanThreshold", "threshold", expr(from+".threshold"),
		"datapoints_to_alarm", expr(from+".periods"), "evaluation_periods", expr(from+".of"), "treat_missing_data", "notBreaching",
		"alarm_actions", expr("var.alarm_topic_arns"), "ok_actions", expr("var.alarm_topic_arns"), "tags", expr("local.tags"))
}

func (p Plan) credits(b body, g Group, dimensions string) {
	r := b.block("resource", "aws_cloudwatch_metric_alarm", g.Key+"_credits")
	r.set("for_each", expr("toset(local."+g.Key+"_nodes)"))
	r.space()
	r.set("alarm_name", expr(`"${each.key}-cpu_credits"`), "alarm_description", "A burstable node has used up its CPU credits, and falls back to its baseline",
		"namespace", "AWS/ElastiCache", "metric_name", "CPUCreditBalance",
		"dimensions", expr("{\n    CacheClusterId = each.key\n    CacheNodeId = \"0001\"\n  }"), "statistic", "Minimum", "period", 300,
		"comparison_operator", "LessThanThreshold", "threshold", 10, "datapoints_to_alarm", 3, "evaluation_periods", 3, "treat_missing_data", "notBreaching",
		"alarm_actions", expr("var.alarm_topic_arns"), "ok_actions", expr("var.alarm_topic_arns"), "tags", expr("local.tags"))
	r.space()
	r.set("depends_on", expr("[aws_elasticache_replication_group."+g.Key+"]"))
	b.space()
}

func (p Plan) outputs(b body) {
	output := func(name, description string, value expr) {
		o := b.block("output", name)
		o.set("description", description, "value", value)
		b.space()
	}
	for _, g := range p.Groups {
		of := "aws_elasticache_replication_group." + g.Key + "."
		url := `"valkeys://${` + of + `%s}:6379"`
		switch p.Kind {
		case Pair:
			output(g.Key+"_url", "What flatrate.Connect takes, with USER@ before the host and ?password_file=PATH behind it.", expr(fmt.Sprintf(url, "primary_endpoint_address")))
			output(g.Key+"_reader_endpoint", "A replica, for reads that may be late. No building block uses it.", expr(of+"reader_endpoint_address"))
		case Serverless:
			output(g.Key+"_url", "What flatrate.Connect takes, with USER@ before the host and ?password_file=PATH behind it.",
				expr(`"valkeys://${aws_elasticache_serverless_cache.`+g.Key+`.endpoint[0].address}:6379"`))
		default:
			output(g.Key+"_url", "What flatrate.Connect takes, with USER@ before the host and ?password_file=PATH behind it.",
				expr(fmt.Sprintf(url, "configuration_endpoint_address")))
		}
	}
	users := "{\n"
	for _, g := range p.Groups {
		for _, block := range g.Blocks {
			users += "    " + quoted(block.Name) + " = aws_elasticache_user." + label(block.Name) + ".user_name\n"
		}
	}
	output("users", "The user of each building block.", expr(users+"  }"))
	o := b.block("output", "security_group_id")
	o.set("description", "The security group of the nodes.", "value", expr("aws_security_group.this.id"))
}

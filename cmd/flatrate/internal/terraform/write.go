package terraform

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/report"
	"github.com/flatrate/flatrate/cost"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Write writes the whole configuration, as terraform fmt would have it.
func (p Plan) Write(w io.Writer) error {
	f := hclwrite.NewEmptyFile()
	b := body{f.Body()}
	p.header(b)
	p.settings(b)
	p.variables(b)
	p.locals(b)
	p.network(b)
	p.key(b)
	if p.Kind != Serverless {
		p.logs(b)
	}
	p.users(b)
	for _, g := range p.Groups {
		if p.Kind == Serverless {
			p.serverless(b, g)
		} else {
			p.parameters(b, g)
			p.nodes(b, g)
		}
		p.alarms(b, g)
	}
	p.outputs(b)
	_, err := w.Write(hclwrite.Format(f.Bytes()))
	return err
}

// id is the name of a group in AWS.
func (p Plan) id(g Group) string { return p.Name + "-" + g.Key }

// what is a side in words.
func (p Plan) what(side cost.FlatSide) string {
	if side.Kind == cost.Serverless {
		return "ElastiCache Serverless"
	}
	text := fmt.Sprintf("%d x %s", side.Total(), side.Node)
	if p.Kind != Pair {
		text += fmt.Sprintf(" in %s", plural(side.Shards, "shard"))
	}
	return text
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func (p Plan) header(b body) {
	titles := map[string]string{Pair: "a primary and a replica", Cluster: "a cluster", Serverless: "ElastiCache Serverless", Durable: "a durable cluster"}
	title := titles[p.Kind]
	if p.Kind == Pair && p.Groups[0].Side.Count > 2 {
		title = fmt.Sprintf("a primary and %d replicas", p.Groups[0].Side.Count-1)
	}
	version := "Valkey " + p.Version
	if p.Kind == Serverless {
		version = "Valkey " + strconv.Itoa(majorOf(p.Version))
	}
	b.comment(fmt.Sprintf("%s: %s with %s in %s. Written by flatrate terraform.", p.Name, title, version, p.Region), "",
		fmt.Sprintf("It costs %s a month:", report.USD(p.USD())))
	for _, g := range p.Groups {
		b.comment(fmt.Sprintf("  %-20s %9s  %s", p.id(g), report.USD(g.Side.USD), p.what(g.Side)))
		for _, l := range g.Side.Lines {
			b.comment(fmt.Sprintf("  %-20s %9s  %s x %s at $%s%s%s", "", "", report.Amount(l.Units), l.Unit, strconv.FormatFloat(l.PriceUSD, 'g', 6, 64), per(l.Per), term(g.Side)))
		}
		b.comment(fmt.Sprintf("  %-20s %9s  for %s; needs %s of %s", "", "", blocksOf(g), report.Bytes(int64(g.Need.Bytes)), report.Bytes(g.Side.UsableBytes)))
	}
	for _, line := range p.remarks() {
		b.comment(line)
	}
	b.comment("", "Prices: "+p.sources()+".",
		"Not in it: the KMS key, alarms, logs, snapshots, and traffic between zones.")
	if p.Verdict != "" {
		b.comment("", "flatrate cost says of this load: "+p.Verdict)
	}
	b.comment("")
	for _, l := range p.Loads {
		b.comment(fmt.Sprintf("Load: %s (%s), %s commands a month, %s.", report.Printable(l.Name), l.Block, report.Amount(l.Need.Commands), report.Bytes(int64(l.Need.Bytes))))
	}
	for _, name := range p.Extra {
		if !slices.ContainsFunc(p.Loads, func(l Load) bool { return l.Block == name }) {
			b.comment(fmt.Sprintf("Load: %s was asked for without one: it has no part in the size.", name))
		}
	}
	b.comment("")
	for _, g := range p.Groups {
		for _, line := range p.eviction(g) {
			b.comment(line)
		}
	}
	b.space()
}

// remarks are what the price is to be read with.
func (p Plan) remarks() (lines []string) {
	if p.One != nil {
		lines = append(lines, fmt.Sprintf("One for all of it, which evicts nothing, would cost %s (%s): --together.", report.USD(p.One.USD), p.what(*p.One)))
	}
	if p.Kind == Durable {
		lines = append(lines, "The Multi-AZ log of a durable cluster costs extra; its price is not in the table, and not in these figures.")
	}
	return lines
}

// eviction says which policy, and why.
func (p Plan) eviction(g Group) (lines []string) {
	policy := g.Policy
	if p.Kind == Serverless {
		policy = "volatile-lru (Serverless has no other)"
	}
	lines = append(lines, fmt.Sprintf("Eviction of %s: %s.", p.id(g), policy))
	switch {
	case p.Kind == Serverless && g.Key == "cache":
		return append(lines, "  It evicts what has a TTL once its data reaches the limit below: cached entries, which are loaded again.")
	case p.Kind == Serverless:
		lines = append(lines, "  It has no limit of data, so that nothing is evicted; an alarm says when it grows. With a limit this would be:")
	case g.Key == "cache":
		return append(lines, "  All that is there is loaded again when it is gone. The least recently used goes first.")
	case g.Key == "all":
		lines = append(lines, "  A full node refuses writes, those of the cache too: mind the memory alarm. volatile-lru would evict:")
	default:
		lines = append(lines, "  A full node refuses writes: mind the memory alarm. allkeys-lru would evict any of it, and volatile-lru:")
	}
	for _, block := range g.Blocks {
		lines = append(lines, fmt.Sprintf("  - %s: %s", block.Name, block.Evicted))
	}
	return lines
}

func (p Plan) settings(b body) {
	t := b.block("terraform")
	t.set("required_version", leastTerraform)
	t.block("required_providers").set("aws", expr(`{
    source  = "hashicorp/aws"
    version = `+quoted(leastProvider)+`
  }`))
	b.space()
}

func (p Plan) variables(b body) {
	variable := func(name, kind, description string, more ...any) {
		v := b.block("variable", name)
		v.set("type", expr(kind), "description", description)
		v.set(more...)
		b.space()
	}
	variable("vpc_id", "string", "The VPC of the nodes and of their clients.")
	variable("subnet_ids", "list(string)", "Private subnets in at least two availability zones.")
	variable("client_security_group_ids", "map(string)", "Security groups whose members may connect, by a name of yours.")
	variable("alarm_topic_arns", "list(string)", "SNS topics that alarms are sent to. Without one an alarm only changes its colour.")
	if p.IAM {
		return
	}
	var members []string
	for _, g := range p.Groups {
		for _, block := range g.Blocks {
			members = append(members, "    "+label(block.Name)+" = string")
		}
	}
	variable("passwords", "object({\n"+strings.Join(members, "\n")+"\n  })", "A password for each user: 16 to 128 characters, none of them a comma, a quote, a slash or an @.",
		"sensitive", true, "ephemeral", true) // it is written, and never kept in the state
	variable("passwords_version", "number", "Raise it to have changed passwords written.", "default", 1)
}

// label is a name as HCL takes it for identifiers.
func label(name string) string { return strings.ReplaceAll(name, "-", "_") }

func (p Plan) locals(b body) {
	l := b.block("locals")
	tags := map[string]string{"Application": p.Name, "ManagedBy": "flatrate"}
	maps.Copy(tags, p.Tags)
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		lines = append(lines, "    "+quoted(key)+" = "+quoted(tags[key]))
	}
	l.set("tags", expr("{\n"+strings.Join(lines, "\n")+"\n  }"))
	if p.Kind != Serverless {
		for _, g := range p.Groups {
			l.space()
			if g.Key == p.Groups[0].Key {
				l.comment("What CloudWatch calls the nodes. Their names are known beforehand, so that one plan makes them and their alarms.")
			}
			l.set(g.Key+"_nodes", p.nodeNames(g))
		}
	}
	b.space()
}

func (p Plan) nodeNames(g Group) expr {
	if p.Kind == Pair {
		return expr(fmt.Sprintf(`[for i in range(%d) : format("%s-%%03d", i + 1)]`, g.Side.Count, p.id(g)))
	}
	return expr(fmt.Sprintf(`[for i in range(%d) : format("%s-%%04d-%%03d", floor(i / %d) + 1, i %% %d + 1)]`, g.Side.Total(), p.id(g), g.Side.Count, g.Side.Count))
}

func (p Plan) network(b body) {
	if p.Kind != Serverless {
		b.block("resource", "aws_elasticache_subnet_group", "this").set("name", p.Name, "description", "The subnets of "+p.Name,
			"subnet_ids", expr("var.subnet_ids"), "tags", expr("local.tags"))
		b.space()
	}
	s := b.block("resource", "aws_security_group", "this")
	s.set("name", p.Name, "description", "Nodes of "+p.Name+": clients come in, nothing goes out", "vpc_id", expr("var.vpc_id"), "tags", expr("local.tags"))
	b.space()
	ports := []int{6379}
	if p.Kind == Serverless {
		ports = append(ports, 6380) // reads from replicas
	}
	for _, port := range ports {
		name := "clients"
		if port == 6380 {
			name = "readers"
		}
		r := b.block("resource", "aws_vpc_security_group_ingress_rule", name)
		r.set("for_each", expr("var.client_security_group_ids"))
		r.space()
		r.set("security_group_id", expr("aws_security_group.this.id"), "description", expr(`"Valkey from ${each.key}"`), "ip_protocol", "tcp",
			"from_port", port, "to_port", port, "referenced_security_group_id", expr("each.value"), "tags", expr("local.tags"))
		b.space()
	}
}

// key is the KMS key, of the data and of the logs.
func (p Plan) key(b body) {
	b.block("data", "aws_caller_identity", "current")
	b.space()
	b.block("data", "aws_partition", "current")
	b.space()
	if p.Kind != Serverless {
		b.block("data", "aws_region", "current")
		b.space()
	}
	d := b.block("data", "aws_iam_policy_document", "key")
	s := d.block("statement")
	s.set("sid", "Account", "actions", expr(`["kms:*"]`), "resources", expr(`["*"]`))
	s.space()
	s.block("principals").set("type", "AWS", "identifiers", expr(`["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"]`))
	if p.Kind != Serverless {
		d.space()
		s = d.block("statement")
		s.set("sid", "Logs", "actions", expr(`["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]`), "resources", expr(`["*"]`))
		s.space()
		s.block("principals").set("type", "Service", "identifiers", expr(`["logs.${data.aws_region.current.region}.amazonaws.com"]`))
		s.space()
		s.block("condition").set("test", "ArnLike", "variable", "kms:EncryptionContext:aws:logs:arn", "values",
			expr(`["arn:${data.aws_partition.current.partition}:logs:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:log-group:/elasticache/`+p.Name+`/*"]`))
	}
	b.space()
	b.block("resource", "aws_kms_key", "this").set("description", "Data and logs of "+p.Name, "enable_key_rotation", true,
		"policy", expr("data.aws_iam_policy_document.key.json"), "tags", expr("local.tags"))
	b.space()
	b.block("resource", "aws_kms_alias", "this").set("name", "alias/"+p.Name, "target_key_id", expr("aws_kms_key.this.key_id"))
	b.space()
}

func (p Plan) logs(b body) {
	for _, g := range p.Groups {
		for _, kind := range []string{"slow-log", "engine-log"} {
			b.block("resource", "aws_cloudwatch_log_group", g.Key+"_"+label(kind)).set("name", "/elasticache/"+p.Name+"/"+g.Key+"/"+kind,
				"retention_in_days", p.LogDays, "kms_key_id", expr("aws_kms_key.this.arn"), "tags", expr("local.tags"))
			b.space()
		}
	}
}

func (p Plan) users(b body) {
	b.comment("One user for each building block: its own keys and channels, the commands that it sends, and nothing else.")
	for _, g := range p.Groups {
		var ids []string
		for _, block := range g.Blocks {
			name := p.Name + "-" + block.Name
			u := b.block("resource", "aws_elasticache_user", label(block.Name))
			u.set("user_id", name, "user_name", name, "engine", "valkey", "access_string", block.AccessString(p.Prefix, p.Version))
			if p.IAM {
				u.set("tags", expr("local.tags"))
				u.space()
				u.block("authentication_mode").set("type", "iam")
			} else {
				u.set("passwords_wo", expr("var.passwords."+label(block.Name)), "passwords_wo_version", expr("var.passwords_version"), "tags", expr("local.tags"))
			}
			b.space()
			ids = append(ids, "aws_elasticache_user."+label(block.Name)+".user_id")
		}
		b.block("resource", "aws_elasticache_user_group", g.Key).set("user_group_id", p.id(g), "engine", "valkey",
			"user_ids", expr("["+strings.Join(ids, ", ")+"]"), "tags", expr("local.tags"))
		b.space()
	}
}

func per(n float64) string {
	if n == 1 {
		return ""
	}
	return " per " + report.Amount(n)
}

// term says how nodes are paid for, unless on demand.
func term(side cost.FlatSide) string {
	if side.Term == "" || side.Term == cost.OnDemand || side.Kind == cost.Serverless {
		return ""
	}
	return ", " + string(side.Term)
}

// blocksOf names the blocks of a group.
func blocksOf(g Group) string {
	var names []string
	for _, b := range g.Blocks {
		names = append(names, b.Name)
	}
	return strings.Join(names, ", ")
}

// sources are those of the prices that are used.
func (p Plan) sources() string {
	var list []string
	add := func(s cost.Source) {
		if !slices.Contains(list, s.String()) {
			list = append(list, s.String())
		}
	}
	for _, g := range p.Groups {
		if n, err := p.Prices.Node(g.Side.Node); err == nil && p.Kind != Serverless {
			add(n.Source)
		}
	}
	for _, r := range p.Prices.Rates() {
		if p.Kind == Serverless && r.Service == "elasticache_serverless" && strings.HasPrefix(r.Unit, "valkey") {
			add(r.Source)
		}
	}
	return strings.Join(list, "; ")
}

package terraform

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sound is a configuration without a fault. Each mark is where a fault may be put.
const sound = `terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}

resource "aws_elasticache_parameter_group" "p" {
  name   = "p"
  family = "valkey8"

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
  parameter {
    name  = "hash-max-listpack-entries"
    value = "512"
  }
}

# A primary and a replica, one shard.
resource "aws_elasticache_replication_group" "g" {
  replication_group_id       = "g"
  description                = "The shop's locks and queues"
  engine                     = "valkey"
  engine_version             = "8.0"
  node_type                  = "cache.t4g.small"
  num_cache_clusters         = 2
  parameter_group_name       = aws_elasticache_parameter_group.p.name
  at_rest_encryption_enabled = true
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  kms_key_id                 = aws_kms_key.k.arn
  user_group_ids             = [aws_elasticache_user_group.u.user_group_id]

  log_delivery_configuration {
    destination      = aws_cloudwatch_log_group.slow.name
    destination_type = "cloudwatch-logs"
    log_format       = "json"
    log_type         = "slow-log"
  }
}

resource "aws_elasticache_user" "u" {
  user_id       = "u"
  user_name     = "u"
  engine        = "valkey"
  access_string = "on ~shop:lock:* -@all +get"
  authentication_mode {
    type = "iam"
  }
}

resource "aws_elasticache_user_group" "u" {
  user_group_id = "u"
  engine        = "valkey"
  user_ids      = [aws_elasticache_user.u.user_id]
}

resource "aws_kms_key" "k" {
}

resource "aws_cloudwatch_log_group" "slow" {
  name = "slow"
}

resource "aws_cloudwatch_metric_alarm" "evictions" {
  for_each            = toset(["g-001", "g-002"])
  alarm_name          = "evictions-${each.key}"
  namespace           = "AWS/ElastiCache"
  metric_name         = "Evictions"
  comparison_operator = "GreaterThanThreshold"
  evaluation_periods  = 5
  dimensions = {
    CacheClusterId = each.key
    CacheNodeId    = "0001"
  }
}
`

// faults put one fault each into sound.
var faults = []struct{ rule, old, new, line string }{
	{"removed-parameter", "  parameter {\n    name  = \"hash", "  parameter {\n    name  = \"lazyfree-lazy-expire\"\n    value = \"yes\"\n  }\n  parameter {\n    name  = \"hash", `name  = "lazyfree`},
	{"low-limit", `value = "512"`, `value = "128"`, `value = "128"`},
	{"cluster-mode", "  num_cache_clusters", "  # The number of shards.\n  num_cache_clusters", "  num_cache_clusters"},
	{"alarm-dimension", "    CacheClusterId = each.key\n    CacheNodeId    = \"0001\"", "    ReplicationGroupId = aws_elasticache_replication_group.g.id", "ReplicationGroupId"},
	{"auth-token", "  user_group_ids             = [aws_elasticache_user_group.u.user_group_id]", "  auth_token = \"secret\"", "auth_token"},
	{"transit-mode", "  transit_encryption_mode    = \"required\"\n", "", "transit_encryption_enabled"},
	{"undeclared", "resource \"aws_kms_key\" \"k\" {\n}\n", "", "kms_key_id"},
	{"eviction", `"noeviction"`, `"volatile-lru"`, `"volatile-lru"`},
}

func lintText(t *testing.T, text string) Report {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Lint(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rulesOf(r Report) (rules []string) {
	for _, f := range r.Findings {
		rules = append(rules, f.Rule)
	}
	slices.Sort(rules)
	return rules
}

// TestLint gives the linter a configuration without a fault, with each alone, and with all.
func TestLint(t *testing.T) {
	if r := lintText(t, sound); len(r.Findings)+len(r.Unknown)+len(r.Notes) > 0 {
		t.Errorf("without a fault: %+v", r)
	}
	all, want := sound, []string{}
	for _, f := range faults {
		if strings.Count(sound, f.old) != 1 {
			t.Fatalf("%s: not once in it: %q", f.rule, f.old)
		}
		one := strings.Replace(sound, f.old, f.new, 1)
		r := lintText(t, one)
		if got := rulesOf(r); !slices.Equal(got, []string{f.rule}) || len(r.Unknown) > 0 {
			t.Errorf("%s alone: %v %v", f.rule, got, r.Unknown)
			continue
		}
		line := strings.Split(one, "\n")[r.Findings[0].Line-1]
		if !strings.Contains(line, f.line) || r.Findings[0].Reason == "" || r.Findings[0].Fix == "" {
			t.Errorf("%s: line %d is %q: %+v", f.rule, r.Findings[0].Line, line, r.Findings[0])
		}
		all, want = strings.Replace(all, f.old, f.new, 1), append(want, f.rule)
	}
	slices.Sort(want)
	if got := rulesOf(lintText(t, all)); !slices.Equal(got, want) {
		t.Errorf("all: %v, want %v", got, want)
	}
}

// TestLintMore has what is rarer.
func TestLintMore(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string
		want     []string
		unknown  int
	}{
		"ignored":               {`value = "noeviction"`, "value = \"volatile-lfu\" # flatrate:ignore eviction", nil, 0},
		"ignored above":         {`    value = "noeviction"`, "    # flatrate:ignore eviction\n    value = \"volatile-lfu\"", nil, 0},
		"another is not":        {`value = "noeviction"`, "value = \"volatile-lfu\" # flatrate:ignore low-limit", []string{"eviction"}, 0},
		"allkeys with locks":    {`"noeviction"`, `"allkeys-lru"`, []string{"eviction"}, 0},
		"a variable":            {`"noeviction"`, `var.policy`, nil, 1},
		"a local":               {"value = \"noeviction\"\n  }", "value = local.policy\n  }", []string{"eviction"}, 0},
		"plaintext":             {"  transit_encryption_enabled = true\n", "", []string{"plaintext"}, 0},
		"preferred":             {`"required"`, `"preferred"`, []string{"transit-mode"}, 0},
		"nobody signs in":       {"  user_group_ids             = [aws_elasticache_user_group.u.user_group_id]\n", "", []string{"no-auth"}, 0},
		"cluster mode":          {"  num_cache_clusters ", "  cluster_mode = \"enabled\"\n  num_cache_clusters ", []string{"cluster-mode"}, 0},
		"cluster-enabled":       {"  parameter {\n    name  = \"hash", "  parameter {\n    name = \"cluster-enabled\"\n    value = \"yes\"\n  }\n  parameter {\n    name  = \"hash", []string{"cluster-mode"}, 0},
		"shards indeed":         {"  num_cache_clusters         = 2", "  # Two shards.\n  num_node_groups = 2\n  replicas_per_node_group = 1", nil, 0},
		"of another family":     {`"valkey8"`, `"redis7"`, []string{"family"}, 0},
		"of another version":    {`"8.0"`, `"9.0"`, []string{"family"}, 0},
		"the default of Redis":  {"aws_elasticache_parameter_group.p.name", `"default.redis7.cluster.on"`, []string{"cluster-mode", "family"}, 0},
		"the group's own id":    {"CacheClusterId = each.key", "CacheClusterId = aws_elasticache_replication_group.g.id", []string{"alarm-dimension"}, 0},
		"a node's":              {"CacheClusterId = each.key", `CacheClusterId = "${aws_elasticache_replication_group.g.id}-001"`, nil, 0},
		"dimensions somewhere":  {"  dimensions = {\n    CacheClusterId = each.key\n    CacheNodeId    = \"0001\"\n  }", "  dimensions = var.dimensions", nil, 1},
		"no dimensions":         {"  dimensions = {\n    CacheClusterId = each.key\n    CacheNodeId    = \"0001\"\n  }", "", []string{"alarm-dimension"}, 0},
		"a module":              {"resource \"aws_cloudwatch_log_group\" \"slow\" {\n  name = \"slow\"\n}", "module \"redis\" {\n  source = \"cloudposse/elasticache-redis/aws\"\n}", []string{"undeclared"}, 1},
		"dynamic parameters":    {"  parameter {\n    name  = \"hash-max-listpack-entries\"\n    value = \"512\"\n  }", "  dynamic \"parameter\" {\n    for_each = []\n    content {}\n  }", nil, 1},
		"a parameter's name":    {`name  = "hash-max-listpack-entries"`, `name = each.key`, nil, 1},
		"a low set limit":       {"hash-max-listpack-entries", "set-max-intset-entries", nil, 0},
		"of a global group":     {"  engine                     =", "  global_replication_group_id = \"x\"\n  engine                     =", nil, 1},
		"a key of a dimension":  {"CacheNodeId    =", "(var.x)    =", nil, 1},
		"a namespace somewhere": {`"AWS/ElastiCache"`, "var.namespace", nil, 1},
	} {
		text := sound + "\nlocals {\n  policy = \"volatile-lru\"\n}\n"
		if strings.Count(text, c.old) != 1 {
			t.Errorf("%s: %d times in it: %q", name, strings.Count(text, c.old), c.old)
			continue
		}
		r := lintText(t, strings.Replace(text, c.old, c.new, 1))
		if got := rulesOf(r); !slices.Equal(got, c.want) || len(r.Unknown) != c.unknown {
			t.Errorf("%s: %v, want %v; unknown: %v", name, got, c.want, r.Unknown)
		}
	}
}

// TestLintOneFile reads its folder for what is declared there, and reports only of that file.
func TestLintOneFile(t *testing.T) {
	dir := t.TempDir()
	key := "resource \"aws_kms_key\" \"k\" {\n}\n"
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	file := write("main.tf", strings.Replace(sound, key, "", 1))
	if r, err := Lint(file); err != nil || !slices.Equal(rulesOf(r), []string{"undeclared"}) {
		t.Errorf("%v %v", r, err)
	}
	write("key.tf", key+strings.Replace(strings.ReplaceAll(sound[strings.Index(sound, "resource"):], `" "`, `" "other_`), `"noeviction"`, `"volatile-lru"`, 1))
	if r, err := Lint(file); err != nil || len(r.Findings) > 0 {
		t.Errorf("%v %v", r, err)
	}
	if r, err := Lint(dir); err != nil || !slices.Contains(rulesOf(r), "eviction") {
		t.Errorf("%v %v", r, err)
	}
	write("more.tf.json", "{}")
	if r, err := Lint(dir); err != nil || len(r.Notes) != 1 {
		t.Errorf("%v %v", r, err)
	}
}

// TestLintErrors has a file and a line in each error.
func TestLintErrors(t *testing.T) {
	for text, want := range map[string]string{
		"resource \"a\" \"b\" {\n  x = \n}\n":             "main.tf:2:7: ",
		"resource \"google_redis_instance\" \"b\" {\n}\n": "main.tf:1: no ElastiCache in it: google_redis_instance is of the provider google",
		"# nothing\n": "main.tf:1: no ElastiCache in it",
		"terraform {\n  required_providers {\n    aws = {\n      source = \"acme/aws\"\n    }\n  }\n}\n" + sound[9:10]: "main.tf:3: the provider aws is \"acme/aws\"",
		"resource \"aws_elasticache_user\" \"b\" {\n":                                                                  "main.tf:1:",
		"\xff\xfe": "main.tf:1:",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Lint(dir)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := Lint(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no Terraform in it") {
		t.Error(err)
	}
	if _, err := Lint(filepath.Join(t.TempDir(), "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	large := filepath.Join(t.TempDir(), "main.tf")
	if err := os.WriteFile(large, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Lint(large); err == nil || !strings.Contains(err.Error(), "over 1048576 bytes") {
		t.Error(err)
	}
}

// TestNestedTooDeeply holds that no file overflows the stack of what reads it, which would end the process.
func TestNestedTooDeeply(t *testing.T) {
	const group = "resource \"aws_elasticache_replication_group\" \"g\" {\n  engine = "
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"brackets":       {group + strings.Repeat("[", 900_000), false},
		"parentheses":    {group + strings.Repeat("(", 20_000), false},
		"signs":          {group + strings.Repeat("-", 20_000) + "1\n}\n", false},
		"blocks":         {strings.Repeat("a {\n", 20_000), false},
		"templates":      {group + strings.Repeat("\"${", 20_000), false},
		"conditions":     {group + strings.Repeat("a ? b : ", 20_000) + "c\n}\n", false},
		"template ifs":   {group + "\"" + strings.Repeat("%{ if a }", 20_000) + "\"\n}\n", false},
		"operators":      {group + strings.Repeat("1+", 101_000) + "1\n}\n", false},
		"indexes":        {group + "a" + strings.Repeat("[a]", 101_000) + "\n}\n", false},
		"attributes":     {group + "a" + strings.Repeat(".a", 101_000) + "\n}\n", false},
		"fewer of them":  {group + "a" + strings.Repeat(".a", 20_000) + "\n}\n", true},
		"splats":         {group + "a" + strings.Repeat("[*]", 101_000) + "\n}\n", false},
		"splats of dots": {group + "a" + strings.Repeat(".*", 20_000) + "\n}\n", true},
		"fewer":          {group + strings.Repeat("(", 400) + "\"redis\"" + strings.Repeat(")", 400) + "\n}\n", true},
		"many operators": {group + strings.Repeat("1+", 20_000) + "1\n}\n", true},
	} {
		file := filepath.Join(t.TempDir(), "main.tf")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Lint(file)
		_, upErr := Upgrade("main.tf", []byte(c.text), "8.0")
		for _, err := range []error{err, upErr} {
			if deep := err != nil && strings.Contains(err.Error(), "nested too deeply"); deep == c.ok {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

package terraform

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Finding is one thing that is wrong.
type Finding struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Rule     string `json:"rule"`
	Resource string `json:"resource"`
	Reason   string `json:"reason"`
	Fix      string `json:"fix"`
}

// Unknown is what no file says: a variable, a module.
type Unknown struct {
	File string `json:"file"`
	Line int    `json:"line"`
	What string `json:"what"`
}

// Report is what lint has to say. Its lists are never nil.
type Report struct {
	Findings []Finding `json:"findings"`
	Unknown  []Unknown `json:"unknown"`
	Notes    []string  `json:"notes"`
}

// Rules are all rules, with one line on each.
var Rules = []struct{ Name, About string }{
	{"removed-parameter", "a parameter that the family no longer has"},
	{"low-limit", "a limit of small encodings below its default, which needs more memory"},
	{"cluster-mode", "shards that are spoken of, and num_cache_clusters, which makes one"},
	{"alarm-dimension", "an alarm on a dimension that no metric of nodes is published under"},
	{"auth-token", "one password for all, in place of users"},
	{"no-auth", "no password at all"},
	{"plaintext", "connections without TLS"},
	{"transit-mode", "connections that may be without TLS"},
	{"undeclared", "a resource that is named and not there"},
	{"eviction", "a policy that may evict locks, limits, sessions or queues"},
	{"family", "a parameter group for another engine or version"},
}

type linter struct {
	*config
	out Report
}

// Lint reads a file, or all of a folder, and says what is wrong. Errors have the file and the line.
func Lint(path string) (Report, error) {
	c, notes, err := read(path)
	if err != nil {
		return Report{}, err
	}
	if err := c.provider(); err != nil {
		return Report{}, err
	}
	if err := c.holds(); err != nil {
		return Report{}, err
	}
	l := &linter{config: c, out: Report{Findings: []Finding{}, Unknown: []Unknown{}, Notes: append([]string{}, notes...)}}
	for _, b := range c.blocks {
		if b.in.asked {
			l.block(b)
		}
	}
	byPlace := func(af string, al int, bf string, bl int) int {
		return cmp.Or(cmp.Compare(af, bf), cmp.Compare(al, bl))
	}
	slices.SortStableFunc(l.out.Findings, func(a, b Finding) int { return byPlace(a.File, a.Line, b.File, b.Line) })
	slices.SortStableFunc(l.out.Unknown, func(a, b Unknown) int { return byPlace(a.File, a.Line, b.File, b.Line) })
	return l.out, nil
}

func (l *linter) block(b *block) {
	if b.Type == "module" {
		l.out.Unknown = append(l.out.Unknown, Unknown{b.in.name, b.DefRange().Start.Line, "what module." + strings.Join(b.Labels, ".") + " makes: modules are not read"})
		return
	}
	if b.Type != "resource" || len(b.Labels) != 2 {
		return
	}
	switch b.Labels[0] {
	case "aws_elasticache_replication_group":
		l.replicationGroup(b)
	case "aws_elasticache_parameter_group":
		l.parameterGroup(b)
	case "aws_elasticache_cluster":
		l.undeclared(b, b.Body)
	case "aws_elasticache_serverless_cache":
		l.undeclared(b, b.Body)
		if b.Body.Attributes["user_group_id"] == nil {
			l.find(b, b.DefRange().Start.Line, "no-auth", "every client that gets through the network may do everything", "set user_group_id to a group of users")
		}
	case "aws_cloudwatch_metric_alarm":
		l.alarm(b)
	}
}

var ignored = regexp.MustCompile(`flatrate:ignore\s+([a-z-]+)`)

// find reports, unless a comment in that line or the one above says not to.
func (l *linter) find(b *block, line int, rule, reason, fix string) {
	for _, c := range b.in.comments {
		if m := ignored.FindStringSubmatch(c.text); m != nil && m[1] == rule && (c.line == line || c.line == line-1) {
			return
		}
	}
	l.out.Findings = append(l.out.Findings, Finding{b.in.name, line, rule, b.id(), reason, fix})
}

// unknown says that a value can't be known here.
func (l *linter) unknown(b *block, e hclsyntax.Expression, what string) {
	from := "an expression"
	if vars := e.Variables(); len(vars) > 0 {
		from = vars[0].RootName()
		if len(vars[0]) > 1 {
			from = strings.TrimSuffix(traversal(vars[0]), ".")
		}
	}
	l.out.Unknown = append(l.out.Unknown, Unknown{b.in.name, e.Range().Start.Line, fmt.Sprintf("%s of %s: it is %s", what, b.id(), from)})
}

// value is the text of an attribute; known is false, and noted, where it is no literal.
func (l *linter) value(b *block, body *hclsyntax.Body, name string) (text string, line int, known bool) {
	a := body.Attributes[name]
	if a == nil {
		return "", b.DefRange().Start.Line, true
	}
	text, known = l.scalar(a.Expr)
	if !known {
		l.unknown(b, a.Expr, name)
	}
	return text, a.SrcRange.Start.Line, known
}

func (l *linter) parameterGroup(b *block) {
	l.undeclared(b, b.Body)
	family, _, known := l.value(b, b.Body, "family")
	engine, major := familyOf(family)
	for _, p := range b.Body.Blocks {
		if p.Type == "dynamic" {
			l.out.Unknown = append(l.out.Unknown, Unknown{b.in.name, p.DefRange().Start.Line, "the parameters of " + b.id() + ": they are dynamic"})
		}
		if p.Type != "parameter" {
			continue
		}
		name, line, ok := l.value(b, p.Body, "name")
		if !ok {
			continue
		}
		value, valueLine, isKnown := l.value(b, p.Body, "value")
		if since, gone := removed[name]; gone && known && engine == "valkey" && major >= since {
			l.find(b, line, "removed-parameter", fmt.Sprintf("%s has no %s: AWS refuses the group. Valkey %d always frees in the background", family, name, since),
				"remove the parameter")
		}
		if least, limit := limits[name]; limit && isKnown {
			if n, err := strconv.Atoi(value); err == nil && n < least {
				l.find(b, valueLine, "low-limit", fmt.Sprintf("%s = %d is below the default of %d: what has more is kept in tables, which need more memory", name, n, least),
					"remove the parameter")
			}
		}
		if name == "maxmemory-policy" && isKnown {
			l.eviction(b, value, valueLine)
		}
	}
}

// kept are words for what must not be evicted.
var kept = regexp.MustCompile(`(?i)\b(lock|queue|job|stream|session|rate[ -_]?limit|limiter)`)

// eviction judges a policy by what says that it shares the nodes.
func (l *linter) eviction(b *block, policy string, line int) {
	const fix = `noeviction for what must stay, and nodes of their own with allkeys-lru for a cache ("flatrate terraform" makes both). If nothing but a cache is there: # flatrate:ignore eviction`
	switch {
	case strings.HasPrefix(policy, "volatile-"):
		l.find(b, line, "eviction", policy+" evicts keys with a TTL: locks that are held (two holders at a time), counts of limits, sessions", fix)
	case strings.HasPrefix(policy, "allkeys-"):
		if words := l.shares(b); len(words) > 0 {
			l.find(b, line, "eviction", fmt.Sprintf("%s evicts anything, and these nodes are said to hold: %s", policy, strings.Join(words, ", ")), fix)
		}
	}
}

// shares are the words that the groups with these parameters use for what they hold: names, descriptions and users' keys.
func (l *linter) shares(parameters *block) (words []string) {
	add := func(text string) {
		for _, m := range kept.FindAllString(text, -1) {
			if m = strings.ToLower(m); !slices.Contains(words, m) {
				words = append(words, m)
			}
		}
	}
	for _, g := range l.resources("aws_elasticache_replication_group") {
		a := g.Body.Attributes["parameter_group_name"]
		if a == nil || l.config.find(parameters.Labels[0], a.Expr) != parameters {
			continue
		}
		for _, name := range []string{"replication_group_id", "description"} {
			if a := g.Body.Attributes[name]; a != nil {
				text, _ := l.scalar(a.Expr)
				add(text)
			}
		}
		users := g.Body.Attributes["user_group_ids"]
		if users == nil {
			continue
		}
		if group := l.config.find("aws_elasticache_user_group", users.Expr); group != nil && group.Body.Attributes["user_ids"] != nil {
			for _, u := range l.resources("aws_elasticache_user") {
				if slices.Contains(references(group.Body.Attributes["user_ids"].Expr), u.id()) && u.Body.Attributes["access_string"] != nil {
					text, _ := l.scalar(u.Body.Attributes["access_string"].Expr)
					for _, rule := range strings.Fields(text) {
						if strings.HasPrefix(rule, "~") {
							add(strings.NewReplacer(":", " ", "*", " ", "~", " ").Replace(rule))
						}
					}
				}
			}
		}
	}
	return words
}

var (
	shards   = regexp.MustCompile(`(?i)\bshards?\b|\bshard(ed|ing)\b|\bcluster[ -]mode\b|\b(valkey|redis) cluster\b`)
	noShards = regexp.MustCompile(`(?i)\b(one|single|1|no|not|non|without)[ -]shard(s|ed|ing)?\b|\bcluster[ -]mode[ -]?(is )?disabled\b`)
)

func (l *linter) replicationGroup(b *block) {
	l.undeclared(b, b.Body)
	if b.Body.Attributes["global_replication_group_id"] != nil {
		l.out.Unknown = append(l.out.Unknown, Unknown{b.in.name, b.DefRange().Start.Line, "most of " + b.id() + ": its global group decides"})
		return
	}
	l.clusterMode(b)
	l.access(b)
	l.family(b)
}

func (l *linter) clusterMode(b *block) {
	a := b.Body.Attributes["num_cache_clusters"]
	if a == nil || b.Body.Attributes["num_node_groups"] != nil {
		return
	}
	claim := ""
	if mode, _, _ := l.value(b, b.Body, "cluster_mode"); mode == "enabled" {
		claim = "cluster_mode is enabled"
	}
	if p := b.Body.Attributes["parameter_group_name"]; p != nil && claim == "" {
		if name, ok := l.scalar(p.Expr); ok && strings.HasSuffix(name, ".cluster.on") {
			claim = "its parameter group is " + name
		}
		if group := l.config.find("aws_elasticache_parameter_group", p.Expr); group != nil && l.parameter(group, "cluster-enabled") == "yes" {
			claim = "its parameter group has cluster-enabled = yes"
		}
	}
	if claim == "" {
		claim = l.spokenOf(b)
	}
	if claim != "" {
		l.find(b, a.SrcRange.Start.Line, "cluster-mode", claim+", but num_cache_clusters makes one shard: a primary and replicas with the same data",
			"num_node_groups and replicas_per_node_group in place of num_cache_clusters, or no word of shards")
	}
}

// spokenOf is where a description or a comment speaks of shards.
func (l *linter) spokenOf(b *block) string {
	said := func(text string) string { return shards.FindString(noShards.ReplaceAllString(text, "")) }
	if a := b.Body.Attributes["description"]; a != nil {
		if text, ok := l.scalar(a.Expr); ok && said(text) != "" {
			return fmt.Sprintf("the description says %q", said(text))
		}
	}
	first, last := b.DefRange().Start.Line, b.Body.EndRange.Start.Line
	for above := len(b.in.comments) - 1; above >= 0; above-- { // comments right above belong to it
		if b.in.comments[above].line == first-1 {
			first--
		}
	}
	for _, c := range b.in.comments {
		if c.line >= first && c.line <= last && said(c.text) != "" {
			return fmt.Sprintf("the comment in line %d says %q", c.line, said(c.text))
		}
	}
	return ""
}

// parameter is the value of a parameter, "" if it is not there or not known.
func (l *linter) parameter(group *block, name string) string {
	for _, p := range group.Body.Blocks {
		if p.Type != "parameter" || p.Body.Attributes["name"] == nil || p.Body.Attributes["value"] == nil {
			continue
		}
		if n, _ := l.scalar(p.Body.Attributes["name"].Expr); n == name {
			v, _ := l.scalar(p.Body.Attributes["value"].Expr)
			return v
		}
	}
	return ""
}

// access judges who gets in, and how.
func (l *linter) access(b *block) {
	head := b.DefRange().Start.Line
	switch token, users := b.Body.Attributes["auth_token"], b.Body.Attributes["user_group_ids"]; {
	case token != nil && !isNull(token.Expr):
		l.find(b, token.SrcRange.Start.Line, "auth-token", "one password for all clients, with which each may do everything; it is kept in the state",
			"users with rules of their own: aws_elasticache_user, aws_elasticache_user_group and user_group_ids")
	case users == nil || nobody(users.Expr):
		l.find(b, head, "no-auth", "every client that gets through the network may do everything", "set user_group_ids to a group of users")
	}
	encrypted, line, known := l.value(b, b.Body, "transit_encryption_enabled")
	if !known {
		return
	}
	if encrypted != "true" {
		l.find(b, line, "plaintext", "passwords and data cross the network in the clear", `transit_encryption_enabled = true and transit_encryption_mode = "required"`)
		return
	}
	mode, line, known := l.value(b, b.Body, "transit_encryption_mode")
	if b.Body.Attributes["transit_encryption_mode"] == nil {
		line = b.Body.Attributes["transit_encryption_enabled"].SrcRange.Start.Line
	}
	if known && mode != "required" {
		reason := "transit_encryption_mode is not set: nothing here says that clients without TLS are refused"
		if mode != "" {
			reason = fmt.Sprintf("transit_encryption_mode is %q: clients without TLS are let in", mode)
		}
		l.find(b, line, "transit-mode", reason, `transit_encryption_mode = "required"`)
	}
}

// nobody says whether a list of user groups is null or empty.
func nobody(e hclsyntax.Expression) bool {
	list, ok := e.(*hclsyntax.TupleConsExpr)
	return isNull(e) || ok && len(list.Exprs) == 0
}

// family compares engine and version with the parameter group.
func (l *linter) family(b *block) {
	engine, line, known := l.value(b, b.Body, "engine")
	version, _, versionKnown := l.value(b, b.Body, "engine_version")
	a := b.Body.Attributes["parameter_group_name"]
	if !known || !versionKnown || a == nil {
		return
	}
	engine = cmp.Or(engine, "redis")
	family := ""
	if group := l.config.find("aws_elasticache_parameter_group", a.Expr); group != nil && group.Body.Attributes["family"] != nil {
		family, _ = l.scalar(group.Body.Attributes["family"].Expr)
	} else if name, ok := l.scalar(a.Expr); ok {
		if standard, is := strings.CutPrefix(name, "default."); is { // other names say nothing
			family = strings.TrimSuffix(standard, ".cluster.on")
		}
	} else if group == nil && !isNull(a.Expr) && len(references(a.Expr)) == 0 {
		l.unknown(b, a.Expr, "parameter_group_name")
	}
	of, major := familyOf(family)
	if of == "" || of == engine && (version == "" || major == 0 || major == majorOf(version)) {
		return
	}
	want := engine
	if version != "" {
		want += strconv.Itoa(majorOf(version))
	}
	l.find(b, line, "family", fmt.Sprintf("%s %s with the parameter-group family %s: AWS refuses it", engine, version, family), "a parameter group of the family "+want)
}

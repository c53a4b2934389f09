package terraform

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Upgraded is a file with Valkey in place of Redis OSS.
type Upgraded struct {
	Text    []byte
	Changes []string // what applying them does to what is running
	Notes   []string // what can't be known, and what is left to its owner
}

// edit replaces some bytes.
type edit struct {
	start, end int
	text       string
}

type upgrader struct {
	*config
	data  []byte
	in    *source
	to    string
	edits []edit
	out   Upgraded
	wrong error // what can't be put in
}

// Upgrade takes Redis OSS to a version of Valkey in one file. Nothing but that changes: comments, order and formatting stay. What names no
// literal is left as it is, with a note. Errors have the file and the line.
func Upgrade(name string, data []byte, to string) (Upgraded, error) {
	s, err := parse(name, data)
	if err != nil {
		return Upgraded{}, err
	}
	s.asked = true
	u := &upgrader{config: &config{declared: map[string]bool{}, locals: map[string]hclsyntax.Expression{}}, data: data, in: s, to: to}
	u.add(s)
	if err := u.provider(); err != nil {
		return Upgraded{}, err
	}
	if err := u.holds(); err != nil {
		return Upgraded{}, err
	}
	u.all()
	if u.wrong != nil {
		return Upgraded{}, u.wrong
	}
	u.out.Text, err = u.apply(name)
	return u.out, err
}

// ReadFile reads a file to upgrade, of at most 1 MiB.
func ReadFile(path string) ([]byte, error) { return readFile(path) }

// all goes through the file: first the groups, since their parameters follow them.
func (u *upgrader) all() {
	move := map[*block]bool{} // parameter groups that go along, or must not
	for _, b := range u.resources("aws_elasticache_replication_group") {
		group := u.parametersOf(b)
		change := u.canMove(b)
		if group != nil {
			before, seen := move[group]
			move[group] = change && (!seen || before)
		}
	}
	for _, b := range u.resources("aws_elasticache_replication_group") {
		group := u.parametersOf(b)
		switch {
		case !u.canMove(b):
		case group != nil && !move[group]:
			u.note(b, "stays, for it shares "+group.id()+" with what stays: give it a parameter group of its own")
		case group != nil && !u.movable(group):
			u.note(b, "stays, for "+group.id()+" can't be rewritten")
			move[group] = false
		default:
			u.replicationGroup(b, group)
		}
	}
	for _, b := range u.resources("aws_elasticache_parameter_group") {
		if wanted, used := move[b]; (wanted || !used) && u.movable(b) {
			u.parameterGroup(b, used)
		}
	}
	for _, b := range u.resources("aws_elasticache_serverless_cache") {
		u.serverless(b)
	}
	for _, b := range u.resources("aws_elasticache_cluster") {
		if engine, ok := u.literal(b.Body, "engine"); ok && engine == "redis" {
			u.note(b, "stays: Valkey runs in replication groups. Make it an aws_elasticache_replication_group with num_cache_clusters = 1; that replaces the node")
		}
	}
	for _, b := range append(u.resources("aws_elasticache_user"), u.resources("aws_elasticache_user_group")...) {
		if engine, ok := u.literal(b.Body, "engine"); ok && strings.EqualFold(engine, "redis") {
			u.note(b, `may stay: users and their groups of the engine redis work with Valkey too`)
		}
	}
	for _, b := range u.blocks {
		if b.Type == "module" {
			u.note(b, "what a module makes is not known here: look for its engine, engine_version and family")
		}
	}
}

func (u *upgrader) note(b *block, text string) {
	id := b.id()
	if b.Type == "module" {
		id = "module." + id
	}
	line := fmt.Sprintf("%s:%d: %s: %s", b.in.name, b.DefRange().Start.Line, id, text)
	if !slices.Contains(u.out.Notes, line) {
		u.out.Notes = append(u.out.Notes, line)
	}
}

// literal is the text of an attribute that is a plain literal; "" if it is not there. Another expression is not ok.
func (u *upgrader) literal(body *hclsyntax.Body, name string) (string, bool) {
	a := body.Attributes[name]
	if a == nil {
		return "", true
	}
	if len(a.Expr.Variables()) > 0 {
		return "", false
	}
	return u.scalar(a.Expr)
}

// parametersOf is the parameter group in this file that a replication group uses.
func (u *upgrader) parametersOf(b *block) *block {
	if a := b.Body.Attributes["parameter_group_name"]; a != nil {
		return u.find("aws_elasticache_parameter_group", a.Expr)
	}
	return nil
}

// canMove says whether a replication group runs Redis OSS and says so in literals.
func (u *upgrader) canMove(b *block) bool {
	engine, known := u.literal(b.Body, "engine")
	if engine == "valkey" {
		return false
	}
	for _, name := range []string{"engine", "engine_version"} {
		if _, ok := u.literal(b.Body, name); !ok {
			known = false
			u.note(b, fmt.Sprintf("stays, for its %s is no literal but %s: set it where that is set", name, u.text(b.Body.Attributes[name].Expr)))
		}
	}
	if b.Body.Attributes["global_replication_group_id"] != nil {
		u.note(b, "stays: its global group decides on the engine")
		return false
	}
	return known && (engine == "redis" || engine == "")
}

func (u *upgrader) text(e hclsyntax.Expression) string {
	return strings.Join(strings.Fields(string(e.Range().SliceBytes(u.data))), " ")
}

// movable says whether a parameter group is one of Redis OSS that can be rewritten.
func (u *upgrader) movable(b *block) bool {
	family, known := u.literal(b.Body, "family")
	if !known {
		u.note(b, fmt.Sprintf("stays, for its family is no literal but %s", u.text(b.Body.Attributes["family"].Expr)))
		return false
	}
	engine, _ := familyOf(family)
	return engine == "redis"
}

func (u *upgrader) replicationGroup(b *block, group *block) {
	from, _ := u.literal(b.Body, "engine_version")
	u.set(b.Body, "engine", "valkey", "description")
	behind := "engine"
	if b.Body.Attributes[behind] == nil { // then it stands behind the description now
		behind = "description"
	}
	u.set(b.Body, "engine_version", u.to, behind)
	if a := b.Body.Attributes["parameter_group_name"]; a != nil && group == nil {
		name, known := u.literal(b.Body, "parameter_group_name")
		base, onCluster := strings.CutSuffix(name, ".cluster.on")
		switch {
		case known && strings.HasPrefix(base, "default.redis"):
			name = "default." + Family(u.to)
			if onCluster {
				name += ".cluster.on"
			}
			u.replace(a.Expr.Range(), quoted(name))
		case known:
			u.note(b, fmt.Sprintf("its parameter group %q has to be one of the family %s", name, Family(u.to)))
		default:
			u.note(b, fmt.Sprintf("its parameter group, %s, has to be one of the family %s", u.text(a.Expr), Family(u.to)))
		}
	}
	when := "in the next maintenance window"
	if now, _ := u.literal(b.Body, "apply_immediately"); now == "true" {
		when = "at once, for apply_immediately is true"
	}
	u.change(b, fmt.Sprintf("from Redis OSS %sto Valkey %s in place, %s: replicas first, then a failover that refuses writes for some seconds; data and endpoints stay. "+
		"There is no way back in place, but from Valkey 7.2 to Redis OSS 7.1", spaced(from), u.to, when))
}

func spaced(s string) string {
	if s == "" {
		return ""
	}
	return s + " "
}

func (u *upgrader) change(b *block, text string) {
	u.out.Changes = append(u.out.Changes, fmt.Sprintf("%s:%d: %s: %s", b.in.name, b.DefRange().Start.Line, b.id(), text))
}

var redisWord = regexp.MustCompile(`redis-?[0-9]*(\.?[0-9x])*`)

func (u *upgrader) parameterGroup(b *block, used bool) {
	family := Family(u.to)
	u.set(b.Body, "family", family, "name")
	name, known := u.literal(b.Body, "name")
	switch {
	case !known:
		u.note(b, fmt.Sprintf("its name, %s, has to be another one too: AWS refuses two groups of one name, and the old one is in use until the new one is there",
			u.text(b.Body.Attributes["name"].Expr)))
	case !strings.Contains(name, family):
		renamed := redisWord.ReplaceAllString(name, family)
		if renamed == name {
			renamed = name + "-" + family
		}
		u.set(b.Body, "name", renamed, "family")
	}
	for _, p := range b.Body.Blocks {
		if p.Type != "parameter" {
			continue
		}
		parameter, ok := u.literal(p.Body, "name")
		switch newer := strings.Replace(parameter, "-ziplist-", "-listpack-", 1); {
		case !ok:
			u.note(b, "a parameter's name is no literal: whether "+family+" has it is not known")
		case removed[parameter] != 0 && majorOf(u.to) >= removed[parameter]:
			u.remove(p)
		case newer != parameter:
			u.replace(p.Body.Attributes["name"].Expr.Range(), quoted(newer))
		}
	}
	u.makeFirst(b)
	u.change(b, "is replaced: the new group is made first, the nodes go over to it, then the old one is removed. Nothing is lost by that")
	if !used {
		u.note(b, "nothing in this file uses it: what does has to be taken to Valkey with it")
	}
}

// makeFirst makes the new group before the old one goes, which is in use until then.
func (u *upgrader) makeFirst(b *block) {
	for _, inner := range b.Body.Blocks {
		if inner.Type != "lifecycle" {
			continue
		}
		if a := inner.Body.Attributes["create_before_destroy"]; a != nil {
			if first, _ := u.literal(inner.Body, "create_before_destroy"); first != "true" {
				u.replace(a.Expr.Range(), "true")
			}
			return
		}
		indent := u.indent(inner.DefRange())
		first := "\n" + indent + "  create_before_destroy = true"
		if inner.OpenBraceRange.Start.Line != inner.CloseBraceRange.Start.Line {
			u.insert(inner.OpenBraceRange.End.Byte, first)
			return
		}
		// On one line: it is opened, since a block of one line takes one argument.
		from, to := inner.OpenBraceRange.End.Byte, inner.CloseBraceRange.Start.Byte
		if inside := strings.TrimSpace(string(u.data[from:to])); inside != "" {
			first += "\n" + indent + "  " + inside
		}
		u.edits = append(u.edits, edit{from, to, u.newlines(first + "\n" + indent)})
		return
	}
	at := b.Body.EndRange.End.Byte - 1 // the closing brace
	if line := bytes.LastIndexByte(u.data[:at], '\n'); line >= 0 && strings.TrimSpace(string(u.data[line:at])) == "" {
		u.insert(line+1, "\n  lifecycle {\n    create_before_destroy = true\n  }\n")
	}
}

func (u *upgrader) serverless(b *block) {
	engine, known := u.literal(b.Body, "engine")
	switch {
	case !known:
		u.note(b, fmt.Sprintf("stays, for its engine is no literal but %s", u.text(b.Body.Attributes["engine"].Expr)))
	case engine == "redis":
		u.set(b.Body, "engine", "valkey", "name")
		if _, ok := u.literal(b.Body, "major_engine_version"); ok && b.Body.Attributes["major_engine_version"] != nil {
			u.set(b.Body, "major_engine_version", strconv.Itoa(majorOf(u.to)), "engine")
		} else if !ok {
			u.note(b, fmt.Sprintf("its major_engine_version, %s, has to be %d", u.text(b.Body.Attributes["major_engine_version"].Expr), majorOf(u.to)))
		}
		u.change(b, "to Valkey in place, without an interruption; it costs about a third less")
	}
}

// set gives an attribute a string, in its place or on a line of its own behind another one.
func (u *upgrader) set(body *hclsyntax.Body, name, value, behind string) {
	if a := body.Attributes[name]; a != nil {
		if old, _ := u.literal(body, name); old != value {
			u.replace(a.Expr.Range(), quoted(value))
		}
		return
	}
	after := body.Attributes[behind]
	for _, a := range sorted(body.Attributes) {
		after = cmp.Or(after, a)
	}
	if after == nil {
		return
	}
	end := after.SrcRange.End.Byte
	for end < len(u.data) && u.data[end] != '\n' && !bytes.HasPrefix(u.data[end:], []byte("\r\n")) { // a comment may stand behind it
		end++
	}
	rest := strings.TrimSpace(string(u.data[after.SrcRange.End.Byte:end]))
	if rest != "" && rest[0] != '#' && !strings.HasPrefix(rest, "//") && (!strings.HasPrefix(rest, "/*") || !strings.HasSuffix(rest, "*/")) {
		u.wrong = fmt.Errorf("%s:%d: %s can't be put behind this line, for more follows in it: set it by hand; nothing is changed", u.in.name, after.SrcRange.Start.Line, name)
		return
	}
	u.insert(end, "\n"+u.indent(after.SrcRange)+name+" = "+quoted(value))
}

// indent is the white space before what begins in a range.
func (u *upgrader) indent(r hcl.Range) string {
	line := u.data[:r.Start.Byte]
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	return string(line[:len(line)-len(bytes.TrimLeft(line, " \t"))])
}

func (u *upgrader) replace(r hcl.Range, text string) {
	u.edits = append(u.edits, edit{r.Start.Byte, r.End.Byte, text})
}

func (u *upgrader) insert(at int, text string) {
	u.edits = append(u.edits, edit{at, at, u.newlines(text)})
}

// newlines are those of the file.
func (u *upgrader) newlines(text string) string {
	if bytes.Contains(u.data, []byte("\r\n")) {
		return strings.ReplaceAll(text, "\n", "\r\n")
	}
	return text
}

// remove takes out a block with its lines, and one of the empty lines around it.
func (u *upgrader) remove(b *hclsyntax.Block) {
	start, end := b.Range().Start.Byte, b.CloseBraceRange.End.Byte
	for start > 0 && (u.data[start-1] == ' ' || u.data[start-1] == '\t') {
		start--
	}
	for end < len(u.data) && u.data[end] != '\n' && strings.TrimSpace(string(u.data[end])) == "" {
		end++
	}
	if end < len(u.data) && u.data[end] == '\n' {
		end++
	}
	if end < len(u.data) && u.data[end] == '\n' {
		end++
	} else if start > 1 && u.data[start-1] == '\n' && u.data[start-2] == '\n' {
		start--
	}
	u.edits = append(u.edits, edit{start, end, ""})
	for _, c := range u.in.comments {
		if c.line == b.DefRange().Start.Line-1 {
			u.out.Notes = append(u.out.Notes, fmt.Sprintf("%s:%d: the comment above a parameter that is removed stays: %s", u.in.name, c.line, c.text))
		}
	}
}

// apply makes the edits. A file that was formatted stays formatted.
func (u *upgrader) apply(name string) ([]byte, error) {
	slices.SortStableFunc(u.edits, func(a, b edit) int { return cmp.Compare(a.start, b.start) })
	var text []byte
	at := 0
	for _, e := range u.edits {
		if e.start < at {
			continue // inside of what was removed
		}
		text = append(append(text, u.data[at:e.start]...), e.text...)
		at = e.end
	}
	text = append(text, u.data[at:]...)
	if len(u.edits) > 0 && bytes.Equal(hclwrite.Format(u.data), u.data) {
		text = hclwrite.Format(text)
	}
	if _, err := parse(name, text); err != nil {
		return nil, fmt.Errorf("%w: the result can't be read, and is not written", err)
	}
	return text, nil
}

package terraform

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// The most that is read.
const (
	maxFile  = 1 << 20
	maxFiles = 1000
)

// ErrNothing is a file or a folder without ElastiCache in it.
var ErrNothing = errors.New("no ElastiCache in it")

// source is one file.
type source struct {
	name     string
	body     *hclsyntax.Body
	comments []comment
	asked    bool // its findings are wanted; the others are read for what they declare
}

// comment is a line of it.
type comment struct {
	line int
	text string
}

// config is all files together.
type config struct {
	sources  []*source
	blocks   []*block
	declared map[string]bool // "aws_kms_key.this", "data.aws_region.current"
	locals   map[string]hclsyntax.Expression
	partly   bool // a file beside the one that was asked for can't be read
}

// block is a top-level block with where it stands.
type block struct {
	*hclsyntax.Block
	in *source
}

// id is "aws_kms_key.this".
func (b *block) id() string { return strings.Join(b.Labels, ".") }

// readFile reads a file of at most maxFile.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a folder", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: over %d bytes", path, maxFile)
	}
	return data, nil
}

// problem is the first error of a parser, on one line.
func problem(name string, diags hcl.Diagnostics) error {
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		line, column := 1, 1
		if d.Subject != nil {
			line, column = d.Subject.Start.Line, d.Subject.Start.Column
		}
		return fmt.Errorf("%s:%d:%d: %s: %s", name, line, column, d.Summary, strings.Join(strings.Fields(d.Detail), " "))
	}
	return nil
}

// readSource reads and parses a file.
func readSource(name string) (*source, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	return parse(name, data)
}

// parse reads one file's syntax.
func parse(name string, data []byte) (*source, error) {
	tokens, _ := hclsyntax.LexConfig(data, name, hcl.InitialPos)
	if err := shallow(name, tokens); err != nil {
		return nil, err
	}
	f, diags := hclsyntax.ParseConfig(data, name, hcl.InitialPos)
	if err := problem(name, diags); err != nil {
		return nil, err
	}
	s := &source{name: name, body: f.Body.(*hclsyntax.Body)}
	for _, t := range tokens {
		if t.Type == hclsyntax.TokenComment {
			s.comments = append(s.comments, comment{t.Range.Start.Line, strings.TrimSpace(string(t.Bytes))})
		}
	}
	return s, nil
}

// read reads a file with what its folder declares, or a folder.
func read(path string) (*config, []string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	dir, notes := path, []string(nil)
	if !info.IsDir() {
		dir = filepath.Dir(path)
	}
	names, err := filepath.Glob(filepath.Join(globEscape(dir), "*"))
	if err != nil {
		return nil, nil, err
	}
	c := &config{declared: map[string]bool{}, locals: map[string]hclsyntax.Expression{}}
	files := []string{}
	for _, name := range names {
		if name != path && skipped(name) {
			continue
		}
		switch {
		case strings.HasSuffix(name, ".tf.json") || strings.HasSuffix(name, ".tofu.json"):
			c.partly = true
			notes = append(notes, name+": JSON is not read; what it declares is not known, and nothing is reported as undeclared")
		case (strings.HasSuffix(name, ".tf") || strings.HasSuffix(name, ".tofu")) && (info.IsDir() || filepath.Clean(name) != filepath.Clean(path)):
			files = append(files, name)
		}
	}
	if !info.IsDir() {
		files = append(files, path)
	}
	if len(files) == 0 {
		return nil, nil, fmt.Errorf("%s: no Terraform in it: no file ends in .tf or .tofu", path)
	}
	if len(files) > maxFiles {
		return nil, nil, fmt.Errorf("%s: over %d files", path, maxFiles)
	}
	for _, name := range files {
		asked := info.IsDir() || name == path
		s, err := readSource(name)
		switch {
		case err == nil:
			s.asked = asked
			c.add(s)
		case asked:
			return nil, nil, err
		default:
			c.partly = true
			notes = append(notes, fmt.Sprintf("%v; what else it declares is not known, and nothing is reported as undeclared", err))
		}
	}
	return c, notes, nil
}

// skipped says whether Terraform passes over a file of a folder: what editors and archives leave there, and folders.
func skipped(name string) bool {
	info, err := os.Stat(name)
	return strings.HasPrefix(filepath.Base(name), ".") || err == nil && info.IsDir()
}

func globEscape(path string) string {
	return regexp.MustCompile(`[*?\[\\]`).ReplaceAllString(path, `\$0`)
}

// isNull says whether an expression is a literal null: the attribute is then as if it were not there.
func isNull(e hclsyntax.Expression) bool {
	l, ok := e.(*hclsyntax.LiteralValueExpr)
	return ok && l.Val.IsNull()
}

// add takes in the blocks of a file.
func (c *config) add(s *source) {
	c.sources = append(c.sources, s)
	for _, b := range s.body.Blocks {
		c.blocks = append(c.blocks, &block{b, s})
		switch {
		case b.Type == "resource" && len(b.Labels) == 2:
			c.declared[strings.Join(b.Labels, ".")] = true
		case b.Type == "data" && len(b.Labels) == 2:
			c.declared["data."+strings.Join(b.Labels, ".")] = true
		case b.Type == "locals":
			for name, a := range b.Body.Attributes {
				c.locals[name] = a.Expr
			}
		}
	}
}

// resources are those of a type.
func (c *config) resources(kind string) (list []*block) {
	for _, b := range c.blocks {
		if b.Type == "resource" && len(b.Labels) == 2 && b.Labels[0] == kind {
			list = append(list, b)
		}
	}
	return list
}

// find is the resource that an expression refers to, if it is one of a type.
func (c *config) find(kind string, e hclsyntax.Expression) *block {
	for _, name := range references(e) {
		for _, b := range c.resources(kind) {
			if b.id() == name {
				return b
			}
		}
	}
	return nil
}

// references are the resources and data that an expression names.
func references(e hclsyntax.Expression) (names []string) {
	for _, t := range e.Variables() {
		var path []string
		for _, step := range t {
			switch s := step.(type) {
			case hcl.TraverseRoot:
				path = append(path, s.Name)
			case hcl.TraverseAttr:
				path = append(path, s.Name)
			}
		}
		switch {
		case len(path) >= 3 && path[0] == "data":
			names = append(names, strings.Join(path[:3], "."))
		case len(path) >= 2 && strings.HasPrefix(path[0], "aws_"):
			names = append(names, strings.Join(path[:2], "."))
		}
	}
	return names
}

// scalar is the text of a literal, a template of literals or a local that is one.
func (c *config) scalar(e hclsyntax.Expression) (string, bool) {
	return c.resolve(e, 0)
}

func (c *config) resolve(e hclsyntax.Expression, depth int) (string, bool) {
	vars := e.Variables()
	if len(vars) == 1 && depth < 8 && vars[0].RootName() == "local" && len(vars[0]) == 2 {
		if attr, ok := vars[0][1].(hcl.TraverseAttr); ok {
			if _, whole := e.(*hclsyntax.ScopeTraversalExpr); whole && c.locals[attr.Name] != nil {
				return c.resolve(c.locals[attr.Name], depth+1)
			}
		}
	}
	if len(vars) > 0 || !plain(e) {
		return "", false
	}
	v, diags := e.Value(nil)
	if diags.HasErrors() || !v.IsWhollyKnown() || v.IsNull() {
		return "", false
	}
	switch v.Type() {
	case cty.String:
		return v.AsString(), true
	case cty.Bool:
		if v.True() {
			return "true", true
		}
		return "false", true
	case cty.Number:
		return v.AsBigFloat().Text('f', -1), true
	}
	return "", false
}

// elastiCache are the resources that are looked at.
var elastiCache = []string{"aws_elasticache_replication_group", "aws_elasticache_serverless_cache", "aws_elasticache_cluster", "aws_elasticache_parameter_group",
	"aws_elasticache_user", "aws_elasticache_user_group"}

// foreign are resources of other providers that do the same.
var foreign = regexp.MustCompile(`(?i)redis|valkey|memorystore|cache|memorydb`)

// holds says whether there is ElastiCache in the files that were asked for, or a module that may make it.
func (c *config) holds() error {
	var other *block
	first := ""
	for _, b := range c.blocks {
		if !b.in.asked {
			continue
		}
		if first == "" {
			first = b.in.name
		}
		switch {
		case b.Type == "module":
			return nil
		case b.Type == "resource" && len(b.Labels) == 2 && (slices.Contains(elastiCache, b.Labels[0]) || b.Labels[0] == "aws_cloudwatch_metric_alarm"):
			return nil
		case b.Type == "resource" && len(b.Labels) == 2 && !strings.HasPrefix(b.Labels[0], "aws_") && (other == nil || foreign.MatchString(b.Labels[0]) && !foreign.MatchString(other.Labels[0])):
			other = b
		}
	}
	for _, s := range c.sources {
		if s.asked && first == "" {
			first = s.name
		}
	}
	if other != nil {
		provider, _, _ := strings.Cut(other.Labels[0], "_")
		return fmt.Errorf("%s:%d: %w: %s is of the provider %s, and only aws is known here", other.in.name, other.DefRange().Start.Line, ErrNothing, other.Labels[0], provider)
	}
	return fmt.Errorf("%s:1: %w", first, ErrNothing)
}

// provider refuses a provider aws that is not AWS's.
func (c *config) provider() error {
	for _, b := range c.blocks {
		if b.Type != "terraform" {
			continue
		}
		for _, inner := range b.Body.Blocks {
			if inner.Type != "required_providers" || inner.Body.Attributes["aws"] == nil {
				continue
			}
			if !plain(inner.Body.Attributes["aws"].Expr) {
				continue
			}
			v, diags := inner.Body.Attributes["aws"].Expr.Value(nil)
			if diags.HasErrors() || !v.Type().IsObjectType() || !v.Type().HasAttribute("source") {
				continue
			}
			from := v.GetAttr("source")
			if from.Type() == cty.String && from.IsKnown() && !from.IsNull() {
				if s := from.AsString(); s != "hashicorp/aws" && !strings.HasSuffix(s, "/hashicorp/aws") && !strings.HasSuffix(s, "opentofu/aws") {
					return fmt.Errorf("%s:%d: the provider aws is %q, which is not known here; only hashicorp/aws is", b.in.name,
						inner.Body.Attributes["aws"].SrcRange.Start.Line, s)
				}
			}
		}
	}
	return nil
}

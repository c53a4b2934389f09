package terraform

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// alarm judges the dimensions of an alarm, and of the metrics of its queries.
func (l *linter) alarm(b *block) {
	bodies := []*hclsyntax.Body{b.Body}
	for _, query := range b.Body.Blocks {
		if query.Type != "metric_query" {
			continue
		}
		for _, metric := range query.Body.Blocks {
			if metric.Type == "metric" {
				bodies = append(bodies, metric.Body)
			}
		}
	}
	for _, body := range bodies {
		a := body.Attributes["namespace"]
		if a == nil {
			continue
		}
		if namespace, known := l.scalar(a.Expr); !known {
			l.unknown(b, a.Expr, "namespace")
		} else if namespace == "AWS/ElastiCache" {
			l.undeclared(b, body)
			l.dimensions(b, body)
		}
	}
}

func (l *linter) dimensions(b *block, body *hclsyntax.Body) {
	a := body.Attributes["dimensions"]
	if a == nil {
		l.find(b, b.DefRange().Start.Line, "alarm-dimension", "an alarm without dimensions is of all nodes of the account together", perNode)
		return
	}
	object, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		l.unknown(b, a.Expr, "dimensions")
		return
	}
	if m := body.Attributes["metric_name"]; m != nil {
		if metric, _ := l.scalar(m.Expr); strings.HasPrefix(metric, "Global") {
			return // of global groups
		}
	}
	for _, item := range object.Items {
		key, ok := l.key(item.KeyExpr)
		line := item.KeyExpr.Range().Start.Line
		switch {
		case !ok:
			l.unknown(b, item.KeyExpr, "a dimension")
		case key == "ReplicationGroupId":
			l.find(b, line, "alarm-dimension", "metrics of nodes are published under CacheClusterId and CacheNodeId, none of them under ReplicationGroupId: it never fires", perNode)
		case key == "CacheClusterId" && (groupID(item.ValueExpr) || l.namesGroup(item.ValueExpr)):
			l.find(b, line, "alarm-dimension", "CacheClusterId is the name of a node, as NAME-001, and not that of the group: it never fires", perNode)
		}
	}
}

const perNode = `for_each over the nodes, with dimensions = { CacheClusterId = "NAME-001", CacheNodeId = "0001" } and so on`

// key is that of an object: a bare word or a literal.
func (l *linter) key(e hclsyntax.Expression) (string, bool) {
	if wrapped, ok := e.(*hclsyntax.ObjectConsKeyExpr); ok {
		if word := hcl.ExprAsKeyword(wrapped.Wrapped); word != "" {
			return word, true
		}
		e = wrapped.Wrapped
	}
	return l.scalar(e)
}

// groupID says whether an expression is the id of a replication group and nothing more.
func groupID(e hclsyntax.Expression) bool {
	if t, ok := e.(*hclsyntax.TemplateWrapExpr); ok {
		e = t.Wrapped
	}
	t, ok := e.(*hclsyntax.ScopeTraversalExpr)
	if !ok || t.Traversal.RootName() != "aws_elasticache_replication_group" {
		return false
	}
	last, ok := t.Traversal[len(t.Traversal)-1].(hcl.TraverseAttr)
	return ok && (last.Name == "id" || last.Name == "replication_group_id")
}

// namesGroup says whether an expression is the literal name of a replication group that is declared here.
func (l *linter) namesGroup(e hclsyntax.Expression) bool {
	name, ok := l.scalar(e)
	return ok && name != "" && slices.ContainsFunc(l.resources("aws_elasticache_replication_group"), func(g *block) bool {
		id := g.Body.Attributes["replication_group_id"]
		if id == nil {
			return false
		}
		text, known := l.scalar(id.Expr)
		return known && text == name
	})
}

// undeclared reports what a resource names and nobody declares.
func (l *linter) undeclared(b *block, body *hclsyntax.Body) {
	for _, a := range sorted(body.Attributes) {
		for _, name := range references(a.Expr) {
			if !l.declared[name] && !l.partly {
				l.find(b, a.SrcRange.Start.Line, "undeclared", fmt.Sprintf("%s refers to %s, which is not declared", a.Name, name), "declare it, or name what is there")
			}
		}
	}
	for _, inner := range body.Blocks {
		l.undeclared(b, inner.Body)
	}
}

// sorted are attributes from top to bottom.
func sorted(attrs hclsyntax.Attributes) []*hclsyntax.Attribute {
	var list []*hclsyntax.Attribute
	for _, a := range attrs {
		list = append(list, a)
	}
	for i := range list {
		for j := i; j > 0 && list[j].SrcRange.Start.Byte < list[j-1].SrcRange.Start.Byte; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
	return list
}

// traversal is how a reference is written.
func traversal(t hcl.Traversal) string {
	text := t.RootName()
	for _, step := range t[1:] {
		attr, ok := step.(hcl.TraverseAttr)
		if !ok {
			break
		}
		text += "." + attr.Name
	}
	return text
}

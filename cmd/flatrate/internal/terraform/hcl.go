package terraform

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// expr is an expression in HCL; a plain string is a literal.
type expr string

// body is what attributes and blocks are appended to.
type body struct{ *hclwrite.Body }

// comment appends lines that begin with "# ".
func (b body) comment(lines ...string) {
	for _, line := range lines {
		text := strings.TrimRight("# "+line, " ") + "\n"
		b.AppendUnstructuredTokens(hclwrite.Tokens{{Type: hclsyntax.TokenComment, Bytes: []byte(text)}})
	}
}

// space appends an empty line.
func (b body) space() { b.AppendNewline() }

// set appends attributes: name, value, name, value.
func (b body) set(pairs ...any) {
	for i := 0; i+1 < len(pairs); i += 2 {
		name := pairs[i].(string)
		switch v := pairs[i+1].(type) {
		case expr:
			b.SetAttributeRaw(name, tokens(string(v)))
		case string:
			b.SetAttributeValue(name, cty.StringVal(v))
		case int:
			b.SetAttributeValue(name, cty.NumberIntVal(int64(v)))
		case bool:
			b.SetAttributeValue(name, cty.BoolVal(v))
		default:
			panic(fmt.Sprintf("%s: %T", name, v)) // a mistake in this package, which every golden file would show
		}
	}
}

// block appends a block, behind an empty line unless it is the first thing in its parent.
func (b body) block(kind string, labels ...string) body {
	return body{b.AppendNewBlock(kind, labels).Body()}
}

// tokens are those of an expression that this package wrote.
func tokens(source string) hclwrite.Tokens {
	f, diags := hclwrite.ParseConfig([]byte("x = "+source+"\n"), "", hcl.InitialPos)
	if diags.HasErrors() {
		panic(source + ": " + diags.Error()) // as above
	}
	return f.Body().GetAttribute("x").Expr().BuildTokens(nil)
}

// quoted is a string literal in HCL.
func quoted(s string) string {
	return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes())
}

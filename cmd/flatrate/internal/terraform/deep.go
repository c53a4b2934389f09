package terraform

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// The parser and what goes through its trees are recursive, and a stack that overflows ends the process. So the tokens, which are not, are
// counted first. No file that people write comes near.
const (
	maxDepth = 500     // brackets, strings and templates in each other, signs in a row
	maxNests = 5000    // in a file: "?" and "%{", which nest without a closing bracket
	maxChain = 100_000 // in a file: operators, dots and "[", which make trees as deep as they are many
)

// shallow refuses what is nested so deeply that it can't be read.
func shallow(name string, tokens hclsyntax.Tokens) error {
	depth, signs, nests, chain := 0, 0, 0, 0
	for _, t := range tokens {
		if t.Type == hclsyntax.TokenMinus || t.Type == hclsyntax.TokenBang {
			signs++
		} else {
			signs = 0
		}
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOParen, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp:
			depth++
		case hclsyntax.TokenOBrack:
			depth, chain = depth+1, chain+1
		case hclsyntax.TokenTemplateControl:
			depth, nests = depth+1, nests+1
		case hclsyntax.TokenCBrace, hclsyntax.TokenCParen, hclsyntax.TokenCBrack, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			depth--
		case hclsyntax.TokenQuestion:
			nests++
		case hclsyntax.TokenPlus, hclsyntax.TokenMinus, hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPercent, hclsyntax.TokenAnd,
			hclsyntax.TokenOr, hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq,
			hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenDot:
			chain++
		}
		if depth > maxDepth || signs > maxDepth || nests > maxNests || chain > maxChain {
			return tooDeep(name, t.Range)
		}
	}
	return nil
}

// plain says whether an expression is made of literals alone: those are evaluated. Loops, functions and arithmetic are not, since a short
// file can ask for more of them than ever ends, nor numbers that are longer in digits than in the file.
func plain(e hclsyntax.Expression) bool {
	ok := true
	_ = hclsyntax.VisitAll(e, func(n hclsyntax.Node) hcl.Diagnostics {
		switch n := n.(type) {
		case *hclsyntax.LiteralValueExpr:
			if n.Val.Type() == cty.Number && !n.Val.IsNull() {
				exponent := n.Val.AsBigFloat().MantExp(nil)
				ok = ok && exponent > -1024 && exponent < 1024
			}
		case *hclsyntax.TemplateExpr, *hclsyntax.TemplateWrapExpr, *hclsyntax.ParenthesesExpr, *hclsyntax.UnaryOpExpr, *hclsyntax.ObjectConsExpr,
			*hclsyntax.ObjectConsKeyExpr, *hclsyntax.TupleConsExpr, hclsyntax.ChildScope:
		default:
			ok = false
		}
		return nil
	})
	return ok
}

func tooDeep(name string, r hcl.Range) error {
	return fmt.Errorf("%s:%d:%d: nested too deeply, or too many operators in one file, to be read", name, r.Start.Line, r.Start.Column)
}

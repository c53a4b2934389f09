package terraform

import (
	"fmt"
	"strings"
	"testing"
)

// TestEvaluationEnds gives short files that would take for ever to evaluate: 2 to the 60th values, and a number of a hundred million digits.
func TestEvaluationEnds(t *testing.T) {
	loops := "1"
	for i := range 60 {
		loops = fmt.Sprintf("[for v%d in [1, 2] : %s]", i, loops)
	}
	for _, value := range []string{loops, "1e99999999", `"${1e99999999}"`, "-1e99999999", "1e-99999999"} {
		text := "terraform {\n  required_providers {\n    aws = " + loops + "\n  }\n}\n" + strings.Replace(sound, `"512"`, value, 1)
		if r := lintText(t, text); len(r.Findings) > 0 || len(r.Unknown) != 1 {
			t.Errorf("%.30s: %v %v", value, r.Findings, r.Unknown)
		}
		if _, err := Upgrade("main.tf", []byte(strings.Replace(text, `"valkey8"`, value, 1)), "8.0"); err != nil {
			t.Errorf("%.30s: %v", value, err)
		}
	}
}

package terraform

import (
	"strings"
	"testing"
)

// TestUpgradeLifecycleOnOneLine opens a block of one line, which takes one argument alone.
func TestUpgradeLifecycleOnOneLine(t *testing.T) {
	for _, newline := range []string{"\n", "\r\n"} {
		for inside, want := range map[string]string{"{ ignore_changes = [description] }": "    ignore_changes        = [description]\n", "{}": "", "{ }": ""} {
			const text = "resource \"aws_elasticache_parameter_group\" \"p\" {\n  name   = \"p\"\n  family = \"redis7\"\n  lifecycle {}\n}\n"
			file := strings.ReplaceAll(strings.Replace(text, "{}", inside, 1), "\n", newline)
			got, err := Upgrade("main.tf", []byte(file), "8.0")
			lifecycle := strings.ReplaceAll("  lifecycle {\n    create_before_destroy = true\n"+want+"  }\n}\n", "\n", newline)
			if err != nil || !strings.HasSuffix(string(got.Text), lifecycle) {
				t.Errorf("%q: %v\n%s", file, err, got.Text)
			}
		}
	}
}

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

// TestUpgradeInsertsNowhereElse refuses to put an attribute into a comment, or behind the block.
func TestUpgradeInsertsNowhereElse(t *testing.T) {
	const head = "resource \"aws_elasticache_replication_group\" \"g\" {"
	for text, line := range map[string]string{
		head + "\n  engine = \"redis\" /* a\n  b */\n}\n":         "main.tf:2:",
		head + " description = \"x\" }\n":                         "main.tf:1:",
		head + "\n  engine = \"redis\" /* a */\n}\n":              "",
		head + "\n  engine = \"redis\" // a }\n}\n":               "",
		head + "\n  description = <<-T\n    text\n  T\n}\n":       "",
		head + "\n  description = <<-T\r\n    text\r\n  T\r\n}\n": "",
	} {
		got, err := Upgrade("main.tf", []byte(text), "8.0")
		if line == "" && (err != nil || !strings.HasSuffix(string(got.Text), "engine_version = \"8.0\"\n}\n") && !strings.HasSuffix(string(got.Text), "engine_version = \"8.0\"\r\n}\n")) || line != "" && (err == nil || !strings.HasPrefix(err.Error(), line)) {
			t.Errorf("%q: %v\n%s", text, err, got.Text)
		}
	}
}

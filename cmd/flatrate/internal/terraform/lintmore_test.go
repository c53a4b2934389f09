package terraform

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLintFalsePositives has configurations without a fault that once had findings, and TestLintMore's opposite.
func TestLintFalsePositives(t *testing.T) {
	const users, parameters = "  user_group_ids             = [aws_elasticache_user_group.u.user_group_id]\n", "aws_elasticache_parameter_group.p.name"
	for name, c := range map[string]struct {
		old, new string
		want     []string
		unknown  int
	}{
		"a group that is called redis": {parameters, `"redis-of-old"`, nil, 0},
		"a default of Redis":           {parameters, `"default.redis7"`, []string{"family"}, 0},
		"a group somewhere":            {parameters, "var.group", nil, 1},
		"a token that is null":         {users, users + "  auth_token = null\n", nil, 0},
		"users that are null":          {users, "  user_group_ids = null\n", []string{"no-auth"}, 0},
		"no users":                     {users, "  user_group_ids = []\n", []string{"no-auth"}, 0},
		"a single shard":               {"  num_cache_clusters", "  # A single-shard group, not sharded.\n  num_cache_clusters", nil, 0},
		"the group's literal name":     {"CacheClusterId = each.key", `CacheClusterId = "g"`, []string{"alarm-dimension"}, 0},
		"a node's literal name":        {"CacheClusterId = each.key", `CacheClusterId = "g-001"`, nil, 0},
	} {
		if strings.Count(sound, c.old) != 1 {
			t.Errorf("%s: %d times in it: %q", name, strings.Count(sound, c.old), c.old)
			continue
		}
		r := lintText(t, strings.Replace(sound, c.old, c.new, 1))
		if got := rulesOf(r); !slices.Equal(got, c.want) || len(r.Unknown) != c.unknown {
			t.Errorf("%s: %v, want %v; unknown: %v", name, got, c.want, r.Unknown)
		}
	}
}

// TestLintFolder has what lies in a folder beside Terraform: what editors leave there, folders, and JSON, which may declare what is named.
func TestLintFolder(t *testing.T) {
	dir := t.TempDir()
	text := strings.Replace(sound, "resource \"aws_kms_key\" \"k\" {\n}\n", "", 1)
	for name, data := range map[string]string{"main.tf": text, "._main.tf": "\x00\x05\x16", "key.tf.json": `{"resource":{"aws_kms_key":{"k":{}}}}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("someone@host.1", filepath.Join(dir, ".#main.tf")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "modules.tf"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "main.tf")} {
		if r, err := Lint(path); err != nil || len(r.Findings) > 0 || len(r.Notes) != 1 {
			t.Errorf("%s: %v %v %v", path, r.Findings, r.Notes, err)
		}
	}
}

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tofu is OpenTofu or Terraform: TOFU names it, else it is looked up.
func tofu(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("TOFU"), "tofu", "terraform"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("neither tofu nor terraform is on the PATH: sh tools/opentofu.sh DIR builds it, and TOFU names it")
	return ""
}

// built builds a program of this repository.
func built(t *testing.T, dir, folder, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, folder)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// TestTerraformValidates gives what flatrate terraform writes to OpenTofu's formatter and validator, with the AWS provider's schema. Then it
// spoils a configuration, to see that the schema is one.
func TestTerraformValidates(t *testing.T) {
	schema := os.Getenv("FLATRATE_TERRAFORM_SCHEMA")
	if schema == "" {
		t.Skip("FLATRATE_TERRAFORM_SCHEMA is not set: make terraform-check")
	}
	program := tofu(t)
	schema, err := filepath.Abs(schema)
	if err != nil {
		t.Fatal(err)
	}
	flatrate := built(t, "../../cmd/flatrate", ".", "flatrate")
	provider := built(t, ".", "./awsschema", "terraform-provider-aws")
	rc := filepath.Join(t.TempDir(), "tofurc")
	text := fmt.Sprintf("provider_installation {\n  dev_overrides {\n    \"hashicorp/aws\" = %q\n  }\n  direct {}\n}\n", filepath.Dir(provider))
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "TF_CLI_CONFIG_FILE="+rc, "FLATRATE_TERRAFORM_SCHEMA="+schema, "CHECKPOINT_DISABLE=1")
	run := func(dir string, args ...string) []byte {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir, cmd.Env = dir, env
		var problems bytes.Buffer
		cmd.Stderr = &problems
		out, err := cmd.Output()
		if err != nil && len(out) == 0 {
			t.Fatalf("%v: %v\n%s", args, err, problems.Bytes())
		}
		return out
	}
	valid := func(dir string) (bool, string) {
		var answer struct {
			Valid       bool
			Diagnostics []struct{ Severity, Summary, Detail string }
		}
		if out := run(dir, program, "validate", "-json"); json.Unmarshal(out, &answer) != nil {
			t.Fatalf("no JSON: %s", out)
		}
		why := ""
		for _, d := range answer.Diagnostics {
			if d.Severity == "error" {
				why += d.Summary + ": " + d.Detail + "\n"
			}
		}
		return answer.Valid, why
	}
	var some string
	checked := 0
	for _, preset := range []string{"sessions", "article"} {
		for _, kind := range []string{"pair", "cluster", "serverless", "durable"} {
			for _, auth := range []string{"password", "iam"} {
				dir := t.TempDir()
				config := run(dir, flatrate, "terraform", "--shipped-prices", "--preset", preset, "--layout", kind, "--auth", auth)
				if err := os.WriteFile(filepath.Join(dir, "main.tf"), config, 0o600); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				format := exec.CommandContext(ctx, program, "fmt", "-check", "-diff")
				format.Dir, format.Env = dir, env
				if out, err := format.Output(); err != nil {
					t.Errorf("%s %s %s is not formatted: %v\n%s", preset, kind, auth, err, out)
				}
				cancel()
				if ok, why := valid(dir); !ok {
					t.Errorf("%s %s %s is not valid:\n%s", preset, kind, auth, why)
				}
				checked++
				if kind == "durable" && auth == "password" {
					some = string(config)
				}
			}
		}
	}
	for name, spoil := range map[string][2]string{
		"an attribute that is not there":      {"  automatic_failover_enabled", "  automatic_failover"},
		"without what is required":            {"  replication_group_id = \"flatrate-data\"\n", ""},
		"without what is required, once more": {"  family      = \"valkey9\"\n", ""},
		"a list where there is none":          {"transit_encryption_mode    = \"required\"", "transit_encryption_mode = [\"required\"]"},
		"a block that is not there":           {"  log_delivery_configuration {", "  log_delivery {"},
		"without a block's attribute":         {"    destination_type = \"cloudwatch-logs\"\n", ""},
		"a resource that is not there":        {"aws_kms_key.this.arn", "aws_kms_key.that.arn"},
		"an attribute of another kind":        {"aws_kms_key.this.arn", "aws_kms_key.this.endpoint"},
	} {
		if !strings.Contains(some, spoil[0]) {
			t.Errorf("%s: nothing to spoil: %s", name, spoil[0])
			continue
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(strings.Replace(some, spoil[0], spoil[1], 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if ok, _ := valid(dir); ok {
			t.Errorf("%s is valid", name)
		}
	}
	t.Logf("%d configurations are formatted and valid: %s", checked, program)
}

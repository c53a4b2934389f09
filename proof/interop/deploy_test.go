package interop

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3" // the types that envoy.yaml names
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/encoding/protojson"
)

// asJSON reads a YAML file of deploy/.
func asJSON(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", file))
	if err != nil {
		t.Fatal(err)
	}
	var value map[string]any
	if err := yaml.Unmarshal(text, &value); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestEnvoyFile reads envoy.yaml with Envoy's own types, which know no other fields, and holds it to their rules.
func TestEnvoyFile(t *testing.T) {
	var bootstrap bootstrappb.Bootstrap
	if err := protojson.Unmarshal(asJSON(t, "envoy.yaml"), &bootstrap); err != nil {
		t.Fatal(err)
	}
	if err := bootstrap.ValidateAll(); err != nil {
		t.Error(err)
	}
	if n := len(bootstrap.GetStaticResources().GetClusters()); n != 2 {
		t.Errorf("%d clusters", n)
	}
	wrong := strings.Replace(string(asJSON(t, "envoy.yaml")), "failure_mode_deny", "failure_mode_denied", 1)
	if err := protojson.Unmarshal([]byte(wrong), &bootstrap); err == nil {
		t.Error("a field that there is not was read")
	}
}

func TestTraefikFile(t *testing.T) {
	var file struct {
		HTTP struct {
			Middlewares map[string]struct {
				ForwardAuth struct{ Address string }
			}
			Routers map[string]struct {
				Middlewares []string
				Service     string
			}
			Services map[string]any
		}
	}
	if err := json.Unmarshal(asJSON(t, "traefik.yml"), &file); err != nil {
		t.Fatal(err)
	}
	router := file.HTTP.Routers["web"]
	if len(router.Middlewares) != 1 || file.HTTP.Services[router.Service] == nil ||
		!strings.HasSuffix(file.HTTP.Middlewares[router.Middlewares[0]].ForwardAuth.Address, "/v1/ratelimit/auth?plan=api") {
		t.Errorf("%+v", file)
	}
}

// TestSystemdUnit lets systemd read the unit, with a program that there is.
func TestSystemdUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze")
	}
	text, err := os.ReadFile("../../deploy/flatrate.service")
	if err != nil {
		t.Fatal(err)
	}
	verify := func(text string) string {
		path := filepath.Join(t.TempDir(), "flatrate.service")
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "/usr/local/bin/flatrate", "/bin/true")), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", path).CombinedOutput()
		if err != nil && len(out) == 0 {
			t.Fatal(err)
		}
		return string(out)
	}
	if out := verify(string(text)); strings.Contains(out, "flatrate.service") {
		t.Error(out)
	}
	if out := verify(strings.Replace(string(text), "ProtectSystem", "ProtectSystems", 1)); !strings.Contains(out, "ProtectSystems") {
		t.Errorf("systemd reads anything: %s", out)
	}
}

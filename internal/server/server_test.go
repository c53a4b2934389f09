package server

import (
	"strconv"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

func TestProbe(t *testing.T) {
	valkeytest.Each(t, func(t *testing.T, env valkeytest.Env) {
		info, err := Probe(t.Context(), env.Client, "get", "SPUBLISH", "NOSUCHCOMMAND")
		if err != nil {
			t.Fatal(err)
		}
		if info.Kind == "" || !info.Version.AtLeast(7, 0) || info.Eviction != "noeviction" {
			t.Errorf("got %+v", info)
		}
		if want := env.Client.Mode() == valkey.ClientModeCluster; info.Cluster != want || info.ClusterDown {
			t.Errorf("cluster %v, down %v, want %v", info.Cluster, info.ClusterDown, want)
		}
		if !info.Has("GET") || !info.Has("spublish") || info.Has("nosuchcommand") || info.Has("set") {
			t.Errorf("commands %v", info.commands)
		}
	})
}

func TestKinds(t *testing.T) {
	for binary, kind := range map[string]string{valkeytest.Valkey: "valkey", valkeytest.Redis: "redis"} {
		s := valkeytest.StartWith(t, valkeytest.Config{Binary: binary})
		info, err := Probe(t.Context(), s.Client())
		if err != nil || info.Kind != kind || info.Has("get") {
			t.Errorf("%s: %+v, %v", binary, info, err)
		}
	}
}

// A user who may call almost nothing, and an engine that knows neither INFO nor COMMAND INFO, look
// alike: errors in place of answers.
func TestProbeOfASilentServerIsUnknown(t *testing.T) {
	s := valkeytest.Start(t)
	c := s.Client()
	err := c.Do(t.Context(), c.B().Arbitrary("ACL", "SETUSER", "default", "-@all", "+get").Build()).Error()
	if err != nil {
		t.Fatal(err)
	}
	info, err := Probe(t.Context(), c, "get")
	if err != nil || info.Kind != "" || info.Version != (Version{}) || info.Eviction != "" || info.Has("get") {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestProbeSkipsADeadNode(t *testing.T) {
	nodes := valkeytest.Cluster(t, 3)
	c := nodes.Client()
	nodes.Servers[0].Kill()
	for range 10 { // the order of the nodes is random
		if info, err := Probe(t.Context(), c); err != nil || !info.Cluster {
			t.Fatalf("%+v, %v", info, err)
		}
	}
}

func TestProbeOfADeadServerFails(t *testing.T) {
	s := valkeytest.Start(t)
	c := s.Client()
	s.Kill()
	if info, err := Probe(t.Context(), c, "get"); err == nil {
		t.Fatalf("got %+v from a dead server", info)
	} else if _, ok := valkey.IsValkeyErr(err); ok {
		t.Fatalf("not a network error: %v", err)
	}
}

func TestProbeOfAClusterThatIsDown(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Args: []string{
		"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(valkeytest.FreePort(t))}})
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if info, err := Probe(t.Context(), c); err != nil || !info.Cluster || !info.ClusterDown {
		t.Errorf("a cluster without slots: %+v, %v", info, err)
	}
}

func TestVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"8.0.1": {8, 0, 1}, "7.4": {7, 4, 0}, "9.0.0-rc1": {9, 0, 0}, "9.1-dev.3": {9, 1, 0}, "6": {6, 0, 0},
		"": {}, "x.1": {}, "8.x.3": {8, 0, 0}, "99999999999999999999.1": {},
	} {
		if got := parseVersion(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
	v := Version{7, 2, 4}
	if !v.AtLeast(7, 2) || !v.AtLeast(6, 9) || v.AtLeast(7, 3) || v.AtLeast(8, 0) || (Version{}).AtLeast(1, 0) {
		t.Error("AtLeast")
	}
	if v.String() != "7.2.4" || (Version{}).String() != "unknown" {
		t.Error("String")
	}
}

func FuzzParseInfo(f *testing.F) {
	f.Add("# Server\r\nredis_version:7.2.4\r\nvalkey_version:8.0.1\r\nredis_mode:standalone\r\n\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n")
	f.Add("txt:cluster_state:fail\r\n")
	f.Add("a:b:c\nno colon\n:no name\r\na:twice")
	f.Fuzz(func(t *testing.T, text string) {
		fields := parseInfo(text)
		for name, value := range fields {
			if name == "" || strings.ContainsAny(name, ":\n") || strings.Contains(value, "\n") {
				t.Errorf("field %q = %q", name, value)
			}
			if !strings.Contains(text, name+":"+value) {
				t.Errorf("%q = %q is not in the text", name, value)
			}
		}
		if v := describe(fields, fields).Version; v.Major < 0 || v.Minor < 0 || v.Patch < 0 {
			t.Errorf("version %+v", v)
		}
	})
}

package terraform

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache/cachetest"
	"github.com/flatrate/flatrate/cache/object/objecttest"
	"github.com/flatrate/flatrate/cache/writebehind/writebehindtest"
	"github.com/flatrate/flatrate/lock/locktest"
	"github.com/flatrate/flatrate/meter/metertest"
	"github.com/flatrate/flatrate/queue/queuetest"
	"github.com/flatrate/flatrate/ratelimit/ratelimittest"
	"github.com/flatrate/flatrate/session/sessiontest"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

var suites = map[string]func(*testing.T, valkeytest.Env){
	"cache": cachetest.Run, "lock": locktest.Run, "meter": metertest.Run, "object": objecttest.Run, "queue": queues,
	"ratelimit": ratelimittest.Run, "session": sessiontest.Run, "write-behind": writebehindtest.Run,
}

// queues are all three kinds.
func queues(t *testing.T, env valkeytest.Env) {
	queuetest.Run(t, env)
	queuetest.RunLog(t, env)
	queuetest.RunList(t, env)
}

// TestAccessStrings signs in as the user of each block, with exactly the rules that are generated, and runs the block's whole conformance
// suite. The prefix is a pattern here, since each test of a suite has one of its own.
func TestAccessStrings(t *testing.T) {
	if testing.Short() {
		t.Skip("the suites run with the blocks' own packages too")
	}
	for _, b := range Blocks {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			server := valkeytest.Start(t)
			admin := server.Client()
			version := serverVersion(t, admin)
			user := signIn(t, server, b, "test-*", version)
			client := &divided{Client: user, admin: admin}
			t.Run("suite", func(t *testing.T) { // which ends when its parallel tests have
				suites[b.Name](t, valkeytest.Env{Client: client, Advance: func(d time.Duration) { passed(t, admin, d) }})
			})
			denied, err := admin.Do(context.Background(), admin.B().Arbitrary("ACL", "LOG").Build()).ToArray()
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range denied {
				m, _ := entry.AsMap()
				object, reason, where := text(m["object"]), text(m["reason"]), text(m["context"])
				t.Errorf("denied: %s %s %s", reason, object, where)
			}
		})
	}
}

// TestAccessStringsOnCluster does the same on a cluster of three, where a client looks up the shards and is redirected.
func TestAccessStringsOnCluster(t *testing.T) {
	nodes := valkeytest.Cluster(t, 3)
	admin := nodes.Client()
	version := serverVersion(t, nodes.Servers[0].Client())
	for _, name := range []string{"lock", "object", "meter"} {
		t.Run(name, func(t *testing.T) {
			b, err := FindBlock(name)
			if err != nil {
				t.Fatal(err)
			}
			rules := append([]string{"ACL", "SETUSER", b.Name, ">secret"}, strings.Fields(b.AccessString("test-*", version))...)
			for _, s := range nodes.Servers {
				if err := s.Client().Do(t.Context(), admin.B().Arbitrary(rules...).Build()).Error(); err != nil {
					t.Fatal(err)
				}
			}
			user, err := valkey.NewClient(valkey.ClientOption{InitAddress: nodes.Addrs(), Username: b.Name, Password: "secret", DisableCache: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(user.Close)
			t.Run("suite", func(t *testing.T) {
				suites[name](t, valkeytest.Env{Client: &divided{Client: user, admin: admin}, Advance: func(d time.Duration) { passed(t, nodes.Servers[0].Client(), d) }})
			})
			for _, s := range nodes.Servers {
				denied, err := s.Client().Do(context.Background(), admin.B().Arbitrary("ACL", "LOG").Build()).ToArray()
				if err != nil || len(denied) > 0 {
					t.Errorf("%d calls were denied: %v", len(denied), err)
				}
			}
		})
	}
}

// TestForeignRefused holds that each user is shut out of the others' keys, of what it has no use for, and of other channels.
func TestForeignRefused(t *testing.T) {
	server := valkeytest.Start(t)
	version := serverVersion(t, server.Client())
	for _, b := range Blocks {
		user := signIn(t, server, b, "fr", version)
		ctx := t.Context()
		refused := func(args ...string) {
			t.Helper()
			err := user.Do(ctx, user.B().Arbitrary(args...).Build()).Error()
			if err == nil || !strings.Contains(err.Error(), "NOPERM") {
				t.Errorf("%s: %v: %v", b.Name, args, err)
			}
		}
		for _, other := range Blocks {
			if other.Name == b.Name {
				continue
			}
			refused("EVAL", "return 1", "1", "fr:"+strings.TrimSuffix(other.Keys[0], "*")+"{x}:y")
		}
		refused("EVAL", "return 1", "1", "elsewhere")
		refused("EVAL", "return 1", "1", "fry:"+strings.TrimSuffix(b.Keys[0], "*")+"x")
		for _, command := range []string{"FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG GET *", "ACL LIST", "SCAN 0", "SHUTDOWN", "CLIENT LIST", "MONITOR",
			"SCRIPT FLUSH", "FUNCTION LIST", "CLUSTER RESET", "SWAPDB 0 1", "SELECT 1"} {
			refused(strings.Fields(command)...)
		}
		if b.Wakes {
			refused("PUBLISH", "elsewhere", "x")
		} else {
			refused("PUBLISH", "fr:wake:x", "x")
		}
		if err := user.Do(ctx, user.B().Eval().Script("return redis.call('TIME')").Numkeys(1).Key("fr:"+strings.TrimSuffix(b.Keys[0], "*")+"{x}").Build()).Error(); err != nil {
			t.Errorf("%s: its own key: %v", b.Name, err)
		}
	}
}

// TestCommandsAreThoseOfTheScripts compares a block's list with what its scripts call, both ways: a script that learns a new command fails
// here before it fails in production, and what no longer is used does not stay allowed.
func TestCommandsAreThoseOfTheScripts(t *testing.T) {
	const root = "../../../.."
	call := regexp.MustCompile(`['"]([A-Z]{3,})['"]`) // some are chosen before they are called; arguments are told by COMMAND LIST
	admin := valkeytest.Start(t).Client()
	commands, err := admin.Do(t.Context(), admin.B().CommandList().Build()).AsStrSlice()
	if err != nil || len(commands) < 200 {
		t.Fatalf("%d commands: %v", len(commands), err)
	}
	commands = append(commands, words("delifeq hpexpire")...) // of 9.0
	built := regexp.MustCompile(`(?:\.B\(\)|\bb)\.([A-Z]\w+)\(`)
	folders := map[string][]string{"lock": {"lock"}, "queue": {"queue"}, "ratelimit": {"ratelimit"}, "session": {"session"}, "meter": {"meter"},
		"cache": {"cache"}, "object": {"cache/object"}, "write-behind": {"cache/writebehind"}}
	leased := words("del get pexpire set") // internal/lease
	for _, b := range Blocks {
		used := map[string]bool{}
		for _, dir := range folders[b.Name] {
			files, err := filepath.Glob(filepath.Join(root, dir, "*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				if filepath.Ext(file) != ".lua" && filepath.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
					continue
				}
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				pattern := call
				if filepath.Ext(file) == ".go" {
					pattern = built
				}
				for _, m := range pattern.FindAllSubmatch(text, -1) {
					if command := strings.ToLower(string(m[1])); slices.Contains(commands, command) {
						used[command] = true
					}
				}
			}
		}
		allowed := b.Allowed("9.0")
		for command := range used {
			if !slices.Contains(allowed, command) {
				t.Errorf("%s calls %s, which its user may not", b.Name, command)
			}
		}
		if len(used) < 5 {
			t.Errorf("%s: only %v found", b.Name, used)
		}
		for _, command := range b.Commands {
			if !used[command] && !slices.Contains(leased, command) && !slices.Contains(words("client|tracking exists"), command) {
				t.Errorf("%s may %s, which it never calls", b.Name, command)
			}
		}
	}
}

func serverVersion(t *testing.T, c valkey.Client) string {
	t.Helper()
	info, err := c.Do(t.Context(), c.B().Info().Section("server").Build()).ToString()
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`valkey_version:(\d+\.\d+)`).FindStringSubmatch(info)
	if m == nil {
		t.Fatal("no Valkey")
	}
	i := len(Versions) - 1
	for i > 0 && Versions[i] > m[1] {
		i--
	}
	return Versions[i]
}

// signIn makes the user of a block, and a client of it.
func signIn(t *testing.T, server *valkeytest.Server, b Block, prefix, version string) valkey.Client {
	t.Helper()
	admin := server.Client()
	rules := append([]string{"ACL", "SETUSER", b.Name, ">secret"}, strings.Fields(b.AccessString(prefix, version))...)
	if err := admin.Do(t.Context(), admin.B().Arbitrary(rules...).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	client, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{server.Socket}, DialCtxFn: valkeytest.DialUnix, Username: b.Name, Password: "secret",
		PipelineMultiplex: 1,
		DisableCache:      !slices.Contains(b.Commands, "client|tracking")}) // as flatrate.Connect does where tracking is refused
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// divided sends what the block sends as its user, and what the suite itself looks up or breaks as the administrator.
type divided struct {
	valkey.Client
	admin valkey.Client
}

// who is the administrator if the nearest of our packages on the stack is a suite.
func (d *divided) who() valkey.Client {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		frame, more := frames.Next()
		if rest, ours := strings.CutPrefix(frame.Function, "github.com/flatrate/flatrate/"); ours {
			pkg, _, _ := strings.Cut(rest[strings.LastIndex(rest, "/")+1:], ".")
			if strings.HasSuffix(pkg, "test") {
				return d.admin
			}
			return d.Client
		}
		if !more {
			return d.Client
		}
	}
}

func (d *divided) Do(ctx context.Context, cmd valkey.Completed) valkey.ValkeyResult {
	return d.who().Do(ctx, cmd)
}

func (d *divided) DoMulti(ctx context.Context, cmds ...valkey.Completed) []valkey.ValkeyResult {
	return d.who().DoMulti(ctx, cmds...)
}

func (d *divided) Receive(ctx context.Context, cmd valkey.Completed, fn func(valkey.PubSubMessage)) error {
	return d.who().Receive(ctx, cmd, fn)
}

func (d *divided) Dedicated(fn func(valkey.DedicatedClient) error) error {
	return d.who().Dedicated(fn)
}

func (d *divided) Dedicate() (valkey.DedicatedClient, func()) { return d.who().Dedicate() }

func (d *divided) Nodes() map[string]valkey.Client { return d.who().Nodes() }

// passed returns when d has passed on the server's clock.
func passed(t *testing.T, c valkey.Client, d time.Duration) {
	clock := func() time.Time {
		parts, err := c.Do(context.Background(), c.B().Time().Build()).AsIntSlice()
		if err != nil || len(parts) != 2 {
			t.Fatalf("TIME: %v %v", parts, err)
		}
		return time.Unix(parts[0], parts[1]*1000)
	}
	for end := clock().Add(d); ; {
		left := end.Sub(clock())
		if left <= 0 {
			return
		}
		time.Sleep(left)
	}
}

func text(m valkey.ValkeyMessage) string { s, _ := m.ToString(); return s }

package script_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// TestEveryScript checks the header of each script of the toolkit.
func TestEveryScript(t *testing.T) {
	found := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.Name() == "deploy" {
			return filepath.SkipDir // HAProxy's Lua
		}
		if err != nil || filepath.Ext(path) != ".lua" {
			return err
		}
		found++
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := script.Check(string(source)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil || found < 2 {
		t.Fatalf("%d scripts, %v", found, err)
	}
}

func TestCheck(t *testing.T) {
	const good = "#!lua flags=allow-oom\n-- KEYS[1]  a key\n-- ARGV[1]  a word\n-- reply    nothing\nreturn redis.call('SET', KEYS[1], ARGV[1])\n"
	if err := script.Check(good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"no shebang", "#!lua flags=allow-oom\n", "", "line 1"},
		{"another flag", "allow-oom", "allow-all", `unknown flag "allow-all"`},
		{"key not named", "-- KEYS[1]  a key\n", "", "uses KEYS[1]"},
		{"argument not named", "-- ARGV[1]  a word\n", "", "uses ARGV[1]"},
		{"named twice", "-- ARGV[1]", "-- KEYS[1]", "again"},
		{"named, not used", ", ARGV[1])", ")", "names ARGV[1]"},
		{"used in a comment only", ", ARGV[1])", ") -- ARGV[1]", "names ARGV[1]"},
		{"index out of the header", "ARGV[1])", "ARGV[1], ARGV[2])", "uses ARGV[2]"},
		{"all arguments", "ARGV[1])", "ARGV[1], unpack(ARGV))", "uses ARGV[..]"},
		{"computed index", "ARGV[1])", "ARGV[1], ARGV[n])", "uses ARGV[..]"},
		{"their number", "ARGV[1])", "ARGV[1], #ARGV)", "uses ARGV[..]"},
		{"no reply", "-- reply  ", "-- answer ", "reply"},
		{"a library", "redis.call(", "cmsgpack.pack(", "cmsgpack"},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := strings.Replace(good, c.old, c.new, 1)
			if source == good {
				t.Fatal("the case changes nothing")
			}
			if err := script.Check(source); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

const add = "#!lua\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])\n"

func TestExec(t *testing.T) {
	valkeytest.Each(t, func(t *testing.T, env valkeytest.Env) {
		s, prefix := script.New(add), valkeytest.Prefix(t)
		// Keys of many slots reach every node, each of which has to get the script.
		for i := range 64 {
			key := prefix + strings.Repeat("x", i)
			for want := int64(2); want <= 4; want += 2 {
				if n, err := s.Exec(t.Context(), env.Client, []string{key}, "2").AsInt64(); err != nil || n != want {
					t.Fatalf("%s: %d, %v", key, n, err)
				}
			}
		}
	})
}

func TestExecSurvivesAFlush(t *testing.T) {
	c := valkeytest.Start(t).Client()
	s := script.New(add)
	for want := range int64(4) {
		if err := c.Do(t.Context(), c.B().ScriptFlush().Build()).Error(); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Exec(t.Context(), c, []string{"k"}, "1").AsInt64(); err != nil || n != want+1 {
			t.Fatalf("%d, %v", n, err)
		}
	}
}

// TestCrossSlotIsAnError shows what the first line is for: without it a script on a cluster node may
// touch a key that it did not declare, of any slot.
func TestCrossSlotIsAnError(t *testing.T) {
	c := valkeytest.Cluster(t, 1).Client()
	s := script.New("#!lua\nreturn redis.call('SET', 'elsewhere', ARGV[1])\n")
	if err := s.Exec(t.Context(), c, []string{"k"}, "1").Error(); err == nil {
		t.Fatal("an undeclared key of another slot was written")
	}
}

// TestNobodyWaitsPastTheContext pauses the server before the first load: each of the callers that
// queue behind it has to come back when its own context ends.
func TestNobodyWaitsPastTheContext(t *testing.T) {
	server := valkeytest.Start(t)
	c, s := server.Client(), script.New(add)
	server.Pause()
	defer server.Resume()
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			if err := s.Exec(ctx, c, []string{"k"}, "1").Error(); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, valkey.ErrClosing) {
				t.Errorf("error %v", err)
			}
		})
	}
	callers.Wait()
}

// TestADeadServerIsNobodyElses makes the first call of a script wait for a server that hangs: a caller
// of another server must not wait with it.
func TestADeadServerIsNobodyElses(t *testing.T) {
	hung, well := valkeytest.Start(t), valkeytest.Start(t).Client()
	s, asked := script.New(add), make(chan struct{}, 1)
	dead := witness{hung.Client(), asked}
	hung.Pause()
	defer hung.Resume()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Exec(ctx, dead, []string{"k"}, "1").Error() }()
	<-asked
	patient, done := context.WithTimeout(t.Context(), 2*time.Second)
	defer done()
	if n, err := s.Exec(patient, well, []string{"k"}, "1").AsInt64(); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("a server that hangs answered")
	}
}

// witness tells when its client is about to be asked.
type witness struct {
	valkey.Client
	asked chan<- struct{}
}

func (w witness) Do(ctx context.Context, cmd valkey.Completed) valkey.ValkeyResult {
	w.asked <- struct{}{}
	return w.Client.Do(ctx, cmd)
}

// TestFirstCallEnds makes the first call of a script without a deadline, through a client that repeats
// what it may repeat for ever, while the server is gone.
func TestFirstCallEnds(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) (valkey.Client, *valkeytest.Server){
		"server": func(t *testing.T) (valkey.Client, *valkeytest.Server) {
			s := valkeytest.Start(t)
			return s.Client(), s
		},
		"cluster": func(t *testing.T) (valkey.Client, *valkeytest.Server) {
			nodes := valkeytest.Cluster(t, 1)
			return nodes.Client(), nodes.Servers[0]
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, server := start(t)
			server.Kill()
			ended := make(chan error, 1)
			go func() { ended <- script.New(add).Exec(context.Background(), c, []string{"k"}, "1").Error() }()
			select {
			case err := <-ended:
				if err == nil {
					t.Error("a dead server answered")
				}
			case <-time.After(30 * time.Second):
				t.Error("the call did not end")
			}
		})
	}
}

// TestLoadingOutlivesANode loads through a cluster of which the node that is asked first may be gone.
func TestLoadingOutlivesANode(t *testing.T) {
	nodes := valkeytest.ClusterWith(t, 3, valkeytest.Config{Args: []string{"--cluster-require-full-coverage", "no"}})
	c := nodes.Client()
	var key string // of a slot of the last node
	for n := 0; ; n++ {
		key = strconv.Itoa(n)
		slot, err := c.Do(t.Context(), c.B().ClusterKeyslot().Key(key).Build()).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		if slot >= 2*16384/3+1 {
			break
		}
	}
	nodes.Servers[0].Kill()
	for range 10 { // the node that loads is random
		if err := script.New(add).Exec(t.Context(), c, []string{key}, "1").Error(); err != nil {
			t.Fatal(err)
		}
	}
}

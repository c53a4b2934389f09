// Package interop runs what other languages and other databases share with flatrate: the recipes of docs/.
package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/valkeytest"
)

// language is one whose recipe is tested, and how its program is run.
type language struct {
	name    string
	command []string
	has     []string // a command that fails where its client is missing
	missing string
}

var languages = []language{
	{"node", []string{"node", "node/client.mjs"}, []string{"node", "--input-type=module", "-e", "import './node/node_modules/iovalkey/built/index.js'"},
		"node 20 with iovalkey is missing: cd proof/interop/node && npm ci"},
	{"python", []string{"python3", "python/client.py"}, []string{"python3", "-c", "import redis"},
		"python3 with its client is missing: apt-get install python3-redis, or pip install redis"},
	// Debian's python3, where another one stands before it on the PATH.
	{"python", []string{"/usr/bin/python3", "python/client.py"}, []string{"/usr/bin/python3", "-c", "import redis"}, ""},
}

// installed are the languages at hand; the test says what the others want.
func installed(t *testing.T, wanted []language) (found []language) {
	t.Helper()
	var missing []language
	for _, l := range wanted {
		have := func(o language) bool { return o.name == l.name }
		switch {
		case slices.ContainsFunc(found, have):
		case exec.CommandContext(t.Context(), l.has[0], l.has[1:]...).Run() == nil:
			found = append(found, l)
			missing = slices.DeleteFunc(missing, have)
		default:
			missing = append(missing, l)
		}
	}
	for _, l := range missing {
		if l.missing != "" {
			t.Logf("%s is left out: %s", l.name, l.missing)
		}
	}
	if len(found) == 0 {
		t.Skip("no language has a client installed")
	}
	return found
}

// report is what those programs print.
type report struct {
	Keys, Steps, Turns, Overlaps int
	Token                        string
	Wrong                        []string
}

func (l language) run(ctx context.Context, t *testing.T, args ...string) (r report) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 100*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.command[0], append(l.command[1:], args...)...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		t.Errorf("%s %v: %v\n%s%s", l.name, args, err, out, problems.Bytes())
	}
	for _, what := range r.Wrong {
		t.Errorf("%s %s: %s", l.name, args[0], what)
	}
	return r
}

// TestVectors holds the recipes against the test vectors. Go's is in package lock.
func TestVectors(t *testing.T) {
	for _, l := range installed(t, languages) {
		server := valkeytest.Start(t)
		if r := l.run(t.Context(), t, "vectors", server.Socket); r.Keys == 0 || r.Steps == 0 {
			t.Errorf("%s: %d keys, %d steps", l.name, r.Keys, r.Steps)
		}
	}
}

// TestRenewal lets each recipe keep a lock, and lose one.
func TestRenewal(t *testing.T) {
	for _, l := range installed(t, languages) {
		server := valkeytest.Start(t)
		l.run(t.Context(), t, "kept", server.Socket)
	}
}

// TestContention lets Go, Node and Python want the same lock. A counter on the server says who is inside.
func TestContention(t *testing.T) {
	const rounds = 100
	others := installed(t, languages)
	server := valkeytest.Start(t)
	client := server.Client()
	ctx := t.Context()
	var all sync.WaitGroup
	turns, overlaps := make([]int, len(others)+2), make([]int, len(others)+2)
	for i, l := range others {
		all.Go(func() {
			r := l.run(ctx, t, "contend", server.Socket, strconv.Itoa(rounds))
			turns[i], overlaps[i] = r.Turns, r.Overlaps
		})
	}
	for i := range 2 { // two of ours: one hands the lock to the other without a claim
		l, err := lock.New(client, lock.Config{TTL: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			i := len(others) + i
			for ; turns[i] < rounds; turns[i]++ {
				err := l.Do(ctx, "one", func(context.Context) error {
					inside, err := client.Do(ctx, client.B().Incr().Key("inside").Build()).AsInt64()
					if err != nil || inside != 1 {
						overlaps[i]++
					}
					<-time.After(rand.N(3 * time.Millisecond))
					return client.Do(ctx, client.B().Decr().Key("inside").Build()).Error()
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	fences, err := client.Do(ctx, client.B().Lrange().Key("fences").Start(0).Stop(-1).Build()).AsIntSlice()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(fences) || len(slices.Compact(slices.Clone(fences))) != len(fences) || len(fences) != rounds*len(others) {
		t.Errorf("the fences of Node and Python do not grow: %v", fences)
	}
	for i := range turns {
		if turns[i] != rounds || overlaps[i] != 0 {
			t.Errorf("caller %d: %d turns of %d, %d overlaps", i, turns[i], rounds, overlaps[i])
		}
	}
	t.Logf("turns %v, overlaps %v", turns, overlaps)
}

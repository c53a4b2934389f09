package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

var update = flag.Bool("update", false, "write docs/compatibility.md anew: read the difference before it is committed")

// features are the columns: the commands of each are in the programs of compat/.
var features = []string{"strings", "hashes", "lists", "streams", "sorted sets", "scripts", "pub/sub", "RESP3", "TLS"}

// rival is a client and how its program is run.
type rival struct {
	name, language string
	command        []string
	has            []string
	missing        string
	native         func(ctx context.Context, s servers) compat
}

var rivals = []rival{
	{name: "ioredis", language: "Node", command: []string{"node", "compat/node.mjs"}, has: []string{"node", "-e", "require('./node/node_modules/ioredis')"}, missing: "cd proof/interop/node && npm ci"},
	{name: "node-redis", language: "Node", command: []string{"node", "compat/node.mjs"}, has: []string{"node", "-e", "require('./node/node_modules/redis')"}, missing: "cd proof/interop/node && npm ci"},
	{name: "iovalkey", language: "Node", command: []string{"node", "compat/node.mjs"}, has: []string{"node", "-e", "require('./node/node_modules/iovalkey')"}, missing: "cd proof/interop/node && npm ci"},
	{name: "go-redis", language: "Go", native: goRedis},
	{name: "valkey-go", language: "Go", native: valkeyGo},
	{name: "redis-py", language: "Python", command: []string{"/usr/bin/python3", "compat/python.py"}, has: []string{"/usr/bin/python3", "-c", "import redis"}, missing: "apt-get install python3-redis"},
	{name: "phpredis", language: "PHP", command: []string{"php", "compat/php.php"}, has: []string{"php", "-r", "new Redis();"}, missing: "apt-get install php-cli php-redis"},
	{name: "predis", language: "PHP", command: []string{"php", "compat/php.php"}, has: []string{"php", "-r", "require 'Predis/autoload.php';"}, missing: "apt-get install php-cli php-nrk-predis"},
}

// servers are one kind of server, in plain text and with TLS.
type servers struct {
	name, plain, tls, ca string
}

// compat is what a client's program prints: a "yes" or another word for each feature, or what went wrong.
type compat struct {
	Version string            `json:"version"`
	Results map[string]string `json:"results"`
}

// TestCompatibility runs the clients that are installed, unchanged, against both servers, and holds the table of docs/compatibility.md
// against what they answer. Versions are those of the day when it was written; another one at hand has to answer the same.
func TestCompatibility(t *testing.T) {
	page, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	var kinds []servers
	for _, binary := range []string{valkeytest.Valkey, valkeytest.Redis} {
		plain := valkeytest.StartWith(t, valkeytest.Config{Binary: binary, TCP: true})
		secure := valkeytest.StartWith(t, valkeytest.Config{Binary: binary, TCP: true, TLS: true})
		kinds = append(kinds, servers{binary, plain.Addr, secure.Addr, secure.CAFile})
	}
	rows, complete := []string{}, true
	for _, r := range rivals {
		if r.native == nil && exec.CommandContext(t.Context(), r.has[0], r.has[1:]...).Run() != nil {
			t.Logf("%s is left out: %s", r.name, r.missing)
			complete = false
			continue
		}
		row := r.row(t, kinds)
		rows = append(rows, row)
		if !*update && !strings.Contains(string(withoutVersions(page)), string(withoutVersions([]byte(row)))) {
			t.Errorf("docs/compatibility.md does not have this row: make compatibility writes it\n%s", row)
		}
	}
	if *update {
		if !complete {
			t.Fatal("a client is missing: sh tools/install-clients.sh")
		}
		if err := os.WriteFile("../../docs/compatibility.md", table(t, page, rows), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// row runs a client against all kinds of server. Where they differ the cell says so, and the test fails.
func (r rival) row(t *testing.T, kinds []servers) string {
	t.Helper()
	cells := map[string]string{}
	version := ""
	answers := make([]compat, len(kinds))
	var all sync.WaitGroup
	for i, s := range kinds {
		all.Go(func() { answers[i] = r.run(t, s) })
	}
	all.Wait()
	for i, s := range kinds {
		got := answers[i]
		version = got.Version
		for _, f := range features {
			switch answer := got.Results[f]; {
			case !slices.Contains([]string{"yes", "raw commands", "not in it"}, answer):
				t.Errorf("%s, %s, %s: %q %s", r.name, s.name, f, answer, got.Results["error"])
				cells[f] = "no"
			case cells[f] != "" && cells[f] != answer:
				t.Errorf("%s, %s: %s with one server, %s with the other", r.name, f, cells[f], answer)
			default:
				cells[f] = answer
			}
		}
	}
	row := fmt.Sprintf("| %s %s | %s |", r.name, version, r.language)
	for _, f := range features {
		row += " " + cells[f] + " |"
	}
	return row
}

func (r rival) run(t *testing.T, s servers) (got compat) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	flush(ctx, t, s)
	if r.native != nil {
		return r.native(ctx, s)
	}
	host, port, _ := net.SplitHostPort(s.plain)
	_, tlsPort, _ := net.SplitHostPort(s.tls)
	cmd := exec.CommandContext(ctx, r.command[0], append(r.command[1:], r.name, host, port, tlsPort, s.ca)...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil {
		t.Errorf("%s: %v\n%s%s", r.name, err, out, problems.Bytes())
	}
	return got
}

// withoutVersions leaves away what stands behind a client's name.
func withoutVersions(text []byte) []byte {
	var out []byte
	for line := range bytes.Lines(text) {
		if cells := bytes.SplitN(line, []byte("|"), 3); len(cells) == 3 {
			name, _, _ := bytes.Cut(bytes.TrimSpace(cells[1]), []byte(" "))
			line = bytes.Join([][]byte{nil, name, cells[2]}, []byte("|"))
		}
		out = append(out, line...)
	}
	return out
}

const begin, end = "<!-- make compatibility writes what follows -->\n", "<!-- and no further -->\n"

// table is the page with the rows in it.
func table(t *testing.T, page []byte, rows []string) []byte {
	t.Helper()
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, ends := strings.Cut(rest, end)
	if !ok || !ends {
		t.Fatal("docs/compatibility.md has no place for the table")
	}
	head := "\n| client | | " + strings.Join(features, " | ") + " |\n|" + strings.Repeat("---|", len(features)+2) + "\n"
	return []byte(before + begin + head + strings.Join(rows, "\n") + "\n\n" + end + after)
}

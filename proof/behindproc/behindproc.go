// Package behindproc is processes that write through package writebehind, and that drain it into PostgreSQL, to be
// killed.
//
// A process is the program itself, started again: it calls [Main] first.
package behindproc

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/flatrate/flatrate/cache/writebehind/sqlorigin"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver
)

const variable = "FLATRATE_BEHIND"

// Window is that of the stores.
const Window = 50 * time.Millisecond

// Create makes the table, and one of all that was ever changed in it.
const Create = `
CREATE TABLE rows (key text PRIMARY KEY, n bigint NOT NULL, gone boolean NOT NULL, version bigint NOT NULL);
CREATE TABLE history (id bigserial PRIMARY KEY, key text NOT NULL, n bigint NOT NULL, version bigint NOT NULL);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO history (key, n, version) VALUES (NEW.key, NEW.n, NEW.version); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON rows FOR EACH ROW EXECUTE FUNCTION note();
`

// Setting says what a process does.
type Setting struct {
	// URL of the server, as flatrate.Connect takes it.
	URL string
	// DSN of the database. Empty means that the process writes; its keys begin with Keys.
	DSN, Keys string
}

// Value is a value: the number of a write of its key.
type Value struct{ N int64 }

// Key is what a process has told of a key.
type Key struct {
	Begun, Acked int64 // the numbers of the last write that it has begun, and of the last that was acknowledged
	Deleted      map[int64]bool
}

// Process is a running process.
type Process struct {
	cmd  *exec.Cmd
	gone chan struct{}

	mu    sync.Mutex
	keys  map[string]*Key
	stale int
	acks  int
}

// Start starts a process, which ends with ctx or with Kill.
func Start(ctx context.Context, setting Setting) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(setting)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self) //nolint:gosec // it is this program
	cmd.Env = append(os.Environ(), variable+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if _, err = cmd.StdinPipe(); err != nil { // it ends when this program does
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, gone: make(chan struct{}), keys: map[string]*Key{}}
	go p.read(out)
	return p, nil
}

// read hears what a writer says: "b key n" before a write, "d key n" before a deletion, "a key n" once it is
// acknowledged, "s key n" when it reads something else than it has written.
func (p *Process) read(out io.Reader) {
	defer close(p.gone)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 3 {
			continue // a line that was cut off
		}
		n, _ := strconv.ParseInt(words[2], 10, 64)
		p.mu.Lock()
		k := p.keys[words[1]]
		if k == nil {
			k = &Key{Deleted: map[int64]bool{}}
			p.keys[words[1]] = k
		}
		switch words[0] {
		case "b":
			k.Begun = n
		case "d":
			k.Begun, k.Deleted[n] = n, true
		case "a":
			k.Acked = n
			p.acks++
		case "s":
			p.stale++
		}
		p.mu.Unlock()
	}
}

// Kill ends the process with SIGKILL and returns once all that it has said is heard.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.gone
	_ = p.cmd.Wait()
}

// Stop stops the process with SIGSTOP, and Continue lets it go on.
func (p *Process) Stop() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue continues a stopped process.
func (p *Process) Continue() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// Heard is what a writer has said so far: its keys, how many writes were acknowledged, and how often it has read something
// else than it had written.
func (p *Process) Heard() (keys map[string]*Key, acks, stale int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys, p.acks, p.stale
}

// Main makes this process one that [Start] has started, if it is.
func Main() {
	text := os.Getenv(variable)
	if text == "" {
		return
	}
	var setting Setting
	err := json.Unmarshal([]byte(text), &setting)
	if err == nil {
		err = run(setting)
	}
	fmt.Fprintln(os.Stderr, "behindproc:", err)
	os.Exit(1)
}

func run(setting Setting) error {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(2)
	}()
	ctx := context.Background()
	client, err := flatrate.Connect(ctx, setting.URL)
	for ; err != nil; client, err = flatrate.Connect(ctx, setting.URL) {
		time.Sleep(20 * time.Millisecond) // the server may be away
	}
	cfg := writebehind.Config[Value]{Window: Window, Partitions: 4, Lease: 500 * time.Millisecond, MaxBackoff: time.Second}
	if setting.DSN != "" {
		if cfg.Origin, err = Origin(setting.DSN); err != nil {
			return err
		}
	}
	s, err := writebehind.New(client, cfg)
	if err != nil {
		return err
	}
	for err = s.Start(ctx); err != nil; err = s.Start(ctx) {
		time.Sleep(20 * time.Millisecond)
	}
	if setting.DSN != "" {
		select {}
	}
	return write(ctx, s, setting.Keys)
}

// Origin is the table.
func Origin(dsn string) (writebehind.Origin[Value], error) {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return nil, err
	}
	return sqlorigin.New(db, sqlorigin.Table[Value]{
		Dialect: sqlorigin.PostgreSQL, Name: "rows", Key: "key", Deleted: "gone", Columns: []string{"n"},
		Values: func(v Value) ([]any, error) { return []any{v.N}, nil },
	})
}

// write writes keys again and again, and tells. A key whose write failed is left alone: nobody knows what became of it.
func write(ctx context.Context, s *writebehind.Store[Value], prefix string) error {
	const width = 20
	keys := make([]string, width)
	made := 0
	next := func() string { made++; return prefix + ":" + strconv.Itoa(made) }
	for i := range keys {
		keys[i] = next()
	}
	numbers := make([]int64, width)
	for i := 0; ; i = (i + 1) % width {
		numbers[i]++
		n, key := numbers[i], keys[i]
		deletes := n%8 == 0
		fmt.Printf("%s %s %d\n", map[bool]string{true: "d", false: "b"}[deletes], key, n)
		var err error
		if deletes {
			err = s.Delete(ctx, key)
		} else {
			err = s.Put(ctx, key, Value{n}) //nolint:gosec // until it is killed
		}
		if err != nil {
			keys[i], numbers[i] = next(), 0
			time.Sleep(5 * time.Millisecond)
			continue
		}
		fmt.Printf("a %s %d\n", key, n)
		if n%4 == 0 {
			got, err := s.Get(ctx, key, nil)
			wrong := deletes && !errors.Is(err, writebehind.ErrNotFound) || !deletes && got.N != n
			if wrong && (err == nil || errors.Is(err, writebehind.ErrNotFound)) {
				fmt.Printf("s %s %d\n", key, n)
			}
		}
		time.Sleep(200 * time.Microsecond)
	}
}

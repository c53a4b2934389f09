// Package databases starts real databases for tests, as child processes on unix sockets in a temporary folder that end
// with the test. As root they run as nobody, since they refuse to run as root.
//
// Where their programs are missing the test is skipped, or fails if FLATRATE_REQUIRE_GATEWAYS=1 is set, as in CI;
// tools/install-clients.sh installs Debian's packages.
package databases

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"
)

const startTimeout = time.Minute

// Database is a running database.
type Database struct {
	// Driver and DSN are for sql.Open.
	Driver, DSN string

	tb     testing.TB
	run    []string
	dir    string
	cmd    *exec.Cmd
	exited chan struct{}
	log    *bytes.Buffer
}

// Open returns a pool of connections, closed with the test.
func (d *Database) Open() *sql.DB {
	d.tb.Helper()
	db, err := sql.Open(d.Driver, d.DSN)
	if err != nil {
		d.tb.Fatal(err)
	}
	d.tb.Cleanup(func() { _ = db.Close() })
	return db
}

// PostgreSQL starts a PostgreSQL whose commits are synchronous as far as the process goes: what it has committed
// outlives its kill.
func PostgreSQL(tb testing.TB) *Database {
	tb.Helper()
	dir := folder(tb)
	data := filepath.Join(dir, "data")
	prepare(tb, dir, program(tb, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync")
	d := &Database{
		Driver: "pgx", DSN: "host=" + dir + " user=postgres dbname=postgres", tb: tb, dir: dir,
		run: []string{program(tb, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"},
	}
	d.Start()
	tb.Cleanup(d.Kill)
	return d
}

// MariaDB starts a MariaDB.
func MariaDB(tb testing.TB) *Database {
	tb.Helper()
	dir := folder(tb)
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "s")
	prepare(tb, dir, program(tb, "mariadb-install-db"), "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	d := &Database{
		Driver: "mysql", DSN: "root@unix(" + socket + ")/mysql", tb: tb, dir: dir,
		run: []string{program(tb, "mariadbd"), "--no-defaults", "--datadir=" + data, "--socket=" + socket, "--skip-networking",
			"--innodb-flush-log-at-trx-commit=2", "--innodb-log-file-size=8M", "--pid-file=" + filepath.Join(dir, "pid")},
	}
	d.Start()
	tb.Cleanup(d.Kill)
	return d
}

// SQLite returns a database in a file, which one connection at a time writes.
func SQLite(tb testing.TB) *Database {
	tb.Helper()
	return &Database{Driver: "sqlite", DSN: "file:" + filepath.Join(tb.TempDir(), "db") + "?_pragma=busy_timeout(10000)&_txlock=immediate", tb: tb}
}

// Start starts a database that was killed, with its data, and waits until it answers.
func (d *Database) Start() {
	d.tb.Helper()
	d.log = &bytes.Buffer{}
	d.cmd = exec.Command(d.run[0], d.run[1:]...) //nolint:gosec,noctx // it lives as long as the test
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = d.dir, d.log, d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: nobody()}
	if err := onOneThread(d.cmd.Start); err != nil {
		d.tb.Fatal(err)
	}
	exited, cmd := make(chan struct{}), d.cmd
	d.exited = exited
	go func() { _ = cmd.Wait(); close(exited) }()
	db := d.Open()
	for deadline := time.Now().Add(startTimeout); ; <-time.After(20 * time.Millisecond) {
		err := db.PingContext(d.tb.Context())
		if err == nil {
			return
		}
		select {
		case <-exited:
			d.tb.Fatalf("%s ended at its start:\n%s", d.run[0], d.log)
		default:
		}
		if time.Now().After(deadline) {
			d.Kill()
			d.tb.Fatalf("%s did not answer: %v\n%s", d.run[0], err, d.log)
		}
	}
}

// Kill ends it with SIGKILL, the processes that it has started included.
func (d *Database) Kill() {
	select {
	case <-d.exited:
		return
	default:
	}
	all := d.processes()
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-d.exited
	for _, pid := range all[1:] { // they hold its memory
		for syscall.Kill(pid, 0) == nil {
			<-time.After(time.Millisecond)
		}
	}
}

// processes are its own one and those that it has started.
func (d *Database) processes() []int {
	pid := d.cmd.Process.Pid
	all := []int{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task) //nolint:gosec // it is the kernel's
		for word := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// Pause stops it, and Resume continues: meanwhile nothing answers.
func (d *Database) Pause() { d.signal(syscall.SIGSTOP) }

// Resume continues a paused database.
func (d *Database) Resume() { d.signal(syscall.SIGCONT) }

func (d *Database) signal(sig syscall.Signal) {
	for _, pid := range d.processes() {
		_ = syscall.Kill(pid, sig)
	}
}

// folder returns one that nobody may use, with a short name: that of a socket is 107 bytes at most.
func folder(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/tmp", "flatrate")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	if who := nobody(); who != nil {
		if err := os.Chown(dir, int(who.Uid), int(who.Gid)); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func nobody() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: 65534, Gid: 65534}
}

func prepare(tb testing.TB, dir, name string, args ...string) {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), name, args...) //nolint:gosec // it is one of two
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody()}
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// program finds a program on the PATH, or where Debian has PostgreSQL's.
func program(tb testing.TB, name string) string {
	tb.Helper()
	if path, err := exec.LookPath(name); err == nil && !strings.HasPrefix(path, "/root") { // where nobody may look
		return path
	}
	if paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(paths) > 0 {
		return paths[len(paths)-1]
	}
	if os.Getenv("FLATRATE_REQUIRE_GATEWAYS") == "1" {
		tb.Fatalf("no %s: sh tools/install-clients.sh installs it", name)
	}
	tb.Skipf("no %s here", name)
	return ""
}

// onOneThread runs f on a thread that never ends: the signal that ends a child with its parent is bound to it.
func onOneThread(f func() error) error {
	done := make(chan error)
	spawner() <- func() { done <- f() }
	return <-done
}

var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// Package serveproc runs the flatrate binary as a child process, for tests and benchmarks of "flatrate serve".
package serveproc

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"testing"
	"time"
)

// build makes the binary, once for a process, in the user's cache: one file, which the next run replaces.
var build = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "flatrate-proof", "flatrate")
	cmd := exec.Command("go", "build", "-o", path, ".") //nolint:gosec // a path of this package's own
	cmd.Dir = filepath.Join(filepath.Dir(here), "..", "..", "cmd", "flatrate")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// Process is a running "flatrate serve".
type Process struct {
	// HTTP and RLS are host:port.
	HTTP, RLS string

	cmd  *exec.Cmd
	done chan struct{}
	err  error // once done

	mu  sync.Mutex
	log bytes.Buffer
}

var listening = regexp.MustCompile(`msg=listening .*http=(\S+) rls=(\S+)`)

// Start runs "flatrate serve" on free ports with further arguments, and waits until it is ready. It ends with the test.
func Start(tb testing.TB, args ...string) *Process {
	tb.Helper()
	path, err := build()
	if err != nil {
		tb.Fatal(err)
	}
	p := &Process{done: make(chan struct{})}
	//nolint:gosec,noctx // the arguments are the tests' own, and the process ends with its test, not with a call
	p.cmd = exec.Command(path, append([]string{"serve", "--listen-http", "127.0.0.1:0", "--listen-rls", "127.0.0.1:0"}, args...)...)
	out, err := p.cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ready := make(chan struct{})
	go p.read(bufio.NewScanner(out), ready)
	tb.Cleanup(p.Kill)
	select {
	case <-ready:
	case <-p.done:
		tb.Fatalf("flatrate serve has ended: %v\n%s", p.err, p.Log())
	case <-time.After(20 * time.Second):
		tb.Fatalf("flatrate serve is not ready\n%s", p.Log())
	}
	return p
}

func (p *Process) read(lines *bufio.Scanner, ready chan struct{}) {
	told := false
	for lines.Scan() {
		p.mu.Lock()
		fmt.Fprintln(&p.log, lines.Text())
		p.mu.Unlock()
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			p.HTTP, p.RLS = m[1], m[2]
		}
		if !told && regexp.MustCompile(`msg=ready$`).MatchString(lines.Text()) {
			told = true
			close(ready)
		}
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

// Log is what it has logged so far.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Pid is the process's.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends it with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Wait returns how it ended: nil for exit code 0.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

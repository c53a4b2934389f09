// Package valkeytest starts real servers for tests: single servers and small clusters, as child
// processes that end with the test.
//
// [Start] is what most tests want. [Each] runs a conformance suite against every kind of server at
// hand, and [Prefix] keeps tests that share one apart. A server listens on a unix socket in a
// temporary folder (about 0.1 s to start), on a free loopback port only where that is asked for.
//
// The server programs (valkey-server, redis-server) are looked up on the PATH. Where one is missing
// the test is skipped, or fails if FLATRATE_REQUIRE_VALKEY=1 is set, as it is in CI.
package valkeytest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"
)

// The programs that a [Config] names.
const (
	Valkey = "valkey-server"
	Redis  = "redis-server"
)

const (
	startTimeout = 20 * time.Second
	pollEvery    = 5 * time.Millisecond
)

// Config says which server to start. The zero value is a valkey-server on a unix socket.
type Config struct {
	// Binary is the program, [Valkey] by default.
	Binary string
	// Args are appended to the command line, as in {"--appendonly", "yes"}.
	Args []string
	// TCP also opens a free port on 127.0.0.1: Server.Addr.
	TCP bool
	// TLS opens that port with a certificate of Server.CAFile instead of in plain text.
	TLS bool
	// Password is required of the default user. Empty means none.
	Password string
}

// Server is a running server process. Its methods may be called from any goroutine, but not two at
// the same time.
type Server struct {
	// Socket is the path of the unix socket; Addr is host:port where a port was asked for.
	Socket, Addr string
	// CAFile is the PEM file that verifies the server's certificate, with Config.TLS.
	CAFile string
	// Dir is the working folder: dumps, append-only files and server.log. Restart keeps it.
	Dir string

	tb     testing.TB
	cfg    Config
	args   []string
	cmd    *exec.Cmd
	exited chan struct{}
	client func() valkey.Client
}

// Start starts a valkey-server that ends with the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	return StartWith(tb, Config{})
}

// StartWith starts the server that cfg describes; it ends with the test.
func StartWith(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	if cfg.Binary == "" {
		cfg.Binary = Valkey
	}
	s := &Server{tb: tb, cfg: cfg, Dir: tempDir(tb)}
	s.client = sync.OnceValue(s.newClient)
	s.Socket = filepath.Join(s.Dir, "s")
	s.args = []string{"--dir", s.Dir, "--unixsocket", s.Socket, "--logfile", "server.log", "--save", "", "--port"}
	switch {
	case cfg.TLS:
		files := writeCertificates(tb, s.Dir)
		s.CAFile = files.ca
		port := FreePort(tb)
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		s.args = append(s.args, "0", "--tls-port", strconv.Itoa(port), "--tls-auth-clients", "no",
			"--tls-cert-file", files.cert, "--tls-key-file", files.key, "--tls-ca-cert-file", files.ca)
	case cfg.TCP:
		port := FreePort(tb)
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		s.args = append(s.args, strconv.Itoa(port), "--bind", "127.0.0.1")
	default:
		s.args = append(s.args, "0")
	}
	if cfg.Password != "" {
		s.args = append(s.args, "--requirepass", cfg.Password)
	}
	s.args = append(s.args, cfg.Args...)
	s.spawn()
	tb.Cleanup(s.Kill)
	return s
}

// Client returns a client of the server, made at the first call and closed with the test.
func (s *Server) Client() valkey.Client { return s.client() }

// Pid is the process id of the running server.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Kill ends the server with SIGKILL and waits until it is gone. Killing a dead server does nothing.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// Pause stops the server with SIGSTOP: its connections stay open and nothing answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume continues a paused server.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

// Restart starts a killed server again with the same folder and the same addresses.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Kill()
	s.spawn()
}

func (s *Server) signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.tb.Fatalf("valkeytest: %v of %s: %v", sig, s.cfg.Binary, err)
	}
}

// spawn starts the process and waits until it answers.
func (s *Server) spawn() {
	s.tb.Helper()
	path := lookup(s.tb, s.cfg.Binary)
	_ = os.Remove(s.Socket)
	s.cmd = exec.Command(path, s.args...)
	s.cmd.Dir = s.Dir
	if err := start(s.cmd); err != nil {
		s.tb.Fatalf("valkeytest: start %s: %v", path, err)
	}
	exited := make(chan struct{})
	cmd := s.cmd
	go func() { _ = cmd.Wait(); close(exited) }()
	s.exited = exited

	deadline := time.Now().Add(startTimeout)
	for !s.ready() {
		select {
		case <-exited:
			s.tb.Fatalf("valkeytest: %s ended at its start:\n%s", s.cfg.Binary, s.log())
		case <-time.After(pollEvery):
		}
		if time.Now().After(deadline) {
			s.Kill()
			s.tb.Fatalf("valkeytest: %s did not answer within %v:\n%s", s.cfg.Binary, startTimeout, s.log())
		}
	}
}

// ready asks for one PING: any answer but LOADING, an error included, means that the server serves.
func (s *Server) ready() bool {
	conn, err := net.DialTimeout("unix", s.Socket, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	reply := make([]byte, 8)
	n, err := conn.Read(reply)
	return err == nil && string(reply[:n]) != "-LOADING"
}

func (s *Server) log() []byte {
	b, err := os.ReadFile(filepath.Join(s.Dir, "server.log"))
	if err != nil {
		return []byte(err.Error())
	}
	return b
}

func (s *Server) newClient() valkey.Client {
	s.tb.Helper()
	c, err := valkey.NewClient(valkey.ClientOption{
		InitAddress:       []string{s.Socket},
		DialCtxFn:         DialUnix,
		Password:          s.cfg.Password,
		ForceSingleClient: true,
	})
	if err != nil {
		s.tb.Fatalf("valkeytest: connect to %s: %v", s.cfg.Binary, err)
	}
	s.tb.Cleanup(c.Close)
	return c
}

// DialUnix is a valkey.ClientOption.DialCtxFn for addresses that are paths of unix sockets.
func DialUnix(ctx context.Context, path string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
	return d.DialContext(ctx, "unix", path)
}

// FreePort returns a TCP port on 127.0.0.1 that was free a moment ago.
func FreePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("valkeytest: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// lookup finds a server program, or ends the test as the environment asks.
func lookup(tb testing.TB, binary string) string {
	tb.Helper()
	path, err := exec.LookPath(binary)
	if err == nil {
		return path
	}
	msg := fmt.Sprintf("valkeytest: no %s on the PATH: run make test, or sh tools/install-servers.sh", binary)
	if !errors.Is(err, exec.ErrNotFound) {
		msg = fmt.Sprintf("valkeytest: %v", err)
	}
	if os.Getenv("FLATRATE_REQUIRE_VALKEY") != "" {
		tb.Fatal(msg)
	}
	tb.Skip(msg)
	return ""
}

// tempDir is tb.TempDir with a path short enough for a unix socket (about 100 bytes at most).
func tempDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "flatrate")
	if err != nil {
		tb.Fatalf("valkeytest: %v", err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

package policy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"
)

// startTime is how long a server may take to answer.
const startTime = 10 * time.Second

// server is a local server that ends with Close, and keeps nothing.
type server struct {
	cmd    *exec.Cmd
	dir    string
	client valkey.Client
	socket string
}

// Find returns the program of a server: the one that is named, or what is on the PATH.
func Find(name string) (string, error) {
	names := []string{"valkey-server", "redis-server"}
	if name != "" {
		names = []string{name}
	}
	for _, n := range names {
		if path, err := exec.LookPath(n); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: not found; install Valkey, or name its server with --server", strings.Join(names, " and "))
}

func start(ctx context.Context, program string, args ...string) (*server, error) {
	dir, err := os.MkdirTemp("", "flatrate-policy-")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, socket: filepath.Join(dir, "s")}
	args = append([]string{"--port", "0", "--unixsocket", s.socket, "--unixsocketperm", "700", "--dir", dir, "--save", "", "--appendonly", "no", "--logfile", filepath.Join(dir, "log")}, args...)
	s.cmd = exec.CommandContext(ctx, program, args...) //nolint:gosec // the user names the program
	if err := s.cmd.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	for end := time.Now().Add(startTime); ; time.Sleep(20 * time.Millisecond) {
		if s.client, err = s.connect(); err == nil {
			return s, nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(dir, "log")) //nolint:gosec // of the folder that was made above
			s.close()
			return nil, errors.Join(fmt.Errorf("%s does not start: %w", program, err), lastLine(string(log)))
		}
	}
}

func lastLine(log string) error {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return errors.New(last)
	}
	return nil
}

func (s *server) connect() (valkey.Client, error) {
	return valkey.NewClient(valkey.ClientOption{
		InitAddress: []string{s.socket}, DisableCache: true, ForceSingleClient: true,
		DialCtxFn: func(ctx context.Context, path string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		},
	})
}

func (s *server) close() {
	if s.client != nil {
		s.client.Close()
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	_ = os.RemoveAll(s.dir)
}

// stats are the numbers of INFO.
func (s *server) stats(ctx context.Context) (map[string]string, error) {
	text, err := s.client.Do(ctx, s.client.B().Info().Build()).ToString()
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields[name] = value
	}
	return fields, nil
}

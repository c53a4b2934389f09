package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// startServer starts a valkey-server on a socket of its own.
func startServer() (url string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "storm")
	if err != nil {
		return "", nil, err
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("valkey-server", "--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "") //nolint:noctx,gosec // stop ends it; the paths are its own
	if err := cmd.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}
	for range 1000 {
		conn, err := net.DialTimeout("unix", socket, time.Second) //nolint:noctx // a second at most
		if err == nil {
			_ = conn.Close()
			return "unix://" + socket, stop, nil
		}
		<-time.After(10 * time.Millisecond)
	}
	stop()
	return "", nil, fmt.Errorf("valkey-server does not listen on %s", socket)
}

package ratelimitd

import (
	"net"
	"os"
	"syscall"
)

// takeQueue closes a listening socket without losing what waits in its queue: connections that clients hold to be open,
// and into which they may have written. Between the last look at the queue and its end lie microseconds.
func takeQueue(l *net.TCPListener) []net.Conn {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil
	}
	var taken []int
	_ = raw.Control(func(fd uintptr) {
		for {
			c, _, err := syscall.Accept4(int(fd), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			if err == syscall.EINTR || err == syscall.ECONNABORTED {
				continue
			}
			if err != nil {
				break
			}
			taken = append(taken, c)
		}
		_ = syscall.Shutdown(int(fd), syscall.SHUT_RD) // from now on new connections are refused
	})
	var all []net.Conn
	for _, fd := range taken {
		file := os.NewFile(uintptr(fd), "connection")
		if c, err := net.FileConn(file); err == nil {
			all = append(all, c)
		}
		_ = file.Close() // FileConn has a copy
	}
	return all
}

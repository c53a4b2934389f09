//go:build !linux

package ratelimitd

import "net"

// takeQueue is for Linux; elsewhere what waits in the queue is reset when the listener is closed.
func takeQueue(*net.TCPListener) []net.Conn { return nil }

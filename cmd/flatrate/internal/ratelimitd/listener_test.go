package ratelimitd

import (
	"net"
	"testing"
)

// TestListenerClosesTwice holds that who closes a listener that has been stopped gets no error: for net/http it would be a
// request that was cut off.
func TestListenerClosesTwice(t *testing.T) {
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l := newListener(tcp, 1, func() {})
	accepting := make(chan struct{})
	go func() {
		close(accepting)
		_, _ = l.Accept()
	}()
	<-accepting
	l.stop()
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

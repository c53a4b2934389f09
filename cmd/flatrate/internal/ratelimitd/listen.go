package ratelimitd

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// minToken is how short a token may be.
const minToken = 16

// isLoopback says whether only this machine can reach a host.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// listener holds so many connections, and closes further ones at once: a caller is told now rather than left to wait
// behind clients that may be slow on purpose.
type listener struct {
	net.Listener
	places  chan struct{}
	refused func()
}

func newListener(l net.Listener, most int, refused func()) *listener {
	return &listener{l, make(chan struct{}, most), refused}
}

// open is how many connections there are.
func (l *listener) open() int { return len(l.places) }

// Accept returns the next connection that has a place.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.places <- struct{}{}:
			return &conn{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
		default:
			_ = c.Close()
			l.refused()
		}
	}
}

type conn struct {
	net.Conn
	leave func()
}

// Close also gives up the place.
func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// admits says whether a caller has shown the token or a certificate, if either is asked for. One of them is enough
// where both are.
func (s *Server) admits(authorization string, state *tls.ConnectionState) bool {
	if s.cfg.Token == "" && s.cfg.ClientCAFile == "" {
		return true
	}
	if s.cfg.ClientCAFile != "" && state != nil && len(state.VerifiedChains) > 0 {
		return true
	}
	if s.cfg.Token == "" {
		return false
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	shown, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.cfg.Token)) // of one length, whatever was shown
	return subtle.ConstantTimeCompare(shown[:], want[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

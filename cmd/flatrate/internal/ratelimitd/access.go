package ratelimitd

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"net/netip"
	"strings"
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

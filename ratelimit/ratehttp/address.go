package ratehttp

import (
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// AddressConfig says where a client's address is found. The zero value takes the address that the connection
// comes from, which no client can forge.
type AddressConfig struct {
	// Trusted are the proxies whose word on the client is taken: addresses and CIDR ranges. By default none is.
	Trusted []string
	// TrustUnix also trusts who connects through a unix socket; without it such requests have no address.
	TrustUnix bool
	// Header is where trusted proxies write it: Forwarded (RFC 7239), X-Forwarded-For, or another one that
	// has addresses separated by commas. Only this one is read, since a proxy passes on what it does
	// not know. Default X-Forwarded-For.
	Header string
	// IPv6Bits is how much of an IPv6 address counts, 1 to 128: one customer has at least 64 bits to choose
	// from. Default 64.
	IPv6Bits int
}

const (
	defaultForward  = "X-Forwarded-For"
	defaultIPv6Bits = 64
	maxHops         = 64 // that are looked at, from the right
)

// Address takes the client's address: "addr:192.0.2.1", or "addr:2001:db8::/64". It is the right-most one
// in the header that is no trusted proxy's; what stands to the left of it, the client may have written. Where
// a trusted proxy wrote no address ("unknown"), the proxy's own counts. The error names the field that is
// wrong.
func Address(cfg AddressConfig) (KeyFunc, error) {
	a := addresses{header: http.CanonicalHeaderKey(cfg.Header), bits: cfg.IPv6Bits, unix: cfg.TrustUnix}
	if cfg.Header == "" {
		a.header = defaultForward
	}
	if a.bits == 0 {
		a.bits = defaultIPv6Bits
	}
	if a.bits < 1 || a.bits > 128 {
		return nil, fmt.Errorf("ratehttp: AddressConfig.IPv6Bits is %d, not from 1 to 128", a.bits)
	}
	for i, text := range cfg.Trusted {
		prefix, err := parsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("ratehttp: AddressConfig.Trusted[%d] is %q: neither an address nor a range such as 10.0.0.0/8", i, text)
		}
		a.trusted = append(a.trusted, prefix)
	}
	return a.key, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.WithZone("").Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err == nil && prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), err
}

type addresses struct {
	trusted []netip.Prefix
	header  string
	bits    int
	unix    bool
}

func (a addresses) key(r *http.Request) (string, bool) {
	addr, ok := a.client(r)
	switch {
	case !ok:
		return "", false
	case addr.Is4() || a.bits == 128:
		return "addr:" + addr.String(), true
	}
	prefix, err := addr.Prefix(a.bits)
	return "addr:" + prefix.String(), err == nil
}

// client follows the proxies from the connection back to the first address that none of them has.
func (a addresses) client(r *http.Request) (addr netip.Addr, ok bool) {
	addr, ok = parseNode(r.RemoteAddr)
	if ok && !a.isTrusted(addr) {
		return addr, true
	}
	if !ok && (!a.unix || !isUnix(r)) {
		return addr, false
	}
	hops := 0
	for element := range fromRight(r.Header[a.header]) {
		if hops++; hops > maxHops {
			break
		}
		text := element
		if a.header == "Forwarded" {
			text = forwardedFor(element)
		}
		hop, isAddress := parseNode(text)
		if !isAddress {
			break
		}
		addr, ok = hop, true
		if !a.isTrusted(hop) {
			break
		}
	}
	return addr, ok
}

func (a addresses) isTrusted(addr netip.Addr) bool {
	for _, prefix := range a.trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// isUnix says whether the request came through a unix socket, by the listener's own address.
func isUnix(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && local.Network() == "unix"
}

// fromRight yields the elements of a list header, the last one first, without the empty ones. It does not heed
// quotes: a quote that a client left open must not swallow what a proxy appended.
func fromRight(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := len(lines) - 1; i >= 0; i-- {
			for rest, more := lines[i], true; more; {
				element := rest
				comma := strings.LastIndexByte(rest, ',')
				if more = comma >= 0; more {
					rest, element = rest[:comma], rest[comma+1:]
				}
				if element = strings.Trim(element, " \t"); element != "" && !yield(element) {
					return
				}
			}
		}
	}
}

// parseNode reads an address with or without a port: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1]:80.
func parseNode(s string) (netip.Addr, bool) {
	host, port, hasPort := s, "", false
	if rest, bracket := strings.CutPrefix(s, "["); bracket {
		host, port, hasPort = strings.Cut(rest, "]")
		if !hasPort || !strings.Contains(host, ":") {
			return netip.Addr{}, false
		}
		if port, hasPort = strings.CutPrefix(port, ":"); !hasPort && port != "" {
			return netip.Addr{}, false
		}
	} else if strings.Count(s, ":") == 1 {
		host, port, hasPort = strings.Cut(s, ":")
	}
	if hasPort && !isPort(port) {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, false
	}
	return addr.WithZone("").Unmap(), true
}

// isPort accepts what RFC 7239 does: digits, or a word that stands for them.
func isPort(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return s != ""
}

// forwardedFor is the node that an element of Forwarded names, or "" if it is malformed or names none, or two.
func forwardedFor(element string) (node string) {
	found := false
	for rest, more := element, true; more; {
		var name, value string
		var ok bool
		if name, value, rest, ok = nextPair(rest); !ok {
			return ""
		}
		if strings.EqualFold(name, "for") {
			if found {
				return ""
			}
			node, found = value, true
		}
		if rest != "" {
			if rest, more = strings.CutPrefix(rest, ";"); !more {
				return ""
			}
		} else {
			more = false
		}
	}
	return node
}

// nextPair reads token=token or token="quoted string".
func nextPair(s string) (name, value, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t")
	name, rest = cutToken(s, "")
	rest, ok = strings.CutPrefix(rest, "=")
	if name == "" || !ok {
		return "", "", "", false
	}
	if !strings.HasPrefix(rest, `"`) {
		value, rest = cutToken(rest, ":[]") // with a port or IPv6 it should be quoted, and often is not
		return name, value, strings.TrimLeft(rest, " \t"), value != ""
	}
	var b strings.Builder
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '"':
			return name, b.String(), strings.TrimLeft(rest[i+1:], " \t"), true
		case c == '\\' && i+1 < len(rest):
			i++
			b.WriteByte(rest[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", "", false
}

// cutToken splits s behind its leading token (RFC 9110), in which the bytes of also may stand.
func cutToken(s, also string) (token, rest string) {
	also += "!#$%&'*+-.^_`|~"
	i := 0
	for i < len(s) && (isAlphanumeric(s[i]) || strings.IndexByte(also, s[i]) >= 0) {
		i++
	}
	return s[:i], s[i:]
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

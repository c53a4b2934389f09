package usage

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Entry is one request of an access log. Its strings are the log's own bytes, escapes and all, and share one line's memory:
// clone what has to live long.
type Entry struct {
	Line      int64  // counted from 1
	Host      string // the server's name, where the log has it: with its port, as it stands
	Address   string // IPv4, IPv6 or a host name
	Time      time.Time
	Method    string // empty where the request is no HTTP: "-", a TLS handshake on the wrong port
	Target    string // query included
	Status    int
	Size      int64  // of the body; "-" is 0
	UserAgent string // empty in common format
}

// parseEntry reads one line without its end. When it can't, reason says why.
//
//	address ident user [02/Jan/2006:15:04:05 -0700] "request" status size "referer" "user agent"
//
// What follows the size is optional and may be cut. Before the address the name of a virtual host may stand, as in Apache's
// vhost_combined.
func parseEntry(line string) (entry Entry, reason string) {
	host, line := cutHost(line)
	address, _, _ := strings.Cut(line, " ")
	if address == "" {
		return entry, "no address"
	}
	// A user may hold spaces, so fields can't be counted up to the time.
	open := strings.Index(line, " [")
	if open < 0 {
		return entry, "no time"
	}
	stamp, rest, found := strings.Cut(line[open+2:], "] ")
	if !found {
		return entry, "no time"
	}
	if entry.Time, reason = parseTime(stamp); reason != "" {
		return entry, reason
	}
	request, rest, found := cutQuoted(rest)
	if !found {
		return entry, "no request in quotes"
	}
	if rest, found = strings.CutPrefix(rest, " "); !found {
		return entry, "no status"
	}
	status, rest, _ := strings.Cut(rest, " ")
	if entry.Status = parseStatus(status); entry.Status == 0 {
		return entry, "no status"
	}
	size, rest, _ := strings.Cut(rest, " ")
	var ok bool
	if entry.Size, ok = parseSize(size); !ok {
		return entry, "no size"
	}
	entry.Host, entry.Address = host, address
	entry.Method, entry.Target = splitRequest(request)
	entry.UserAgent = userAgent(rest)
	return entry, ""
}

// cutHost takes the name of a virtual host off a line: "host:port", or "host", before an address. Else the second word would be
// the ident, which no client has answered for decades.
func cutHost(line string) (host, rest string) {
	first, rest, _ := strings.Cut(line, " ")
	second, others, _ := strings.Cut(rest, " ")
	switch {
	case second == "" || second == "-" || second[0] == '[' || isAddress(first):
		return "", line
	case isAddress(second) && !strings.HasSuffix(first, ","): // a list of proxies has commas
		return first, rest
	case hasPort(first) && strings.HasPrefix(others, "- "): // the address is a name
		return first, rest
	}
	return "", line
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func hasPort(s string) bool {
	colon := strings.LastIndexByte(s, ':')
	return colon > 0 && isDigits(s[colon+1:])
}

// cutQuoted takes the quoted field that s starts with; found says that it is whole. Apache writes a quote inside as \", nginx as \x22.
func cutQuoted(s string) (field, rest string, found bool) {
	if s == "" || s[0] != '"' {
		return "", s, false
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[1:i], s[i+1:], true
		}
	}
	return s[1:], "", false // cut: what there is of it
}

// splitRequest takes a request line apart. Targets may hold spaces, and HTTP/0.9 names no protocol.
func splitRequest(request string) (method, target string) {
	method, target, found := strings.Cut(request, " ")
	if !found || !isMethod(method) {
		return "", ""
	}
	if i := strings.LastIndex(target, " HTTP/"); i >= 0 && isVersion(target[i+len(" HTTP/"):]) {
		target = target[:i]
	}
	return method, target
}

// isMethod keeps the bytes of a TLS handshake from passing as a method.
func isMethod(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; (c < 'a' || c > 'z') && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return s != ""
}

// isVersion accepts 1.1, and 2 as some servers write it.
func isVersion(s string) bool {
	major, minor, dotted := strings.Cut(s, ".")
	return isDigits(major) && (!dotted || isDigits(minor))
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// parseStatus returns 0 for anything but three digits from 100.
func parseStatus(s string) int {
	if len(s) != 3 || !isDigits(s) || s[0] == '0' {
		return 0
	}
	return number(s)
}

func parseSize(s string) (size int64, ok bool) {
	if s == "-" {
		return 0, true
	}
	if !isDigits(s) { // ParseInt would also take a sign
		return 0, false
	}
	size, err := strconv.ParseInt(s, 10, 64)
	return size, err == nil
}

// userAgent finds the second quoted field. Where its closing quote is missing it was cut, and is the rest of the line.
func userAgent(rest string) string {
	_, rest, _ = cutQuoted(rest)
	rest, _ = strings.CutPrefix(rest, " ")
	agent, _, _ := cutQuoted(rest)
	return agent
}

// number reads digits that were checked before.
func number(digits string) (n int) {
	for i := range len(digits) {
		n = n*10 + int(digits[i]-'0')
	}
	return n
}

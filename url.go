package flatrate

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	defaultPort    = "6379"
	defaultTimeout = 5 * time.Second
)

// target is what a URL says.
type target struct {
	addrs          []string // host:port of each node, or the path of one socket
	user, password string
	passwordFile   string
	db             int
	tls            bool
	caFile         string
	timeout        time.Duration
}

// where names the target without its secrets.
func (t target) where() string { return strings.Join(t.addrs, ", ") }

// parseURL reads a URL by hand: net/url rejects several hosts, and puts the whole URL into its errors.
//
// No error here repeats a part of the URL, because a mistake may have put the password anywhere: in
// the place of a port, of a database or, behind an unescaped ?, of a parameter.
func parseURL(raw string) (target, error) {
	t := target{timeout: defaultTimeout}
	scheme, rest, ok := strings.Cut(raw, "://")
	scheme = strings.ToLower(scheme)
	if !ok || !slices.Contains([]string{"valkey", "valkeys", "redis", "rediss", "unix"}, scheme) {
		return t, wrongURL("it has to begin with valkey://, valkeys://, redis://, rediss:// or unix://")
	}
	t.tls = scheme == "valkeys" || scheme == "rediss"
	authority, path, query := split(rest)
	if strings.Contains(path+query, "@") || strings.Contains(rest, "#") {
		return t, wrongURL("an @, /, ? or # within a user name, a password or a path has to be written %%40, %%2F, %%3F or %%23")
	}
	hosts := authority
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		hosts = authority[at+1:]
		if err := t.signIn(authority[:at]); err != nil {
			return t, err
		}
	}
	var err error
	if scheme == "unix" {
		err = t.socket(hosts, path)
	} else {
		err = t.nodes(hosts, path)
	}
	if err != nil {
		return t, err
	}
	return t, t.parameters(query)
}

func split(rest string) (authority, path, query string) {
	rest, query, _ = strings.Cut(rest, "?")
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[:i], rest[i:], query
	}
	return rest, "", query
}

func (t *target) signIn(userinfo string) (err error) {
	user, password, _ := strings.Cut(userinfo, ":")
	if t.user, err = unescape(user); err == nil {
		t.password, err = unescape(password)
	}
	return err
}

func (t *target) socket(hosts, path string) (err error) {
	if hosts != "" {
		return wrongURL("unix:// takes no host: the path begins with a third slash, as in unix:///run/valkey.sock")
	}
	if path, err = unescape(path); err != nil {
		return err
	}
	if len(path) < 2 || strings.ContainsRune(path, 0) {
		return wrongURL("unix:// needs the path of a socket")
	}
	t.addrs = []string{path}
	return nil
}

func (t *target) nodes(hosts, path string) error {
	for host := range strings.SplitSeq(hosts, ",") {
		addr, err := parseAddr(host)
		if err != nil {
			return err
		}
		t.addrs = append(t.addrs, addr)
	}
	if path = strings.TrimPrefix(path, "/"); path != "" {
		return t.setDB(path)
	}
	return nil
}

// parseAddr reads host, host:port, [ipv6] or [ipv6]:port.
func parseAddr(s string) (string, error) {
	host, port := s, defaultPort
	if v6, after, ok := strings.Cut(strings.TrimPrefix(s, "["), "]"); ok && s[0] == '[' {
		ip, err := netip.ParseAddr(v6)
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", wrongURL("within [ and ] stands an IPv6 address without a zone, as in [::1]:6379")
		}
		host, port = v6, defaultPort
		if after != "" {
			if port, ok = strings.CutPrefix(after, ":"); !ok {
				port = ""
			}
		}
	} else {
		if name, p, ok := strings.Cut(s, ":"); ok {
			host, port = name, p
		}
		if host == "" {
			return "", wrongURL("a host is missing, as in valkey://localhost:6379")
		}
		if strings.ContainsFunc(host, notInHost) {
			return "", wrongURL("a host has a character that no host name has; several hosts are separated by commas")
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", wrongURL("a port is a number from 1 to 65535; an IPv6 address stands within [ and ]")
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
}

func notInHost(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r)
}

func (t *target) setDB(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return wrongURL("the database is a number from 0, as in valkey://localhost/0")
	}
	t.db = int(n)
	return nil
}

// settings are the parameters that a URL may have behind its question mark.
var settings = map[string]func(t *target, value string) error{
	"ca": func(t *target, path string) error {
		if t.caFile = path; !t.tls {
			return wrongURL("ca= is for valkeys://: this URL asks for plain text")
		}
		return nil
	},
	"db": func(t *target, n string) error {
		if !strings.HasPrefix(t.addrs[0], "/") {
			return wrongURL("db= is for unix://: elsewhere the database is the path, as in valkey://localhost/0")
		}
		return t.setDB(n)
	},
	"password_file": func(t *target, path string) error {
		if t.passwordFile = path; t.password != "" {
			return wrongURL("it has a password and a password_file=: only one of them can be meant")
		}
		return nil
	},
	"timeout": func(t *target, s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return wrongURL("timeout= is a duration with its unit, as in 500ms or 5s")
		}
		if d > 0 {
			t.timeout = d
		}
		return nil
	},
}

func (t *target) parameters(query string) error {
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		set, ok := settings[name]
		if !ok {
			return unknownParameter(name)
		}
		if seen[name] {
			return wrongURL("%s= is there twice", name)
		}
		seen[name] = true
		value, err := unescape(value)
		if err != nil {
			return err
		}
		if value == "" {
			return wrongURL("%s= has no value", name)
		}
		if err := set(t, value); err != nil {
			return err
		}
	}
	return nil
}

func unknownParameter(name string) error {
	known := slices.Sorted(maps.Keys(settings))
	if len(name) > 20 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_-") != "" {
		return wrongURL("it has an unknown parameter; there are %s", strings.Join(known, ", "))
	}
	for _, word := range []string{"skip", "verif", "insecure"} {
		if strings.Contains(name, word) {
			return wrongURL("there is no %s: certificates are always verified; the file of an authority is named with ca=", name)
		}
	}
	nearest := slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
	return wrongURL("there is no parameter %s; the nearest is %s", name, nearest)
}

// distance is how many letters have to be put in, taken out or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func unescape(s string) (string, error) {
	s, err := url.PathUnescape(s)
	if err != nil {
		return "", wrongURL("a %% that stands for itself has to be written %%25")
	}
	return s, nil
}

func wrongURL(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrURL}, args...)...)
}

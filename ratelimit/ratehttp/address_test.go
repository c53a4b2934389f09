package ratehttp_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/ratelimit/ratehttp"
)

func request(remote string, header string, lines ...string) *http.Request {
	r := &http.Request{RemoteAddr: remote, Header: http.Header{}}
	for _, line := range lines {
		r.Header.Add(header, line)
	}
	return r
}

func address(t testing.TB, cfg ratehttp.AddressConfig) ratehttp.KeyFunc {
	t.Helper()
	key, err := ratehttp.Address(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestAddress(t *testing.T) {
	proxies := []string{"10.0.0.0/8", "::ffff:172.16.0.0/108", "2001:db8:ffff::/48", "192.0.2.99"}
	for _, c := range []struct {
		name, remote string
		lines        []string
		want         string // without "addr:"; "" for none
	}{
		{"no proxy", "198.51.100.7:1234", nil, "198.51.100.7"},
		{"a stranger's word", "198.51.100.7:1234", []string{"203.0.113.1"}, "198.51.100.7"},
		{"one proxy", "10.0.0.1:80", []string{"198.51.100.7"}, "198.51.100.7"},
		{"a client that lies", "10.0.0.1:80", []string{"127.0.0.1, 10.9.9.9, 198.51.100.7"}, "198.51.100.7"},
		{"two proxies", "10.0.0.1:80", []string{"1.1.1.1,198.51.100.7 , 192.0.2.99"}, "198.51.100.7"},
		{"in two lines", "10.0.0.1:80", []string{"1.1.1.1", "198.51.100.7", "10.0.0.2"}, "198.51.100.7"},
		{"a mapped proxy", "[::ffff:172.16.3.4]:80", []string{"198.51.100.7"}, "198.51.100.7"},
		{"all are proxies", "10.0.0.1:80", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"a proxy by itself", "10.0.0.1:80", nil, "10.0.0.1"},
		{"with a port", "10.0.0.1:80", []string{"198.51.100.7:4711"}, "198.51.100.7"},
		{"IPv6", "[2001:db8:ffff::1]:80", []string{"2001:db8:1:2:3:4:5:6"}, "2001:db8:1:2::/64"},
		{"IPv6 with a port", "[2001:db8:ffff::1]:80", []string{"[2001:db8:1:2:3:4:5:6]:80"}, "2001:db8:1:2::/64"},
		{"IPv6 with a zone", "[fe80::1%eth0]:80", nil, "fe80::/64"},
		{"a mapped client", "10.0.0.1:80", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		{"a proxy that does not know", "10.0.0.1:80", []string{"198.51.100.7, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"rubbish", "10.0.0.1:80", []string{"198.51.100.7:x y"}, "10.0.0.1"},
		{"empty elements", "10.0.0.1:80", []string{", 198.51.100.7, ,", ""}, "198.51.100.7"},
		{"no port", "198.51.100.7", nil, "198.51.100.7"},
		{"a bracket too many", "10.0.0.1:80", []string{"[198.51.100.7]"}, "10.0.0.1"},
		{"a bracket too few", "10.0.0.1:80", []string{"[2001:db8::1"}, "10.0.0.1"},
		{"behind a bracket", "10.0.0.1:80", []string{"[2001:db8::1]80"}, "10.0.0.1"},
		{"no address at all", "@", []string{"198.51.100.7"}, ""},
		{"too many proxies", "10.0.0.1:80", []string{"198.51.100.7" + strings.Repeat(", 10.0.0.3", 64)}, "10.0.0.3"},
	} {
		got, ok := address(t, ratehttp.AddressConfig{Trusted: proxies})(request(c.remote, "X-Forwarded-For", c.lines...))
		if want := "addr:" + c.want; ok != (c.want != "") || ok && got != want {
			t.Errorf("%s: %q %v, want %q", c.name, got, ok, want)
		}
	}
}

func TestForwarded(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"for=198.51.100.7", "198.51.100.7"},
		{"For=198.51.100.7;proto=https;by=10.0.0.1", "198.51.100.7"},
		{`proto=http ; for="198.51.100.7:80" ; host="a;b"`, "198.51.100.7"},
		{`for="[2001:db8:cafe::17]:4711"`, "2001:db8:cafe::/64"},
		{`for=[2001:db8:cafe::17]:4711`, "2001:db8:cafe::/64"},
		{`for="198.51.100.7:_obfuscated"`, "198.51.100.7"},
		{"for=203.0.113.1, for=198.51.100.7, for=10.0.0.2;proto=http", "198.51.100.7"},
		{`for="203.0.113.1, for=198.51.100.7`, "198.51.100.7"}, // a quote left open by the client
		{`for=203.0.113.1;host="a,for=9.9.9.9", for=198.51.100.7`, "198.51.100.7"},
		{`for=203.0.113.1;host="a,for=9.9.9.9"`, "10.0.0.1"}, // a host that the client chose
		{"for=unknown", "10.0.0.1"},
		{"for=_hidden", "10.0.0.1"},
		{"for=198.51.100.7;for=198.51.100.8", "10.0.0.1"},
		{"by=198.51.100.7", "10.0.0.1"},
		{"for=198.51.100.7;", "10.0.0.1"},
		{"for=198.51.100.7 proto=http", "10.0.0.1"},
		{`for="198.51.100.7\`, "10.0.0.1"},
		{`for="198\.51.100.7"`, "198.51.100.7"},
		{"for", "10.0.0.1"},
		{"=198.51.100.7", "10.0.0.1"},
	} {
		key := address(t, ratehttp.AddressConfig{Trusted: []string{"10.0.0.0/8"}, Header: "forwarded"})
		if got, ok := key(request("10.0.0.1:80", "Forwarded", c.line)); !ok || got != "addr:"+c.want {
			t.Errorf("%s: %q, want addr:%s", c.line, got, c.want)
		}
	}
	key := address(t, ratehttp.AddressConfig{Trusted: []string{"10.0.0.0/8"}, Header: "X-Real-Ip"})
	r := request("10.0.0.1:80", "X-Real-Ip", "198.51.100.7")
	r.Header.Set("X-Forwarded-For", "203.0.113.1") // not the header of this proxy
	if got, _ := key(r); got != "addr:198.51.100.7" {
		t.Error(got)
	}
}

func TestAddressNamesTheField(t *testing.T) {
	for want, cfg := range map[string]ratehttp.AddressConfig{
		"Trusted[1]": {Trusted: []string{"10.0.0.0/8", "10.0.0.0/33"}},
		"Trusted[0]": {Trusted: []string{"proxy.internal"}},
		"IPv6Bits":   {IPv6Bits: 129},
	} {
		if _, err := ratehttp.Address(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if got, _ := address(t, ratehttp.AddressConfig{IPv6Bits: 128})(request("[2001:db8::1]:1", "")); got != "addr:2001:db8::1" {
		t.Error(got)
	}
}

// fuzzAddress holds that nothing a client writes matters once a trusted proxy has appended the client's address.
func fuzzAddress(f *testing.F, header, format string, seeds ...string) {
	for _, seed := range seeds {
		f.Add(seed, "", uint32(0xc6336407))
		f.Add(seed, seed, uint32(0x0a000001))
	}
	key := address(f, ratehttp.AddressConfig{Trusted: []string{"10.0.0.0/8"}, Header: header})
	f.Fuzz(func(t *testing.T, line, another string, n uint32) {
		client := netip.AddrFrom4([4]byte{byte(n>>24) | 0x80, byte(n >> 16), byte(n >> 8), byte(n)}) // never 10.0.0.0/8
		element := strings.Replace(format, "ADDR", client.String(), 1)
		for _, lines := range [][]string{{line + "," + element}, {line, another, element}, {line, another + " , " + element + ", "}} {
			if got, ok := key(request("10.0.0.1:1", header, lines...)); !ok || got != "addr:"+client.String() {
				t.Errorf("%q: %q %v, want %v", lines, got, ok, client)
			}
		}
		got, ok := key(request("10.0.0.1:1", header, line, another))
		if ip, isAddr := strings.CutPrefix(got, "addr:"); !ok || !isAddr {
			t.Errorf("%q %q: %q %v", line, another, got, ok)
		} else if _, err := netip.ParseAddr(ip); err != nil && !strings.HasSuffix(ip, "/64") {
			t.Errorf("%q %q: %q", line, another, got)
		}
	})
}

func FuzzForwardedFor(f *testing.F) {
	fuzzAddress(f, "X-Forwarded-For", "ADDR", "", "1.2.3.4", "1.2.3.4, [::1]:80", `"`, "unknown,,", "[", "fe80::1%a,b")
}

func FuzzForwarded(f *testing.F) {
	fuzzAddress(f, "Forwarded", "for=ADDR;proto=http", "", "for=1.2.3.4", `for="`, `for="[::1]:80";by=_x`, `a="b\`, ";", "for=1.2.3.4;for=2.3.4.5")
}

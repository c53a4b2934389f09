package flatrate

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseURL(t *testing.T) {
	const s = defaultTimeout
	for url, want := range map[string]target{
		"valkey://h":                      {addrs: []string{"h:6379"}, timeout: s},
		"redis://h/":                      {addrs: []string{"h:6379"}, timeout: s},
		"VALKEY://h:6380/3":               {addrs: []string{"h:6380"}, db: 3, timeout: s},
		"valkeys://h":                     {addrs: []string{"h:6379"}, tls: true, timeout: s},
		"rediss://h?ca=/a%20b.pem":        {addrs: []string{"h:6379"}, tls: true, caFile: "/a b.pem", timeout: s},
		"valkey://u:p@h":                  {addrs: []string{"h:6379"}, user: "u", password: "p", timeout: s},
		"valkey://:p@h":                   {addrs: []string{"h:6379"}, password: "p", timeout: s},
		"valkey://u@h":                    {addrs: []string{"h:6379"}, user: "u", timeout: s},
		"valkey://u:a:b@c%2f@h":           {addrs: []string{"h:6379"}, user: "u", password: "a:b@c/", timeout: s},
		"valkey://u:p@a:1,b,c_d:3/0":      {addrs: []string{"a:1", "b:6379", "c_d:3"}, user: "u", password: "p", timeout: s},
		"valkey://[::1]:7000,[fe80::2]/1": {addrs: []string{"[::1]:7000", "[fe80::2]:6379"}, db: 1, timeout: s},
		"valkey://h?timeout=2s":           {addrs: []string{"h:6379"}, timeout: 2 * time.Second},
		"valkey://h?timeout=0&":           {addrs: []string{"h:6379"}, timeout: s},
		"valkey://u@h?password_file=/x":   {addrs: []string{"h:6379"}, user: "u", passwordFile: "/x", timeout: s},
		"unix:///run/v.sock":              {addrs: []string{"/run/v.sock"}, timeout: s},
		"unix://u:p@/run/a%40.sock?db=2":  {addrs: []string{"/run/a@.sock"}, user: "u", password: "p", db: 2, timeout: s},
	} {
		got, err := parseURL(url)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", url, got, err, want)
		}
	}
}

func TestParseURLErrors(t *testing.T) {
	for url, says := range map[string]string{
		"":                                     "begin with valkey://",
		"localhost:6379":                       "begin with valkey://",
		"http://h":                             "begin with valkey://",
		"valkey:/h":                            "begin with valkey://",
		"valkey://":                            "a host is missing",
		"valkey://u:hunter2@":                  "a host is missing",
		"valkey://:6379":                       "a host is missing",
		"valkey://a,,b":                        "a host is missing",
		"valkey://a b":                         "a character that no host name has",
		"valkey://a;b":                         "separated by commas",
		"valkey://u:hunter2":                   "a port is a number",
		"valkey://u:hunter2:6379":              "a port is a number",
		"valkey://h:0":                         "a port is a number",
		"valkey://h:65536":                     "a port is a number",
		"valkey://h:+1":                        "a port is a number",
		"valkey://h:":                          "a port is a number",
		"valkey://::1":                         "a host is missing",
		"valkey://fe80::1:6379":                "stands within [ and ]",
		"valkey://[::1":                        "a character that no host name has",
		"valkey://[::1]6379":                   "a port is a number",
		"valkey://[1.2.3.4]":                   "stands an IPv6 address",
		"valkey://[fe80::1%25eth0]":            "stands an IPv6 address",
		"valkey://h/one":                       "the database is a number",
		"valkey://h/-1":                        "the database is a number",
		"valkey://h/0/1":                       "the database is a number",
		"valkey://h/99999999999":               "the database is a number",
		"valkey://u:hunter2/x@h":               "written %40, %2F, %3F or %23",
		"valkey://u:hunter2?x@h":               "written %40, %2F, %3F or %23",
		"valkey://u:hunter2#x@h":               "written %40, %2F, %3F or %23",
		"valkey://u:x@hunter2/@h":              "written %40, %2F, %3F or %23",
		"valkey://h/0#hunter2":                 "written %40, %2F, %3F or %23",
		"valkey://u:hunter2%zz@h":              "has to be written %25",
		"valkey://h?ca=/x":                     "ca= is for valkeys://",
		"valkeys://h?ca=":                      "ca= has no value",
		"valkeys://h?ca=%":                     "has to be written %25",
		"valkeys://h?ca=a&ca=b":                "ca= is there twice",
		"valkey://h?db=1":                      "db= is for unix://",
		"valkey://h?timeout=2":                 "a duration with its unit",
		"valkey://h?timeout=-2s":               "a duration with its unit",
		"valkey://u:hunter2@h?password_file=x": "only one of them",
		"valkeys://h?skip_verify=1":            "no skip_verify: certificates are always verified",
		"valkeys://h?insecure-tls":             "certificates are always verified",
		"valkey://h?timout=1s":                 "no parameter timout; the nearest is timeout",
		"valkey://h?dial_timeout=1s":           "the nearest is timeout",
		"valkey://h?passwordfile=x":            "the nearest is password_file",
		"valkey://h?cacert=x":                  "the nearest is ca",
		"valkey://h?hunter2=x":                 "it has an unknown parameter; there are ca, db,",
		"unix://host/run/v.sock":               "unix:// takes no host",
		"unix://u:hunter2/run/v.sock":          "unix:// takes no host",
		"unix://":                              "needs the path",
		"unix:///":                             "needs the path",
		"unix:///a%00b":                        "needs the path",
		"unix:///run/v.sock?db=x":              "the database is a number",
		"unix:///run/v%.sock":                  "has to be written %25",
	} {
		_, err := parseURL(url)
		switch {
		case err == nil:
			t.Errorf("%s: no error", url)
		case !errors.Is(err, ErrURL), !strings.Contains(err.Error(), says):
			t.Errorf("%s: %v; want %q", url, err, says)
		case strings.Contains(err.Error(), "hunter2"), strings.Contains(err.Error(), "%!"):
			t.Errorf("%s: %v", url, err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("valkey://u:", "@h:1,[::1]:2/3?timeout=1s")
	f.Add("unix://", "@/run/v.sock?db=1")
	f.Add("valkeys://h?ca=", "&password_file=")
	f.Add("", "://h")
	const secret = "Hunter2Hunter2"
	f.Fuzz(func(t *testing.T, before, after string) {
		got, err := parseURL(before + secret + after)
		if err != nil {
			if !errors.Is(err, ErrURL) || strings.Contains(err.Error(), secret) {
				t.Errorf("%v", err)
			}
			return
		}
		if len(got.addrs) == 0 || got.timeout <= 0 || got.db < 0 || got.password != "" && got.passwordFile != "" {
			t.Errorf("%+v", got)
		}
		for _, addr := range got.addrs {
			if addr == "" || strings.ContainsAny(addr, "\r\n") && !strings.HasPrefix(addr, "/") {
				t.Errorf("address %q", addr)
			}
		}
	})
}

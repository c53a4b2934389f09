package flatrate_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

const (
	secret  = "hunter2hunter2"
	patient = 30 * time.Second // a bound that only a hang reaches
)

func connect(t *testing.T, url string, tune ...func(*valkey.ClientOption)) (valkey.Client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c, err := flatrate.Connect(ctx, url, tune...)
	if err == nil {
		t.Cleanup(c.Close)
	} else if ctx.Err() != nil {
		t.Fatalf("%s: not within %v: %v", url, patient, err)
	}
	return c, err
}

func works(t *testing.T, c valkey.Client) {
	t.Helper()
	key := valkeytest.Prefix(t)
	if err := c.Do(t.Context(), c.B().Set().Key(key).Value("v").Build()).Error(); err != nil {
		t.Error(err)
	}
	if v, err := c.Do(t.Context(), c.B().Get().Key(key).Build()).ToString(); err != nil || v != "v" {
		t.Errorf("got %q, %v", v, err)
	}
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConnectForms(t *testing.T) {
	plain := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Password: secret, Args: []string{"--bind", "127.0.0.1", "-::1"}})
	redis := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Binary: valkeytest.Redis})
	tls := valkeytest.StartWith(t, valkeytest.Config{TLS: true, Password: secret})
	_, port, _ := net.SplitHostPort(plain.Addr)
	_, tlsPort, _ := net.SplitHostPort(tls.Addr)
	c := plain.Client()
	if err := c.Do(t.Context(), c.B().Arbitrary("ACL", "SETUSER", "app", "on", ">"+secret, "~*", "+@all").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	for name, url := range map[string]string{
		"password":        "valkey://:" + secret + "@" + plain.Addr,
		"user":            "valkey://app:" + secret + "@" + plain.Addr,
		"database":        "valkey://:" + secret + "@" + plain.Addr + "/3",
		"redis":           "redis://" + redis.Addr,
		"name":            "valkey://:" + secret + "@localhost:" + port,
		"socket":          "unix://:" + secret + "@" + plain.Socket + "?db=2",
		"redis socket":    "unix://" + redis.Socket,
		"password file":   "valkey://app@" + plain.Addr + "?password_file=" + file(t, secret+"\r\n"),
		"TLS":             "valkeys://:" + secret + "@" + tls.Addr + "?ca=" + tls.CAFile,
		"TLS, rediss":     "rediss://default:" + secret + "@localhost:" + tlsPort + "?ca=" + tls.CAFile,
		"TLS, and socket": "unix://:" + secret + "@" + tls.Socket,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := connect(t, url)
			if err != nil {
				t.Fatal(err)
			}
			works(t, c)
		})
	}
	t.Run("IPv6", func(t *testing.T) {
		if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
			t.Skip("no IPv6 here")
		} else {
			l.Close()
		}
		c, err := connect(t, "valkey://:"+secret+"@[::1]:"+port)
		if err != nil {
			t.Fatal(err)
		}
		works(t, c)
	})
}

func TestConnectUsesTheDatabase(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	c, err := connect(t, "valkey://"+s.Addr+"/5")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Do(t.Context(), c.B().Set().Key("k").Value("v").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	info, err := c.Do(t.Context(), c.B().Info().Section("keyspace").Build()).ToString()
	if err != nil || !strings.Contains(info, "db5:keys=1") {
		t.Errorf("%q, %v", info, err)
	}
}

func TestConnectCluster(t *testing.T) {
	nodes := valkeytest.ClusterWith(t, 3, valkeytest.Config{Password: secret})
	free := fmt.Sprintf("127.0.0.1:%d", valkeytest.FreePort(t))
	for name, hosts := range map[string]string{
		"one host":       nodes.Addrs()[1],
		"all hosts":      strings.Join(nodes.Addrs(), ","),
		"one is missing": free + "," + nodes.Addrs()[2],
	} {
		t.Run(name, func(t *testing.T) {
			c, err := connect(t, "valkey://:"+secret+"@"+hosts+"/0")
			if err != nil {
				t.Fatal(err)
			}
			if c.Mode() != valkey.ClientModeCluster {
				t.Errorf("mode %v", c.Mode())
			}
			for range 10 {
				works(t, c)
			}
		})
	}
}

// A service that forbids CLIENT TRACKING, or a user who may not call INFO, is served all the same.
func TestConnectWithFewRights(t *testing.T) {
	for name, rights := range map[string][]string{
		"no tracking": {"+@all", "-client|tracking"},
		"no info":     {"+@all", "-info"},
		"no cluster":  {"+@all", "-cluster"},
		"no client":   {"+@all", "-client"},
		"little":      {"-@all", "+get", "+set"},
	} {
		t.Run(name, func(t *testing.T) {
			s := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
			c := s.Client()
			acl := append([]string{"ACL", "SETUSER", "app", "on", ">" + secret, "~*"}, rights...)
			if err := c.Do(t.Context(), c.B().Arbitrary(acl...).Build()).Error(); err != nil {
				t.Fatal(err)
			}
			c, err := connect(t, "valkey://app:"+secret+"@"+s.Addr)
			if err != nil {
				t.Fatal(err)
			}
			works(t, c)
		})
	}
}

// A server that is still reading its data into memory answers, but does not serve.
func TestConnectWhileLoading(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Args: []string{"--enable-debug-command", "yes",
		"--loading-process-events-interval-bytes", "1024"}})
	c := s.Client()
	do := func(words ...string) error {
		return c.Do(t.Context(), c.B().Arbitrary(words...).Build()).Error()
	}
	if err := errors.Join(do("DEBUG", "POPULATE", "50000"), do("CONFIG", "SET", "key-load-delay", "1000")); err != nil {
		t.Fatal(err)
	}
	reloaded := make(chan error, 1)
	go func() { reloaded <- do("DEBUG", "RELOAD") }()
	defer func() { s.Kill(); <-reloaded }() // it would take most of a minute
	for !strings.HasPrefix(ping(t, s.Socket), "-LOADING") {
		select {
		case err := <-reloaded:
			reloaded <- err
			t.Fatalf("reloaded too early: %v", err)
		default:
		}
	}
	if _, err := connect(t, "valkey://"+s.Addr); err != nil {
		t.Fatal(err)
	}
	if answer := ping(t, s.Socket); !strings.HasPrefix(answer, "-LOADING") {
		t.Fatalf("not loading any more: %q", answer)
	}
}

func ping(t *testing.T, socket string) string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "PING\r\n")
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func TestTuneIsLast(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Password: secret})
	c, err := connect(t, "valkey://:wrong@127.0.0.1:1/7",
		func(o *valkey.ClientOption) { o.Password, o.ClientName = secret, "tuned" },
		func(o *valkey.ClientOption) { o.InitAddress, o.SelectDB = []string{s.Addr}, 0 },
	)
	if err != nil {
		t.Fatal(err)
	}
	works(t, c)
	if name, err := c.Do(t.Context(), c.B().ClientGetname().Build()).ToString(); err != nil || name != "tuned" {
		t.Errorf("client name %q, %v", name, err)
	}
}

// A password that is rotated in its file is used by the connections made from then on.
func TestPasswordFileIsReadAgain(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Password: "first-" + secret})
	path := file(t, "first-"+secret+"\n")
	c, err := connect(t, "valkey://"+s.Addr+"?password_file="+path)
	if err != nil {
		t.Fatal(err)
	}
	works(t, c)
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	admin := s.Client()
	for _, words := range [][]string{{"CONFIG", "SET", "requirepass", secret}, {"CLIENT", "KILL", "TYPE", "normal"}} {
		if err := admin.Do(t.Context(), admin.B().Arbitrary(words...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() error { // each of the two connections breaks once
		var broken error
		for range 20 {
			broken = errors.Join(broken, c.Do(t.Context(), c.B().Set().Key("k").Value("v").Build()).Error())
		}
		return broken
	})
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stub answers each connection with serve, as no server that can be installed does any more.
func stub(t *testing.T, serve func(conn net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); serve(conn) }()
		}
	}()
	return l.Addr().String()
}

// oldRedis speaks as Redis 5 and 6 do: there is no package of either any more.
func oldRedis(version string, hello bool) func(net.Conn) {
	return func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for {
			words, err := readCommand(r)
			if err != nil {
				return
			}
			reply := "+OK\r\n"
			switch strings.ToUpper(words[0]) {
			case "HELLO":
				reply = "-ERR unknown command `HELLO`, with args beginning with: `" + strings.Join(words[1:], "`, `") + "`, \r\n"
				if hello {
					reply = "%2\r\n+version\r\n+" + version + "\r\n+proto\r\n:3\r\n"
				}
			case "AUTH":
				if len(words) != 2 {
					reply = "-ERR wrong number of arguments for 'auth' command\r\n"
				}
			case "CLUSTER":
				reply = "-ERR This instance has cluster support disabled\r\n"
			case "INFO":
				info := "# Server\r\nredis_version:" + version + "\r\n"
				reply = fmt.Sprintf("$%d\r\n%s\r\n", len(info), info)
			case "CLIENT":
				if !hello {
					reply = "-ERR Unknown subcommand or wrong number of arguments for 'TRACKING'\r\n"
				}
			}
			if _, err := io.WriteString(conn, reply); err != nil {
				return
			}
		}
	}
}

func readCommand(r *bufio.Reader) ([]string, error) {
	var n int
	if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
		return nil, err
	}
	words := make([]string, n)
	for i := range words {
		var size int
		if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
			return nil, err
		}
		word := make([]byte, size+2)
		if _, err := io.ReadFull(r, word); err != nil {
			return nil, err
		}
		words[i] = string(word[:size])
	}
	return words, nil
}

func TestConnectErrors(t *testing.T) {
	plain := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Password: secret})
	tls := valkeytest.StartWith(t, valkeytest.Config{TLS: true, Password: secret})
	other := valkeytest.StartWith(t, valkeytest.Config{TLS: true})
	mutual := valkeytest.StartWith(t, valkeytest.Config{TLS: true, Args: []string{"--tls-auth-clients", "yes"}})
	cluster := valkeytest.Cluster(t, 1)
	down := valkeytest.StartWith(t, valkeytest.Config{TCP: true, Args: []string{
		"--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(valkeytest.FreePort(t))}})
	paused := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	paused.Pause()
	limited := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	c := limited.Client()
	if err := c.Do(t.Context(), c.B().Arbitrary("ACL", "SETUSER", "app", "on", ">"+secret, "+@all", "-select").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	http := stub(t, func(conn net.Conn) {
		_, _ = bufio.NewReader(conn).ReadString('\n')
		fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
	})
	mute := stub(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	rude := stub(t, func(net.Conn) {})
	leaky := stub(t, func(conn net.Conn) { // a proxy that knows neither HELLO nor AUTH
		r := bufio.NewReader(conn)
		for {
			words, err := readCommand(r)
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "-ERR unknown command '%s', with args beginning with: '%s' \r\n", words[0], strings.Join(words[1:], "' '"))
		}
	})
	host := func(addr string) string { return ":" + secret + "@" + addr }
	free := fmt.Sprintf("127.0.0.1:%d", valkeytest.FreePort(t))
	_, tlsPort, _ := net.SplitHostPort(tls.Addr)
	for name, test := range map[string]struct {
		url, says string
		is        error
	}{
		"URL":              {"http://" + host(plain.Addr), "begin with valkey://", flatrate.ErrURL},
		"refused":          {"valkey://" + host(free), free + ": nothing listens there", syscall.ECONNREFUSED},
		"all refused":      {"valkey://" + host(free+","+free), "nothing listens there", syscall.ECONNREFUSED},
		"no socket":        {"unix://" + host("/nowhere/s"), "/nowhere/s: there is no such socket", os.ErrNotExist},
		"dead socket":      {"unix://" + host(deadSocket(t)), "nothing listens there", syscall.ECONNREFUSED},
		"unknown host":     {"valkey://" + host("nosuchhost.invalid"), "the name nosuchhost.invalid can't be resolved", nil},
		"no password":      {"valkey://" + plain.Addr, plain.Addr + ": the server wants a password", flatrate.ErrAuth},
		"wrong password":   {"valkey://u:x" + host(plain.Addr), "rejects the user name or the password", flatrate.ErrAuth},
		"no password file": {"valkey://" + plain.Addr + "?password_file=/nowhere", "password_file= can't be read", os.ErrNotExist},
		"empty file":       {"valkey://" + plain.Addr + "?password_file=" + file(t, "\n"), "password_file= is empty", nil},
		"wrong file":       {"valkey://" + plain.Addr + "?password_file=" + file(t, "x"+secret), "rejects", flatrate.ErrAuth},
		"rights":           {"valkey://app" + host(limited.Addr) + "/1", "may not do what it takes", flatrate.ErrAuth},
		"no CA file":       {"valkeys://" + host(tls.Addr) + "?ca=/nowhere", "ca= can't be read", os.ErrNotExist},
		"bad CA file":      {"valkeys://" + host(tls.Addr) + "?ca=" + file(t, secret), "no PEM certificate", nil},
		"unknown CA":       {"valkeys://" + host(tls.Addr), "an authority that is not trusted here", nil},
		"other CA":         {"valkeys://" + host(tls.Addr) + "?ca=" + other.CAFile, "an authority that is not trusted here", nil},
		"wrong name":       {"valkeys://" + host("127.0.0.2:"+tlsPort) + "?ca=" + tls.CAFile, "its certificate is for another name", nil},
		"client cert":      {"valkeys://" + mutual.Addr + "?ca=" + mutual.CAFile, "certificate", nil},
		"plain for TLS":    {"valkeys://" + host(plain.Addr) + "?timeout=1s", "not speak TLS", nil},
		"mute for TLS":     {"valkeys://" + host(mute) + "?timeout=50ms", "a connection but no answer in time: the server hangs, or does not speak TLS", context.DeadlineExceeded},
		"TLS for plain":    {"valkey://" + host(tls.Addr), "speak", nil},
		"mute":             {"valkey://" + host(mute) + "?timeout=50ms", "a connection but no answer in time", context.DeadlineExceeded},
		"paused":           {"valkey://" + host(paused.Addr) + "?timeout=50ms", "a connection but no answer in time", context.DeadlineExceeded},
		"HTTP":             {"valkey://" + host(http), "neither Valkey nor Redis", nil},
		"rude":             {"valkey://" + host(rude), "closes the connection", nil},
		"leaky":            {"valkey://" + host(leaky), "too old", flatrate.ErrTooOld},
		"Redis 6":          {"valkey://" + host(stub(t, oldRedis("6.2.14", true))), "Redis 6.2.14 is too old", flatrate.ErrTooOld},
		"Redis 5":          {"valkey://" + host(stub(t, oldRedis("5.0.14", false))), "Redis 5.0.14 is too old", flatrate.ErrTooOld},
		"no database":      {"valkey://" + host(plain.Addr) + "/99", "no database 99", nil},
		"cluster database": {"valkey://" + host(cluster.Addrs()[0]) + "/1", "a cluster has no database 1", nil},
		"no cluster":       {"valkey://" + host(plain.Addr+","+plain.Addr), "several hosts are for a cluster", nil},
		"cluster down":     {"valkey://" + host(down.Addr), "its cluster is down", nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := connect(t, test.url)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.says) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%v\nwant %q and %v", err, test.says, test.is)
			}
			if strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "flatrate: ") {
				t.Errorf("not one sentence: %q", err)
			}
			if text := allText(err); strings.Contains(text, secret) {
				t.Errorf("the secret is in it: %s", text)
			}
			t.Log(err)
		})
	}
}

// allText is what an error says, and all that it wraps.
func allText(err error) string {
	text := fmt.Sprintf("%v %+v %#v\n", err, err, err)
	switch e := err.(type) { //nolint:errorlint // it looks at each error of the tree
	case interface{ Unwrap() error }:
		if next := e.Unwrap(); next != nil {
			text += allText(next)
		}
	case interface{ Unwrap() []error }:
		for _, next := range e.Unwrap() {
			text += allText(next)
		}
	}
	return text
}

// deadSocket is a socket that a process left behind.
func deadSocket(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	return path
}

func TestConnectEndsWithItsContext(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	s.Pause()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := flatrate.Connect(ctx, "valkey://"+s.Addr+"?timeout=1h")
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "given up") {
		t.Errorf("canceled: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := flatrate.Connect(ctx, "valkey://"+s.Addr+"?timeout=1h"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := flatrate.Connect(ctx, "valkey://"+s.Addr); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled before: %v", err)
	}
}

// The context is Connect's: the client lives on when it ends.
func TestClientOutlivesTheContext(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	ctx, cancel := context.WithCancel(t.Context())
	c, err := flatrate.Connect(ctx, "valkey://"+s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	for range 100 {
		works(t, c)
	}
}

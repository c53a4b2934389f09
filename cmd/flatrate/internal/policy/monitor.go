package policy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/valkey-io/valkey-go"
)

// Monitor watches the commands of one server for a while, over a connection of its own, and makes a trace of them. Of what
// it sees it keeps names of keys and lengths of values; nothing is written anywhere. It ends early when the trace is full.
func Monitor(ctx context.Context, url string, span time.Duration) (*Trace, error) {
	var o valkey.ClientOption
	client, err := flatrate.Connect(ctx, url, func(option *valkey.ClientOption) { o = *option })
	if err != nil {
		return nil, err
	}
	nodes := len(client.Nodes())
	client.Close()
	if nodes > 1 {
		return nil, errors.New("MONITOR sees one node: name one of the cluster's nodes, and play its part")
	}
	conn, err := dialAs(ctx, o)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(conn, 64<<10)
	if err := signIn(conn, in, o, conn.RemoteAddr()); err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(span)); err != nil {
		return nil, err
	}
	t, err := ReadMonitor(untilDeadline{in})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if errors.Is(err, ErrEmpty) {
		return nil, fmt.Errorf("%w in what the server did in %v", err, span)
	}
	return t, err
}

// untilDeadline is a connection that ends when its time is up.
type untilDeadline struct{ io.Reader }

func (r untilDeadline) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		err = io.EOF
	}
	return n, err
}

func dialAs(ctx context.Context, o valkey.ClientOption) (net.Conn, error) {
	d := &o.Dialer
	if o.DialCtxFn != nil {
		return o.DialCtxFn(ctx, o.InitAddress[0], d, o.TLSConfig)
	}
	if o.TLSConfig != nil {
		return (&tls.Dialer{NetDialer: d, Config: o.TLSConfig}).DialContext(ctx, "tcp", o.InitAddress[0])
	}
	return d.DialContext(ctx, "tcp", o.InitAddress[0])
}

// signIn sends AUTH, if there is something to say, and MONITOR. Errors have the server's words, and no secret.
func signIn(conn net.Conn, in *bufio.Reader, o valkey.ClientOption, addr net.Addr) error {
	name, password := o.Username, o.Password
	if o.AuthCredentialsFn != nil {
		c, err := o.AuthCredentialsFn(valkey.AuthCredentialsContext{Address: addr})
		if err != nil {
			return err
		}
		name, password = c.Username, c.Password
	}
	if password != "" {
		words := []string{"AUTH", password}
		if name != "" {
			words = []string{"AUTH", name, password}
		}
		if err := call(conn, in, words...); err != nil {
			return err
		}
	}
	return call(conn, in, "MONITOR")
}

func call(conn net.Conn, in *bufio.Reader, words ...string) error {
	var b strings.Builder
	b.WriteString("*" + strconv.Itoa(len(words)) + "\r\n")
	for _, w := range words {
		b.WriteString("$" + strconv.Itoa(len(w)) + "\r\n" + w + "\r\n")
	}
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return err
	}
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "+OK") {
		return fmt.Errorf("%s: the server says %q", words[0], strings.TrimSpace(line))
	}
	return nil
}

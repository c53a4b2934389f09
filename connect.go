package flatrate

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/flatrate/flatrate/internal/server"
	"github.com/valkey-io/valkey-go"
)

// Connect returns a client of the server, or of the cluster, that url names. It is ready: the server
// has answered, accepted the password and is new enough (Valkey 7.2, Redis 7.0). The caller closes it.
//
//	valkey://user:password@host:port/database
//	valkeys://host                              TLS; the certificate is always verified
//	valkey://host1,host2:6380,host3             a cluster; one host of it is enough
//	unix:///run/valkey.sock?db=1
//
// redis:// and rediss:// mean the same as valkey:// and valkeys://. Parameters: ca (a PEM file with
// the authority to trust in place of the system's), password_file (read at each new connection),
// timeout (default 5 s), db (of a socket).
//
// Connect waits until ctx ends or the timeout has passed, whichever is first; later the timeout bounds
// each new connection. A server that is silent for 5 s loses its connection. A call that only reads
// is repeated for about two seconds while the server is away; a call that writes never is.
// docs/connect.md has all bounds.
//
// An error is one sentence with the cause and the host, without any secret. It wraps [ErrURL],
// [ErrAuth] or [ErrTooOld] where one of them fits, and else what the network returned.
//
// Each tune may change any option of the client, last of all: timeouts, a client certificate,
// replicas, dialling through a tunnel.
func Connect(ctx context.Context, url string, tune ...func(*valkey.ClientOption)) (valkey.Client, error) {
	t, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	opt, err := t.options()
	if err != nil {
		return nil, err
	}
	for _, f := range tune {
		f(&opt)
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	d := newDialer(ctx, &opt)
	client, err := valkey.NewClient(opt)
	if errors.Is(err, valkey.ErrNoCache) && !opt.DisableCache {
		// Managed services and access rules may forbid CLIENT TRACKING; all but DoCache works without.
		closeClient(client)
		opt.DisableCache = true
		client, err = valkey.NewClient(opt)
	}
	if err == nil {
		err = check(ctx, client)
	}
	if err == nil {
		d.live.Store(true)
		err = ctx.Err() // if it ended before that line, the dialer has cut the connections
	}
	if err != nil {
		closeClient(client)
		return nil, explain(ctx, t, err)
	}
	return client, nil
}

// closeClient closes what NewClient returned beside its error, if anything.
func closeClient(client valkey.Client) {
	if client != nil {
		client.Close()
	}
}

// check turns away a server that can't serve the building blocks.
func check(ctx context.Context, client valkey.Client) error {
	info, err := server.Probe(ctx, client)
	switch {
	case err != nil:
		return err
	case info.Kind == "redis" && info.Version != (server.Version{}) && !info.Version.AtLeast(7, 0):
		return tooOld("Redis " + info.Version.String())
	case info.ClusterDown:
		return errClusterDown
	}
	return nil
}

// options are valkey-go's for the target, with the fast defaults: docs/connect.md has the figures.
func (t target) options() (valkey.ClientOption, error) {
	opt := valkey.ClientOption{
		InitAddress:       t.addrs,
		Username:          t.user,
		Password:          t.password,
		SelectDB:          t.db,
		DialCtxFn:         dial,
		PipelineMultiplex: 1, // two connections a node
		ConnWriteTimeout:  silence,
		RetryDelay:        retryDelay,
	}
	opt.Dialer.Timeout = t.timeout
	if t.tls {
		opt.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if t.caFile != "" {
		pem, err := os.ReadFile(t.caFile)
		if err != nil {
			return opt, fmt.Errorf("flatrate: the file of ca= can't be read: %w", err)
		}
		opt.TLSConfig.RootCAs = x509.NewCertPool()
		if !opt.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
			return opt, fmt.Errorf("flatrate: the file of ca= has no PEM certificate in it: %s", t.caFile)
		}
	}
	if t.passwordFile != "" {
		if _, err := t.credentials(valkey.AuthCredentialsContext{}); err != nil {
			return opt, err
		}
		opt.AuthCredentialsFn = t.credentials // so a password that was rotated is picked up
	}
	return opt, nil
}

func (t target) credentials(valkey.AuthCredentialsContext) (valkey.AuthCredentials, error) {
	text, err := os.ReadFile(t.passwordFile)
	if err != nil {
		return valkey.AuthCredentials{}, fmt.Errorf("flatrate: the file of password_file= can't be read: %w", err)
	}
	text = bytes.TrimRight(text, "\r\n")
	if len(text) == 0 {
		return valkey.AuthCredentials{}, fmt.Errorf("flatrate: the file of password_file= is empty: %s", t.passwordFile)
	}
	return valkey.AuthCredentials{Username: t.user, Password: string(text)}, nil
}

const (
	silence    = 5 * time.Second
	firstRetry = 4 * time.Millisecond
	lastRetry  = time.Second
	retries    = 9 // 4 ms to 1 s, doubling: 2 s in all, or half of it with the worst luck
)

// retryDelay says when to repeat a call that only reads, and when to give up: negative.
func retryDelay(attempt int, cmd valkey.Completed, err error) time.Duration {
	switch {
	case cmd.NoReply(): // a subscription is kept until its context ends
	case attempt > retries, errors.Is(err, os.ErrDeadlineExceeded):
		return -1 // a server that was silent for the whole timeout has used up the caller's patience
	case errors.Is(err, context.DeadlineExceeded) && attempt > 1:
		return -1 // as above, unless another caller's shorter deadline has cut the connecting
	}
	return backoff(attempt-1, firstRetry, lastRetry)
}

// backoff doubles first n times, up to most, and draws between half of that and all of it.
func backoff(n int, first, most time.Duration) time.Duration {
	d := min(most, first<<min(n, 20))
	return d - rand.N(d/2)
}

package flatrate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/valkey-io/valkey-go"
)

var (
	// ErrURL means that the URL is wrong: no attempt was made to connect.
	ErrURL = errors.New("flatrate: the URL is wrong")
	// ErrAuth means that the server wants another user or password, or one at all.
	ErrAuth = errors.New("flatrate: not signed in")
	// ErrTooOld means that the server is older than Valkey 7.2 or Redis 7.0.
	ErrTooOld = errors.New("flatrate: the server is too old")

	errClusterDown = errors.New("its cluster is down (cluster_state:fail): slots are not served, or too few nodes see each other")
)

// connectError is one sentence for people; what programs ask for stands behind it.
type connectError struct {
	sentence string
	causes   []error
}

func (e *connectError) Error() string   { return e.sentence }
func (e *connectError) Unwrap() []error { return e.causes }

// tooOld is a server's version that is not enough.
type tooOld string

func (v tooOld) Error() string { return string(v) + " is too old: it takes Valkey 7.2 or Redis 7.0" }
func (tooOld) Unwrap() error   { return ErrTooOld }

// explain says in one sentence why Connect failed. Only what can't carry a secret is wrapped.
func explain(ctx context.Context, t target, err error) error {
	causes := []error{err}
	var sentence string
	if answer, ok := valkey.IsValkeyErr(err); ok {
		sentence, causes = t.answered(answer)
	} else {
		sentence = t.failed(ctx, err)
		if ended := ctx.Err(); ended != nil {
			causes = []error{ended}
			if cut := new(net.OpError); errors.As(err, &cut) {
				causes = append(causes, cut)
			}
		}
	}
	return &connectError{fmt.Sprintf("flatrate: %s: %s", t.where(), sentence), causes}
}

// The code points at the first byte of what should have been a reply.
var unknownMessage = regexp.MustCompile(`^received unknown message type: (\d+)$`)

// failed explains an error that is no answer of a server.
func (t target) failed(ctx context.Context, err error) string {
	if errors.Is(ctx.Err(), context.Canceled) {
		return "given up: " + context.Canceled.Error()
	}
	var (
		name     *net.DNSError
		plain    tls.RecordHeaderError
		unknown  x509.UnknownAuthorityError
		wrong    x509.HostnameError
		unproven *tls.CertificateVerificationError
		op       *net.OpError
	)
	switch garbage := unknownMessage.FindStringSubmatch(err.Error()); {
	case errors.As(err, &name):
		return "the name " + name.Name + " can't be resolved: " + name.Err
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: connection refused"
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such socket"
	case errors.Is(err, fs.ErrPermission):
		return "this process may not open the socket"
	case errors.As(err, &plain):
		return "the server there does not speak TLS: plain text is valkey://"
	case errors.As(err, &unknown):
		return "its certificate comes from an authority that is not trusted here: name that authority's file with ca="
	case errors.As(err, &wrong):
		return "its certificate is for another name: " + wrong.Error()
	case errors.As(err, &unproven):
		return "its certificate can't be verified: " + unproven.Err.Error()
	case errors.As(err, &op) && op.Op == "remote error":
		return "the server ends the TLS handshake: " + op.Err.Error()
	case garbage != nil && garbage[1] == "21": // a TLS alert
		return "the server there speaks TLS: that is valkeys://"
	case garbage != nil:
		return "what listens there is neither Valkey nor Redis"
	case timedOut(ctx, err):
		return t.silent(err)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		if t.tls {
			return "the server closes the connection: it may want a client certificate, or not speak TLS (plain text is valkey://)"
		}
		return "the server closes the connection: it may speak TLS (that is valkeys://), or be neither Valkey nor Redis"
	}
	return err.Error()
}

func timedOut(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

func (t target) silent(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return "no connection in time: a wrong address, or a firewall that drops packets"
	}
	if t.tls {
		return "a connection but no answer in time: the server hangs, or does not speak TLS (plain text is valkey://)"
	}
	return "a connection but no answer in time: the server hangs, or is neither Valkey nor Redis"
}

// answered explains a server's error reply.
func (t target) answered(reply *valkey.ValkeyError) (string, []error) {
	// An old server repeats the arguments of a command that it does not know, AUTH's among them.
	text, _, secret := strings.Cut(reply.Error(), ", with args beginning with")
	text, _, _ = strings.Cut(text, "\n")
	causes := []error{error(reply)}
	if secret || t.password != "" && strings.Contains(reply.Error(), t.password) {
		causes = nil
	}
	switch {
	case strings.HasPrefix(text, "WRONGPASS"), strings.Contains(text, "invalid password"):
		return "the server rejects the user name or the password", append(causes, ErrAuth)
	case strings.HasPrefix(text, "NOAUTH"):
		return "the server wants a password and the URL has none", append(causes, ErrAuth)
	case strings.HasPrefix(text, "NOPERM"):
		return "the user may not do what it takes: " + text, append(causes, ErrAuth)
	case strings.HasPrefix(text, "DENIED"):
		return "the server is in protected mode: without a password it accepts only clients of its own machine", causes
	case strings.Contains(text, "DB index"):
		return fmt.Sprintf("the server has no database %d", t.db), causes
	case strings.Contains(text, "SELECT is not allowed in cluster mode"):
		return fmt.Sprintf("a cluster has no database %d, only 0", t.db), causes
	case strings.Contains(text, "cluster support disabled"):
		return "several hosts are for a cluster and this is none: name one host", causes
	case strings.Contains(strings.ToLower(text), "unknown command"):
		return tooOld("a server without " + missing(text)).Error(), append(causes, ErrTooOld)
	}
	return "the server answers: " + text, causes
}

var commandName = regexp.MustCompile("(?i)unknown command .([a-z]+).")

func missing(text string) string {
	if name := commandName.FindStringSubmatch(text); name != nil {
		return strings.ToUpper(name[1])
	}
	return "a command that it takes"
}

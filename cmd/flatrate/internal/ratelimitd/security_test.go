package ratelimitd_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/flatrate/flatrate/cmd/flatrate/internal/ratelimitd"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const token = "a token of some length"

func TestToken(t *testing.T) {
	s := serve(t, func(c *ratelimitd.Config) { c.Token = token })
	const auth = "/v1/ratelimit/auth?plan=many"
	for _, path := range []string{auth, "/metrics", "/v1/ratelimit/check"} {
		for _, shown := range []string{"", "Bearer", "Bearer " + token + "x", "Basic " + token, token, "Bearer  " + token} {
			method := "GET"
			if path == "/v1/ratelimit/check" {
				method = "POST"
			}
			if status, _, h := s.do(t, method, path, "", "Authorization", shown); status != 401 || h.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s with %q: %d", path, shown, status)
			}
		}
	}
	if status, _, _ := s.do(t, "GET", auth, "", "Authorization", "bearer "+token); status != 204 {
		t.Errorf("with the token: %d", status)
	}
	if status, _, _ := s.do(t, "GET", "/readyz", ""); status != 200 {
		t.Errorf("readyz: %d", status)
	}
	client := s.rlsClient(t, insecure.NewCredentials())
	request := &rlspb.RateLimitRequest{Domain: "edge", Descriptors: descriptors("k=v")}
	if _, err := client.ShouldRateLimit(t.Context(), request); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without the token: %v", err)
	}
	with := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	if _, err := client.ShouldRateLimit(with, request); err != nil {
		t.Errorf("with the token: %v", err)
	}
	if code := s.health(t); code != "SERVING" {
		t.Errorf("health: %s", code)
	}
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	a.pool.AddCert(a.cert)
	a.file = write(t, t.TempDir(), "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return a
}

// issue writes a certificate and its key.
func (a *authority) issue(dir string, serial int64) (cert, key string) {
	a.t.Helper()
	private, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	bytes, _ := x509.MarshalECPrivateKey(private)
	cert = write(a.t, dir, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	key = write(a.t, dir, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: bytes})))
	return cert, key
}

// TestMutualTLS has client certificates in place of a token, and new certificates while it runs.
func TestMutualTLS(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	cert, key := ours.issue(dir, 100)
	s := serve(t, func(c *ratelimitd.Config) {
		c.ListenHTTP, c.CertFile, c.KeyFile, c.ClientCAFile = "127.0.0.1:0", cert, key, ours.file
	})
	client := func(by *authority) (*http.Client, *tls.Config) {
		config := &tls.Config{RootCAs: ours.pool}
		if by != nil {
			pair, err := tls.LoadX509KeyPair(by.issue(t.TempDir(), 7))
			if err != nil {
				t.Fatal(err)
			}
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true}}, config
	}
	get := func(c *http.Client, path string) (int, int64) {
		response, err := c.Get(s.url + path)
		if err != nil {
			return 0, 0
		}
		defer response.Body.Close()
		return response.StatusCode, response.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	const auth = "/v1/ratelimit/auth?plan=many"
	known, knownTLS := client(ours)
	unknown, _ := client(others)
	nobody, nobodyTLS := client(nil)
	if status, serial := get(known, auth); status != 204 || serial != 100 {
		t.Errorf("with a certificate: %d, serial %d", status, serial)
	}
	if status, _ := get(nobody, auth); status != 401 {
		t.Errorf("without a certificate: %d", status)
	}
	if status, _ := get(nobody, "/livez"); status != 200 {
		t.Errorf("livez without a certificate: %d", status)
	}
	if status, _ := get(unknown, auth); status != 0 {
		t.Errorf("with somebody else's certificate: %d", status)
	}
	request := &rlspb.RateLimitRequest{Domain: "edge", Descriptors: descriptors("k=v")}
	if _, err := s.rlsClient(t, credentials.NewTLS(knownTLS)).ShouldRateLimit(t.Context(), request); err != nil {
		t.Errorf("gRPC with a certificate: %v", err)
	}
	if _, err := s.rlsClient(t, credentials.NewTLS(nobodyTLS)).ShouldRateLimit(t.Context(), request); status.Code(err) != codes.Unauthenticated {
		t.Errorf("gRPC without a certificate: %v", err)
	}

	ours.issue(dir, 200) // by itself
	s.await(t, "the new certificate is served", func() bool { _, serial := get(known, "/livez"); return serial == 200 })
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Reload() // and on SIGHUP
	if _, serial := get(known, "/livez"); serial != 200 {
		t.Errorf("after a broken one: serial %d", serial)
	}
	ours.issue(dir, 300)
	s.Reload()
	if _, serial := get(known, "/livez"); serial != 300 {
		t.Errorf("after a mended one: serial %d", serial)
	}
}

func (s *served) rlsClient(t *testing.T, creds credentials.TransportCredentials) rlspb.RateLimitServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(s.rls, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return rlspb.NewRateLimitServiceClient(conn)
}

// health is what the service of gRPC health says of the rate-limit service.
func (s *served) health(t *testing.T) string {
	t.Helper()
	conn, err := grpc.NewClient(s.rls, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	response, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: "envoy.service.ratelimit.v3.RateLimitService"})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetStatus().String()
}

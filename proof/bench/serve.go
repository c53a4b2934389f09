package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	descriptorpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/proof/serveproc"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// serveArea is what a decision costs over a network: both endpoints of "flatrate serve" beside calls of package ratelimit
// in this process, on the same server.
func serveArea() Area { return Area{Name: "serve", Rows: serveRows} }

func serveRows(ctx context.Context, b *B) []Row {
	server := valkeytest.StartWith(b, valkeytest.Config{TCP: true})
	dir, err := os.MkdirTemp("", "flatrate-bench-")
	b.Must(err)
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	plans, rules := filepath.Join(dir, "plans.yaml"), filepath.Join(dir, "rules.yaml")
	plan := fmt.Sprintf("plans:\n  p: {limits: [{limit: %d, window: 1h}], timeout: 10s}\n", plenty)
	b.Must(errors.Join(os.WriteFile(plans, []byte(plan), 0o600),
		os.WriteFile(rules, []byte("domain: d\ndescriptors: [{key: user, plan: p}]\n"), 0o600)))
	process := serveproc.Start(b, "--valkey", "valkey://"+server.Addr, "--limits", plans, "--envoy-rules", rules,
		"--auth-plan", "p", "--auth-key", "header:X-Api-Key", "--auth-headers", "none")

	client, err := flatrate.Connect(ctx, "valkey://"+server.Addr)
	b.Must(err)
	b.Cleanup(client.Close)
	l, err := ratelimit.New(client, ratelimit.Config{Name: "p", Limits: []ratelimit.Limit{fixedLimit}, Timeout: 10 * time.Second})
	b.Must(err)
	all := subjects(false)
	direct := func(ctx context.Context, caller int) error {
		r, err := l.Allow(ctx, all[caller])
		if err == nil && !r.Allowed {
			err = errDenied
		}
		return err
	}
	web := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: rateCallers}}
	b.Cleanup(web.CloseIdleConnections)
	conn, err := grpc.NewClient("passthrough:///"+process.RLS, grpc.WithTransportCredentials(insecure.NewCredentials()))
	b.Must(err)
	b.Cleanup(func() { _ = conn.Close() })
	row := func(name string, callers int, ours op) Row {
		return Row{Name: name, Unit: "requests/s", Better: "higher", Ours: Throughput(callers, ours), Peers: []Peer{{"in process", Throughput(callers, direct)}}}
	}
	check, auth, rls := checkOp(web, process.HTTP, all), authOp(web, process.HTTP, all), rlsOp(rlspb.NewRateLimitServiceClient(conn), all)
	return []Row{
		row("check-64", rateCallers, check), row("auth-64", rateCallers, auth), row("rls-64", rateCallers, rls),
		row("check-1", 1, check), row("rls-1", 1, rls),
	}
}

func checkOp(web *http.Client, addr string, subjects []string) op {
	bodies := make([][]byte, len(subjects))
	for i, s := range subjects {
		bodies[i] = []byte(`{"plan": "p", "subject": "` + s + `"}`)
	}
	return func(ctx context.Context, caller int) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/v1/ratelimit/check", bytes.NewReader(bodies[caller]))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
		return answered(web, r, http.StatusOK, `{"allowed":true,`)
	}
}

func authOp(web *http.Client, addr string, subjects []string) op {
	return func(ctx context.Context, caller int) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v1/ratelimit/auth", nil)
		if err != nil {
			return err
		}
		r.Header.Set("X-Api-Key", subjects[caller])
		return answered(web, r, http.StatusNoContent, "")
	}
}

// answered makes a request, whose answer has to be as expected.
func answered(web *http.Client, r *http.Request, status int, begins string) error {
	response, err := web.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && (response.StatusCode != status || !strings.HasPrefix(string(text), begins)) {
		err = fmt.Errorf("%s %s", response.Status, text)
	}
	return err
}

func rlsOp(client rlspb.RateLimitServiceClient, subjects []string) op {
	return func(ctx context.Context, caller int) error {
		entry := &descriptorpb.RateLimitDescriptor_Entry{Key: "user", Value: subjects[caller]}
		r, err := client.ShouldRateLimit(ctx, &rlspb.RateLimitRequest{
			Domain: "d", Descriptors: []*descriptorpb.RateLimitDescriptor{{Entries: []*descriptorpb.RateLimitDescriptor_Entry{entry}}},
		})
		if err == nil && r.GetOverallCode() != rlspb.RateLimitResponse_OK {
			err = errDenied
		}
		return err
	}
}

package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	descriptorpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/flatrate/flatrate/proof/serveproc"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	long  = 300 * 24 * time.Hour
	total = 1_000_000_000
)

// caller asks a server for one unit of a subject. gone says that the server takes no more connections: the request was
// not sent.
type caller func(ctx context.Context, subject string) (allowed, gone bool, err error)

// fleet is servers on one Valkey server.
type fleet struct {
	valkey    *valkeytest.Server
	plans     string // the file
	processes []*serveproc.Process
}

func newFleet(t *testing.T, servers int, limit int64) *fleet {
	t.Helper()
	dir := t.TempDir()
	plans, rules := filepath.Join(dir, "plans.yaml"), filepath.Join(dir, "rules.yaml")
	plan := fmt.Sprintf("plans:\n  p: {limits: [{limit: %d, window: 300d}], timeout: 10s}\n", limit)
	if err := errors.Join(os.WriteFile(plans, []byte(plan), 0o600),
		os.WriteFile(rules, []byte("domain: d\ndescriptors: [{key: s, plan: p}]\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	f := &fleet{valkey: valkeytest.Start(t), plans: plans}
	for range servers {
		f.processes = append(f.processes, serveproc.Start(t, "--valkey", "unix://"+f.valkey.Socket, "--limits", plans, "--envoy-rules", rules))
	}
	return f
}

// used is what the Valkey server has counted for a subject.
func (f *fleet) used(t *testing.T, limit int64, subject string) int64 {
	t.Helper()
	l, err := ratelimit.New(f.valkey.Client(), ratelimit.Config{Name: "p", Timeout: 10 * time.Second, Limits: []ratelimit.Limit{{Limit: limit, Window: long}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Peek(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	return r.Limit - r.Remaining
}

func overHTTP(t testing.TB, p *serveproc.Process) caller { return httpCaller(t, p, true) }

// overNewConnections dials for each request.
func overNewConnections(t testing.TB, p *serveproc.Process) caller { return httpCaller(t, p, false) }

func httpCaller(t testing.TB, p *serveproc.Process, keep bool) caller {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableKeepAlives: !keep}}
	t.Cleanup(client.CloseIdleConnections)
	return func(ctx context.Context, subject string) (allowed, gone bool, err error) {
		body := strings.NewReader(`{"plan": "p", "subject": "s=` + subject + `"}`)
		r, err := http.NewRequestWithContext(ctx, "POST", "http://"+p.HTTP+"/v1/ratelimit/check", body)
		if err != nil {
			return false, false, err
		}
		r.GetBody = nil // so that the client does not repeat what it has sent
		r.Header.Set("Content-Type", "application/json")
		response, err := client.Do(r)
		if err != nil {
			// A connection that never came about carried no request: it is refused, or reset where the address closes meanwhile.
			var failed *os.SyscallError
			return false, errors.As(err, &failed) && failed.Syscall == "connect", err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode != 200 {
			err = fmt.Errorf("%s: %s", response.Status, text)
		}
		return strings.HasPrefix(string(text), `{"allowed":true,`), false, err
	}
}

func overRLS(t testing.TB, p *serveproc.Process) caller {
	conn, err := grpc.NewClient("passthrough:///"+p.RLS, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := rlspb.NewRateLimitServiceClient(conn)
	return func(ctx context.Context, subject string) (allowed, gone bool, err error) {
		entry := &descriptorpb.RateLimitDescriptor_Entry{Key: "s", Value: subject}
		r, err := client.ShouldRateLimit(ctx, &rlspb.RateLimitRequest{
			Domain: "d", Descriptors: []*descriptorpb.RateLimitDescriptor{{Entries: []*descriptorpb.RateLimitDescriptor_Entry{entry}}},
		})
		if err != nil {
			return false, status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "connection refused"), err
		}
		return r.GetOverallCode() == rlspb.RateLimitResponse_OK, false, nil
	}
}

// TestTerminatedUnderLoad sends SIGTERM to a server that 32 callers ask all the time. Each request that was sent is
// answered, and the Valkey server has counted what was answered.
func TestTerminatedUnderLoad(t *testing.T) {
	for name, over := range map[string]func(testing.TB, *serveproc.Process) caller{"HTTP": overHTTP, "new connections": overNewConnections, "RLS": overRLS} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 1, total)
			p := f.processes[0]
			ask := over(t, p)
			var allowed, lost atomic.Int64
			var wg sync.WaitGroup
			for range 32 {
				wg.Go(func() {
					for {
						ok, gone, err := ask(context.Background(), "x")
						switch {
						case gone:
							return
						case err != nil:
							lost.Add(1)
							t.Error(err)
							return
						case ok:
							allowed.Add(1)
						}
					}
				})
			}
			for allowed.Load() < 2000 {
				if lost.Load() > 0 {
					t.FailNow()
				}
				time.Sleep(time.Millisecond)
			}
			begun := time.Now()
			if err := p.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := p.Wait(ctx); err != nil {
				t.Errorf("it ended with %v\n%s", err, p.Log())
			}
			took := time.Since(begun)
			wg.Wait()
			if used := f.used(t, total, "s=x"); used != allowed.Load() {
				t.Errorf("%d answers, %d counted", allowed.Load(), used)
			}
			if !strings.Contains(p.Log(), "clean=true") {
				t.Errorf("not a clean end:\n%s", p.Log())
			}
			t.Logf("%d answered, %d lost, ended in %v", allowed.Load(), lost.Load(), took.Round(time.Millisecond))
		})
	}
}

// TestOneOfTwoKilled asks two servers for one subject until the limit is reached, and kills one of them on the way. What
// was admitted and what was lost with it make up the limit: nothing is counted twice, and nothing is forgotten.
func TestOneOfTwoKilled(t *testing.T) {
	const limit = 20_000
	f := newFleet(t, 2, limit)
	var allowed, denied, lost atomic.Int64
	var dead atomic.Bool
	var wg sync.WaitGroup
	for i, p := range f.processes {
		for _, ask := range []caller{overHTTP(t, p), overRLS(t, p)} {
			for range 8 {
				wg.Go(func() {
					for denied := int64(0); denied < 50; {
						ok, gone, err := ask(context.Background(), "y")
						switch {
						case gone:
							return
						case err != nil:
							lost.Add(1)
							if i == 0 || !dead.Load() {
								t.Errorf("server %d: %v", i, err)
								return
							}
						case ok:
							allowed.Add(1)
						default:
							denied++
						}
					}
					denied.Add(50)
				})
			}
		}
	}
	for allowed.Load() < limit/4 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	dead.Store(true)
	f.processes[1].Kill()
	wg.Wait()
	if used := f.used(t, limit, "s=y"); used != limit {
		t.Errorf("%d counted of %d", used, limit)
	}
	if a, l := allowed.Load(), lost.Load(); a > limit || a+l < limit || denied.Load() == 0 {
		t.Errorf("%d admitted, %d lost with the server, limit %d", a, l, limit)
	}
	t.Logf("limit %d: %d admitted, %d requests lost with the server, %d denied", limit, allowed.Load(), lost.Load(), denied.Load())
}

// TestHangup changes the plans and sends SIGHUP.
func TestHangup(t *testing.T) {
	f := newFleet(t, 1, 1)
	p, ask := f.processes[0], overHTTP(t, f.processes[0])
	must := func(want bool) bool {
		allowed, _, err := ask(t.Context(), "h")
		if err != nil {
			t.Fatal(err)
		}
		return allowed == want
	}
	if !must(true) || !must(false) {
		t.Fatal("the limit is not 1")
	}
	if err := os.WriteFile(f.plans, []byte("plans:\n  p: {limits: [{limit: 1000, window: 300d}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); !strings.Contains(p.Log(), "plans have changed"); time.Sleep(time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("the plans are as they were\n%s", p.Log())
		}
	}
	if !must(true) || !strings.Contains(p.Log(), "SIGHUP: the files are loaded again") {
		t.Errorf("%s", p.Log())
	}
}

// TestServeSoak keeps a server under load for FLATRATE_SOAK (a duration such as 10m), and looks at its memory. It is
// flat if the second half of the time does not take more than a tenth more than the first.
func TestServeSoak(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("FLATRATE_SOAK"))
	if err != nil {
		t.Skip("FLATRATE_SOAK is no duration such as 10m: make soak")
	}
	f := newFleet(t, 1, total)
	p := f.processes[0]
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var n atomic.Int64
	var wg sync.WaitGroup
	for w := range 16 {
		ask := overHTTP(t, p)
		if w%2 == 1 {
			ask = overRLS(t, p)
		}
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if _, _, err := ask(ctx, strconv.Itoa(w)+"-"+strconv.Itoa(i)); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				n.Add(1)
			}
		})
	}
	var halves [2]int64
	steps := 20
	begun := time.Now()
	for i := range steps {
		select {
		case <-time.After(d / time.Duration(steps)):
		case <-ctx.Done():
		}
		rss := residentKiB(t, p.Pid())
		halves[i*2/steps] = max(halves[i*2/steps], rss)
		t.Logf("%6s  RSS %7d KiB  %9d requests", time.Since(begun).Round(time.Second), rss, n.Load())
	}
	wg.Wait()
	if halves[1] > halves[0]*11/10 {
		t.Errorf("the memory grows: at most %d KiB in the first half, %d KiB in the second", halves[0], halves[1])
	}
}

func residentKiB(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Skip("no /proc here")
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

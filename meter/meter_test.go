package meter_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/meter"
	"github.com/flatrate/flatrate/meter/metertest"
	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/ratelimit/ratehttp"
	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
)

func TestConformance(t *testing.T) { valkeytest.Each(t, metertest.Run) }

func TestNewNamesTheField(t *testing.T) {
	c := valkeytest.Start(t).Client()
	for _, test := range []struct {
		cfg  meter.Config
		want string
	}{
		{meter.Config{Name: strings.Repeat("n", 201)}, "Config.Name"},
		{meter.Config{Every: -1}, "Config.Every"},
		{meter.Config{Every: 99 * time.Millisecond}, "Config.Every"},
		{meter.Config{Every: time.Hour}, "Config.Every"},
		{meter.Config{Keep: time.Hour}, "Config.Keep"},
		{meter.Config{Keep: 24*time.Hour + 1}, "Config.Keep"},
		{meter.Config{Prefix: "a{b"}, "Config.Prefix"},
	} {
		if _, err := meter.New(c, test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %s", test.cfg, err, test.want)
		}
	}
	if _, err := meter.New(nil, meter.Config{}); err == nil {
		t.Error("a nil client was accepted")
	}
	for _, days := range []int{-1, 0, meter.MaxDays + 1} {
		if _, err := meter.Read(t.Context(), c, meter.Config{}, days); err == nil {
			t.Errorf("%d days were read", days)
		}
	}
}

// TestNilMeterCountsNothing holds that a program can leave metering off without asking at each place.
func TestNilMeterCountsNothing(t *testing.T) {
	var m *meter.Meter
	m.SessionRead(1)
	m.SessionWrite(1)
	m.Requests(1)
	m.Messages(meter.Messages{Sent: 1})
	if m.Lock(lock.Hooks{}).Acquired != nil || m.Cache(cache.Hooks{}).Hit != nil || m.RateHTTP(ratehttp.Hooks{}).Decided != nil ||
		m.Session(session.Hooks{}).Read != nil || m.Queue(queue.Hooks{}).Sent != nil {
		t.Error("a nil meter put itself into hooks")
	}
	if m.Flush(t.Context()) != nil || m.Close(t.Context()) != nil {
		t.Error("a nil meter failed")
	}
}

// TestMixedLoad lets blocks work with the meter in their hooks, and counts what they did beside it: the callers count their calls,
// and hooks behind the meter's what only hooks hear. FLATRATE_METER is how often each of eight callers does everything.
func TestMixedLoad(t *testing.T) {
	c := valkeytest.Start(t).Client()
	cfg := meter.Config{Prefix: valkeytest.Prefix(t), Every: 100 * time.Millisecond}
	m, err := meter.New(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var acquired, waiting, renewed, hits, misses, decided, created, found, written, unknown atomic.Int64
	locker, err := lock.New(c, lock.Config{Prefix: cfg.Prefix, Hooks: m.Lock(lock.Hooks{
		Acquired: func(string, time.Duration) { acquired.Add(1) },
		Waiting:  func(string) { waiting.Add(1) },
		Renewed:  func(string) { renewed.Add(1) },
	})})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := cache.New[int](c, cache.Config{Prefix: cfg.Prefix, Name: "page", Hooks: m.Cache(cache.Hooks{
		Hit:  func(string, cache.Tier) { hits.Add(1) },
		Miss: func(string) { misses.Add(1) },
	})})
	if err != nil {
		t.Fatal(err)
	}
	limiter, err := ratelimit.New(c, ratelimit.Config{Prefix: cfg.Prefix, Timeout: time.Minute,
		Limits: []ratelimit.Limit{{Limit: 100, Window: time.Minute}}})
	if err != nil {
		t.Fatal(err)
	}
	limits, err := ratehttp.New(ratehttp.Config{Limiter: limiter, Key: ratehttp.Header("X-User"),
		Hooks: m.RateHTTP(ratehttp.Hooks{Decided: func(*http.Request, ratehttp.Decision) { decided.Add(1) }})})
	if err != nil {
		t.Fatal(err)
	}
	handler := limits.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	sessions, err := session.New[struct{ Hits int }](c, session.Config{Prefix: cfg.Prefix, Hooks: m.Session(session.Hooks{
		Created: func(string) { created.Add(1) },
		Read: func(bytes int) {
			if bytes == 0 {
				unknown.Add(1)
			} else {
				found.Add(1)
			}
		},
		Written: func(int) { written.Add(1) },
	})})
	if err != nil {
		t.Fatal(err)
	}
	var sent, received, settled, messages atomic.Int64
	ten := func(calls *atomic.Int64) func(int, int) {
		return func(n, bytes int) {
			if n < 1 || bytes != n*len("bodyks") {
				t.Errorf("a call of %d messages and %d bytes", n, bytes)
			}
			calls.Add(int64((n + 9) / 10))
		}
	}
	jobs, err := queue.New(c, queue.Config{Prefix: cfg.Prefix, Name: "jobs", Hooks: m.Queue(queue.Hooks{
		Sent: ten(&sent), Received: ten(&received), Settled: func(n int) { settled.Add(int64((n + 9) / 10)) },
	})})
	if err != nil {
		t.Fatal(err)
	}
	const workers = 8
	rounds := 60
	if n, err := strconv.Atoi(os.Getenv("FLATRATE_METER")); err == nil {
		rounds = n
	}
	total := int64(workers * rounds)
	var all sync.WaitGroup
	for w := range workers {
		s, err := sessions.Create(t.Context(), struct{ Hits int }{1})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for i := range rounds {
				held, err := locker.Acquire(t.Context(), "shared")
				if err != nil {
					t.Error(err)
					return
				}
				_ = held.Release(t.Context())
				key := string(rune('a' + (i+w)%10))
				if _, err := pages.Get(t.Context(), key, func(context.Context) (int, error) { return i, nil }); err != nil {
					t.Error(err)
				}
				r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
				r.Header.Set("X-User", key)
				handler.ServeHTTP(httptest.NewRecorder(), r)
				if _, ok, err := sessions.Get(t.Context(), s.Token); !ok || err != nil {
					t.Errorf("Get: %v, %v", ok, err)
				}
				if _, err := jobs.Send(t.Context(), queue.Message{Body: []byte("body"), Attributes: map[string]string{"k": "s"}}); err != nil {
					t.Error(err)
				}
				ds, err := jobs.Receive(t.Context(), queue.ReceiveOptions{Max: 20, Wait: time.Millisecond})
				if err != nil {
					t.Error(err)
				}
				for _, d := range ds {
					messages.Add(1)
					if err := jobs.Ack(t.Context(), d.Receipt); err != nil {
						t.Error(err)
					}
				}
				s.Value.Hits++
				if ok, err := sessions.Set(t.Context(), s); !ok || err != nil {
					t.Errorf("Set: %v, %v", ok, err)
				}
			}
		})
	}
	all.Wait()
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	days, err := meter.Read(t.Context(), c, cfg, 2)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, d := range days {
		for field, n := range d.Counts {
			got[field] += n
		}
	}
	want := map[string]int64{
		"locks:write": 2*acquired.Load() + waiting.Load() + renewed.Load(), "cache:hit": hits.Load(), "cache:miss": misses.Load(),
		"requests": decided.Load(), "sessions:read:1": total, "sessions:write:1": total + workers,
		"queue:send:1": sent.Load(), "queue:receive:1": received.Load(), "queue:delete": settled.Load(),
	}
	if found.Load() != total || unknown.Load() != 0 || written.Load() != total+workers || created.Load() != workers {
		t.Errorf("sessions: %d found, %d not, %d written, %d created", found.Load(), unknown.Load(), written.Load(), created.Load())
	}
	if messages.Load() == 0 || messages.Load() > total || received.Load() > messages.Load() || settled.Load() > messages.Load() || sent.Load() > total {
		t.Errorf("of %d messages %d were received; calls: %d, %d, %d", total, messages.Load(), sent.Load(), received.Load(), settled.Load())
	}
	if acquired.Load() != total || decided.Load() != total || hits.Load()+misses.Load() < total {
		t.Errorf("the blocks did %d, %d and %d of %d", acquired.Load(), decided.Load(), hits.Load()+misses.Load(), total)
	}
	t.Logf("%d calls of each block: counted %v", total, got)
	for field, n := range want {
		if got[field] != n {
			t.Errorf("%s: %d, want %d", field, got[field], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("counted %v", got)
	}
}

// TestOutage stops the server between flushes: nothing is lost, and Failed hears of it.
func TestOutage(t *testing.T) {
	s := valkeytest.Start(t)
	cfg := meter.Config{Prefix: valkeytest.Prefix(t), Every: 10 * time.Minute}
	var failed atomic.Int64
	cfg.Failed = func(error) { failed.Add(1) }
	m, err := meter.New(s.Client(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.Requests(1)
	if err := m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	for range 3 {
		m.Requests(1)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := m.Flush(ctx); err == nil {
			t.Error("a paused server took counts")
		}
		cancel()
	}
	s.Resume()
	m.Requests(1)
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	days, err := meter.Read(t.Context(), s.Client(), cfg, 2)
	if err != nil || len(days) == 0 {
		t.Fatal(days, err)
	}
	if n := days[len(days)-1].Counts["requests"]; len(days) == 1 && n != 5 || failed.Load() != 3 {
		t.Errorf("%d requests of 5, %d failures of 3", n, failed.Load())
	}
}

// TestRestart kills the server and starts it again, empty: counts that had not arrived do so then, and scripts are loaded anew.
func TestRestart(t *testing.T) {
	s := valkeytest.Start(t)
	m, err := meter.New(s.Client(), meter.Config{Every: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	m.Requests(1)
	if err := m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	m.Requests(10)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := m.Flush(ctx); err == nil {
		t.Error("a server that is gone took counts")
	}
	s.Restart()
	deadline := time.Now().Add(time.Minute) // a hang guard: the client finds the server again by itself
	for m.Flush(t.Context()) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the meter did not find the server again")
		}
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	days, err := meter.Read(t.Context(), s.Client(), meter.Config{}, 2)
	if err != nil || len(days) == 0 {
		t.Fatal(days, err)
	}
	if n := days[len(days)-1].Counts["requests"]; n != 10 {
		t.Errorf("%d requests, want the 10 that the old server never had", n)
	}
}

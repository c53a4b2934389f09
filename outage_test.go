package flatrate_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// hasty makes what takes seconds by default take a fraction of one.
func hasty(o *valkey.ClientOption) {
	o.ConnWriteTimeout, o.Dialer.KeepAlive, o.Dialer.Timeout = 300*time.Millisecond, 50*time.Millisecond, 300*time.Millisecond
}

// TestCallsEndWhenTheServerIsGone makes calls that have no deadline of their own: each has to fail
// before anybody loses patience, and the same client has to work when the server is back.
func TestCallsEndWhenTheServerIsGone(t *testing.T) {
	outages := map[string]struct {
		begin, end func(*valkeytest.Server)
	}{
		"killed": {(*valkeytest.Server).Kill, (*valkeytest.Server).Restart},
		"paused": {(*valkeytest.Server).Pause, (*valkeytest.Server).Resume},
	}
	for name, outage := range outages {
		for callers, many := range map[string]int{"one caller": 1, "many callers": 64} {
			t.Run(name+", "+callers, func(t *testing.T) {
				t.Parallel()
				s := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
				c, err := connect(t, "valkey://"+s.Addr, hasty)
				if err != nil {
					t.Fatal(err)
				}
				set := func() error { return c.Do(context.Background(), c.B().Set().Key("k").Value("v").Build()).Error() }
				get := func() error { return c.Do(context.Background(), c.B().Get().Key("k").Build()).Error() }
				for range 3 {
					expectAll(t, many, set, true)
					outage.begin(s)
					expectAll(t, many, set, false)
					expectAll(t, many, get, false)
					outage.end(s)
					eventually(t, set)
					expectAll(t, many, get, true)
				}
			})
		}
	}
}

// expectAll makes calls at the same time and waits for all of them.
func expectAll(t *testing.T, calls int, call func() error, succeed bool) {
	t.Helper()
	errs := make(chan error, calls)
	for range calls {
		go func() { errs <- call() }()
	}
	hang := time.NewTimer(patient)
	defer hang.Stop()
	for range calls {
		select {
		case err := <-errs:
			if succeed != (err == nil) {
				t.Fatalf("error %v, success wanted: %v", err, succeed)
			}
		case <-hang.C:
			t.Fatalf("a call did not end within %v", patient)
		}
	}
}

func TestDeadlineOfABlockingCall(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	c, err := connect(t, "valkey://"+s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	s.Pause()
	defer s.Resume()
	expectAll(t, 8, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		return c.Do(ctx, c.B().Blpop().Key("k").Timeout(0).Build()).Error()
	}, false)
}

// TestWritesAreSentOnce cuts the connection at each INCR and each GET: whether the server has done it
// nobody knows, so only the GET may be sent again.
func TestWritesAreSentOnce(t *testing.T) {
	var incrs, gets atomic.Int64
	addr := stub(t, func(conn net.Conn) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		go oldRedis("7.2.4", true)(theirs)
		go func() { _, _ = io.Copy(conn, ours) }()
		for r := bufio.NewReader(conn); ; {
			words, err := readCommand(r)
			if err != nil {
				return
			}
			switch words[0] {
			case "INCR":
				incrs.Add(1)
				return
			case "GET":
				gets.Add(1)
				return
			}
			if _, err := io.WriteString(ours, encode(words)); err != nil {
				return
			}
		}
	})
	c, err := connect(t, "valkey://"+addr)
	if err != nil {
		t.Fatal(err)
	}
	const calls = 20
	for range calls {
		if err := c.Do(t.Context(), c.B().Incr().Key("k").Build()).Error(); err == nil {
			t.Fatal("INCR succeeded")
		}
	}
	if n := incrs.Load(); n == 0 || n > calls {
		t.Errorf("%d calls were sent %d times", calls, n)
	}
	if err := c.Do(t.Context(), c.B().Get().Key("k").Build()).Error(); err == nil {
		t.Fatal("GET succeeded")
	}
	if n := gets.Load(); n < 2 {
		t.Errorf("GET was sent %d times", n)
	}
}

func encode(words []string) string {
	var b strings.Builder
	_, _ = b.WriteString("*" + strconv.Itoa(len(words)) + "\r\n")
	for _, w := range words {
		_, _ = b.WriteString("$" + strconv.Itoa(len(w)) + "\r\n" + w + "\r\n")
	}
	return b.String()
}

// TestDiallingADeadServerIsPaced counts how often a busy caller of a dead server dials.
func TestDiallingADeadServerIsPaced(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	var dials atomic.Int64
	c, err := connect(t, "valkey://"+s.Addr, func(o *valkey.ClientOption) {
		next := o.DialCtxFn
		o.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, cfg *tls.Config) (net.Conn, error) {
			dials.Add(1)
			return next(ctx, addr, d, cfg)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Kill()
	dials.Store(0)
	const calls = 5000
	for range calls {
		if err := c.Do(t.Context(), c.B().Set().Key("k").Value("v").Build()).Error(); err == nil {
			t.Fatal("a dead server answered")
		}
	}
	if n := dials.Load(); n == 0 || n > calls/10 {
		t.Errorf("%d dials for %d calls", n, calls)
	}
	s.Restart()
	eventually(t, func() error { return c.Do(t.Context(), c.B().Ping().Build()).Error() })
}

func TestSubscriptionOutlivesTheServer(t *testing.T) {
	s := valkeytest.StartWith(t, valkeytest.Config{TCP: true})
	c, err := connect(t, "valkey://"+s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	messages, ended := make(chan string, 1000), make(chan error, 1)
	go func() {
		ended <- c.Receive(ctx, c.B().Subscribe().Channel("news").Build(), func(m valkey.PubSubMessage) { messages <- m.Message })
	}()
	heard := func(text string) {
		t.Helper()
		eventually(t, func() error {
			_ = c.Do(ctx, c.B().Publish().Channel("news").Message(text).Build()).Error()
			for {
				select {
				case m := <-messages:
					if m == text {
						return nil
					}
				default:
					return context.DeadlineExceeded
				}
			}
		})
	}
	heard("before")
	for range 2 * retriesOfAnyCall {
		s.Restart()
		heard("after")
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("Receive returned nil")
	}
}

const retriesOfAnyCall = 9

// TestOutageOfOneNode holds that the rest of a cluster serves on, and that its client comes back.
func TestOutageOfOneNode(t *testing.T) {
	nodes := valkeytest.Cluster(t, 3)
	c, err := connect(t, "valkey://"+nodes.Addrs()[0], hasty)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[int]string{} // one on each node
	for n := 0; len(keys) < 3; n++ {
		key := strconv.Itoa(n)
		slot, err := c.Do(t.Context(), c.B().ClusterKeyslot().Key(key).Build()).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		keys[int(slot*3/16384)] = key
	}
	set := func(i int) error {
		return c.Do(context.Background(), c.B().Set().Key(keys[i]).Value("v").Build()).Error()
	}
	for i := range keys {
		expectAll(t, 8, func() error { return set(i) }, true)
	}
	nodes.Servers[1].Kill()
	expectAll(t, 8, func() error { return set(1) }, false)
	nodes.Servers[1].Restart()
	for i := range keys {
		eventually(t, func() error { return set(i) })
	}
}

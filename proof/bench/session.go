package main

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/redis/go-redis/v9"
	"github.com/valkey-io/valkey-go"
)

// sessionArea is what a request costs that reads or changes its session, and what a session costs the server.
func sessionArea() Area { return Area{Name: "session", Rows: sessionRows} }

const sessionVisitors = 1000

// visit is a session's value. Note makes it as large as a row wants it.
type visit struct {
	User   string   `json:"user_id"`
	Email  string   `json:"email"`
	Role   string   `json:"role"`
	Locale string   `json:"locale"`
	CSRF   string   `json:"csrf_token"`
	Cart   []string `json:"cart"`
	Note   string   `json:"last_page"`
}

// visitOf has seven members, and about so many bytes as JSON.
func visitOf(i, size int) visit {
	v := visit{
		User: strconv.Itoa(100_000 + i), Email: fmt.Sprintf("customer-%06d@example.com", i), Role: "customer", Locale: "en-US",
		CSRF: "kX3vQ9mT7pLw2ZrN8sYb5HcJ4dGf6AeU", Cart: []string{"sku-18271", "sku-90412", "sku-33017"},
	}
	b, err := json.Marshal(v)
	if err == nil && len(b) < size {
		v.Note = strings.Repeat("/catalogue/shoes?page=2&sort=price", 100)[:size-len(b)]
		v.Note = strings.ReplaceAll(v.Note, "&", ".") // which JSON would make longer
	}
	return v
}

// put stores a visit as the handlers of scs do.
func (v visit) put(ctx context.Context, m *scs.SessionManager) {
	for name, value := range map[string]any{
		"user_id": v.User, "email": v.Email, "role": v.Role, "locale": v.Locale, "csrf_token": v.CSRF, "cart": v.Cart, "last_page": v.Note,
	} {
		m.Put(ctx, name, value)
	}
}

func sessionRows(ctx context.Context, b *B) []Row {
	gob.Register([]string{})
	server := valkeytest.StartWith(b, valkeytest.Config{TCP: true})
	// The small one has 332 bytes of names and values, and 42 of JSON's quotes, colons and commas.
	const large, small = 2048, 374
	ours := oursWith(ctx, b, server.Addr, session.Config{Prefix: "ours"}, large, true)
	local := oursWith(ctx, b, server.Addr, session.Config{Prefix: "local", Local: session.LocalTier{Entries: 64 * sessionVisitors}}, large, true)
	idleOn, idleOff := scsWith(ctx, b, server.Addr, 30*time.Minute, large), scsWith(ctx, b, server.Addr, 0, large)
	read := func(s *contender) Round { return Throughput(64, s.read) }
	local.warm(ctx, b)
	rows := []Row{
		{Name: "read-64", Unit: "requests/s", Better: "higher", Ours: read(ours), Peers: []Peer{{"scs idle on", read(idleOn)}, {"scs idle off", read(idleOff)}}},
		{Name: "read-local-64", Unit: "requests/s", Better: "higher", Ours: read(local), Peers: []Peer{{"scs idle on", read(idleOn)}, {"scs idle off", read(idleOff)}}},
	}
	rows = append(rows, sessionBytes(ctx, b, small)...)
	return append(rows, sessionMemory(ctx, b, small)...)
}

// contender is a site with sessions.
type contender struct {
	reading, writing http.Handler
	cookies          []string
	next             atomic.Int64
}

// nowhere is a response that nobody reads.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header               { return n.header }
func (n nowhere) Write(b []byte) (int, error)       { return len(b), nil }
func (n nowhere) WriteHeader(int)                   {}
func (n nowhere) ReadFrom(io.Reader) (int64, error) { return 0, nil }

func (c *contender) serve(ctx context.Context, h http.Handler, i int) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Cookie", c.cookies[i%len(c.cookies)])
	h.ServeHTTP(nowhere{http.Header{}}, r)
}

func (c *contender) read(ctx context.Context, _ int) error {
	c.serve(ctx, c.reading, int(c.next.Add(1)))
	return nil
}

// warm reads all sessions until the local tier has them.
func (c *contender) warm(ctx context.Context, b *B) {
	for range 3 {
		<-time.After(100 * time.Millisecond)
		for i := range c.cookies {
			c.serve(ctx, c.reading, i)
		}
	}
}

// logIn begins the sessions, and keeps their cookies.
func (c *contender) logIn(ctx context.Context, b *B, login func(i int) http.Handler) {
	for i := range sessionVisitors {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		b.Must(err)
		w := httptest.NewRecorder()
		login(i).ServeHTTP(w, r)
		cookie, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
		if cookie == "" {
			b.Fatalf("a login without a cookie: %d", w.Code)
		}
		c.cookies = append(c.cookies, cookie)
	}
}

// oursWith begins sessions that belong to nobody, as those of scs do, or to a user each.
func oursWith(ctx context.Context, b *B, addr string, cfg session.Config, size int, asUser bool) *contender {
	cfg.Timeout = 10 * time.Second // a machine that is busy makes a round slow, as it does the peers', and ends it for nobody
	m, err := session.New[visit](connectTo(ctx, b, addr), cfg)
	b.Must(err)
	b.Cleanup(m.Close)
	c := &contender{}
	c.logIn(ctx, b, func(i int) http.Handler {
		return m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s, err := m.Load(r.Context())
			b.Must(err)
			s.Value = visitOf(i, size)
			if asUser {
				b.Must(m.Login(r.Context(), s, session.Terms{User: s.Value.User, Device: " ", Address: " "}))
			}
		}))
	})
	c.reading = m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		v, ok, err := m.Read(r.Context())
		if err != nil || !ok || v.Role != "customer" {
			panic(fmt.Sprint(v, ok, err))
		}
	}))
	var n atomic.Int64
	c.writing = m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s, err := m.Load(r.Context())
		if err != nil {
			panic(err)
		}
		s.Value.Locale = "en-" + strconv.FormatInt(n.Add(1)%90+10, 10)
	}))
	return c
}

func scsWith(ctx context.Context, b *B, addr string, idle time.Duration, size int) *contender {
	m := scs.New()
	client := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 10 * runtime.GOMAXPROCS(0)})
	b.Cleanup(func() { _ = client.Close() })
	m.Store = goredisstore.NewWithPrefix(client, fmt.Sprintf("scs:%v:%d:", idle, size))
	m.IdleTimeout = idle
	c := &contender{}
	c.logIn(ctx, b, func(i int) http.Handler {
		return m.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { visitOf(i, size).put(r.Context(), m) }))
	})
	c.reading = m.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if role := m.GetString(r.Context(), "role"); role != "customer" {
			panic(role)
		}
	}))
	var n atomic.Int64
	c.writing = m.LoadAndSave(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		m.Put(r.Context(), "locale", "en-"+strconv.FormatInt(n.Add(1)%90+10, 10))
	}))
	return c
}

// received is what the server has read from its clients.
func received(ctx context.Context, client valkey.Client) (int, error) {
	text, err := client.Do(ctx, client.B().Info().Section("stats").Build()).ToString()
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`total_net_input_bytes:(\d+)`).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("INFO has no total_net_input_bytes")
	}
	return strconv.Atoi(m[1])
}

// sessionBytes counts the bytes that a request sends to the server, one request at a time. A server of their own, which
// nobody else talks to.
func sessionBytes(ctx context.Context, b *B, size int) []Row {
	server := valkeytest.StartWith(b, valkeytest.Config{TCP: true})
	watch := valkeytest.NewClient(b, server)
	ours := oursWith(ctx, b, server.Addr, session.Config{}, size, false)
	users := oursWith(ctx, b, server.Addr, session.Config{Prefix: "us"}, size, true)
	idleOn, idleOff := scsWith(ctx, b, server.Addr, 30*time.Minute, size), scsWith(ctx, b, server.Addr, 0, size)
	newcomer := func(ctx context.Context, d time.Duration) (float64, error) { // a process that has not seen the sessions
		client := connectTo(ctx, b, server.Addr)
		m, err := session.New[visit](client, session.Config{})
		if err != nil {
			return 0, err
		}
		for i, cookie := range ours.cookies[:2] { // the script is loaded
			_, token, _ := strings.Cut(cookie, "=")
			if _, ok, err := m.Get(ctx, token); err != nil || !ok {
				return 0, fmt.Errorf("session %d: %v, %w", i, ok, err)
			}
		}
		site := &contender{cookies: ours.cookies[2:]}
		read := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if _, ok, err := m.Read(r.Context()); err != nil || !ok {
				panic(fmt.Sprint(ok, err))
			}
		}))
		return bytesEach(ctx, watch, 300, func(i int) { site.serve(ctx, read, i) })
	}
	each := func(c *contender, h func(c *contender) http.Handler) Round {
		return func(ctx context.Context, _ time.Duration) (float64, error) {
			return bytesEach(ctx, watch, 1000, func(int) { c.serve(ctx, h(c), int(c.next.Add(1))) })
		}
	}
	reading, writing := func(c *contender) http.Handler { return c.reading }, func(c *contender) http.Handler { return c.writing }
	return []Row{
		{Name: "read-bytes-sent", Unit: "B", Better: "lower", Ours: each(ours, reading), Peers: []Peer{{"scs idle on", each(idleOn, reading)}, {"scs idle off", each(idleOff, reading)}}},
		{Name: "first-read-bytes-sent", Unit: "B", Better: "lower", Ours: newcomer, Peers: []Peer{{"scs idle on", each(idleOn, reading)}}},
		{Name: "write-one-field-bytes", Unit: "B", Better: "lower", Ours: each(ours, writing), Peers: []Peer{{"scs idle on", each(idleOn, writing)}, {"scs idle off", each(idleOff, writing)}}},
		{Name: "user-read-bytes-sent", Unit: "B", Better: "lower", Ours: each(users, reading), Peers: []Peer{{"scs idle on", each(idleOn, reading)}}},
		{Name: "user-write-one-field-bytes", Unit: "B", Better: "lower", Ours: each(users, writing), Peers: []Peer{{"scs idle on", each(idleOn, writing)}}},
	}
}

// bytesEach returns the bytes of one request, less those of asking for the figure.
func bytesEach(ctx context.Context, watch valkey.Client, n int, request func(i int)) (float64, error) {
	var marks [3]int
	var err error
	for i := range marks {
		if i == 2 {
			for j := range n {
				request(j)
			}
		}
		if marks[i], err = received(ctx, watch); err != nil {
			return 0, err
		}
	}
	return float64(marks[2]-marks[1]-(marks[1]-marks[0])) / float64(n), nil
}

// sessionMemory stores the same seven members in each way.
func sessionMemory(ctx context.Context, b *B, size int) []Row {
	server := valkeytest.StartWith(b, valkeytest.Config{TCP: true})
	client := valkeytest.NewClient(b, server)
	oursWith(ctx, b, server.Addr, session.Config{Prefix: "fr"}, size, false)
	oursWith(ctx, b, server.Addr, session.Config{Prefix: "us"}, size, true)
	scsWith(ctx, b, server.Addr, 30*time.Minute, size)
	value, err := json.Marshal(visitOf(1, size))
	b.Must(err)
	usage := func(pattern string) Round {
		return func(ctx context.Context, _ time.Duration) (float64, error) {
			keys, err := client.Do(ctx, client.B().Keys().Pattern(pattern).Build()).AsStrSlice()
			if err != nil || len(keys) == 0 {
				return 0, fmt.Errorf("%d keys like %s, %w", len(keys), pattern, err)
			}
			total := int64(0)
			for _, key := range keys {
				n, err := client.Do(ctx, client.B().MemoryUsage().Key(key).Build()).AsInt64()
				if err != nil {
					return 0, err
				}
				total += n
			}
			return float64(total) / float64(len(keys)), nil
		}
	}
	peers := []Peer{{"scs", usage("scs:*")}}
	if err := connectRedis(ctx, server, string(value)); err == nil {
		peers = append(peers, Peer{"connect-redis", usage("sess:*")})
	}
	index := func(ctx context.Context, d time.Duration) (float64, error) { // each user has one session
		own, err := usage("us:sess:{*}:??????????????????????")(ctx, d)
		if err != nil {
			return 0, err
		}
		all, err := usage("us:sess:*:user")(ctx, d)
		return own + all, err
	}
	return []Row{
		{Name: "memory", Unit: "B", Better: "lower", Ours: usage("fr:sess:{*}:??????????????????????"), Peers: peers},
		{Name: "user-memory-with-index", Unit: "B", Better: "lower", Ours: index, Peers: peers},
	}
}

// connectRedis stores a session with express-session and connect-redis; an error says that Node lacks them.
func connectRedis(ctx context.Context, server *valkeytest.Server, value string) error {
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(file), "..", "interop", "node")
	cmd := exec.CommandContext(ctx, "node", "connect-redis.mjs", server.Socket, "secret", value) //nolint:gosec // a socket and a value of this program
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

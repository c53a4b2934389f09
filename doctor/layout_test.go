package doctor

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/cache"
	"github.com/flatrate/flatrate/cache/object"
	"github.com/flatrate/flatrate/cache/writebehind"
	"github.com/flatrate/flatrate/lock"
	"github.com/flatrate/flatrate/meter"
	"github.com/flatrate/flatrate/queue"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/session"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// TestLayoutIsThePage holds that each key of docs/keys.md is known, as what it is, and in no other type.
func TestLayoutIsThePage(t *testing.T) {
	page, err := os.ReadFile("../docs/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	words := strings.NewReplacer("GROUP", "tenant 1", "TOKEN", "abc", "SUBJECT", "user:1", "SHAPE", "w1m", "SHARD", "3", "DATE", "2026-11-26",
		"NAME", "mail", "KEY", "user:1", "TAG", "7", ":P}", ":3}", ":N}", ":0}")
	rows := regexp.MustCompile("(?m)^\\| ([a-z/]+) \\| `(fr:[^`]+)` \\| ([a-z ]+) \\|").FindAllStringSubmatch(string(page), -1)
	if len(rows) < 60 {
		t.Fatalf("%d rows", len(rows))
	}
	blocks := map[string]string{"cache/object": "cache", "cache/writebehind": "write-behind"}
	for _, row := range rows {
		block, key, kind := row[1], words.Replace(row[2]), strings.ReplaceAll(row[3], "sorted set", "zset")
		if b, ok := blocks[block]; ok {
			block = b
		}
		role, ok := classify(key, kind, []string{"other", "fr"})
		if !ok || role.Block != block || role.Part == "" || role.Loss == "" {
			t.Errorf("%s, a %s: %+v, %v; it is of %s", key, kind, role, ok, block)
		}
		other := "stream"
		if kind == other {
			other = "string"
		}
		if role, ok := classify(key, other, []string{"fr"}); ok {
			t.Errorf("%s, a %s: %+v", key, other, role)
		}
		if _, ok := classify("x"+key, kind, []string{"fr"}); ok {
			t.Errorf("x%s is known", key)
		}
	}
}

func TestLayoutOfOthers(t *testing.T) {
	for _, key := range []string{"", "fr", "fr:", "fr:lock", "fr:lock:{", "fr:lock:{}:own:x", "fr:lock:{1}", "fr:lock:{1}:own", "fr:queue:{a:0}:nothing",
		"fr:list:{", "fr:list:{}", "fr:list:{a}b", "fr:list:a", "fr:log:{a:0}:nothing",
		"fr:sess:", "fr:sess:{1}:", "fr:rate:{", "fr:rate:x:{u}:hold", "fr:cache:x", "fr:cache:{k", "frx:lock:{1}:own:x", "fr:obj:{k}x", "user:1"} {
		for _, kind := range []string{"string", "list", "hash", "zset", "set"} {
			if role, ok := classify(key, kind, []string{"fr"}); ok {
				t.Errorf("%q, a %s: %+v", key, kind, role)
			}
		}
	}
}

// mix opens every block for real, and uses it.
func mix(t *testing.T, c valkey.Client) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m, err := meter.New(c, meter.Config{Name: "shop"})
	must(err)
	locker, err := lock.New(c, lock.Config{TTL: time.Hour, Hooks: m.Lock(lock.Hooks{})})
	must(err)
	held, ok, err := locker.TryAcquire(ctx, "invoice")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if held.Fence() == 0 {
		t.Fatal("no fencing token")
	}
	permits, err := lock.NewSemaphore(c, lock.SemaphoreConfig{TTL: time.Hour, Limit: 2})
	must(err)
	_, _, err = permits.TryAcquire(ctx, "exports")
	must(err)
	q, err := queue.New(c, queue.Config{Name: "mail", DeadLetters: "mail dead"})
	must(err)
	for _, msg := range []queue.Message{{Body: []byte("a"), Group: "g", DedupID: "1"}, {Body: []byte("b")}, {Body: []byte("c"), Delay: time.Hour}} {
		_, err := q.Send(ctx, msg)
		must(err)
	}
	_, err = q.Receive(ctx, queue.ReceiveOptions{Max: 1})
	must(err)
	limiter, err := ratelimit.New(c, ratelimit.Config{Limits: []ratelimit.Limit{{Limit: 100, Window: time.Hour}}})
	must(err)
	_, err = limiter.Allow(ctx, "user:42")
	must(err)
	sessions, err := session.New[map[string]string](c, session.Config{Idle: time.Hour})
	must(err)
	_, err = sessions.Create(ctx, map[string]string{"theme": "dark"})
	must(err)
	pages, err := cache.New[string](c, cache.Config{Name: "page", TTL: time.Hour})
	must(err)
	_, err = pages.Get(ctx, "home", func(context.Context) (string, error) { return strings.Repeat("x", 4000), nil })
	must(err)
	type profile struct {
		Name string `cache:"name"`
	}
	profiles, err := object.New[profile](c, object.Config{Name: "profile", TTL: time.Hour})
	must(err)
	must(profiles.Set(ctx, "user:42", profile{"Ann"}))
	behind, err := writebehind.New(c, writebehind.Config[string]{Name: "position", Origin: func(context.Context, []writebehind.Write[string]) error { return nil }})
	must(err)
	must(behind.Put(ctx, "user:42", "here"))
	must(m.Close(ctx))
}

// TestEveryBlock holds that each key that the blocks write is known.
func TestEveryBlock(t *testing.T) {
	c := valkeytest.Start(t).Client()
	mix(t, c)
	r, err := Scan(t.Context(), c, Config{})
	if err != nil {
		t.Fatal(err)
	}
	var known int64
	blocks := map[string]bool{}
	for _, b := range r.Blocks {
		known += b.Keys
		blocks[b.Block] = true
	}
	if known != r.Keys {
		t.Errorf("%d of %d keys are known: %+v of %+v", known, r.Keys, r.Blocks, r.Prefixes)
	}
	for _, b := range []string{"lock", "queue", "session", "ratelimit", "cache", "write-behind", "meter"} {
		if !blocks[b] {
			t.Errorf("nothing of %s", b)
		}
	}
}

package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/valkey-io/valkey-go"
)

const release = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end"

// flush empties a server before the next client.
func flush(ctx context.Context, t *testing.T, s servers) {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.plain})
	defer c.Close()
	if err := c.FlushAll(ctx).Err(); err != nil {
		t.Error(err)
	}
}

// trusting is the TLS of a client that verifies the server by its authority.
func trusting(s servers) *tls.Config {
	pem, err := os.ReadFile(s.ca)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		return &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// versionOf is the version of a module that go.mod names.
func versionOf(path string) string {
	text, err := os.ReadFile("../go.mod")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), "\t"+path+" v")
	version, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(strings.TrimSuffix(version, "// indirect"))
}

// steps are calls whose replies are compared; the first difference is the answer.
type steps struct{ err error }

func (s *steps) same(what string, want any, got any, err error) {
	if s.err == nil && err != nil {
		s.err = fmt.Errorf("%s: %w", what, err)
	}
	if s.err == nil && !reflect.DeepEqual(want, got) {
		s.err = fmt.Errorf("%s: %v, not %v", what, got, want)
	}
}

func (s *steps) answer() string {
	if s.err != nil {
		return s.err.Error()
	}
	return "yes"
}

func goRedis(ctx context.Context, s servers) compat {
	c := redis.NewClient(&redis.Options{Addr: s.plain, Protocol: 2})
	defer c.Close()
	r := map[string]string{}
	feature := func(name string, run func(*steps)) { var s steps; run(&s); r[name] = s.answer() }
	feature("strings", func(s *steps) {
		got, err := c.Set(ctx, "s", "v", 5*time.Minute).Result()
		s.same("SET EX", "OK", got, err)
		got, err = c.Get(ctx, "s").Result()
		s.same("GET", "v", got, err)
		taken, err := c.SetNX(ctx, "lock", "me", 5*time.Second).Result()
		s.same("SET NX", true, taken, err)
		taken, err = c.SetNX(ctx, "lock", "you", 5*time.Second).Result()
		s.same("a second SET NX", false, taken, err)
		n, err := c.Incr(ctx, "n").Result()
		s.same("INCR", int64(1), n, err)
		set, err := c.Expire(ctx, "n", time.Minute).Result()
		s.same("EXPIRE", true, set, err)
	})
	feature("hashes", func(s *steps) {
		n, err := c.HSet(ctx, "h", "id", "1", "name", "Alice").Result()
		s.same("HSET", int64(2), n, err)
		name, err := c.HGet(ctx, "h", "name").Result()
		s.same("HGET", "Alice", name, err)
		some, err := c.HMGet(ctx, "h", "id", "no").Result()
		s.same("HMGET", []any{"1", nil}, some, err)
		all, err := c.HGetAll(ctx, "h").Result()
		s.same("HGETALL", map[string]string{"id": "1", "name": "Alice"}, all, err)
	})
	feature("lists", func(s *steps) {
		n, err := c.LPush(ctx, "l", "job").Result()
		s.same("LPUSH", int64(1), n, err)
		got, err := c.BRPop(ctx, time.Second, "l").Result()
		s.same("BRPOP", []string{"l", "job"}, got, err)
		_, err = c.BRPop(ctx, time.Second, "l").Result()
		s.same("an empty BRPOP", true, errors.Is(err, redis.Nil), nil)
	})
	feature("streams", func(s *steps) { goRedisStreams(ctx, c, s) })
	feature("sorted sets", func(s *steps) {
		replies, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
			p.ZRemRangeByScore(ctx, "z", "-inf", "5")
			p.ZAdd(ctx, "z", redis.Z{Score: 10, Member: "a"})
			p.ZCard(ctx, "z")
			p.PExpire(ctx, "z", time.Minute)
			return nil
		})
		s.same("the pipeline", 4, len(replies), err)
		if s.err == nil {
			s.same("ZCARD", int64(1), replies[2].(*redis.IntCmd).Val(), nil)
		}
	})
	feature("scripts", func(s *steps) {
		got, err := c.Eval(ctx, release, []string{"lock"}, "you").Int()
		s.same("EVAL", 0, got, err)
		got, err = c.Eval(ctx, release, []string{"lock"}, "me").Int()
		s.same("EVAL", 1, got, err)
		sha, err := c.ScriptLoad(ctx, "return ARGV[1]").Result()
		s.same("SCRIPT LOAD", 40, len(sha), err)
		text, err := c.EvalSha(ctx, sha, []string{"k"}, "x").Text()
		s.same("EVALSHA", "x", text, err)
	})
	feature("pub/sub", func(s *steps) {
		sub := c.Subscribe(ctx, "news")
		defer sub.Close()
		_, err := sub.Receive(ctx) // the confirmation
		s.same("SUBSCRIBE", nil, nil, err)
		s.same("PUBLISH", nil, nil, c.Publish(ctx, "news", "hello").Err())
		m, err := sub.ReceiveMessage(ctx)
		if s.same("the message", nil, nil, err); s.err == nil {
			s.same("the message", "hello", m.Payload, nil)
		}
	})
	feature("RESP3", func(st *steps) {
		three := redis.NewClient(&redis.Options{Addr: s.plain, Protocol: 3})
		defer three.Close()
		st.same("HSET", nil, nil, three.HSet(ctx, "r", "a", "1").Err())
		all, err := three.HGetAll(ctx, "r").Result()
		st.same("HGETALL", map[string]string{"a": "1"}, all, err)
		info, err := three.Do(ctx, "CLIENT", "INFO").Text()
		st.same("the connection", true, strings.Contains(info, " resp=3"), err)
	})
	feature("TLS", func(st *steps) {
		secure := redis.NewClient(&redis.Options{Addr: s.tls, TLSConfig: trusting(s)})
		defer secure.Close()
		got, err := secure.Ping(ctx).Result()
		st.same("PING", "PONG", got, err)
	})
	return compat{versionOf("github.com/redis/go-redis/v9"), r}
}

func goRedisStreams(ctx context.Context, c *redis.Client, s *steps) {
	s.same("XGROUP CREATE", nil, nil, c.XGroupCreateMkStream(ctx, "x", "g", "0").Err())
	id, err := c.XAdd(ctx, &redis.XAddArgs{Stream: "x", Values: []string{"order", "9876"}}).Result()
	s.same("XADD", true, id != "", err)
	got, err := c.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "g", Consumer: "a", Streams: []string{"x", ">"}, Count: 10, Block: 100 * time.Millisecond}).Result()
	if s.same("XREADGROUP", 1, len(got), err); s.err == nil {
		s.same("XREADGROUP", id, got[0].Messages[0].ID, nil)
	}
	pending, err := c.XPending(ctx, "x", "g").Result()
	if s.same("XPENDING", nil, nil, err); s.err == nil {
		s.same("XPENDING", int64(1), pending.Count, nil)
	}
	n, err := c.XAck(ctx, "x", "g", id).Result()
	s.same("XACK", int64(1), n, err)
}

func valkeyGo(ctx context.Context, s servers) compat {
	r := map[string]string{}
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.plain}, AlwaysRESP2: true, DisableCache: true})
	if err != nil {
		return compat{"", map[string]string{"error": err.Error()}}
	}
	defer c.Close()
	do := func(c valkey.Client, args ...string) valkey.ValkeyResult {
		return c.Do(ctx, c.B().Arbitrary(args...).Build())
	}
	feature := func(name string, run func(*steps)) { var s steps; run(&s); r[name] = s.answer() }
	integer := func(s *steps, want int64, args ...string) {
		n, err := do(c, args...).AsInt64()
		s.same(args[0], want, n, err)
	}
	text := func(s *steps, want string, args ...string) {
		got, err := do(c, args...).ToString()
		s.same(args[0], want, got, err)
	}
	feature("strings", func(s *steps) {
		text(s, "OK", "SET", "s", "v", "EX", "300")
		text(s, "v", "GET", "s")
		text(s, "OK", "SET", "lock", "me", "PX", "5000", "NX")
		s.same("a second SET NX", true, valkey.IsValkeyNil(do(c, "SET", "lock", "you", "PX", "5000", "NX").Error()), nil)
		integer(s, 1, "INCR", "n")
		integer(s, 1, "EXPIRE", "n", "60")
	})
	feature("hashes", func(s *steps) {
		integer(s, 2, "HSET", "h", "id", "1", "name", "Alice")
		text(s, "Alice", "HGET", "h", "name")
		some, err := do(c, "HMGET", "h", "id", "no").ToArray()
		s.same("HMGET", true, err == nil && len(some) == 2 && some[1].IsNil(), err)
		all, err := do(c, "HGETALL", "h").AsStrMap()
		s.same("HGETALL", map[string]string{"id": "1", "name": "Alice"}, all, err)
	})
	feature("lists", func(s *steps) {
		integer(s, 1, "LPUSH", "l", "job")
		got, err := c.Do(ctx, c.B().Brpop().Key("l").Timeout(1).Build()).AsStrSlice()
		s.same("BRPOP", []string{"l", "job"}, got, err)
		s.same("an empty BRPOP", true, valkey.IsValkeyNil(c.Do(ctx, c.B().Brpop().Key("l").Timeout(0.01).Build()).Error()), nil)
	})
	feature("streams", func(s *steps) {
		text(s, "OK", "XGROUP", "CREATE", "x", "g", "0", "MKSTREAM")
		id, err := do(c, "XADD", "x", "*", "order", "9876").ToString()
		s.same("XADD", true, id != "", err)
		got, err := c.Do(ctx, c.B().Xreadgroup().Group("g", "a").Count(10).Block(100).Streams().Key("x").Id(">").Build()).AsXRead()
		if s.same("XREADGROUP", 1, len(got["x"]), err); s.err == nil {
			s.same("XREADGROUP", id, got["x"][0].ID, nil)
		}
		pending, err := do(c, "XPENDING", "x", "g").ToArray()
		s.same("XPENDING", 4, len(pending), err)
		integer(s, 1, "XACK", "x", "g", id)
	})
	feature("sorted sets", func(s *steps) {
		replies := c.DoMulti(ctx, c.B().Zremrangebyscore().Key("z").Min("-inf").Max("5").Build(), c.B().Zadd().Key("z").ScoreMember().ScoreMember(10, "a").Build(),
			c.B().Zcard().Key("z").Build(), c.B().Pexpire().Key("z").Milliseconds(60000).Build())
		for i, want := range []int64{0, 1, 1, 1} {
			n, err := replies[i].AsInt64()
			s.same("the pipeline", want, n, err)
		}
	})
	feature("scripts", func(s *steps) {
		integer(s, 0, "EVAL", release, "1", "lock", "you")
		integer(s, 1, "EVAL", release, "1", "lock", "me")
		sha, err := do(c, "SCRIPT", "LOAD", "return ARGV[1]").ToString()
		s.same("SCRIPT LOAD", 40, len(sha), err)
		text(s, "x", "EVALSHA", sha, "1", "k", "x")
	})
	feature("pub/sub", func(st *steps) { valkeyGoPubSub(ctx, s, st) })
	feature("RESP3", func(st *steps) {
		three, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.plain}})
		if st.same("the client", nil, nil, err); st.err != nil {
			return
		}
		defer three.Close()
		st.same("HSET", nil, nil, do(three, "HSET", "r", "a", "1").Error())
		all, err := do(three, "HGETALL", "r").ToMessage()
		st.same("HGETALL is a map", true, all.IsMap(), err)
	})
	feature("TLS", func(st *steps) {
		config := trusting(s)
		config.ServerName, _, _ = net.SplitHostPort(s.tls)
		secure, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.tls}, TLSConfig: config})
		if st.same("the client", nil, nil, err); st.err != nil {
			return
		}
		defer secure.Close()
		got, err := do(secure, "PING").ToString()
		st.same("PING", "PONG", got, err)
	})
	return compat{versionOf("github.com/valkey-io/valkey-go"), r}
}

func valkeyGoPubSub(ctx context.Context, s servers, st *steps) {
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.plain}, AlwaysRESP2: true, DisableCache: true})
	if st.same("the client", nil, nil, err); st.err != nil {
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	go func() { // until somebody has heard it
		for ctx.Err() == nil {
			if n, err := c.Do(ctx, c.B().Publish().Channel("news").Message("hello").Build()).AsInt64(); err != nil || n > 0 {
				return
			}
		}
	}()
	heard := ""
	err = c.Receive(ctx, c.B().Subscribe().Channel("news").Build(), func(m valkey.PubSubMessage) { heard = m.Message; cancel() })
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	st.same("the message", "hello", heard, err)
}

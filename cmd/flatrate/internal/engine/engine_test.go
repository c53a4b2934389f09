package engine

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/valkey-io/valkey-go"
)

func start(t testing.TB) (*Engine, valkey.Client) {
	t.Helper()
	e, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e, e.Client()
}

func date(year int) time.Time { return time.Date(year, 5, 17, 10, 5, 3, 0, time.UTC) }

func TestClock(t *testing.T) {
	for _, at := range []time.Time{time.Unix(0, 0), date(1970), date(2015), date(2099)} {
		t.Run(strconv.Itoa(at.Year()), func(t *testing.T) {
			e, client := start(t)
			e.Advance(at)
			script := valkey.NewLuaScript("#!lua\nlocal t = redis.call('TIME')\nreturn t[1] .. ' ' .. t[2]", valkey.WithLoadSHA1(true))
			clock := func() string {
				t.Helper()
				answer, err := script.Exec(context.Background(), client, nil, nil).ToString()
				if err != nil {
					t.Fatal(err)
				}
				return answer
			}
			if got, want := clock(), fmt.Sprintf("%d 0", at.Unix()); got != want {
				t.Errorf("TIME in Lua is %q, want %q", got, want)
			}
			e.Advance(at.Add(-time.Hour))
			if got, want := clock(), fmt.Sprintf("%d 0", at.Unix()); got != want {
				t.Errorf("after a step back TIME is %q, want %q", got, want)
			}
			e.Advance(at.Add(1500 * time.Millisecond))
			if got, want := clock(), fmt.Sprintf("%d 500000", at.Unix()+1); got != want {
				t.Errorf("after 1.5 s TIME is %q, want %q", got, want)
			}
		})
	}
}

// TestExpiry sets a TTL in each way that the building blocks may use, and looks a second before its end and at its end.
func TestExpiry(t *testing.T) {
	ctx := context.Background()
	ways := map[string]func(c valkey.Client, at time.Time) []valkey.Completed{
		"SET PX": func(c valkey.Client, _ time.Time) []valkey.Completed {
			return []valkey.Completed{c.B().Set().Key("k").Value("v").PxMilliseconds(300_000).Build()}
		},
		"SET PXAT": func(c valkey.Client, at time.Time) []valkey.Completed {
			return []valkey.Completed{c.B().Set().Key("k").Value("v").
				PxatMillisecondsTimestamp(at.Add(300 * time.Second).UnixMilli()).Build()}
		},
		"INCRBY, PEXPIRE NX": func(c valkey.Client, _ time.Time) []valkey.Completed {
			return []valkey.Completed{c.B().Incrby().Key("k").Increment(1).Build(),
				c.B().Pexpire().Key("k").Milliseconds(300_000).Nx().Build(),
				c.B().Pexpire().Key("k").Milliseconds(900_000).Nx().Build()}
		},
		"HSET, PEXPIREAT": func(c valkey.Client, at time.Time) []valkey.Completed {
			return []valkey.Completed{c.B().Hset().Key("k").FieldValue().FieldValue("f", "v").Build(),
				c.B().Pexpireat().Key("k").MillisecondsTimestamp(at.Add(300 * time.Second).UnixMilli()).Build()}
		},
		"in Lua": func(c valkey.Client, _ time.Time) []valkey.Completed {
			return []valkey.Completed{c.B().Eval().Script("#!lua\nreturn redis.call('SET', KEYS[1], 'v', 'PX', 300000)").
				Numkeys(1).Key("k").Build()}
		},
		"touched later": func(c valkey.Client, _ time.Time) []valkey.Completed {
			return []valkey.Completed{c.B().Set().Key("k").Value("v").PxMilliseconds(5_000).Build(),
				c.B().Pexpire().Key("k").Milliseconds(300_000).Build()}
		},
	}
	for name, set := range ways {
		for _, at := range []time.Time{time.Unix(0, 0), date(2015), date(2099)} {
			t.Run(fmt.Sprintf("%s in %d", name, at.Year()), func(t *testing.T) {
				e, client := start(t)
				e.Advance(at)
				for _, answer := range client.DoMulti(ctx, set(client, at)...) {
					if err := answer.Error(); err != nil {
						t.Fatal(err)
					}
				}
				exists := func() bool {
					t.Helper()
					n, err := client.Do(ctx, client.B().Exists().Key("k").Build()).AsInt64()
					if err != nil {
						t.Fatal(err)
					}
					return n == 1
				}
				for _, after := range []time.Duration{1, 100, 299} {
					e.Advance(at.Add(after * time.Second))
					if !exists() {
						t.Fatalf("gone after %d s", after)
					}
				}
				e.Advance(at.Add(300 * time.Second))
				if exists() {
					t.Fatal("there after 300 s")
				}
			})
		}
	}
}

func TestFarLeap(t *testing.T) {
	e, client := start(t)
	e.Advance(time.Unix(0, 0))
	if err := client.Do(context.Background(), client.B().Set().Key("k").Value("v").PxMilliseconds(1000).Build()).Error(); err != nil {
		t.Fatal(err)
	}
	e.Advance(time.Date(2261, 12, 31, 23, 59, 59, 0, time.UTC))
	if n, err := client.Do(context.Background(), client.B().Dbsize().Build()).AsInt64(); err != nil || n != 0 {
		t.Fatalf("%d keys, %v; want none", n, err)
	}
}

// TestShebang runs scripts in each way there is, so that none meets the line that the embedded server can't read.
func TestShebang(t *testing.T) {
	ctx := context.Background()
	_, client := start(t)
	const script = "#!lua flags=no-writes\n-- a comment\nreturn ARGV[1]"
	do := func(args ...string) valkey.ValkeyResult {
		return client.Do(ctx, client.B().Arbitrary(args...).Build())
	}
	sha, err := do("script", "LoAd", script).ToString()
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string]valkey.ValkeyResult{
		"EVALSHA":           do("EVALSHA", sha, "0", "x"),
		"evalsha_ro":        do("evalsha_ro", sha, "0", "x"),
		"EVAL":              do("EVAL", script, "0", "x"),
		"eval":              do("eval", script, "0", "x"),
		"Eval_Ro":           do("Eval_Ro", script, "0", "x"),
		"client's own SHA":  valkey.NewLuaScript(script).Exec(ctx, client, nil, []string{"x"}),
		"SHA of the server": valkey.NewLuaScript(script, valkey.WithLoadSHA1(true)).Exec(ctx, client, nil, []string{"x"}),
		"read only":         valkey.NewLuaScriptReadOnly(script, valkey.WithLoadSHA1(true)).Exec(ctx, client, nil, []string{"x"}),
	}
	for way, answer := range answers {
		if got, err := answer.ToString(); got != "x" || err != nil {
			t.Errorf("%s: %q, %v", way, got, err)
		}
	}
	if err := do("SCRIPT").Error(); err == nil {
		t.Error("SCRIPT without arguments is no error")
	}
}

// BenchmarkAdvance measures one distinct instant over n keys with a TTL.
func BenchmarkAdvance(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			e, client := start(b)
			at := date(2015)
			e.Advance(at)
			for i := range n {
				client.Do(context.Background(), client.B().Set().Key(fmt.Sprintf("flatrate:session:{%032x}", i*7919)).Value("v").
					PxMilliseconds(1e12).Build())
			}
			for b.Loop() {
				at = at.Add(time.Second)
				e.Advance(at)
			}
		})
	}
}

// BenchmarkRoundTrip measures one command.
func BenchmarkRoundTrip(b *testing.B) {
	e, client := start(b)
	e.Advance(date(2015))
	for b.Loop() {
		client.Do(context.Background(), client.B().Set().Key("k").Value("v").PxMilliseconds(1000).Build())
	}
}

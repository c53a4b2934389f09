package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/valkey-io/valkey-go"
)

// TestExpiryIsThatOfTheServer drives the engine, and a server of the same kind that passes time by walking all keys, with the same
// random schedule. They have to answer alike.
func TestExpiryIsThatOfTheServer(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, mode := range []string{"keys", "fields", "transactions"} {
		t.Run(mode, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			e, client := start(t)
			plain := miniredis.RunT(t)
			other, err := valkey.NewClient(valkey.ClientOption{
				InitAddress: []string{plain.Addr()}, DisableCache: true, ForceSingleClient: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			clock := date(2015)
			e.Advance(clock)
			plain.SetTime(clock)
			most := 0
			for step := range 3000 {
				if random.IntN(3) == 0 {
					by := time.Duration(1+random.IntN(700)) * time.Millisecond // Advance by nothing does nothing
					clock = clock.Add(by)
					e.Advance(clock)
					plain.SetTime(clock)
					plain.FastForward(by)
				}
				cmds := command(random, clock, mode)
				got, want := answer(t, client, cmds), answer(t, other, cmds)
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("step %d: %q: %v, want %v", step, cmds, got, want)
				}
				n := len(e.expiry.keys)
				if most = max(most, n); n != len(e.expiry.queue) {
					t.Fatalf("step %d: %d deadlines, %d in the queue", step, n, len(e.expiry.queue))
				}
			}
			if most == 0 {
				t.Error("no key ever had a TTL")
			}
		})
	}
}

// command returns a random command, or a few in a transaction.
func command(random *rand.Rand, clock time.Time, mode string) [][]string {
	key := func() string { return "k" + strconv.Itoa(random.IntN(6)) }
	ms := strconv.Itoa(random.IntN(3000))
	at := strconv.FormatInt(clock.Add(time.Duration(random.IntN(3000)-200)*time.Millisecond).UnixMilli(), 10)
	const script = "#!lua\nlocal old = redis.call('PTTL', KEYS[1])\nredis.call('PEXPIRE', KEYS[1], ARGV[1])\n" +
		"return {old, redis.call('PTTL', KEYS[1]), redis.call('PTTL', KEYS[2])}"
	all := [][]string{
		{"SET", key(), "v"}, {"SET", key(), "v", "PX", ms + "1"}, {"SET", key(), "v", "KEEPTTL"}, {"SET", key(), "v", "PXAT", at},
		{"SET", key(), key(), "NX", "PX", ms + "1"}, {"PSETEX", key(), ms + "1", "v"}, {"GETEX", key(), "PX", ms + "1"},
		{"GETEX", key(), "PERSIST"}, {"INCR", "n" + key()}, {"PEXPIRE", "n" + key(), ms}, {"PEXPIRE", key(), ms},
		{"PEXPIRE", key(), ms, "NX"}, {"PEXPIRE", key(), ms, "GT"}, {"PEXPIRE", key(), ms, "LT"}, {"PEXPIREAT", key(), at},
		{"PERSIST", key()}, {"DEL", key()}, {"RENAME", key(), key()}, {"COPY", key(), key(), "REPLACE"}, {"GET", key()},
		{"PTTL", key()}, {"PTTL", key()}, {"EXISTS", key(), key()}, {"KEYS", "*"}, {"DBSIZE"}, {"TIME"},
		{"RPUSH", "l" + key(), "v"}, {"LPOP", "l" + key()}, {"PEXPIRE", "l" + key(), ms}, {"BLPOP", "l" + key(), "l" + key(), "0.001"},
		{"HSET", "h" + key(), "f", "v"}, {"HDEL", "h" + key(), "f"}, {"PEXPIRE", "h" + key(), ms}, {"PTTL", "h" + key()},
		{"EVAL", script, "2", key(), key(), ms},
	}
	if mode == "fields" {
		all = append(all, []string{"HPEXPIRE", "h" + key(), ms, "FIELDS", "1", "f"}, []string{"HEXPIRE", "h" + key(), "1", "FIELDS", "1", "f"},
			[]string{"HGET", "h" + key(), "f"})
	}
	if random.IntN(200) == 0 {
		return [][]string{{"FLUSHALL"}}
	}
	one := all[random.IntN(len(all))]
	if mode == "transactions" && random.IntN(3) == 0 && one[0] != "EVAL" {
		return [][]string{{"MULTI"}, one, {"PEXPIRE", key(), ms}, {"EXEC"}}
	}
	return [][]string{one}
}

// answer returns what the commands, on one connection, were answered. The plain server can't read the first line of a script.
func answer(t *testing.T, client valkey.Client, cmds [][]string) (answers []any) {
	t.Helper()
	err := client.Dedicated(func(c valkey.DedicatedClient) error {
		for _, cmd := range cmds {
			words := append([]string(nil), cmd...)
			if words[0] == "EVAL" {
				words[1] = "--" + words[1]
			}
			got, err := c.Do(context.Background(), c.B().Arbitrary(words...).Build()).ToAny()
			if _, refused := valkey.IsValkeyErr(err); err != nil && !refused && !valkey.IsValkeyNil(err) {
				return err
			}
			answers = append(answers, got, fmt.Sprint(err))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

// TestAdvanceDoesNotWalk counts what an instant takes beside many keys: a walk over their names takes some bytes for each.
func TestAdvanceDoesNotWalk(t *testing.T) {
	const keys, steps = 10_000, 100
	e, client := start(t)
	at := date(2015)
	e.Advance(at)
	for i := range keys {
		set := client.B().Set().Key(strconv.Itoa(i)).Value("v").PxMilliseconds(1e9).Build()
		if err := client.Do(context.Background(), set).Error(); err != nil {
			t.Fatal(err)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range steps {
		at = at.Add(time.Second)
		e.Advance(at)
	}
	runtime.ReadMemStats(&after)
	if taken := after.TotalAlloc - before.TotalAlloc; taken > keys*steps {
		t.Errorf("%d bytes for %d instants beside %d keys", taken, steps, keys)
	}
}

func TestOneDatabase(t *testing.T) {
	_, client := start(t)
	if err := client.Do(context.Background(), client.B().Arbitrary("SELECT", "1").Build()).Error(); err == nil {
		t.Error("SELECT 1 is no error")
	}
}

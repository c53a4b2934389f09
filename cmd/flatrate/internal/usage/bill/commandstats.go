package bill

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/cost"
	"github.com/valkey-io/valkey-go"
)

// What a command would be on metered services.
const (
	reads = iota
	writes
	sends
	receives
	acks
)

var commandKinds = func() map[string]int {
	kinds := map[string]int{}
	for kind, names := range map[int]string{
		reads: "get mget getrange strlen exists ttl pttl type hget hgetall hmget hexists hlen hkeys hvals sismember smismember smembers scard " +
			"srandmember zscore zmscore zrange zrangebyscore zrank zrevrange zcard zcount lrange llen lindex bitcount getbit pfcount evalsha_ro eval_ro",
		writes: "set setex psetex setnx mset msetnx getset getex getdel append incr incrby decr decrby incrbyfloat del unlink expire pexpire expireat pexpireat " +
			"persist hset hmset hsetnx hdel hincrby hincrbyfloat sadd srem spop zadd zrem zincrby zremrangebyscore setrange setbit pfadd eval evalsha",
		sends:    "xadd lpush rpush lpushx rpushx",
		receives: "xreadgroup xread brpop blpop rpop lpop lmove blmove rpoplpush brpoplpush xautoclaim xclaim",
		acks:     "xack xdel",
	} {
		for name := range strings.FieldsSeq(names) {
			kinds[name] = kind
		}
	}
	return kinds
}()

// CommandStats asks every primary of a running server for INFO, and takes its commands for what a metered service would have
// done: reads and writes of an item for most, messages for those of lists and streams. The span is since the servers started; a CONFIG
// RESETSTAT since then makes the answer too small.
func CommandStats(ctx context.Context, client valkey.Client, opt Options) (Found, error) {
	var f Found
	sums := [5]float64{}
	var memory float64
	span := time.Duration(math.MaxInt64)
	for addr, node := range client.Nodes() {
		text, err := node.Do(ctx, node.B().Info().Section("all").Build()).ToString()
		if err != nil {
			return f, fmt.Errorf("%s: INFO: %w", addr, err)
		}
		info, err := parseStats(text)
		if err != nil {
			return f, fmt.Errorf("%s: INFO: %w", addr, err)
		}
		if info.replica {
			continue
		}
		for i, n := range info.calls {
			sums[i] += n
		}
		memory += info.memory
		span = min(span, info.uptime)
		if info.other > 0 {
			f.note("%s: %.0f calls of other commands are left out", addr, info.other)
		}
	}
	if span == math.MaxInt64 {
		return f, errors.New("INFO: no primary answered")
	}
	if sums == ([5]float64{}) {
		return f, errors.New("INFO commandstats: no command has read or written data yet")
	}
	f.note("commands of %s, since the server started", spanText(span))
	if span < time.Hour {
		f.note("that is too little to say what a month costs")
	}
	u := cost.Usage{DynamoDB: cost.DynamoDB{
		Reads:       []cost.ItemReads{{Count: sums[reads], ItemBytes: opt.ItemBytes, Consistency: opt.Consistency}},
		Writes:      []cost.ItemWrites{{Count: sums[writes], ItemBytes: opt.ItemBytes}},
		StoredBytes: memory,
	}}
	if sums[reads]+sums[writes] > 0 {
		if err := f.add("dynamodb", u, span, false); err != nil {
			return f, err
		}
		w := &f.Workloads[len(f.Workloads)-1]
		need := w.Usage.Need()
		need.Bytes = memory // it is there: nothing is to be predicted
		w.Need = &need
		f.note("each command is taken for one item of %d B (--item-bytes), and used_memory for what is stored", opt.ItemBytes)
	}
	if n := max(sums[sends], sums[receives], sums[acks]); n > 0 {
		q := cost.Usage{SQS: cost.SQS{Standard: []cost.Messages{opt.messages(n, opt.ItemBytes)}}}
		return f, f.add("sqs", q, span, false)
	}
	return f, nil
}

// UsedMemory is used_memory of all primaries together.
func UsedMemory(ctx context.Context, client valkey.Client) (float64, error) {
	var total float64
	for addr, node := range client.Nodes() {
		text, err := node.Do(ctx, node.B().Info().Section("all").Build()).ToString()
		if err != nil {
			return 0, fmt.Errorf("%s: INFO: %w", addr, err)
		}
		info, err := parseStats(text)
		if err != nil {
			return 0, fmt.Errorf("%s: INFO: %w", addr, err)
		}
		if !info.replica {
			total += info.memory
		}
	}
	return total, nil
}

// stats is the part of INFO that is read.
type stats struct {
	calls   [5]float64
	other   float64
	memory  float64
	uptime  time.Duration
	replica bool
}

// parseStats reads the text of INFO. Lines that are not understood are skipped, as servers add new ones; numbers of ours that are
// none are an error.
func parseStats(text string) (stats, error) {
	var s stats
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "txt:")) {
		n++
		name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if !ok {
			continue
		}
		wrong := func() (stats, error) { return stats{}, fmt.Errorf("line %d: %s is not a number", n, short(value)) }
		switch {
		case name == "role":
			s.replica = value == "slave"
		case name == "uptime_in_seconds":
			seconds, err := strconv.ParseInt(value, 10, 32)
			if err != nil || seconds < 0 {
				return wrong()
			}
			s.uptime = max(time.Second, time.Duration(seconds)*time.Second)
		case name == "used_memory":
			v, err := strconv.ParseUint(value, 10, 63)
			if err != nil {
				return wrong()
			}
			s.memory = float64(v)
		case strings.HasPrefix(name, "cmdstat_"):
			calls, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			v, err := strconv.ParseUint(calls, 10, 63)
			if err != nil {
				return wrong()
			}
			if kind, ok := commandKinds[strings.ToLower(strings.TrimPrefix(name, "cmdstat_"))]; ok {
				s.calls[kind] += float64(v)
			} else if !strings.ContainsRune(name, '|') && !connection[strings.TrimPrefix(name, "cmdstat_")] {
				s.other += float64(v)
			}
		}
	}
	if s.uptime == 0 {
		return stats{}, errors.New("no uptime_in_seconds in it")
	}
	return s, nil
}

// connection are commands that store and read nothing.
var connection = map[string]bool{"ping": true, "hello": true, "auth": true, "client": true, "info": true, "command": true, "cluster": true,
	"config": true, "select": true, "quit": true, "publish": true, "subscribe": true, "script": true, "time": true, "multi": true, "exec": true,
	"replconf": true, "psync": true, "wait": true, "echo": true, "readonly": true}

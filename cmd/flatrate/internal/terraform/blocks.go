package terraform

import (
	"fmt"
	"slices"
	"strings"
)

// Block is a building block as a user of the server: what it may do there, and what eviction would do to it.
type Block struct {
	Name string
	// Keys are the key patterns behind the prefix; all blocks but these are shut out of them.
	Keys []string
	// Wakes says that waiters are woken through channels.
	Wakes bool
	// Commands are those that its scripts and its Go code send, those of Newer from a version on.
	Commands []string
	Newer    map[string]string
	// Expendable says that each of its keys may go at any time: they are made anew.
	Expendable bool
	// Evicted is what a policy volatile-* would do to it.
	Evicted string
	// Mixed says that some of its keys have no TTL, so that volatile-* leaves those.
	Mixed bool
}

// Blocks are the building blocks, in the order in which they are listed.
var Blocks = []Block{
	{Name: "lock", Keys: []string{"lock:*"}, Wakes: true, Mixed: true,
		Commands: words("del exists get hdel hget hset lindex lpop lrem pexpire pttl rpush set wait zadd zcard zrange zrem zremrangebyscore zscore"),
		Newer:    map[string]string{"delifeq": "9.0"},
		Evicted:  "locks that are held (two holders at a time); the fences have no TTL and stay"},
	{Name: "queue", Keys: []string{"queue:*", "log:*", "list:*"}, Wakes: true, Mixed: true,
		Commands: words("brpop del exists get hdel hexists hget hgetall hincrby hkeys hlen hmget hset hsetnx lindex llen lpop lpush pexpire pttl rpop rpush " +
			"sadd set smembers srem unlink wait waitaof xack xadd xclaim xgroup xinfo xlen xpending xrange xreadgroup xrevrange xtrim " +
			"zadd zcard zcount zmscore zpopmin zrange zrangebyscore zrem zremrangebyscore zscore"),
		Newer:   map[string]string{"delifeq": "9.0"},
		Evicted: "the lease of who sends periodic jobs, and the mark of a deleted queue; messages have no TTL and stay"},
	{Name: "ratelimit", Keys: []string{"rate:*"},
		Commands: words("del exists get mget pexpire pttl set zadd zcount zrangebyscore zrem zremrangebyscore"),
		Evicted:  "counts of limits: their subjects begin again with a full allowance"},
	{Name: "session", Keys: []string{"sess:*"},
		Commands: words("client|tracking del exists get getrange hdel hget hset pexpire pttl set setrange zadd zrange zrangebyscore zrem zremrangebyscore"),
		Newer:    map[string]string{"delifeq": "9.0"},
		Evicted:  "sessions (their users are logged out), and the marks of ended ones"},
	{Name: "write-behind", Keys: []string{"behind:*"}, Mixed: true,
		Commands: words("del exists get getrange hdel hexists hget hincrby hlen hmget hscan hset pexpire set zadd zcard zrange zrangebyscore zrem"),
		Newer:    map[string]string{"delifeq": "9.0"},
		Evicted:  "values that have reached their origin, and the lease of who drains; writes that wait have no TTL and stay"},
	{Name: "meter", Keys: []string{"meter:*"},
		Commands: words("get hget hgetall hincrby hset hsetnx pexpire set"),
		Evicted:  "counts of days, which are then missing from the bill"},
	{Name: "cache", Keys: []string{"cache:*"}, Wakes: true, Expendable: true,
		Commands: words("client|tracking del exists get pexpire pttl sadd scard set smembers zadd zcard zrem zremrangebyscore"),
		Newer:    map[string]string{"delifeq": "9.0"},
		Evicted:  "entries, which are loaded again"},
	{Name: "object", Keys: []string{"obj:*"}, Expendable: true,
		Commands: words("del exists hdel hexists hget hgetall hincrby hincrbyfloat hlen hset pexpire"),
		Newer:    map[string]string{"hpexpire": "9.0"},
		Evicted:  "objects, which are loaded again"},
}

// every block's connection needs these: scripts, and what says which server this is. AUTH and HELLO are open to all.
var every = words("asking client|setinfo cluster|info cluster|shards cluster|slots command|info eval evalsha info ping readonly script|load time")

// waking are the commands of waiters and of those that wake them, and of their connections when they are given back.
var waking = words("discard publish punsubscribe subscribe sunsubscribe unsubscribe")

func words(s string) []string { return strings.Fields(s) }

// BlockNames are the names of all blocks.
func BlockNames() []string {
	var names []string
	for _, b := range Blocks {
		names = append(names, b.Name)
	}
	return names
}

// FindBlock is the block of a name.
func FindBlock(name string) (Block, error) {
	i := slices.IndexFunc(Blocks, func(b Block) bool { return b.Name == name })
	if i < 0 {
		return Block{}, fmt.Errorf("no building block %q; there are %s", name, strings.Join(BlockNames(), ", "))
	}
	return Blocks[i], nil
}

// Allowed are all commands of a block on a version of Valkey, in order.
func (b Block) Allowed(version string) []string {
	list := append(slices.Clone(every), b.Commands...)
	if b.Wakes {
		list = append(list, waking...)
	}
	for command, from := range b.Newer {
		if slices.Index(Versions, version) >= slices.Index(Versions, from) {
			list = append(list, command)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// AccessString is the block's access string: the syntax of ACL rules, as ElastiCache and ACL SETUSER take them. A new user has no keys, no
// channels and no commands, and gets these, in the order in which ACL LIST prints them.
func (b Block) AccessString(prefix, version string) string {
	rules := []string{"on"}
	for _, pattern := range b.Keys {
		rules = append(rules, "~"+prefix+":"+pattern)
	}
	rules = append(rules, "resetchannels")
	if b.Wakes {
		rules = append(rules, "&"+prefix+":wake:*")
	}
	rules = append(rules, "-@all")
	for _, command := range b.Allowed(version) {
		rules = append(rules, "+"+command)
	}
	return strings.Join(rules, " ")
}

package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// contents are the keys by what their eviction does.
type contents struct {
	reload, forget, destroy Sum
	forgetParts, destroyed  []string // the blocks
	queues                  Sum      // lists and streams that are not the toolkit's, without a TTL
	others                  Sum      // all else that is not the toolkit's
}

func (x *exam) contents() contents {
	var c contents
	for _, b := range x.r.Blocks {
		switch b.Loss {
		case Reload:
			c.reload.add(b.Sum)
		case Forget:
			c.forget.add(b.Sum)
			c.forgetParts = add(c.forgetParts, b.Block)
		case Destroy:
			c.destroy.add(b.Sum)
			c.destroyed = add(c.destroyed, b.Block)
		}
	}
	for kind, s := range x.tally.Other {
		if (kind == "list" || kind == "stream") && s.NoTTL > 0 {
			c.queues.add(s)
		} else {
			c.others.add(s)
		}
	}
	return c
}

func add(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

const apart = "keep caches on a node of their own with allkeys-lfu, and here: CONFIG SET maxmemory-policy noeviction (in a parameter group: maxmemory-policy = noeviction)"

// policy holds the eviction policy against what stands in the database.
func (x *exam) policy() {
	policy, c := x.r.Server.Policy, x.contents()
	all, some := strings.HasPrefix(policy, "allkeys-"), strings.HasPrefix(policy, "volatile-")
	severity, limit := High, ""
	if x.r.Server.MaxMemory == 0 {
		severity, limit = Low, "; maxmemory is not set, so that it does not evict yet"
	}
	if all && c.destroy.Keys > 0 {
		x.find("evicts-data", severity, policy, "the policy may evict data that stands nowhere else: "+strings.Join(c.destroyed, ", "),
			fmt.Sprintf("%d keys, %s%s", c.destroy.Keys, size(c.destroy.Bytes), limit), apart, 0)
	}
	ending := c.forget.Keys
	if some {
		ending = c.forget.Keys - c.forget.NoTTL
	}
	if (all || some) && ending > 0 {
		x.find("evicts-state", severity, policy, "the policy may evict what must not be forgotten: "+strings.Join(c.forgetParts, ", ")+
			"; a lock is then free, a limit begins anew, a user is logged out", fmt.Sprintf("%d keys%s", ending, limit), apart, 0)
	}
	if all && c.queues.Keys > 0 {
		x.find("evicts-queues", min2(severity, Medium), policy, "the policy may evict lists and streams without a TTL, which are queues as a rule",
			fmt.Sprintf("%d keys, %s%s", c.queues.Keys, size(c.queues.Bytes), limit), apart, 0)
	}
	if x.r.Server.MaxMemory == 0 {
		return
	}
	cache := c.reload.Bytes + c.others.Bytes - c.others.NoTTLBytes
	if policy == "noeviction" && cache > 0 && cache >= 0.05*x.r.Bytes {
		fix := "CONFIG SET maxmemory-policy allkeys-lfu (in a parameter group: maxmemory-policy = allkeys-lfu)"
		if c.destroy.Keys+c.forget.Keys+c.queues.Keys > 0 {
			fix = "keep this policy, and move the caches to a node of their own with allkeys-lfu"
		}
		x.find("full-cache", Medium, policy, "when memory is full every write is an error, although caches could make room",
			fmt.Sprintf("%.0f%% of the bytes are caches or have a TTL", 100*cache/max(1, x.r.Bytes)), fix, 0)
	}
	if some && x.r.Keys > 100 && x.r.NoTTLBytes > 0.9*x.r.Bytes {
		x.find("nothing-to-evict", Medium, policy, "the policy evicts keys with a TTL only, and hardly any has one: it acts as noeviction",
			fmt.Sprintf("%.0f%% of the bytes never end", 100*x.r.NoTTLBytes/x.r.Bytes), "give caches a TTL", 0)
	}
}

func min2(a, b Severity) Severity {
	if a.AtLeast(b) {
		return b
	}
	return a
}

func (x *exam) headroom() {
	for _, h := range x.nodes.after {
		used, limit := h.number("used_memory"), h.number("maxmemory")
		if h.info["used_memory"] == "" {
			continue
		}
		part := float64(used) / max(1, float64(limit))
		switch {
		case limit == 0:
			x.find("no-maxmemory", Medium, h.addr, "maxmemory is not set: the operating system decides when memory ends, and kills the server",
				fmt.Sprintf("%s in use", size(float64(used))), "CONFIG SET maxmemory BYTES, with 80% of the machine's memory", 0)
		case part >= 0.95:
			x.find("headroom", High, h.addr, "memory is full: writes evict, or fail", fmt.Sprintf("%s of %s, %.0f%%", size(float64(used)), size(float64(limit)), 100*part), "a larger node, or fewer keys; keep 20% free", 0)
		case part >= 0.8:
			x.find("headroom", Medium, h.addr, "less than 20% of the memory is free: a burst leads to evictions, a snapshot to swapping",
				fmt.Sprintf("%s of %s, %.0f%%", size(float64(used)), size(float64(limit)), 100*part), "a larger node, or fewer keys; keep 20% free", 0)
		}
	}
}

func (x *exam) evictions() {
	x.nodes.pair(func(before, after health) {
		n := after.number("evicted_keys") - before.number("evicted_keys")
		span := after.at.Sub(before.at).Seconds()
		uptime := float64(max(1, after.number("uptime_in_seconds")))
		switch {
		case n > 0:
			x.find("evictions", High, after.addr, "keys are being evicted", fmt.Sprintf("%d during the scan, %.0f a second", n, float64(n)/max(span, 0.001)), "a larger node, or shorter TTLs", 0)
		case after.number("evicted_keys") > 0:
			x.find("evictions", Low, after.addr, "keys have been evicted", fmt.Sprintf("%d since the start, %.2f a second", after.number("evicted_keys"), float64(after.number("evicted_keys"))/uptime), "watch evicted_keys; a larger node if it grows", 0)
		}
	})
}

func (x *exam) fragmentation() {
	for _, h := range x.nodes.after {
		used, rss := float64(h.number("used_memory")), float64(h.number("used_memory_rss"))
		if used < 100*mib || rss == 0 {
			continue
		}
		switch {
		case rss/used > 1.5:
			x.find("fragmentation", Medium, h.addr, "the process holds much more memory than its data takes",
				fmt.Sprintf("%s resident for %s in use: %.2f", size(rss), size(used), rss/used), "CONFIG SET activedefrag yes (in a parameter group: activedefrag = yes), or a failover to a fresh replica", rss-1.1*used)
		case rss/used < 0.9:
			x.find("swapping", High, h.addr, "a part of the data is not in memory: it was swapped out", fmt.Sprintf("%s resident for %s in use", size(rss), size(used)), "more memory, and no swap", 0)
		}
	}
}

func (x *exam) slowLog() {
	x.nodes.pair(func(before, after health) {
		if len(after.slow) == 0 {
			return
		}
		newest := int64(-1)
		if len(before.slow) > 0 {
			newest = before.slow[0].id
		}
		worst, fresh := after.slow[0], 0
		for _, c := range after.slow {
			if c.took > worst.took {
				worst = c
			}
			if c.id > newest {
				fresh++
			}
		}
		severity := Low
		if worst.took >= 100*time.Millisecond {
			severity = Medium
		}
		x.find("slow-commands", severity, after.addr, "commands that held all others up",
			fmt.Sprintf("%d in the slow log, %d of them during the scan; the worst is %s, %v", len(after.slow), fresh, worst.command, worst.took.Round(time.Microsecond)),
			"SLOWLOG GET shows them; read large collections in parts (HSCAN, ZRANGE with a limit), delete with UNLINK", 0)
	})
}

func (x *exam) clients() {
	for _, h := range x.nodes.after {
		if h.buffers >= 16*mib {
			x.find("client-buffers", Medium, h.addr, "clients do not fetch their answers as fast as they come; these take memory beside the keys",
				fmt.Sprintf("%s wait, most of it behind %s", size(float64(h.buffers)), strings.ToUpper(h.worst)), "CONFIG SET client-output-buffer-limit \"normal 64mb 32mb 60\", and smaller answers", float64(h.buffers))
		}
		connected, most := h.number("connected_clients"), h.number("maxclients")
		if most > 0 && connected*10 >= most*8 {
			x.find("connections", High, h.addr, "nearly all connections are taken", fmt.Sprintf("%d of %d", connected, most), "share one client in each process; CONFIG SET maxclients N", 0)
		}
	}
}

func (x *exam) replication() {
	lasting := x.contents()
	for _, h := range x.nodes.after {
		if len(h.replication) == 0 {
			continue
		}
		if h.replication["role"] == "slave" && h.replication["master_link_status"] == "down" {
			x.find("replica-cut-off", High, h.addr, "this replica has lost its primary", "master_link_status:down", "look at the network and the primary's log", 0)
		}
		if h.replication["role"] != "master" {
			continue
		}
		if lasting.destroy.Keys > 0 && len(h.replicas) == 0 {
			x.find("no-replica", Medium, h.addr, "data that stands nowhere else has no replica: "+strings.Join(lasting.destroyed, ", "), "connected_slaves:0", "add a replica (in Terraform: replicas_per_node_group = 1, automatic_failover_enabled = true)", 0)
		}
		end, _ := strconv.ParseInt(h.replication["master_repl_offset"], 10, 64)
		for _, r := range h.replicas {
			offset, _ := strconv.ParseInt(r["offset"], 10, 64)
			lag, _ := strconv.ParseInt(r["lag"], 10, 64)
			if end-offset > mib || lag > 10 {
				x.find("replica-lag", Medium, h.addr, "a replica is behind: a failover now loses what it lacks", fmt.Sprintf("%s:%s lacks %s, heard of %d s ago", r["ip"], r["port"], size(float64(end-offset)), lag), "less writing, a larger node, or min-replicas-to-write 1", 0)
			}
		}
	}
}

func (x *exam) persistence() {
	lasting := x.contents()
	for _, h := range x.nodes.after {
		if h.info["aof_enabled"] == "" {
			continue
		}
		if s := h.info["rdb_last_bgsave_status"]; s != "" && s != "ok" {
			x.find("snapshot-fails", High, h.addr, "the last snapshot failed", "rdb_last_bgsave_status:"+s, "look at the server's log: the disk, or memory for the fork", 0)
		}
		if s := h.info["aof_last_write_status"]; h.info["aof_enabled"] == "1" && s != "" && s != "ok" {
			x.find("log-fails", High, h.addr, "the append-only file can't be written", "aof_last_write_status:"+s, "look at the disk", 0)
		}
		if lasting.destroy.Keys > 0 && h.info["aof_enabled"] == "0" {
			x.find("not-durable", Medium, h.addr, "data that stands nowhere else is not logged: "+strings.Join(lasting.destroyed, ", ")+"; a restart loses all since the last snapshot",
				fmt.Sprintf("aof_enabled:0, %s changes since the last snapshot", h.info["rdb_changes_since_last_save"]), "CONFIG SET appendonly yes, with appendfsync everysec; on ElastiCache, a replica in another zone", 0)
		}
	}
}

func (x *exam) access() {
	if x.cfg.Remote && x.cfg.Plaintext {
		x.find("no-tls", Medium, "the connection", "commands and data cross the network in plain text", "the URL's scheme is valkey:// and its host is another machine", "tls-port 6379 and port 0, or transit_encryption_enabled = true; and valkeys:// in the URL", 0)
	}
	if x.cfg.Remote && x.cfg.Anonymous {
		x.find("no-password", High, "the connection", "whoever reaches the port may do everything", "the server let us in without a password", "ACL SETUSER app on >PASSWORD ~* &* +@all -@dangerous, and ACL SETUSER default off", 0)
		return
	}
	for _, h := range x.nodes.after {
		if x.cfg.Remote && h.user == "default" {
			x.find("default-user", Low, h.addr, "the default user is in use, which may do everything", "ACL WHOAMI says default", "a user for each program: docs/keys.md says what each block needs", 0)
		}
	}
}

// unseen says what could not be looked at.
func (x *exam) unseen() {
	if len(x.r.Refused) > 0 {
		x.find("refused", Info, "the server", "commands that this server or user refuses; what they would have told is left out", strings.Join(x.r.Refused, ", "), "on a managed service nothing; else grant them: ACL SETUSER doctor +info +scan +object|encoding +memory|usage", 0)
	}
	var elsewhere int64
	for _, h := range x.nodes.after {
		elsewhere += max(0, h.databases-h.size)
	}
	if elsewhere > 0 {
		x.find("other-databases", Info, "the server", "other databases of this server hold keys, which were not looked at", fmt.Sprintf("%d keys", elsewhere), "name a database in the URL: valkey://host/1", 0)
	}
}

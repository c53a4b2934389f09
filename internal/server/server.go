// Package server says what a server can do: its kind and version, whether it is a cluster, what it
// evicts, and which commands it has.
//
// A caller probes once per client and keeps the answer. A newer command is a fast path with another
// behind it: during a rolling upgrade one node may still lack what another has.
package server

import (
	"context"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"
)

// nodePatience bounds the wait for one node of a cluster, so that a node that is gone does not use up
// the time in which another would have answered.
const nodePatience = time.Second

// Info is what a server said about itself. A field that it did not say, or that its access rules
// hide, has the zero value.
type Info struct {
	// Kind is "valkey" or "redis"; "" is unknown.
	Kind string
	// Version is of the kind: Valkey 8.0.1, although it calls itself Redis 7.2.4 for old clients.
	Version Version
	// Cluster is set for a node in cluster mode.
	Cluster bool
	// ClusterDown is set when a cluster client's node says that its cluster does not serve.
	ClusterDown bool
	// Eviction is the maxmemory-policy, as in "noeviction"; "" is unknown.
	Eviction string

	commands map[string]bool
}

// Has reports whether the server has a command that [Probe] was asked about, in any case. What was
// not asked for, or what the server would not say, it has not.
func (i Info) Has(command string) bool { return i.commands[strings.ToLower(command)] }

// Probe asks the server what it is, and which of the commands it has, in one round trip. A cluster is
// asked at one node; each node that can't be reached costs a round trip more, a second at most. An
// answer that is an error, as of a user who may not call INFO or of an engine without it, leaves its
// field unknown. Probe fails only when no node answers at all.
func Probe(ctx context.Context, client valkey.Client, commands ...string) (info Info, err error) {
	nodes := client.Nodes()
	if len(nodes) == 0 { // a cluster without slots
		nodes = map[string]valkey.Client{"": client}
	}
	for _, node := range nodes {
		if err = ctx.Err(); err != nil {
			break
		}
		if info, err = probeNode(ctx, node, client.Mode(), len(nodes), commands); err == nil {
			break
		}
	}
	return info, err
}

func probeNode(ctx context.Context, node valkey.Client, mode valkey.ClientMode, of int, commands []string) (Info, error) {
	if of > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, nodePatience)
		defer cancel()
	}
	// One section a call: a list of sections is newer than Redis 7.0.
	ask := []valkey.Completed{
		node.B().Info().Section("server").Build(),
		node.B().Info().Section("memory").Build(),
	}
	at := map[string]int{}
	if len(commands) > 0 {
		at["commands"] = len(ask)
		ask = append(ask, node.B().CommandInfo().CommandName(commands...).Build())
	}
	if mode == valkey.ClientModeCluster {
		at["cluster"] = len(ask)
		ask = append(ask, node.B().ClusterInfo().Build())
	}
	replies := node.DoMulti(ctx, ask...)
	for _, reply := range replies {
		if err := reply.NonValkeyError(); err != nil {
			return Info{}, err
		}
	}
	text := func(i int) map[string]string {
		s, _ := replies[i].ToString() // an error reply says nothing
		return parseInfo(s)
	}
	info := describe(text(0), text(1))
	if i, ok := at["cluster"]; ok {
		info.Cluster = true
		info.ClusterDown = text(i)["cluster_state"] == "fail"
	}
	if i, ok := at["commands"]; ok {
		info.commands = known(commands, replies[i])
	}
	return info, nil
}

func describe(server, memory map[string]string) Info {
	info := Info{Eviction: memory["maxmemory_policy"]}
	switch {
	case server["valkey_version"] != "":
		info.Kind, info.Version = "valkey", parseVersion(server["valkey_version"])
	case server["redis_version"] != "":
		info.Kind, info.Version = "redis", parseVersion(server["redis_version"])
	}
	info.Cluster = server["redis_mode"] == "cluster" || server["server_mode"] == "cluster"
	return info
}

// known reads the reply of COMMAND INFO: one entry per name, nil for a command that does not exist.
// An engine that ignores the names describes other commands, so each entry must carry its name.
func known(names []string, reply valkey.ValkeyResult) map[string]bool {
	entries, err := reply.ToArray()
	if err != nil || len(entries) != len(names) {
		return nil
	}
	has := make(map[string]bool, len(names))
	for i, name := range names {
		name = strings.ToLower(name)
		if entry, err := entries[i].ToArray(); err == nil && len(entry) > 0 {
			got, _ := entry[0].ToString()
			has[name] = strings.ToLower(got) == name
		}
	}
	return has
}

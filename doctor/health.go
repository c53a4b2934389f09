package doctor

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"
)

// health is what a node said about itself. What it refused to say is empty.
type health struct {
	addr        string
	at          time.Time
	info        map[string]string // all sections together
	replication map[string]string
	replicas    []map[string]string
	databases   int64 // keys of all databases
	size        int64 // of the one that is looked at
	slow        []slowCall
	slowKnown   bool
	buffers     int64 // what clients have not fetched, of all
	worst       string
	user        string
	expires     int64 // keys of all databases that have a TTL
	// main and ending are the bytes of the tables, if there is one database and the server told; else -1.
	main, ending int64
}

// slowCall is an entry of the slow log. Its arguments are not kept: they hold data.
type slowCall struct {
	id      int64
	at      time.Time
	took    time.Duration
	command string
}

func (h health) number(field string) int64 {
	n, _ := strconv.ParseInt(h.info[field], 10, 64)
	return n
}

// examine asks a node about itself, in six commands.
func (s *scan) examine(ctx context.Context, a *asker) (health, error) {
	h := health{addr: a.addr, at: s.cfg.now(), info: map[string]string{}, replication: map[string]string{}}
	if err := s.slowAndClients(ctx, a, &h); err != nil {
		return h, err
	}
	m, ok, err := a.ask(ctx, "INFO")
	if err != nil {
		return h, err
	}
	if ok {
		text, _ := m.ToString()
		h.read(text)
	}
	if m, ok, err = a.ask(ctx, "DBSIZE"); err != nil {
		return h, err
	} else if ok {
		h.size, _ = m.AsInt64()
	}
	h.main, h.ending = -1, -1
	if m, ok, err = a.ask(ctx, "MEMORY", "STATS"); err != nil {
		return h, err
	} else if ok {
		stats, _ := m.AsMap()
		h.tables(stats, s.model.family)
	}
	return h, nil
}

// slowAndClients asks for the slow log, the clients and the user.
func (s *scan) slowAndClients(ctx context.Context, a *asker, h *health) error {
	m, ok, err := a.ask(ctx, "SLOWLOG", "GET", "128")
	if err != nil {
		return err
	}
	if ok {
		h.slowKnown = true
		list, _ := m.ToArray()
		for _, e := range list {
			parts, err := e.ToArray()
			if err != nil || len(parts) < 4 {
				continue
			}
			var c slowCall
			c.id, _ = parts[0].AsInt64()
			at, _ := parts[1].AsInt64()
			us, _ := parts[2].AsInt64()
			c.at, c.took = time.Unix(at, 0), time.Duration(us)*time.Microsecond
			if words, _ := parts[3].AsStrSlice(); len(words) > 0 {
				c.command = strings.ToUpper(words[0])
			}
			h.slow = append(h.slow, c)
		}
	}
	if m, ok, err = a.ask(ctx, "CLIENT", "LIST"); err != nil {
		return err
	} else if ok {
		text, _ := m.ToString()
		h.clients(text)
	}
	if m, ok, err = a.ask(ctx, "ACL", "WHOAMI"); err != nil {
		return err
	} else if ok {
		h.user, _ = m.ToString()
	}
	return nil
}

// read takes INFO apart.
func (h *health) read(text string) {
	section := ""
	for line := range strings.Lines(strings.TrimPrefix(text, "txt:")) {
		line = strings.TrimRight(line, "\r\n")
		if rest, ok := strings.CutPrefix(line, "# "); ok {
			section = rest
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			continue
		}
		switch section {
		case "Replication":
			h.replication[name] = value
			if strings.HasPrefix(name, "slave") && strings.Contains(value, "offset=") {
				h.replicas = append(h.replicas, pairs(value))
			}
		case "Keyspace":
			db := pairs(value)
			keys, _ := strconv.ParseInt(db["keys"], 10, 64)
			expires, _ := strconv.ParseInt(db["expires"], 10, 64)
			h.databases += keys
			h.expires += expires
		case "Commandstats", "Errorstats", "Latencystats":
		default:
			h.info[name] = value
		}
	}
}

// tables takes the size of the hash tables from MEMORY STATS, which adds the objects to it, and the entries where they are
// chained. It is exact while a table moves to another size, when both are there.
func (h *health) tables(stats map[string]valkey.ValkeyMessage, f family) {
	var db map[string]int64
	for name, m := range stats {
		if strings.HasPrefix(name, "db.") && name != "db.dict.rehashing.count" {
			if db != nil {
				return
			}
			db, _ = m.AsIntMap()
		}
	}
	if db == nil {
		return
	}
	entry := int64(24)
	if f >= bucketed {
		entry = 0
	}
	h.main = db["overhead.hashtable.main"] + db["overhead.hashtable.slot-to-keys"] - h.databases*(16+entry)
	h.ending = db["overhead.hashtable.expires"] - h.expires*entry
}

func pairs(text string) map[string]string {
	m := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		m[name] = value
	}
	return m
}

// clients adds up the output that waits for clients; it is part of used_memory, but of no key.
func (h *health) clients(text string) {
	var most int64
	for line := range strings.Lines(text) {
		fields := map[string]string{}
		for part := range strings.FieldsSeq(line) {
			name, value, _ := strings.Cut(part, "=")
			fields[name] = value
		}
		n, _ := strconv.ParseInt(fields["omem"], 10, 64)
		h.buffers += n
		if n > most {
			most, h.worst = n, fields["cmd"]
		}
	}
}

// healths are the nodes before the scan and after it.
type healths struct{ before, after []health }

// pair calls f for each node with both.
func (h *healths) pair(f func(before, after health)) {
	for _, b := range h.before {
		for _, a := range h.after {
			if a.addr == b.addr {
				f(b, a)
			}
		}
	}
}

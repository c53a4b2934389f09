package bill

import (
	"slices"
	"time"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/yamlfile"
	"github.com/flatrate/flatrate/cost"
)

// File is a usage that somebody wrote down.
type File struct {
	Found
	Region string // "" if it names none
	Sizing cost.Sizing
}

// ReadFile reads a usage in YAML: docs/cli.md has the format. Every problem has a line and a column.
func ReadFile(file string, data []byte, sizing cost.Sizing) (File, error) {
	doc, top, err := yamlfile.Parse(file, data)
	if err != nil {
		return File{}, err
	}
	r := reader{}
	f := File{Sizing: sizing}
	m, ok := top.Keys("region", "per", "workloads", "flat", "sizing")
	if !ok {
		return File{}, doc.Err()
	}
	span := 24 * time.Hour
	if v, ok := m.Get("region"); ok {
		f.Region = v.Text()
	}
	if v, ok := m.Get("per"); ok {
		span = per(v)
	}
	list, ok := m.Get("workloads")
	if !ok {
		m.Fail("workloads are missing")
		return File{}, doc.Err()
	}
	for _, v := range list.List() {
		r.workload(v, &f.Found, span)
	}
	if v, ok := m.Get("flat"); ok {
		f.Flat = r.flat(v)
	}
	if v, ok := m.Get("sizing"); ok {
		if m, ok := v.Keys("headroom", "peak", "above"); ok {
			r.within(m, "headroom", &f.Sizing.Headroom, 0, 0.9)
			r.within(m, "peak", &f.Sizing.Peak, 1, 1000)
			r.intWithin(m, "above", &f.Sizing.Above, 5)
		}
	}
	if err := doc.Err(); err != nil {
		return File{}, err
	}
	return f, nil
}

func per(v yamlfile.Value) time.Duration {
	const day = 24 * time.Hour
	switch v.Plain() {
	case "month":
		return 30 * day
	case "week":
		return 7 * day
	case "day":
		return day
	case "hour":
		return time.Hour
	}
	d := v.Duration()
	if d <= 0 {
		v.Fail("not month, week, day, hour or a duration above zero")
		return day
	}
	return d
}

// reader reads fields of a mapping where they are there.
type reader struct{}

func (reader) float(m yamlfile.Map, key string, to *float64) {
	if v, ok := m.Get(key); ok {
		if n, ok := v.Float(); ok {
			*to = n
		}
	}
}

// within reads a number that has a range.
func (r reader) within(m yamlfile.Map, key string, to *float64, low, high float64) {
	r.float(m, key, to)
	if v, ok := m.Get(key); ok && (*to < low || *to > high) {
		v.Fail("%v is not from %v to %v", *to, low, high)
	}
}

func (r reader) intWithin(m yamlfile.Map, key string, to *int, high int) {
	r.int(m, key, to)
	if v, ok := m.Get(key); ok && *to > high {
		v.Fail("%d is over %d", *to, high)
	}
}

func (reader) int(m yamlfile.Map, key string, to *int) {
	if v, ok := m.Get(key); ok {
		if n, ok := v.Int(); ok {
			if n < 0 || n > 1<<31-1 {
				v.Fail("%d is out of range", n)
			}
			*to = int(n)
		}
	}
}

func (reader) int64(m yamlfile.Map, key string, to *int64) {
	if v, ok := m.Get(key); ok {
		if n, ok := v.Int(); ok {
			*to = n
		}
	}
}

func (reader) bool(m yamlfile.Map, key string, to *bool) {
	if v, ok := m.Get(key); ok {
		*to = v.Bool()
	}
}

func word[T ~string](m yamlfile.Map, key string, to *T, words ...T) {
	v, ok := m.Get(key)
	if !ok {
		return
	}
	var texts []string
	for _, w := range words {
		texts = append(texts, string(w))
	}
	if i := v.Word(texts...); i >= 0 {
		*to = words[i]
	}
}

// each calls do with the elements of a list that is there.
func each(m yamlfile.Map, key string, do func(yamlfile.Value)) {
	if v, ok := m.Get(key); ok {
		for _, one := range v.List() {
			do(one)
		}
	}
}

func (r reader) workload(v yamlfile.Value, f *Found, span time.Duration) {
	m, ok := v.Keys("name", "dynamodb", "sqs", "api_gateway", "database", "memory_bytes", "note")
	if !ok {
		return
	}
	w := cost.Workload{KeepsGateway: true}
	if name, ok := m.Get("name"); ok {
		w.Name = name.Text()
	}
	if w.Name == "" {
		m.Fail("name is missing")
	}
	if w.Name != "" && slices.ContainsFunc(f.Workloads, func(o cost.Workload) bool { return o.Name == w.Name }) {
		v.Fail("the name %q is there twice", w.Name)
	}
	if note, ok := m.Get("note"); ok {
		w.Note = note.Text()
	}
	if s, ok := m.Get("dynamodb"); ok {
		r.dynamodb(s, &w.Usage.DynamoDB)
	}
	if s, ok := m.Get("sqs"); ok {
		r.sqs(s, &w.Usage.SQS)
	}
	if s, ok := m.Get("api_gateway"); ok {
		if m, ok := s.Keys("rest_requests", "http_requests", "subjects", "removed"); ok {
			removed := false
			r.float(m, "rest_requests", &w.Usage.APIGateway.RESTRequests)
			r.float(m, "http_requests", &w.Usage.APIGateway.HTTPRequests)
			r.float(m, "subjects", &w.Usage.APIGateway.Subjects)
			r.bool(m, "removed", &removed)
			w.KeepsGateway = !removed
		}
	}
	if s, ok := m.Get("database"); ok {
		r.database(s, &w.Usage.Database)
	}
	month, err := w.Usage.PerMonth(span)
	if err != nil {
		v.Fail("%v", err)
		return
	}
	w.Usage = month
	if memory, ok := m.Get("memory_bytes"); ok {
		need := month.Need()
		if n, ok := memory.Float(); ok {
			if n < 0 || n > 1e18 {
				memory.Fail("%v is out of range", n)
			}
			need.Bytes = n
		}
		w.Need = &need
	}
	f.Workloads = append(f.Workloads, w)
}

func (r reader) database(v yamlfile.Value, d *cost.Database) {
	m, ok := v.Keys("reads", "hit_rate", "usd_per_million", "instance_usd", "entries", "entry_bytes")
	if !ok {
		return
	}
	r.float(m, "reads", &d.Reads)
	r.float(m, "hit_rate", &d.HitRate)
	r.float(m, "usd_per_million", &d.USDPerMillion)
	r.float(m, "instance_usd", &d.InstanceUSD)
	r.float(m, "entries", &d.Entries)
	r.int64(m, "entry_bytes", &d.EntryBytes)
}

func (r reader) dynamodb(v yamlfile.Value, d *cost.DynamoDB) {
	m, ok := v.Keys("reads", "writes", "rru", "wru", "provisioned", "ttl_deletes", "stored_bytes", "stored_items")
	if !ok {
		return
	}
	each(m, "reads", func(v yamlfile.Value) {
		var c cost.ItemReads
		if m, ok := v.Keys("count", "item_bytes", "consistency"); ok {
			r.float(m, "count", &c.Count)
			r.int64(m, "item_bytes", &c.ItemBytes)
			word(m, "consistency", &c.Consistency, cost.Strong, cost.Eventual, cost.Transactional)
		}
		d.Reads = append(d.Reads, c)
	})
	each(m, "writes", func(v yamlfile.Value) {
		var c cost.ItemWrites
		if m, ok := v.Keys("count", "item_bytes", "transactional"); ok {
			r.float(m, "count", &c.Count)
			r.int64(m, "item_bytes", &c.ItemBytes)
			r.bool(m, "transactional", &c.Transactional)
		}
		d.Writes = append(d.Writes, c)
	})
	r.float(m, "rru", &d.RRU)
	r.float(m, "wru", &d.WRU)
	r.float(m, "ttl_deletes", &d.TTLDeletes)
	r.float(m, "stored_bytes", &d.StoredBytes)
	r.float(m, "stored_items", &d.StoredItems)
	if p, ok := m.Get("provisioned"); ok {
		if m, ok := p.Keys("rcu", "wcu"); ok {
			r.float(m, "rcu", &d.Provisioned.RCU)
			r.float(m, "wcu", &d.Provisioned.WCU)
		}
	}
}

func (r reader) sqs(v yamlfile.Value, s *cost.SQS) {
	m, ok := v.Keys("standard", "fifo", "standard_requests", "fifo_requests", "free_used", "backlog")
	if !ok {
		return
	}
	for key, to := range map[string]*[]cost.Messages{"standard": &s.Standard, "fifo": &s.FIFO} {
		each(m, key, func(v yamlfile.Value) {
			var c cost.Messages
			if m, ok := v.Keys("count", "bytes", "send_batch", "receive_batch", "delete_batch", "empty_receives"); ok {
				r.float(m, "count", &c.Count)
				r.int64(m, "bytes", &c.Bytes)
				r.int(m, "send_batch", &c.SendBatch)
				r.int(m, "receive_batch", &c.ReceiveBatch)
				r.int(m, "delete_batch", &c.DeleteBatch)
				r.float(m, "empty_receives", &c.EmptyReceives)
			}
			*to = append(*to, c)
		})
	}
	r.float(m, "standard_requests", &s.StandardRequests)
	r.float(m, "fifo_requests", &s.FIFORequests)
	r.float(m, "free_used", &s.FreeUsed)
	r.float(m, "backlog", &s.Backlog)
}

func (r reader) flat(v yamlfile.Value) *cost.Flat {
	var f cost.Flat
	m, ok := v.Keys("kind", "node", "count", "shards", "engine", "term", "redlock", "redlock_node", "node_usd_per_hour", "cross_az", "load_balancer")
	if !ok {
		return &f
	}
	word(m, "kind", &f.Kind, cost.Nodes, cost.Serverless, cost.MemoryDB, cost.SelfHosted)
	word(m, "engine", &f.Engine, cost.Valkey, cost.Redis)
	for key, to := range map[string]*string{"node": &f.Node, "redlock_node": &f.RedlockNode, "term": (*string)(&f.Term)} {
		if v, ok := m.Get(key); ok {
			*to = v.Text()
		}
	}
	r.intWithin(m, "count", &f.Count, 1000)
	r.intWithin(m, "shards", &f.Shards, 500)
	r.intWithin(m, "redlock", &f.Redlock, 1000)
	r.within(m, "node_usd_per_hour", &f.NodeUSDPerHour, 0, 1e6)
	r.within(m, "cross_az", &f.CrossAZ, 0, 1)
	r.bool(m, "load_balancer", &f.LoadBalancer)
	return &f
}

package cost

// maxEntryBytes is the longest value of a Valkey string.
const maxEntryBytes = 512 << 20

// What Valkey 8.0 takes beyond the value: the key's and the TTL's entries in their tables, the object and the key.
// Measured as the used_memory of many keys: 228 B for 91 B of JSON, 2,692 B for 2,048 B, both with a TTL.
const (
	keyOverhead   = 132
	shortHeader   = 4 // of a value below 256 B, its end among it
	longHeader    = 6
	queueOverhead = 120 // of a message in a stream, beyond its body
	unknownFactor = 1.3 // for bytes stored whose number of items nobody knows
)

// ValkeyBytes predicts the memory that one key with a TTL takes in Valkey 8, its value being so many bytes: what the
// allocator rounds the value up to, and the overhead of a key. Negative sizes count as 0.
func ValkeyBytes(value int64) int64 {
	value = max(0, value)
	if value < 256 {
		return sizeClass(value+shortHeader) + keyOverhead
	}
	return sizeClass(value+longHeader) + keyOverhead
}

// sizeClass is jemalloc's: multiples of 16 up to 128, four steps for each doubling above it.
func sizeClass(n int64) int64 {
	if n <= 8 {
		return 8
	}
	if n <= 128 {
		return (n + 15) / 16 * 16
	}
	step := int64(16)
	for n > step*8 {
		step *= 2
	}
	return (n + step - 1) / step * step
}

// Need is what a usage asks of Valkey. Flows are per month.
type Need struct {
	Bytes         float64 `json:"bytes"`          // of memory, at one time
	Commands      float64 `json:"commands"`       // that clients send
	ECPUs         float64 `json:"ecpus"`          // as ElastiCache Serverless counts: one for each started command and KB
	TransferBytes float64 `json:"transfer_bytes"` // between clients and nodes, both ways
	WrittenBytes  float64 `json:"written_bytes"`
}

// Plus is the need of both.
func (n Need) Plus(o Need) Need {
	return Need{n.Bytes + o.Bytes, n.Commands + o.Commands, n.ECPUs + o.ECPUs, n.TransferBytes + o.TransferBytes, n.WrittenBytes + o.WrittenBytes}
}

func (n *Need) command(count float64, bytes int64, write bool) {
	n.Commands += count
	n.ECPUs += float64(count * max(1, float64(bytes)/1024))
	n.TransferBytes += float64(count * float64(bytes))
	if write {
		n.WrittenBytes += float64(count * float64(bytes))
	}
}

// Need is what Valkey would have to hold and do in place of u: one command for each read and write, three for
// each message, one for each request with a limit, and for each database read one and a second one after a
// miss. What AWS has counted in units already is one command of 1 KB for each unit.
func (u Usage) Need() Need {
	var n Need
	for _, r := range u.DynamoDB.Reads {
		n.command(r.Count, r.ItemBytes, false)
	}
	for _, w := range u.DynamoDB.Writes {
		n.command(w.Count, w.ItemBytes, true)
	}
	n.command(u.DynamoDB.RRU, 1024, false)
	n.command(u.DynamoDB.WRU, 1024, true)
	if items := u.DynamoDB.StoredItems; items > 0 {
		n.Bytes += float64(items * float64(ValkeyBytes(int64(u.DynamoDB.StoredBytes/items))))
	} else {
		n.Bytes += float64(u.DynamoDB.StoredBytes * unknownFactor)
	}
	var messages, bytes float64
	for _, list := range [][]Messages{u.SQS.Standard, u.SQS.FIFO} {
		for _, m := range list {
			n.command(m.Count, m.Bytes, true)  // send
			n.command(m.Count, m.Bytes, false) // receive
			n.command(m.Count, 64, true)       // ack
			n.command(m.EmptyReceives, 64, false)
			messages += m.Count
			bytes += float64(m.Count * float64(m.Bytes))
		}
	}
	n.command(u.SQS.StandardRequests+u.SQS.FIFORequests, 1024, true)
	average := 1024.0
	if messages > 0 {
		average = bytes / messages
	}
	n.Bytes += float64(u.SQS.Backlog * (average + queueOverhead))
	n.command(u.APIGateway.RESTRequests+u.APIGateway.HTTPRequests, 100, false)
	n.Bytes += float64(u.APIGateway.Subjects * float64(ValkeyBytes(16)))
	db := u.Database
	n.command(db.Reads, db.EntryBytes, false)
	n.command(db.Reads*(1-db.HitRate), db.EntryBytes, true)
	n.Bytes += float64(db.Entries * float64(ValkeyBytes(db.EntryBytes)))
	return n
}

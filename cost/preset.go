package cost

import (
	"fmt"
	"time"
)

// Preset is a ready-made load, the article's, at any number of users. It says what a few lines of arithmetic on
// the back of an envelope say, with the rounding, the prices and the pair of nodes that they leave out.
type Preset struct {
	Name  string  // "sessions" or "article"
	Users float64 // a day, 1 to 1e9
	// Reads is how DynamoDB reads sessions. Empty is not known: strong is expected, and eventual in the range.
	Reads Consistency
	// ItemBytes is the size of a session, 2,048 B if zero.
	ItemBytes int64
	// QueueBatch is how many messages a call of SQS moves. Zero is not known: single sends and receives of ten are
	// expected, all in batches of ten to none at all in the range.
	QueueBatch int
	// REST is an API of the REST kind; by default it is an HTTP API, which costs less than a third.
	REST bool
	// RemoveGateway says that API Gateway goes, and a load balancer comes.
	RemoveGateway bool
	// DBUSDPerMillion is your price of a million database reads, DBInstanceUSD what a smaller instance saves a
	// month. With both zero the database counts for nothing.
	DBUSDPerMillion, DBInstanceUSD float64

	Flat   Flat
	Sizing Sizing
}

// The article's assumptions; messages and locks as it has them at 100,000 users.
const (
	sessionBytes     = 2048
	requestsPerUser  = 40.0
	readsPerRequest  = 2.0
	writesPerRequest = 0.05
	messagesPerUser  = 10.0      // 1,000,000 a day
	lockWrites       = 64.0 / 30 // a day and user: 6,400,000 writes a month, $8 at the article's $1.25
	subjectsPerUser  = 0.1       // 10,000 limited users
	offset           = 0.6       // of database reads
	messageBytes     = 1024      // not in the article
	entryBytes       = 2048      // not in the article: one entry for each user
	backlogHours     = 1.0       // not in the article
	lockBytes        = 200       // not in the article
	maxUsers         = 1e9
	days             = DaysPerMonth
	maxSessionBytes  = maxItemBytes
	locksHeldPerUser = 1.0 / 1000
)

// PresetNames are the presets that there are.
var PresetNames = []string{"sessions", "article"}

// Model makes the preset's model. Its scale is "users". The error is an [ErrInvalid] that names the field.
func (s Preset) Model() (Model, error) {
	if err := within("users", s.Users-1, maxUsers-1); err != nil {
		return Model{}, fmt.Errorf("%w: users: %v is not between 1 and %v", ErrInvalid, s.Users, maxUsers)
	}
	if s.ItemBytes == 0 {
		s.ItemBytes = sessionBytes
	}
	if err := within("item_bytes", float64(s.ItemBytes), maxSessionBytes); err != nil {
		return Model{}, err
	}
	if s.QueueBatch < 0 || s.QueueBatch > maxBatch {
		return Model{}, fmt.Errorf("%w: queue_batch: %d is not between 1 and %d", ErrInvalid, s.QueueBatch, maxBatch)
	}
	reads := Input{Name: "session reads", Low: 0, Expected: 1, High: 1, Choices: []string{"eventual", "strong", "transactional"}}
	switch s.Reads {
	case "":
	case Eventual:
		reads.Low, reads.Expected, reads.High = 0, 0, 0
	case Strong:
		reads.Low = 1
	case Transactional:
		reads.Low, reads.Expected, reads.High = 2, 2, 2
	default:
		return Model{}, fmt.Errorf("%w: reads: %q is none of strong, eventual, transactional", ErrInvalid, s.Reads)
	}
	above := at("sizes above the smallest", "", float64(s.Sizing.Above))
	above.High = above.Expected
	if s.Flat.Node == "" && s.Flat.Kind != Serverless {
		above.Low = above.Expected + 1
	}
	m := Model{Scale: "users", Inputs: []Input{
		at("users", "a day", s.Users), at("requests", "a user and day", requestsPerUser),
		at("session reads of a request", "", readsPerRequest), at("session writes of a request", "", writesPerRequest),
		at("session size", "B", float64(s.ItemBytes)), reads, above,
	}, Assumptions: s.assumptions()}
	switch s.Name {
	case "sessions":
		m.Build = s.sessionsPlan
	case "article":
		batch := Input{Name: "SQS batches", Low: 0, Expected: 1, High: 2, Choices: []string{"of ten", "single sends, receives of ten", "none"}}
		if s.QueueBatch > 0 {
			batch = at("SQS batches", "messages", float64(s.QueueBatch))
		}
		m.Inputs = append(m.Inputs, at("messages", "a user and day", messagesPerUser), batch, at("lock writes", "a user and day", lockWrites))
		m.Build = s.articlePlan
	default:
		return Model{}, fmt.Errorf("%w: preset %q is none of %v", ErrInvalid, s.Name, PresetNames)
	}
	return m, nil
}

func (s Preset) assumptions() []string {
	list := []string{
		"40 requests a user and day; each reads the session twice, one in twenty writes it: the article's load",
		fmt.Sprintf("a session is an item of %d B in all, and lives 24 hours: as many are stored as there are users", s.ItemBytes),
	}
	if s.Reads == "" {
		list = append(list, "session reads are strong, as a read of a Valkey primary is; eventual ones cost half")
	}
	if s.Name != "article" {
		return list
	}
	list = append(list,
		"every request has its rate limit checked; 1,000,000 messages of 1 KB a day and 6,400,000 lock writes a month at 100,000 users; an hour of messages waits at most",
		"the cache holds one entry of 2 KB for each user and answers 60% of one database read for each request")
	if s.QueueBatch == 0 {
		list = append(list, "messages are sent one by one, received and deleted in tens")
	}
	if s.DBUSDPerMillion == 0 && s.DBInstanceUSD == 0 {
		list = append(list, "database reads count for nothing: nobody knows your price of them but you (--db-usd-per-million, --db-usd-month)")
	}
	if s.RemoveGateway {
		list = append(list, "API Gateway is removed, and one load balancer stands in its place, without its traffic")
	} else {
		list = append(list, "API Gateway stays: Valkey counts requests, it does not take them in (--api-gateway remove)")
	}
	return list
}

var readChoices = []Consistency{Eventual, Strong, Transactional}

// choice is the nearest of n values.
func choice(v float64, n int) int { return max(0, min(n-1, int(v+0.5))) }

func (s Preset) sessions(v Values) Workload {
	requests := v["users"] * v["requests"]
	bytes := int64(v["session size"])
	return Workload{Name: "sessions", Usage: Usage{DynamoDB: DynamoDB{
		Reads: []ItemReads{{Count: requests * v["session reads of a request"] * days, ItemBytes: bytes,
			Consistency: readChoices[choice(v["session reads"], len(readChoices))]}},
		Writes:      []ItemWrites{{Count: requests * v["session writes of a request"] * days, ItemBytes: bytes}},
		StoredBytes: v["users"] * float64(bytes), StoredItems: v["users"], TTLDeletes: v["users"] * days,
	}}}
}

func (s Preset) sizing(v Values) Sizing {
	sizing := s.Sizing
	sizing.Above = int(v["sizes above the smallest"] + 0.5)
	return sizing
}

func (s Preset) sessionsPlan(v Values) Plan {
	return Plan{Workloads: []Workload{s.sessions(v)}, Flat: s.Flat, Sizing: s.sizing(v)}
}

func (s Preset) articlePlan(v Values) Plan {
	users, requests := v["users"], v["users"]*v["requests"]*days
	gateway := APIGateway{HTTPRequests: requests, Subjects: users * subjectsPerUser}
	if s.REST {
		gateway.RESTRequests, gateway.HTTPRequests = requests, 0
	}
	messages := users * v["messages"]
	queue := Messages{Count: messages * days, Bytes: messageBytes}
	switch {
	case s.QueueBatch > 0:
		queue.SendBatch, queue.ReceiveBatch, queue.DeleteBatch = s.QueueBatch, s.QueueBatch, s.QueueBatch
	case choice(v["SQS batches"], 3) == 0:
		queue.SendBatch, queue.ReceiveBatch, queue.DeleteBatch = maxBatch, maxBatch, maxBatch
	case choice(v["SQS batches"], 3) == 1:
		queue.ReceiveBatch, queue.DeleteBatch = maxBatch, maxBatch
	}
	return Plan{Flat: s.Flat, Sizing: s.sizing(v), Workloads: []Workload{
		s.sessions(v),
		{Name: "rate limiting", Usage: Usage{APIGateway: gateway}, KeepsGateway: !s.RemoveGateway},
		{Name: "queue", Usage: Usage{SQS: SQS{Standard: []Messages{queue}, Backlog: messages * backlogHours / 24}},
			Note: "SQS keeps messages in several zones; an asynchronous replica can lose the last of them in a failover"},
		s.cache(requests, users),
		{Name: "locks", Usage: Usage{DynamoDB: DynamoDB{Writes: []ItemWrites{{Count: users * v["lock writes"] * days, ItemBytes: lockBytes}},
			StoredBytes: users * locksHeldPerUser * lockBytes, StoredItems: users * locksHeldPerUser}}},
	}}
}

// cache is the database reads that a cache answers. Without a price of theirs it only needs its memory.
func (s Preset) cache(requests, users float64) Workload {
	db := Database{Reads: requests, HitRate: offset, USDPerMillion: s.DBUSDPerMillion, InstanceUSD: s.DBInstanceUSD,
		Entries: users, EntryBytes: entryBytes}
	w := Workload{Name: "cache", Usage: Usage{Database: db}}
	if db.USDPerMillion == 0 && db.InstanceUSD == 0 {
		need := w.Usage.Need()
		w.Need, w.Usage = &need, Usage{}
		w.Note = "no price of your database was given: nothing is counted"
	}
	return w
}

// cacheAside is what one read takes on average behind a cache; a miss makes so many round trips to it.
func cacheAside(hits float64, cached, database time.Duration, roundTrips int) time.Duration {
	miss := time.Duration(roundTrips)*cached + database
	return time.Duration(hits*float64(cached) + (1-hits)*float64(miss))
}

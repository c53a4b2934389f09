package bill

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/flatrate/flatrate/cost"
)

// replayed is the part of flatrate replay --output json that is read.
type replayed struct {
	Requests int64 `json:"requests"`
	Complete *bool `json:"complete"`
	Span     int64 `json:"span_seconds"`
	Session  *struct {
		Created int64 `json:"created"`
		Reads   int64 `json:"reads"`
	} `json:"session"`
	Cache *struct {
		Lookups int64 `json:"lookups"`
		Hits    int64 `json:"hits"`
	} `json:"cache"`
}

const maxReplayed = 1 << 20

// ReadReplay reads what flatrate replay --output json printed. What a database read costs is not in it: db has the caller's
// price, and without one the cache counts for nothing.
func ReadReplay(file string, r io.Reader, opt Options, db cost.Database) (Found, error) {
	var f Found
	data, err := io.ReadAll(io.LimitReader(r, maxReplayed))
	if err != nil {
		return f, fmt.Errorf("%s: %w", file, err)
	}
	var in replayed
	if err := json.Unmarshal(data, &in); err != nil {
		return f, jsonError(file, data, err)
	}
	switch {
	case in.Complete == nil || in.Session == nil || in.Cache == nil:
		return f, fmt.Errorf("%s: no session, cache or complete in it: not what flatrate replay --output json prints", file)
	case in.Requests <= 0 || in.Span < 0 || in.Session.Reads < 0 || in.Session.Created < 0 || in.Cache.Hits < 0 || in.Cache.Hits > in.Cache.Lookups:
		return f, fmt.Errorf("%s: its counts can't be", file)
	case !*in.Complete:
		f.note("the log that was replayed ended in an error: this is what came before it")
	}
	span := max(time.Second, time.Duration(in.Span)*time.Second)
	f.note("a log of %s with %d requests", spanText(span), in.Requests)
	sessions := cost.Usage{DynamoDB: cost.DynamoDB{
		Reads:       []cost.ItemReads{{Count: float64(in.Session.Reads), ItemBytes: opt.ItemBytes, Consistency: opt.Consistency}},
		Writes:      []cost.ItemWrites{{Count: float64(in.Session.Created), ItemBytes: opt.ItemBytes}},
		StoredItems: float64(in.Session.Created), StoredBytes: float64(in.Session.Created) * float64(opt.ItemBytes),
	}}
	if err := f.add("sessions", sessions, span, false); err != nil {
		return f, fmt.Errorf("%s: %w", file, err)
	}
	calls := cost.Usage{APIGateway: cost.APIGateway{HTTPRequests: float64(in.Requests)}}
	if opt.REST {
		calls.APIGateway = cost.APIGateway{RESTRequests: float64(in.Requests)}
	}
	if err := f.add("rate limiting", calls, span, opt.KeepGateway); err != nil {
		return f, fmt.Errorf("%s: %w", file, err)
	}
	if in.Cache.Lookups > 0 {
		db.Reads, db.HitRate = float64(in.Cache.Lookups), float64(in.Cache.Hits)/float64(in.Cache.Lookups)
		if err := f.cache(db, span); err != nil {
			return f, fmt.Errorf("%s: %w", file, err)
		}
	}
	return f, nil
}

// cache adds database reads. Without a price of theirs they only need memory and commands.
func (f *Found) cache(db cost.Database, span time.Duration) error {
	priced := db.USDPerMillion > 0 || db.InstanceUSD > 0
	if err := f.add("cache", cost.Usage{Database: db}, span, false); err != nil {
		return err
	}
	if !priced {
		w := &f.Workloads[len(f.Workloads)-1]
		need := w.Usage.Need()
		w.Need, w.Usage = &need, cost.Usage{}
		w.Note = "no price of your database was given: nothing is counted"
	}
	return nil
}

// AddCache is cache for a month that is known.
func (f *Found) AddCache(db cost.Database) error { return f.cache(db, 30*24*time.Hour) }

package meter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/flatrate/flatrate/cost"
	"github.com/valkey-io/valkey-go"
)

// MaxDays is how many days are read at most.
const MaxDays = 400

// leastSpan is what the counts of a shorter time are taken for: a month of a millisecond is none.
const leastSpan = time.Minute

// ErrNothing is a meter that has counted nothing in the days that were asked for.
var ErrNothing = errors.New("meter: nothing was counted")

// Day is what was counted on one day, in UTC by the server's clock.
type Day struct {
	Date        time.Time // midnight
	First, Last time.Time // when counting began and when the last counts came
	Counts      map[string]int64
}

// Read returns the last days of a meter, today among them, the oldest first; days without counts are left out. Two round
// trips. Days are 1 to [MaxDays]. Of cfg only Prefix and Name matter.
func Read(ctx context.Context, client valkey.Client, cfg Config, days int) ([]Day, error) {
	if client == nil {
		return nil, errors.New("meter: client is nil")
	}
	if days < 1 || days > MaxDays {
		return nil, fmt.Errorf("meter: days: %d is not between 1 and %d", days, MaxDays)
	}
	keys, err := cfg.setDefaults()
	if err != nil {
		return nil, err
	}
	now, err := serverTime(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("meter: TIME: %w", err)
	}
	today := now.UTC().Truncate(24 * time.Hour)
	var dates []time.Time
	var commands valkey.Commands
	for i := days - 1; i >= 0; i-- {
		at := today.AddDate(0, 0, -i)
		dates = append(dates, at)
		commands = append(commands, client.B().Hgetall().Key(keys.day(cfg.Name, date(at))).Build())
	}
	var list []Day
	for i, reply := range client.DoMulti(ctx, commands...) {
		hash, err := reply.AsStrMap()
		if err != nil {
			return nil, fmt.Errorf("meter: read: %w", err)
		}
		if len(hash) == 0 {
			continue
		}
		day, err := parseDay(dates[i], hash)
		if err != nil {
			return nil, fmt.Errorf("meter: %s: %w", dates[i].Format(time.DateOnly), err)
		}
		list = append(list, day)
	}
	return list, nil
}

func parseDay(at time.Time, hash map[string]string) (Day, error) {
	d := Day{Date: at, Counts: map[string]int64{}}
	for field, text := range hash {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return Day{}, fmt.Errorf("field %q is %q, no count", field, text)
		}
		switch field {
		case "@first":
			d.First = time.UnixMilli(n).UTC()
		case "@last":
			d.Last = time.UnixMilli(n).UTC()
		default:
			d.Counts[field] = n
		}
	}
	return d, nil
}

// Options are what no meter can count.
type Options struct {
	// Consistency is how DynamoDB would read sessions. Default [cost.Strong].
	Consistency cost.Consistency
	// REST says that requests would go to a REST API. By default it is an HTTP API.
	REST bool
	// KeepsGateway says that API Gateway stands in front all the same.
	KeepsGateway bool
	// Database has the price of a read that the cache answers; its counts are replaced. Without a price the cache is left out.
	Database cost.Database
}

// Month sums up days and scales them to a month: the span is from the first count of the first day to the last of the last one,
// a minute at least. The workloads are those that were used: sessions, rate limiting, queue, cache, locks. The error is
// [ErrNothing] if there are none.
func Month(days []Day, opt Options) (list []cost.Workload, span time.Duration, err error) {
	total := map[string]int64{}
	for _, d := range days {
		for field, n := range d.Counts {
			total[field] += n
		}
	}
	if len(days) > 0 {
		span = days[len(days)-1].Last.Sub(days[0].First)
	}
	if len(total) == 0 {
		return nil, 0, ErrNothing
	}
	span = max(span, leastSpan)
	for _, w := range workloads(total, opt) {
		if w.Usage, err = w.Usage.PerMonth(span); err != nil {
			return nil, 0, fmt.Errorf("meter: %s: %w", w.Name, err)
		}
		list = append(list, w)
	}
	if len(list) == 0 {
		return nil, 0, ErrNothing
	}
	return list, span, nil
}

// workloads turns counts into usage, in a fixed order.
func workloads(total map[string]int64, opt Options) []cost.Workload {
	var sessions, locks cost.DynamoDB
	var queue float64
	for _, field := range sorted(total) {
		n := float64(total[field])
		if kb, ok := size(field, "sessions:read:"); ok {
			sessions.Reads = append(sessions.Reads, cost.ItemReads{Count: n, ItemBytes: kb * 1024, Consistency: opt.Consistency})
		} else if kb, ok := size(field, "sessions:write:"); ok {
			sessions.Writes = append(sessions.Writes, cost.ItemWrites{Count: n, ItemBytes: kb * 1024})
		} else if chunks, ok := size(field, "queue:send:"); ok {
			queue += n * float64(chunks)
		} else if chunks, ok := size(field, "queue:receive:"); ok {
			queue += n * float64(chunks)
		}
	}
	queue += float64(total["queue:delete"] + total["queue:empty"])
	var list []cost.Workload
	if len(sessions.Reads)+len(sessions.Writes) > 0 {
		list = append(list, cost.Workload{Name: "sessions", Usage: cost.Usage{DynamoDB: sessions}})
	}
	if n := float64(total["requests"]); n > 0 {
		g := cost.APIGateway{HTTPRequests: n}
		if opt.REST {
			g = cost.APIGateway{RESTRequests: n}
		}
		list = append(list, cost.Workload{Name: "rate limiting", Usage: cost.Usage{APIGateway: g}, KeepsGateway: opt.KeepsGateway})
	}
	if queue > 0 {
		list = append(list, cost.Workload{Name: "queue", Usage: cost.Usage{SQS: cost.SQS{StandardRequests: queue}}})
	}
	hits, misses := float64(total["cache:hit"]), float64(total["cache:miss"])
	if db := opt.Database; hits+misses > 0 && (db.USDPerMillion > 0 || db.InstanceUSD > 0) {
		db.Reads, db.HitRate = hits+misses, hits/(hits+misses)
		list = append(list, cost.Workload{Name: "cache", Usage: cost.Usage{Database: db}})
	}
	if n := float64(total["locks:write"]); n > 0 {
		locks.Writes = []cost.ItemWrites{{Count: n, ItemBytes: 1024}}
		list = append(list, cost.Workload{Name: "locks", Usage: cost.Usage{DynamoDB: locks}})
	}
	return list
}

func sorted(total map[string]int64) []string {
	var fields []string
	for field := range total {
		fields = append(fields, field)
	}
	slices.Sort(fields)
	return fields
}

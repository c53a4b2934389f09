package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/flatrate/flatrate"
	"github.com/flatrate/flatrate/ratelimit"
	"github.com/flatrate/flatrate/valkeytest"
	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/goredisstore.v9"
	"github.com/valkey-io/valkey-go"
)

// ratelimitArea is what a decision costs: in time, on the server, and in memory.
func ratelimitArea() Area { return Area{Name: "ratelimit", Rows: ratelimitRows} }

const (
	rateCallers = 64
	plenty      = 1 << 30 // a limit that no round reaches
	rateWindow  = time.Hour
	rateBatch   = 100
)

var (
	fixedLimit  = ratelimit.Limit{Limit: plenty, Window: rateWindow}
	bucketLimit = ratelimit.Limit{Algorithm: ratelimit.TokenBucket, Limit: plenty, Window: rateWindow}
	quotaLimit  = ratelimit.Limit{Algorithm: ratelimit.Quota, Limit: plenty, Period: ratelimit.Day}
)

type op = func(ctx context.Context, caller int) error

// rater is ours and the peers, each on a client of its own.
type rater struct {
	b       *B
	admin   valkey.Client
	client  valkey.Client
	goRedis *redis.Client
	theirs  *redis_rate.Limiter
	store   *goredisstore.GoRedisStore
}

func newRater(ctx context.Context, b *B) *rater {
	server := valkeytest.StartWith(b, valkeytest.Config{TCP: true})
	r := &rater{b: b, admin: server.Client()}
	var err error
	r.client, err = flatrate.Connect(ctx, "valkey://"+server.Addr)
	b.Must(err)
	b.Cleanup(r.client.Close)
	r.goRedis = redis.NewClient(&redis.Options{Addr: server.Addr})
	b.Cleanup(func() { _ = r.goRedis.Close() })
	r.theirs = redis_rate.NewLimiter(r.goRedis)
	r.store, err = goredisstore.NewCtx(r.goRedis, "throttled:")
	b.Must(err)
	return r
}

// subjects are one for each caller, or one for all.
func subjects(one bool) []string {
	all := make([]string, rateCallers)
	for i := range all {
		all[i] = "user:" + strconv.Itoa(100000+i)
		if one {
			all[i] = "user:100000"
		}
	}
	return all
}

var errDenied = errors.New("denied, although there is plenty")

func (r *rater) limiter(cfg ratelimit.Config) *ratelimit.Limiter {
	cfg.Timeout = 10 * time.Second // an error would end the round; outages are proof/fault's
	l, err := ratelimit.New(r.client, cfg)
	r.b.Must(err)
	return l
}

func (r *rater) ours(subjects []string, cfg ratelimit.Config) op {
	l := r.limiter(cfg)
	return func(ctx context.Context, caller int) error {
		result, err := l.Allow(ctx, subjects[caller])
		if err == nil && !result.Allowed {
			err = errDenied
		}
		return err
	}
}

// redisRate makes so many calls one after the other, as it has no other way to ask for several limits.
func (r *rater) redisRate(subjects []string, calls int) op {
	limit := redis_rate.Limit{Rate: plenty, Burst: plenty, Period: rateWindow}
	keys := make([][]string, len(subjects))
	for i, s := range subjects {
		for n := range calls {
			keys[i] = append(keys[i], s+strings.Repeat("x", n))
		}
	}
	return func(ctx context.Context, caller int) error {
		for _, key := range keys[caller] {
			result, err := r.theirs.Allow(ctx, key, limit)
			if err == nil && result.Allowed != 1 {
				err = errDenied
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

func (r *rater) throttled(subjects []string) op {
	// Its bursts are ints, and its rates are durations between two requests.
	l, err := throttled.NewGCRARateLimiterCtx(r.store, throttled.RateQuota{MaxRate: throttled.PerDuration(1_000_000, time.Second), MaxBurst: 1_000_000})
	r.b.Must(err)
	l.SetMaxCASAttemptsLimit(1000)
	return func(ctx context.Context, caller int) error {
		limited, _, err := l.RateLimitCtx(ctx, subjects[caller], 1)
		if err == nil && limited {
			err = errDenied
		}
		return err
	}
}

func (r *rater) incr(subjects []string) op {
	return func(ctx context.Context, caller int) error {
		return r.client.Do(ctx, r.client.B().Incr().Key("incr:"+subjects[caller]).Build()).Error()
	}
}

func ratelimitRows(ctx context.Context, b *B) []Row {
	r := newRater(ctx, b)
	own, one := subjects(false), subjects(true)
	fixed := ratelimit.Config{Limits: []ratelimit.Limit{fixedLimit}}
	bucket := ratelimit.Config{Limits: []ratelimit.Limit{bucketLimit}}
	three := ratelimit.Config{Name: "three", Limits: []ratelimit.Limit{fixedLimit, bucketLimit, quotaLimit}}
	batch := ratelimit.Config{Name: "batch", Limits: []ratelimit.Limit{fixedLimit}, Batch: rateBatch}
	row := func(name string, ours op, peers ...Peer) Row {
		return Row{Name: name, Unit: "ops/s", Better: "higher", Ours: Throughput(rateCallers, ours), Peers: peers}
	}
	peer := func(name string, theirs op) Peer { return Peer{name, Throughput(rateCallers, theirs)} }
	rows := []Row{
		row("fixed-64", r.ours(own, fixed), peer("redis_rate", r.redisRate(own, 1)), peer("throttled", r.throttled(own)), peer("raw INCR", r.incr(own))),
		row("gcra-64", r.ours(own, bucket), peer("redis_rate", r.redisRate(own, 1)), peer("throttled", r.throttled(own))),
		{
			Name: "gcra-server-cpu", Unit: "us", Better: "lower", Ours: serverCPU(r.admin, rateCallers, r.ours(own, bucket)),
			Peers: []Peer{{"redis_rate", serverCPU(r.admin, rateCallers, r.redisRate(own, 1))}},
		},
		row("three-limits-64", r.ours(own, three), peer("three redis_rate calls", r.redisRate(own, 3))),
		row("hot-key-64", r.ours(one, fixed), peer("redis_rate", r.redisRate(one, 1))),
		row("lease-64", r.ours(own, batch), peer("redis_rate", r.redisRate(own, 1))),
		row("lease-hot-key-64", r.ours(one, batch), peer("redis_rate", r.redisRate(one, 1))),
		row("denied-64", r.denied(ctx, own), peer("redis_rate", r.redisRate(own, 1))),
	}
	return append(rows, bytesRows(b)...)
}

// denied asks for subjects that have used up their limit, which the process remembers.
func (r *rater) denied(ctx context.Context, subjects []string) op {
	l := r.limiter(ratelimit.Config{
		Name: "denied", Limits: []ratelimit.Limit{{Limit: 1, Window: 300 * 24 * time.Hour}}, RememberDenied: time.Minute,
	})
	for _, s := range subjects {
		_, err := l.Allow(ctx, s)
		r.b.Must(err)
	}
	return func(ctx context.Context, caller int) error {
		result, err := l.Allow(ctx, subjects[caller])
		if err == nil && result.Allowed {
			err = errors.New("allowed, although there is nothing left")
		}
		return err
	}
}

// bytesRows are what a subject costs in the server's memory, its key and expiry included, on a server of
// its own that is emptied before each round. Subjects are numbers of eight digits.
func bytesRows(b *B) []Row {
	m := newMeter(b, valkeytest.Valkey)
	// Just below a power of two, where the server's tables are full.
	many, few := 8000, 60
	if b.Quick {
		many, few = 2000, 20
	}
	minute := func(a ratelimit.Algorithm, limit int64) ratelimit.Limit {
		return ratelimit.Limit{Algorithm: a, Limit: limit, Window: time.Minute}
	}
	places := ratelimit.Limit{Algorithm: ratelimit.Concurrency, Limit: 100}
	row := func(name string, ours Round, peers ...Peer) Row {
		return Row{Name: name, Unit: "B", Better: "lower", Ours: ours, Peers: peers}
	}
	rows := []Row{
		row("gcra-bytes", m.ours(many, 1, ratelimit.Limit{Algorithm: ratelimit.TokenBucket, Limit: 1, Window: time.Hour}), Peer{"redis_rate", m.round(many, m.redisRate)}),
		row("log-1000-bytes", m.ours(few, 1000, minute(ratelimit.SlidingLog, 1000)), Peer{"sorted-set log", m.round(few, m.sortedSet)}),
	}
	if b.Quick {
		return rows // the others have no targets, and no spread
	}
	for _, binary := range []string{valkeytest.Valkey, valkeytest.Redis} {
		m, suffix := newMeter(b, binary), ""
		if binary == valkeytest.Redis {
			suffix = "-redis"
		}
		for _, one := range []struct {
			name   string
			n      int
			limits []ratelimit.Limit
		}{
			{"fixed", 1, []ratelimit.Limit{minute(ratelimit.FixedWindow, 100)}},
			{"bucket", 1, []ratelimit.Limit{minute(ratelimit.TokenBucket, 100)}},
			{"sliding", 1, []ratelimit.Limit{minute(ratelimit.SlidingWindow, 100)}},
			{"log-10", 10, []ratelimit.Limit{minute(ratelimit.SlidingLog, 100)}},
			{"log-100", 100, []ratelimit.Limit{minute(ratelimit.SlidingLog, 100)}},
			{"concurrency", 1, []ratelimit.Limit{places}},
			{"quota", 1, []ratelimit.Limit{quotaLimit}},
			{"three-limits", 1, []ratelimit.Limit{minute(ratelimit.FixedWindow, 100), minute(ratelimit.TokenBucket, 100), quotaLimit}},
		} {
			count := many
			if one.n > 1 {
				count = 250
			}
			rows = append(rows, row("bytes-"+one.name+suffix, m.ours(count, one.n, one.limits...)))
		}
	}
	return rows
}

// meter fills a server and looks at its memory. Whoever fills it connects for that alone, since what
// connections take is more than what is measured.
type meter struct {
	b      *B
	server *valkeytest.Server
	admin  valkey.Client
}

func newMeter(b *B, binary string) *meter {
	server := valkeytest.StartWith(b, valkeytest.Config{Binary: binary})
	return &meter{b, server, server.Client()}
}

// filler makes what one subject needs; end disconnects it.
type filler func(ctx context.Context) (fill func(ctx context.Context, subject string) error, end func(), err error)

// ours is a round in which each of many subjects has used n units, one at a time.
func (m *meter) ours(many, n int, limits ...ratelimit.Limit) Round {
	return m.round(many, func(ctx context.Context) (func(context.Context, string) error, func(), error) {
		client, err := flatrate.Connect(ctx, "unix://"+m.server.Socket)
		if err != nil {
			return nil, nil, err
		}
		l, err := ratelimit.New(client, ratelimit.Config{Limits: limits, Timeout: 10 * time.Second})
		return func(ctx context.Context, subject string) error {
			for range n {
				if _, err := l.Allow(ctx, subject); err != nil {
					return err
				}
			}
			return nil
		}, client.Close, err
	})
}

func (m *meter) redisRate(context.Context) (func(context.Context, string) error, func(), error) {
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: m.server.Socket})
	l := redis_rate.NewLimiter(client)
	return func(ctx context.Context, subject string) error {
		_, err := l.Allow(ctx, subject, redis_rate.PerHour(1))
		return err
	}, func() { _ = client.Close() }, nil
}

// sortedSet is the sliding log that most tutorials show, with its 1,000 entries.
func (m *meter) sortedSet(context.Context) (func(context.Context, string) error, func(), error) {
	return func(ctx context.Context, subject string) error {
		now := time.Now().UnixMicro()
		add := m.admin.B().Zadd().Key("log:" + subject).ScoreMember()
		for n := range int64(1000) {
			add = add.ScoreMember(float64(now+n), strconv.FormatInt(now+n, 10)+"-"+strconv.FormatInt(n, 10))
		}
		if err := m.admin.Do(ctx, add.Build()).Error(); err != nil {
			return err
		}
		return m.admin.Do(ctx, m.admin.B().Pexpire().Key("log:"+subject).Milliseconds(60_000).Build()).Error()
	}, func() {}, nil
}

// round returns the bytes that each of many subjects takes.
func (m *meter) round(many int, open filler) Round {
	return func(ctx context.Context, _ time.Duration) (float64, error) {
		fillAll := func(n int) error {
			fill, end, err := open(ctx)
			if err != nil {
				return err
			}
			defer end()
			return eachOf(ctx, n, func(ctx context.Context, i int) error { return fill(ctx, strconv.Itoa(10_000_000+i)) })
		}
		if err := fillAll(1); err != nil { // the script is not the subjects'
			return 0, err
		}
		if err := m.admin.Do(ctx, m.admin.B().Flushall().Sync().Build()).Error(); err != nil {
			return 0, err
		}
		before, err := m.used(ctx)
		if err != nil {
			return 0, err
		}
		if err := fillAll(many); err != nil {
			return 0, err
		}
		after, err := m.used(ctx)
		return float64(after-before) / float64(many), err
	}
}

// eachOf calls f for 0 to n-1, by as many callers as the other rows have.
func eachOf(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	var next atomic.Int64
	failed := make(chan error, rateCallers)
	for range rateCallers {
		go func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(n) {
					failed <- nil
					return
				}
				if err := f(ctx, int(i)); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	var err error
	for range rateCallers {
		err = errors.Join(err, <-failed)
	}
	return err
}

// used is the server's memory once only this client is connected and two looks agree.
func (m *meter) used(ctx context.Context) (int64, error) {
	last := int64(-1)
	for range 500 {
		text, err := m.admin.Do(ctx, m.admin.B().Info().Section("memory", "clients").Build()).ToString()
		if err != nil {
			return 0, err
		}
		memory, err1 := infoNumber(text, "used_memory")
		clients, err2 := infoNumber(text, "connected_clients")
		switch {
		case err1 != nil || err2 != nil:
			return 0, errors.Join(err1, err2)
		case clients == 1 && memory == last:
			return memory, nil
		}
		last = memory
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return last, nil
}

func infoNumber(text, name string) (int64, error) {
	_, rest, _ := strings.Cut(text, "\n"+name+":")
	number, _, _ := strings.Cut(rest, "\r")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("INFO: %s: %w", name, err)
	}
	return n, nil
}

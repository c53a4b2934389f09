package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/flatrate/flatrate/internal/lease"
	"github.com/valkey-io/valkey-go"
)

// Job is a message that is sent again and again.
type Job struct {
	// Name is what the job is known by in the queue: 1 to 128 bytes.
	Name string
	// Spec is when: five fields of cron (minute, hour, day of the month, month, day of the week, with names, lists, ranges and
	// steps), @hourly, @daily, @weekly, @monthly, @yearly, or "@every 90s". A time that a change of the clocks skips is skipped;
	// one that comes twice is due twice.
	Spec string
	// Location is the time zone of Spec. Default UTC.
	Location *time.Location
	// Message is what is sent; Make, if set, makes it of the time at which the job was due.
	Message Message
	Make    func(due time.Time) (Message, error)
}

// SchedulerConfig has the jobs.
type SchedulerConfig struct {
	// Jobs are sent by one process at a time of those that run a scheduler of the queue. All have the same jobs.
	Jobs []Job
	// Lease is how long after the end of that process another takes its place: a second to an hour. Default 10 s.
	Lease time.Duration
	// Sent is called when this process has sent a job. It may be nil.
	Sent func(job string, due time.Time)
	// Failed is called when a job could not be sent; it is tried again in a second. It may be nil.
	Failed func(job string, err error)
}

// Scheduler sends periodic jobs. Each time of a job is sent once, whoever sends it: the queue remembers the last one. What was
// missed while no scheduler ran is sent once, for the last time that was missed.
type Scheduler struct {
	queue *Queue
	cfg   SchedulerConfig
	jobs  []job
}

type job struct {
	Job
	schedule *schedule
	last     time.Time // what is known to be sent
}

const (
	schedulerLease = 10 * time.Second
	schedulerRetry = time.Second
	schedulerLook  = 30 * time.Second // at the server's clock, at the latest
)

// NewScheduler returns a Scheduler for q. The error names what is wrong.
func NewScheduler(q *Queue, cfg SchedulerConfig) (*Scheduler, error) {
	if q == nil {
		return nil, errors.New("queue: the scheduler's queue is nil")
	}
	if cfg.Lease == 0 {
		cfg.Lease = schedulerLease
	}
	if cfg.Lease < time.Second || cfg.Lease > time.Hour {
		return nil, fmt.Errorf("queue: SchedulerConfig.Lease is %v, not from a second to an hour", cfg.Lease)
	}
	s := &Scheduler{queue: q, cfg: cfg}
	names := map[string]bool{}
	for i, j := range cfg.Jobs {
		at, err := parseSchedule(j.Spec, j.Location)
		switch {
		case err != nil:
			return nil, fmt.Errorf("queue: SchedulerConfig.Jobs[%d].Spec: %w", i, err)
		case j.Name == "" || len(j.Name) > maxLabel:
			return nil, fmt.Errorf("queue: SchedulerConfig.Jobs[%d].Name has %d bytes, not 1 to %d", i, len(j.Name), maxLabel)
		case names[j.Name]:
			return nil, fmt.Errorf("queue: SchedulerConfig.Jobs has two jobs %q", j.Name)
		}
		names[j.Name] = true
		s.jobs = append(s.jobs, job{Job: j, schedule: at})
	}
	return s, nil
}

// Run sends jobs while this process is the one to do so, and waits for its turn while not, until ctx ends: then it returns nil. It
// returns [ErrDeleted] if the queue was deleted.
func (s *Scheduler) Run(ctx context.Context) error {
	q := s.queue
	server := lease.On(q.client)
	for ctx.Err() == nil {
		if _, err := q.opened(ctx); errors.Is(err, ErrDeleted) {
			return err
		}
		sent := time.Now()
		call, cancel := q.bounded(ctx)
		mine, ok, err := server.Take(call, q.keys.part(q.cfg.Name, 0, "lead"), s.cfg.Lease)
		cancel()
		if err != nil && ctx.Err() == nil {
			q.log.Warn("scheduler", "queue", q.cfg.Name, "error", err)
		}
		if ok {
			keeper := lease.Keep(ctx, lease.Keeping{TTL: s.cfg.Lease, Sent: sent, Extend: mine.Extend, Renew: true})
			err := s.lead(ctx, keeper.Context())
			keeper.End(lease.ErrReleased)
			lease.GiveBack(ctx, func(ctx context.Context) bool { _, err := mine.Drop(ctx); return err == nil })
			if errors.Is(err, ErrDeleted) {
				return err
			}
			continue
		}
		pause(ctx, s.cfg.Lease/3)
	}
	return nil
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// lead sends jobs until ctx or held ends.
func (s *Scheduler) lead(ctx, held context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(held, func() { cancel(context.Cause(held)) })()
	for i := range s.jobs {
		s.jobs[i].last = time.Time{}
	}
	for ctx.Err() == nil {
		sleep, err := s.round(ctx)
		if errors.Is(err, ErrDeleted) {
			return err
		}
		if err != nil {
			sleep = schedulerRetry
		}
		pause(ctx, sleep)
	}
	return nil
}

// round sends what is due and says when to look again.
func (s *Scheduler) round(ctx context.Context) (sleep time.Duration, err error) {
	now, err := s.queue.now(ctx)
	if err != nil {
		return 0, err
	}
	sleep = schedulerLook
	for i := range s.jobs {
		j := &s.jobs[i]
		failed := s.look(ctx, j, now)
		if failed != nil {
			err = errors.Join(err, failed)
			if s.cfg.Failed != nil && ctx.Err() == nil {
				s.cfg.Failed(j.Name, failed)
			}
			continue
		}
		sleep = min(sleep, max(0, j.schedule.next(now).Sub(now)))
	}
	return sleep + time.Millisecond, err
}

// look sends a job if it is due.
func (s *Scheduler) look(ctx context.Context, j *job, now time.Time) error {
	if j.last.IsZero() {
		last, err := s.queue.lastOf(ctx, j.Name)
		if err != nil {
			return err
		}
		if last.IsZero() { // a new job is due from now on; who comes after us is to know since when
			if err := s.queue.beginJob(ctx, j.Name, now); err != nil {
				return err
			}
			last = now
		}
		j.last = last
	}
	due := j.schedule.latest(j.last, now)
	if due.IsZero() {
		return nil
	}
	m := j.Message
	if j.Make != nil {
		var err error
		if m, err = j.Make(due.In(j.schedule.loc)); err != nil {
			return err
		}
	}
	sent, err := s.queue.sendOnce(ctx, j.Name, due, m)
	if err != nil {
		return err
	}
	j.last = due
	if !sent.Duplicate && s.cfg.Sent != nil {
		s.cfg.Sent(j.Name, due)
	}
	return nil
}

// now is the server's time.
func (q *Queue) now(ctx context.Context) (time.Time, error) {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	parts, err := q.client.Do(ctx, q.client.B().Time().Build()).AsIntSlice()
	if err != nil || len(parts) != 2 {
		return time.Time{}, fmt.Errorf("queue: time: %v: %w", parts, err)
	}
	return time.Unix(parts[0], parts[1]*1000), nil
}

// cron returns where a job's last time is: with the messages that it sends.
func (q *Queue) cron(ctx context.Context, name string) (string, error) {
	s, err := q.opened(ctx)
	if err != nil {
		return "", err
	}
	return q.keys.part(q.cfg.Name, s.partOf(name).index, "cron"), nil
}

func (q *Queue) lastOf(ctx context.Context, name string) (time.Time, error) {
	key, err := q.cron(ctx, name)
	if err != nil {
		return time.Time{}, err
	}
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	n, err := q.client.Do(ctx, q.client.B().Hget().Key(key).Field(label(name)).Build()).AsInt64()
	switch {
	case valkey.IsValkeyNil(err):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("queue: scheduler: %w", err)
	}
	return time.Unix(n, 0), nil
}

func (q *Queue) beginJob(ctx context.Context, name string, now time.Time) error {
	key, err := q.cron(ctx, name)
	if err != nil {
		return err
	}
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	c := q.client
	return c.Do(ctx, c.B().Hsetnx().Key(key).Field(label(name)).Value(strconv.FormatInt(now.Unix(), 10)).Build()).Error()
}

// sendOnce sends the message of a job that was due at a time, unless that was done.
func (q *Queue) sendOnce(ctx context.Context, name string, due time.Time, m Message) (Sent, error) {
	s, err := q.opened(ctx)
	if err != nil {
		return Sent{}, err
	}
	if s.fifo && m.Group == "" {
		m.Group = name
	}
	if err := m.check(&q.cfg, s.fifo); err != nil {
		return Sent{}, err
	}
	if m.Group != "" && len(s.parts) > 1 && s.partOf(m.Group) != s.partOf(name) {
		return Sent{}, fmt.Errorf("queue: job %q: in a queue of several partitions its message has no Group but its Name", name)
	}
	it := &sending{id: newID(), bytes: sizeOf(m.Body, m.Attributes)}
	it.blob = m.blob(it.id, nil)
	o := options{unique: label(m.Unique), once: label(name), onceAt: strconv.FormatInt(due.Unix(), 10)}
	if o.unique != "" {
		o.uniqueMs = strconv.FormatInt(m.UniqueFor.Milliseconds(), 10)
	}
	if m.Delay > 0 {
		o.delay = strconv.FormatInt(m.Delay.Milliseconds(), 10)
	}
	it.options = o.String()
	sent, err := q.deliver(ctx, []*sending{it}, map[*partition][]*sending{s.partOf(name): {it}})
	return sent[0], err
}

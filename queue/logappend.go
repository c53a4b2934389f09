package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"

	_ "embed"
)

var (
	//go:embed logappend.lua
	logAppendLua string
	//go:embed logtrim.lua
	logTrimLua string

	logAppend = script.New(logAppendLua)
	logTrim   = script.New(logTrimLua)
)

// appending is an entry on its way.
type appending struct {
	blob  string
	bytes int // of body and attributes
	sent  Sent
}

// Append appends a message. One round trip, which appends of this process at the same time share. Sent.ID is the entry's id and
// Sent.Sequence its number in its partition, from 1.
//
// Message.Group is the key of its order: all of a key are in one partition, and each group handles them one after the other. DedupID,
// Delay, Unique and UniqueFor are refused: a log has none. The error is [ErrFull], [ErrDeleted], what is wrong with m, or the server's. If
// no answer came, or ctx ended, the message may have been appended.
func (l *Log) Append(ctx context.Context, m Message) (Sent, error) {
	sent, err := l.AppendBatch(ctx, []Message{m})
	if err != nil {
		if sent[0].Err != nil {
			err = sent[0].Err
		}
		return Sent{Err: err}, err
	}
	return sent[0], nil
}

// AppendBatch appends messages; each stands for itself, and Sent.Err says which were not appended. The error is nil if all were. Those of
// a partition stay in order: when it has no room for one, it takes none behind it either. A round trip for each partition, and 128
// messages or a megabyte of each.
func (l *Log) AppendBatch(ctx context.Context, messages []Message) ([]Sent, error) {
	s, err := l.opened(ctx, false)
	if err != nil {
		return failed(len(messages), err), err
	}
	items := make([]*appending, len(messages))
	parts := make(map[*logPart][]*appending, 1)
	anywhere := rand.IntN(len(s.parts)) // what has no key goes to one partition, so that it shares its call
	for i := range messages {
		m := &messages[i]
		it := &appending{bytes: sizeOf(m.Body, m.Attributes)}
		items[i] = it
		if it.sent.Err = l.check(m); it.sent.Err != nil {
			continue
		}
		it.blob = m.entry()
		p := s.parts[anywhere]
		if m.Group != "" {
			p = s.parts[hashOf(m.Group)%uint64(len(s.parts))]
		}
		parts[p] = append(parts[p], it)
	}
	gone := beside(parts, func(p *logPart, batch []*appending) error { return p.appends.do(ctx, batch) })
	if gone != nil { // the items are not ours any more
		err := fmt.Errorf("queue: append: messages may have been appended: %w", gone)
		return failed(len(items), err), err
	}
	sent := make([]Sent, len(items))
	for i, it := range items {
		sent[i] = it.sent
	}
	if err := notSent(sent); err != nil {
		return sent, fmt.Errorf("queue: append: %w", errors.Unwrap(err))
	}
	return sent, nil
}

func (l *Log) check(m *Message) error {
	switch {
	case m.DedupID != "":
		return errors.New("queue: Message.DedupID: a log has no deduplication")
	case m.Delay != 0:
		return errors.New("queue: Message.Delay: a log has no delays")
	case m.Unique != "" || m.UniqueFor != 0:
		return errors.New("queue: Message.Unique: a log has no unique jobs")
	}
	return m.check(&Config{MaxBody: l.cfg.MaxBody}, false)
}

// entry is a message as it stands in a stream, behind the two numbers that the server puts before it: the length of its attributes and
// its key, which end the line, the attributes, the body.
func (m *Message) entry() string {
	attributes := encodeAttributes(m.Attributes, nil)
	var b strings.Builder
	b.Grow(8 + len(m.Group) + len(attributes) + len(m.Body))
	b.WriteString(strconv.Itoa(len(attributes)))
	b.WriteByte(' ')
	b.WriteString(label(m.Group))
	b.WriteByte('\n')
	b.WriteString(attributes)
	b.Write(m.Body)
	return b.String()
}

// parseEntry makes a Delivery of an entry: its id in the stream, and its text.
func parseEntry(partition int, id, text string) (*Delivery, error) {
	d := &Delivery{ID: strconv.Itoa(partition) + ":" + id}
	at, ok := parseID(id)
	if !ok {
		return d, errBlob
	}
	d.Sent = time.UnixMilli(int64(at.ms))
	head, rest, ok1 := strings.Cut(text, "\n")
	seq, head, ok2 := strings.Cut(head, " ")
	_, head, ok3 := strings.Cut(head, " ")
	length, group, ok4 := strings.Cut(head, " ")
	n, err1 := strconv.ParseUint(length, 10, 31)
	number, err2 := strconv.ParseUint(seq, 10, 64)
	if !ok1 || !ok2 || !ok3 || !ok4 || err1 != nil || err2 != nil || n > uint64(len(rest)) {
		return d, errBlob
	}
	d.Sequence = number
	d.Group, d.Body = unlabel(group), []byte(rest[n:])
	if n > 0 {
		var err error
		if d.Attributes, err = decodeAttributes(rest[:n]); err != nil {
			return d, err
		}
	}
	return d, nil
}

// entryID is an id of a stream.
type entryID struct{ ms, n uint64 }

func parseID(text string) (entryID, bool) {
	ms, n, ok := strings.Cut(text, "-")
	a, err1 := strconv.ParseUint(ms, 10, 64)
	b, err2 := strconv.ParseUint(n, 10, 64)
	return entryID{a, b}, ok && err1 == nil && err2 == nil
}

func (a entryID) less(b entryID) bool { return a.ms < b.ms || a.ms == b.ms && a.n < b.n }

func (a entryID) String() string {
	return strconv.FormatUint(a.ms, 10) + "-" + strconv.FormatUint(a.n, 10)
}

// next is the id that follows.
func (a entryID) next() entryID {
	if a.n++; a.n == 0 {
		a.ms++
	}
	return a
}

// appendAll appends a batch in one call. A partition that is full is trimmed, and asked again for as long as that makes room.
func (l *Log) appendAll(ctx context.Context, p *logPart, batch []*appending) {
	err := l.appendOnce(ctx, p, batch)
	for len(batch) > 0 && batch[len(batch)-1].sent.Err == ErrFull && err == nil { //nolint:errorlint // it is set as it is just before
		var rest []*appending
		bytes := 0
		for _, it := range batch {
			if it.sent.Err != nil {
				rest, bytes = append(rest, it), bytes+len(it.blob)
			}
		}
		gone, failed := l.trim(ctx, p, len(rest), bytes, len(rest[0].blob))
		if failed != nil || gone == 0 {
			break
		}
		for _, it := range rest {
			it.sent.Err = nil
		}
		err = l.appendOnce(ctx, p, rest)
		batch = rest
	}
	if err != nil {
		for _, it := range batch {
			if it.sent.Err == nil {
				it.sent.Err = err
			}
		}
	}
	l.trimSoon(p)
}

func (l *Log) appendOnce(ctx context.Context, p *logPart, batch []*appending) error {
	args := make([]string, 1, 1+len(batch))
	args[0] = strconv.Itoa(p.of)
	for _, it := range batch {
		args = append(args, it.blob)
	}
	var notDurable error
	d := durably{l.cfg.Durability, l.cfg.Replicas, l.cfg.DurabilityTimeout}
	reply, err := l.call(ctx, p, true, func() ([]valkey.ValkeyMessage, error) {
		reply, err := d.exec(ctx, l.client, logAppend, p.keys, args)
		if isNotDurable(err) {
			notDurable, err = err, nil
		}
		return reply, err
	})
	if err == nil {
		err = readAppended(p, reply, batch)
	}
	switch {
	case errors.Is(err, ErrDeleted):
		return err
	case err != nil:
		return fmt.Errorf("queue: append: %w", err)
	}
	n, bytes := 0, 0
	for _, it := range batch {
		if it.sent.Err == nil {
			n, bytes = n+1, bytes+it.bytes
		}
	}
	if hook := l.cfg.Hooks.Sent; hook != nil && n > 0 {
		hook(n, bytes)
	}
	return notDurable
}

// readAppended tells each message of a batch what the server answered.
func readAppended(p *logPart, reply []valkey.ValkeyMessage, batch []*appending) error {
	first, err := number(reply, 1)
	if err != nil || len(reply) < 3 || len(reply)-3 > len(batch) {
		return fmt.Errorf("the server answered %d values for %d messages: %w", len(reply), len(batch), err)
	}
	refused := ErrFull
	if why, err := reply[2].ToString(); err == nil {
		refused = fmt.Errorf("queue: append: %s", why)
	}
	for i, it := range batch {
		if i >= len(reply)-3 {
			it.sent = Sent{Err: refused}
			continue
		}
		id, err := reply[3+i].ToString()
		if err != nil {
			return err
		}
		it.sent = Sent{ID: strconv.Itoa(p.index) + ":" + id, Sequence: uint64(first) + uint64(i)}
	}
	return nil
}

// trimSoon trims a partition in the background if this process has not for a second.
func (l *Log) trimSoon(p *logPart) {
	now, last := time.Now().UnixMilli(), p.trimmed.Load()
	if now-last < trimEvery.Milliseconds() || !p.trimmed.CompareAndSwap(last, now) {
		return
	}
	go func() {
		ctx, cancel := l.bounded(context.Background())
		defer cancel()
		if _, err := l.trim(ctx, p, 0, 0, 0); err != nil && !errors.Is(err, ErrDeleted) && !errors.Is(err, ErrNoQueue) {
			l.log.Warn("the log could not be trimmed", "log", l.cfg.Name, "error", err)
		}
	}()
}

// trim makes room in a partition, where that loses nothing, and drops what is too old.
func (l *Log) trim(ctx context.Context, p *logPart, entries, bytes, first int) (gone int64, err error) {
	reply, err := l.on(ctx, p, false, logTrim, strconv.Itoa(entries), strconv.Itoa(bytes), strconv.Itoa(first))
	if err != nil {
		return 0, err
	}
	gone, err1 := number(reply, 1)
	dropped, err2 := number(reply, 2)
	if dropped > 0 {
		l.log.Warn("entries were dropped that a group had not acknowledged", "log", l.cfg.Name, "partition", p.index, "entries", dropped)
	}
	return gone, errors.Join(err1, err2)
}

// Trim drops what is too old or too much, in all partitions: processes that append or read do so once a second by themselves. It returns
// how many entries are gone. A round trip for each partition.
func (l *Log) Trim(ctx context.Context) (gone int64, err error) {
	s, err := l.opened(ctx, true)
	if err != nil {
		return 0, err
	}
	for _, p := range s.parts {
		call, cancel := l.bounded(ctx)
		n, err := l.trim(call, p, 0, 0, 0)
		cancel()
		if err != nil {
			return gone, fmt.Errorf("queue: trim: %w", err)
		}
		gone += n
	}
	return gone, nil
}

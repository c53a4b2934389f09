package queue

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/key"
)

const (
	maxAttributes = 100
	maxAttribute  = 256 // bytes of a name
	maxLabel      = 128 // bytes of a group, a deduplication id, a key of a unique job
	reserved      = "fr."
)

// Message is what is sent.
type Message struct {
	// Body is any bytes, none included. With the attributes they are at most Config.MaxBody.
	Body []byte
	// Attributes stand beside the body: up to 100, with names of 1 to 256 bytes that don't begin with "fr."; the
	// values may be any bytes.
	Attributes map[string]string
	// Group is what keeps order in a FIFO queue, where it is required. In a standard queue, groups that wait are served
	// in turn, whatever each has sent. At most 128 bytes. All of a group is in one partition.
	Group string
	// DedupID makes a second message of the same id a duplicate, for five minutes from the first one: it is not sent
	// again. At most 128 bytes. In a FIFO queue of several partitions it counts within its group.
	DedupID string
	// Delay is how long the message can't be received: up to 366 days, and less than Config.Retention. Zero means Config.Delay. A FIFO queue
	// has only that.
	Delay time.Duration
	// Unique lets one message of its key be in the queue at a time: another one is a duplicate until this one is
	// acknowledged, has gone to the dead letters, or UniqueFor has passed. At most 128 bytes. A FIFO queue
	// of several partitions sees to it within each of them.
	Unique string
	// UniqueFor ends that early: after up to 366 days. Zero means never.
	UniqueFor time.Duration
}

// Sent says what became of a message.
type Sent struct {
	// ID is the message's: 22 characters. A duplicate has that of the first one.
	ID string
	// Sequence grows with every message of a FIFO queue's partition; in a standard queue it is zero.
	Sequence uint64
	// Duplicate is set if it was not sent because it was there already; see Message.DedupID and Message.Unique.
	Duplicate bool
	// Err says why the message was not sent. In a batch each has its own.
	Err error
}

// Delivery is a message that was received.
type Delivery struct {
	// ID is the message's, the same at each delivery.
	ID string
	// Receipt is what acknowledges this delivery. It ends with the next one.
	Receipt string
	// Body and Attributes are as they were sent.
	Body       []byte
	Attributes map[string]string
	// Group and Sequence are as they were sent.
	Group    string
	Sequence uint64
	// Receives is how often the message was delivered, this time included.
	Receives int
	// Sent and FirstReceived are when, by the server's clock.
	Sent, FirstReceived time.Time
	// Dead says why the message is among the dead letters; nil for others.
	Dead *Dead

	leased time.Time       // before the call that brought it
	owned  context.Context //nolint:containedctx // of a log: ends when its partition is somebody else's; nil for a queue
}

// Dead is why a message went to the dead letters.
type Dead struct {
	// Queue is where it failed.
	Queue string
	// Reason is the last error that it was given back with, or how often it was received.
	Reason string
	// Receives is how often.
	Receives int
	// Sent is when it was sent to Queue.
	Sent time.Time

	mark string // of this death: a message may die more than once
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // which never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// check returns why m can't be sent to a queue.
func (m *Message) check(cfg *Config, fifo bool) error {
	size := sizeOf(m.Body, m.Attributes)
	for name := range m.Attributes {
		switch {
		case name == "" || len(name) > maxAttribute:
			return fmt.Errorf("queue: an attribute's name has %d bytes, not 1 to %d", len(name), maxAttribute)
		case strings.HasPrefix(name, reserved):
			return fmt.Errorf("queue: attribute %q begins with %s, which is not the caller's", name, reserved)
		}
	}
	for what, label := range map[string]string{"Group": m.Group, "DedupID": m.DedupID, "Unique": m.Unique} {
		if len(label) > maxLabel {
			return fmt.Errorf("queue: Message.%s has %d bytes, over %d", what, len(label), maxLabel)
		}
	}
	switch {
	case size > cfg.MaxBody:
		return fmt.Errorf("queue: body and attributes have %d bytes, over Config.MaxBody, %d", size, cfg.MaxBody)
	case len(m.Attributes) > maxAttributes:
		return fmt.Errorf("queue: %d attributes, over %d", len(m.Attributes), maxAttributes)
	case fifo && m.Group == "":
		return errors.New("queue: Message.Group is required by a FIFO queue")
	case fifo && m.Delay != 0:
		return errors.New("queue: Message.Delay: a FIFO queue has only Config.Delay")
	case m.Delay < 0 || m.Delay > maxDuration:
		return fmt.Errorf("queue: Message.Delay is %v, not from 0 to %v", m.Delay, maxDuration)
	case m.UniqueFor > maxDuration:
		return fmt.Errorf("queue: Message.UniqueFor is %v, not from 0 to %v", m.UniqueFor, maxDuration)
	case m.UniqueFor < 0 || m.UniqueFor > 0 && m.Unique == "":
		return fmt.Errorf("queue: Message.UniqueFor is %v, with Unique %q", m.UniqueFor, m.Unique)
	}
	return nil
}

// sizeOf is how many bytes a message has for limits and hooks.
func sizeOf(body []byte, attributes map[string]string) int {
	size := len(body)
	for name, value := range attributes {
		size += len(name) + len(value)
	}
	return size
}

// label is a group or an id as it stands in a blob: empty, or without spaces.
func label(s string) string {
	if s == "" {
		return ""
	}
	return key.Escape(s)
}

// unlabel is the inverse of label, for labels that are not so long that they became a digest.
func unlabel(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				b.WriteByte(c[0])
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// blob is a message as it stands in the server, but for the time and the sequence number that the server puts
// before it.
func (m *Message) blob(id string, extra map[string]string) string {
	attributes := encodeAttributes(m.Attributes, extra)
	var b strings.Builder
	b.Grow(len(id) + 16 + len(m.Group) + len(m.Unique) + len(attributes) + len(m.Body))
	b.WriteString(id)
	b.WriteByte(' ')
	b.WriteString(strconv.Itoa(len(attributes)))
	b.WriteByte(' ')
	b.WriteString(label(m.Group))
	b.WriteByte(' ')
	b.WriteString(label(m.Unique))
	b.WriteByte('\n')
	b.WriteString(attributes)
	b.Write(m.Body)
	return b.String()
}

// encodeAttributes writes "NAMELENGTH:VALUELENGTH:" and both for each, in the order of their names.
func encodeAttributes(attributes, extra map[string]string) string {
	if len(attributes)+len(extra) == 0 {
		return ""
	}
	var b strings.Builder
	for _, m := range []map[string]string{attributes, extra} {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			fmt.Fprintf(&b, "%d:%d:%s%s", len(name), len(m[name]), name, m[name])
		}
	}
	return b.String()
}

var errBlob = errors.New("queue: a message in the server is not in the layout")

func decodeAttributes(s string) (map[string]string, error) {
	attributes := map[string]string{}
	for s != "" {
		names, rest, ok1 := strings.Cut(s, ":")
		values, rest, ok2 := strings.Cut(rest, ":")
		n, err1 := strconv.ParseUint(names, 10, 31)
		v, err2 := strconv.ParseUint(values, 10, 31)
		if !ok1 || !ok2 || err1 != nil || err2 != nil || n+v > uint64(len(rest)) {
			return nil, errBlob
		}
		attributes[rest[:n]] = rest[n : n+v]
		s = rest[n+v:]
	}
	return attributes, nil
}

// options are what a send says of a message beside its blob; see send.lua.
type options struct {
	delay, dedup, unique, uniqueMs, once, onceAt, moved string
}

func (o options) String() string {
	return " " + strings.Join([]string{o.delay, o.dedup, o.unique, o.uniqueMs, o.once, o.onceAt, o.moved}, " ") + "\n"
}

// optionsOf returns the options of m as send.lua reads them, and what it has to be in one partition with.
func (q *Queue) optionsOf(m *Message, s *state) (text, where string) {
	o := options{dedup: label(m.DedupID), unique: label(m.Unique)}
	if o.dedup == "" && q.cfg.DedupByContent {
		sum := sha256.Sum256(m.Body)
		o.dedup = hex.EncodeToString(sum[:])
	}
	if m.Delay > 0 {
		o.delay = strconv.FormatInt(max(1, m.Delay.Milliseconds()), 10)
	}
	if o.unique != "" {
		o.uniqueMs = strconv.FormatInt((m.UniqueFor + time.Millisecond - 1).Milliseconds(), 10)
	}
	switch {
	case m.Group != "":
		where = m.Group
	case o.unique != "":
		where = o.unique
	default:
		where = o.dedup
	}
	if s.fifo && len(s.parts) > 1 && o.dedup != "" {
		o.dedup = strconv.Itoa(len(m.Group)) + "/" + label(m.Group) + "/" + o.dedup
	}
	if o == (options{}) && m.Group == "" {
		return "", where
	}
	return o.String(), where
}

// parse makes a Delivery of a receipt, as scripts have it, and a blob.
func parse(partition int, member, blob string) (*Delivery, error) {
	head, rest, ok := strings.Cut(blob, "\n")
	f := strings.Split(head, " ")
	if !ok || len(f) != 6 {
		return nil, errBlob
	}
	sent, err1 := strconv.ParseInt(f[0], 10, 64)
	sequence, err2 := strconv.ParseUint(f[1], 10, 64)
	length, err3 := strconv.ParseUint(f[3], 10, 31)
	if err := errors.Join(err1, err2, err3); err != nil || length > uint64(len(rest)) {
		return nil, errBlob
	}
	d := &Delivery{ID: f[2], Group: unlabel(f[4]), Sequence: sequence, Sent: time.UnixMilli(sent), Body: []byte(rest[length:])}
	if length > 0 {
		var err error
		if d.Attributes, err = decodeAttributes(rest[:length]); err != nil {
			return nil, err
		}
		d.takeDead()
	}
	if member != "" {
		r := strings.SplitN(member, ":", 6)
		if len(r) != 6 {
			return nil, errBlob
		}
		times, err1 := strconv.Atoi(r[1])
		first, err2 := strconv.ParseInt(r[2], 10, 64)
		if errors.Join(err1, err2) != nil {
			return nil, errBlob
		}
		d.Receives, d.FirstReceived = times, time.UnixMilli(first)
		d.Receipt = strconv.Itoa(partition) + ":" + member
	}
	return d, nil
}

// The attributes that tell of a message's death.
const (
	deadQueue, deadReason, deadReceives, deadSent, deadMark = reserved + "queue", reserved + "reason", reserved + "receives", reserved + "sent", reserved + "mark"
)

func (d *Dead) attributes() map[string]string {
	if d == nil {
		return nil
	}
	return map[string]string{
		deadQueue: d.Queue, deadReason: d.Reason, deadReceives: strconv.Itoa(d.Receives), deadSent: strconv.FormatInt(d.Sent.UnixMilli(), 10),
		deadMark: d.mark,
	}
}

// takeDead takes what the attributes tell of a death out of them.
func (d *Delivery) takeDead() {
	from, ok := d.Attributes[deadQueue]
	if !ok {
		return
	}
	receives, _ := strconv.Atoi(d.Attributes[deadReceives])
	sent, _ := strconv.ParseInt(d.Attributes[deadSent], 10, 64)
	d.Dead = &Dead{Queue: from, Reason: d.Attributes[deadReason], Receives: receives, Sent: time.UnixMilli(sent), mark: d.Attributes[deadMark]}
	for _, name := range []string{deadQueue, deadReason, deadReceives, deadSent, deadMark} {
		delete(d.Attributes, name)
	}
	if len(d.Attributes) == 0 {
		d.Attributes = nil
	}
}

// Package policy plays a log of accesses against local servers, one for each eviction policy, and says which
// serves it best. It also shows an eviction storm, and how it is avoided.
package policy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/usage"
)

// Bounds of a trace, which is kept in memory: 4 bytes an access, and the names of its keys.
const (
	MaxAccesses = 10_000_000
	MaxKeys     = 2_000_000
	MaxKey      = 1 << 10
	MaxValue    = 1 << 20 // longer values are stored cut to this
)

// Trace is the order in which keys were used.
type Trace struct {
	Keys     []string
	Sizes    []int32 // of each key's value
	Accesses []int32 // indexes of Keys
	Skipped  int64   // lines that could not be read, or that name no key
	Cut      bool    // it is longer than the bounds

	ids map[string]int32
}

// add adds an access; false when the trace is full. A size less than zero is not known.
func (t *Trace) add(key string, size int64) bool {
	if len(key) > MaxKey {
		key = key[:MaxKey]
	}
	if t.ids == nil {
		t.ids = map[string]int32{}
	}
	id, ok := t.ids[key]
	if !ok {
		if len(t.Keys) == MaxKeys {
			t.Cut = true
			return false
		}
		id = int32(len(t.Keys))
		key = strings.Clone(key)
		t.ids[key] = id
		t.Keys, t.Sizes = append(t.Keys, key), append(t.Sizes, 0)
	}
	if size > 0 {
		t.Sizes[id] = int32(min(size, MaxValue))
	}
	if len(t.Accesses) == MaxAccesses {
		t.Cut = true
		return false
	}
	t.Accesses = append(t.Accesses, id)
	return true
}

// ErrEmpty means that nothing in a log names a key.
var ErrEmpty = errors.New("no line names a key")

// ReadLog makes a trace of an access log: each GET or HEAD that succeeded is an access of its target, of the size that
// was sent.
func ReadLog(log iter.Seq2[usage.Entry, error]) (*Trace, error) {
	t := &Trace{}
	for e, err := range log {
		var bad *usage.LineError
		switch {
		case errors.As(err, &bad):
			t.Skipped++
			continue
		case err != nil:
			return t, err
		case e.Method != "GET" && e.Method != "HEAD" || e.Status >= 400:
			t.Skipped++
			continue
		}
		if !t.add(e.Host+e.Target, e.Size) {
			break
		}
	}
	return t, t.done()
}

func (t *Trace) done() error {
	t.ids = nil
	if len(t.Accesses) == 0 {
		return ErrEmpty
	}
	for i, n := range t.Sizes {
		if n == 0 {
			t.Sizes[i] = 100 // of a key that was only read
		}
	}
	return nil
}

// ReadMonitor makes a trace of the lines that MONITOR prints. Of each command only its first key is kept, and the length of
// the value that SET writes.
func ReadMonitor(r io.Reader) (*Trace, error) {
	t := &Trace{}
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, cut, err := readLine(in)
		if line != "" {
			words := monitorWords(line, 3, cut > 0)
			key, size := monitorKey(words)
			if size > 0 && cut > 0 { // as many bytes to a character in what was passed over as in what was kept
				size += int64(float64(cut) * float64(size) / float64(len(line)))
			}
			switch {
			case key == "":
				t.Skipped++
			case !t.add(key, size):
				return t, t.done()
			}
		}
		if errors.Is(err, io.EOF) {
			return t, t.done()
		}
		if err != nil {
			return t, err
		}
	}
}

// readLine reads a line, and passes over what is longer than a megabyte of it. Cut is how much that is.
func readLine(in *bufio.Reader) (text string, cut int64, err error) {
	var line []byte
	for {
		part, more, err := in.ReadLine()
		keep := min(len(part), usage.MaxLine-len(line))
		line, cut = append(line, part[:keep]...), cut+int64(len(part)-keep)
		if err != nil || !more {
			return string(line), cut, err
		}
	}
}

// monitorWords takes the first words out of `1700000000.000001 [0 127.0.0.1:50000] "get" "user:1"`. Of a line that
// was cut the last of them is what is there.
func monitorWords(line string, most int, cut bool) []string {
	_, rest, ok := strings.Cut(strings.TrimPrefix(line, "+"), "] ")
	if !ok {
		return nil
	}
	var words []string
	for len(words) < most && strings.HasPrefix(rest, `"`) {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil && cut {
			return append(words, begun(rest)...)
		}
		if err != nil {
			break
		}
		word, err := strconv.Unquote(quoted)
		if err != nil {
			break
		}
		words = append(words, word)
		rest = strings.TrimPrefix(rest[len(quoted):], " ")
	}
	return words
}

// begun is a word whose end is missing, maybe in the middle of "\\x00".
func begun(quoted string) []string {
	for less := range min(4, len(quoted)) {
		if word, err := strconv.Unquote(quoted[:len(quoted)-less] + `"`); err == nil {
			return []string{word}
		}
	}
	return nil
}

// keyed are the commands whose first argument is the key that they use.
const keyed = " get set setex psetex getex getdel getset mget incr decr incrby decrby append strlen exists hget hset hmget hgetall hincrby hdel hlen" +
	" lpush rpush lpop rpop lrange llen sadd srem smembers sismember scard zadd zrange zscore zrem zcard expire pexpire ttl pttl del unlink "

func monitorKey(words []string) (key string, size int64) {
	if len(words) < 2 {
		return "", 0
	}
	command := strings.ToLower(words[0])
	if !strings.Contains(keyed, " "+command+" ") || strings.Contains(command, " ") {
		return "", 0
	}
	if command == "set" && len(words) == 3 {
		size = int64(len(words[2]))
	}
	return words[1], size
}

// Bytes is what all values of the trace take together.
func (t *Trace) Bytes() int64 {
	var sum int64
	for _, n := range t.Sizes {
		sum += int64(n)
	}
	return sum
}

func (t *Trace) String() string {
	return fmt.Sprintf("%d accesses of %d keys", len(t.Accesses), len(t.Keys))
}

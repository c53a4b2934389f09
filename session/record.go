package session

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A record is what lies in a session's key: a line of numbers, and below it the value as a JSON object.
//
//	1SEEN CREATED IDLE ABSOLUTE
//	{"member":value,
//	"member":value}
//
// SEEN and CREATED are Unix seconds of ten digits, IDLE is in milliseconds, ABSOLUTE in seconds after CREATED, 0
// for none. Each member stands on a line of its own, so that scripts find it without reading JSON. Names
// have no quote, backslash or control character; those that begin with '@' are the package's own.
//
// "-" stands where a session was ended, and "2PLACE", a line end and the record that it was, where it got another
// token: the place of which is PLACE.
type record struct {
	seen, created time.Time
	idle          time.Duration
	absolute      time.Duration
	moved         place // where the session is now; zero: here
	body          string
}

const (
	tombstone = "-"
	live      = '1'
	moved     = '2'
)

var errNoSession = errors.New("session: the key holds no session")

// parseRecord reads a record; ok is false for a tombstone.
func parseRecord(text string) (r record, ok bool, err error) {
	if text == tombstone {
		return r, false, nil
	}
	if text != "" && text[0] == moved {
		target, rest, _ := strings.Cut(text[1:], "\n")
		if r.moved, ok = parsePlace(target); !ok {
			return r, false, errNoSession
		}
		text = rest
	}
	head, body, ok := strings.Cut(text, "\n")
	if !ok || len(head) < 11 || head[0] != live || len(body) < 2 || body[0] != '{' || body[len(body)-1] != '}' {
		return r, false, errNoSession
	}
	var numbers [4]int64
	for i := range numbers {
		word, rest, more := strings.Cut(head[1:], " ")
		if numbers[i], err = strconv.ParseInt(word, 10, 64); err != nil || numbers[i] < 0 || more != (i < 3) {
			return r, false, errNoSession
		}
		head = " " + rest
	}
	if numbers[2] > int64(maxTimeout/time.Millisecond) || numbers[3] > int64(maxTimeout/time.Second) {
		return r, false, errNoSession
	}
	r.seen, r.created = time.Unix(numbers[0], 0), time.Unix(numbers[1], 0)
	r.idle, r.absolute = time.Duration(numbers[2])*time.Millisecond, time.Duration(numbers[3])*time.Second
	r.body = body
	return r, true, nil
}

// member is one line of a body.
type member struct{ name, value string }

// members returns the lines of a body.
func members(body string) ([]member, error) {
	inner := body[1 : len(body)-1]
	if inner == "" {
		return nil, nil
	}
	all := make([]member, 0, strings.Count(inner, ",\n")+1)
	for more := true; more; {
		var line string
		line, inner, more = strings.Cut(inner, ",\n")
		end := strings.IndexByte(line[min(1, len(line)):], '"')
		if end < 0 || line[0] != '"' || len(line) < end+4 || line[end+2] != ':' {
			return nil, fmt.Errorf("%w: a line of it is no member", errNoSession)
		}
		all = append(all, member{line[1 : end+1], line[end+3:]})
	}
	return all, nil
}

// appendMember adds a line to a body that begins with '{'.
func appendMember(body []byte, name, value string) []byte {
	if len(body) > 1 {
		body = append(body, ",\n"...)
	}
	body = append(body, '"')
	body = append(body, name...)
	body = append(body, `":`...)
	return append(body, value...)
}

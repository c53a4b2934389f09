package writebehind

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A value in the server is: the byte 0xFB, which begins neither UTF-8 nor JSON; the byte 0x01, the version of this
// form; P for a value or D for a deletion; the version of the write in decimal digits, 0 for what was loaded; a
// space; and the value's bytes.
const (
	headPut    = "\xFB\x01P"
	headDelete = "\xFB\x01D"
	loaded     = "0 "
)

var errForeign = errors.New("what lies there is no value of this store")

type entry struct {
	deleted bool
	version int64
	body    []byte
}

// parseEntry reads a value; its body is part of b.
func parseEntry(b []byte) (e entry, err error) {
	if len(b) < len(headPut)+2 {
		return e, errForeign
	}
	switch string(b[:len(headPut)]) {
	case headPut:
	case headDelete:
		e.deleted = true
	default:
		return e, errForeign
	}
	digits, body, ok := bytes.Cut(b[len(headPut):], []byte(" "))
	if e.version, err = strconv.ParseInt(string(digits), 10, 64); err != nil || !ok || e.version < 0 {
		return entry{}, errForeign
	}
	e.body = body[:len(body):len(body)]
	return e, nil
}

// state is an entry of the log: the number of the claim that has the key at the origin, or 0; 1 if it was written
// since; when its window began (ms); how many bytes its value has at most; the least version that the next value of the
// window may have; how many calls it has failed, how many of them count, how many writes of the partition were done at the
// last one, and since when it fails (ms); and the last reason. Each number has a space behind it.
type state struct {
	flight, again, since, size, base, tries, fails, seen, failing int64
	reason                                                        string
}

func parseState(text string) (s state, err error) {
	words := strings.SplitN(text, " ", 10)
	if len(words) < 10 {
		return s, errors.New("what lies in the log is no entry of this store")
	}
	for i, field := range []*int64{&s.flight, &s.again, &s.since, &s.size, &s.base, &s.tries, &s.fails, &s.seen, &s.failing} {
		if *field, err = strconv.ParseInt(words[i], 10, 64); err != nil {
			return state{}, fmt.Errorf("what lies in the log is no entry of this store: %w", err)
		}
	}
	s.reason = words[9]
	return s, nil
}

// letter is a dead letter as it lies in the server: version, when (ms), tries and the length of the reason, each
// followed by a space; the reason; the value.
type letter struct {
	version, when, tries int64
	reason               string
	value                []byte
}

func parseLetter(text string) (l letter, err error) {
	words := strings.SplitN(text, " ", 5)
	var long int64
	if len(words) == 5 {
		for i, field := range []*int64{&l.version, &l.when, &l.tries, &long} {
			if *field, err = strconv.ParseInt(words[i], 10, 64); err != nil {
				break
			}
		}
	}
	if len(words) < 5 || err != nil || long < 0 || long > int64(len(words[4])) {
		return letter{}, errors.New("what lies there is no dead letter of this store")
	}
	l.reason, l.value = words[4][:long], []byte(words[4][long:])
	return l, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// cut shortens a reason for the server.
func cut(reason string) string {
	if len(reason) > maxReason {
		return strings.ToValidUTF8(reason[:maxReason], "")
	}
	return reason
}

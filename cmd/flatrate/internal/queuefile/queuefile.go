// Package queuefile reads messages for a queue from JSON lines: an object on each line.
package queuefile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/flatrate/flatrate/cmd/flatrate/internal/yamlfile"
	"github.com/flatrate/flatrate/queue"
)

// fields are what an object may have.
var fields = []string{"body", "body_base64", "attributes", "group", "dedup_id", "delay", "unique", "unique_for"}

// Line is a message and where it stands.
type Line struct {
	Number  int
	Message queue.Message
}

// Reader reads lines. No line is held that is longer than a message can be.
type Reader struct {
	in     *bufio.Reader
	most   int
	number int
}

// NewReader reads messages of which each has at most maxBody bytes, attributes included.
func NewReader(r io.Reader, maxBody int) *Reader {
	// A byte takes six at most ("\u0000"), and there may be white space beside it.
	return &Reader{in: bufio.NewReaderSize(r, 64<<10), most: 6*maxBody + 64<<10}
}

// Next returns the next message; blank lines are skipped. The error names the line; io.EOF is the end.
func (r *Reader) Next() (Line, error) {
	for {
		text, err := r.line()
		if err != nil {
			return Line{}, err
		}
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		m, err := Parse(text)
		if err != nil {
			return Line{}, r.fail(err)
		}
		return Line{r.number, m}, nil
	}
}

func (r *Reader) fail(err error) error { return fmt.Errorf("line %d: %w", r.number, err) }

func (r *Reader) line() ([]byte, error) {
	r.number++
	var text []byte
	for {
		part, err := r.in.ReadSlice('\n')
		if len(text)+len(part) > r.most {
			return nil, r.fail(fmt.Errorf("it has over %d bytes", r.most))
		}
		text = append(text, part...)
		switch {
		case err == nil, errors.Is(err, io.EOF) && len(text) > 0:
			if r.number == 1 {
				text = bytes.TrimPrefix(text, []byte("\ufeff"))
			}
			return text, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		default:
			return nil, r.fail(err)
		}
	}
}

// Parse reads the message of one line.
func Parse(line []byte) (m queue.Message, err error) {
	if !utf8.Valid(line) {
		return m, errors.New("it is not UTF-8; bytes that are no text go into body_base64")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return m, wrong(err, "an object")
	}
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return m, wrong(err, "a name")
		}
		if seen[name] {
			return m, fmt.Errorf("%s stands there twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return m, wrong(err, "a value")
		}
		if err := set(&m, name, value); err != nil {
			return m, err
		}
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return m, wrong(err, "an object")
	}
	switch {
	case len(bytes.TrimSpace(line[d.InputOffset():])) > 0:
		return m, errors.New("something stands behind the object")
	case seen["body"] == seen["body_base64"]:
		return m, errors.New("it needs body or body_base64, one of the two")
	}
	return m, nil
}

func wrong(err error, want string) error {
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it ends in the middle of the object")
	case errors.As(err, &syntax):
		return fmt.Errorf("column %d: %w", syntax.Offset, err)
	case err != nil:
		return err
	}
	return errors.New("it is not " + want)
}

func set(m *queue.Message, name string, value json.RawMessage) error {
	var err error
	switch name {
	case "body":
		var text string
		text, err = str(value)
		m.Body = []byte(text)
	case "body_base64":
		if value[0] != '"' {
			return errors.New("body_base64 is not a string")
		}
		if json.Unmarshal(value, &m.Body) != nil {
			return errors.New("body_base64 is not base64")
		}
	case "attributes":
		m.Attributes, err = attributes(value)
	case "group":
		m.Group, err = str(value)
	case "dedup_id":
		m.DedupID, err = str(value)
	case "unique":
		m.Unique, err = str(value)
	case "delay":
		m.Delay, err = duration(value)
	case "unique_for":
		m.UniqueFor, err = duration(value)
	default:
		if near := yamlfile.Nearest(name, fields); near != "" {
			return fmt.Errorf("unknown field %q: %q?", name, near)
		}
		return fmt.Errorf("unknown field %q: not one of %s", name, strings.Join(fields, ", "))
	}
	if err != nil {
		return fmt.Errorf("%s %w", name, err)
	}
	return nil
}

func str(value json.RawMessage) (text string, err error) {
	if value[0] != '"' || json.Unmarshal(value, &text) != nil {
		return "", errors.New("is not a string")
	}
	// The decoder puts U+FFFD in place of half a surrogate pair: another body than was meant.
	have := bytes.Count(value, []byte("\ufffd")) + bytes.Count(bytes.ToLower(value), []byte(`\ufffd`))
	if strings.Count(text, "\ufffd") > have {
		return "", errors.New("has half of a surrogate pair")
	}
	return text, nil
}

func attributes(value json.RawMessage) (map[string]string, error) {
	d := json.NewDecoder(bytes.NewReader(value))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("is not an object of strings")
	}
	all := map[string]string{}
	for d.More() {
		var one json.RawMessage
		token, err := d.Token()
		if err == nil {
			err = d.Decode(&one)
		}
		name, ok := token.(string)
		if err != nil || !ok {
			return nil, errors.New("is not an object of strings")
		}
		if _, twice := all[name]; twice {
			return nil, fmt.Errorf("has %q twice", name)
		}
		if all[name], err = str(one); err != nil {
			return nil, fmt.Errorf("%q %w", name, err)
		}
	}
	return all, nil
}

func duration(value json.RawMessage) (time.Duration, error) {
	text, err := str(value)
	if err != nil {
		return 0, errors.New(`is not a string such as "5s"`)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf(`is %q, not a time such as "5s"`, text)
	}
	return d, nil
}

package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxFields is how many members a session may have, those that other versions of the program wrote
// included: what a script can hand to one command.
const MaxFields = 1000

// fields are the members of a value's JSON object, each encoded.
type fields map[string]string

// encode splits a value that is to be saved into its members.
func encode(value any) (fields, error) {
	f, err := split(value)
	if len(f) > MaxFields {
		return nil, fmt.Errorf("session: value: %d members, more than %d", len(f), MaxFields)
	}
	return f, err
}

func split(value any) (fields, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("session: value: %w", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil || members == nil {
		return nil, fmt.Errorf("session: value: a %T does not encode as a JSON object", value)
	}
	f := make(fields, len(members))
	for name, raw := range members {
		if strings.HasPrefix(name, "@") {
			return nil, fmt.Errorf("session: value: the member %q begins with @, which is reserved", name)
		}
		f[name] = string(raw)
	}
	return f, nil
}

// decode joins the members that the server holds. Members that T lacks are passed over: Set leaves
// them as they are, since a newer version of the program may have written them.
func decode[T any](hash map[string]string, known names) (value T, err error) {
	var b bytes.Buffer
	for name, raw := range hash {
		if strings.HasPrefix(name, "@") || !known.has(name) {
			continue
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			return value, fmt.Errorf("session: member %q: %w", name, err)
		}
		if !json.Valid([]byte(raw)) {
			return value, fmt.Errorf("session: member %q is not JSON", name)
		}
		b.WriteByte(',')
		b.Write(quoted)
		b.WriteByte(':')
		b.WriteString(raw)
	}
	object := append(bytes.TrimPrefix(b.Bytes(), []byte(",")), '}')
	if err := json.Unmarshal(append([]byte("{"), object...), &value); err != nil {
		return value, fmt.Errorf("session: value: %w", err)
	}
	return value, nil
}

func createdAt(hash map[string]string) (time.Time, error) {
	ms, err := strconv.ParseInt(hash[created], 10, 64)
	if err != nil {
		return time.Time{}, errors.New("session: the key holds no session")
	}
	return time.UnixMilli(ms), nil
}

// diff returns what turns f into now: the names that are gone and the fields that are new or changed.
func (f fields) diff(now fields) (removed []string, changed fields) {
	for name := range f {
		if _, stays := now[name]; !stays {
			removed = append(removed, name)
		}
	}
	changed = fields{}
	for name, value := range now {
		if old, had := f[name]; !had || old != value {
			changed[name] = value
		}
	}
	return removed, changed
}

// appendTo appends name, value, name, value ... in the order of the names.
func (f fields) appendTo(args []string) []string {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		args = append(args, name, f[name])
	}
	return args
}

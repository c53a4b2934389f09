package session

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// plan is how the members of a session become a value.
type plan struct {
	names  names
	fields map[string]int // the struct's fields by member, where each member can be decoded by itself; else nil
}

func planOf(t reflect.Type) plan {
	p := plan{names: namesOf(t)}
	if t.Kind() != reflect.Struct || p.names == nil {
		return p
	}
	fields := map[string]int{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		if tag == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if !validName(name) {
			name = f.Name
		}
		if _, twice := fields[name]; twice || f.Anonymous || strings.Contains(options, "string") {
			return p // what encoding/json makes of these is its own business
		}
		fields[name] = i
	}
	p.fields = fields
	return p
}

// decode turns members into a value. Those that the type lacks are passed over: Set leaves them as they are,
// since a newer version of the program may have written them.
func (p plan) decode(value reflect.Value, all []member) error {
	if p.fields != nil {
		for _, m := range all {
			i, known := p.fields[m.name]
			if !known || m.reserved() {
				continue
			}
			if err := decodeField(value.Field(i), m.value); err != nil {
				return fmt.Errorf("session: member %q: %w", m.name, err)
			}
		}
		return nil
	}
	object := []byte{'{'}
	for _, m := range all {
		if m.reserved() || !p.names.has(m.name) {
			continue
		}
		if !json.Valid([]byte(m.value)) { // it could close the object
			return fmt.Errorf("session: member %q is not JSON", m.name)
		}
		object = appendMember(object, m.name, m.value)
	}
	if err := json.Unmarshal(append(object, '}'), value.Addr().Interface()); err != nil {
		return fmt.Errorf("session: value: %w", err)
	}
	return nil
}

// decodeField does for short and common values what encoding/json does for all.
func decodeField(f reflect.Value, raw string) error {
	if f.CanAddr() && (f.Addr().Type().Implements(jsonDecoder) || f.Addr().Type().Implements(textDecoder)) {
		return json.Unmarshal([]byte(raw), f.Addr().Interface())
	}
	switch f.Kind() { //nolint:exhaustive // the others are for encoding/json
	case reflect.String:
		if plainString(raw) {
			f.SetString(raw[1 : len(raw)-1])
			return nil
		}
	case reflect.Bool:
		if raw == "true" || raw == "false" {
			f.SetBool(raw == "true")
			return nil
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if digits := strings.TrimPrefix(raw, "-"); plainDigits(digits) {
			n, err := strconv.ParseInt(raw, 10, 64)
			if err == nil && !f.OverflowInt(n) {
				f.SetInt(n)
				return nil
			}
		}
	}
	return json.Unmarshal([]byte(raw), f.Addr().Interface())
}

// plainString says whether raw is a JSON string that stands for what is between its quotes.
func plainString(raw string) bool {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return false
	}
	ascii := true
	for i := 1; i < len(raw)-1; i++ {
		switch c := raw[i]; {
		case c == '"' || c == '\\' || c < ' ':
			return false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return ascii || utf8.ValidString(raw)
}

func plainDigits(text string) bool {
	if text == "" || text[0] == '0' && len(text) > 1 {
		return false
	}
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return true
}

// names are the members that a type has. The server tells "User" from "user" and so does a session;
// encoding/json, which would put either into the same field of a struct, must not see both.
type names map[string]bool

// has says whether the type has the member of a name, spelled like this.
func (n names) has(name string) bool { return n == nil || n[name] }

var (
	jsonDecoder = reflect.TypeFor[json.Unmarshaler]()
	textDecoder = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// namesOf returns the names of a struct's members, and nil for a type that takes any name: a map, an
// interface, one that decodes itself.
func namesOf(t reflect.Type) names {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if p := reflect.PointerTo(t); t.Kind() != reflect.Struct || p.Implements(jsonDecoder) || p.Implements(textDecoder) {
		return nil
	}
	n := names{}
	n.add(t, map[reflect.Type]bool{})
	return n
}

func (n names) add(t reflect.Type, seen map[reflect.Type]bool) {
	if seen[t] {
		return
	}
	seen[t] = true
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		if !validName(name) {
			name = ""
		}
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch {
		case tag == "-":
		case f.Anonymous && name == "" && inner.Kind() == reflect.Struct:
			n.add(inner, seen)
		case f.IsExported() && name != "":
			n[name] = true
		case f.IsExported():
			n[f.Name] = true
		}
	}
}

// validName is encoding/json's rule: it takes the field's own name in place of others.
func validName(name string) bool {
	for _, c := range name {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return false
		}
	}
	return name != ""
}

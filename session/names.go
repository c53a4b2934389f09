package session

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"unicode"
)

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

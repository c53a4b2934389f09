package object

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Limits of a struct.
const (
	MaxFields = 1000 // a script's arguments are limited
	MaxName   = 256  // of a field, in bytes
)

// marker is a field that keeps an object which has no other; no struct's field may have its name.
const marker = "@"

var (
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonMarshaler   = reflect.TypeFor[json.Marshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
)

// plan says how the fields of a struct lie in a hash.
type plan struct {
	fields []field
	byName map[string]int
	ttls   bool // fields have a time to live of their own
}

type field struct {
	name      string
	index     []int
	typ       reflect.Type
	omitEmpty bool
	ttl       time.Duration
}

// newPlan reads the tags of a struct; the error names the field that is wrong.
func newPlan(t reflect.Type) (*plan, error) {
	if t == nil || t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("object: %v is no struct", t)
	}
	p := &plan{byName: map[string]int{}}
	if err := p.add(t, nil, t.String()); err != nil {
		return nil, err
	}
	switch {
	case len(p.fields) == 0:
		return nil, fmt.Errorf("object: %v has no exported field", t)
	case len(p.fields) > MaxFields:
		return nil, fmt.Errorf("object: %v has %d fields, more than %d", t, len(p.fields), MaxFields)
	}
	return p, nil
}

func (p *plan) add(t reflect.Type, index []int, path string) error {
	for i := range t.NumField() {
		f := t.Field(i)
		at := append(append([]int{}, index...), i)
		tag, tagged := f.Tag.Lookup("cache")
		where := path + "." + f.Name
		if f.Anonymous && !tagged && f.Type.Kind() == reflect.Struct && !isText(f.Type) && !isJSON(f.Type) {
			if err := p.add(f.Type, at, where); err != nil {
				return err
			}
			continue
		}
		if tag == "-" || !f.IsExported() {
			if tag != "-" && tagged {
				return fmt.Errorf("object: %s has a cache tag and is not exported", where)
			}
			continue
		}
		one, err := parseTag(f.Name, tag)
		if err == nil {
			err = storable(f.Type, map[reflect.Type]bool{})
		}
		if _, twice := p.byName[one.name]; err == nil && twice {
			err = fmt.Errorf("another field is stored as %q too", one.name)
		}
		if err != nil {
			return fmt.Errorf("object: %s: %w", where, err)
		}
		one.index, one.typ = at, f.Type
		p.ttls = p.ttls || one.ttl > 0
		p.byName[one.name] = len(p.fields)
		p.fields = append(p.fields, one)
	}
	return nil
}

// parseTag reads "name,omitempty,ttl=30s".
func parseTag(name, tag string) (f field, err error) {
	words := strings.Split(tag, ",")
	if f.name = words[0]; f.name == "" {
		f.name = name
	}
	for _, word := range words[1:] {
		ttl, isTTL := strings.CutPrefix(word, "ttl=")
		switch {
		case word == "omitempty":
			f.omitEmpty = true
		case isTTL:
			if f.ttl, err = time.ParseDuration(ttl); err != nil || f.ttl < time.Millisecond || f.ttl > maxTTL || f.ttl%time.Millisecond != 0 {
				return f, fmt.Errorf("ttl=%s is not whole milliseconds from one to a century", ttl)
			}
		default:
			return f, fmt.Errorf("its cache tag has the unknown option %q", word)
		}
	}
	switch {
	case f.name == marker:
		return f, errors.New("the name @ is taken")
	case len(f.name) > MaxName:
		return f, fmt.Errorf("its name is over %d bytes", MaxName)
	}
	return f, nil
}

func isText(t reflect.Type) bool {
	p := reflect.PointerTo(t) // its methods are those of t too
	return p.Implements(textMarshaler) && p.Implements(textUnmarshaler)
}

func isJSON(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(jsonMarshaler) && p.Implements(jsonUnmarshaler)
}

// addressed is a pointer to v, or to a copy.
func addressed(v reflect.Value) any {
	if !v.CanAddr() {
		p := reflect.New(v.Type())
		p.Elem().Set(v)
		v = p.Elem()
	}
	return v.Addr().Interface()
}

// storable refuses types that have no bytes.
func storable(t reflect.Type, seen map[reflect.Type]bool) error {
	if seen[t] || isText(t) || isJSON(t) {
		return nil
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer, reflect.Uintptr:
		return fmt.Errorf("a %v can't be stored; cache:\"-\" leaves it out", t)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return storable(t.Elem(), seen)
	case reflect.Map:
		return errors.Join(storable(t.Key(), seen), storable(t.Elem(), seen))
	case reflect.Struct:
		exported := t.NumField() == 0
		for i := range t.NumField() {
			exported = exported || t.Field(i).IsExported()
			if f := t.Field(i); f.IsExported() && f.Tag.Get("json") != "-" {
				if err := storable(f.Type, seen); err != nil {
					return fmt.Errorf("%s: %w", f.Name, err)
				}
			}
		}
		if !exported {
			return fmt.Errorf("a %v has no exported field", t)
		}
	}
	return nil
}

// encode returns what is stored of a value: strings, byte slices and numbers as they are, true as 1 and false as 0, what
// has a text as that, the rest as JSON. A nil pointer is not stored.
func encode(v reflect.Value) (text string, stored bool, err error) {
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "", false, nil
		}
		return encode(v.Elem())
	}
	if isText(t) {
		b, err := addressed(v).(encoding.TextMarshaler).MarshalText()
		return string(b), true, err
	}
	if isJSON(t) {
		b, err := json.Marshal(addressed(v))
		return string(b), true, err
	}
	switch {
	case t.Kind() == reflect.String:
		return v.String(), true, nil
	case t.Kind() == reflect.Bool:
		return map[bool]string{true: "1", false: "0"}[v.Bool()], true, nil
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10), true, nil
	case v.CanUint():
		return strconv.FormatUint(v.Uint(), 10), true, nil
	case v.CanFloat():
		return strconv.FormatFloat(v.Float(), 'g', -1, t.Bits()), true, nil
	case isBytes(t):
		return string(v.Bytes()), true, nil
	}
	b, err := json.Marshal(addressed(v))
	return string(b), true, err
}

func isBytes(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

// decode puts what was stored into v, which can be set.
func decode(text string, v reflect.Value) error {
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		p := reflect.New(t.Elem())
		if err := decode(text, p.Elem()); err != nil {
			return err
		}
		v.Set(p)
		return nil
	}
	if isText(t) {
		return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
	}
	if isJSON(t) {
		return json.Unmarshal([]byte(text), v.Addr().Interface())
	}
	switch {
	case t.Kind() == reflect.String:
		v.SetString(text)
		return nil
	case t.Kind() == reflect.Bool:
		if text != "0" && text != "1" {
			return fmt.Errorf("%.40q is neither 0 nor 1", text)
		}
		v.SetBool(text == "1")
		return nil
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, t.Bits())
		v.SetInt(n)
		return short(err)
	case v.CanUint():
		n, err := strconv.ParseUint(text, 10, t.Bits())
		v.SetUint(n)
		return short(err)
	case v.CanFloat():
		n, err := strconv.ParseFloat(text, t.Bits())
		v.SetFloat(n)
		return short(err)
	case isBytes(t):
		v.SetBytes([]byte(text))
		return nil
	}
	return json.Unmarshal([]byte(text), v.Addr().Interface())
}

// short keeps an error of strconv from quoting a megabyte.
func short(err error) error {
	var n *strconv.NumError
	if errors.As(err, &n) {
		return fmt.Errorf("%.40q: %w", n.Num, n.Err)
	}
	return err
}

// encodeAll returns names and values of a struct's fields, one after the other.
func (p *plan) encodeAll(v reflect.Value) (words []string, err error) {
	defer func() {
		if r := recover(); r != nil { // a MarshalText is not ours
			err = fmt.Errorf("encoding panicked: %v", r)
		}
	}()
	words = make([]string, 0, 2*len(p.fields))
	for _, f := range p.fields {
		value := v.FieldByIndex(f.index)
		if f.omitEmpty && value.IsZero() {
			continue
		}
		text, stored, err := encode(value)
		if err != nil {
			return nil, &FieldError{f.name, err}
		}
		if stored {
			words = append(words, f.name, text)
		}
	}
	if len(words) == 0 {
		words = append(words, marker, "")
	}
	return words, nil
}

// decodeAll puts the fields of a hash into a struct; names that it does not know are others'.
func (p *plan) decodeAll(fields map[string]string, v reflect.Value) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("decoding panicked: %v", r)
		}
	}()
	for _, f := range p.fields {
		if text, there := fields[f.name]; there {
			if err := decode(text, v.FieldByIndex(f.index)); err != nil {
				return &FieldError{f.name, err}
			}
		}
	}
	return nil
}

// FieldError is an error of one field.
type FieldError struct {
	// Field is its name in the hash.
	Field string
	Err   error
}

func (e *FieldError) Error() string { return "field " + e.Field + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *FieldError) Unwrap() error { return e.Err }

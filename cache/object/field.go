package object

import (
	"context"
	_ "embed"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/valkey-io/valkey-go"
)

//go:embed put.lua
var putLua string

//go:embed add.lua
var addLua string

//go:embed expire.lua
var expireLua string

var (
	putScript    = script.New(putLua)
	addScript    = script.New(addLua)
	expireScript = script.New(expireLua)
)

// Field is one field of a Store's objects. It is safe for concurrent use.
type Field[T, V any] struct {
	store *Store[T]
	field field
}

// FieldOf returns the field with a name, as its tag has it, whose type is V. Nothing is sent.
func FieldOf[V, T any](s *Store[T], name string) (*Field[T, V], error) {
	i, ok := s.plan.byName[name]
	if !ok {
		return nil, fmt.Errorf("object: %v has no field %q", reflect.TypeFor[T](), name)
	}
	f := s.plan.fields[i]
	if want := reflect.TypeFor[V](); f.typ != want {
		return nil, fmt.Errorf("object: field %s is a %v, not a %v", name, f.typ, want)
	}
	return &Field[T, V]{s, f}, nil
}

// Get returns the field of an object; ok is false if there is no object, or it has no such field. One round trip.
func (f *Field[T, V]) Get(ctx context.Context, key string) (value V, ok bool, err error) {
	text, err := f.store.do(ctx, f.store.keys.Key(key), f.store.way.Client.B().Hget().Key(f.store.keys.Key(key)).Field(f.field.name).Build()).ToString()
	if valkey.IsValkeyNil(err) {
		return value, false, nil
	}
	if err == nil {
		err = f.decode(text, &value)
	}
	if err != nil {
		var zero V
		return zero, false, fmt.Errorf("object: get: %w", err)
	}
	return value, true, nil
}

func (f *Field[T, V]) decode(text string, value *V) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &FieldError{f.field.name, fmt.Errorf("decoding panicked: %v", r)}
		}
	}()
	if err := decode(text, reflect.ValueOf(value).Elem()); err != nil {
		return &FieldError{f.field.name, err}
	}
	return nil
}

// encode returns the field's value, and whether it is stored at all.
func (f *Field[T, V]) encode(value V) (stored, text string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &FieldError{f.field.name, fmt.Errorf("encoding panicked: %v", r)}
		}
	}()
	v := reflect.ValueOf(&value).Elem()
	if f.field.omitEmpty && v.IsZero() {
		return "0", "", nil
	}
	text, ok, err := encode(v)
	if err != nil {
		return "", "", &FieldError{f.field.name, err}
	}
	return map[bool]string{true: "1", false: "0"}[ok], text, nil
}

// Set stores the field of an object that is there; ok is false if there is none: an object is never made of one field. The
// object's TTL goes on; the field's own, if its tag has one, begins anew. One round trip.
func (f *Field[T, V]) Set(ctx context.Context, key string, value V) (ok bool, err error) {
	n, err := f.put(ctx, key, value, "", "")
	if err != nil {
		return false, fmt.Errorf("object: set: %w", err)
	}
	return n == 1, nil
}

// CompareAndSet stores the field if it has a value; ok is false if it has another one, or there is no object. Values are
// compared as they are stored; a field that is missing has the value that is not stored: nil, or with omitempty
// zero. One round trip.
func (f *Field[T, V]) CompareAndSet(ctx context.Context, key string, has, value V) (ok bool, err error) {
	stored, text, err := f.encode(has)
	if err == nil && stored == "0" && f.field.omitEmpty {
		// Zero may lie there all the same, as after Add.
		var zero string
		var ok bool
		if zero, ok, err = encode(reflect.ValueOf(&has).Elem()); ok {
			stored, text = "2", zero
		}
	}
	var n int64
	if err == nil {
		n, err = f.put(ctx, key, value, stored, text)
	}
	if err != nil {
		return false, fmt.Errorf("object: compare and set: %w", err)
	}
	return n == 1, nil
}

func (f *Field[T, V]) put(ctx context.Context, key string, value V, was, wasText string) (int64, error) {
	stored, text, err := f.encode(value)
	if err != nil {
		return 0, err
	}
	if f.field.ttl > 0 {
		if err := f.store.mayExpire(ctx); err != nil {
			return 0, err
		}
	}
	return f.store.exec(ctx, putScript, f.store.keys.Key(key), f.field.name, stored, text, was, wasText, milliseconds(f.field.ttl)).AsInt64()
}

// Expire gives the field of an object a time to live of its own, of whole milliseconds; ok is false if there is no such
// field. It ends when the field is set again. The error is [ErrNoFieldTTL] where the server can't. One round trip, the first
// one two.
func (f *Field[T, V]) Expire(ctx context.Context, key string, ttl time.Duration) (ok bool, err error) {
	if ttl < time.Millisecond || ttl > maxTTL || ttl%time.Millisecond != 0 {
		return false, fmt.Errorf("object: expire: %v is not whole milliseconds from one to a century", ttl)
	}
	if err := f.store.mayExpire(ctx); err != nil {
		return false, fmt.Errorf("object: expire: %w", err)
	}
	ok, err = f.store.exec(ctx, expireScript, f.store.keys.Key(key), f.field.name, milliseconds(ttl)).AsBool()
	if err != nil {
		return false, fmt.Errorf("object: expire: %w", err)
	}
	return ok, nil
}

// numeric are the types that can be added to.
type numeric interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float64
}

// Number is a field that can be added to. It is safe for concurrent use.
type Number[T any, V numeric] struct{ Field[T, V] }

// NumberOf returns the number with a name, as [FieldOf] does a field.
func NumberOf[V numeric, T any](s *Store[T], name string) (*Number[T, V], error) {
	f, err := FieldOf[V](s, name)
	if err != nil {
		return nil, err
	}
	if isText(f.field.typ) || isJSON(f.field.typ) {
		return nil, fmt.Errorf("object: field %s is a %v, which is stored as a text of its own", name, f.field.typ)
	}
	return &Number[T, V]{*f}, nil
}

// Add adds to the field of an object and returns the sum; ok is false if there is no object. A field that is missing counts as
// zero. A sum that does not fit V is [ErrRange], and so is one of an unsigned V beyond 2^63-1, which the server can't
// count. Sums of floats are rounded to 17 digits behind the point. What lies there and is no number is an error. One
// round trip.
func (n *Number[T, V]) Add(ctx context.Context, key string, by V) (sum V, ok bool, err error) {
	text, _, err := encode(reflect.ValueOf(by))
	if err != nil {
		return 0, false, fmt.Errorf("object: add: %w", err)
	}
	kind, least, most := limits(n.field.typ)
	if kind == "f" {
		f := reflect.ValueOf(by).Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return 0, false, fmt.Errorf("%w: add %v", ErrRange, by)
		}
		text = strconv.FormatFloat(f, 'f', -1, 64)
	}
	got, err := n.store.exec(ctx, addScript, n.store.keys.Key(key), n.field.name, text, kind, least, most).ToString()
	if valkey.IsValkeyNil(err) {
		return 0, false, nil
	}
	if err == nil {
		err = n.decode(got, &sum)
	} else if isRange(err) {
		err = fmt.Errorf("%w: %w", ErrRange, err)
	}
	if err != nil {
		return 0, false, fmt.Errorf("object: add: %w", err)
	}
	return sum, true, nil
}

// limits are those that add.lua has to hold: 64 bits the server holds itself.
func limits(t reflect.Type) (kind, least, most string) {
	switch bits := t.Bits(); {
	case t.Kind() == reflect.Float64:
		return "f", "", ""
	case reflect.Zero(t).CanInt() && bits < 64:
		return "i", strconv.FormatInt(-1<<(bits-1), 10), strconv.FormatInt(1<<(bits-1)-1, 10)
	case reflect.Zero(t).CanInt():
		return "i", "", ""
	case bits < 64:
		return "i", "0", strconv.FormatUint(1<<bits-1, 10)
	}
	return "i", "0", ""
}

// isRange tells an overflow from other errors.
func isRange(err error) bool {
	said, ok := valkey.IsValkeyErr(err)
	if !ok {
		return false
	}
	text := said.Error()
	for _, sign := range []string{"RANGE ", "overflow", "NaN or Infinity", "value is not an integer or out of range"} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}

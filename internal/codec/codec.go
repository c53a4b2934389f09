// Package codec turns the caller's values into the bytes that lie in the server, and back.
package codec

import "encoding/json"

// Codec is what a caller may bring: as encoding/json does it.
type Codec interface {
	Marshal(value any) ([]byte, error)
	Unmarshal(data []byte, value any) error
}

// Marshal returns the bytes of a value: by the codec; else bytes and strings as they are, anything else as
// JSON. V decides, as it does in [Unmarshaler], not what lies in a V that is an interface.
func Marshal[V any](c Codec, value V) ([]byte, error) {
	if c != nil {
		return c.Marshal(value)
	}
	switch p := any(&value).(type) {
	case *string:
		return []byte(*p), nil
	case *[]byte:
		return *p, nil
	}
	return json.Marshal(value)
}

// Unmarshaler returns what turns bytes into a V. It is chosen once: finding out for each value would cost an
// allocation.
func Unmarshaler[V any](c Codec) func([]byte) (V, error) {
	var bytes any = func(b []byte) ([]byte, error) { return b, nil }
	var text any = func(b []byte) (string, error) { return string(b), nil }
	if c == nil {
		if f, ok := bytes.(func([]byte) (V, error)); ok {
			return f
		}
		if f, ok := text.(func([]byte) (V, error)); ok {
			return f
		}
		return func(b []byte) (value V, err error) {
			err = json.Unmarshal(b, &value)
			return value, err
		}
	}
	return func(b []byte) (value V, err error) {
		err = c.Unmarshal(b, &value)
		return value, err
	}
}

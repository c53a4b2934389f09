package cache

import "encoding/json"

// encode returns the text of a value: bytes and strings as they are, anything else as JSON. V decides,
// as it does in decode, not what lies in a V that is an interface.
func encode[V any](value V) (string, error) {
	switch p := any(&value).(type) {
	case *string:
		return *p, nil
	case *[]byte:
		return string(*p), nil // a copy: the command may outlive the call, whose context can end
	}
	b, err := json.Marshal(value)
	return string(b), err
}

func decode[V any](b []byte) (value V, err error) {
	switch p := any(&value).(type) {
	case *string:
		*p = string(b)
		return value, nil
	case *[]byte:
		*p = b
		return value, nil
	}
	err = json.Unmarshal(b, &value)
	return value, err
}

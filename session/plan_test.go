package session

import (
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

type base struct {
	Base   string
	hidden int
}

type Loop struct {
	*Loop
	Again int
}

type plain string

type shape struct {
	Plain   int
	Tagged  int `json:"tagged,omitempty"`
	Odd     int `json:"a b-c,string"`
	Dash    int `json:"-,"` //nolint:staticcheck // on purpose
	Left    int `json:"-"`
	Invalid int `json:"a\\b"` //nolint:staticcheck // on purpose
	Empty   int `json:",omitempty"`
	base
	*Loop
	Named base `json:"named"`
	plain
}

// TestNames compares with what encoding/json writes.
func TestNames(t *testing.T) {
	value := shape{Tagged: 1, Empty: 1, Loop: &Loop{}, base: base{hidden: 1}, plain: "x"}
	f, err := encode(value)
	if err != nil {
		t.Fatal(err)
	}
	got, want := sortedKeys(namesOf(reflect.TypeFor[**shape]())), sortedNames(f)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, takesAny := range []reflect.Type{
		reflect.TypeFor[map[string]int](), reflect.TypeFor[any](), reflect.TypeFor[json.RawMessage](), reflect.TypeFor[time.Time](),
	} {
		if got := namesOf(takesAny); got != nil || !got.has("x") {
			t.Errorf("%v: %v", takesAny, got)
		}
	}
}

func sortedNames(all []member) (names []string) {
	for _, m := range all {
		names = append(names, m.name)
	}
	slices.Sort(names)
	return names
}

// fields are of the kinds that are decoded without encoding/json, and of some that are not.
type fields struct {
	S  string          `json:"s"`
	B  bool            `json:"b"`
	I  int             `json:"i"`
	I8 int8            `json:"i8"`
	U  uint16          `json:"u"`
	F  float64         `json:"f"`
	P  *string         `json:"p"`
	L  []int           `json:"l"`
	M  map[string]any  `json:"m"`
	T  time.Time       `json:"t"`
	R  json.RawMessage `json:"r"`
	A  any             `json:"a"`
	N  named           `json:"n"`
}

type named string

// UnmarshalText reverses.
func (n *named) UnmarshalText(b []byte) error {
	slices.Reverse(b)
	*n = named(b)
	return nil
}

// FuzzDecode compares with encoding/json, for one member at a time.
func FuzzDecode(f *testing.F) {
	for _, raw := range []string{`"x"`, `"\u00e9\n"`, `"é"`, "\"\xff\"", `"a"b"`, `true`, `null`, `0`, `-0`, `01`, `-`, `+1`, `127`, `128`, `1.5`, `1e3`,
		`9223372036854775807`, `9223372036854775808`, `[1]`, `{}`, `{"a":[{}]}`, ``, ` 1`, `"`, `"a`, `1_0`, `"2026-01-01T00:00:00Z"`} {
		for i := range reflect.TypeFor[fields]().NumField() {
			f.Add(uint8(i), raw)
		}
	}
	p := planOf(reflect.TypeFor[fields]())
	if p.fields == nil {
		f.Fatal("not decoded member by member")
	}
	f.Fuzz(func(t *testing.T, which uint8, raw string) {
		field := reflect.TypeFor[fields]().Field(int(which) % reflect.TypeFor[fields]().NumField())
		var got, want fields
		name := field.Tag.Get("json")
		err := p.decode(reflect.ValueOf(&got).Elem(), []member{{name, raw}})
		wantErr := json.Unmarshal([]byte(`{"`+name+`":`+raw+`}`), &want)
		if !json.Valid([]byte(raw)) { // which may still make an object
			if err == nil {
				t.Errorf("%s %q was taken", name, raw)
			}
			return
		}
		if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%s %q: %+v, %v; encoding/json has %+v, %v", name, raw, got, err, want, wantErr)
		}
	})
}

// FuzzSplit takes apart what encoding/json writes, puts it together as a record, and reads that.
func FuzzSplit(f *testing.F) {
	for _, object := range []string{`{}`, `{"a":1}`, `{"a":{"b":[1,"},{\""]},"c":"\\","":null}`, `{"\u003c":"\u2028,\n"}`, `{"é":0,"@":1}`, `{"a\"b":1}`} {
		f.Add(object)
	}
	f.Fuzz(func(t *testing.T, object string) {
		var value map[string]any
		if json.Unmarshal([]byte(object), &value) != nil || value == nil {
			return
		}
		all, err := encode(value)
		if err != nil {
			return // a name that is none
		}
		body := []byte{'{'}
		for _, m := range all {
			body = appendMember(body, m.name, m.value)
		}
		body = append(body, '}')
		var again map[string]any
		if err := json.Unmarshal(body, &again); err != nil || !reflect.DeepEqual(again, value) {
			t.Fatalf("%q became %q: %v", object, body, err)
		}
		read, err := members(string(body))
		if err != nil || !slices.Equal(read, all) {
			t.Fatalf("%q: %q, %v; want %q", body, read, err, all)
		}
	})
}

// FuzzParseRecord holds that a record is read or refused, and that what is read is whole.
func FuzzParseRecord(f *testing.F) {
	for _, text := range []string{"", "-", "11790000000 1790000000 60000 0\n{}", "11790000000 1790000000 60000 3600\n{\"a\":1,\n\"b\":{}}",
		"2AAAA:0123456789012345678901\n11790000000 1790000000 60000 0\n{\"a\":1}", "1\n{}", "2", "11790000000 1790000000 60000 0\n{\"}", "11790000000 1 1 1\n{,\n}"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, ok, err := parseRecord(text)
		if err != nil || !ok {
			return
		}
		if r.idle < 0 || r.idle > maxTimeout || r.absolute < 0 || r.absolute > maxTimeout || len(r.body) < 2 {
			t.Errorf("%q: %+v", text, r)
		}
		all, err := members(r.body)
		if err != nil {
			return
		}
		body := []byte{'{'}
		for _, m := range all {
			body = appendMember(body, m.name, m.value)
		}
		if string(append(body, '}')) != r.body {
			t.Errorf("%q: %q", r.body, all)
		}
	})
}

// FuzzLocate holds that no token leaves the keys of sessions.
func FuzzLocate(f *testing.F) {
	for _, token := range []string{newToken(""), newToken(userTag(nil, "ann")), "", "{", strings.Repeat("A", 26) + ".}{", strings.Repeat("x", 300)} {
		f.Add(token)
	}
	keys, err := newKeySpace("")
	if err != nil {
		f.Fatal(err)
	}
	form := regexp.MustCompile(`^fr:sess:\{([A-Za-z0-9_-]{4}|[A-Za-z0-9_-]{16})\}:[A-Za-z0-9_-]{22}$`)
	f.Fuzz(func(t *testing.T, token string) {
		for _, foreign := range []bool{false, true} {
			if at, ok := locate(token, foreign); ok && !form.MatchString(keys.session(at)) {
				t.Errorf("%q lies in %q", token, keys.session(at))
			}
		}
	})
}

func sortedKeys(n names) []string { return slices.Sorted(maps.Keys(n)) }

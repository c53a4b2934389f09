package session

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
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

type members struct {
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
	value := members{Tagged: 1, Empty: 1, Loop: &Loop{}, base: base{hidden: 1}, plain: "x"}
	f, err := split(value)
	if err != nil {
		t.Fatal(err)
	}
	got, want := slices.Sorted(maps.Keys(namesOf(reflect.TypeFor[**members]()))), slices.Sorted(maps.Keys(f))
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

package lock

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/flatrate/flatrate/internal/script"
	"github.com/flatrate/flatrate/valkeytest"
)

// vectors are what every language that shares our locks is held against.
type vectors struct {
	Keys []struct {
		Name, Token string
		Keys        []string
	}
	Steps []struct {
		Script, Token string
		Args          []string
		Reply         any
		Says          string
	}
}

func TestVectors(t *testing.T) {
	text, err := os.ReadFile("../docs/recipes/lock/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil || len(v.Keys) == 0 || len(v.Steps) == 0 {
		t.Fatal(err, len(v.Keys), len(v.Steps))
	}
	keys, err := newKeySpace("")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range v.Keys {
		if got := mutex.keys(keys, k.Name, k.Token); !slices.Equal(got, k.Keys) {
			t.Errorf("%q: %v, want %v", k.Name, got, k.Keys)
		}
	}
	extend, err := os.ReadFile("../internal/lease/extend.lua")
	if err != nil {
		t.Fatal(err)
	}
	scripts := map[string]*script.Script{"acquire": mutex.acquire, "extend": script.New(string(extend)), "release": mutex.release}
	client, last := valkeytest.Start(t).Client(), 0.0
	for i, s := range v.Steps {
		run := scripts[s.Script]
		all := mutex.keys(keys, "abc", s.Token)
		if s.Script == "extend" {
			all = all[:1]
		}
		got, err := run.Exec(t.Context(), client, all, s.Args...).ToAny()
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if !matches(got, s.Reply, &last) {
			t.Errorf("step %d (%s): %v, want %v", i, s.Says, got, s.Reply)
		}
	}
}

// matches tells whether a reply is as the vectors say.
func matches(got, want any, last *float64) bool {
	number := func() float64 {
		n, _ := got.(int64)
		return float64(n)
	}
	switch want := want.(type) {
	case []any:
		replies, ok := got.([]any)
		if !ok || len(replies) != len(want) {
			return false
		}
		for i := range want {
			if !matches(replies[i], want[i], last) {
				return false
			}
		}
		return true
	case map[string]any:
		return number() >= want["from"].(float64) && number() <= want["to"].(float64)
	case string:
		if want == "fence" {
			grown := number() > *last
			*last = number()
			return grown
		}
	}
	return fmt.Sprint(got) == fmt.Sprint(want)
}

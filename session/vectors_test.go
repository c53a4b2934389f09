package session

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

// vectors are what every language that shares our sessions is held against.
type vectors struct {
	Tokens []struct {
		Token string
		Keys  []string
	}
	Users   []struct{ User, Tag string }
	Records []struct {
		Record, Moved                 string
		Ended, Wrong                  bool
		Seen, Created, Idle, Absolute int64
		Value                         map[string]any
	}
	Saves []struct {
		Says, Record, Body string
		Args               []string
		Reply              []any
	}
}

func TestVectors(t *testing.T) {
	text, err := os.ReadFile("../docs/recipes/session/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil || len(v.Tokens) == 0 || len(v.Users) == 0 || len(v.Records) == 0 || len(v.Saves) == 0 {
		t.Fatal(err, len(v.Tokens), len(v.Users), len(v.Records), len(v.Saves))
	}
	keys, err := newKeySpace("")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range v.Tokens {
		var got []string
		if at, ok := locate(k.Token, false); ok {
			got = keys.of(at)
		}
		if !slices.Equal(got, k.Keys) {
			t.Errorf("%q: %v, want %v", k.Token, got, k.Keys)
		}
	}
	for _, u := range v.Users {
		if got := userTag(nil, u.User); got != u.Tag {
			t.Errorf("%q: %s, want %s", u.User, got, u.Tag)
		}
	}
	p := planOf(reflect.TypeFor[map[string]any]())
	for _, want := range v.Records {
		r, ok, err := parseRecord(want.Record)
		if (err != nil) != want.Wrong || err == nil && ok == want.Ended {
			t.Errorf("%q: %v, %v", want.Record, ok, err)
		}
		if err != nil || !ok {
			continue
		}
		all, err := members(r.body)
		if err != nil {
			t.Fatal(err)
		}
		value, moved := map[string]any{}, ""
		if err := p.decode(reflect.ValueOf(&value).Elem(), all); err != nil {
			t.Fatal(err)
		}
		if r.moved != (place{}) {
			moved = r.moved.String()
		}
		got := []any{r.seen.Unix(), r.created.Unix(), r.idle.Milliseconds(), int64(r.absolute / time.Second), moved, value}
		if wanted := []any{want.Seen, want.Created, want.Idle, want.Absolute, want.Moved, want.Value}; !reflect.DeepEqual(got, wanted) {
			t.Errorf("%q: %v, want %v", want.Record, got, wanted)
		}
	}
	c := valkeytest.Start(t).Client()
	for _, s := range v.Saves {
		if err := c.Do(t.Context(), c.B().Set().Key("fr:sess:{AAAA}:x").Value(s.Record).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		reply, err := save.Exec(t.Context(), c, []string{"fr:sess:{AAAA}:x"}, s.Args...).ToAny()
		if err != nil || fmt.Sprint(reply) != fmt.Sprint(s.Reply) {
			t.Errorf("%s: %v, %v; want %v", s.Says, reply, err, s.Reply)
		}
		after, err := c.Do(t.Context(), c.B().Get().Key("fr:sess:{AAAA}:x").Build()).ToString()
		if _, body, _ := strings.Cut(after, "\n"); err != nil || body != s.Body {
			t.Errorf("%s: %q, %v; want %q", s.Says, body, err, s.Body)
		}
	}
}

package queuefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/flatrate/flatrate/queue"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]queue.Message{
		`{"body":""}`:                   {Body: []byte{}},
		` { "body" : "a\nb\u0000é" } `:  {Body: []byte("a\nb\x00é")},
		`{"body":"\ufffd\uD83D\ude00"}`: {Body: []byte("\ufffd😀")},
		`{"body_base64":"AP8="}`:        {Body: []byte{0, 255}},
		`{"body":"x","attributes":{"a":"1","":""},"group":"g","dedup_id":"d","delay":"1m5s","unique":"u","unique_for":"1h"}`: {
			Body: []byte("x"), Attributes: map[string]string{"a": "1", "": ""}, Group: "g", DedupID: "d",
			Delay: 65 * time.Second, Unique: "u", UniqueFor: time.Hour,
		},
	} {
		if got, err := Parse([]byte(line)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", line, got, err)
		}
	}
	for line, want := range map[string]string{
		``:                                  "ends in the middle",
		`{`:                                 "ends in the middle",
		`{"body":"x"`:                       "ends in the middle",
		`{"body":"x",}`:                     "column",
		`[1]`:                               "not an object",
		`"x"`:                               "not an object",
		`null`:                              "not an object",
		`{"body":"x"} {}`:                   "behind the object",
		`{"body":"x"}]`:                     "behind the object",
		`{}`:                                "body or body_base64",
		`{"body":"x","body_base64":""}`:     "body or body_base64",
		`{"body":"x","body":"y"}`:           "body stands there twice",
		`{"body":5}`:                        "body is not a string",
		`{"body":null}`:                     "body is not a string",
		`{"body":"\ud800"}`:                 "body has half of a surrogate pair",
		`{"body":"\udc00\ufffd"}`:           "body has half of a surrogate pair",
		"{\"body\":\"\xff\"}":               "not UTF-8",
		`{"body_base64":"?"}`:               "body_base64 is not base64",
		`{"body_base64":[0]}`:               "body_base64 is not a string",
		`{"bdy":"x"}`:                       `unknown field "bdy": "body"?`,
		`{"priority":1}`:                    `unknown field "priority": not one of body, `,
		`{"body":"x","delay":5}`:            "delay is not a string such as",
		`{"body":"x","delay":"5"}`:          `delay is "5", not a time such as`,
		`{"body":"x","group":1}`:            "group is not a string",
		`{"body":"x","attributes":["a"]}`:   "attributes is not an object",
		`{"body":"x","attributes":{"a":1}}`: `attributes "a" is not a string`,
		`{"body":"x","attributes":{"a":"","a":""}}`: `attributes has "a" twice`,
	} {
		if got, err := Parse([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want %s", line, got, err, want)
		}
	}
}

func TestReader(t *testing.T) {
	r := NewReader(strings.NewReader("\ufeff{\"body\":\"1\"}\r\n\n  \n{\"body\":\"4\"}\n{\"body\":\"5\"}"), 10)
	for _, want := range []int{1, 4, 5} {
		l, err := r.Next()
		if err != nil || l.Number != want || string(l.Message.Body) != string(rune('0'+want)) {
			t.Fatalf("%+v, %v; want %d", l, err, want)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	r = NewReader(strings.NewReader("\n{\"body\":5}"), 10)
	if _, err := r.Next(); err == nil || err.Error() != "line 2: body is not a string" {
		t.Error(err)
	}
	r = NewReader(io.MultiReader(strings.NewReader("{\"body\":\"1\"}\n{\"body\":\""), endless{}), 10)
	if _, err := r.Next(); err != nil {
		t.Error(err)
	}
	if _, err := r.Next(); err == nil || !strings.HasPrefix(err.Error(), "line 2: it has over ") {
		t.Error(err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// FuzzParse holds what was accepted against what it says.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{"body":"x"}`, `{"body_base64":"AP8=","attributes":{"a":"b"}}`, `{"body":"\ud800"}`, `{"body":"x","delay":"5s"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := Parse(line)
		if err != nil {
			return
		}
		again := map[string]any{"body_base64": m.Body, "group": m.Group, "dedup_id": m.DedupID, "unique": m.Unique,
			"delay": m.Delay.String(), "unique_for": m.UniqueFor.String()}
		if m.Attributes != nil {
			again["attributes"] = m.Attributes
		}
		text, err := json.Marshal(again)
		if err != nil || !utf8.Valid(text) {
			t.Fatal(err)
		}
		got, err := Parse(text)
		if err != nil || !bytes.Equal(got.Body, m.Body) || got.Group != m.Group || got.Delay != m.Delay || !reflect.DeepEqual(got.Attributes, m.Attributes) {
			t.Errorf("%s: %+v, then %+v, %v", line, m, got, err)
		}
	})
}

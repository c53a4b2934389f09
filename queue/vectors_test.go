package queue

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

type vectors struct {
	About string `json:"about"`
	Keys  []struct {
		Name      string   `json:"name"`
		Partition int      `json:"partition"`
		Keys      []string `json:"keys"`
	} `json:"keys"`
	Partitions []struct {
		Key       string `json:"key"`
		Parts     int    `json:"parts"`
		Partition int    `json:"partition"`
	} `json:"partitions"`
	Messages []vector `json:"messages"`
}

type vector struct {
	FIFO       bool              `json:"fifo"`
	Parts      int               `json:"parts"`
	ID         string            `json:"id"`
	Body       []byte            `json:"body"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Group      string            `json:"group"`
	Dedup      string            `json:"dedup"`
	Delay      int64             `json:"delay"`
	Unique     string            `json:"unique"`
	UniqueFor  int64             `json:"uniqueFor"`
	Argument   []byte            `json:"argument"`
}

// TestVectors holds Go against the vectors that other languages are held against.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile("../docs/recipes/queue/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	keys, err := newKeySpace("")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range v.Keys {
		if got := strings.Join(keys.of(k.Name, k.Partition), " "); got != strings.Join(k.Keys, " ") {
			t.Errorf("keys of %q: %s", k.Name, got)
		}
	}
	for _, p := range v.Partitions {
		s := &state{}
		for i := range p.Parts {
			s.parts = append(s.parts, &partition{index: i})
		}
		if got := s.partOf(p.Key).index; got != p.Partition {
			t.Errorf("partition of %q of %d: %d", p.Key, p.Parts, got)
		}
	}
	server := valkeytest.Start(t)
	for i, m := range v.Messages {
		q, err := New(server.Client(), Config{Name: "q"})
		if err != nil {
			t.Fatal(err)
		}
		s := &state{fifo: m.FIFO, parts: make([]*partition, m.Parts)}
		message := Message{
			Body: m.Body, Attributes: m.Attributes, Group: m.Group, DedupID: m.Dedup, Unique: m.Unique,
			Delay: time.Duration(m.Delay) * time.Millisecond, UniqueFor: time.Duration(m.UniqueFor) * time.Millisecond,
		}
		options, _ := q.optionsOf(&message, s)
		if got := options + message.blob(m.ID, nil); got != string(m.Argument) {
			t.Errorf("message %d: %q, want %q", i, got, m.Argument)
		}
	}
	if len(v.Keys) < 4 || len(v.Partitions) < 6 || len(v.Messages) < 8 {
		t.Errorf("only %d keys, %d partitions, %d messages", len(v.Keys), len(v.Partitions), len(v.Messages))
	}
}

func FuzzParse(f *testing.F) {
	f.Add("1790000000000 7 AAAAAAAAAAAAAAAAAAAAAA 9 a%20b \n1:1:ab", "AAAAAAAAAAAAAAAAAAAAAA:1:1790000000000:60:-abcdefgh:a%20b")
	f.Add("1 2 3 4 5 6\n", ":::::")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, blob, member string) {
		d, err := parse(0, member, blob)
		if (d == nil) == (err == nil) {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

func FuzzAttributes(f *testing.F) {
	f.Add("a", "b", "c", "")
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string) {
		want := map[string]string{n1: v1, n2: v2}
		got, err := decodeAttributes(encodeAttributes(want, nil))
		if err != nil || len(got) != len(want) || got[n1] != want[n1] || got[n2] != want[n2] {
			t.Errorf("%v became %v, %v", want, got, err)
		}
		_, _ = decodeAttributes(n1 + v1)
		if n1 != "" && len(n1) < 128 && unlabel(label(n1)) != n1 {
			t.Errorf("%q became %q", n1, unlabel(label(n1)))
		}
	})
}

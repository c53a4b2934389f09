package queue

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
	"github.com/valkey-io/valkey-go"
)

// vectors are what every language that sends to our queues is held against.
type vectors struct {
	About string `json:"about"`
	Keys  []struct {
		Name      string   `json:"name"`
		Partition int      `json:"partition"`
		Keys      []string `json:"keys"`
	} `json:"keys"`
	Places []struct {
		Where     string `json:"where"`
		Parts     int    `json:"parts"`
		Partition int    `json:"partition"`
	} `json:"places"`
	Queues []vectorQueue `json:"queues"`
}

type vectorQueue struct {
	Says    string        `json:"says"`
	Name    string        `json:"name"`
	FIFO    bool          `json:"fifo"`
	Parts   int           `json:"parts"`
	Declare []string      `json:"declare"`
	Before  []vectorAfter `json:"before,omitempty"`
	Steps   []struct {
		Now       int64           `json:"now"`
		Partition int             `json:"partition"`
		Messages  []vectorMessage `json:"messages"`
		Reply     []any           `json:"reply"`
	} `json:"steps"`
	After []vectorAfter `json:"after"`
}

type vectorAfter struct {
	Command []string `json:"command"`
	Reply   any      `json:"reply"`
}

type vectorMessage struct {
	ID         string            `json:"id"`
	Body       string            `json:"body"`
	BodyBase64 []byte            `json:"body_base64,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Group      string            `json:"group,omitempty"`
	DedupID    string            `json:"dedup_id,omitempty"`
	Delay      int64             `json:"delay,omitempty"`
	Unique     string            `json:"unique,omitempty"`
	UniqueFor  int64             `json:"unique_for,omitempty"`
	Arg        string            `json:"arg,omitempty"`
	ArgBase64  []byte            `json:"arg_base64,omitempty"`
}

func (v vectorMessage) message() Message {
	m := Message{
		Body: []byte(v.Body), Attributes: v.Attributes, Group: v.Group, DedupID: v.DedupID, Unique: v.Unique,
		Delay: time.Duration(v.Delay) * time.Millisecond, UniqueFor: time.Duration(v.UniqueFor) * time.Millisecond,
	}
	if v.BodyBase64 != nil {
		m.Body = v.BodyBase64
	}
	return m
}

func TestVectors(t *testing.T) {
	text, err := os.ReadFile("../docs/recipes/queue/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil || len(v.Keys) == 0 || len(v.Places) == 0 || len(v.Queues) == 0 {
		t.Fatal(err, len(v.Keys), len(v.Places), len(v.Queues))
	}
	keys, err := newKeySpace("")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range v.Keys {
		if got := keys.of(k.Name, k.Partition); !slices.Equal(got, k.Keys) {
			t.Errorf("%q: %v, want %v", k.Name, got, k.Keys)
		}
	}
	for _, p := range v.Places {
		if got := partitionsOf(p.Parts, false).partOf(p.Where).index; got != p.Partition {
			t.Errorf("%q is in partition %d, want %d", p.Where, got, p.Partition)
		}
	}
	client := valkeytest.Start(t).Client()
	for _, q := range v.Queues {
		t.Run(q.Says, func(t *testing.T) { q.run(t, client, keys) })
	}
}

func partitionsOf(n int, fifo bool) *state {
	s := &state{fifo: fifo}
	for i := range n {
		s.parts = append(s.parts, &partition{index: i})
	}
	return s
}

func (v *vectorQueue) run(t *testing.T, client valkey.Client, keys keySpace) {
	ctx := t.Context()
	if err := client.Do(ctx, client.B().Flushall().Build()).Error(); err != nil {
		t.Fatal(err)
	}
	for i := range v.Parts {
		if err := declare.Exec(ctx, client, keys.of(v.Name, i), v.Declare...).Error(); err != nil {
			t.Fatal(err)
		}
	}
	check := func(all []vectorAfter) {
		for _, a := range all {
			got, err := client.Do(ctx, client.B().Arbitrary(a.Command...).Build()).ToAny()
			if err != nil || !same(got, a.Reply) {
				t.Errorf("%v: %v, %v; want %v", a.Command, got, err, a.Reply)
			}
		}
	}
	check(v.Before)
	q, err := New(client, Config{Name: v.Name})
	if err != nil {
		t.Fatal(err)
	}
	s := partitionsOf(v.Parts, v.FIFO)
	for i, step := range v.Steps {
		args := []string{strconv.Itoa(len(step.Messages))}
		for _, one := range step.Messages {
			m := one.message()
			if err := m.check(&q.cfg, v.FIFO); err != nil {
				t.Fatal(err)
			}
			options, where := q.optionsOf(&m, s)
			arg := options + m.blob(one.ID, nil)
			if want := one.Arg + string(one.ArgBase64); arg != want {
				t.Errorf("message %s: %q, want %q", one.ID, arg, want)
			}
			if where != "" && s.partOf(where).index != step.Partition {
				t.Errorf("message %s is in partition %d, not %d", one.ID, s.partOf(where).index, step.Partition)
			}
			args = append(args, arg)
		}
		args = append(args, strconv.FormatInt(step.Now, 10))
		got, err := send.Exec(ctx, client, keys.of(v.Name, step.Partition), args...).ToAny()
		if err != nil || !same(got, step.Reply) {
			t.Errorf("step %d: %v, %v; want %v", i, got, err, step.Reply)
		}
	}
	check(v.After)
}

// same compares a reply with JSON, where numbers are floats.
func same(got, want any) bool {
	list, ok := got.([]any)
	if !ok {
		return fmt.Sprint(got) == fmt.Sprint(want)
	}
	wanted, ok := want.([]any)
	return ok && len(list) == len(wanted) && reflect.DeepEqual(texts(list), texts(wanted))
}

func texts(list []any) []string {
	all := make([]string, len(list))
	for i, v := range list {
		if f, ok := v.(float64); ok {
			v = int64(f)
		}
		all[i] = fmt.Sprint(v)
	}
	return all
}

package queue

import (
	"bytes"
	"maps"
	"testing"
	"time"

	"github.com/flatrate/flatrate/valkeytest"
)

func FuzzParseEntry(f *testing.F) {
	f.Add("1790000000000-0", "7 512 9 a%20b\n1:1:abbody")
	f.Add("1-1", "1 0 0 \n")
	f.Add("18446744073709551615-18446744073709551615", "1 0 99999999999 k\n")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, id, text string) {
		if d, err := parseEntry(3, id, text); d == nil || err == nil && d.ID != "3:"+id {
			t.Errorf("%+v, %v", d, err)
		}
		if at, ok := parseID(id); ok {
			if next := at.next(); next != (entryID{}) && !at.less(next) || at.less(at) {
				t.Errorf("%v is not before %v", at, at.next())
			}
		}
		if part, at, ok := splitID(id); ok {
			if again, same, ok := splitID(id); !ok || again != part || same != at {
				t.Errorf("%q", id)
			}
		}
		_, _, _ = readNote(text)
	})
}

func FuzzEntry(f *testing.F) {
	f.Add([]byte("body"), "key", "name", "value")
	f.Add([]byte{}, "", "", "")
	f.Fuzz(func(t *testing.T, body []byte, key, name, value string) {
		if len(key) > maxLabel {
			return
		}
		m := Message{Body: body, Group: key}
		if name != "" {
			m.Attributes = map[string]string{name: value}
		}
		d, err := parseEntry(0, "1-0", "12 34 "+m.entry())
		if err != nil || d.Sequence != 12 || d.Group != key || !bytes.Equal(d.Body, body) || !maps.Equal(d.Attributes, m.Attributes) {
			t.Errorf("%+v became %+v, %v", m, d, err)
		}
	})
}

func TestNotes(t *testing.T) {
	first := time.UnixMilli(1790000000000)
	h := &held{d: &Delivery{FirstReceived: first}, reason: "no luck\nat all"}
	if n, at, reason := readNote(h.note(3)); n != 3 || !at.Equal(first) || reason != h.reason {
		t.Errorf("%d, %v, %q", n, at, reason)
	}
	if n, at, reason := readNote(""); n != 0 || !at.IsZero() || reason != "" {
		t.Errorf("%d, %v, %q", n, at, reason)
	}
}

func TestPositions(t *testing.T) {
	for want, p := range map[string]Position{
		"0": {}, "$": {End: true}, "41-18446744073709551615": {Time: time.UnixMilli(42)}, "5-6": {ID: "2:5-6"},
	} {
		part, id, err := p.check(3)
		if err != nil || id != want || (part == 2) != (p.ID != "") {
			t.Errorf("%+v: %d, %q, %v", p, part, id, err)
		}
	}
	if _, id, err := (Position{Time: time.UnixMilli(-5)}).check(1); err != nil || id != "0" {
		t.Errorf("%q, %v", id, err)
	}
}

// TestTooManyDead has no room among the dead letters: the entry comes again, and is not lost.
func TestTooManyDead(t *testing.T) {
	client := valkeytest.Start(t).Client()
	l, err := NewLog(client, LogConfig{Name: "l"})
	if err != nil {
		t.Fatal(err)
	}
	g, err := l.Group(GroupConfig{Name: "g"})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), Message{}); err != nil {
		t.Fatal(err)
	}
	ds, err := g.Receive(t.Context(), ReceiveOptions{Wait: time.Minute})
	if err != nil || len(ds) != 1 {
		t.Fatal(ds, err)
	}
	s := g.shares[0]
	_, id, _ := splitID(ds[0].ID)
	reply, err := s.on(t.Context(), logNack, "0", id, "d", "1 0 bad")
	if err != nil {
		t.Fatal(err)
	}
	if code, err := number(reply, 1); code != 2 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
	s.settled([]*settlingEntry{{h: s.entries[id], what: 'd'}}, []int64{2}, nil)
	if h := s.entries[id]; h == nil || h.stands != standsLater || !h.aside || time.Until(h.due) < 50*time.Second {
		t.Errorf("%+v", h)
	}
	if st, err := g.Stats(t.Context()); err != nil || st.Aside != 1 || st.Dead+st.Pending != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestMovesAsideAfterAck moves an entry aside that was acknowledged meanwhile: it stays gone.
func TestMovesAsideAfterAck(t *testing.T) {
	client := valkeytest.Start(t).Client()
	l, err := NewLog(client, LogConfig{Name: "l"})
	if err != nil {
		t.Fatal(err)
	}
	g, err := l.Group(GroupConfig{Name: "g"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), Message{}); err != nil {
		t.Fatal(err)
	}
	ds, err := g.Receive(t.Context(), ReceiveOptions{Wait: time.Minute})
	if err != nil || len(ds) != 1 {
		t.Fatal(ds, err)
	}
	s := g.shares[0]
	_, id, _ := splitID(ds[0].ID)
	h := s.entries[id]
	if err := g.Ack(t.Context(), ds[0].Receipt); err != nil {
		t.Fatal(err)
	}
	if err := s.moveAside(t.Context(), []*held{h}); err != nil {
		t.Fatal(err)
	}
	if st, err := g.Stats(t.Context()); err != nil || st.Aside+st.Pending != 0 || s.entries[id] != nil {
		t.Errorf("%+v, %v", st, err)
	}
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

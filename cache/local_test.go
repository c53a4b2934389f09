package cache

import (
	"errors"
	"testing"
	"time"
)

func localOf(t *testing.T) *local[string] {
	t.Helper()
	l, err := newLocal[string](LocalTier{Entries: 100, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.stop)
	l.whole.Store(true)
	return l
}

// TestLateFill puts what was read before a change: it must not be there afterwards.
func TestLateFill(t *testing.T) {
	for name, change := range map[string]func(l *local[string]){
		"the key":         func(l *local[string]) { l.drop("k") },
		"everything":      func(l *local[string]) { l.clear() },
		"who knows what":  func(l *local[string]) { l.doubt() },
		"its tag":         func(l *local[string]) { l.dropTag("t") },
		"nothing, really": func(*local[string]) {},
	} {
		l := localOf(t)
		before := l.mark("k", []string{"t"})
		change(l)
		l.put(before, "old", nil, time.Hour)
		if h := l.find("k", false); (h != nil) != (name == "nothing, really") {
			t.Errorf("%s changed: %+v", name, h)
		}
		l.put(l.mark("k", []string{"t"}), "new", nil, time.Hour)
		if h := l.find("k", false); h == nil || h.value != "new" {
			t.Errorf("%s: the next read: %+v", name, h)
		}
		change(l)
		if h := l.find("k", false); (h != nil) != (name == "nothing, really") {
			t.Errorf("%s changed after the put: %+v", name, h)
		}
	}
}

// TestUntold holds that an entry is served for a second without being told of changes, and for its TTL where nobody
// can be asked.
func TestUntold(t *testing.T) {
	l := localOf(t)
	l.limit.Store(0)
	l.put(l.mark("k", nil), "v", nil, time.Hour)
	if h := l.find("k", false); h != nil {
		t.Errorf("served unasked: %+v", h)
	}
	if h := l.find("k", true); h == nil || h.value != "v" {
		t.Errorf("nobody can be asked: %+v", h)
	}
	l.put(l.mark("short", nil), "v", nil, 2*tick)
	if h := l.find("short", true); h != nil {
		t.Errorf("the clock is no finer: %+v", h)
	}
}

// TestEntries writes and reads all that an entry can have.
func TestEntries(t *testing.T) {
	gen := "0123456789ABCDEF"
	for _, e := range []entry{
		{},
		{body: []byte("v")},
		{absent: true, took: time.Second},
		{failed: true, body: []byte("origin")},
		{compressed: true, kept: time.Hour, gens: []string{gen, gen}, body: []byte("\x00\xfa")},
		{took: maxTTL, kept: maxTTL},
	} {
		got, err := parseEntry([]byte(e.text()))
		if err != nil || got.text() != e.text() || got.absent != e.absent || got.failed != e.failed ||
			got.compressed != e.compressed || got.took != e.took || got.kept != e.kept || len(got.gens) != len(e.gens) {
			t.Errorf("%+v became %+v, %v", e, got, err)
		}
	}
	for text, want := range map[string]error{
		"": errForeign, "{": errForeign, "\xfa\x01": errForeign, "\xfa\x02\x00\x00\x00": errVersion, "\xfa\x01\xf0\x00\x00": errVersion,
		"\xfa\x01\x00": errForeign, "\xfa\x01\x00\x80": errForeign, "\xfa\x01\x08\x00\x00\x02short": errForeign,
		"\xfa\x01\x08\x00\x00\x11" + gen: errForeign, "\xfa\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00": errForeign,
	} {
		if _, err := parseEntry([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}

// FuzzEntry reads whatever lies under a key.
func FuzzEntry(f *testing.F) {
	f.Add([]byte(entry{body: []byte("v")}.text()))
	f.Add([]byte(entry{compressed: true, gens: []string{"0123456789ABCDEF"}, kept: time.Hour, took: time.Second}.text()))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry(b)
		if err != nil {
			return
		}
		again, err := parseEntry([]byte(e.text()))
		if err != nil || again.text() != e.text() {
			t.Errorf("%q: %+v, then %+v, %v", b, e, again, err)
		}
	})
}

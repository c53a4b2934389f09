package writebehind

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func FuzzParseEntry(f *testing.F) {
	f.Add([]byte("\xFB\x01P1790000000000000 {}"))
	f.Add([]byte("\xFB\x01D0 "))
	f.Add([]byte("\xFB\x01P-1 x"))
	f.Add([]byte("\xFB\x02P1 x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry(b)
		if err != nil {
			if !reflect.DeepEqual(e, entry{}) && !e.deleted {
				t.Errorf("%+v beside %v", e, err)
			}
			return
		}
		head := headPut
		if e.deleted {
			head = headDelete
		}
		again, err := parseEntry(fmt.Appendf(nil, "%s%d %s", head, e.version, e.body))
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%+v, %+v, %v", e, again, err)
		}
	})
}

func FuzzParseLetter(f *testing.F) {
	f.Add("1790000000000000 1790000000000 3 4 oops\xFB\x01P1 x")
	f.Add("1 2 3 99 short")
	f.Add("1 2 3 -1 x")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseLetter(text)
		if err == nil && !strings.HasSuffix(text, l.reason+string(l.value)) {
			t.Errorf("%q: %+v", text, l)
		}
	})
}

func FuzzParseState(f *testing.F) {
	f.Add("0 0 1790000000000 12 1790000000000000 1 1 5 1790000000001 connection refused")
	f.Add("1 2 3 4 5 6 7 8 9")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parseState(text); err == nil && !strings.HasSuffix(text, s.reason) {
			t.Errorf("%q: %+v", text, s)
		}
	})
}

func TestSplit(t *testing.T) {
	var items []item[int]
	for tries, n := range []int{250, 120, 30, 0, 7} {
		for range n {
			items = append(items, item[int]{tries: tries})
		}
	}
	items = append(items, item[int]{tries: 1000}, item[int]{tries: 12})
	var sizes []int
	for _, part := range split(items, 100) {
		sizes = append(sizes, len(part))
	}
	if want := []int{100, 100, 50, 50, 50, 20, 25, 5, 6, 1, 1, 1}; !reflect.DeepEqual(sizes, want) {
		t.Errorf("%v, want %v", sizes, want)
	}
}

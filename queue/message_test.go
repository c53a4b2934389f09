package queue

import "testing"

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

package writebehind

import (
	"slices"
	"testing"

	"github.com/flatrate/flatrate/internal/key/keytable"
)

func TestKeyTable(t *testing.T) {
	keys, err := newKeySpace("", "NAME", 16)
	if err != nil {
		t.Fatal(err)
	}
	part := func(name string) string { return keys.space.Part("NAME:P", name) }
	keytable.Check(t, part("val:KEY"), part("fill:KEY"), part("log"), part("due"), part("flight"), part("dead"), part("own"), keys.layout())
	at := keys.places[7]
	got := []string{at.value("a:{b}"), at.fill(""), at.log, at.due, at.flight, at.dead, at.own, keys.layout()}
	want := []string{
		"fr:behind:{NAME:7}:val:a:%7Bb%7D", "fr:behind:{NAME:7}:fill:%", "fr:behind:{NAME:7}:log", "fr:behind:{NAME:7}:due",
		"fr:behind:{NAME:7}:flight", "fr:behind:{NAME:7}:dead", "fr:behind:{NAME:7}:own", "fr:behind:{NAME}:layout",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the layout is a public contract: %q, want %q", got, want)
	}
	if p := keys.partition("user:42"); p != 11 { // its SHA-256 begins with ea3fd43b
		t.Errorf("user:42 is in partition %d", p)
	}
}

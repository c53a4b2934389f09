package ratelimit

import (
	"testing"

	"github.com/flatrate/flatrate/internal/key/keytable"
)

func TestKeyTable(t *testing.T) {
	keys, err := keySpace("", "NAME", "SHAPE")
	if err != nil {
		t.Fatal(err)
	}
	unnamed, err := keySpace("", "", "SHAPE")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := unnamed.Key("SUBJECT"), "fr:rate:SHAPE:{SUBJECT}"; got != want {
		t.Errorf("the layout is a public contract: %s, want %s", got, want)
	}
	keytable.Check(t, keys.Key("SUBJECT"), keys.Key("SUBJECT")+heldPart)
	if got, want := keys.Key("SUBJECT"), "fr:rate:NAME:SHAPE:{SUBJECT}"; got != want {
		t.Errorf("the layout is a public contract: %s, want %s", got, want)
	}
}

package cache

import (
	"testing"

	"github.com/flatrate/flatrate/internal/key/keytable"
)

func TestKeyTable(t *testing.T) {
	keys, err := keySpace("", "NAME")
	if err != nil {
		t.Fatal(err)
	}
	keytable.Check(t, keys.Key("KEY"))
	if got, want := keys.Key("KEY"), "fr:cache:NAME:{KEY}"; got != want {
		t.Errorf("the layout is a public contract: %s, want %s", got, want)
	}
}

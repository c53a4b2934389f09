package lock

import (
	"testing"

	"github.com/flatrate/flatrate/internal/key/keytable"
)

func TestKeyTable(t *testing.T) {
	keys, err := keySpace("")
	if err != nil {
		t.Fatal(err)
	}
	keytable.Check(t, keys.Key("NAME"))
	if got, want := keys.Key("NAME"), "fr:lock:{NAME}"; got != want {
		t.Errorf("the layout is a public contract: %s, want %s", got, want)
	}
}

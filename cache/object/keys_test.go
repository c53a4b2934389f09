package object

import (
	"testing"

	"github.com/flatrate/flatrate/internal/key/keytable"
)

func TestKeyTable(t *testing.T) {
	keys, err := newKeySpace("", "NAME")
	if err != nil {
		t.Fatal(err)
	}
	keytable.Check(t, keys.Key("KEY"))
	if got := keys.Key("KEY"); got != "fr:obj:NAME:{KEY}" {
		t.Errorf("the layout is a public contract: %q", got)
	}
}

package meter

import (
	"testing"

	"github.com/flatrate/flatrate/internal/key/keytable"
)

func TestKeyTable(t *testing.T) {
	keys, err := newKeySpace("")
	if err != nil {
		t.Fatal(err)
	}
	day, seen := keys.day("NAME", "DATE"), keys.seen("NAME", "TOKEN")
	keytable.Check(t, day, seen)
	if day != "fr:meter:{NAME}:day:DATE" || seen != "fr:meter:{NAME}:seen:TOKEN" {
		t.Errorf("the layout is a public contract: %s, %s", day, seen)
	}
}

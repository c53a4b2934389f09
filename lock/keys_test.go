package lock

import (
	"strings"
	"testing"

	"github.com/flatrate/flatrate/internal/key/keytable"
)

func TestKeyTable(t *testing.T) {
	keys, err := newKeySpace("")
	if err != nil {
		t.Fatal(err)
	}
	table := []string{keys.fence("TAG"), keys.key("TAG", "gone", "TOKEN")}
	for _, part := range []string{"own", "wait", "place", "sem", "semwait", "semplace", "rw", "rwwait", "rwplace", "red"} {
		table = append(table, keys.key("TAG", part, "NAME"))
	}
	keytable.Check(t, table...)
	const want = "fr:lock:{TAG}:fence fr:lock:{TAG}:gone:TOKEN fr:lock:{TAG}:own:NAME fr:lock:{TAG}:wait:NAME fr:lock:{TAG}:place:NAME " +
		"fr:lock:{TAG}:sem:NAME fr:lock:{TAG}:semwait:NAME fr:lock:{TAG}:semplace:NAME " +
		"fr:lock:{TAG}:rw:NAME fr:lock:{TAG}:rwwait:NAME fr:lock:{TAG}:rwplace:NAME fr:lock:{TAG}:red:NAME"
	if got := strings.Join(table, " "); got != want {
		t.Errorf("the layout is a public contract: %s, want %s", got, want)
	}
	// SHA-256("abc") begins with ba 78 (FIPS 180-4): 1011101001 is 745.
	if got := tag("abc"); got != "745" {
		t.Errorf("tag: %s, want 745", got)
	}
}

package session

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/flatrate/flatrate/internal/key/keytable"
)

func TestKeyTable(t *testing.T) {
	keys, err := keySpace("")
	if err != nil {
		t.Fatal(err)
	}
	keytable.Check(t, keys.Key("TOKEN"))
	if got, want := keys.Key("TOKEN"), "fr:sess:{TOKEN}"; got != want {
		t.Errorf("the layout is a public contract: %s, want %s", got, want)
	}
	// The first 16 bytes of SHA-256("abc") are ba7816bf 8f01cfea 414140de 5dae2223 (FIPS 180-4).
	if got, want := digest("abc"), "ungWv48Bz-pBQUDeXa4iIw"; got != want {
		t.Errorf("digest: %s, want %s", got, want)
	}
}

func TestWellFormed(t *testing.T) {
	for range 1000 {
		if token := rand.Text(); !wellFormed(token) {
			t.Fatalf("%q is a token", token)
		}
	}
	for _, token := range []string{"", "A", strings.Repeat("A", 25), strings.Repeat("A", 27), strings.Repeat("a", 26), strings.Repeat("A", 25) + "\n", strings.Repeat("A", 25) + "1"} {
		if wellFormed(token) {
			t.Errorf("%q is no token", token)
		}
	}
}
